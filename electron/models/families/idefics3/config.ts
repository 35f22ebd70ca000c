/**
 * @file What the configs of Idefics3 and SmolVLM say, with transformers' class defaults where they say nothing.
 */
import { z } from 'zod';
import {
  activationOf,
  configErrors,
  epsilon,
  parseTextConfig,
  parseWith,
  size,
  type TextConfig,
  tokenId,
} from '../../config.ts';
import type { EncoderConfig } from '../../parts/visionLayers.ts';

export interface Idefics3VisionConfig extends EncoderConfig {
  /** side of a tile, and of one patch, in pixels */
  readonly imageSize: number;
  readonly patchSize: number;
}

export interface Idefics3Config {
  readonly text: TextConfig;
  readonly vision: Idefics3VisionConfig;
  readonly imageTokenId: number;
  /** patches along a side that become one visual row */
  readonly shuffle: number;
}

const visionSchema = z.looseObject({
  hidden_size: size(131_072).default(1152),
  intermediate_size: size(1_048_576).default(3072),
  num_hidden_layers: size(1000).default(12),
  num_attention_heads: size(4096).default(16),
  num_channels: z.int().default(3),
  image_size: size(8192).default(224),
  patch_size: size(8192).default(32),
  hidden_act: z.string().default('gelu_pytorch_tanh'),
  layer_norm_eps: epsilon.default(1e-6),
});

const wholeSchema = z.looseObject({
  text_config: z.looseObject({ model_type: z.string().optional() }).nullish(),
  vision_config: z.looseObject({}).nullish(),
  image_token_id: tokenId.default(128_257),
  scale_factor: size(64).default(2),
  tie_word_embeddings: z.boolean().nullish(),
  pad_token_id: z.int().nullish(),
});

const textKinds = ['llama', 'mistral', 'qwen2', 'qwen3'] as const;

/** `Family.parseConfig` of Idefics3 and SmolVLM. */
export function parseIdefics3Config(json: unknown, origin: string): Idefics3Config {
  const { damaged, unsupported } = configErrors(origin);
  const whole = parseWith(wholeSchema, json, origin);
  const textType = whole.text_config?.model_type ?? 'llama';
  const kind = textKinds.find((name) => name === textType);
  if (!kind) throw unsupported(`text_config.model_type "${textType}"`, `${textKinds.join(', ')} decoders`);
  const text = parseTextConfig(whole.text_config ?? { rms_norm_eps: 1e-5 }, kind, origin, 'text_config', {
    tied: whole.tie_word_embeddings,
    padTokenId: whole.pad_token_id,
  });
  const vision = parseWith(visionSchema, whole.vision_config ?? {}, origin, 'vision_config');
  if (vision.num_channels !== 3) {
    throw unsupported(`vision_config.num_channels ${vision.num_channels}`, 'pictures of 3 channels');
  }
  if (vision.hidden_size % vision.num_attention_heads !== 0) {
    throw damaged(
      `vision_config: ${vision.num_attention_heads} heads do not divide the hidden size ${vision.hidden_size}`,
    );
  }
  const across = Math.floor(vision.image_size / vision.patch_size);
  if (across < 1 || across % whole.scale_factor !== 0) {
    throw damaged(
      `scale_factor ${whole.scale_factor} does not divide the ${across} patches along a tile's side`,
    );
  }
  return {
    text,
    vision: {
      layers: vision.num_hidden_layers,
      hidden: vision.hidden_size,
      intermediate: vision.intermediate_size,
      heads: vision.num_attention_heads,
      layerNormEps: vision.layer_norm_eps,
      activation: activationOf(vision.hidden_act, 'vision_config.hidden_act', origin),
      imageSize: vision.image_size,
      patchSize: vision.patch_size,
    },
    imageTokenId: whole.image_token_id,
    shuffle: whole.scale_factor,
  };
}
