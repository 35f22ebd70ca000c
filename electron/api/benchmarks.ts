/**
 * @file Comparisons of editors on this machine: folders that record them, run one after the other in the second engine, and the samples
 * they recorded, looked through.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, open, readdir, realpath, rm, stat } from 'node:fs/promises';
import { basename, dirname, isAbsolute, join } from 'node:path';
import { z } from 'zod';
import { demandEditor, editorKinds } from '../editors/registry.ts';
import { hasScope } from '../editors/scope/openScope.ts';
import type { MeasurementRequest } from '../engine/benchmarking.ts';
import { EmendError } from '../errors.ts';
import {
  type Contender,
  compareContenders,
  contendersOf,
  type MeasuredEdits,
  recordedSamples,
} from '../evaluation/comparing.ts';
import { comparisonCsv } from '../evaluation/comparisonReport.ts';
import { type EditingSet, findPicture, readEditingSet } from '../evaluation/editingSet.ts';
import { neededForTraining } from '../evaluation/editSource.ts';
import { type ComparedSample, findSamples, samplesCsv } from '../evaluation/samples.ts';
import { readJson } from '../files/json.ts';
import { readPictureFile } from '../files/picture.ts';
import { pictureDecoder } from '../files/pictureDecoder.ts';
import { replaceFile } from '../files/replaceFile.ts';
import { readSettings } from '../library/settings.ts';
import { THUMBNAIL_SIDE } from '../library/thumbnails.ts';
import type { WeightForm } from '../models/packed/form.ts';
import { adaptersOf } from './adapters.ts';
import {
  type Benchmark,
  type BenchmarkCandidate,
  type BenchmarkRequest,
  type BenchmarkSample,
  type CallInput,
  type CallOutput,
  Comparison,
  type MeasuredAt,
  type SampleFilter,
  type SampleSort,
} from './contract.ts';
import type { EngineClient } from './engineClient.ts';
import type { Parts } from './parts.ts';
import { type CallContext, wireError } from './router.ts';

/** Reports are this large at most, in bytes. */
const LARGEST_REPORT = 64 * 1024 * 1024;
/** Lists of samples, and thumbnails, that are held. */
const HELD_LISTS = 4;
const HELD_THUMBNAILS = 1000;

export interface BenchmarksOptions extends Pick<Parts, 'session' | 'events' | 'library' | 'resources'> {
  /** the engine that measures; not the one that answers */
  readonly engine: EngineClient;
  readonly adaptersFolder: string;
  /** of the records */
  readonly folder: string;
  readonly version: string;
}

/** What benchmark.json says of a comparison that is made here. */
interface MadeHere {
  readonly request: BenchmarkRequest;
  readonly model: {
    readonly path: string;
    readonly name: string;
    readonly weights: WeightForm;
    readonly mostPictureRows?: number | undefined;
  };
  readonly template: 'plain' | 'chat';
  readonly maxNewTokens: number;
  readonly scopeFolder: string | null;
  readonly contenders: readonly Contender[];
  readonly created: string;
  readonly leftOut: number;
  readonly done: boolean;
  /** why it ended before all was tried, where nobody stopped it */
  readonly failed?: string | undefined;
}
/** And of one that was made elsewhere. */
interface Opened {
  readonly opened: string;
  readonly created: string;
}
const Recorded = z.union([
  z.looseObject({ request: z.looseObject({}), contenders: z.array(z.looseObject({})), created: z.string() }),
  z.looseObject({ opened: z.string(), created: z.string() }),
]);

type Thumbnails = CallOutput<'benchmarks.thumbnails'>;

export class Benchmarks {
  readonly #options: BenchmarksOptions;
  readonly #running = new Map<string, string>();
  readonly #samples = new Map<string, readonly BenchmarkSample[] | null>();
  readonly #thumbnails = new Map<string, Thumbnails[number]>();

  constructor(options: BenchmarksOptions) {
    this.#options = options;
  }

  /** Latest first; folders that hold no comparison are passed over. */
  async list(): Promise<Benchmark[]> {
    const names = await readdir(this.#options.folder).catch(() => []);
    const found = await Promise.all(names.map((id) => this.#describe(id).catch(() => null)));
    return found.filter((one) => one !== null).toSorted((a, b) => b.created.localeCompare(a.created));
  }

  /** @throws EmendError 'not-found', 'damaged' */
  async read(id: string): Promise<{ benchmark: Benchmark; comparison: Comparison | null }> {
    return { benchmark: await this.#describe(id), comparison: await this.#comparison(id) };
  }

  async candidates(): Promise<BenchmarkCandidate[]> {
    const adapters = await this.#adapters();
    return editorKinds.map(({ name, acts, untrained }) => ({
      ...{ editor: name, acts, trains: untrained === undefined },
      adapters: adapters.filter(({ editor }) => editor === name).map(({ folder }) => basename(folder)),
    }));
  }

  /** Reads a data set through and says what is in it. */
  async dataSet(input: CallInput<'benchmarks.dataSet'>): Promise<CallOutput<'benchmarks.dataSet'>> {
    const { data, format, images, use } = input;
    const needs = use === 'training' ? neededForTraining : [];
    const set = await readEditingSet(data, { format, images, needs });
    const counts = new Map<string, number>();
    for (const { probes } of set.records)
      for (const kind of new Set(probes.map((probe) => probe.kind)))
        counts.set(kind, (counts.get(kind) ?? 0) + 1);
    return {
      format: set.format,
      edits: set.records.length,
      probes: [...counts].map(([kind, edits]) => ({ kind, edits })),
      leftOut: set.wrong.count,
      problems: [...set.wrong.problems].slice(0, 100),
    };
  }

  /** Measures editors on the open model. @throws EmendError what is wrong with the request; 'cancelled' stopped it */
  async start(request: BenchmarkRequest, context: CallContext): Promise<Benchmark> {
    const { session, library } = this.#options;
    const { path, name, weights, pictureRows } = await session.demandModel();
    if (request.at.some((size, place) => size <= (request.at[place - 1] ?? 0)))
      throw new EmendError('invalid-input', 'Give numbers of edits in rising order, such as 1, 10, 100.');
    const set = await readSet(request);
    const most = request.at.at(-1)!;
    if (request.seeds !== undefined && request.limit >= set.records.length)
      throw new EmendError(
        'invalid-input',
        `Draws of ${request.limit} edits are all the same where the set has ${set.records.length}. Ask for fewer in each.`,
      );
    if (most > set.records.length)
      throw new EmendError(
        'invalid-input',
        `${basename(set.path)} has ${set.records.length} edits that can be used, and ${most} are to act together. Ask for fewer.`,
      );
    const adapters = await this.#adapters();
    const scopeFolder =
      (await session.scopeFolderOf(path)) ?? (await firstScope(adapters.map(({ folder }) => folder)));
    const router = scopeFolder === null ? 'cosine' : 'learned';
    const contenders = contendersOf(request.editors.map(demandEditor), adapters, router);
    if (contenders.length === 0)
      throw new EmendError(
        'not-found',
        `None of these editors has an adapter that fits ${name}: ${request.editors.join(', ')}. Train one first.`,
      );
    const id = `${new Date().toISOString().slice(0, 19).replaceAll(/[:T]/g, '-')}-${randomBytes(2).toString('hex')}`;
    const { promptTemplate: template, maxNewTokens } = readSettings(library);
    const record: MadeHere = {
      ...{ request, contenders, scopeFolder, created: new Date().toISOString(), done: false },
      model: { path, name, weights, mostPictureRows: pictureRows.limit ?? undefined },
      ...{ template, maxNewTokens },
      leftOut: set.wrong.count,
    };
    await this.#write(id, record);
    return this.#run(id, record, set, context);
  }

  /** Goes on with what was stopped, or failed. @throws EmendError 'conflict' for one that runs or was made elsewhere */
  async resume(id: string, context: CallContext): Promise<Benchmark> {
    this.#demandStill(id);
    const record = await this.#record(id);
    if ('opened' in record)
      throw new EmendError('conflict', 'This comparison was made elsewhere: go on with it there.');
    return this.#run(id, record, await readSet(record.request), context);
  }

  /** Lists a comparison made elsewhere. @throws EmendError 'not-found', 'damaged' */
  async openReport(path: string): Promise<Benchmark> {
    if (!isAbsolute(path))
      throw new EmendError('invalid-input', `${path} is not a whole path. Give one that begins at the root.`);
    const real = await realpath(path).catch((cause) => {
      throw new EmendError('not-found', `There is nothing at ${path}. Check the path.`, { cause });
    });
    const folder = (await stat(real)).isDirectory() ? real : dirname(real);
    await readComparison(folder);
    for (const one of await this.list()) if (one.folder === folder) return one;
    const id = `opened-${randomBytes(4).toString('hex')}`;
    await this.#write(id, { opened: folder, created: new Date().toISOString() });
    this.#changed(id);
    return this.#describe(id);
  }

  /** @throws EmendError 'conflict' while it runs */
  async remove(id: string): Promise<void> {
    this.#demandStill(id);
    await rm(join(this.#options.folder, id), { recursive: true, force: true });
    this.#forget(id);
    this.#changed(id);
  }

  async samples({
    offset = 0,
    limit = 100,
    ...choice
  }: CallInput<'benchmarks.samples'>): Promise<CallOutput<'benchmarks.samples'>> {
    const found = await this.#find(choice);
    if (!found) return { total: null, all: 0, samples: [] };
    return {
      ...{ total: found.list.length, all: found.all },
      samples: found.list.slice(offset, offset + limit),
    };
  }

  async thumbnails({ benchmark, pictures }: CallInput<'benchmarks.thumbnails'>): Promise<Thumbnails> {
    const images = (await this.#comparison(benchmark))?.data.images;
    if (images === undefined) return [];
    const root = await realpath(join(await this.#folderOf(benchmark), images)).catch(() => null);
    if (root === null) return [];
    const made: Thumbnails = [];
    for (const picture of new Set(pictures)) {
      const key = `${root}\n${picture}`;
      const known = this.#thumbnails.get(key) ?? (await thumbnailOf(root, picture));
      if (known === null) continue;
      hold(this.#thumbnails, key, known, HELD_THUMBNAILS);
      made.push(known);
    }
    return made;
  }

  /** Writes the table, or samples, to a new file. @throws EmendError 'conflict' for one that is there */
  async export({ benchmark, format, file, samples }: CallInput<'benchmarks.export'>): Promise<{
    file: string;
    lines: number;
  }> {
    if (!isAbsolute(file))
      throw new EmendError('invalid-input', `${file} is not a whole path. Give one that begins at the root.`);
    const { text, lines } = samples
      ? sampleText((await this.#find({ benchmark, ...samples }))?.list ?? [], format)
      : tableText(await this.#demandComparison(benchmark), format);
    try {
      const handle = await open(file, 'wx');
      await handle.writeFile(text).finally(() => handle.close());
    } catch (cause) {
      const { code } = cause as NodeJS.ErrnoException;
      if (code === 'EEXIST')
        throw new EmendError('conflict', `${file} is there already. Choose a file that is not.`, { cause });
      throw new EmendError('not-found', `${file} cannot be written (${code}).`, { cause });
    }
    return { file, lines };
  }

  async #run(id: string, record: MadeHere, set: EditingSet, context: CallContext): Promise<Benchmark> {
    const { engine, session, version, events } = this.#options;
    const { request, contenders } = record;
    const folder = join(this.#options.folder, id);
    this.#running.set(id, context.job);
    context.report.subject(basename(request.data));
    this.#changed(id);
    let now = '';
    const tell = (stage: string, done: number, total: number | null, unit: string) =>
      events.emit({ name: 'job.progress', payload: { job: context.job, stage, done, total, unit } });
    try {
      const comparison = await compareContenders({
        ...{ contenders, set, at: request.at, limit: request.limit, limitProbes: request.limitProbes },
        seeds: request.seeds,
        ...{ folder, emend: version, command: commandOf(record, folder), signal: context.signal },
        identity: (contender, edits) => measurementOf(record, contender, edits, []),
        measure: async (contender, edits, path) => {
          const input = {
            request: measurementOf(record, contender, edits, session.providers),
            ...{ emend: version, packed: session.packedCache, out: path },
          };
          await engine.call('measure', input, {
            signal: context.signal,
            onStream: (message) => {
              if (message.kind !== 'progress') return;
              tell(`${now}: ${message.stage}`, message.done, message.total, message.unit);
            },
          });
        },
        onProgress: (done, total, { editor, scope }) => {
          now = `${editor}, ${scope} (${done + 1} of ${total})`;
          tell(now, 0, null, '');
        },
        onReport: () => {
          this.#forget(id);
          this.#changed(id);
        },
      });
      await this.#write(id, { ...record, done: true, failed: undefined });
      const failed = comparison.editors.filter((row) => row.failed !== null).length;
      context.report.outcome(
        `${contenders.length - failed} of ${contenders.length} were measured. The report lies in ${folder}.`,
      );
    } catch (error) {
      // A disk that is full may refuse this too; the caller is told in any case.
      if (!context.signal.aborted)
        await this.#write(id, { ...record, failed: wireError(error).message }).catch(() => undefined);
      throw error;
    } finally {
      this.#running.delete(id);
      this.#changed(id);
    }
    return this.#describe(id);
  }

  async #describe(id: string): Promise<Benchmark> {
    const record = await this.#record(id);
    const comparison = await this.#comparison(id);
    const measured = comparison?.editors.length ?? 0;
    const failedRows = comparison?.editors.filter((row) => row.failed !== null).length ?? 0;
    const job = this.#running.get(id) ?? null;
    if ('opened' in record) {
      const { model, data, sizes } = await this.#demandComparison(id);
      return {
        ...{ id, model: model.name, data: data.name, created: record.created, state: 'opened', job: null },
        ...{ measured, total: null, sizes, folder: record.opened, leftOut: 0, failed: null, failedRows },
      };
    }
    const { model, request, contenders, created, done, leftOut, failed = null } = record;
    return {
      ...{ id, model: model.name, data: basename(request.data), created, job, measured, leftOut },
      state: job === null ? (done ? 'done' : 'stopped') : 'running',
      ...{ failed: job === null ? failed : null, failedRows },
      ...{ total: contenders.length, sizes: request.at, folder: join(this.#options.folder, id) },
    };
  }

  /** The samples that match, and how many there are; null where none were recorded. */
  async #find({
    benchmark,
    of,
    against,
    filter = {},
    sort = { by: 'row', descending: false },
  }: {
    benchmark: string;
    of: MeasuredAt;
    against?: MeasuredAt | undefined;
    filter?: SampleFilter | undefined;
    sort?: SampleSort | undefined;
  }): Promise<{ all: number; list: ComparedSample[] } | null> {
    const samples = await this.#samplesOf(benchmark, of);
    if (!samples) return null;
    const others = against ? await this.#samplesOf(benchmark, against) : null;
    return { all: samples.length, list: findSamples(samples, others, filter, sort) };
  }

  async #samplesOf(id: string, { editor, edits }: MeasuredAt): Promise<readonly BenchmarkSample[] | null> {
    const key = `${id} ${editor} ${edits}`;
    const held = this.#samples.get(key);
    if (held !== undefined) return held;
    const row = (await this.#demandComparison(id)).editors[editor];
    if (!row) throw new EmendError('not-found', 'This comparison has no such editor. Read it again.');
    const found = await recordedSamples(await this.#folderOf(id), row, edits);
    hold(this.#samples, key, found, HELD_LISTS);
    return found;
  }

  async #comparison(id: string): Promise<Comparison | null> {
    const folder = await this.#folderOf(id);
    const there = await stat(join(folder, 'report.json')).catch(() => null);
    return there ? readComparison(folder) : null;
  }

  async #demandComparison(id: string): Promise<Comparison> {
    const comparison = await this.#comparison(id);
    if (comparison) return comparison;
    throw new EmendError('not-found', 'Nothing is measured of this comparison yet.');
  }

  /** Where its reports lie. */
  async #folderOf(id: string): Promise<string> {
    const record = await this.#record(id);
    return 'opened' in record ? record.opened : join(this.#options.folder, id);
  }

  async #record(id: string): Promise<MadeHere | Opened> {
    const path = join(this.#options.folder, id, 'benchmark.json');
    const parsed = Recorded.safeParse(await readJson(path));
    if (!parsed.success)
      throw new EmendError('damaged', `${path} does not describe a comparison. Remove the folder.`);
    // It was written by this program.
    return parsed.data as unknown as MadeHere | Opened;
  }

  async #write(id: string, record: MadeHere | Opened): Promise<void> {
    const folder = join(this.#options.folder, id);
    await mkdir(folder, { recursive: true });
    const text = `${JSON.stringify(record, null, 1)}\n`;
    await replaceFile(join(folder, 'benchmark.json'), (handle) => handle.writeFile(text));
  }

  /** Adapters that fit the open model, each with its editor. */
  async #adapters(): Promise<Array<{ folder: string; editor: string }>> {
    const model = await this.#options.session.demandModel();
    const found = await adaptersOf(model, this.#options);
    return found.filter(({ fits }) => fits).map(({ path, editor }) => ({ folder: path, editor }));
  }

  #forget(id: string): void {
    for (const key of this.#samples.keys()) if (key.startsWith(`${id} `)) this.#samples.delete(key);
  }

  #changed(id: string): void {
    this.#options.events.emit({ name: 'benchmark.changed', payload: { benchmark: id } });
  }

  #demandStill(id: string): void {
    if (this.#running.has(id)) throw new EmendError('conflict', 'This comparison runs. Stop it first.');
  }
}

const readSet = ({ data, format, images }: BenchmarkRequest) => readEditingSet(data, { format, images });

/** The first folder in which a learned scope lies. */
async function firstScope(folders: readonly string[]): Promise<string | null> {
  for (const folder of folders) if (await hasScope(folder)) return folder;
  return null;
}

/** Keeps a value at the end of a map, which then drops its oldest. */
function hold<T>(map: Map<string, T>, key: string, value: T, most: number): void {
  map.delete(key);
  map.set(key, value);
  if (map.size > most) map.delete(map.keys().next().value!);
}

async function readComparison(folder: string): Promise<Comparison> {
  const path = join(folder, 'report.json');
  const parsed = Comparison.safeParse(await readJson(path, LARGEST_REPORT));
  if (parsed.success) return parsed.data;
  const { path: at, message } = parsed.error.issues[0]!;
  throw new EmendError(
    'damaged',
    `${path} is no comparison of editors (${at.join('.')}: ${message}). Give the folder that "emend bench --editor all" wrote with --out.`,
  );
}

async function thumbnailOf(root: string, picture: string): Promise<Thumbnails[number] | null> {
  try {
    const file = await readPictureFile(await findPicture(root, picture, `"${picture}"`));
    const { thumbnail } = await pictureDecoder.examine(file, THUMBNAIL_SIDE);
    return { picture, mime: thumbnail.mime, base64: Buffer.from(thumbnail.data).toString('base64') };
  } catch (error) {
    if (error instanceof EmendError) return null;
    throw error;
  }
}

function measurementOf(
  { request, model, template, maxNewTokens, scopeFolder }: MadeHere,
  { adapter, editor, scoped, form }: Contender,
  edits: MeasuredEdits,
  providers: MeasurementRequest['providers'],
): MeasurementRequest {
  const { data, format, images, limit, limitProbes } = request;
  return {
    ...{ model: model.path, weights: model.weights, mostPictureRows: model.mostPictureRows },
    ...{ adapter, ...(adapter === null && { editor: { editor, settings: {} } }), scope: form ?? undefined },
    ...{ scopeFolder: scopeFolder ?? undefined, providers, template, data, format, images, limitProbes },
    ...(edits === 'single'
      ? { limit, seeds: request.seeds, at: null }
      : { limit: undefined, at: request.at.filter((size) => size > 1) }),
    ...{ scoped, reach: 'picture', suffix: '', textSuffix: '', maxNewTokens, seed: 1 },
  };
}

/** The command that measures the same. */
function commandOf({ request, model, template, maxNewTokens, contenders }: MadeHere, out: string): string {
  const quoted = (text: string) => (/^[\w./:,-]+$/u.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
  const { editors, data, format, images, at, limit, limitProbes } = request;
  const adapters = [...new Set(contenders.flatMap(({ adapter }) => adapter ?? []))];
  return [
    'npx emend bench',
    `--editor ${quoted(editors.length === 1 ? `${editors[0]},` : editors.join(','))}`,
    `--model ${quoted(model.path)} --data ${quoted(data)}`,
    ...(format ? [`--format ${format}`] : []),
    ...(images ? [`--images ${quoted(images)}`] : []),
    `--at ${at.join(',')} --limit ${limit} --limit-probes ${limitProbes} --max-new-tokens ${maxNewTokens}`,
    ...(request.seeds ? [`--seeds ${request.seeds}`] : []),
    ...(model.weights === 'dense' ? [] : [`--weights ${model.weights}`]),
    ...(template === 'plain' ? [] : [`--template ${template}`]),
    ...(adapters.length > 0 ? [`--adapters ${adapters.map(quoted).join(' ')}`] : []),
    `--out ${quoted(out)}`,
  ].join(' ');
}

function sampleText(
  found: readonly ComparedSample[],
  format: 'csv' | 'json',
): { text: string; lines: number } {
  const text = format === 'csv' ? samplesCsv(found) : `${JSON.stringify(found, null, 1)}\n`;
  return { text, lines: found.length };
}

function tableText(comparison: Comparison, format: 'csv' | 'json'): { text: string; lines: number } {
  const text = format === 'csv' ? comparisonCsv(comparison) : `${JSON.stringify(comparison, null, 1)}\n`;
  return { text, lines: comparison.editors.length };
}
