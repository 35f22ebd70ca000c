/** @file config.json: class defaults filled in, the unsupported and the impossible refused. */

import { expect, it } from 'vitest';
import {
  featureStates,
  type LlavaConfig,
  visionLayersNeeded,
} from '../../electron/models/families/llava/config.ts';
import { readConfig } from '../../electron/models/open.ts';

const parseConfig = (json: unknown) => readConfig(json).config as LlavaConfig;

/** LLaVA-1.5 7B as the hub has it: most of the text model is left to class defaults. */
const llava15 = {
  architectures: ['LlavaForConditionalGeneration'],
  ignore_index: -100,
  image_token_index: 32000,
  model_type: 'llava',
  pad_token_id: 32001,
  projector_hidden_act: 'gelu',
  text_config: {
    _name_or_path: 'lmsys/vicuna-7b-v1.5',
    architectures: ['LlamaForCausalLM'],
    max_position_embeddings: 4096,
    model_type: 'llama',
    rms_norm_eps: 1e-5,
    torch_dtype: 'float16',
    vocab_size: 32064,
  },
  tie_word_embeddings: false,
  vision_config: {
    hidden_size: 1024,
    image_size: 336,
    intermediate_size: 4096,
    model_type: 'clip_vision_model',
    num_attention_heads: 16,
    num_hidden_layers: 24,
    patch_size: 14,
    projection_dim: 768,
    vocab_size: 32000,
  },
  vision_feature_layer: -2,
  vision_feature_select_strategy: 'default',
};

it("fills in what LLaVA-1.5's config leaves out", () => {
  expect(parseConfig(llava15)).toEqual({
    text: {
      layers: 32,
      hidden: 4096,
      intermediate: 11008,
      heads: 32,
      keyValueHeads: 32,
      headDim: 128,
      vocab: 32064,
      rmsNormEps: 1e-5,
      ropeTheta: 10000,
      ropeScaling: { kind: 'none' },
      maxPositions: 4096,
      activation: 'silu',
      tieWordEmbeddings: false,
      attentionBias: false,
      mlpBias: false,
      bosTokenId: 1,
      eosTokenIds: [2],
      padTokenId: 32001,
    },
    vision: {
      layers: 24,
      hidden: 1024,
      intermediate: 4096,
      heads: 16,
      imageSize: 336,
      patchSize: 14,
      layerNormEps: 1e-5,
      activation: 'quick_gelu',
    },
    imageTokenId: 32000,
    featureLayer: -2,
    featureSelect: 'default',
    projector: { activation: 'gelu', bias: true },
    imageTokenCount: 576,
  });
});

it('takes the CLIP-L tower where there is no vision_config, and Llama defaults without text_config', () => {
  const config = parseConfig({ model_type: 'llava' });
  expect(config.vision).toEqual(parseConfig(llava15).vision);
  expect(config.text).toMatchObject({ vocab: 32000, rmsNormEps: 1e-6, maxPositions: 2048 });
});

const withText = (text: object) => ({ ...llava15, text_config: { ...llava15.text_config, ...text } });
const withVision = (vision: object) => ({
  ...llava15,
  vision_config: { ...llava15.vision_config, ...vision },
});

it('finds tied embeddings at either place, the text config first', () => {
  const tied = (json: object) => parseConfig(json).text.tieWordEmbeddings;
  expect(tied({ ...llava15, tie_word_embeddings: true })).toBe(true);
  expect(tied(withText({ tie_word_embeddings: true }))).toBe(true);
  expect(tied({ ...withText({ tie_word_embeddings: false }), tie_word_embeddings: true })).toBe(false);
});

it('reads RoPE scaling in both spellings', () => {
  const rope = (text: object) => parseConfig(withText(text)).text;
  expect(rope({ rope_theta: 5e5, rope_scaling: { type: 'linear', factor: 2 } })).toMatchObject({
    ropeTheta: 5e5,
    ropeScaling: { kind: 'linear', factor: 2 },
  });
  const llama3 = {
    rope_type: 'llama3',
    rope_theta: 5e5,
    factor: 8,
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: 8192,
  };
  expect(rope({ rope_parameters: llama3 })).toMatchObject({
    ropeTheta: 5e5,
    ropeScaling: {
      kind: 'llama3',
      factor: 8,
      lowFrequencyFactor: 1,
      highFrequencyFactor: 4,
      originalMaxPositions: 8192,
    },
  });
  const dynamic = { type: 'dynamic', factor: 4, original_max_position_embeddings: 1000 };
  expect(rope({ rope_scaling: dynamic }).ropeScaling).toEqual({
    kind: 'dynamic',
    factor: 4,
    originalMaxPositions: 4096,
  });
  expect(rope({ rope_parameters: { rope_type: 'default', rope_theta: 1e6 } })).toMatchObject({
    ropeTheta: 1e6,
    ropeScaling: { kind: 'none' },
  });
});

it('counts feature states and rows of a picture', () => {
  const config = parseConfig({
    ...llava15,
    vision_feature_layer: [-2, 12, 0],
    vision_feature_select_strategy: 'full',
  });
  expect(featureStates(config)).toEqual([23, 12, 0]);
  expect(visionLayersNeeded(config)).toBe(23);
  expect(config.imageTokenCount).toBe(577);
});

it('reads lists of end tokens and tokens that are none', () => {
  const { text } = parseConfig(withText({ eos_token_id: [2, 7], bos_token_id: null, pad_token_id: -1 }));
  expect(text).toMatchObject({ eosTokenIds: [2, 7], bosTokenId: undefined, padTokenId: undefined });
});

it.each<[string, object, RegExp]>([
  ['another architecture', { ...llava15, model_type: 'qwen2_vl' }, /"qwen2_vl".*LLaVA/],
  ['no architecture', {}, /without model_type/],
  ['another decoder', withText({ model_type: 'gemma' }), /text_config.model_type "gemma".*llama/],
  ['another tower', withVision({ model_type: 'dinov2' }), /"dinov2".*siglip_vision_model/],
  ['another activation', withText({ hidden_act: 'mish' }), /hidden_act "mish".*silu/],
  ['another RoPE', withText({ rope_scaling: { rope_type: 'yarn', factor: 2 } }), /"yarn".*llama3/],
  ['quantised weights', { ...llava15, quantization_config: { quant_method: 'gptq' } }, /quantization_config/],
  ['another selection', { ...llava15, vision_feature_select_strategy: 'cls' }, /"cls"/],
  ['another number of channels', withVision({ num_channels: 4 }), /num_channels 4/],
])('refuses as unsupported: %s', (_name, json, message) => {
  expect(() => parseConfig(json)).toThrow(
    expect.objectContaining({ code: 'unsupported', message: expect.stringMatching(message) }),
  );
});

it.each<[string, unknown, RegExp]>([
  ['no object', [1], /JSON object/],
  ['hidden size 0', withText({ hidden_size: 0 }), /text_config.hidden_size/],
  ['negative layers', withVision({ num_hidden_layers: -3 }), /vision_config.num_hidden_layers/],
  ['thousands of layers', withText({ num_hidden_layers: 100_000 }), /num_hidden_layers/],
  ['fractional size', withText({ intermediate_size: 10.5 }), /intermediate_size/],
  ['text for a number', withText({ vocab_size: '32000' }), /vocab_size/],
  ['heads that do not divide', withText({ num_attention_heads: 33 }), /33 heads do not divide/],
  [
    'key-value heads that do not divide',
    withText({ num_key_value_heads: 5 }),
    /5 key-value heads do not divide/,
  ],
  ['odd heads', withText({ head_dim: 33 }), /odd width 33/],
  ['patch larger than picture', withVision({ patch_size: 400 }), /patches of 400/],
  ['feature layer out of range', { ...llava15, vision_feature_layer: -26 }, /vision_feature_layer -26/],
  ['llama3 RoPE without factor', withText({ rope_scaling: { rope_type: 'llama3' } }), /without/],
])('refuses as damaged: %s', (_name, json, message) => {
  expect(() => parseConfig(json)).toThrow(
    expect.objectContaining({ code: 'damaged', message: expect.stringMatching(message) }),
  );
});
