/**
 * @file What the configs of BLIP-2 and MiniGPT-4 say, with transformers' class defaults where they say nothing. Both see through a
 * ViT-g and a Q-Former; BLIP-2 here has an OPT decoder, MiniGPT-4 one of the Llama kind.
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

export interface QFormerVisionConfig {
  readonly layers: number;
  readonly hidden: number;
  readonly intermediate: number;
  readonly heads: number;
  readonly activation: Activation;
  readonly layerNormEps: number;
  /** of the norm behind the last layer */
  readonly lastNormEps: number;
  readonly imageSize: number;
  readonly patchSize: number;
  /** queries and values have biases of their own in the files, keys have none (MiniGPT-4); otherwise one bias for the three */
  readonly biases: 'joint' | 'apart' | 'none';
}

export interface QFormerConfig {
  readonly layers: number;
  readonly hidden: number;
  readonly intermediate: number;
  readonly heads: number;
  readonly activation: Activation;
  readonly layerNormEps: number;
  /** every so many layers, from the first, read the picture */
  readonly crossEvery: number;
  readonly queries: number;
}

/** The decoder of OPT. */
export interface OptConfig {
  readonly layers: number;
  readonly hidden: number;
  readonly intermediate: number;
  readonly heads: number;
  readonly vocab: number;
  readonly maxPositions: number;
  readonly activation: Activation;
  readonly bias: boolean;
  readonly tieWordEmbeddings: boolean;
  readonly bosTokenId: number | undefined;
  readonly eosTokenIds: readonly number[];
  readonly padTokenId: number | undefined;
}

interface Seeing {
  readonly vision: QFormerVisionConfig;
  readonly qformer: QFormerConfig;
  readonly imageTokenId: number | undefined;
}

export interface Blip2Config extends Seeing {
  readonly text: OptConfig;
}

export interface MiniGpt4Config extends Seeing {
  readonly text: TextConfig;
  readonly addedImageToken?: string;
}

const visionSchema = z.looseObject({
  hidden_size: size(131_072).default(1408),
  intermediate_size: size(1_048_576).default(6144),
  num_hidden_layers: size(1000).default(39),
  num_attention_heads: size(4096).default(16),
  image_size: size(8192).default(224),
  patch_size: size(8192).default(14),
  hidden_act: z.string().default('gelu'),
  layer_norm_eps: epsilon.default(1e-6),
  qkv_bias: z.boolean().default(true),
});

const qformerSchema = z.looseObject({
  hidden_size: size(131_072).default(768),
  intermediate_size: size(1_048_576).default(3072),
  num_hidden_layers: size(1000).default(12),
  num_attention_heads: size(4096).default(12),
  hidden_act: z.string().default('gelu'),
  layer_norm_eps: epsilon.default(1e-12),
  cross_attention_frequency: size(1000).default(2),
  encoder_hidden_size: size(131_072).default(1408),
  position_embedding_type: z.string().nullish(),
  use_qformer_text_input: z.boolean().nullish(),
});

const optSchema = z.looseObject({
  vocab_size: size(10_000_000).default(50_272),
  hidden_size: size(131_072).default(768),
  num_hidden_layers: size(1000).default(12),
  ffn_dim: size(1_048_576).default(3072),
  num_attention_heads: size(4096).default(12),
  max_position_embeddings: size(1e9).default(2048),
  do_layer_norm_before: z.boolean().default(true),
  _remove_final_layer_norm: z.boolean().default(false),
  layer_norm_elementwise_affine: z.boolean().default(true),
  word_embed_proj_dim: size(131_072).nullish(),
  enable_bias: z.boolean().default(true),
  activation_function: z.string().default('relu'),
  tie_word_embeddings: z.boolean().nullish(),
  bos_token_id: tokenId.nullable().default(2),
  eos_token_id: z
    .union([tokenId, z.array(tokenId)])
    .nullable()
    .default(2),
  pad_token_id: z.int().nullable().default(1),
});

const section = z.looseObject({ model_type: z.string().optional() }).nullish();

const wholeSchema = z.looseObject({
  text_config: section,
  vision_config: section,
  qformer_config: section,
  num_query_tokens: size(4096).default(32),
  image_token_index: tokenId.nullish(),
  image_token_id: tokenId.nullish(),
  ln_vision_eps: epsilon.nullish(),
});

function parseSeeing(json: unknown, origin: string, biases: 'joint' | 'apart') {
  const { damaged, unsupported } = configErrors(origin);
  const whole = parseWith(wholeSchema, json, origin);
  const vision = parseWith(visionSchema, whole.vision_config ?? {}, origin, 'vision_config');
  const qformer = parseWith(qformerSchema, whole.qformer_config ?? {}, origin, 'qformer_config');
  for (const [name, { hidden_size: hidden, num_attention_heads: heads }] of [
    ['vision_config', vision],
    ['qformer_config', qformer],
  ] as const) {
    if (hidden % heads !== 0)
      throw damaged(`${name}: ${heads} heads do not divide the hidden size ${hidden}`);
  }
  if (vision.patch_size > vision.image_size)
    throw damaged(
      `vision_config: patches of ${vision.patch_size} pixels in pictures of ${vision.image_size}`,
    );
  if (qformer.encoder_hidden_size !== vision.hidden_size) {
    throw damaged(
      `qformer_config.encoder_hidden_size is ${qformer.encoder_hidden_size} and the vision tower ${vision.hidden_size} wide`,
    );
  }
  if (qformer.use_qformer_text_input)
    throw unsupported('qformer_config.use_qformer_text_input', 'Q-Formers that read the picture alone');
  if ((qformer.position_embedding_type ?? 'absolute') !== 'absolute') {
    throw unsupported(
      `qformer_config.position_embedding_type "${qformer.position_embedding_type}"`,
      'absolute positions',
    );
  }
  const seeing: Seeing = {
    vision: {
      layers: vision.num_hidden_layers,
      hidden: vision.hidden_size,
      intermediate: vision.intermediate_size,
      heads: vision.num_attention_heads,
      activation: activationOf(vision.hidden_act, 'vision_config.hidden_act', origin),
      layerNormEps: vision.layer_norm_eps,
      lastNormEps: whole.ln_vision_eps ?? (biases === 'apart' ? 1e-5 : vision.layer_norm_eps),
      imageSize: vision.image_size,
      patchSize: vision.patch_size,
      biases: vision.qkv_bias ? biases : 'none',
    },
    qformer: {
      layers: qformer.num_hidden_layers,
      hidden: qformer.hidden_size,
      intermediate: qformer.intermediate_size,
      heads: qformer.num_attention_heads,
      activation: activationOf(qformer.hidden_act, 'qformer_config.hidden_act', origin),
      layerNormEps: qformer.layer_norm_eps,
      crossEvery: qformer.cross_attention_frequency,
      queries: whole.num_query_tokens,
    },
    imageTokenId: whole.image_token_id ?? whole.image_token_index ?? undefined,
  };
  return { whole, seeing };
}

/** `Family.parseConfig` of BLIP-2. */
export function parseBlip2Config(json: unknown, origin: string): Blip2Config {
  const { damaged, unsupported } = configErrors(origin);
  const { whole, seeing } = parseSeeing(json, origin, 'joint');
  const kind = whole.text_config?.model_type ?? 'opt';
  if (kind !== 'opt') {
    throw unsupported(
      `text_config.model_type "${kind}"`,
      `opt decoders in BLIP-2${kind === 't5' ? '; T5 has an encoder too, which the editors know nothing of' : ''}`,
    );
  }
  const opt = parseWith(optSchema, whole.text_config ?? {}, origin, 'text_config');
  if (!opt.do_layer_norm_before || opt._remove_final_layer_norm || !opt.layer_norm_elementwise_affine) {
    throw unsupported(
      'text_config: an OPT whose norms come after',
      'OPT decoders with norms before attention and MLP',
    );
  }
  if ((opt.word_embed_proj_dim ?? opt.hidden_size) !== opt.hidden_size) {
    throw unsupported(
      `text_config.word_embed_proj_dim ${opt.word_embed_proj_dim}`,
      'embeddings as wide as the decoder',
    );
  }
  if (opt.hidden_size % opt.num_attention_heads !== 0) {
    throw damaged(
      `text_config: ${opt.num_attention_heads} heads do not divide the hidden size ${opt.hidden_size}`,
    );
  }
  return {
    ...seeing,
    text: {
      layers: opt.num_hidden_layers,
      hidden: opt.hidden_size,
      intermediate: opt.ffn_dim,
      heads: opt.num_attention_heads,
      vocab: opt.vocab_size,
      maxPositions: opt.max_position_embeddings,
      activation: activationOf(opt.activation_function, 'text_config.activation_function', origin),
      bias: opt.enable_bias,
      tieWordEmbeddings: opt.tie_word_embeddings ?? true,
      bosTokenId: opt.bos_token_id ?? undefined,
      eosTokenIds: opt.eos_token_id === null ? [] : [opt.eos_token_id].flat(),
      padTokenId: opt.pad_token_id === null || opt.pad_token_id < 0 ? undefined : opt.pad_token_id,
    },
  };
}

/** `Family.parseConfig` of MiniGPT-4. */
export function parseMiniGpt4Config(json: unknown, origin: string): MiniGpt4Config {
  const { unsupported } = configErrors(origin);
  const { whole, seeing } = parseSeeing(json, origin, 'apart');
  const kind = whole.text_config?.model_type ?? 'llama';
  if (kind !== 'llama') throw unsupported(`text_config.model_type "${kind}"`, 'llama decoders in MiniGPT-4');
  const text = parseTextConfig(whole.text_config, 'llama', origin, 'text_config');
  const { imageTokenId } = seeing;
  // Vicuna's tokenizer knows no picture: the published code splits the text where this stands.
  if (imageTokenId === undefined)
    return { ...seeing, text, imageTokenId: text.vocab, addedImageToken: '<ImageHere>' };
  return { ...seeing, text };
}
