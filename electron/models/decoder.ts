/**
 * @file The graph of a Llama decoder, layer by layer, so that it can be cut where editors act.
 */
import * as f from '../tensor/functions.ts';
import type { Tensor } from '../tensor/graph.ts';
import type { TextConfig } from './config.ts';
import { activate } from './vision.ts';
import type { WeightOf } from './weights.ts';

/** What every layer of one run shares. */
export interface AttentionInputs {
  /** rotary tables of the new rows, [1 or batch, 1, rows, head size] */
  readonly cosine: Tensor;
  readonly sine: Tensor;
  /** added to attention scores: 0 where a row may look, very negative where not, [1 or batch, 1, rows, past + rows] */
  readonly mask: Tensor;
}

export interface LayerOutputs {
  /** the layer's output [batch, rows, hidden] */
  readonly hidden: Tensor;
  /** what attention adds to the residual stream, after o_proj [batch, rows, hidden] */
  readonly attention: Tensor;
  /** what the MLP adds [batch, rows, hidden] */
  readonly mlp: Tensor;
  /** keys (rotated) and values of past and new rows [batch, key-value heads, past + rows, head size] */
  readonly key: Tensor;
  readonly value: Tensor;
}

const layerPrefix = (layer: number) => `language_model.model.layers.${layer}`;

/** (−x₂, x₁) of x = (x₁, x₂) split in half along the last axis, as Hugging Face's Llama rotates. */
function rotateHalf(x: Tensor): Tensor {
  const size = x.shape[3] as number;
  return f.concat([f.negate(f.slice(x, 3, size / 2, size)), f.slice(x, 3, 0, size / 2)], 3);
}

export function rotate(x: Tensor, { cosine, sine }: Pick<AttentionInputs, 'cosine' | 'sine'>): Tensor {
  return f.add(f.multiply(x, cosine), f.multiply(rotateHalf(x), sine));
}

/** Attention of `query` [b, heads, rows, size] over `key`, `value` [b, key-value heads, total, size] → [b, rows, heads·size]. */
export function attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, config: TextConfig): Tensor {
  const { heads, keyValueHeads, headDim } = config;
  const scaled = f.multiply(query, 1 / Math.sqrt(headDim));
  const scores = (q: Tensor, k: Tensor, v: Tensor, m: Tensor) =>
    f.matmul(f.softmax(f.add(f.matmul(q, k, { b: true }), m)), v);
  if (heads === keyValueHeads) return f.mergeHeads(scores(scaled, key, value, mask));
  // Grouped queries: the heads of a group share a key and a value head, so both are broadcast, not copied.
  const group = (x: Tensor, count: number) =>
    f.reshape(x, [x.shape[0]!, keyValueHeads, count, x.shape[2]!, headDim]);
  const wide = f.reshape(mask, [mask.shape[0]!, 1, 1, mask.shape[2]!, mask.shape[3]!]);
  const mixed = scores(group(scaled, heads / keyValueHeads), group(key, 1), group(value, 1), wide);
  return f.mergeHeads(f.reshape(mixed, [mixed.shape[0]!, heads, mixed.shape[3]!, headDim]));
}

/** One decoder layer. x [batch, rows, hidden]; `past` holds keys and values of earlier rows. */
export function decoderLayer(
  x: Tensor,
  layer: number,
  inputs: AttentionInputs,
  config: TextConfig,
  weight: WeightOf,
  past?: { readonly key: Tensor; readonly value: Tensor },
): LayerOutputs {
  const at = (name: string) => weight(`${layerPrefix(layer)}.${name}`);
  const { query, key: newKey, value: newValue } = attentionInputs(x, layer, inputs, config, weight);
  const key = past ? f.concat([past.key, newKey], 2) : newKey;
  const value = past ? f.concat([past.value, newValue], 2) : newValue;
  const attention = f.linear(
    attend(query, key, value, inputs.mask, config),
    at('self_attn.o_proj.weight'),
    config.attentionBias ? at('self_attn.o_proj.bias') : undefined,
  );
  const between = f.add(x, attention);
  const dense = (input: Tensor, name: string) =>
    f.linear(input, at(`mlp.${name}.weight`), config.mlpBias ? at(`mlp.${name}.bias`) : undefined);
  const normed = f.rmsNorm(between, at('post_attention_layernorm.weight'), config.rmsNormEps);
  const gated = f.multiply(activate(dense(normed, 'gate_proj'), config.activation), dense(normed, 'up_proj'));
  const mlp = dense(gated, 'down_proj');
  return { hidden: f.add(between, mlp), attention, mlp, key, value };
}

/** Rotated queries and keys, and values, of the rows of a layer's input: [batch, heads, rows, size] each. */
export function attentionInputs(
  x: Tensor,
  layer: number,
  inputs: Pick<AttentionInputs, 'cosine' | 'sine'>,
  config: TextConfig,
  weight: WeightOf,
): { query: Tensor; key: Tensor; value: Tensor } {
  const normed = f.rmsNorm(x, weight(`${layerPrefix(layer)}.input_layernorm.weight`), config.rmsNormEps);
  const heads = (name: string, count: number) => {
    const bias = config.attentionBias ? weight(`${layerPrefix(layer)}.self_attn.${name}.bias`) : undefined;
    return f.splitHeads(
      f.linear(normed, weight(`${layerPrefix(layer)}.self_attn.${name}.weight`), bias),
      count,
    );
  };
  return {
    query: rotate(heads('q_proj', config.heads), inputs),
    key: rotate(heads('k_proj', config.keyValueHeads), inputs),
    value: heads('v_proj', config.keyValueHeads),
  };
}

/** Final norm. x [..., hidden] → [..., hidden]. */
export function finalNorm(x: Tensor, config: TextConfig, weight: WeightOf): Tensor {
  return f.rmsNorm(x, weight('language_model.model.norm.weight'), config.rmsNormEps);
}

/** The head, without the final norm. x [..., hidden] → logits [..., vocabulary]. */
export function languageHead(x: Tensor, config: TextConfig, weight: WeightOf): Tensor {
  return f.linear(x, weight(headName(config)));
}

/** Name of the head's weight: the embedding itself where they are tied. */
export function headName(config: TextConfig): string {
  return config.tieWordEmbeddings ? embeddingName : 'language_model.lm_head.weight';
}

export const embeddingName = 'language_model.model.embed_tokens.weight';

/** Token embeddings. ids int64 [batch, rows] → [batch, rows, hidden]. */
export function embed(ids: Tensor, weight: WeightOf): Tensor {
  return f.gather(weight(embeddingName), ids);
}
