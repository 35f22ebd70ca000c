/**
 * @file The graph from pixels to visual embeddings: CLIP ViT and LLaVA's projector.
 */
import * as f from '../tensor/functions.ts';
import type { Tensor } from '../tensor/graph.ts';
import {
  type Activation,
  featureStates,
  type VisionConfig,
  type VisionLanguageConfig,
  visionLayersNeeded,
} from './config.ts';
import type { WeightOf } from './weights.ts';

export function activate(x: Tensor, kind: Activation): Tensor {
  switch (kind) {
    case 'silu':
      return f.silu(x);
    case 'quick_gelu':
      return f.quickGelu(x);
    case 'gelu':
      return f.gelu(x);
    case 'relu':
      return f.relu(x);
  }
}

/** pixels [batch, 3, side, side] → [batch, patches, 3·p·p], patches row by row; what does not fill a patch is left out. */
function patches(pixels: Tensor, config: VisionConfig): Tensor {
  const grid = Math.floor(config.imageSize / config.patchSize);
  const p = config.patchSize;
  const batch = pixels.shape[0]!;
  const cut = f.slice(f.slice(pixels, 2, 0, grid * p), 3, 0, grid * p);
  const split = f.reshape(cut, [batch, 3, grid, p, grid, p]);
  return f.reshape(f.transpose(split, [0, 2, 4, 1, 3, 5]), [batch, grid * grid, 3 * p * p]);
}

const prefix = 'vision_tower.vision_model';

/**
 * Hidden states of the tower: entry 0 enters layer 0 (after `pre_layrnorm`), entry i + 1 leaves layer i.
 * pixels [batch, 3, side, side] → each [batch, 1 + patches, hidden].
 */
export function visionHiddenStates(
  pixels: Tensor,
  config: VisionConfig,
  weight: WeightOf,
  layers: number,
): Tensor[] {
  const { hidden, patchSize, heads, layerNormEps } = config;
  const at = (name: string) => weight(`${prefix}.${name}`);
  const norm = (x: Tensor, name: string) =>
    f.layerNorm(x, at(`${name}.weight`), at(`${name}.bias`), layerNormEps);

  const kernel = f.reshape(at('embeddings.patch_embedding.weight'), [hidden, 3 * patchSize * patchSize]);
  const embedded = f.linear(patches(pixels, config), kernel);
  const first = f.reshape(at('embeddings.class_embedding'), [1, 1, hidden]);
  const withClass = f.concat([f.expandLike(first, f.slice(embedded, 1, 0, 1)), embedded], 1);
  let x = norm(f.add(withClass, at('embeddings.position_embedding.weight')), 'pre_layrnorm');

  const states = [x];
  for (let layer = 0; layer < layers; layer++) {
    const name = `encoder.layers.${layer}`;
    const dense = (input: Tensor, part: string) =>
      f.linear(input, at(`${name}.${part}.weight`), at(`${name}.${part}.bias`));
    const normed = norm(x, `${name}.layer_norm1`);
    const query = f.multiply(
      f.splitHeads(dense(normed, 'self_attn.q_proj'), heads),
      1 / Math.sqrt(hidden / heads),
    );
    const key = f.splitHeads(dense(normed, 'self_attn.k_proj'), heads);
    const value = f.splitHeads(dense(normed, 'self_attn.v_proj'), heads);
    const mixed = f.matmul(f.softmax(f.matmul(query, key, { b: true })), value);
    x = f.add(x, dense(f.mergeHeads(mixed), 'self_attn.out_proj'));
    const inner = activate(dense(norm(x, `${name}.layer_norm2`), 'mlp.fc1'), config.activation);
    x = f.add(x, dense(inner, 'mlp.fc2'));
    states.push(x);
  }
  return states;
}

/** pixels [batch, 3, side, side] → visual embeddings [batch, visual tokens, decoder hidden]. */
export function visualEmbeddings(pixels: Tensor, config: VisionLanguageConfig, weight: WeightOf): Tensor {
  const states = visionHiddenStates(pixels, config.vision, weight, visionLayersNeeded(config));
  const chosen = featureStates(config).map((index) => states[index]!);
  const features = f.concat(chosen, 2);
  const rows = features.shape[1] as number;
  return project(
    config.featureSelect === 'default' ? f.slice(features, 1, 1, rows) : features,
    config,
    weight,
  );
}

/** LLaVA's two-layer projector. features [batch, rows, vision hidden] → [batch, rows, decoder hidden]. */
export function project(features: Tensor, config: VisionLanguageConfig, weight: WeightOf): Tensor {
  const dense = (x: Tensor, name: string) => {
    const bias = config.projector.bias ? weight(`multi_modal_projector.${name}.bias`) : undefined;
    return f.linear(x, weight(`multi_modal_projector.${name}.weight`), bias);
  };
  return dense(activate(dense(features, 'linear_1'), config.projector.activation), 'linear_2');
}
