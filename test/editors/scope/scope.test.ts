/** @file Which edit acts: the one furthest above what is asked of its reach, among those the key found. */
import { describe, expect, it } from 'vitest';
import { cosine, cosineScope, cosineScore } from '../../../electron/editors/scope/cosine.ts';
import { quantiseKey } from '../../../electron/editors/scope/keyBank.ts';
import { MemoryBank } from '../../../electron/editors/scope/memoryBank.ts';
import { decide, judge, type Reach, type Scope } from '../../../electron/editors/scope/scope.ts';
import { normalNumbers } from '../../support/checkpointFixtures.ts';

const match = (edit: number, score: number, reach: Reach = 'picture', similarity = 0.5) => ({
  ...{ edit, reach, similarity, score },
});
/** Asks 2 of picture edits and 4 of thing edits, 1 more of each from 100 edits on. */
const strict = {
  threshold: (committed: number, reach: Reach) => (reach === 'picture' ? 2 : 4) + Number(committed >= 100),
};

describe('judging matches', () => {
  it('lets the best act from its threshold on, and none below', () => {
    expect(judge(strict, 1, [match(1, 2), match(2, 1.9)]).acting?.edit).toBe(1);
    expect(judge(strict, 1, [match(1, 1.999)]).acting).toBeNull();
    expect(judge(strict, 100, [match(1, 2.5)]).acting).toBeNull();
    expect(judge(strict, 1, []).acting).toBeNull();
  });

  it('measures each by the threshold of its own reach', () => {
    const { acting, matches } = judge(strict, 1, [match(1, 4.5, 'thing'), match(2, 3, 'picture')]);
    expect(acting?.edit).toBe(2);
    expect(matches.map(({ edit }) => edit)).toEqual([2, 1]);
    expect(judge(strict, 1, [match(1, 5.5, 'thing'), match(2, 3)]).acting?.edit).toBe(1);
  });

  it('takes the smaller id of equals, in whatever order they come', () => {
    for (const ids of [
      [3, 7],
      [7, 3],
    ])
      expect(
        judge(
          strict,
          1,
          ids.map((id) => match(id, 5)),
        ).acting?.edit,
      ).toBe(3);
  });
});

describe('DualEdit’s cosine as a scope', () => {
  const width = 24;
  const normal = normalNumbers(11);
  const state = () => Float32Array.from({ length: width }, () => normal());
  const near = (base: Float32Array, noise: number) => base.map((value) => value + noise * normal());
  const described = (vector: Float32Array) => {
    const key = quantiseKey(vector);
    return { key, editKeys: { picture: key, thing: key }, detail: new Uint8Array(vector.slice().buffer) };
  };
  const bankOf = (vectors: readonly Float32Array[]) => {
    const bank = new MemoryBank(width);
    for (const [id, vector] of vectors.entries())
      bank.add(id, id % 2 ? 'thing' : 'picture', described(vector));
    return bank;
  };

  it('decides as a threshold on the cosine does', async () => {
    const vectors = Array.from({ length: 6 }, state);
    for (const threshold of [-1, 0, 0.5, 0.9, 0.99, 1]) {
      const scope = cosineScope({ layer: 0, threshold }, width);
      for (const noise of [0, 0.02, 0.2, 0.5, 1, 3]) {
        const asked = near(vectors[2]!, noise);
        const similarities = vectors.map((vector) => cosine(asked, vector));
        const best = similarities.indexOf(Math.max(...similarities));
        const expected = similarities[best]! >= threshold - 1e-6 ? best : null;
        const { acting, matches } = await decide(scope, described(asked), bankOf(vectors));
        expect(acting?.edit ?? null, `threshold ${threshold}, noise ${noise}`).toBe(expected);
        expect(matches[0]!.edit).toBe(best);
        expect(matches[0]!.score).toBeCloseTo(2 * Math.atanh(Math.min(1 - 1e-6, similarities[best]!)), 3);
      }
    }
  });

  it('scores only the best by key, and decides the same every time', async () => {
    const vectors = Array.from({ length: 40 }, state);
    const scope = cosineScope({ layer: 0, threshold: -1 }, width);
    const scored: number[] = [];
    const counting: Scope = {
      ...scope,
      score: (input, edits) => {
        scored.push(edits.length);
        return scope.score(input, edits);
      },
    };
    const asked = described(near(vectors[7]!, 0.1));
    const first = await decide(counting, asked, bankOf(vectors));
    expect(await decide(counting, asked, bankOf(vectors))).toEqual(first);
    expect(scored).toEqual([8, 8]);
    expect(first.acting).toMatchObject({ edit: 7, reach: 'thing' });
    const none = await decide(counting, asked, new MemoryBank(width));
    expect(none).toEqual({ acting: null, matches: [] });
  });

  it('has a finite score that rises with the cosine', () => {
    const scores = [-1, -0.5, 0, 0.5, 0.9, 0.999, 1].map(cosineScore);
    expect(scores).toEqual(scores.toSorted((a, b) => a - b));
    expect(scores.every(Number.isFinite)).toBe(true);
    expect(cosineScore(0)).toBe(0);
  });

  it('refuses what it did not keep itself', async () => {
    const scope = cosineScope({ layer: 0, threshold: 0 }, width);
    await expect(scope.score(new Uint8Array(5), [])).rejects.toMatchObject({ code: 'damaged' });
  });
});
