/**
 * @file Reading JSON files of model folders, and what the configs of text decoders say, with the Hugging Face class defaults where
 * they say nothing: hub files are often saved as a difference from them.
 */
import { z } from 'zod';
import { EmendError } from '../errors.ts';

/** `gelu` is the exact one (erf), `gelu_tanh` its approximation; `quick_gelu` is x * sigmoid(1.702 x). */
export type Activation = 'silu' | 'gelu' | 'gelu_tanh' | 'quick_gelu' | 'relu';

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

/** A decoder of the Llama kind. Sizes count elements; layers are numbered from 0. Fields that are absent are off. */
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
  /** Queries, keys and values have biases, the output has none (Qwen2). */
  readonly inputBias?: boolean;
  /** Each head's queries and keys pass an RMSNorm before they are rotated (Qwen3). */
  readonly queryKeyNorm?: boolean;
  /** How many earlier rows a row sees, itself included. */
  readonly slidingWindow?: number;
  /** Positions of three axes (M-RoPE): how many frequencies turn with time, height and width, in runs or in turn. */
  readonly mrope?: {
    readonly sections: readonly [number, number, number];
    readonly interleaved: boolean;
  };
}

// ---------------------------------------------------------------- text decoders

export const size = (largest: number) => z.int().min(1).max(largest);
export const tokenId = z.int().min(0).max(100_000_000);
export const epsilon = z.number().positive().max(1);

const ropeSchema = z.looseObject({
  rope_type: z.string().optional(),
  type: z.string().optional(),
  rope_theta: z.number().positive().nullish(),
  factor: z.number().min(1).optional(),
  low_freq_factor: z.number().positive().optional(),
  high_freq_factor: z.number().positive().optional(),
  original_max_position_embeddings: size(1e9).nullish(),
  mrope_section: z.array(z.int().min(0).max(8192)).length(3).optional(),
});

const textSchema = z.looseObject({
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
  sliding_window: size(1e9).nullish(),
  use_sliding_window: z.boolean().nullish(),
  bos_token_id: tokenId.nullable().default(1),
  eos_token_id: z
    .union([tokenId, z.array(tokenId)])
    .nullable()
    .default(2),
  pad_token_id: z.int().nullish(),
});

export type TextKind = keyof typeof TEXT_DEFAULTS;

/** What transformers' config class of each kind of decoder says where a file says nothing. */
const TEXT_DEFAULTS = {
  llama: {},
  mistral: {
    intermediate_size: 14336,
    num_key_value_heads: 8,
    max_position_embeddings: 131_072,
    sliding_window: 4096,
  },
  qwen2: {
    vocab_size: 151_936,
    intermediate_size: 22_016,
    num_key_value_heads: 32,
    max_position_embeddings: 32_768,
    bos_token_id: null,
    eos_token_id: null,
  },
  qwen3: {
    vocab_size: 151_936,
    intermediate_size: 22_016,
    num_key_value_heads: 32,
    head_dim: 128,
    max_position_embeddings: 32_768,
    bos_token_id: null,
    eos_token_id: null,
  },
  qwen2_5_vl: {
    vocab_size: 152_064,
    hidden_size: 8192,
    intermediate_size: 29_568,
    num_hidden_layers: 80,
    num_attention_heads: 64,
    num_key_value_heads: 8,
    max_position_embeddings: 32_768,
    rms_norm_eps: 1e-5,
    rope_theta: 1_000_000,
    bos_token_id: 151_643,
    eos_token_id: 151_645,
  },
  qwen3_vl: {
    vocab_size: 151_936,
    intermediate_size: 22_016,
    num_key_value_heads: 32,
    head_dim: 128,
    max_position_embeddings: 128_000,
    rope_theta: 500_000,
    bos_token_id: null,
    eos_token_id: null,
  },
} as const satisfies Record<string, Partial<Record<string, number | null>>>;

/** Errors about a config, named by its file. */
export const configErrors = (origin: string) => ({
  damaged: (what: string) => new EmendError('damaged', `${origin}: ${what}.`),
  unsupported: (what: string, supported: string) =>
    new EmendError('unsupported', `${origin}: ${what} is not supported. Emend runs ${supported}.`),
});

/** Parses with a schema. Throws `damaged` with the place of the first thing that is wrong. */
export function parseWith<S extends z.ZodType>(
  schema: S,
  json: unknown,
  origin: string,
  where = '',
): z.output<S> {
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  const path = [...(where ? [where] : []), ...issue.path].join('.');
  throw new EmendError('damaged', `${origin}: ${path ? `${path}: ` : ''}${issue.message}.`);
}

/** An activation by its name in a config. Throws `unsupported`. */
export function activationOf(name: string, field: string, origin: string): Activation {
  const known: Record<string, Activation> = {
    silu: 'silu',
    swish: 'silu',
    gelu: 'gelu',
    gelu_pytorch_tanh: 'gelu_tanh',
    gelu_new: 'gelu_tanh',
    gelu_fast: 'gelu_tanh',
    quick_gelu: 'quick_gelu',
    relu: 'relu',
  };
  const found = Object.hasOwn(known, name) ? known[name] : undefined;
  if (found) return found;
  throw configErrors(origin).unsupported(
    `${field} "${name}"`,
    'silu, gelu, gelu_pytorch_tanh, quick_gelu and relu',
  );
}

/**
 * Reads the config of a decoder of the Llama kind.
 * @param json the section, with class defaults of `kind` where it says nothing
 * @param where its place in the file, for errors
 * @param whole what the whole config says where the section may leave it out
 * @throws EmendError as `Family.parseConfig`
 */
export function parseTextConfig(
  json: unknown,
  kind: TextKind,
  origin: string,
  where: string,
  whole: { readonly tied?: boolean | null | undefined; readonly padTokenId?: number | null | undefined } = {},
): TextConfig {
  const { damaged, unsupported } = configErrors(origin);
  const text = parseWith(textSchema, { ...TEXT_DEFAULTS[kind], ...withoutUndefined(json) }, origin, where);
  const at = where || 'the config';
  const heads = text.num_attention_heads;
  const keyValueHeads = text.num_key_value_heads ?? heads;
  if (heads % keyValueHeads !== 0) {
    throw damaged(`${at}: ${keyValueHeads} key-value heads do not divide ${heads} heads`);
  }
  if (text.head_dim == null && text.hidden_size % heads !== 0) {
    throw damaged(`${at}: ${heads} heads do not divide the hidden size ${text.hidden_size}`);
  }
  const headDim = text.head_dim ?? text.hidden_size / heads;
  if (headDim % 2 !== 0) throw damaged(`${at}: heads of odd width ${headDim} cannot be rotated (RoPE)`);
  // transformers writes pad_token_id -1 for "none".
  const padTokenId = text.pad_token_id ?? whole.padTokenId ?? -1;
  const rope = text.rope_parameters ?? text.rope_scaling;
  const sections = rope?.mrope_section;
  if (sections && sections.reduce((a, b) => a + b, 0) !== headDim / 2) {
    throw damaged(
      `${at}: mrope_section [${sections.join(', ')}] does not add up to ${headDim / 2} frequencies`,
    );
  }
  const windowed = kind === 'mistral' || text.use_sliding_window === true;
  return {
    layers: text.num_hidden_layers,
    hidden: text.hidden_size,
    intermediate: text.intermediate_size,
    heads,
    keyValueHeads,
    headDim,
    vocab: text.vocab_size,
    rmsNormEps: text.rms_norm_eps,
    ropeTheta: text.rope_parameters?.rope_theta ?? text.rope_theta ?? 10000,
    ropeScaling: parseRopeScaling(),
    maxPositions: text.max_position_embeddings,
    activation: activationOf(text.hidden_act, `${where ? `${where}.` : ''}hidden_act`, origin),
    tieWordEmbeddings: text.tie_word_embeddings ?? whole.tied ?? false,
    attentionBias: text.attention_bias,
    mlpBias: text.mlp_bias,
    bosTokenId: text.bos_token_id ?? undefined,
    eosTokenIds: text.eos_token_id === null ? [] : [text.eos_token_id].flat(),
    padTokenId: padTokenId < 0 ? undefined : padTokenId,
    ...((kind === 'qwen2' || kind === 'qwen2_5_vl') && { inputBias: true }),
    ...((kind === 'qwen3' || kind === 'qwen3_vl') && { queryKeyNorm: true }),
    ...(windowed && text.sliding_window != null && { slidingWindow: text.sliding_window }),
    ...(sections && {
      mrope: {
        sections: sections as [number, number, number],
        interleaved: kind === 'qwen3_vl',
      },
    }),
  };

  function parseRopeScaling(): RopeScaling {
    const scaling = rope?.rope_type ?? rope?.type ?? 'default';
    // Qwen2-VL's name for ordinary frequencies with positions of three axes.
    if (!rope || scaling === 'default' || scaling === 'mrope') return { kind: 'none' };
    const field = (name: 'factor' | 'low_freq_factor' | 'high_freq_factor'): number => {
      const value = rope[name];
      if (value === undefined) throw damaged(`${at}: RoPE kind "${scaling}" without ${name}`);
      return value;
    };
    const originalMaxPositions = rope.original_max_position_embeddings ?? text.max_position_embeddings;
    if (scaling === 'linear') return { kind: scaling, factor: field('factor') };
    // transformers measures by max_position_embeddings here, whatever original_max_position_embeddings says.
    if (scaling === 'dynamic')
      return { kind: scaling, factor: field('factor'), originalMaxPositions: text.max_position_embeddings };
    if (scaling === 'llama3') {
      const lowFrequencyFactor = field('low_freq_factor');
      const highFrequencyFactor = field('high_freq_factor');
      if (highFrequencyFactor <= lowFrequencyFactor) {
        throw damaged(`${at}: RoPE high_freq_factor is not above low_freq_factor`);
      }
      return {
        kind: scaling,
        factor: field('factor'),
        lowFrequencyFactor,
        highFrequencyFactor,
        originalMaxPositions,
      };
    }
    throw unsupported(`${at} RoPE kind "${scaling}"`, 'default, linear, dynamic and llama3');
  }
}

function withoutUndefined(json: unknown): Record<string, unknown> {
  if (typeof json !== 'object' || json === null) return {};
  return Object.fromEntries(Object.entries(json).filter(([, value]) => value !== undefined));
}
