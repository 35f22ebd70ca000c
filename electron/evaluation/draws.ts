/**
 * @file Random draws of a set's edits, one a seed: what a mean would be with other edits, told as the papers do, mean ± deviation. An edit that
 * several draws hold is measured once, as measuring has no chance in it.
 */
import { EmendError } from '../errors.ts';
import { type MeasuredRecord, type Scores, scoresOf, type Told } from './benchmark.ts';
import type { Estimate } from './bootstrap.ts';
import type { EditingSet } from './editingSet.ts';
import { shuffled } from './editSource.ts';
import { type Metric, metricNames } from './metrics.ts';

export interface Draws {
  /** so many draws, by the seeds 1, 2, … */
  readonly seeds: number;
  /** edits in each */
  readonly edits: number;
}

/** The set of all drawn edits in the order of the file, and the places in it of those of each draw. */
export function drawEdits(set: EditingSet, { seeds, edits }: Draws): { set: EditingSet; draws: number[][] } {
  const { records, path } = set;
  if (edits >= records.length)
    throw new EmendError(
      'invalid-input',
      `Draws of ${edits} edits are all the same where ${path} has ${records.length}. Ask for fewer with --limit, or take a larger set.`,
    );
  const drawn = Array.from({ length: seeds }, (_, draw) => [
    ...shuffled(records.length, draw + 1).subarray(0, edits),
  ]);
  const union = [...new Set(drawn.flat())].sort((a, b) => a - b);
  const placeOf = new Map(union.map((index, place) => [index, place]));
  return {
    set: { ...set, records: union.map((index) => records[index]!) },
    draws: drawn.map((draw) => draw.map((index) => placeOf.get(index)!)),
  };
}

/**
 * Scores over draws: of each telling the mean of the draws' means, with their sample standard deviation; intervals are of all edits
 * together. `seed`: of the bootstrap.
 */
export function scoresOverDraws(
  records: readonly MeasuredRecord[],
  draws: ReadonlyArray<readonly number[]>,
  seed: number,
): Scores {
  const all = scoresOf(records, seed);
  const each = draws.map((draw) =>
    scoresOf(
      draw.map((place) => records[place]!),
      seed,
    ),
  );
  const over = (found: Estimate | null, means: ReadonlyArray<number | undefined>): Estimate | null => {
    const values = means.filter((mean) => mean !== undefined);
    if (!found || values.length === 0) return found;
    const mean = values.reduce((a, b) => a + b, 0) / values.length;
    const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
    return { ...found, mean, deviation: Math.sqrt(squares / Math.max(1, values.length - 1)) };
  };
  const told = (of: (scores: Scores) => Told): Told => ({
    teacherForced: over(
      of(all).teacherForced,
      each.map((scores) => of(scores).teacherForced?.mean),
    ),
    exactMatch: over(
      of(all).exactMatch,
      each.map((scores) => of(scores).exactMatch?.mean),
    ),
  });
  return {
    metrics: Object.fromEntries(
      metricNames.map((metric) => [metric, told(({ metrics }) => metrics[metric])]),
    ) as Record<Metric, Told>,
    meanOfFive: told(({ meanOfFive }) => meanOfFive),
  };
}
