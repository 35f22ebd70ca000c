/** @file Keys compared with many at once: the products of a plain loop, in an order that nothing but keys and ids decides. */
import { describe, expect, it } from 'vitest';
import { KeyBank, keyFromBytes, quantiseKey, similarityOf } from '../../../electron/editors/scope/keyBank.ts';
import { normalNumbers } from '../../support/checkpointFixtures.ts';

const normal = normalNumbers(5);
const randomKey = (width: number) => quantiseKey(Float32Array.from({ length: width }, () => normal()));
const product = (a: Int8Array, b: Int8Array) => a.reduce((sum, value, i) => sum + value * b[i]!, 0);

describe('a key', () => {
  it('is a unit vector times 127, whatever the length of what it is made of', () => {
    expect([...quantiseKey([3, 0, -4])]).toEqual([76, 0, -102]);
    expect(quantiseKey([0.003, 0, -0.004])).toEqual(quantiseKey([3, 0, -4]));
    expect([...quantiseKey([0, 0])]).toEqual([0, 0]);
    const key = randomKey(128);
    expect(similarityOf(product(key, key))).toBeCloseTo(1, 1);
  });

  it('is read from bytes of its width alone', () => {
    const key = randomKey(20);
    expect(keyFromBytes(new Uint8Array(key.buffer), 20)).toEqual(key);
    expect(() => keyFromBytes(new Uint8Array(19), 20)).toThrow(/19 bytes/);
  });
});

describe('a bank of keys', () => {
  // Widths that fill vectors of 16 and that do not; more keys than one block holds.
  it.each([
    [128, 5000],
    [32, 70],
    [21, 9000],
  ])('of width %i with %i keys finds what a plain loop finds', (width, count) => {
    const bank = new KeyBank(width);
    const keys = new Map<number, Int8Array>();
    for (let id = 1; id <= count; id++) {
      const key = randomKey(width);
      bank.add(id, key);
      keys.set(id, key);
    }
    const asked = randomKey(width);
    const expected = [...keys]
      .map(([id, key]) => ({ id, product: product(asked, key) }))
      .sort((a, b) => b.product - a.product || a.id - b.id);
    expect(bank.nearest(asked, 8)).toEqual(expected.slice(0, 8));
    const all = new Map<number, number>();
    bank.each(asked, (id, value) => void all.set(id, value));
    expect(all).toEqual(new Map(expected.map(({ id, product }) => [id, product])));
  });

  it('orders equals by id, in whatever order they came and whatever was removed', () => {
    const key = randomKey(16);
    const bank = new KeyBank(16);
    for (const id of [9, 4, 7, 2, 8]) bank.add(id, key);
    bank.add(5, randomKey(16));
    expect(bank.remove(9)).toBe(true);
    expect(bank.remove(9)).toBe(false);
    bank.add(3, key);
    expect(bank.nearest(key, 4).map(({ id }) => id)).toEqual([2, 3, 4, 7]);
    expect(bank.nearest(key, 99)).toHaveLength(6);
    expect(bank.nearest(key, 0)).toEqual([]);
    expect([bank.size, bank.has(9), bank.has(3)]).toEqual([6, false, true]);
  });

  it('replaces a key, gives it back, and refuses one of another width', () => {
    const bank = new KeyBank(16);
    const [one, other] = [randomKey(16), randomKey(16)];
    bank.add(1, one);
    bank.add(1, other);
    expect(bank.size).toBe(1);
    expect(bank.get(1)).toEqual(other);
    expect(bank.get(2)).toBeUndefined();
    expect(() => bank.add(2, randomKey(8))).toThrow(/width 8/);
    expect(() => bank.nearest(randomKey(8), 1)).toThrow(/width 8/);
  });
});
