/**
 * @file Benchmarks of this machine: folders that record them, a comparison of editors for every model and data set, run one after the other
 * beside the engine that answers, and the samples they recorded, looked through.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, open, realpath, rm, stat } from 'node:fs/promises';
import { basename, dirname, isAbsolute, join } from 'node:path';
import { z } from 'zod';
import { demandEditor } from '../editors/registry.ts';
import { hasScope } from '../editors/scope/openScope.ts';
import type { MeasurementRequest } from '../engine/benchmarking.ts';
import { EmendError } from '../errors.ts';
import {
  type ComparisonPlan,
  type Contender,
  compareEach,
  contendersOf,
  type MeasuredEdits,
  type MeasurementStep,
  overviewFolders,
  partFolder,
  recordedSamples,
} from '../evaluation/comparing.ts';
import { comparisonCsv } from '../evaluation/comparisonReport.ts';
import { type EditingSet, findPicture, readEditingSet } from '../evaluation/editingSet.ts';
import { neededForTraining } from '../evaluation/editSource.ts';
import { overviewCsv } from '../evaluation/overview.ts';
import { type ComparedSample, findSamples, samplesCsv } from '../evaluation/samples.ts';
import { readJson } from '../files/json.ts';
import { readPictureFile } from '../files/picture.ts';
import { pictureDecoder } from '../files/pictureDecoder.ts';
import { replaceFile } from '../files/replaceFile.ts';
import { readSettings } from '../library/settings.ts';
import { THUMBNAIL_SIDE } from '../library/thumbnails.ts';
import {
  type Benchmark,
  type BenchmarkModel,
  type BenchmarkOverview,
  type BenchmarkPart,
  type BenchmarkRequest,
  type BenchmarkSample,
  type CallInput,
  type CallOutput,
  Comparison,
  type MeasuredAt,
  type SampleFilter,
  type SampleSort,
} from './contract.ts';
import type { EngineCallOptions } from './engineClient.ts';
import type { EnginePool } from './enginePool.ts';
import { type MeasuredModel, measurableModels, measurableOn, measuredModel } from './measurable.ts';
import type { Parts } from './parts.ts';
import { type CallContext, wireError } from './router.ts';
import { latestFirst, newRunId, recordedRuns } from './runFolders.ts';
import { shellQuoted } from './typedPath.ts';

/** Reports are this large at most, in bytes. */
const LARGEST_REPORT = 64 * 1024 * 1024;
/** Lists of samples, and thumbnails, that are held. */
const HELD_LISTS = 4;
const HELD_THUMBNAILS = 1000;

export interface BenchmarksOptions extends Pick<Parts, 'session' | 'events' | 'library' | 'resources'> {
  /** the engines that measure; not the one that answers */
  readonly engines: EnginePool;
  readonly adaptersFolder: string;
  /** of the records */
  readonly folder: string;
  readonly version: string;
}

type DataSetFile = BenchmarkRequest['sets'][number];

/** A comparison of a benchmark: on a model, with a data set. */
interface Part {
  /** of its reports, in the benchmark's; '' where there is one part and it is that */
  readonly folder: string;
  readonly model: MeasuredModel;
  readonly set: DataSetFile;
  readonly scopeFolder: string | null;
  readonly contenders: readonly Contender[];
  readonly refused: BenchmarkPart['refused'];
  readonly leftOut: number;
}
/** What benchmark.json says of a benchmark that is made here. */
interface MadeHere {
  readonly request: Omit<BenchmarkRequest, 'models' | 'sets'>;
  readonly parts: readonly Part[];
  readonly template: 'plain' | 'chat';
  readonly maxNewTokens: number;
  readonly created: string;
  readonly done: boolean;
  /** why it ended before all was tried, where nobody stopped it */
  readonly failed?: string | undefined;
}
/** What it said when a benchmark was of one model and one data set. */
interface OfOnePart extends Omit<MadeHere, 'parts'>, Omit<Part, 'folder' | 'set' | 'refused'> {
  readonly request: MadeHere['request'] & DataSetFile;
}
/** And of one that was made elsewhere. */
interface Opened {
  readonly opened: string;
  readonly created: string;
}
const Recorded = z.union([
  z.looseObject({
    request: z.looseObject({}),
    parts: z.array(z.looseObject({})).min(1),
    created: z.string(),
  }),
  z.looseObject({ request: z.looseObject({}), contenders: z.array(z.looseObject({})), created: z.string() }),
  z.looseObject({ opened: z.string(), created: z.string() }),
]);

function ofParts({ request, template, maxNewTokens, created, done, failed, ...part }: OfOnePart): MadeHere {
  const { data, format, images, ...asked } = request;
  return {
    ...{ request: asked, template, maxNewTokens, created, done, failed },
    parts: [{ ...part, folder: '', set: { data, format, images }, refused: [] }],
  };
}

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
    return latestFirst(await recordedRuns(this.#options.folder), (id) => this.#describe(id));
  }

  /** @throws EmendError 'not-found', 'damaged' */
  async read(
    id: string,
    part: number,
  ): Promise<{ benchmark: Benchmark; comparison: Comparison | null; overview: BenchmarkOverview }> {
    const { folders } = await this.#open(id);
    return {
      ...{ benchmark: await this.#describe(id), comparison: await this.#comparison(id, part) },
      overview: folders.length > 1 ? await this.#overview(id) : [],
    };
  }

  models(): Promise<BenchmarkModel[]> {
    return measurableModels(this.#options);
  }

  async candidates(path?: string): Promise<CallOutput<'benchmarks.candidates'>> {
    const of = path ?? (await this.#options.session.demandModel()).path;
    const { editors, warning } = await measurableOn(await measuredModel(of, this.#options), this.#options);
    return { editors, warning };
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

  /** Measures editors on models with data sets. @throws EmendError what is wrong with the request; 'cancelled' stopped it */
  async start({ models, sets, ...request }: BenchmarkRequest, context: CallContext): Promise<Benchmark> {
    const { session, library } = this.#options;
    if (request.at.some((size, place) => size <= (request.at[place - 1] ?? 0)))
      throw new EmendError('invalid-input', 'Give numbers of edits in rising order, such as 1, 10, 100.');
    const paths = models ?? [(await session.demandModel()).path];
    const read = new Map<DataSetFile, EditingSet>();
    for (const set of sets) read.set(set, await readSet(set));
    for (const set of read.values()) demandEdits(set, request);
    const parts = await this.#partsOf(request.editors, paths, read);
    const id = newRunId();
    const { promptTemplate: template, maxNewTokens } = readSettings(library);
    const created = new Date().toISOString();
    const record: MadeHere = { ...{ request, parts, created, done: false, template, maxNewTokens } };
    await this.#write(id, record);
    return this.#run(id, record, context);
  }

  /**
   * The comparisons of a request, models first.
   * @throws EmendError 'not-found' for no editor or no model; 'invalid-input' for an editor that can act on none of the models, and for
   *   a model or set that is named twice
   */
  async #partsOf(
    editors: readonly string[],
    paths: readonly string[],
    sets: ReadonlyMap<DataSetFile, EditingSet>,
  ): Promise<Part[]> {
    const names = editors.map((name) => demandEditor(name).name);
    const models = await Promise.all(paths.map((path) => measuredModel(path, this.#options)));
    demandOnce(models.map(({ path }) => path));
    demandOnce([...sets.values()].map(({ path }) => path));
    const parts: Part[] = [];
    for (const model of models) {
      const { kinds, adapters, editors: candidates } = await measurableOn(model, this.#options);
      const chosen = names.flatMap((name) => kinds.find((kind) => kind.name === name) ?? []);
      const refused = candidates.flatMap(({ editor, refused: reason }) =>
        reason !== null && names.includes(editor) ? [{ editor, reason }] : [],
      );
      const scopeFolder =
        (await this.#options.session.scopeFolderOf(model.path)) ??
        (await firstScope(adapters.map(({ folder }) => folder)));
      const contenders = contendersOf(chosen, adapters, scopeFolder === null ? 'cosine' : 'learned');
      for (const [set, { path, wrong }] of sets) {
        const folder = partFolder(parts.length, model.name, path);
        parts.push({ folder, model, set, scopeFolder, contenders, refused, leftOut: wrong.count });
      }
    }
    const on = [...new Set(models.map(({ name }) => name))].join(' or ');
    for (const name of names) {
      const against = parts.map(({ refused }) => refused.find(({ editor }) => editor === name)?.reason);
      if (against.every((reason) => reason !== undefined))
        throw new EmendError(
          'invalid-input',
          `${name} cannot be measured on ${on}. ${[...new Set(against)].join(' ')}`,
        );
    }
    const empty = parts.find(({ contenders }) => contenders.length === 0);
    if (empty)
      throw new EmendError(
        'invalid-input',
        `None of these editors can act on ${empty.model.name}. ${[...new Set(empty.refused.map(({ reason }) => reason))].join(' ')}`,
      );
    return parts.length === 1 ? [{ ...parts[0]!, folder: '' }] : parts;
  }

  /** Goes on with what was stopped, or failed. @throws EmendError 'conflict' for one that runs or was made elsewhere */
  async resume(id: string, context: CallContext): Promise<Benchmark> {
    this.#demandStill(id);
    const record = await this.#record(id);
    if ('opened' in record)
      throw new EmendError('conflict', 'This comparison was made elsewhere: go on with it there.');
    return this.#run(id, record, context);
  }

  /** Lists a comparison made elsewhere. @throws EmendError 'not-found', 'damaged' */
  async openReport(path: string): Promise<Benchmark> {
    if (!isAbsolute(path))
      throw new EmendError('invalid-input', `${path} is not a whole path. Give one that begins at the root.`);
    const real = await realpath(path).catch((cause) => {
      throw new EmendError('not-found', `There is nothing at ${path}. Check the path.`, { cause });
    });
    const folder = (await stat(real)).isDirectory() ? real : dirname(real);
    for (const part of (await overviewFolders(folder)) ?? [folder]) await readComparison(part);
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

  async thumbnails({
    benchmark,
    part = 0,
    pictures,
  }: CallInput<'benchmarks.thumbnails'>): Promise<Thumbnails> {
    const images = (await this.#comparison(benchmark, part))?.data.images;
    if (images === undefined) return [];
    const root = await realpath(join(await this.#folderOf(benchmark, part), images)).catch(() => null);
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

  /** Writes a table, samples, or the overview, to a new file. @throws EmendError 'conflict' for one that is there */
  async export(input: CallInput<'benchmarks.export'>): Promise<{ file: string; lines: number }> {
    const { file } = input;
    if (!isAbsolute(file))
      throw new EmendError('invalid-input', `${file} is not a whole path. Give one that begins at the root.`);
    const { text, lines } = await this.#exported(input);
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

  async #exported({
    benchmark,
    part = 0,
    format,
    samples,
  }: CallInput<'benchmarks.export'>): Promise<{ text: string; lines: number }> {
    if (part === null) {
      const overview = await this.#overview(benchmark);
      const lines = overview.reduce((sum, { rows }) => sum + rows.length, 0);
      return { text: format === 'csv' ? overviewCsv(overview) : jsonText(overview), lines };
    }
    if (samples) return sampleText((await this.#find({ benchmark, part, ...samples }))?.list ?? [], format);
    return tableText(await this.#demandComparison(benchmark, part), format);
  }

  async #run(id: string, record: MadeHere, context: CallContext): Promise<Benchmark> {
    const { events } = this.#options;
    const { parts } = record;
    const folder = join(this.#options.folder, id);
    this.#running.set(id, context.job);
    context.report.subject(subjectOf(parts));
    this.#changed(id);
    let at: MeasurementStep | null = null;
    const tell = (stage: string, done: number, total: number | null, unit: string, share?: number) =>
      events.emit({
        name: 'job.progress',
        payload: { job: context.job, stage, done, total, unit, ...(share !== undefined && { share }) },
      });
    try {
      const sets = new Map<string, EditingSet>();
      for (const { set } of parts) {
        const key = JSON.stringify(set);
        if (!sets.has(key)) sets.set(key, await readSet(set));
      }
      const plans = parts.map((part) =>
        this.#planOf(id, record, part, sets.get(JSON.stringify(part.set))!, context, (message) => {
          if (message.kind !== 'progress' || !at) return;
          const { stage, done, total, unit, share = 0 } = message;
          tell(
            `${stepWords(at, parts)}: ${stage}`,
            done,
            total,
            unit,
            Math.min(1, at.before + share * at.share),
          );
        }),
      );
      const comparisons = await compareEach(plans, folder, (step) => {
        at = step;
        tell(stepWords(step, parts), 0, null, '');
      });
      await this.#write(id, { ...record, done: true, failed: undefined });
      const rows = comparisons.flatMap(({ editors }) => editors);
      const failed = rows.filter((row) => row.failed !== null).length;
      context.report.outcome(
        `${rows.length - failed} of ${rows.length} were measured. The ${parts.length > 1 ? 'reports lie' : 'report lies'} in ${folder}.`,
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

  #planOf(
    id: string,
    record: MadeHere,
    part: Part,
    set: EditingSet,
    { signal }: CallContext,
    onStream: NonNullable<EngineCallOptions['onStream']>,
  ): ComparisonPlan {
    const { engines, session, version } = this.#options;
    const { at, limit, limitProbes, seeds } = record.request;
    const folder = join(this.#options.folder, id, part.folder);
    return {
      ...{ model: part.model.name, contenders: part.contenders, set, at, limit, limitProbes, seeds },
      ...{ folder, emend: version, command: commandOf(record, part, folder), signal },
      scopeFolder: part.scopeFolder,
      identity: (contender, edits) => measurementOf(record, part, contender, edits, []),
      measure: async (contender, edits, path) => {
        const input = {
          request: measurementOf(record, part, contender, edits, session.providers),
          ...{ emend: version, packed: session.packedCache, out: path },
        };
        await engines.call('measure', input, { signal, onStream });
      },
      onReport: () => {
        this.#forget(id);
        this.#changed(id);
      },
    };
  }

  async #describe(id: string): Promise<Benchmark> {
    const { record, folders } = await this.#open(id);
    const comparisons = await Promise.all(folders.map(comparisonIn));
    const parts = comparisons.map((comparison, place): BenchmarkPart => {
      const made = 'opened' in record ? null : record.parts[place]!;
      return {
        model: made?.model.name ?? comparison?.model.name ?? '',
        data: made ? basename(made.set.data) : (comparison?.data.name ?? ''),
        measured: comparison?.editors.length ?? 0,
        total: made ? made.contenders.length : null,
        failedRows: comparison?.editors.filter((row) => row.failed !== null).length ?? 0,
        ...{ leftOut: made?.leftOut ?? 0, refused: [...(made?.refused ?? [])] },
      };
    });
    const job = this.#running.get(id) ?? null;
    const sum = (of: (part: BenchmarkPart) => number) => parts.reduce((all, part) => all + of(part), 0);
    const counts = { measured: sum(({ measured }) => measured), failedRows: sum((part) => part.failedRows) };
    const { created } = record;
    if ('opened' in record) {
      const sizes = comparisons.find((one) => one !== null)?.sizes ?? [];
      return {
        ...{ id, parts, created, state: 'opened', job: null, total: null, failed: null, sizes, ...counts },
        folder: record.opened,
      };
    }
    const { request, done, failed = null } = record;
    return {
      ...{ id, parts, created, job, sizes: request.at, ...counts, total: sum(({ total }) => total ?? 0) },
      state: job === null ? (done ? 'done' : 'stopped') : 'running',
      failed: job === null ? failed : null,
      folder: join(this.#options.folder, id),
    };
  }

  /** Every part's rows, as far as they are there. */
  async #overview(id: string): Promise<BenchmarkOverview> {
    const { folders } = await this.#open(id);
    const { parts } = await this.#describe(id);
    return Promise.all(
      folders.map(async (folder, place) => {
        const { model, data } = parts[place]!;
        const { editors = [] } = (await comparisonIn(folder)) ?? {};
        const rows = editors.map(({ editor, scope, settings, failed, sizes }) => ({
          ...{ editor, scope, settings, failed },
          sizes: sizes.map(({ edits, meanOfFive }) => ({ edits, meanOfFive })),
        }));
        return { model, data, rows };
      }),
    );
  }

  /** The samples that match, and how many there are; null where none were recorded. */
  async #find({
    benchmark,
    part = 0,
    of,
    against,
    filter = {},
    sort = { by: 'row', descending: false },
  }: {
    benchmark: string;
    part?: number | undefined;
    of: MeasuredAt;
    against?: MeasuredAt | undefined;
    filter?: SampleFilter | undefined;
    sort?: SampleSort | undefined;
  }): Promise<{ all: number; list: ComparedSample[] } | null> {
    const samples = await this.#samplesOf(benchmark, part, of);
    if (!samples) return null;
    const others = against ? await this.#samplesOf(benchmark, part, against) : null;
    return { all: samples.length, list: findSamples(samples, others, filter, sort) };
  }

  async #samplesOf(
    id: string,
    part: number,
    { editor, edits }: MeasuredAt,
  ): Promise<readonly BenchmarkSample[] | null> {
    const key = `${id} ${part} ${editor} ${edits}`;
    const held = this.#samples.get(key);
    if (held !== undefined) return held;
    const row = (await this.#demandComparison(id, part)).editors[editor];
    if (!row) throw new EmendError('not-found', 'This comparison has no such editor. Read it again.');
    const found = await recordedSamples(await this.#folderOf(id, part), row, edits);
    hold(this.#samples, key, found, HELD_LISTS);
    return found;
  }

  async #comparison(id: string, part: number): Promise<Comparison | null> {
    return comparisonIn(await this.#folderOf(id, part));
  }

  async #demandComparison(id: string, part: number): Promise<Comparison> {
    const comparison = await this.#comparison(id, part);
    if (comparison) return comparison;
    throw new EmendError('not-found', 'Nothing is measured of this comparison yet.');
  }

  /** Where a part's reports lie. @throws EmendError 'not-found' for a part that it does not have */
  async #folderOf(id: string, part: number): Promise<string> {
    const folder = (await this.#open(id)).folders[part];
    if (folder !== undefined) return folder;
    throw new EmendError('not-found', 'This benchmark has no such comparison. Read it again.');
  }

  /** A benchmark's record, and the folders of its parts. */
  async #open(id: string): Promise<{ record: MadeHere | Opened; folders: readonly string[] }> {
    const record = await this.#record(id);
    if ('opened' in record)
      return { record, folders: (await overviewFolders(record.opened)) ?? [record.opened] };
    return { record, folders: record.parts.map(({ folder }) => join(this.#options.folder, id, folder)) };
  }

  async #record(id: string): Promise<MadeHere | Opened> {
    const path = join(this.#options.folder, id, 'benchmark.json');
    const parsed = Recorded.safeParse(await readJson(path));
    if (!parsed.success)
      throw new EmendError('damaged', `${path} does not describe a comparison. Remove the folder.`);
    // It was written by this program.
    const record = parsed.data as unknown as MadeHere | OfOnePart | Opened;
    return 'contenders' in record ? ofParts(record) : record;
  }

  async #write(id: string, record: MadeHere | Opened): Promise<void> {
    const folder = join(this.#options.folder, id);
    await mkdir(folder, { recursive: true });
    const text = `${JSON.stringify(record, null, 1)}\n`;
    await replaceFile(join(folder, 'benchmark.json'), (handle) => handle.writeFile(text));
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

const readSet = ({ data, format, images }: DataSetFile) => readEditingSet(data, { format, images });

/** @throws EmendError 'invalid-input' where a set has too few edits for what is asked */
function demandEdits({ path, records }: EditingSet, { at, limit, seeds }: MadeHere['request']): void {
  const most = at.at(-1)!;
  if (seeds !== undefined && limit >= records.length)
    throw new EmendError(
      'invalid-input',
      `Draws of ${limit} edits are all the same where the set has ${records.length}. Ask for fewer in each.`,
    );
  if (most > records.length)
    throw new EmendError(
      'invalid-input',
      `${basename(path)} has ${records.length} edits that can be used, and ${most} are to act together. Ask for fewer.`,
    );
}

/** @throws EmendError 'invalid-input' */
function demandOnce(paths: readonly string[]): void {
  const twice = paths.find((path, place) => paths.indexOf(path) !== place);
  if (twice !== undefined)
    throw new EmendError('invalid-input', `${twice} is named twice. Once is enough: take one away.`);
}

const several = (names: readonly string[], what: string): string =>
  names.length === 1 ? names[0]! : `${names.length} ${what}`;

/** What a benchmark works on: its data sets, and its models where they are several. */
function subjectOf(parts: readonly Part[]): string {
  const sets = [...new Set(parts.map(({ set }) => set.data))].map((path) => basename(path));
  const models = [...new Set(parts.map(({ model }) => model.path))];
  return [several(sets, 'data sets'), ...(models.length > 1 ? [several(models, 'models')] : [])].join(', ');
}

/** Which measurement it is, in words. */
function stepWords({ plan, contender, place, of }: MeasurementStep, parts: readonly Part[]): string {
  const { editor, scope } = contender;
  const on = parts.length > 1 ? ` on ${plan.model}, ${basename(plan.set.path)}` : '';
  return `${editor}, ${scope}${on} (${place} of ${of})`;
}

/** The comparison whose report lies in a folder; null where none does yet. */
async function comparisonIn(folder: string): Promise<Comparison | null> {
  const there = await stat(join(folder, 'report.json')).catch(() => null);
  return there ? readComparison(folder) : null;
}

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
  { request, template, maxNewTokens }: MadeHere,
  { model, set, scopeFolder }: Part,
  { adapter, editor, scoped, form }: Contender,
  edits: MeasuredEdits,
  providers: MeasurementRequest['providers'],
): MeasurementRequest {
  const { limit, limitProbes } = request;
  const { data, format, images } = set;
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
function commandOf(
  { request, template, maxNewTokens }: MadeHere,
  { model, set, contenders }: Part,
  out: string,
): string {
  const { at, limit, limitProbes } = request;
  const { data, format, images } = set;
  const editors = [...new Set(contenders.map(({ editor }) => editor))];
  const adapters = [...new Set(contenders.flatMap(({ adapter }) => adapter ?? []))];
  return [
    'npx emend bench',
    `--editor ${shellQuoted(editors.length === 1 ? `${editors[0]},` : editors.join(','))}`,
    `--model ${shellQuoted(model.path)} --data ${shellQuoted(data)}`,
    ...(format ? [`--format ${format}`] : []),
    ...(images ? [`--images ${shellQuoted(images)}`] : []),
    `--at ${at.join(',')} --limit ${limit} --limit-probes ${limitProbes} --max-new-tokens ${maxNewTokens}`,
    ...(request.seeds ? [`--seeds ${request.seeds}`] : []),
    ...(model.weights === 'dense' ? [] : [`--weights ${model.weights}`]),
    ...(template === 'plain' ? [] : [`--template ${template}`]),
    ...(adapters.length > 0 ? [`--adapters ${adapters.map(shellQuoted).join(' ')}`] : []),
    `--out ${shellQuoted(out)}`,
  ].join(' ');
}

function sampleText(
  found: readonly ComparedSample[],
  format: 'csv' | 'json',
): { text: string; lines: number } {
  const text = format === 'csv' ? samplesCsv(found) : jsonText(found);
  return { text, lines: found.length };
}

function tableText(comparison: Comparison, format: 'csv' | 'json'): { text: string; lines: number } {
  const text = format === 'csv' ? comparisonCsv(comparison) : jsonText(comparison);
  return { text, lines: comparison.editors.length };
}

const jsonText = (value: unknown): string => `${JSON.stringify(value, null, 1)}\n`;
