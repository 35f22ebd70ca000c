/**
 * @file What a LLaVA checkpoint's config.json says, with the Hugging Face class defaults where it says nothing.
 *
 * Defaults are those of transformers' `LlavaConfig`, `CLIPVisionConfig` and `SiglipVisionConfig`: hub files are often saved as
 * a difference from them (LLaVA-1.5's `text_config` has no `hidden_size`).
 */
import { z } from 'zod';
import {
  type Activation,
  activationOf,
  configErrors,
  epsilon,
  parseTextConfig,
  parseWith,
  size,
  type TextConfig,
  tokenId,
} from '../../config.ts';

/** A CLIP vision tower, or a SigLIP one: without class token and first norm, with a bias on patches. */
export interface VisionConfig {
  /** absent: CLIP */
  readonly kind?: 'siglip';
  readonly layers: number;
  readonly hidden: number;
  readonly intermediate: number;
  readonly heads: number;
  /** Side of the square picture, and of one patch, in pixels. */
  readonly imageSize: number;
  readonly patchSize: number;
  readonly layerNormEps: number;
  readonly activation: Activation;
}

/** A LLaVA-architecture model: vision tower, two-layer projector, decoder of the Llama kind. */
export interface LlavaConfig {
  readonly text: TextConfig;
  readonly vision: VisionConfig;
  /** May lie beyond `text.vocab`: its rows come from the picture, never from the embedding. */
  readonly imageTokenId: number;
  /**
   * Which of the tower's `layers + 1` hidden states the projector reads: 0 enters the first layer, negative
   * ones count from the end. Several are joined along the width.
   */
  readonly featureLayer: number | readonly number[];
  /** `default` drops the class token, `full` keeps it. */
  readonly featureSelect: 'default' | 'full';
  readonly projector: { readonly activation: Activation; readonly bias: boolean };
  /** Rows one picture takes in the decoder's sequence. */
  readonly imageTokenCount: number;
}

const visionSchema = z.looseObject({
  hidden_size: size(131_072).default(768),
  intermediate_size: size(1_048_576).default(3072),
  num_hidden_layers: size(1000).default(12),
  num_attention_heads: size(4096).default(12),
  num_channels: z.int().default(3),
  image_size: size(8192).default(224),
  patch_size: size(8192).default(32),
  hidden_act: z.string().default('quick_gelu'),
  layer_norm_eps: epsilon.default(1e-5),
});

/** Where `SiglipVisionConfig` differs from CLIP's. */
const SIGLIP_DEFAULTS = { patch_size: 16, hidden_act: 'gelu_pytorch_tanh', layer_norm_eps: 1e-6 };

/** What `LlavaConfig` takes when there is no `vision_config` at all: CLIP ViT-L/14 at 336 pixels. */
const WHOLE_VISION_DEFAULT = {
  hidden_size: 1024,
  intermediate_size: 4096,
  num_hidden_layers: 24,
  num_attention_heads: 16,
  image_size: 336,
  patch_size: 14,
};

const section = z.looseObject({ model_type: z.string().optional() }).nullish();

const llavaSchema = z.looseObject({
  text_config: section,
  vision_config: section,
  image_token_id: tokenId.nullish(),
  image_token_index: tokenId.nullish(),
  projector_hidden_act: z.string().default('gelu'),
  multimodal_projector_bias: z.boolean().default(true),
  vision_feature_layer: z.union([z.int(), z.array(z.int()).min(1).max(64)]).default(-2),
  vision_feature_select_strategy: z.string().default('default'),
  tie_word_embeddings: z.boolean().nullish(),
  pad_token_id: z.int().nullish(),
});

const textKinds = ['llama', 'mistral', 'qwen2', 'qwen3'] as const;

/** `Family.parseConfig` of LLaVA. */
export function parseLlavaConfig(json: unknown, origin: string): LlavaConfig {
  const { damaged, unsupported } = configErrors(origin);
  const llava = parseWith(llavaSchema, json, origin);
  const textType = llava.text_config?.model_type ?? 'llama';
  const kind = textKinds.find((name) => name === textType);
  if (!kind) throw unsupported(`text_config.model_type "${textType}"`, `${textKinds.join(', ')} decoders`);
  const text = parseTextConfig(llava.text_config, kind, origin, 'text_config', {
    tied: llava.tie_word_embeddings,
    padTokenId: llava.pad_token_id,
  });

  const tower = llava.vision_config?.model_type ?? 'clip_vision_model';
  if (tower !== 'clip_vision_model' && tower !== 'siglip_vision_model') {
    throw unsupported(
      `vision_config.model_type "${tower}"`,
      'clip_vision_model and siglip_vision_model towers',
    );
  }
  const siglip = tower === 'siglip_vision_model';
  const vision = parseWith(
    visionSchema,
    llava.vision_config ? { ...(siglip && SIGLIP_DEFAULTS), ...llava.vision_config } : WHOLE_VISION_DEFAULT,
    origin,
    'vision_config',
  );
  if (vision.num_channels !== 3) {
    throw unsupported(`vision_config.num_channels ${vision.num_channels}`, 'pictures of 3 channels');
  }
  const select = llava.vision_feature_select_strategy;
  if (select !== 'default' && select !== 'full') {
    throw unsupported(`vision_feature_select_strategy "${select}"`, '"default" and "full"');
  }
  if (vision.hidden_size % vision.num_attention_heads !== 0) {
    throw damaged(
      `vision_config: ${vision.num_attention_heads} heads do not divide the hidden size ${vision.hidden_size}`,
    );
  }
  if (vision.patch_size > vision.image_size) {
    throw damaged(
      `vision_config: patches of ${vision.patch_size} pixels in pictures of ${vision.image_size}`,
    );
  }
  const states = vision.num_hidden_layers + 1;
  for (const layer of [llava.vision_feature_layer].flat()) {
    if (layer < -states || layer >= states) {
      throw damaged(`vision_feature_layer ${layer} of a tower with ${vision.num_hidden_layers} layers`);
    }
  }
  const patches = Math.floor(vision.image_size / vision.patch_size) ** 2;
  const features = patches + (siglip ? 0 : 1);
  return {
    text,
    vision: {
      ...(siglip && { kind: 'siglip' as const }),
      layers: vision.num_hidden_layers,
      hidden: vision.hidden_size,
      intermediate: vision.intermediate_size,
      heads: vision.num_attention_heads,
      imageSize: vision.image_size,
      patchSize: vision.patch_size,
      layerNormEps: vision.layer_norm_eps,
      activation: activationOf(vision.hidden_act, 'vision_config.hidden_act', origin),
    },
    imageTokenId: llava.image_token_id ?? llava.image_token_index ?? 32000,
    featureLayer: llava.vision_feature_layer,
    featureSelect: select,
    projector: {
      activation: activationOf(llava.projector_hidden_act, 'projector_hidden_act', origin),
      bias: llava.multimodal_projector_bias,
    },
    imageTokenCount: select === 'full' ? features : features - 1,
  };
}

/** The hidden states the projector reads, in order, each counted from 0 (0 enters the tower's first layer). */
export function featureStates(config: LlavaConfig): number[] {
  return [config.featureLayer].flat().map((layer) => (layer < 0 ? config.vision.layers + 1 + layer : layer));
}

/** How many of the vision tower's layers, from the first, the projector's input depends on. */
export function visionLayersNeeded(config: LlavaConfig): number {
  return Math.max(...featureStates(config));
}
