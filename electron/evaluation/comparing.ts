/**
 * @file Editors measured one after the other on the same model, data and metrics, into a folder: `runs/` holds what was measured of each,
 * report.html, .csv and .json what came of all so far. What lies there from the same measurement before is not measured again. On several
 * models and data sets each has a folder of its own, and overview.csv and .json tell of all.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { basename, join, relative } from 'node:path';
import { z } from 'zod';
import { BenchmarkSample, Comparison as ReportedComparison } from '../api/contract.ts';
import type { EditorKind } from '../editors/editor.ts';
import { EmendError } from '../errors.ts';
import { demandRoom } from '../files/diskRoom.ts';
import { readJson, readJsonIfThere } from '../files/json.ts';
import { replaceFile } from '../files/replaceFile.ts';
import type { BenchmarkResult } from './benchmark.ts';
import { type ComparedEditor, type Comparison, comparisonCsv, comparisonHtml } from './comparisonReport.ts';
import type { EditingSet } from './editingSet.ts';
import type { SizeResult } from './manyEdits.ts';
import { type OverviewPart, overviewCsv } from './overview.ts';
import { MOST_SAMPLES, samplesOfRecords } from './samples.ts';

/** What is measured of an editor in one go: each of its edits alone, or many together. */
export type MeasuredEdits = 'single' | 'many';

/** One editor as it is measured: what the table calls it, and how it is opened. */
export interface Contender {
  readonly editor: string;
  readonly acts: string;
  /** what decides where its edits act, in words */
  readonly scope: string;
  readonly settings: string;
  /** adapter folder; null: it needs none */
  readonly adapter: string | null;
  /** whether the scope decides if an edit acts when it is alone */
  readonly scoped: boolean;
  /** the form of scope it is opened with, where that is not the editor's own choice */
  readonly form: 'learned' | 'cosine' | null;
  readonly measures: readonly MeasuredEdits[];
}

/** What the table calls it where the scope of the model decides, not the editor. */
const BEHIND_ROUTER = 'behind the router';

/** The contenders of some editors: each as published, and behind the router. `router`: the best the model has. */
export function contendersOf(
  kinds: readonly EditorKind[],
  adapters: ReadonlyArray<{ readonly folder: string; readonly editor: string }>,
  router: 'learned' | 'cosine',
): Contender[] {
  return kinds.flatMap(({ name: editor, acts, untrained, trainedScope }): Contender[] => {
    // Some need no training and can be trained: both stand side by side.
    const opened = [
      ...(untrained ? [{ adapter: null, settings: '' }] : []),
      ...adapters
        .filter((one) => one.editor === editor)
        .map(({ folder }) => ({ adapter: folder, settings: `adapter ${basename(folder)}` })),
    ];
    return opened.flatMap((one): Contender[] => {
      // In its published form an editor may have no scope, or one of its own, with many edits too.
      const usual = one.adapter === null ? untrained!.scope : (trainedScope ?? untrained?.scope ?? 'routed');
      const published = usual !== 'routed';
      return [
        {
          ...{ editor, acts, ...one, scoped: false, form: null },
          scope: usual === 'own' ? 'its own scope' : 'no scope',
          measures: published ? ['single', 'many'] : ['single'],
        },
        {
          ...{ editor, acts, ...one, scoped: true, form: published ? router : null },
          ...{ scope: BEHIND_ROUTER, measures: ['single', 'many'] },
        },
      ];
    });
  });
}

/** What a measurement writes, as far as a comparison reads it. */
type SingleRun = Pick<BenchmarkResult, 'metrics' | 'meanOfFive' | 'verdicts' | 'cost' | 'records'> & {
  readonly model: Comparison['model'];
  readonly peakBytes: number;
};
interface ManyRun {
  readonly model: Comparison['model'];
  readonly sizes: readonly SizeResult[];
  readonly peakBytes: number;
}

export interface ComparisonPlan {
  /** what the model is called where nothing could be measured on it */
  readonly model: string;
  readonly contenders: readonly Contender[];
  readonly set: EditingSet;
  /** numbers of edits together, ascending; 1: each alone */
  readonly at: readonly number[];
  /** random draws of `limit` edits that are measured alone, in place of the first */
  readonly seeds?: number | undefined;
  /** edits measured alone, and edits whose probes are asked of many together */
  readonly limit: number;
  readonly limitProbes: number;
  readonly folder: string;
  readonly emend: string;
  /** the command that measures it again */
  readonly command: string;
  readonly signal: AbortSignal;
  /** where the scope of a contender lies that has none of its own */
  readonly scopeFolder: string | null;
  /** Names all that a measurement depends on but the set, the program, and what lies in the contender's folder and the scope's. */
  readonly identity: (contender: Contender, edits: MeasuredEdits) => unknown;
  /** Measures a contender and writes what it found, as `emend bench --json` does. @throws EmendError why it cannot be measured */
  readonly measure: (contender: Contender, edits: MeasuredEdits, path: string) => Promise<void>;
  readonly onReport?: (comparison: Comparison) => void;
}

/** A measurement that begins. */
export interface MeasurementStep {
  readonly plan: ComparisonPlan;
  readonly contender: Contender;
  readonly edits: MeasuredEdits;
  /** which one it is, from 1, of so many that are to be measured now */
  readonly place: number;
  readonly of: number;
  /** share of the work that lies before it, and that it is itself, 0..1: every editor is taken to need the same time for an input */
  readonly before: number;
  readonly share: number;
}

/** Measured reports are this large at most, in bytes. */
const LARGEST_RUN = 256 * 1024 * 1024;
/** Bytes there must be on the disk before anything is measured: a report of a thousand edits has some tens of megabytes. */
const ROOM = 256 * 1024 * 1024;

/**
 * Compares on every model and data set in turn; reports are written after every contender, and one that cannot be measured is told in them.
 * @param folder of all; those of the plans are it, or lie in it where there are several
 * @throws EmendError 'invalid-input' before anything is measured for more edits than a set holds; 'not-found' where there is nothing to
 *   measure; 'conflict' without room on the disk; 'cancelled', with everything measured so far kept
 */
export async function compareEach(
  plans: readonly ComparisonPlan[],
  folder: string,
  onStep: (step: MeasurementStep) => void = () => {},
): Promise<Comparison[]> {
  for (const plan of plans) demandMeasurable(plan);
  for (const plan of plans) await mkdir(join(plan.folder, 'runs'), { recursive: true });
  await demandRoom(folder, ROOM, 'What is measured');
  const steps = await missingSteps(plans);
  const all = steps.reduce((sum, { inputs }) => sum + inputs, 0);
  const done: Comparison[] = [];
  // What was measured before stays in the overview until its turn comes.
  const before = await Promise.all(plans.map((plan) => reportIn(plan.folder)));
  for (const plan of plans) {
    const tell = async (comparison: Comparison) => {
      const known = [...done, comparison, ...before.slice(done.length + 1)];
      if (plans.length > 1) await writeOverview(folder, plans, known);
      plan.onReport?.(comparison);
    };
    const measure: ComparisonPlan['measure'] = async (contender, edits, path) => {
      const at = steps.findIndex((s) => s.plan === plan && s.contender === contender && s.edits === edits);
      const passed = steps.slice(0, at).reduce((sum, { inputs }) => sum + inputs, 0);
      const share = (steps[at]?.inputs ?? 0) / all;
      onStep({
        ...{ plan, contender, edits, before: passed / all, share },
        ...{ place: at + 1, of: steps.length },
      });
      await plan.measure(contender, edits, path);
    };
    done.push(await compareContenders({ ...plan, measure }, tell));
  }
  return done;
}

/** @throws EmendError 'invalid-input', 'not-found' */
function demandMeasurable({ contenders, set, at }: ComparisonPlan): void {
  const most = at.at(-1) ?? 1;
  if (most > set.records.length)
    throw new EmendError(
      'invalid-input',
      `${set.path} holds ${set.records.length} edits, and ${most} are to act together. Make a larger set, or ask for fewer.`,
    );
  if (contenders.length === 0)
    throw new EmendError(
      'not-found',
      'There is nothing to measure: no adapter of these editors was found. Name its folder with --adapters.',
    );
}

/** Probes of an edit, about. */
const PROBES = 8;

/** About so many inputs are asked in a measurement. */
function inputsOf({ set, at, limit, limitProbes, seeds = 1 }: ComparisonPlan, edits: MeasuredEdits): number {
  const all = set.records.length;
  if (edits === 'single') return PROBES * seeds * Math.min(limit, all);
  const many = at.filter((size) => size > 1);
  return (many.at(-1) ?? 0) + PROBES * Math.min(limitProbes, all) * (1 + many.length);
}

/** What is still to be measured, in order. */
async function missingSteps(plans: readonly ComparisonPlan[]): Promise<
  Array<{
    readonly plan: ComparisonPlan;
    readonly contender: Contender;
    readonly edits: MeasuredEdits;
    readonly inputs: number;
  }>
> {
  const missing = [];
  for (const plan of plans)
    for (const contender of plan.contenders)
      for (const edits of contender.measures) {
        if (edits === 'many' && plan.at.every((size) => size === 1)) continue;
        if (!(await isMeasured(plan, contender, edits)))
          missing.push({ plan, contender, edits, inputs: inputsOf(plan, edits) });
      }
  return missing;
}

/** The folder of a comparison among several, from its place among them. `data`: path of its data set */
export function partFolder(place: number, model: string, data: string): string {
  const set = basename(data).replace(/\.[^.]*$/u, '');
  return [String(place + 1), model, set].join('-').replaceAll(/[^\w]+/gu, '-');
}

/** Writes overview.csv and overview.json of comparisons whose folders lie in `folder`. */
async function writeOverview(
  folder: string,
  plans: readonly ComparisonPlan[],
  comparisons: ReadonlyArray<Comparison | null>,
): Promise<void> {
  const parts = comparisons.flatMap((comparison, place): Array<OverviewPart & { folder: string }> => {
    if (!comparison) return [];
    const { model, data, editors: rows } = comparison;
    return [{ model: model.name, data: data.name, rows, folder: relative(folder, plans[place]!.folder) }];
  });
  const json = { parts: parts.map(({ folder: part, model, data }) => ({ folder: part, model, data })) };
  await replaceFile(join(folder, 'overview.csv'), (handle) => handle.writeFile(overviewCsv(parts)));
  await replaceFile(join(folder, 'overview.json'), (handle) =>
    handle.writeFile(`${JSON.stringify(json, null, 1)}\n`),
  );
}

const Overview = z.object({
  parts: z
    .array(z.object({ folder: z.string().regex(/^[\w-]+$/u), model: z.string(), data: z.string() }))
    .max(1000),
});

/** The folders of the comparisons that an overview.json in `folder` names; null where there is none. @throws EmendError 'damaged' */
export async function overviewFolders(folder: string): Promise<string[] | null> {
  const path = join(folder, 'overview.json');
  const read = await readJsonIfThere(path);
  if (read === undefined) return null;
  const parsed = Overview.safeParse(read);
  if (parsed.success) return parsed.data.parts.map((part) => join(folder, part.folder));
  throw new EmendError('damaged', `${path} does not list comparisons. Measure again.`);
}

/** The report in a folder; null where there is none that can be read. */
async function reportIn(folder: string): Promise<Comparison | null> {
  const read = await readJson(join(folder, 'report.json'), LARGEST_RUN).catch(() => null);
  return ReportedComparison.safeParse(read).data ?? null;
}

/** Measures every contender and writes the reports after each. */
async function compareContenders(
  plan: ComparisonPlan,
  onReport: (comparison: Comparison) => Promise<void>,
): Promise<Comparison> {
  const { contenders, set, at, limit, folder, signal } = plan;
  const together = at.some((size) => size > 1);
  const { rows, ...before } = await reportedBefore(plan);
  let found = before.model;
  let comparison: Comparison | undefined;
  for (const [place, contender] of contenders.entries()) {
    const { measured, model } = await compared(plan, contender, together);
    rows[place] = measured;
    found ??= model;
    comparison = {
      emend: plan.emend,
      model: found ?? { name: plan.model, fingerprint: '' },
      data: {
        ...{ name: basename(set.path), sha256: set.sha256, probes: plan.limitProbes },
        single: Math.min(limit, set.records.length),
        images: relative(folder, set.images),
        ...(plan.seeds !== undefined && { seeds: plan.seeds }),
      },
      sizes: at,
      command: plan.command,
      editors: rows.filter((row) => row !== null),
    };
    await writeReports(folder, comparison);
    await onReport(comparison);
    if (signal.aborted) throw stopped();
  }
  return comparison!;
}

/**
 * What the same command reported of the contenders before, in their order: it stays in the report until their turn comes, whatever becomes of
 * those before them.
 */
async function reportedBefore({
  contenders,
  folder,
  emend,
  command,
  set,
}: ComparisonPlan): Promise<{ rows: Array<ComparedEditor | null>; model: Comparison['model'] | null }> {
  const read = await reportIn(folder);
  const same = read?.emend === emend && read.command === command && read.data.sha256 === set.sha256;
  const rows = contenders.map(
    (contender) =>
      (same &&
        read.editors.find(
          ({ editor, scope, settings }) =>
            editor === contender.editor && scope === contender.scope && settings === contender.settings,
        )) ||
      null,
  );
  return { rows, model: same && rows.some((row) => row && row.failed === null) ? read.model : null };
}

const stopped = (cause?: unknown) =>
  new EmendError(
    'cancelled',
    'The comparison was stopped; what was measured is kept, and it goes on from there.',
    { cause },
  );

/**
 * What a contender reaches, from its measurements; where one of them failed, why, beside what was measured of it before.
 * @throws EmendError 'cancelled' alone
 */
async function compared(
  plan: ComparisonPlan,
  contender: Contender,
  together: boolean,
): Promise<{ measured: ComparedEditor; model: Comparison['model'] | null }> {
  const { editor, acts, scope, settings, measures } = contender;
  let single: { name: string; report: SingleRun } | null = null;
  let many: { name: string; report: ManyRun } | null = null;
  let failed: string | null = null;
  try {
    if (measures.includes('single')) single = await run<SingleRun>(plan, contender, 'single');
    if (together && measures.includes('many')) many = await run<ManyRun>(plan, contender, 'many');
  } catch (error) {
    if (!(error instanceof EmendError) || error.code === 'cancelled') throw error;
    failed = error.message;
  }
  const { metrics, meanOfFive, verdicts, cost } = single?.report ?? {};
  return {
    model: single?.report.model ?? many?.report.model ?? null,
    measured: {
      ...{ editor, acts, scope, settings, failed },
      sizes: [
        ...(metrics && meanOfFive && plan.at.includes(1) ? [{ edits: 1, metrics, meanOfFive }] : []),
        ...(many?.report.sizes ?? []).map(({ samples, ...size }) => size),
      ],
      verdicts: verdicts ?? null,
      cost: cost ?? null,
      peak: Math.max(single?.report.peakBytes ?? 0, many?.report.peakBytes ?? 0) || null,
      runs: { single: single?.name ?? null, many: many?.name ?? null },
    },
  };
}

/** Files of an adapter's folder that a measurement depends on. */
const ADAPTER_FILES = ['adapter.json', 'adapter.safetensors'];
const SCOPE_FILES = ['scope.json', 'scope.safetensors'];

/** sha256 of what lies in a contender's folder and, where edits are behind the router, in that of the scope. */
async function filesOf(contender: Contender, scopeFolder: string | null): Promise<string> {
  const hash = createHash('sha256');
  const add = async (folder: string, names: readonly string[]) => {
    for (const name of names) {
      hash.update(`${name} `);
      try {
        for await (const part of createReadStream(join(folder, name))) hash.update(part as Buffer);
      } catch {
        // Where it is needed, measuring says what is wrong with it.
        hash.update('none');
      }
    }
  };
  if (contender.adapter !== null) await add(contender.adapter, [...ADAPTER_FILES, ...SCOPE_FILES]);
  if (scopeFolder !== null && scopeFolder !== contender.adapter && contender.scope === BEHIND_ROUTER)
    await add(scopeFolder, SCOPE_FILES);
  return hash.digest('hex');
}

/** Where a measurement lies, and the key that says what it is of. */
async function placeOf(
  { folder, set, emend, identity, scopeFolder }: ComparisonPlan,
  contender: Contender,
  edits: MeasuredEdits,
) {
  const { editor, settings, scope } = contender;
  const stem = `${editor} ${settings} ${scope} ${edits}`.replaceAll(/[^\w]+/g, '-');
  const key = createHash('sha256')
    .update(
      JSON.stringify([
        identity(contender, edits),
        [set.sha256, emend],
        await filesOf(contender, scopeFolder),
      ]),
    )
    .digest('hex');
  const name = `${stem}.json`;
  return { name, path: join(folder, 'runs', name), keyPath: join(folder, 'runs', `${stem}.key`), key };
}

async function isMeasured(
  plan: ComparisonPlan,
  contender: Contender,
  edits: MeasuredEdits,
): Promise<boolean> {
  const { keyPath, key } = await placeOf(plan, contender, edits);
  return (await readFile(keyPath, 'utf8').catch(() => '')).trim() === key;
}

/** What was measured of a contender: now, or before with the same request, program and set. */
async function run<T>(
  plan: ComparisonPlan,
  contender: Contender,
  edits: MeasuredEdits,
): Promise<{ name: string; report: T }> {
  const { signal } = plan;
  const { name, path, keyPath, key } = await placeOf(plan, contender, edits);
  if (!(await isMeasured(plan, contender, edits))) {
    if (signal.aborted) throw stopped();
    // Without it what is half written is not taken for what was asked.
    await rm(keyPath, { force: true });
    try {
      await plan.measure(contender, edits, path);
    } catch (cause) {
      if (signal.aborted) throw stopped(cause);
      throw cause;
    }
    await writeFile(keyPath, key);
  }
  return { name, report: (await readJson(path, LARGEST_RUN)) as T };
}

/** Writes report.json, report.csv and report.html into a folder. */
export async function writeReports(folder: string, comparison: Comparison): Promise<void> {
  const texts = {
    json: `${JSON.stringify(comparison, null, 1)}\n`,
    csv: comparisonCsv(comparison),
    html: comparisonHtml(comparison),
  };
  for (const [extension, text] of Object.entries(texts))
    await replaceFile(join(folder, `report.${extension}`), (handle) => handle.writeFile(text));
}

/**
 * The recorded inputs of an editor at a number of edits; null where none were recorded.
 * @throws EmendError 'damaged' for a report that names what is no run of its folder, and for a run that is none
 */
export async function recordedSamples(
  folder: string,
  { runs }: ComparedEditor,
  edits: number,
): Promise<readonly BenchmarkSample[] | null> {
  const name = edits === 1 ? (runs?.single ?? null) : (runs?.many ?? null);
  if (name === null) return null;
  if (!/^[\w-]+\.json$/u.test(name))
    throw new EmendError('damaged', `${join(folder, 'report.json')} names ${name}, which is no run of it.`);
  const path = join(folder, 'runs', name);
  const report = (await readJson(path, LARGEST_RUN).catch((error: unknown) => {
    if (error instanceof EmendError && error.code === 'not-found') return null;
    throw error;
  })) as Partial<SingleRun & ManyRun> | null;
  if (report === null) return null;
  let found: unknown;
  try {
    found =
      edits === 1
        ? report.records && samplesOfRecords(report.records)
        : report.sizes?.find((size) => size.edits === edits)?.samples;
  } catch (cause) {
    throw new EmendError('damaged', `${path} does not hold what was measured. Measure again.`, { cause });
  }
  if (found === undefined) return null;
  // It may come from elsewhere.
  const samples = z.array(BenchmarkSample).max(MOST_SAMPLES).safeParse(found);
  if (samples.success) return samples.data;
  throw new EmendError('damaged', `${path} does not hold what was measured. Measure again.`);
}
