/**
 * @file Means with bootstrap intervals: how far a number would move with other edits of the same kind.
 */

/** A mean, with the interval that holds it in 95 % of resamplings. Shares, 0..1. */
export interface Estimate {
  readonly mean: number;
  readonly low: number;
  readonly high: number;
  /** values averaged */
  readonly count: number;
  /** where several draws were averaged: the sample standard deviation of their means */
  readonly deviation?: number;
}

/** Resamplings of an interval. */
export const RESAMPLINGS = 1000;

/** Percentile bootstrap of the mean. The same values and seed give the same interval. Null for no values. */
export function estimate(values: readonly number[], seed: number): Estimate | null {
  const count = values.length;
  if (count === 0) return null;
  const next = uniform(seed);
  const means = new Float64Array(RESAMPLINGS).map(() => {
    let sum = 0;
    for (let i = 0; i < count; i++) sum += values[Math.floor(next() * count)]!;
    return sum / count;
  });
  means.sort();
  const at = (share: number): number => means[Math.round(share * (RESAMPLINGS - 1))]!;
  return { mean: values.reduce((a, b) => a + b, 0) / count, low: at(0.025), high: at(0.975), count };
}

/** Uniform numbers in [0, 1) that depend on the seed only (mulberry32). */
function uniform(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
