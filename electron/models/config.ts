/**
 * @file What a checkpoint's config.json says, with the Hugging Face class defaults where it says nothing.
 *
 * Defaults are those of transformers' `LlavaConfig`, `LlamaConfig` and `CLIPVisionConfig`: hub files are
 * often saved as a difference from them (LLaVA-1.5's `text_config` has no `hidden_size`).
 */

import { z } from 'zod';
import { EmendError } from '../errors.ts';

/** `gelu` is the exact one (erf); `quick_gelu` is x * sigmoid(1.702 x). */
export type Activation = 'silu' | 'gelu' | 'quick_gelu' | 'relu';

/** How rotary frequencies are changed for longer contexts (transformers `modeling_rope_utils`). */
export type RopeScaling =
  | { readonly kind: 'none' }
  | { readonly kind: 'linear'; readonly factor: number }
  | { readonly kind: 'dynamic'; readonly factor: number; readonly originalMaxPositions: number }
  | {
      readonly kind: 'llama3';
      readonly factor: number;
      readonly lowFrequencyFactor: number;
      readonly highFrequencyFactor: number;
      readonly originalMaxPositions: number;
    };

/** The Llama decoder. Sizes count elements; layers are numbered from 0. */
export interface TextConfig {
  readonly layers: number;
  readonly hidden: number;
  readonly intermediate: number;
  readonly heads: number;
  /** Fewer than `heads` means grouped-query attention; always divides `heads`. */
  readonly keyValueHeads: number;
  readonly headDim: number;
  readonly vocab: number;
  readonly rmsNormEps: number;
  readonly ropeTheta: number;
  readonly ropeScaling: RopeScaling;
  readonly maxPositions: number;
  readonly activation: Activation;
  /** The head is the embedding matrix, and the checkpoint has no `lm_head`. */
  readonly tieWordEmbeddings: boolean;
  readonly attentionBias: boolean;
  readonly mlpBias: boolean;
  readonly bosTokenId: number | undefined;
  readonly eosTokenIds: readonly number[];
  readonly padTokenId: number | undefined;
}

/** The CLIP vision tower. */
export interface VisionConfig {
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

/** A LLaVA-architecture model: CLIP vision tower, two-layer projector, Llama decoder. */
export interface VisionLanguageConfig {
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

const size = (largest: number) => z.int().min(1).max(largest);
const tokenId = z.int().min(0).max(100_000_000);
const epsilon = z.number().positive().max(1);

const ropeSchema = z.looseObject({
  rope_type: z.string().optional(),
  type: z.string().optional(),
  rope_theta: z.number().positive().nullish(),
  factor: z.number().min(1).optional(),
  low_freq_factor: z.number().positive().optional(),
  high_freq_factor: z.number().positive().optional(),
  original_max_position_embeddings: size(1e9).nullish(),
});

const textSchema = z.looseObject({
  model_type: z.string().default('llama'),
  vocab_size: size(10_000_000).default(32000),
  hidden_size: size(131_072).default(4096),
  intermediate_size: size(1_048_576).default(11008),
  num_hidden_layers: size(1000).default(32),
  num_attention_heads: size(4096).default(32),
  num_key_value_heads: size(4096).nullish(),
  head_dim: size(8192).nullish(),
  hidden_act: z.string().default('silu'),
  max_position_embeddings: size(1e9).default(2048),
  rms_norm_eps: epsilon.default(1e-6),
  rope_theta: z.number().positive().nullish(),
  rope_scaling: ropeSchema.nullish(),
  rope_parameters: ropeSchema.nullish(),
  tie_word_embeddings: z.boolean().nullish(),
  attention_bias: z.boolean().default(false),
  mlp_bias: z.boolean().default(false),
  bos_token_id: tokenId.nullable().default(1),
  eos_token_id: z
    .union([tokenId, z.array(tokenId)])
    .nullable()
    .default(2),
  pad_token_id: z.int().nullish(),
});

const visionSchema = z.looseObject({
  model_type: z.string().default('clip_vision_model'),
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

/** What `LlavaConfig` takes when there is no `vision_config` at all: CLIP ViT-L/14 at 336 pixels. */
const WHOLE_VISION_DEFAULT = {
  hidden_size: 1024,
  intermediate_size: 4096,
  num_hidden_layers: 24,
  num_attention_heads: 16,
  image_size: 336,
  patch_size: 14,
};

const llavaSchema = z.looseObject({
  text_config: textSchema.nullish(),
  vision_config: visionSchema.nullish(),
  image_token_id: tokenId.nullish(),
  image_token_index: tokenId.nullish(),
  projector_hidden_act: z.string().default('gelu'),
  multimodal_projector_bias: z.boolean().default(true),
  vision_feature_layer: z.union([z.int(), z.array(z.int()).min(1).max(64)]).default(-2),
  vision_feature_select_strategy: z.string().default('default'),
  tie_word_embeddings: z.boolean().nullish(),
  pad_token_id: z.int().nullish(),
});

/**
 * Reads the contents of a LLaVA config.json.
 * @param json the parsed file
 * @param origin named in errors
 * @throws EmendError 'unsupported' for another architecture, activation, RoPE kind or quantised weights;
 *   'damaged' for sizes no model can have.
 */
export function parseConfig(json: unknown, origin = 'config.json'): VisionLanguageConfig {
  const refuse = (what: string) => new EmendError('damaged', `${origin}: ${what}.`);
  const unsupported = (what: string, supported: string) =>
    new EmendError('unsupported', `${origin}: ${what} is not supported. Emend runs ${supported}.`);

  const header = z.looseObject({ model_type: z.string().optional() }).safeParse(json);
  if (!header.success) throw refuse('it does not hold a JSON object with a model_type');
  if (header.data.model_type !== 'llava') {
    const found = header.data.model_type ?? 'a model without model_type';
    throw unsupported(
      `model_type "${found}"`,
      'LLaVA-architecture checkpoints (model_type "llava": CLIP vision tower, projector, Llama decoder)',
    );
  }
  if (header.data.quantization_config) {
    throw unsupported('quantization_config', 'F32, F16 and BF16 weights');
  }
  const parsed = llavaSchema.safeParse(json);
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    throw refuse(`${issue.path.join('.')}: ${issue.message}`);
  }
  const llava = parsed.data;
  const text = llava.text_config ?? textSchema.parse({});
  const vision = llava.vision_config ?? visionSchema.parse(WHOLE_VISION_DEFAULT);

  if (text.model_type !== 'llama') {
    throw unsupported(`text_config.model_type "${text.model_type}"`, 'llama decoders');
  }
  if (vision.model_type !== 'clip_vision_model') {
    throw unsupported(`vision_config.model_type "${vision.model_type}"`, 'clip_vision_model towers');
  }
  if (vision.num_channels !== 3) {
    throw unsupported(`vision_config.num_channels ${vision.num_channels}`, 'pictures of 3 channels');
  }
  const activation = (name: string, field: string): Activation => {
    if (name === 'swish') return 'silu';
    if (name === 'silu' || name === 'gelu' || name === 'quick_gelu' || name === 'relu') return name;
    throw unsupported(`${field} "${name}"`, 'silu, gelu, quick_gelu and relu');
  };
  const select = llava.vision_feature_select_strategy;
  if (select !== 'default' && select !== 'full') {
    throw unsupported(`vision_feature_select_strategy "${select}"`, '"default" and "full"');
  }

  const heads = text.num_attention_heads;
  const keyValueHeads = text.num_key_value_heads ?? heads;
  if (heads % keyValueHeads !== 0) {
    throw refuse(`text_config: ${keyValueHeads} key-value heads do not divide ${heads} heads`);
  }
  if (text.head_dim == null && text.hidden_size % heads !== 0) {
    throw refuse(`text_config: ${heads} heads do not divide the hidden size ${text.hidden_size}`);
  }
  const headDim = text.head_dim ?? text.hidden_size / heads;
  if (headDim % 2 !== 0) throw refuse(`text_config: heads of odd width ${headDim} cannot be rotated (RoPE)`);
  if (vision.hidden_size % vision.num_attention_heads !== 0) {
    throw refuse(
      `vision_config: ${vision.num_attention_heads} heads do not divide the hidden size ${vision.hidden_size}`,
    );
  }
  if (vision.patch_size > vision.image_size) {
    throw refuse(`vision_config: patches of ${vision.patch_size} pixels in pictures of ${vision.image_size}`);
  }
  const states = vision.num_hidden_layers + 1;
  for (const layer of [llava.vision_feature_layer].flat()) {
    if (layer < -states || layer >= states) {
      throw refuse(`vision_feature_layer ${layer} of a tower with ${vision.num_hidden_layers} layers`);
    }
  }
  const patches = Math.floor(vision.image_size / vision.patch_size) ** 2;
  // transformers writes pad_token_id -1 for "none".
  const padTokenId = text.pad_token_id ?? llava.pad_token_id ?? -1;

  return {
    text: {
      layers: text.num_hidden_layers,
      hidden: text.hidden_size,
      intermediate: text.intermediate_size,
      heads,
      keyValueHeads,
      headDim,
      vocab: text.vocab_size,
      rmsNormEps: text.rms_norm_eps,
      ropeTheta: text.rope_parameters?.rope_theta ?? text.rope_theta ?? 10000,
      ropeScaling: parseRopeScaling(text),
      maxPositions: text.max_position_embeddings,
      activation: activation(text.hidden_act, 'text_config.hidden_act'),
      tieWordEmbeddings: text.tie_word_embeddings ?? llava.tie_word_embeddings ?? false,
      attentionBias: text.attention_bias,
      mlpBias: text.mlp_bias,
      bosTokenId: text.bos_token_id ?? undefined,
      eosTokenIds: text.eos_token_id === null ? [] : [text.eos_token_id].flat(),
      padTokenId: padTokenId < 0 ? undefined : padTokenId,
    },
    vision: {
      layers: vision.num_hidden_layers,
      hidden: vision.hidden_size,
      intermediate: vision.intermediate_size,
      heads: vision.num_attention_heads,
      imageSize: vision.image_size,
      patchSize: vision.patch_size,
      layerNormEps: vision.layer_norm_eps,
      activation: activation(vision.hidden_act, 'vision_config.hidden_act'),
    },
    imageTokenId: llava.image_token_id ?? llava.image_token_index ?? 32000,
    featureLayer: llava.vision_feature_layer,
    featureSelect: select,
    projector: {
      activation: activation(llava.projector_hidden_act, 'projector_hidden_act'),
      bias: llava.multimodal_projector_bias,
    },
    imageTokenCount: select === 'full' ? patches + 1 : patches,
  };

  function parseRopeScaling(config: z.infer<typeof textSchema>): RopeScaling {
    const rope = config.rope_parameters ?? config.rope_scaling;
    const kind = rope?.rope_type ?? rope?.type ?? 'default';
    if (!rope || kind === 'default') return { kind: 'none' };
    const field = (name: 'factor' | 'low_freq_factor' | 'high_freq_factor'): number => {
      const value = rope[name];
      if (value === undefined) throw refuse(`text_config: RoPE kind "${kind}" without ${name}`);
      return value;
    };
    const originalMaxPositions = rope.original_max_position_embeddings ?? config.max_position_embeddings;
    if (kind === 'linear') return { kind, factor: field('factor') };
    // transformers measures by max_position_embeddings here, whatever original_max_position_embeddings says.
    if (kind === 'dynamic')
      return { kind, factor: field('factor'), originalMaxPositions: config.max_position_embeddings };
    if (kind === 'llama3') {
      const lowFrequencyFactor = field('low_freq_factor');
      const highFrequencyFactor = field('high_freq_factor');
      if (highFrequencyFactor <= lowFrequencyFactor) {
        throw refuse('text_config: RoPE high_freq_factor is not above low_freq_factor');
      }
      return { kind, factor: field('factor'), lowFrequencyFactor, highFrequencyFactor, originalMaxPositions };
    }
    throw unsupported(`text_config RoPE kind "${kind}"`, 'default, linear, dynamic and llama3');
  }
}

/** The hidden states the projector reads, in order, each counted from 0 (0 enters the tower's first layer). */
export function featureStates(config: VisionLanguageConfig): number[] {
  return [config.featureLayer].flat().map((layer) => (layer < 0 ? config.vision.layers + 1 + layer : layer));
}

/** How many of the vision tower's layers, from the first, the projector's input depends on. */
export function visionLayersNeeded(config: VisionLanguageConfig): number {
  return Math.max(...featureStates(config));
}
