/**
 * @file Weights that a training starts from: numbers of a seed, or those of an adapter that was trained before.
 */
import { EmendError } from '../../errors.ts';
import type { AdapterWeights } from '../adapterFiles.ts';

/** Numbers in 0..1 that depend on the seed only (mulberry32). */
export function uniformNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/**
 * Takes weights over, in place; `scaleOf`: what those of an adapter are a multiple of those in training by.
 * @throws EmendError 'invalid-input' unless both have the same weights in the same shapes, but for what a mapper gathers from the prompt
 */
export function startingWeights(
  weights: AdapterWeights,
  from: AdapterWeights,
  scaleOf: (name: string) => number = () => 1,
): void {
  for (const [name, { shape, data }] of weights) {
    const given = from.get(name);
    // An adapter whose mapper read the last token alone is gone on with: what it gathers beside begins as nothing.
    if (!given && name.includes('influence_mapper.prompt_attention.')) continue;
    if (!given || given.shape.join() !== shape.join()) {
      throw new EmendError(
        'invalid-input',
        `The adapter to start from has ${name} as [${given?.shape ?? 'nothing'}], and this training as [${shape}]. Give the settings it was trained with.`,
      );
    }
    const scale = scaleOf(name);
    data.set(scale === 1 ? given.data : given.data.map((value) => value / scale));
  }
}
