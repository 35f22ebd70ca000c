/**
 * @file What the configs of Qwen2.5-VL and Qwen3-VL say, with transformers' class defaults where they say nothing. Qwen2.5-VL's is
 * flat on the hub and nested where newer versions saved it.
 */
import { z } from 'zod';
import {
  type Activation,
  activationOf,
  configErrors,
  parseTextConfig,
  parseWith,
  size,
  type TextConfig,
  tokenId,
} from '../../config.ts';

export interface QwenVisionConfig {
  readonly layers: number;
  readonly hidden: number;
  readonly intermediate: number;
  readonly heads: number;
  readonly activation: Activation;
  /** side of a patch, in pixels */
  readonly patchSize: number;
  /** frames a patch reads; a still picture is the same frame so many times */
  readonly frames: number;
  /** patches along a side that become one visual row */
  readonly merge: number;
  /** Qwen2.5: attention within windows of so many merged cells along a side, in all layers but `full` */
  readonly windows: { readonly cells: number; readonly full: readonly number[] } | null;
  /** Qwen3: side of the square table of learnt positions */
  readonly positionSide: number | null;
  /** Qwen3: layers whose outputs are merged into features for decoder layers 0, 1, … (DeepStack) */
  readonly deepstack: readonly number[];
}

export interface QwenConfig {
  readonly text: TextConfig;
  readonly vision: QwenVisionConfig;
  readonly imageTokenId: number;
}

const visionFields = {
  depth: size(1000),
  hidden_size: size(131_072),
  intermediate_size: size(1_048_576),
  num_heads: size(4096),
  in_channels: z.int(),
  in_chans: z.int().nullish(),
  patch_size: size(8192),
  spatial_merge_size: size(64),
  temporal_patch_size: size(64),
  out_hidden_size: size(131_072).nullish(),
  hidden_act: z.string(),
};

const vision2Schema = z.looseObject({
  ...visionFields,
  window_size: size(65_536),
  fullatt_block_indexes: z.array(z.int().min(0)),
});

const vision3Schema = z.looseObject({
  ...visionFields,
  num_position_embeddings: size(10_000_000),
  deepstack_visual_indexes: z.array(z.int().min(0)),
});

const VISION_2_DEFAULTS = {
  depth: 32,
  hidden_size: 3584,
  intermediate_size: 3420,
  num_heads: 16,
  in_channels: 3,
  patch_size: 14,
  spatial_merge_size: 2,
  temporal_patch_size: 2,
  hidden_act: 'silu',
  window_size: 112,
  fullatt_block_indexes: [7, 15, 23, 31],
};

const VISION_3_DEFAULTS = {
  depth: 27,
  hidden_size: 1152,
  intermediate_size: 4304,
  num_heads: 16,
  in_channels: 3,
  patch_size: 16,
  spatial_merge_size: 2,
  temporal_patch_size: 2,
  hidden_act: 'gelu_pytorch_tanh',
  num_position_embeddings: 2304,
  deepstack_visual_indexes: [8, 16, 24],
};

const wholeSchema = z.looseObject({
  text_config: z.looseObject({}).nullish(),
  vision_config: z.looseObject({}).nullish(),
  image_token_id: tokenId.default(151_655),
  tie_word_embeddings: z.boolean().nullish(),
  bos_token_id: z.unknown().optional(),
  eos_token_id: z.unknown().optional(),
});

/** `Family.parseConfig` of Qwen2.5-VL (`version` 2) and Qwen3-VL. */
export function parseQwenConfig(json: unknown, origin: string, version: 2 | 3): QwenConfig {
  const { damaged, unsupported } = configErrors(origin);
  const whole = parseWith(wholeSchema, json, origin);
  const nested = whole.text_config != null;
  const section = nested
    ? { bos_token_id: whole.bos_token_id, eos_token_id: whole.eos_token_id, ...whole.text_config }
    : (json as object);
  const kind = version === 2 ? 'qwen2_5_vl' : 'qwen3_vl';
  const parsed = parseTextConfig(section, kind, origin, nested ? 'text_config' : '', {
    tied: whole.tie_word_embeddings,
  });
  // The class default of Qwen3-VL, and of Qwen2.5-VL what all its published sizes have.
  const usual: [number, number, number] = version === 2 ? [16, 24, 24] : [24, 20, 20];
  if (!parsed.mrope && parsed.headDim !== 128) {
    throw damaged(`text_config: no mrope_section, and none is usual for heads of ${parsed.headDim}`);
  }
  const text: TextConfig = {
    ...parsed,
    mrope: parsed.mrope ?? { sections: usual, interleaved: version === 3 },
  };

  const given = whole.vision_config ?? {};
  const two =
    version === 2
      ? parseWith(vision2Schema, { ...VISION_2_DEFAULTS, ...given }, origin, 'vision_config')
      : null;
  const three =
    version === 3
      ? parseWith(vision3Schema, { ...VISION_3_DEFAULTS, ...given }, origin, 'vision_config')
      : null;
  const vision = (two ?? three)!;
  if (vision.in_channels !== 3 || (vision.in_chans ?? 3) !== 3) {
    throw unsupported('vision_config.in_channels other than 3', 'pictures of 3 channels');
  }
  const { hidden_size: hidden, num_heads: heads } = vision;
  if (hidden % heads !== 0) {
    throw damaged(`vision_config: ${heads} heads do not divide the hidden size ${hidden}`);
  }
  if ((hidden / heads) % 4 !== 0) {
    throw damaged(`vision_config: heads of ${hidden / heads} cannot be rotated along two axes`);
  }
  if (vision.out_hidden_size != null && vision.out_hidden_size !== text.hidden) {
    throw damaged(
      `vision_config.out_hidden_size is ${vision.out_hidden_size} and the decoder ${text.hidden} wide`,
    );
  }
  const cell = vision.patch_size * vision.spatial_merge_size;
  const cells = two ? Math.floor(two.window_size / cell) : 0;
  if (two && cells < 1)
    throw damaged(`vision_config: windows of ${two.window_size} pixels in cells of ${cell}`);
  const positionSide = three ? Math.round(Math.sqrt(three.num_position_embeddings)) : null;
  if (three && positionSide! ** 2 !== three.num_position_embeddings) {
    throw damaged(`vision_config.num_position_embeddings ${three.num_position_embeddings} is no square`);
  }
  const deepstack = three?.deepstack_visual_indexes ?? [];
  const beyond = deepstack.find((layer) => layer >= vision.depth);
  if (beyond !== undefined || deepstack.length > text.layers) {
    throw damaged(
      `vision_config.deepstack_visual_indexes [${deepstack.join(', ')}] in a tower of ${vision.depth} and a decoder of ${text.layers} layers`,
    );
  }
  return {
    text,
    vision: {
      layers: vision.depth,
      hidden,
      intermediate: vision.intermediate_size,
      heads,
      activation: activationOf(vision.hidden_act, 'vision_config.hidden_act', origin),
      patchSize: vision.patch_size,
      frames: vision.temporal_patch_size,
      merge: vision.spatial_merge_size,
      windows: two ? { cells, full: two.fullatt_block_indexes } : null,
      positionSide,
      deepstack,
    },
    imageTokenId: whole.image_token_id,
  };
}
