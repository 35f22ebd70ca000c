/**
 * @file The decoder of Llama, Mistral, Qwen2, Qwen3 and their vision-language relatives: RMSNorm, rotary positions along one
 * axis or three, grouped queries, a gated MLP. Canonical names are those of the first LLaVA checkpoints.
 */
import * as f from '../../tensor/functions.ts';
import type { Tensor } from '../../tensor/graph.ts';
import type { TextConfig } from '../config.ts';
import type { Decoder } from '../decoder.ts';
import { positionLimit, rotaryTables } from '../positions.ts';
import type { Weights } from '../weights.ts';
import { activate } from './activations.ts';
import { attentionTensors, type LayerNames, preNormDecoder } from './preNormDecoder.ts';

export const embeddingName = 'language_model.model.embed_tokens.weight';
export const headName = 'language_model.lm_head.weight';

/** `addedLayers`: the first so many layers have features of the picture added to their outputs (DeepStack). */
export function rotaryDecoder(config: TextConfig, addedLayers = 0): Decoder {
  const { layers, hidden, intermediate, heads, keyValueHeads, headDim, vocab } = config;
  const sizes = { layers, hidden, heads, keyValueHeads, headDim, vocab };
  const model = 'language_model.model';
  const inputBias = config.attentionBias || config.inputBias === true;
  const namesOf = (layer: number): LayerNames => {
    const at = `${model}.layers.${layer}`;
    return {
      attentionNorm: `${at}.input_layernorm`,
      query: `${at}.self_attn.q_proj`,
      key: `${at}.self_attn.k_proj`,
      value: `${at}.self_attn.v_proj`,
      output: `${at}.self_attn.o_proj`,
      ...(config.queryKeyNorm && {
        queryNorm: `${at}.self_attn.q_norm`,
        keyNorm: `${at}.self_attn.k_norm`,
      }),
      mlpNorm: `${at}.post_attention_layernorm`,
      mlp: {
        name: `${at}.mlp`,
        into: [`${at}.mlp.gate_proj`, `${at}.mlp.up_proj`],
        out: `${at}.mlp.down_proj`,
      },
    };
  };
  const biased = (name: string): boolean => {
    if (name.includes('.mlp.')) return config.mlpBias;
    return name.endsWith('.o_proj') ? config.attentionBias : inputBias;
  };
  const linear = (x: Tensor, name: string, weight: Weights) =>
    weight.linear(x, name, biased(name) ? weight(`${name}.bias`) : undefined);
  return preNormDecoder({
    ...sizes,
    positionLimit: positionLimit(config),
    addedLayers,
    slidingWindow: config.slidingWindow ?? null,
    axes: config.mrope ? 3 : 1,
    rotates: true,
    names: {
      embedding: `${model}.embed_tokens`,
      finalNorm: `${model}.norm`,
      head: config.tieWordEmbeddings ? `${model}.embed_tokens` : 'language_model.lm_head',
      layer: namesOf,
    },
    norm: (x, name, weight) => f.rmsNorm(x, weight(`${name}.weight`), config.rmsNormEps),
    linear,
    intermediate,
    activate: ([gate, up]) => f.multiply(activate(gate!, config.activation), up!),
    embedPositions: null,
    tables: (positions) => rotaryTables(config, positions),
    tensors() {
      const shapes = new Map<string, number[]>();
      const mlpLinear = (name: string, out: number, into: number) => {
        shapes.set(`${name}.weight`, [out, into]);
        if (config.mlpBias) shapes.set(`${name}.bias`, [out]);
      };
      shapes.set(embeddingName, [vocab, hidden]);
      for (let layer = 0; layer < layers; layer++) {
        const names = namesOf(layer);
        shapes.set(`${names.attentionNorm}.weight`, [hidden]);
        const bias = { inputs: inputBias, output: config.attentionBias };
        for (const [name, shape] of attentionTensors(sizes, names, bias)) shapes.set(name, shape);
        shapes.set(`${names.mlpNorm}.weight`, [hidden]);
        for (const name of names.mlp.into) mlpLinear(name, intermediate, hidden);
        mlpLinear(names.mlp.out, hidden, intermediate);
      }
      shapes.set(`${model}.norm.weight`, [hidden]);
      if (!config.tieWordEmbeddings) shapes.set(headName, [vocab, hidden]);
      return shapes;
    },
  });
}
