/** @file The forms in which a model's weights can be opened, and which of its matrices are packed in each. */
import * as f from '../../tensor/functions.ts';
import { Graph } from '../../tensor/graph.ts';
import { attentionInputs, type Decoder } from '../decoder.ts';
import type { Checkpoint } from '../open.ts';
import { type Weights, weightsAsInputs } from '../weights.ts';
import { type Blocks, blocksFor } from './blocks.ts';

/** `dense`: as the checkpoint has them. The others hold most of the decoder's matrices in blocks of so many bits. */
export const weightForms = ['dense', '8bit', '4bit'] as const;
export type WeightForm = (typeof weightForms)[number];
export type PackedForm = Exclude<WeightForm, 'dense'>;

/**
 * Which matrices of a decoder are held finer than the rest: dense in 8 bits, in 8 bits in 4. Embeddings, vision tower and projector
 * are always dense.
 */
export interface FinePart {
  /** layers from the first, and from the last */
  readonly first: number;
  readonly last: number;
  readonly head: boolean;
}

/** What the measurement in the README decided: `npm run bench -- packed`. */
export const finePart: Readonly<Record<PackedForm, FinePart>> = {
  '8bit': { first: 0, last: 0, head: false },
  '4bit': { first: 1, last: 1, head: true },
};

/** A tensor in the packed file: a matrix in blocks, or a copy of what the checkpoint holds. */
export interface PackedTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly blocks: Blocks | null;
}

/** The linear layers of a decoder by canonical name, with the layer they are in; the head is in layer `layers`. */
function linearLayers(decoder: Decoder): Map<string, number> {
  const graph = new Graph();
  const shapes = decoder.tensors();
  const found = new Map<string, number>();
  const weights = weightsAsInputs(graph, shapes);
  const noting = (layer: number): Weights =>
    Object.assign((name: string) => weights(name), {
      linear: ((x, name, bias) => {
        found.set(name, layer);
        return weights.linear(x, name, bias);
      }) satisfies Weights['linear'],
      rows: weights.rows,
    });
  const inputs = attentionInputs(graph, decoder, 1, 'rows', 'rows');
  let x = graph.input('hidden', 'float32', [1, 'rows', decoder.hidden]);
  for (let layer = 0; layer < decoder.layers; layer++)
    x = decoder.layer(x, layer, inputs, noting(layer)).hidden;
  decoder.head(f.reshape(x, ['rows', decoder.hidden]), noting(decoder.layers));
  return found;
}

/** What the packed file of a checkpoint holds: everything the decoder's layers, its last norm and its head need. */
export function packedTensors(
  { backbone }: Pick<Checkpoint, 'backbone'>,
  form: PackedForm,
  fine: FinePart = finePart[form],
): PackedTensor[] {
  const { decoder } = backbone;
  const linear = linearLayers(decoder);
  const tensors: PackedTensor[] = [];
  for (const [name, shape] of decoder.tensors()) {
    const layer = linear.get(name.replace(/\.weight$/, ''));
    // Vectors, and matrices that only embed: those are read where they lie, a row at a time.
    if (layer === undefined) {
      if (shape.length === 1) tensors.push({ name, shape, blocks: null });
      continue;
    }
    const head = layer === decoder.layers;
    const finer = head ? fine.head : layer < fine.first || layer >= decoder.layers - fine.last;
    const columns = shape[1]!;
    const coarse = form === '4bit' && !finer ? blocksFor(columns, 4) : null;
    // Rows that blocks of 4 bits do not divide may fit those of 8.
    const blocks = coarse ?? (form === '8bit' && finer ? null : blocksFor(columns, 8));
    tensors.push({ name, shape, blocks });
  }
  return tensors;
}
