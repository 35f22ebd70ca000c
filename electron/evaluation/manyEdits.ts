/**
 * @file Many edits that act together: what comes of every probe in libraries of growing size.
 *
 * The scope's decisions are made first, for all sizes; an answer is generated only where an edit acts, or where the unedited one is
 * needed. Locality is against the unedited model.
 */

import type { BenchmarkSample, SampleKind } from '../api/contract.ts';
import type { EditedModel } from '../editors/editedModel.ts';
import type { EditState, Effect } from '../editors/editor.ts';
import { actsEverywhere } from '../editors/scope/everywhere.ts';
import { MemoryBank } from '../editors/scope/memoryBank.ts';
import { decide, type Reach, type ScopeInput } from '../editors/scope/scope.ts';
import { EmendError } from '../errors.ts';
import type { Visual } from '../models/picture.ts';
import {
  countVerdicts,
  type EditVerdict,
  judgedProbes,
  Pictures,
  type Told,
  verdictOfShort,
} from './benchmark.ts';
import { estimate } from './bootstrap.ts';
import type { EditingRecord, EditingSet } from './editingSet.ts';
import { sameAnswer } from './exactMatch.ts';
import {
  forceTarget,
  type Metric,
  metricNames,
  paperMetrics,
  readForced,
  unchangedShare,
} from './metrics.ts';
import { boundedSample, MOST_SAMPLES } from './samples.ts';
import { probeOf, type RecordProbeKind } from './sets/record.ts';

/** What a probe is to the edit it belongs to. */
export const probeRoles = [
  'edit',
  'rephrase',
  'typed',
  'heldout',
  'newCore',
  'imageRephrase',
  'elsewhere',
  'samePicture',
  'sameQuestion',
  'imageLocality',
  'textLocality',
  'swapped',
  'textReliability',
  'imageReliability',
  'portability',
  'fresh',
] as const;
export type ProbeRole = (typeof probeRoles)[number];

const metricOf: Partial<Record<ProbeRole, Metric>> = {
  edit: 'reliability',
  rephrase: 'textGenerality',
  imageRephrase: 'imageGenerality',
  textLocality: 'textLocality',
  imageLocality: 'imageLocality',
  samePicture: 'samePicture',
  sameQuestion: 'sameQuestion',
  textReliability: 'textReliability',
  imageReliability: 'imageReliability',
  portability: 'portability',
};

const roleOf: Readonly<Record<RecordProbeKind, ProbeRole>> = {
  'text-generality': 'rephrase',
  'image-generality': 'imageRephrase',
  'text-locality': 'textLocality',
  'image-locality': 'imageLocality',
  'same-picture': 'samePicture',
  'same-question': 'sameQuestion',
  'text-reliability': 'textReliability',
  'image-reliability': 'imageReliability',
  portability: 'portability',
  typed: 'typed',
  'held-out': 'heldout',
  'new-core': 'newCore',
  swapped: 'swapped',
  elsewhere: 'elsewhere',
};

const kindOfRole: Readonly<Record<ProbeRole, SampleKind>> = {
  ...(Object.fromEntries(Object.entries(roleOf).map(([kind, role]) => [role, kind])) as Record<
    ProbeRole,
    SampleKind
  >),
  edit: 'reliability',
  fresh: 'fresh',
};

/**
 * What came of the probes of a role, in numbers of them. Of those that an edit should act on: its own acted (right), another with
 * the same target did, one about the same that has another target did (conflict), an unrelated one did (harm), or none. Of those
 * that none should act on: none did; one about the very thing that is shown and asked for did (conflict); any other did (harm).
 */
export interface Outcomes {
  readonly right: number;
  readonly sameTarget: number;
  readonly conflict: number;
  readonly harm: number;
  readonly none: number;
}

export interface SizeResult {
  /** edits that act together */
  readonly edits: number;
  readonly metrics: Readonly<Record<Metric, Told>>;
  readonly meanOfFive: Told;
  /** empty where all edits act on every input */
  readonly outcomes: Readonly<Partial<Record<ProbeRole, Outcomes>>>;
  /** share of probes whose answer is the target, or what it was where it must not change */
  readonly answered: Readonly<Partial<Record<ProbeRole, number>>>;
  /** numbers of edits by what they do as a whole */
  readonly verdicts: Readonly<Record<EditVerdict, number>>;
  /** the first inputs with their answers, as many as are kept */
  readonly samples: readonly BenchmarkSample[];
}

/** The last stage, and the longest as a rule. */
export const ANSWERING = 'Answering probes:';

export interface ManyEditsOptions {
  /** sizes of the library, ascending */
  readonly at: readonly number[];
  readonly reach: Reach;
  /** edits whose probes are asked, from the first; they act at every size that holds them */
  readonly limitProbes: number;
  /** another set whose questions no edit is about */
  readonly fresh?: EditingSet;
  readonly suffix: string;
  readonly textSuffix: string;
  readonly maxNewTokens: number;
  /** of the bootstrap */
  readonly seed: number;
  readonly onProgress?: (stage: string, done: number, total: number) => void;
  readonly signal?: AbortSignal;
}

interface Probe {
  readonly role: ProbeRole;
  /** of the edit it belongs to; of the fresh set for `fresh` */
  readonly index: number;
  /** name of a picture file */
  readonly picture: string | null;
  readonly prompt: string;
  /** what the set says it is answered with; null: whatever the unedited model says */
  readonly answer: string | null;
  /** the thing it asks for, as far as the set says; null: what the unedited model answers */
  readonly about: string | null;
}

/** The inputs about one record of the set. */
function probesOf(record: EditingRecord, index: number, suffix: string, textSuffix: string): Probe[] {
  const { picture, prompt, target } = record;
  const itself: Probe = {
    ...{ role: 'edit', index, picture, prompt: prompt + suffix },
    ...{ answer: target, about: target },
  };
  const others = judgedProbes(record).map((probe): Probe => {
    const role = roleOf[probe.kind];
    const { answer } = probe;
    // What a look-alike is called says what is asked about; the answer must stay what it is all the same.
    const judged = wantedRoles.has(role) || role === 'elsewhere' ? (answer ?? target) : answer;
    return {
      ...{ role, index, picture: probe.picture },
      prompt: probe.prompt + (probe.picture === null ? textSuffix : suffix),
      answer: role === 'swapped' ? null : judged,
      about: role === 'swapped' ? answer : judged,
    };
  });
  return [itself, ...others];
}

/** What an effect makes of a probe. */
interface Outcome {
  readonly after: string;
  readonly teacherForced: number | null;
  readonly exactMatch: boolean;
}

/** What was measured of one probe at one size. */
interface Result extends Outcome {
  readonly probe: Probe;
  readonly acting: number | null;
  /** the unedited answer, and the one that is wanted */
  readonly before: string;
  readonly expected: string;
  /** whether the unedited model takes the wording as it takes the edit's own */
  readonly understood: boolean;
}

/**
 * Measures the set's first N edits together, for every N of `at`. The same model, adapter, scope, set and options give the same
 * numbers on one provider. Throws `conflict` without adapter and scope, `invalid-input` for sizes the set does not hold,
 * `cancelled` when the signal is aborted.
 */
export async function measureManyEdits(
  edited: EditedModel,
  set: EditingSet,
  options: ManyEditsOptions,
): Promise<SizeResult[]> {
  const { model, scope, editor } = edited;
  if (!editor || !scope)
    throw new EmendError('conflict', 'Nothing can be measured without an adapter. Give one.');
  const { at, reach, suffix, textSuffix } = options;
  const most = at.at(-1) ?? 0;
  if (at.some((size, place) => size < 1 || size <= (at[place - 1] ?? 0)))
    throw new EmendError('invalid-input', 'Give numbers of edits in rising order, such as 1,10,100.');
  if (most > set.records.length)
    throw new EmendError(
      'invalid-input',
      `${set.path} holds ${set.records.length} edits, and ${most} are to act together. Make a larger set, or ask for fewer.`,
    );
  const stop = () => {
    if (options.signal?.aborted) throw new EmendError('cancelled', 'Measuring was stopped.');
  };
  const pictures = new Pictures(edited, set);
  const freshPictures = options.fresh && new Pictures(edited, options.fresh);
  const describe = async (visual: Visual | null, prompt: string): Promise<ScopeInput | null> =>
    edited.describe(await edited.prepare(visual, prompt));

  const everywhere = actsEverywhere(scope);
  const edits: ScopeInput[] = [];
  for (let index = 0; index < most && !everywhere; index++) {
    stop();
    options.onProgress?.('Describing edits:', index, most);
    const record = set.records[index]!;
    const described = await describe(await pictures.see(record, record.picture), record.prompt + suffix);
    if (!described)
      throw new EmendError('internal', `The scope has nothing to compare edit ${index + 1} by.`);
    edits.push(described);
  }

  const probes = set.records
    .slice(0, Math.min(most, options.limitProbes))
    .flatMap((record, index) => probesOf(record, index, suffix, textSuffix));
  for (const [index, record] of (options.fresh?.records ?? []).entries()) {
    const { picture, prompt, object } = record;
    const fresh = { role: 'fresh' as const, index, answer: null };
    probes.push({ ...fresh, picture, prompt: prompt + suffix, about: object ?? null });
    const other = probeOf(record, 'image-locality');
    if (other)
      probes.push({ ...fresh, picture: other.picture, prompt: other.prompt + suffix, about: other.answer });
  }
  const see = async ({ role, index, picture }: Probe): Promise<Visual | null> =>
    picture === null
      ? null
      : role === 'fresh'
        ? freshPictures!.see(options.fresh!.records[index]!, picture)
        : pictures.see(set.records[index]!, picture);
  const inputs: Array<ScopeInput | null> = [];
  for (const [place, probe] of everywhere ? [] : probes.entries()) {
    stop();
    options.onProgress?.('Describing probes:', place, probes.length);
    inputs.push(await describe(await see(probe), probe.prompt));
  }

  // Which edit acts on each probe, at each size: [size][probe].
  const bank = new MemoryBank(scope.keyWidth);
  const acting: Array<Array<number | null>> = [];
  for (const size of at) {
    for (let edit = bank.size; edit < size && !everywhere; edit++) bank.add(edit, reach, edits[edit]!);
    const found: Array<number | null> = everywhere ? probes.map(() => null) : [];
    for (const [place, input] of inputs.entries()) {
      stop();
      options.onProgress?.(`Deciding among ${size}:`, place, inputs.length);
      const own = probes[place]!.role === 'fresh' || probes[place]!.index < size;
      found.push(own && input ? ((await decide(scope, input, bank)).acting?.edit ?? null) : null);
    }
    acting.push(found);
  }

  const states = new Map<number, EditState>();
  const stateOf = async (index: number): Promise<EditState> => {
    const known = states.get(index);
    if (known) return known;
    const record = set.records[index]!;
    const visual = await pictures.see(record, record.picture);
    const before = everywhere ? [...states.values()] : [];
    const { prompt, target } = record;
    const made = await edited.make({ visual, prompt: prompt + suffix, target, before });
    states.set(index, made);
    return made;
  };
  // Where nothing decides, all of them act at once: what they do together is the same for every probe.
  const together: Effect[] = [];
  for (const size of everywhere ? at : []) {
    for (let index = states.size; index < size; index++) {
      stop();
      options.onProgress?.('Making edits:', index, most);
      await stateOf(index);
    }
    together.push(edited.effect([...states.values()].slice(0, size)));
  }
  const results: Result[][] = at.map(() => []);
  const ownAnswers = new Map<number, string>();
  for (const [place, probe] of probes.entries()) {
    stop();
    options.onProgress?.(ANSWERING, place, probes.length);
    const visual = await see(probe);
    const prepared = await edited.prepare(visual, probe.prompt);
    const generation = { maxNewTokens: options.maxNewTokens, alternatives: 1 };
    const unedited = (await edited.answer(prepared, [], generation)).text;
    if (probe.role === 'edit') ownAnswers.set(probe.index, unedited);
    const must = isWanted(probe.role, reach) ? 'changes' : 'stays';
    const expected = must === 'changes' ? probe.answer! : (probe.answer ?? unedited);
    const forced = expected.trim() === '' ? null : await forceTarget(model, visual, probe.prompt, expected);
    const before = forced && (await readForced(model, forced));
    const tell = async (effect: Effect | null): Promise<Outcome> => {
      const text = effect ? (await edited.answerUnder(prepared, effect, generation)).text : unedited;
      const after = forced && effect ? await readForced(model, forced, effect) : before;
      return {
        after: text,
        exactMatch: sameAnswer(text, must === 'changes' ? expected : unedited),
        teacherForced:
          before && after ? (must === 'changes' ? after.accuracy : unchangedShare(before, after)) : null,
      };
    };
    const byEdit = new Map<number | null, Outcome>();
    for (const [size, found] of acting.entries()) {
      if (probe.role !== 'fresh' && probe.index >= at[size]!) continue;
      const edit = found[place]!;
      let told = everywhere ? await tell(together[size]!) : byEdit.get(edit);
      if (!told) {
        told = await tell(edit === null ? null : edited.effect([await stateOf(edit)]));
        byEdit.set(edit, told);
      }
      const understood = sameAnswer(unedited, ownAnswers.get(probe.index) ?? unedited);
      const about = probe.about ?? unedited;
      results[size]!.push({
        ...{ probe: { ...probe, about }, acting: edit, understood, before: unedited, expected },
        ...told,
      });
    }
  }
  return at.map((size, place) => sizeResult(size, results[place]!, set, options, everywhere));
}

/** Whether the probe's edit should act on it. */
function isWanted(role: ProbeRole, reach: Reach): boolean {
  if (role === 'elsewhere') return reach === 'thing';
  return wantedRoles.has(role);
}

const wantedRoles: ReadonlySet<ProbeRole> = new Set([
  ...(['edit', 'rephrase', 'typed', 'heldout', 'newCore', 'imageRephrase'] as const),
  ...(['textReliability', 'imageReliability', 'portability'] as const),
]);

function sizeResult(
  edits: number,
  results: readonly Result[],
  set: EditingSet,
  { reach, seed, fresh }: ManyEditsOptions,
  everywhere: boolean,
): SizeResult {
  const told = (list: readonly Result[]): Told => ({
    teacherForced: estimate(
      list.flatMap(({ teacherForced }) => teacherForced ?? []),
      seed,
    ),
    exactMatch: estimate(
      list.map(({ exactMatch }) => Number(exactMatch)),
      seed,
    ),
  });
  const ofMetric = (metric: Metric) => results.filter(({ probe }) => metricOf[probe.role] === metric);
  const metrics = Object.fromEntries(metricNames.map((metric) => [metric, told(ofMetric(metric))])) as Record<
    Metric,
    Told
  >;
  // The five of one edit, averaged; edits that lack one are left out.
  const means = { teacherForced: [] as number[], exactMatch: [] as number[] };
  const five = paperMetrics.map((metric) => Map.groupBy(ofMetric(metric), ({ probe }) => probe.index));
  const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;
  for (const index of five[0]!.keys()) {
    const lists = five.map((byIndex) => byIndex.get(index) ?? []);
    if (lists.some((list) => list.length === 0)) continue;
    means.exactMatch.push(mean(lists.map((list) => mean(list.map((result) => Number(result.exactMatch))))));
    const forced = lists.map((list) => list.flatMap((result) => result.teacherForced ?? []));
    if (forced.every((list) => list.length > 0)) means.teacherForced.push(mean(forced.map(mean)));
  }

  const outcomes: Partial<Record<ProbeRole, Outcomes>> = {};
  const answered: Partial<Record<ProbeRole, number>> = {};
  for (const role of probeRoles) {
    // A wording that the model itself takes otherwise says nothing of the scope.
    const list = results.filter(
      ({ probe, understood }) =>
        probe.role === role && (understood || !['heldout', 'newCore'].includes(role)),
    );
    if (list.length === 0) continue;
    const counts = { right: 0, sameTarget: 0, conflict: 0, harm: 0, none: 0 };
    for (const { probe, acting } of list) {
      const own = role === 'fresh' ? fresh!.records[probe.index]! : set.records[probe.index]!;
      counts[
        outcomeOf(probe, acting, own, acting === null ? null : set.records[acting]!, isWanted(role, reach))
      ]++;
    }
    outcomes[role] = counts;
    answered[role] = list.filter(({ exactMatch }) => exactMatch).length / list.length;
  }
  const verdicts = verdictsOf(results, edits, reach, everywhere);
  const samples = results.slice(0, MOST_SAMPLES).map((result): BenchmarkSample => {
    const { probe, acting, before, expected, after, exactMatch, teacherForced } = result;
    const own = probe.role === 'fresh' ? fresh!.records[probe.index]! : set.records[probe.index]!;
    return boundedSample({
      ...{ row: own.row, kind: kindOfRole[probe.role], picture: probe.picture, prompt: probe.prompt },
      ...{ expected, stays: !isWanted(probe.role, reach), before, after },
      ...{ passes: exactMatch, teacherForced },
      acting: everywhere ? 'all' : acting === null ? null : set.records[acting]!.row,
      verdict: probe.role === 'fresh' ? null : (verdicts.get(probe.index) ?? null),
    });
  });
  return {
    edits,
    metrics,
    meanOfFive: {
      teacherForced: estimate(means.teacherForced, seed),
      exactMatch: estimate(means.exactMatch, seed),
    },
    // Which edit acted says nothing where all do.
    outcomes: everywhere ? {} : outcomes,
    answered,
    verdicts: countVerdicts([...verdicts.values()]),
    samples,
  };
}

/**
 * What each edit does as a whole, by the probes that have a metric, as for edits alone; entangled: another edit answered what it should
 * answer, so that it did not.
 */
function verdictsOf(
  results: readonly Result[],
  edits: number,
  reach: Reach,
  everywhere: boolean,
): Map<number, EditVerdict> {
  const judged = results.filter(({ probe }) => probe.role in metricOf && probe.index < edits);
  const found = new Map<number, EditVerdict>();
  for (const [index, list] of Map.groupBy(judged, ({ probe }) => probe.index)) {
    const missed = list.filter(({ exactMatch }) => !exactMatch);
    const taken = missed.some(
      ({ probe, acting }) =>
        !everywhere && isWanted(probe.role, reach) && acting !== null && acting !== index,
    );
    const short = new Set(missed.map(({ probe }) => metricOf[probe.role]!));
    found.set(index, taken ? 'entangled' : verdictOfShort(short));
  }
  return found;
}

/** See {@link Outcomes}. */
export function outcomeOf(
  { role, index, about }: Pick<Probe, 'role' | 'index' | 'about'>,
  acting: number | null,
  own: Pick<EditingRecord, 'target' | 'object' | 'kind'>,
  other: Pick<EditingRecord, 'target' | 'object' | 'kind'> | null,
  wanted: boolean,
): keyof Outcomes {
  if (acting === null || !other) return 'none';
  if (wanted) {
    if (acting === index) return 'right';
    if (sameAnswer(own.target, other.target)) return 'sameTarget';
    return own.object !== undefined && own.object === other.object && own.kind === other.kind
      ? 'conflict'
      : 'harm';
  }
  const itself = role !== 'fresh' && acting === index;
  return !itself && about !== null && other.object === about ? 'conflict' : 'harm';
}
