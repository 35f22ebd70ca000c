import { describe, expect, it } from 'vitest';
import { apart, logarithmic, roundTicks, ticks } from '../../renderer/charts/scale.ts';

describe('the axes of a chart', () => {
  it('place sizes by their logarithm, and keep what lies beyond at the ends', () => {
    const across = logarithmic(1, 1000);
    expect([1, 10, 100, 1000].map((size) => Number(across(size).toFixed(6)))).toEqual([
      0, 0.333333, 0.666667, 1,
    ]);
    expect(across(0.1)).toBe(0);
    expect(across(5000)).toBe(1);
    expect(logarithmic(10, 10)(10)).toBe(0); // one size alone
  });

  it('are marked at round values within them, a few at most', () => {
    expect(ticks(0.8, 1)).toEqual([0.8, 0.9, 1]);
    expect(ticks(0, 0.0132)).toEqual([0, 0.005, 0.01]);
    expect(ticks(0, 1)).toEqual([0, 0.5, 1]);
    expect(ticks(3, 3)).toEqual([3]);
    for (const high of [0.01, 0.07, 0.3, 1, 9]) expect(ticks(0, high).length).toBeLessThanOrEqual(4);
  });

  it('end at round values where nothing is to touch the end', () => {
    expect(roundTicks(0, 0.97, 5)).toEqual([0, 0.25, 0.5, 0.75, 1]);
    expect(roundTicks(-0.07, 0.3, 5)).toEqual([-0.1, 0, 0.1, 0.2, 0.3]);
    expect(roundTicks(0, 1)).toEqual([0, 0.5, 1]);
    expect(roundTicks(2, 2)).toEqual([2]);
  });

  it('have no labels that lie on one another; the last is always there', () => {
    const sizes = [1, 10, 50, 200, 1000, 5000, 10_000];
    const across = logarithmic(1, 10_000);
    expect(apart(sizes, (size) => 300 * across(size), 40)).toEqual([1, 10, 50, 200, 1000, 10_000]);
    expect(apart(sizes, (size) => 1000 * across(size), 40)).toEqual(sizes);
    expect(apart([], across, 40)).toEqual([]);
  });
});
