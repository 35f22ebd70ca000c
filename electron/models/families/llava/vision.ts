/**
 * @file The graph from pixels to visual embeddings: CLIP's or SigLIP's ViT and LLaVA's projector.
 */
import * as f from '../../../tensor/functions.ts';
import type { Tensor } from '../../../tensor/graph.ts';
import { float32 } from '../../../tensor/session.ts';
import type { VisionTower } from '../../family.ts';
import { activate } from '../../parts/activations.ts';
import {
  embedPatches,
  encoderLayer,
  encoderLayerTensors,
  linearTensors,
  normTensors,
  patchesOf,
} from '../../parts/visionLayers.ts';
import type { Pixels } from '../../picture.ts';
import type { Weights } from '../../weights.ts';
import { featureStates, type LlavaConfig, type VisionConfig, visionLayersNeeded } from './config.ts';

const prefix = 'vision_tower.vision_model';

/**
 * Hidden states of the tower: entry 0 enters layer 0 (after CLIP's `pre_layrnorm`), entry i + 1 leaves layer i.
 * pixels [batch, 3, side, side] → each [batch, rows, hidden]; CLIP's first row is the class token.
 */
export function visionHiddenStates(
  pixels: Tensor,
  config: VisionConfig,
  weight: Weights,
  layers: number,
): Tensor[] {
  const { hidden, imageSize, patchSize, layerNormEps } = config;
  const at = (name: string) => weight(`${prefix}.${name}`);
  const positions = at('embeddings.position_embedding.weight');
  const siglip = config.kind === 'siglip';
  const patches = patchesOf(pixels, imageSize, patchSize);
  const embedded = embedPatches(patches, `${prefix}.embeddings.patch_embedding`, weight, siglip);
  let x: Tensor;
  if (siglip) x = f.add(embedded, positions);
  else {
    const first = f.reshape(at('embeddings.class_embedding'), [1, 1, hidden]);
    const withClass = f.concat([f.expandLike(first, f.slice(embedded, 1, 0, 1)), embedded], 1);
    const placed = f.add(withClass, positions);
    x = f.layerNorm(placed, at('pre_layrnorm.weight'), at('pre_layrnorm.bias'), layerNormEps);
  }
  const states = [x];
  for (let layer = 0; layer < layers; layer++) {
    x = encoderLayer(x, `${prefix}.encoder.layers.${layer}`, config, weight);
    states.push(x);
  }
  return states;
}

/** pixels [batch, 3, side, side] → visual embeddings [batch, visual tokens, decoder hidden]. */
export function visualEmbeddings(pixels: Tensor, config: LlavaConfig, weight: Weights): Tensor {
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
function project(features: Tensor, config: LlavaConfig, weight: Weights): Tensor {
  const dense = (x: Tensor, name: string) => {
    const bias = config.projector.bias ? weight(`multi_modal_projector.${name}.bias`) : undefined;
    return weight.linear(x, `multi_modal_projector.${name}`, bias);
  };
  return dense(activate(dense(features, 'linear_1'), config.projector.activation), 'linear_2');
}

export function llavaVision(config: LlavaConfig): VisionTower {
  const side = config.vision.imageSize;
  return {
    parts: {
      connector: ['multi_modal_projector.'],
      layers: visionLayersNeeded(config),
      layer: (layer) => `${prefix}.encoder.layers.${layer}.`,
    },
    together: true,
    build(graph, weight) {
      const pixels = graph.input('pixels', 'float32', ['pictures', 3, side, side]);
      const visual = visualEmbeddings(pixels, config, weight);
      return { visual: f.reshape(visual, ['visual rows', config.text.hidden]), added: [] };
    },
    feeds: (pictures) => ({ pixels: squares(pictures, side) }),
  };
}

/** Pictures of one square size behind one another [pictures, 3, side, side]. */
export function squares(pictures: readonly Pixels[], side: number) {
  const area = 3 * side * side;
  const values = new Float32Array(pictures.length * area);
  for (const [index, picture] of pictures.entries()) values.set(picture.values, index * area);
  return float32(values, [pictures.length, 3, side, side]);
}

/** Canonical names and shapes of tower and projector, layers above the feature layer left out. */
export function llavaVisionTensors(config: LlavaConfig): Array<[string, number[]]> {
  const { text, vision } = config;
  const siglip = vision.kind === 'siglip';
  const patch = vision.patchSize;
  const positions = Math.floor(vision.imageSize / patch) ** 2 + (siglip ? 0 : 1);
  const shapes: Array<[string, number[]]> = [];
  if (!siglip) shapes.push([`${prefix}.embeddings.class_embedding`, [vision.hidden]]);
  shapes.push([`${prefix}.embeddings.patch_embedding.weight`, [vision.hidden, 3, patch, patch]]);
  if (siglip) shapes.push([`${prefix}.embeddings.patch_embedding.bias`, [vision.hidden]]);
  shapes.push([`${prefix}.embeddings.position_embedding.weight`, [positions, vision.hidden]]);
  if (!siglip) shapes.push(...normTensors(`${prefix}.pre_layrnorm`, vision.hidden));
  for (let layer = 0; layer < visionLayersNeeded(config); layer++)
    shapes.push(...encoderLayerTensors(`${prefix}.encoder.layers.${layer}`, vision));
  const features = vision.hidden * featureStates(config).length;
  const { bias } = config.projector;
  shapes.push(...linearTensors('multi_modal_projector.linear_1', text.hidden, features, bias));
  shapes.push(...linearTensors('multi_modal_projector.linear_2', text.hidden, text.hidden, bias));
  return shapes;
}
