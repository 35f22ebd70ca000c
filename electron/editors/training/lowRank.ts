/**
 * @file A low-rank change of a decoder's linear layers that is trained and then always acts: x·W + (x·R)·L (LoRA, Hu et al. 2021).
 */
import type { Decoder } from '../../models/decoder.ts';
import type { WeightChanges } from '../../models/visionLanguageModel.ts';
import { observedWeights, type WeightOf, type Weights } from '../../models/weights.ts';
import * as f from '../../tensor/functions.ts';
import type { AdapterWeights } from '../adapterFiles.ts';
import { uniformNumbers } from './startingWeights.ts';

/** A linear layer of a decoder: canonical name without `.weight`, inputs and outputs. */
export interface DecoderLinear {
  readonly name: string;
  readonly into: number;
  readonly out: number;
}

/** All linear layers of all decoder layers, without embedding and head. */
export function decoderLinears(decoder: Decoder): DecoderLinear[] {
  const shapes = decoder.tensors();
  const names = Array.from({ length: decoder.layers }, (_, layer) => decoder.layerTensors(layer)).flat();
  return names.flatMap((name) => {
    const [out, into, ...more] = shapes.get(name)!;
    if (into === undefined || more.length > 0) return [];
    return [{ name: name.replace(/\.weight$/, ''), into, out: out! }];
  });
}

const right = (name: string) => `${name}.right`;
const left = (name: string) => `${name}.left`;

/** R [in, rank] uniform within ±1/√in, L [rank, out] zero: the model begins as it is. */
export function initialLowRank(
  linears: readonly DecoderLinear[],
  rank: number,
  seed: number,
): AdapterWeights {
  const uniform = uniformNumbers(seed);
  const weights = new Map<string, { shape: number[]; data: Float32Array }>();
  for (const { name, into, out } of linears) {
    const bound = 1 / Math.sqrt(into);
    const data = Float32Array.from({ length: into * rank }, () => (2 * uniform() - 1) * bound);
    weights.set(right(name), { shape: [into, rank], data });
    weights.set(left(name), { shape: [rank, out], data: new Float32Array(rank * out) });
  }
  return weights;
}

/** `weights` of a graph with the change, whose R and L `fed` gives. */
export function lowRankWeights(weights: Weights, linears: readonly DecoderLinear[], fed: WeightOf): Weights {
  const names = new Set(linears.map(({ name }) => name));
  return observedWeights(weights, (name, x, given) =>
    names.has(name) ? f.productPlus(f.matmul(x, fed(right(name))), fed(left(name)), given) : given,
  );
}

/** The change as it is fed to an opened model; of other weights in a file it takes none. */
export function lowRankChanges(weights: AdapterWeights): WeightChanges {
  return new Map(
    lowRankNames(weights).map((name) => {
      const { shape, data } = weights.get(right(name))!;
      return [name, { rank: shape[1]!, right: data, left: weights.get(left(name))!.data }];
    }),
  );
}

/** Names of the linear layers that a file's weights change. */
export const lowRankNames = (weights: AdapterWeights): string[] =>
  [...weights.keys()]
    .filter((name) => name.endsWith('.right') && weights.has(left(name.slice(0, -'.right'.length))))
    .map((name) => name.slice(0, -'.right'.length));
