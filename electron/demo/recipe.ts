/**
 * @file What the demo model is: its Hugging Face config, written out, and the numbers of its training.
 */
import { type LlavaConfig, parseLlavaConfig } from '../models/families/llava/config.ts';
import type { QuestionKind } from './world/questions.ts';

const patch = 12;
const side = 120;
/** Visual tokens along one side of the picture. */
export const GRID = side / patch;

/** config.json of the demo model. */
export function demoConfig(
  vocabulary: number,
  imageTokenId: number,
  padTokenId: number,
): Record<string, unknown> {
  return {
    architectures: ['LlavaForConditionalGeneration'],
    model_type: 'llava',
    image_token_index: imageTokenId,
    image_seq_length: GRID * GRID,
    projector_hidden_act: 'gelu',
    multimodal_projector_bias: true,
    vision_feature_layer: -1,
    vision_feature_select_strategy: 'default',
    pad_token_id: padTokenId,
    tie_word_embeddings: true,
    torch_dtype: 'float16',
    vocab_size: vocabulary,
    text_config: {
      model_type: 'llama',
      hidden_size: 160,
      intermediate_size: 432,
      num_hidden_layers: 8,
      num_attention_heads: 4,
      num_key_value_heads: 4,
      max_position_embeddings: 512,
      rms_norm_eps: 1e-5,
      // Slow rotations: a word finds what it names by content, wherever in the picture that lies.
      rope_theta: 1_000_000,
      hidden_act: 'silu',
      vocab_size: vocabulary,
      bos_token_id: 1,
      eos_token_id: 2,
      pad_token_id: padTokenId,
      tie_word_embeddings: true,
    },
    vision_config: {
      model_type: 'clip_vision_model',
      hidden_size: 128,
      intermediate_size: 512,
      num_hidden_layers: 4,
      num_attention_heads: 4,
      image_size: side,
      patch_size: patch,
      hidden_act: 'quick_gelu',
      layer_norm_eps: 1e-5,
      num_channels: 3,
    },
  };
}

/** preprocessor_config.json of the demo model: CLIP's, at its size. */
export const demoPreprocessor = {
  image_processor_type: 'CLIPImageProcessor',
  processor_class: 'LlavaProcessor',
  crop_size: { height: side, width: side },
  do_center_crop: true,
  do_convert_rgb: true,
  do_normalize: true,
  do_rescale: true,
  do_resize: true,
  image_mean: [0.48145466, 0.4578275, 0.40821073],
  image_std: [0.26862954, 0.26130258, 0.27577711],
  resample: 3,
  rescale_factor: 1 / 255,
  size: { shortest_edge: side },
};

export function parsedDemoConfig(vocabulary: number, imageTokenId: number, padTokenId: number): LlavaConfig {
  return parseLlavaConfig(demoConfig(vocabulary, imageTokenId, padTokenId), 'the demo config');
}

/** Sizes of a step. `pictures` are pictures a step; `texts` a picture, laid into `rows` rows behind it. */
export const sizes = {
  dense: { pictures: 24 },
  language: { pictures: 8, texts: 8, rows: 132 },
} as const;

/** Weight of a background patch in the naming loss, against one an object covers. */
export const BACKGROUND_WEIGHT = 0.15;

/**
 * What it is to look at things: at all patches of each thing alike, and at the first row where there is none; or at the middle
 * of each thing and the first row alike, so that the first row's share tells how many there are. The middle is the one patch
 * nearest to the thing's centre (`middles`), or shared by those around it as they lie near (`centres`): where a tower is not sure
 * which patch it is, a thing then still has its whole share.
 */
export type Looking = 'patches' | 'middles' | 'centres';

/**
 * How likely the very centre of a thing is to be called one. Well below certainty a word's score grows with the logarithm of the
 * share, as attention needs it to give each thing as much, and not with the odds.
 */
export const CENTRE_SURENESS = 0.25;

export interface Stage {
  /** `dense`: the vision tower names, patch by patch, what covers it and where it lies; `language`: the whole model answers questions */
  readonly kind: 'dense' | 'language';
  readonly steps: number;
  readonly peak: number;
  readonly warmUp: number;
  /** steps the cosine decay is laid out for */
  readonly decaySteps: number;
  /** which word embeddings are trained; `new`: those of tokens that the checkpoint a training goes on from does not have */
  readonly embeddings: 'all' | 'new' | 'none';
  /** the first decoder layer that is trained; those below stay as they are, and so does what an adapter there was trained on */
  readonly decoderFrom: number;
  /** whether the vision tower and the projector are trained */
  readonly tower: boolean;
  /** weight of looking where a question's words point, and at what its answer tells; only in a stage of language */
  readonly pointingWeight: number;
  /** what it is to look at things; with middles patches also learn to tell whether they are one, and answers learn where to look */
  readonly looking: Looking;
  /** how much the first row counts against a thing where such words look at each column of the picture by itself; null: they do not */
  readonly columns: number | null;
  /** weight of such words holding the places of all they mean: as many as there are to count; 0: they do not */
  readonly placing: number;
  /** share of the texts without a picture that tell of one in words; only in a stage of language */
  readonly described: number;
  /** how often kinds of question are asked, 1 where not said; only in a stage of language */
  readonly kinds: Readonly<Partial<Record<QuestionKind, number>>>;
}

/** A stage in which the vision tower names patches by itself, in words that stay as they are. */
const towerAlone: Stage = {
  kind: 'dense',
  steps: 5400,
  peak: 1.5e-3,
  warmUp: 100,
  decaySteps: 5400,
  embeddings: 'none',
  decoderFrom: 0,
  tower: true,
  pointingWeight: 0,
  looking: 'patches',
  columns: null,
  placing: 0,
  described: 0,
  kinds: {},
};

/** A stage in which the decoder answers questions from what the tower, which stays as it is, shows it. */
const decoderAlone: Stage = {
  kind: 'language',
  steps: 3500,
  peak: 1.5e-3,
  warmUp: 150,
  decaySteps: 4500,
  embeddings: 'all',
  decoderFrom: 0,
  tower: false,
  pointingWeight: 1,
  looking: 'patches',
  columns: null,
  placing: 0,
  described: 0,
  kinds: { presence: 2, count: 2, relation: 1.2, what: 1.3 },
};

/** A stage in which all of the model answers questions. */
const together = (steps: number, looking: Looking): Stage => ({
  kind: 'language',
  steps,
  peak: 6e-4,
  warmUp: 50,
  decaySteps: steps,
  embeddings: 'all',
  decoderFrom: 0,
  tower: true,
  pointingWeight: 0.5,
  looking,
  columns: null,
  placing: 0,
  described: looking === 'patches' ? 0 : 0.5,
  kinds: { presence: 2, count: 4, relation: 1.5, which: 1.5, what: 1.5, where: 1.3 },
});

/** Kinds of question in the stages that are for counts. */
const countsFirst: Stage['kinds'] = {
  count: 6,
  relation: 1.5,
  which: 1.5,
  what: 1.5,
  at: 1.5,
  where: 0.8,
  background: 0.5,
};

/** The decoder learns more ways of asking, and of typing; what lies below it stays, so that adapters there go on from where they were. */
const wordingsLearnt: Stage = {
  ...together(2600, 'centres'),
  peak: 8e-4,
  embeddings: 'new',
  decoderFrom: 1,
  tower: false,
  columns: 0.1,
  placing: 1,
  kinds: { ...countsFirst, count: 4, what: 2.5, presence: 1.5, where: 1.5, background: 1 },
};

/**
 * The stages, in order: the tower learns to name what it sees; the decoder learns to answer from that; then all of it is brought
 * on together. The tower, the slowest of all, goes on by itself and the whole follows it. Then the same once more with the middles
 * of things to look at, for answers too, and pictures told in words. What is left is for counts: words learn to hold the places of
 * all they mean, and to look at each column of the picture by itself; middles become shares of the patches around a centre.
 */
export const stages: readonly Stage[] = [
  { ...towerAlone, peak: 2e-3, decaySteps: 6000, embeddings: 'all' },
  decoderAlone,
  together(1500, 'patches'),
  towerAlone,
  together(1300, 'patches'),
  { ...towerAlone, steps: 6000, peak: 1e-3, decaySteps: 6000, looking: 'middles' },
  {
    ...decoderAlone,
    steps: 4500,
    peak: 1e-3,
    warmUp: 100,
    looking: 'middles',
    described: 0.5,
    kinds: { count: 4, relation: 1.5, which: 2, what: 2, where: 0.8, background: 0.5 },
  },
  { ...together(2400, 'middles'), peak: 8e-4, pointingWeight: 1 },
  {
    ...decoderAlone,
    steps: 2000,
    peak: 8e-4,
    warmUp: 50,
    decaySteps: 2000,
    looking: 'middles',
    placing: 0.5,
    described: 0.5,
    kinds: countsFirst,
  },
  {
    ...decoderAlone,
    steps: 2400,
    peak: 1e-3,
    warmUp: 50,
    decaySteps: 2400,
    looking: 'middles',
    columns: 1,
    placing: 0.5,
    described: 0.5,
    kinds: countsFirst,
  },
  {
    ...together(2600, 'middles'),
    peak: 8e-4,
    columns: 0.1,
    placing: 1.5,
    kinds: countsFirst,
  },
  { ...towerAlone, steps: 3600, peak: 1e-3, decaySteps: 3600, looking: 'centres' },
  {
    ...together(2000, 'centres'),
    columns: 0.1,
    placing: 1.5,
    kinds: countsFirst,
  },
  {
    ...together(3200, 'centres'),
    peak: 8e-4,
    columns: 0.1,
    placing: 1.5,
    kinds: countsFirst,
  },
  wordingsLearnt,
];
