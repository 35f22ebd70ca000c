/**
 * @file A decoder whose layers read the residual stream through a norm and add to it: attention, then an MLP. Families say which
 * norm, which MLP, which positions, and what their weights are called.
 */
import * as f from '../../tensor/functions.ts';
import type { Tensor } from '../../tensor/graph.ts';
import type { Decoder, DecoderSizes, Mlp } from '../decoder.ts';
import type { Weights } from '../weights.ts';
import { attend, rotate } from './attention.ts';

/** What tells one decoder from another. */
export interface DecoderPieces
  extends Omit<Decoder, 'attention' | 'mlp' | 'layer' | 'layerTensors' | 'finalNorm' | 'head' | 'embed'> {
  /** Canonical names of the tensors, without `.weight` and `.bias`. */
  readonly names: {
    readonly embedding: string;
    readonly finalNorm: string;
    /** the embedding's where they are tied */
    readonly head: string;
    layer(layer: number): LayerNames;
  };
  /** The norm of this name. x [..., hidden] → the same. */
  norm(x: Tensor, name: string, weight: Weights): Tensor;
  /** The linear layer of this name; `bias` says which have one. */
  linear(x: Tensor, name: string, weight: Weights): Tensor;
  /** inner width of the MLP */
  readonly intermediate: number;
  /** Inner activations from what the MLP's `into` gave. */
  activate: Mlp['activate'];
}

export interface LayerNames {
  readonly attentionNorm: string;
  readonly query: string;
  readonly key: string;
  readonly value: string;
  readonly output: string;
  /** norms of each head's queries and keys before they are rotated */
  readonly queryNorm?: string;
  readonly keyNorm?: string;
  readonly mlpNorm: string;
  readonly mlp: Pick<Mlp, 'name' | 'into' | 'out'>;
}

/** Shapes of a layer's attention weights by name, biases where `bias` says so. */
export function attentionTensors(
  { hidden, heads, keyValueHeads, headDim }: DecoderSizes,
  names: LayerNames,
  bias: { readonly inputs: boolean; readonly output: boolean },
): Array<[string, number[]]> {
  const linear = (name: string, out: number, into: number, biased: boolean): Array<[string, number[]]> => [
    [`${name}.weight`, [out, into]],
    ...(biased ? [[`${name}.bias`, [out]] as [string, number[]]] : []),
  ];
  return [
    ...linear(names.query, heads * headDim, hidden, bias.inputs),
    ...linear(names.key, keyValueHeads * headDim, hidden, bias.inputs),
    ...linear(names.value, keyValueHeads * headDim, hidden, bias.inputs),
    ...linear(names.output, hidden, heads * headDim, bias.output),
    ...[names.queryNorm, names.keyNorm]
      .filter((name) => name !== undefined)
      .map((name): [string, number[]] => [`${name}.weight`, [headDim]]),
  ];
}

export function preNormDecoder(pieces: DecoderPieces): Decoder {
  const { names, norm, linear, intermediate, activate, ...rest } = pieces;
  const mlpOf = (layer: number): Mlp => ({ ...names.layer(layer).mlp, width: intermediate, activate });
  const attention: Decoder['attention'] = (layer, weight) => {
    const at = names.layer(layer);
    const headsOf = (normed: Tensor, name: string, count: number, headNorm?: string) => {
      const heads = f.splitHeads(linear(normed, name, weight), count);
      return headNorm ? norm(heads, headNorm, weight) : heads;
    };
    return {
      norm: (x) => norm(x, at.attentionNorm, weight),
      query: (normed, tables) => rotate(headsOf(normed, at.query, pieces.heads, at.queryNorm), tables),
      key: (normed, tables) => rotate(headsOf(normed, at.key, pieces.keyValueHeads, at.keyNorm), tables),
      value: (normed) => headsOf(normed, at.value, pieces.keyValueHeads),
      output: (merged) => linear(merged, at.output, weight),
    };
  };
  return {
    ...rest,
    attention,
    mlp: mlpOf,
    layerTensors(layer) {
      const { mlp, ...others } = names.layer(layer);
      const own = new Set([...Object.values(others), ...mlp.into, mlp.out]);
      return [...pieces.tensors().keys()].filter((name) => own.has(name.replace(/\.(?:weight|bias)$/, '')));
    },
    embed: (ids, weight) => weight.rows(ids, `${names.embedding}.weight`),
    layer(x, layer, inputs, weight, past) {
      const parts = attention(layer, weight);
      const normed = parts.norm(x);
      const query = parts.query(normed, inputs);
      const newKey = parts.key(normed, inputs);
      const newValue = parts.value(normed);
      const key = past ? f.concat([past.key, newKey], 2) : newKey;
      const value = past ? f.concat([past.value, newValue], 2) : newValue;
      const attended = parts.output(attend(query, key, value, inputs.mask, pieces));
      const between = f.add(x, attended);
      const at = names.layer(layer);
      const reads = norm(between, at.mlpNorm, weight);
      const mlp = mlpOf(layer);
      const own = linear(mlp.activate(mlp.into.map((name) => linear(reads, name, weight))), mlp.out, weight);
      const beside = weight.neurons?.(reads, mlp);
      const added = beside ? f.add(own, beside) : own;
      return { hidden: f.add(between, added), attention: attended, mlp: added, key, value };
    },
    finalNorm: (x, weight) => norm(x, names.finalNorm, weight),
    head: (x, weight) => weight.linear(x, names.head),
  };
}
