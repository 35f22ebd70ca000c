/**
 * @file What every decoder is to those who build graphs with it: layer by layer, so that it can be cut where editors act.
 * Families make decoders; attribution, editors, training and trace ask them and know no weight's name.
 */
import type { Dim } from '../tensor/dims.ts';
import * as f from '../tensor/functions.ts';
import type { Graph, Tensor } from '../tensor/graph.ts';
import { float32, type SessionOptions, type Value } from '../tensor/session.ts';
import { causalMask, type Positions } from './positions.ts';
import type { Weights } from './weights.ts';

/** Rotary tables of some rows, [batch or 1, 1, rows, head size]; absent in decoders that do not rotate. */
export interface RotaryTables {
  readonly cosine?: Tensor;
  readonly sine?: Tensor;
}

/** What every layer of one run shares. */
export interface AttentionInputs extends RotaryTables {
  /** added to attention scores: 0 where a row may look, very negative where not, [1 or batch, 1, rows, past + rows] */
  readonly mask: Tensor;
  /** what is added to the output of layer l before it enters the next [batch, rows, hidden]; absent in most decoders */
  readonly added?: ReadonlyMap<number, Tensor>;
}

export interface LayerOutputs {
  /** the layer's output [batch, rows, hidden] */
  readonly hidden: Tensor;
  /** what attention adds to the residual stream, after its output projection [batch, rows, hidden] */
  readonly attention: Tensor;
  /** what the MLP adds [batch, rows, hidden] */
  readonly mlp: Tensor;
  /** keys (rotated) and values of past and new rows [batch, key-value heads, past + rows, head size] */
  readonly key: Tensor;
  readonly value: Tensor;
}

/** The attention of one layer, part by part. */
export interface AttentionParts {
  /** the norm before it. x [..., hidden] → the same */
  norm(x: Tensor): Tensor;
  /** queries and keys, rotated, and values. normed [batch, rows, hidden] → [batch, heads, rows, head size] */
  query(normed: Tensor, tables: RotaryTables): Tensor;
  key(normed: Tensor, tables: RotaryTables): Tensor;
  value(normed: Tensor): Tensor;
  /** merged heads [..., heads·size] → [..., hidden] */
  output(merged: Tensor): Tensor;
}

/** The MLP of one layer: which linear layers it is made of. */
export interface Mlp {
  /** stands for the whole of it */
  readonly name: string;
  /** linear layers from hidden to inner width, as `activate` takes what they give: the gate first where there is one */
  readonly into: readonly string[];
  /** the linear layer back to the residual stream: what it reads are the MLP's keys, what it gives its output */
  readonly out: string;
  /** inner width */
  readonly width: number;
  /** Inner activations from what `into` gave, [..., width] each → [..., width]. */
  activate(inner: readonly Tensor[]): Tensor;
}

export interface DecoderSizes {
  readonly layers: number;
  readonly hidden: number;
  readonly heads: number;
  /** fewer than `heads` means grouped-query attention; divides `heads` */
  readonly keyValueHeads: number;
  readonly headDim: number;
  readonly vocab: number;
}

export interface Decoder extends DecoderSizes {
  /** how many positions a sequence may have */
  readonly positionLimit: number;
  /** the first so many layers have features of the picture added to their outputs (DeepStack); 0 in most decoders */
  readonly addedLayers: number;
  /** how many earlier rows a row sees, itself included; null: all */
  readonly slidingWindow: number | null;
  /** axes of positions: 1, or 3 with M-RoPE */
  readonly axes: number;
  /** whether queries and keys are rotated by position, with tables fed at each run */
  readonly rotates: boolean;
  /** canonical names and shapes of its weights, in the order of computation */
  tensors(): Map<string, number[]>;
  /** Token embeddings. ids int64 [batch, rows] → [batch, rows, hidden]. */
  embed(ids: Tensor, weight: Weights): Tensor;
  /** Learnt embeddings of positions, where the decoder has such: positions int64 [batch, rows] → [batch, rows, hidden]. */
  readonly embedPositions: ((positions: Tensor, weight: Weights) => Tensor) | null;
  attention(layer: number, weight: Weights): AttentionParts;
  mlp(layer: number): Mlp;
  /** canonical names of a layer's tensors, in the order of computation */
  layerTensors(layer: number): string[];
  /** One layer. x [batch, rows, hidden] as it enters; `past` holds keys and values of earlier rows. */
  layer(
    x: Tensor,
    layer: number,
    inputs: AttentionInputs,
    weight: Weights,
    past?: { readonly key: Tensor; readonly value: Tensor },
  ): LayerOutputs;
  /** Final norm. x [..., hidden] → [..., hidden]. */
  finalNorm(x: Tensor, weight: Weights): Tensor;
  /** The head, without the final norm. x [..., hidden] → logits [..., vocabulary]. */
  head(x: Tensor, weight: Weights): Tensor;
  /** cos and sin of rows at these positions, each [rows, head size]; null in decoders that do not rotate. */
  tables(positions: Positions): { readonly cosine: Float32Array; readonly sine: Float32Array } | null;
}

/** A decoder with its weights, and where its graphs run. */
export interface RunnableDecoder extends Decoder {
  readonly weightsOf: (graph: Graph) => Weights;
  readonly session: SessionOptions;
}

/** The output of layer `layer − 1` as it enters layer `layer`: with what the decoder adds between them. */
export function enter(x: Tensor, layer: number, inputs: AttentionInputs): Tensor {
  const added = inputs.added?.get(layer - 1);
  return added ? f.add(x, added) : x;
}

/** Name of the graph input that holds what is added to the output of a layer. */
export const addedName = (layer: number) => `added.${layer}`;

/** Inputs of a graph that hold what its layers share, `batch` sequences each with tables and masks of its own. */
export function attentionInputs(
  graph: Graph,
  decoder: Decoder,
  batch: Dim,
  rows: Dim,
  total: Dim,
): AttentionInputs {
  const table = [batch, 1, rows, decoder.headDim];
  return {
    ...(decoder.rotates && {
      cosine: graph.input('cosine', 'float32', table),
      sine: graph.input('sine', 'float32', table),
    }),
    mask: graph.input('mask', 'float32', [batch, 1, rows, total]),
    ...(decoder.addedLayers > 0 && {
      added: new Map(
        Array.from({ length: decoder.addedLayers }, (_, layer) => [
          layer,
          graph.input(addedName(layer), 'float32', [batch, rows, decoder.hidden]),
        ]),
      ),
    }),
  };
}

/**
 * Feeds of `attentionInputs` for one sequence: new rows at `positions`, behind `past` earlier ones. `added`: what is added to
 * the new rows after layer 0, 1, … [rows, hidden] each; nothing where absent.
 */
export function attentionFeeds(
  decoder: Decoder,
  positions: Positions,
  past: number,
  added: readonly Float32Array[] = [],
): Record<string, Value> {
  const rows = positions[0]!.length;
  const feeds: Record<string, Value> = {
    mask: float32(causalMask(rows, past, decoder.slidingWindow), [1, 1, rows, past + rows]),
  };
  const tables = decoder.tables(positions);
  if (tables) {
    feeds['cosine'] = float32(tables.cosine, [1, 1, rows, decoder.headDim]);
    feeds['sine'] = float32(tables.sine, [1, 1, rows, decoder.headDim]);
  }
  for (let layer = 0; layer < decoder.addedLayers; layer++) {
    const values = added[layer] ?? new Float32Array(rows * decoder.hidden);
    feeds[addedName(layer)] = float32(values, [1, rows, decoder.hidden]);
  }
  return feeds;
}
