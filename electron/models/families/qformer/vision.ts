/**
 * @file The graph from pixels to visual embeddings of BLIP-2 and MiniGPT-4: a ViT, a Q-Former whose queries read it, one projection.
 * Canonical names are BLIP-2's.
 */
import * as f from '../../../tensor/functions.ts';
import type { Tensor } from '../../../tensor/graph.ts';
import { float32 } from '../../../tensor/session.ts';
import type { VisionTower } from '../../family.ts';
import { activate } from '../../parts/activations.ts';
import { attendAll } from '../../parts/attention.ts';
import { embedPatches, linearTensors, normTensors, patchesOf } from '../../parts/visionLayers.ts';
import type { Weights } from '../../weights.ts';
import type { QFormerConfig, QFormerVisionConfig } from './config.ts';

interface Seeing {
  readonly vision: QFormerVisionConfig;
  readonly qformer: QFormerConfig;
  /** width of the decoder */
  readonly hidden: number;
}

/** Output of the ViT behind its last norm. pixels [batch, 3, side, side] → [batch, 1 + patches, hidden]. */
function visionStates(pixels: Tensor, config: QFormerVisionConfig, weight: Weights): Tensor {
  const { hidden, heads, imageSize, patchSize } = config;
  const at = (name: string) => weight(`vision_model.${name}`);
  const norm = (x: Tensor, name: string, epsilon: number) =>
    f.layerNorm(x, at(`${name}.weight`), at(`${name}.bias`), epsilon);
  const dense = (x: Tensor, name: string) => weight.linear(x, `vision_model.${name}`, at(`${name}.bias`));
  const patches = patchesOf(pixels, imageSize, patchSize);
  const embedded = embedPatches(patches, 'vision_model.embeddings.patch_embedding', weight, true);
  const first = f.expandLike(at('embeddings.class_embedding'), f.slice(embedded, 1, 0, 1));
  let x = f.add(f.concat([first, embedded], 1), at('embeddings.position_embedding'));
  for (let layer = 0; layer < config.layers; layer++) {
    const name = `encoder.layers.${layer}`;
    const qkv = `${name}.self_attn.qkv`;
    const bias = () => {
      if (config.biases === 'joint') return at(`${qkv}.bias`);
      const [query, value] = [at(`${name}.self_attn.q_bias`), at(`${name}.self_attn.v_bias`)];
      return f.concat([query, x.graph.constant(new Float32Array(hidden)), value], 0);
    };
    const mixed = weight.linear(
      norm(x, `${name}.layer_norm1`, config.layerNormEps),
      `vision_model.${qkv}`,
      config.biases === 'none' ? undefined : bias(),
    );
    const part = (index: number) =>
      f.splitHeads(f.slice(mixed, 2, index * hidden, (index + 1) * hidden), heads);
    x = f.add(x, dense(attendAll(part(0), part(1), part(2)), `${name}.self_attn.projection`));
    const normed = norm(x, `${name}.layer_norm2`, config.layerNormEps);
    const inner = activate(dense(normed, `${name}.mlp.fc1`), config.activation);
    x = f.add(x, dense(inner, `${name}.mlp.fc2`));
  }
  return norm(x, 'post_layernorm', config.lastNormEps);
}

/** What the queries become. states [batch, rows, vision hidden] → [batch, queries, Q-Former hidden]. */
function queried(states: Tensor, config: QFormerConfig, weight: Weights): Tensor {
  const { heads, layerNormEps, crossEvery } = config;
  const norm = (x: Tensor, name: string) =>
    f.layerNorm(x, weight(`${name}.weight`), weight(`${name}.bias`), layerNormEps);
  const dense = (x: Tensor, name: string) => weight.linear(x, name, weight(`${name}.bias`));
  const attention = (x: Tensor, from: Tensor, name: string) => {
    const split = (of: Tensor, part: string) => f.splitHeads(dense(of, `${name}.attention.${part}`), heads);
    const mixed = attendAll(split(x, 'query'), split(from, 'key'), split(from, 'value'));
    return norm(f.add(dense(mixed, `${name}.output.dense`), x), `${name}.output.LayerNorm`);
  };
  let x = norm(weight('query_tokens'), 'qformer.layernorm');
  for (let layer = 0; layer < config.layers; layer++) {
    const name = `qformer.encoder.layer.${layer}`;
    x = attention(x, x, `${name}.attention`);
    if (layer % crossEvery === 0) x = attention(x, states, `${name}.crossattention`);
    const inner = activate(dense(x, `${name}.intermediate_query.dense`), config.activation);
    x = norm(f.add(dense(inner, `${name}.output_query.dense`), x), `${name}.output_query.LayerNorm`);
  }
  return x;
}

export function qformerVision({ vision, qformer, hidden }: Seeing): VisionTower {
  const side = vision.imageSize;
  return {
    parts: {
      connector: ['qformer.', 'language_projection.'],
      layers: vision.layers,
      layer: (layer) => `vision_model.encoder.layers.${layer}.`,
    },
    together: true,
    build(graph, weight) {
      const pixels = graph.input('pixels', 'float32', ['pictures', 3, side, side]);
      const queries = queried(visionStates(pixels, vision, weight), qformer, weight);
      const visual = weight.linear(queries, 'language_projection', weight('language_projection.bias'));
      return { visual: f.reshape(visual, ['visual rows', hidden]), added: [] };
    },
    feeds(pictures) {
      const area = 3 * side * side;
      const values = new Float32Array(pictures.length * area);
      for (const [index, picture] of pictures.entries()) values.set(picture.values, index * area);
      return { pixels: float32(values, [pictures.length, 3, side, side]) };
    },
  };
}

/** Canonical names and shapes of what sees. */
export function qformerTensors({ vision, qformer, hidden }: Seeing): Array<[string, number[]]> {
  const at = 'vision_model';
  const positions = Math.floor(vision.imageSize / vision.patchSize) ** 2 + 1;
  const width = vision.hidden;
  const shapes: Array<[string, number[]]> = [
    [`${at}.embeddings.class_embedding`, [1, 1, width]],
    [`${at}.embeddings.patch_embedding.weight`, [width, 3, vision.patchSize, vision.patchSize]],
    [`${at}.embeddings.patch_embedding.bias`, [width]],
    [`${at}.embeddings.position_embedding`, [1, positions, width]],
  ];
  for (let layer = 0; layer < vision.layers; layer++) {
    const name = `${at}.encoder.layers.${layer}`;
    shapes.push(...normTensors(`${name}.layer_norm1`, width));
    shapes.push(...linearTensors(`${name}.self_attn.qkv`, 3 * width, width, vision.biases === 'joint'));
    if (vision.biases === 'apart')
      for (const part of ['q_bias', 'v_bias']) shapes.push([`${name}.self_attn.${part}`, [width]]);
    shapes.push(...linearTensors(`${name}.self_attn.projection`, width, width));
    shapes.push(...normTensors(`${name}.layer_norm2`, width));
    shapes.push(...linearTensors(`${name}.mlp.fc1`, vision.intermediate, width));
    shapes.push(...linearTensors(`${name}.mlp.fc2`, width, vision.intermediate));
  }
  shapes.push(...normTensors(`${at}.post_layernorm`, width));
  const inner = qformer.hidden;
  shapes.push(['query_tokens', [1, qformer.queries, inner]], ...normTensors('qformer.layernorm', inner));
  const attention = (name: string, from: number) => {
    shapes.push(...linearTensors(`${name}.attention.query`, inner, inner));
    shapes.push(...linearTensors(`${name}.attention.key`, inner, from));
    shapes.push(...linearTensors(`${name}.attention.value`, inner, from));
    shapes.push(...linearTensors(`${name}.output.dense`, inner, inner));
    shapes.push(...normTensors(`${name}.output.LayerNorm`, inner));
  };
  for (let layer = 0; layer < qformer.layers; layer++) {
    const name = `qformer.encoder.layer.${layer}`;
    attention(`${name}.attention`, inner);
    if (layer % qformer.crossEvery === 0) attention(`${name}.crossattention`, width);
    shapes.push(...linearTensors(`${name}.intermediate_query.dense`, qformer.intermediate, inner));
    shapes.push(...linearTensors(`${name}.output_query.dense`, inner, qformer.intermediate));
    shapes.push(...normTensors(`${name}.output_query.LayerNorm`, inner));
  }
  shapes.push(...linearTensors('language_projection', hidden, inner));
  return shapes;
}
