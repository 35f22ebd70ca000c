/** @file OPT's decoder: LayerNorm, learnt positions, a plain MLP. */
import * as f from '../../../tensor/functions.ts';
import type { Tensor } from '../../../tensor/graph.ts';
import type { Decoder } from '../../decoder.ts';
import { activate } from '../../parts/activations.ts';
import { attentionTensors, type LayerNames, preNormDecoder } from '../../parts/preNormDecoder.ts';
import { linearTensors, normTensors } from '../../parts/visionLayers.ts';
import type { Weights } from '../../weights.ts';
import type { OptConfig } from './config.ts';

/** The table of positions has so many rows before the first; transformers' LayerNorm has PyTorch's epsilon. */
const POSITION_OFFSET = 2;
const EPSILON = 1e-5;

export function optDecoder(config: OptConfig): Decoder {
  const { layers, hidden, intermediate, heads, vocab, bias } = config;
  const sizes = { layers, hidden, heads, keyValueHeads: heads, headDim: hidden / heads, vocab };
  const model = 'language_model.model.decoder';
  const namesOf = (layer: number): LayerNames => {
    const at = `${model}.layers.${layer}`;
    return {
      attentionNorm: `${at}.self_attn_layer_norm`,
      query: `${at}.self_attn.q_proj`,
      key: `${at}.self_attn.k_proj`,
      value: `${at}.self_attn.v_proj`,
      output: `${at}.self_attn.out_proj`,
      mlpNorm: `${at}.final_layer_norm`,
      mlp: { name: `${at}.mlp`, into: [`${at}.fc1`], out: `${at}.fc2` },
    };
  };
  const linear = (x: Tensor, name: string, weight: Weights) =>
    weight.linear(x, name, bias ? weight(`${name}.bias`) : undefined);
  return preNormDecoder({
    ...sizes,
    positionLimit: config.maxPositions,
    addedLayers: 0,
    slidingWindow: null,
    axes: 1,
    rotates: false,
    names: {
      embedding: `${model}.embed_tokens`,
      finalNorm: `${model}.final_layer_norm`,
      head: config.tieWordEmbeddings ? `${model}.embed_tokens` : 'language_model.lm_head',
      layer: namesOf,
    },
    norm: (x, name, weight) => f.layerNorm(x, weight(`${name}.weight`), weight(`${name}.bias`), EPSILON),
    linear,
    intermediate,
    activate: ([inner]) => activate(inner!, config.activation),
    embedPositions(positions, weight) {
      const shifted = f.add(positions, positions.graph.constant([POSITION_OFFSET], [1], 'int64'));
      return weight.rows(shifted, `${model}.embed_positions.weight`);
    },
    tables: () => null,
    tensors() {
      const shapes: Array<[string, number[]]> = [
        [`${model}.embed_tokens.weight`, [vocab, hidden]],
        [`${model}.embed_positions.weight`, [config.maxPositions + POSITION_OFFSET, hidden]],
      ];
      for (let layer = 0; layer < layers; layer++) {
        const names = namesOf(layer);
        shapes.push(...normTensors(names.attentionNorm, hidden));
        shapes.push(...attentionTensors(sizes, names, { inputs: bias, output: bias }));
        shapes.push(...normTensors(names.mlpNorm, hidden));
        for (const name of names.mlp.into) shapes.push(...linearTensors(name, intermediate, hidden, bias));
        shapes.push(...linearTensors(names.mlp.out, hidden, intermediate, bias));
      }
      shapes.push(...normTensors(`${model}.final_layer_norm`, hidden));
      if (!config.tieWordEmbeddings) shapes.push(['language_model.lm_head.weight', [vocab, hidden]]);
      return new Map(shapes);
    },
  });
}
