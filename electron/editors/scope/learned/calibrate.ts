/**
 * @file From which logit an edit acts, by the size of the library: fitted on libraries of edits that neither network was trained on,
 * for stated rates of harm per input, and never under what an edit's own negatives ask for. A library of both reaches does no more
 * harm than the worse of two that hold one reach each, so each reach is fitted alone.
 */
import { KeyBank, similarityOf } from '../keyBank.ts';
import { type CurvePoint, type Reach, reaches } from '../scope.ts';
import type { ScopeDataset } from './dataset.ts';
import { inScope } from './examples.ts';
import { CANDIDATES, type ScopeShape } from './network.ts';
import { type Draws, drawLibrary, type Kind, type Row, type Sampler } from './sampling.ts';
import { keysOfRows } from './trainKey.ts';
import type { Weights } from './trainNetwork.ts';
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

/** The value that no more than a share of a list passes, 0..1; −∞ of an empty list. */
export function upperQuantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => b - a);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NEGATIVE_INFINITY;
}

/** Rates of harm that are asked for: shares 0..1 of inputs on which an edit acts in whose scope they are not. */
export interface HarmRates {
  /** inputs that have nothing to do with any edit */
  readonly unrelated: number;
  /** other questions about an edit's picture, and its question about other pictures */
  readonly near: number;
  /** an edit's question about its picture with a look-alike in the thing's place */
  readonly swapped: number;
  /** an edit's thing in other pictures, for edits of their own picture only */
  readonly elsewhere: number;
}

const groupOf: Readonly<Record<Kind, keyof HarmRates | null>> = {
  edit: null,
  rephrase: null,
  shot: null,
  elsewhere: 'elsewhere',
  samePicture: 'near',
  sameShot: 'near',
  swapped: 'swapped',
  // What a question about a thing that is no longer there is answered with, nobody can say.
  gone: null,
  sameQuestion: 'near',
  unrelated: 'unrelated',
};

const isOut = ({ query }: ScoredQuery) => query.candidates.every(({ within }) => within === false);
const highest = ({ scores }: ScoredQuery) => Math.max(Number.NEGATIVE_INFINITY, ...Array.from(scores));

/**
 * The threshold in a library of one size and reach. Edits' own negatives are among the inputs, so that it never falls under what they
 * ask for, however small the library.
 */
export function thresholdFor(scored: readonly ScoredQuery[], rates: HarmRates): number {
  const needed = (Object.keys(rates) as Array<keyof HarmRates>).map((group) =>
    upperQuantile(
      scored.filter((input) => groupOf[input.query.kind] === group && isOut(input)).map(highest),
      rates[group],
    ),
  );
  // Never where the scorer holds that it is out of scope; and just above the value itself, so that it does not act.
  return Math.max(...needed, 0) + 1e-3;
}

/** What grows never falls: each number is at least the one before it. */
export function rising(list: readonly number[]): number[] {
  let top = Number.NEGATIVE_INFINITY;
  return list.map((value) => {
    top = Math.max(top, value);
    return top;
  });
}

/** Shares of inputs that were answered rightly and harmfully in a library of one reach. */
export function outcomes(
  edits: readonly LibraryEdit[],
  scored: readonly ScoredQuery[],
  threshold: number,
): { right: number; harm: number } {
  const counts = { wanted: 0, right: 0, unwanted: 0, harm: 0 };
  for (const input of scored) {
    const { query, scores } = input;
    const own = query.own === null ? null : edits[query.own]!;
    const best = highest(input);
    const acting = best >= threshold ? query.candidates[Array.from(scores).indexOf(best)] : undefined;
    if (own && inScope(own.row.ask, query.row.ask, own.reach)) {
      counts.wanted++;
      if (acting?.within) counts.right++;
    } else if (isOut(input)) {
      counts.unwanted++;
      if (acting) counts.harm++;
    }
  }
  return {
    right: counts.right / Math.max(1, counts.wanted),
    harm: counts.harm / Math.max(1, counts.unwanted),
  };
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
    readonly rates: Readonly<Record<Reach, HarmRates>>;
    readonly probes: number;
    readonly draws: Draws;
    readonly threads: number;
    readonly sizes?: readonly number[];
    readonly progress?: (stage: string, done: number, total: number) => void;
  },
): Promise<{ thresholds: Thresholds; curve: CurvePoint[] }> {
  const { sizes = brackets, probes, draws, rates, threads } = options;
  const drawn = drawLibrary(sampler, Math.max(...sizes, probes), draws);
  const asked = drawn
    .slice(0, probes)
    .flatMap(({ edit, inputs }, own) => [
      { own, row: edit as Row, kind: 'edit' as Kind },
      ...inputs.map(({ kind, ...row }) => ({ own, row, kind })),
    ]);
  const keys = (rows: readonly Row[]) => keysOfRows(dataset, rows, shape, weights, threads);
  const editKeys = await keys(drawn.map(({ edit }) => edit));
  const askedKeys = await keys(asked.map(({ row }) => row));

  const thresholds: Record<Reach, number[]> = { picture: [], thing: [] };
  const curve: CurvePoint[] = [];
  for (const [place, reach] of reaches.entries()) {
    const edits = drawn.map(({ edit }): LibraryEdit => ({ row: edit, reach }));
    const scoredAt: ScoredQuery[][] = [];
    for (const [at, size] of sizes.entries()) {
      options.progress?.('Calibrating', place * sizes.length + at, reaches.length * sizes.length);
      const queries: Query[] = [];
      const libraries = size >= probes ? 1 : Math.floor(probes / size);
      for (let library = 0; library < libraries; library++) {
        const bank = new KeyBank(shape.keyWidth);
        for (let edit = library * size; edit < Math.min(edits.length, (library + 1) * size); edit++)
          bank.add(edit, editKeys[edit]![reach]);
        for (const [input, { own, row, kind }] of asked.entries()) {
          const mine = bank.has(own);
          // Of small libraries' many strangers, a part.
          if (!mine && input % libraries !== library) continue;
          const candidates = bank.nearest(askedKeys[input]!.input, CANDIDATES).map(
            ({ id, product }): Candidate => ({
              edit: id,
              similarity: similarityOf(product),
              within: inScope(edits[id]!.row.ask, row.ask, reach),
            }),
          );
          queries.push({ row, kind: mine ? kind : 'unrelated', own: mine ? own : null, candidates });
        }
      }
      const scores = await scoreQueries(dataset, { edits, queries }, shape, weights, threads);
      scoredAt.push(queries.map((query, index): ScoredQuery => ({ query, scores: scores[index]! })));
    }
    thresholds[reach] = rising(scoredAt.map((scored) => thresholdFor(scored, rates[reach])));
    for (const [at, scored] of scoredAt.entries()) {
      const threshold = thresholds[reach][at]!;
      curve.push({ edits: sizes[at]!, reach, threshold, ...outcomes(edits, scored, threshold) });
    }
  }
  return { thresholds, curve };
}
