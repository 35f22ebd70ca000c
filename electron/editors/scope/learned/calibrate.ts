/**
 * @file From which logit an edit acts, by the size of the library: fitted on a library of edits that neither network was trained on,
 * for a stated rate of harm per input, and never under what an edit's own negatives ask for.
 */
import { KeyBank, similarityOf } from '../keyBank.ts';
import { type CurvePoint, judge, type Reach, reaches } from '../scope.ts';
import type { ScopeDataset } from './dataset.ts';
import { inScope } from './examples.ts';
import { CANDIDATES, type ScopeShape } from './network.ts';
import { type Draws, drawLibrary, type Kind, type Row, type Sampler } from './sampling.ts';
import { keysOfRows, type Weights } from './trainKey.ts';
import { type Candidate, type LibraryEdit, type Query, scoreQueries } from './trainScorer.ts';

/** Sizes of a library up to which a threshold holds. */
export const brackets = [1, 10, 50, 200, 1000, 5000, 10_000] as const;

export interface Thresholds {
  /** for each of the brackets, by reach; the last holds for larger libraries too */
  readonly picture: readonly number[];
  readonly thing: readonly number[];
}

/** The threshold in a library of so many committed edits. */
export function thresholdAt(thresholds: Thresholds, committed: number, reach: Reach): number {
  const bracket = brackets.findIndex((size) => committed <= size);
  return thresholds[reach].at(bracket)!;
}

/** An input with its scored candidates in a library. */
export interface ScoredQuery {
  readonly query: Query;
  readonly scores: ArrayLike<number>;
}

/** What came of the inputs of one size. */
export interface Outcome {
  readonly edits: number;
  readonly reach: Reach;
  readonly right: number;
  readonly harm: number;
}

/** The value that no more than a share of a list passes, 0..1; −∞ of an empty list. */
export function upperQuantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => b - a);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NEGATIVE_INFINITY;
}

/** Highest score of an edit of a reach out of whose scope an input is; −∞ where none was scored. */
function worst({ query, scores }: ScoredQuery, edits: readonly LibraryEdit[], reach: Reach): number {
  let top = Number.NEGATIVE_INFINITY;
  for (const [at, { edit, within }] of query.candidates.entries())
    if (within === false && edits[edit]!.reach === reach) top = Math.max(top, scores[at]!);
  return top;
}

/** Rates of harm that are asked for, shares 0..1 of inputs on which an edit acts in whose scope they are not. */
export interface HarmRates {
  /** other questions about an edit's picture, its question about other pictures, and unrelated ones */
  readonly others: number;
  /** an edit's question about its picture with a look-alike in the thing's place */
  readonly swapped: number;
  /** an edit's thing in other pictures, for edits of their own picture only */
  readonly elsewhere: number;
}

const groupOf: Readonly<Record<Kind, keyof HarmRates | null>> = {
  edit: 'others',
  rephrase: 'others',
  shot: 'others',
  elsewhere: 'elsewhere',
  samePicture: 'others',
  sameShot: 'others',
  swapped: 'swapped',
  // What a question about a thing that is no longer there is answered with, nobody can say.
  gone: null,
  sameQuestion: 'others',
  unrelated: 'others',
};

/**
 * Thresholds in a library of one size. Half of each rate goes to the edits of each reach. Edits' own negatives are among the inputs,
 * so that no threshold falls under what they ask for, however small the library.
 */
export function thresholdsFor(
  edits: readonly LibraryEdit[],
  scored: readonly ScoredQuery[],
  rates: HarmRates,
): Record<Reach, number> {
  const of = (reach: Reach): number => {
    const needed = (Object.keys(rates) as Array<keyof HarmRates>).map((group) => {
      const inputs = scored.filter(
        ({ query }) =>
          groupOf[query.kind] === group && query.candidates.every(({ within }) => within === false),
      );
      return upperQuantile(
        inputs.map((input) => worst(input, edits, reach)),
        rates[group] / 2,
      );
    });
    // Just above the value itself, so that it does not act.
    return Math.max(...needed, -4) + 1e-3;
  };
  return { picture: of('picture'), thing: of('thing') };
}

/** Thresholds that never fall as the library grows. */
export function rising(list: ReadonlyArray<Record<Reach, number>>): Thresholds {
  const of = (reach: Reach) => {
    let top = Number.NEGATIVE_INFINITY;
    return list.map((thresholds) => {
      top = Math.max(top, thresholds[reach]);
      return top;
    });
  };
  return { picture: of('picture'), thing: of('thing') };
}

/** Shares of inputs that were answered rightly and harmfully, by the reach of the edit that they were drawn for or that acted. */
export function outcomes(
  edits: readonly LibraryEdit[],
  scored: readonly ScoredQuery[],
  thresholds: Record<Reach, number>,
): Outcome[] {
  const scope = { threshold: (_: number, reach: Reach) => thresholds[reach] };
  const counts = Object.fromEntries(
    reaches.map((reach) => [reach, { wanted: 0, right: 0, harm: 0 }]),
  ) as Record<Reach, { wanted: number; right: number; harm: number }>;
  let unwanted = 0;
  for (const { query, scores } of scored) {
    const matches = query.candidates.map(({ edit, similarity }, at) => ({
      ...{ edit, similarity, score: scores[at]! },
      reach: edits[edit]!.reach,
    }));
    const { acting } = judge(scope, edits.length, matches);
    const own = query.own === null ? null : edits[query.own]!;
    if (own && inScope(own.row.ask, query.row.ask, own.reach)) {
      counts[own.reach].wanted++;
      const within = query.candidates.find(({ edit }) => edit === acting?.edit)?.within;
      if (within) counts[own.reach].right++;
    } else if (query.candidates.every(({ within }) => within === false)) {
      unwanted++;
      if (acting) counts[acting.reach].harm++;
    }
  }
  return reaches.map((reach) => ({
    ...{ edits: edits.length, reach },
    right: counts[reach].right / Math.max(1, counts[reach].wanted),
    harm: counts[reach].harm / Math.max(1, unwanted),
  }));
}

/**
 * Thresholds for every size, and what they do, on edits of families that no network was trained on. `probes`: edits whose inputs
 * are asked; they are in every library.
 */
export async function calibrate(
  dataset: ScopeDataset,
  sampler: Sampler,
  shape: ScopeShape,
  weights: Weights,
  options: {
    readonly rates: HarmRates;
    readonly probes: number;
    readonly draws: Draws;
    readonly threads: number;
    readonly sizes?: readonly number[];
    readonly progress?: (stage: string, done: number, total: number) => void;
  },
): Promise<{ thresholds: Thresholds; curve: CurvePoint[] }> {
  const { sizes = brackets, probes, draws, rates, threads } = options;
  const largest = Math.max(...sizes, probes);
  const drawn = drawLibrary(sampler, largest, draws);
  const edits = drawn.map(({ edit, reach }): LibraryEdit => ({ row: edit, reach }));
  const asked = drawn
    .slice(0, probes)
    .flatMap(({ edit, inputs }, own) => [
      { own, row: edit as Row, kind: 'edit' as Kind },
      ...inputs.map(({ kind, ...row }) => ({ own, row, kind })),
    ]);
  const editKeys = await keysOfRows(
    dataset,
    edits.map(({ row }) => row),
    shape,
    weights,
    threads,
  );
  const askedKeys = await keysOfRows(
    dataset,
    asked.map(({ row }) => row),
    shape,
    weights,
    threads,
  );

  const found: Array<Record<Reach, number>> = [];
  const measured: Outcome[][] = [];
  for (const [at, size] of sizes.entries()) {
    options.progress?.('Calibrating', at, sizes.length);
    const queries: Query[] = [];
    const libraries = size >= probes ? 1 : Math.floor(probes / size);
    for (let library = 0; library < libraries; library++) {
      const bank = new KeyBank(shape.keyWidth);
      for (let edit = library * size; edit < Math.min(edits.length, (library + 1) * size); edit++)
        bank.add(edit, editKeys[edit]![edits[edit]!.reach]);
      for (const [place, { own, row, kind }] of asked.entries()) {
        const mine = bank.has(own);
        // Of small libraries' many strangers, a part.
        if (!mine && place % libraries !== library) continue;
        const candidates = bank.nearest(askedKeys[place]!.input, CANDIDATES).map(
          ({ id, product }): Candidate => ({
            edit: id,
            similarity: similarityOf(product),
            within: inScope(edits[id]!.row.ask, row.ask, edits[id]!.reach),
          }),
        );
        queries.push({ row, kind: mine ? kind : 'unrelated', own: mine ? own : null, candidates });
      }
    }
    const scores = await scoreQueries(dataset, { edits, queries }, shape, weights, threads);
    const scored = queries.map((query, place): ScoredQuery => ({ query, scores: scores[place]! }));
    found.push(thresholdsFor(edits, scored, rates));
    const sofar = rising(found);
    measured.push(
      outcomes(edits, scored, { picture: sofar.picture[at]!, thing: sofar.thing[at]! }).map((outcome) => ({
        ...outcome,
        edits: size,
      })),
    );
  }
  const thresholds = rising(found);
  const curve = measured.flatMap((list, at) =>
    list.map((outcome): CurvePoint => ({ ...outcome, threshold: thresholds[outcome.reach][at]! })),
  );
  return { thresholds, curve };
}
