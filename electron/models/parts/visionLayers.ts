/** @file What the vision towers share: patches of square pictures, and the encoder layers of CLIP and SigLIP. */
import * as f from '../../tensor/functions.ts';
import type { Tensor } from '../../tensor/graph.ts';
import type { Activation } from '../config.ts';
import type { Weights } from '../weights.ts';
import { activate } from './activations.ts';
import { attendAll } from './attention.ts';

/** pixels [batch, 3, side, side] → [batch, patches, 3·p·p], patches row by row; what does not fill a patch is left out. */
export function patchesOf(pixels: Tensor, imageSize: number, patchSize: number): Tensor {
  const grid = Math.floor(imageSize / patchSize);
  const batch = pixels.shape[0]!;
  const cut = f.slice(f.slice(pixels, 2, 0, grid * patchSize), 3, 0, grid * patchSize);
  const split = f.reshape(cut, [batch, 3, grid, patchSize, grid, patchSize]);
  return f.reshape(f.transpose(split, [0, 2, 4, 1, 3, 5]), [batch, grid * grid, 3 * patchSize * patchSize]);
}

/** A convolution over patches that do not overlap, as a matrix product. weight [out, 3, p, p] → [.., out]. */
export function embedPatches(patches: Tensor, name: string, weight: Weights, bias: boolean): Tensor {
  const kernel = weight(`${name}.weight`);
  const [out, ...rest] = kernel.shape as number[];
  const flat = f.reshape(kernel, [out!, rest.reduce((a, b) => a * b, 1)]);
  return f.linear(patches, flat, bias ? weight(`${name}.bias`) : undefined);
}

export interface EncoderConfig {
  readonly layers: number;
  readonly hidden: number;
  readonly intermediate: number;
  readonly heads: number;
  readonly layerNormEps: number;
  readonly activation: Activation;
}

/**
 * One layer of a CLIP or SigLIP encoder under `name`. x [batch, rows, hidden]; mask [batch, 1, 1, rows] is added to scores.
 */
export function encoderLayer(
  x: Tensor,
  name: string,
  { heads, layerNormEps, activation }: EncoderConfig,
  weight: Weights,
  mask?: Tensor,
): Tensor {
  const dense = (input: Tensor, part: string) =>
    weight.linear(input, `${name}.${part}`, weight(`${name}.${part}.bias`));
  const norm = (input: Tensor, part: string) =>
    f.layerNorm(input, weight(`${name}.${part}.weight`), weight(`${name}.${part}.bias`), layerNormEps);
  const normed = norm(x, 'layer_norm1');
  const [query, key, value] = ['q_proj', 'k_proj', 'v_proj'].map((part) =>
    f.splitHeads(dense(normed, `self_attn.${part}`), heads),
  ) as [Tensor, Tensor, Tensor];
  const between = f.add(x, dense(attendAll(query, key, value, mask), 'self_attn.out_proj'));
  const inner = activate(dense(norm(between, 'layer_norm2'), 'mlp.fc1'), activation);
  return f.add(between, dense(inner, 'mlp.fc2'));
}

/** Shapes of the weights of such a layer. */
export function encoderLayerTensors(
  name: string,
  { hidden, intermediate }: EncoderConfig,
): Array<[string, number[]]> {
  const linear = (part: string, out: number, into: number): Array<[string, number[]]> => [
    [`${name}.${part}.weight`, [out, into]],
    [`${name}.${part}.bias`, [out]],
  ];
  return [
    ...normTensors(`${name}.layer_norm1`, hidden),
    ...['q_proj', 'k_proj', 'v_proj', 'out_proj'].flatMap((part) =>
      linear(`self_attn.${part}`, hidden, hidden),
    ),
    ...normTensors(`${name}.layer_norm2`, hidden),
    ...linear('mlp.fc1', intermediate, hidden),
    ...linear('mlp.fc2', hidden, intermediate),
  ];
}

/** Shapes of a LayerNorm's weights. */
export function normTensors(name: string, width: number): Array<[string, number[]]> {
  return [
    [`${name}.weight`, [width]],
    [`${name}.bias`, [width]],
  ];
}

/** Shapes of a linear layer's weights. */
export function linearTensors(
  name: string,
  out: number,
  into: number,
  bias = true,
): Array<[string, number[]]> {
  return [[`${name}.weight`, [out, into]], ...(bias ? [[`${name}.bias`, [out]] as [string, number[]]] : [])];
}
