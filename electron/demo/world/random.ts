/**
 * @file Seeded random numbers: the same seed gives the same demo world on every machine.
 */

/** A stream of random numbers that can be split into independent streams by label. */
export interface Random {
  /** A number in [0, 1). */
  next(): number;
  /** An integer in [0, n). */
  int(n: number): number;
  /** A number in [low, high). */
  between(low: number, high: number): number;
  /** True with the given probability. */
  chance(probability: number): boolean;
  /** One element, all equally likely. Throws on an empty array. */
  pick<T>(array: readonly T[]): T;
  /** A shuffled copy. */
  shuffle<T>(array: readonly T[]): T[];
  /** A standard normal number. */
  gaussian(): number;
  /** A stream that depends on this stream's seed and the label only, not on how much was drawn. */
  split(label: string | number): Random;
}

/** A 32-bit hash of a string (FNV-1a with a final mix). */
export function hashText(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

/** A seeded stream (mulberry32). `seed` is used as a 32-bit unsigned integer. */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  const int = (n: number): number => Math.floor(next() * n);
  return {
    next,
    int,
    between: (low, high) => low + (high - low) * next(),
    chance: (probability) => next() < probability,
    pick<T>(array: readonly T[]): T {
      if (array.length === 0) throw new RangeError('pick: the array is empty');
      return array[int(array.length)] as T;
    },
    shuffle<T>(array: readonly T[]): T[] {
      const copy = [...array];
      for (let i = copy.length - 1; i > 0; i--) {
        const j = int(i + 1);
        const kept = copy[i] as T;
        copy[i] = copy[j] as T;
        copy[j] = kept;
      }
      return copy;
    },
    gaussian: () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next()),
    split: (label) => seededRandom(hashText(`${seed >>> 0}/${label}`)),
  };
}
