/** @file Configs as the hub has them, class defaults left out: the published numbers of parameters come out. */
import { expect, test } from 'vitest';
import { readConfig } from '../../electron/models/open.ts';

const clip = {
  model_type: 'clip_vision_model',
  hidden_size: 1024,
  intermediate_size: 4096,
  num_hidden_layers: 24,
};
const models: ReadonlyArray<readonly [name: string, config: object, billions: number]> = [
  [
    'LLaVA-1.5-7B',
    {
      model_type: 'llava',
      text_config: { model_type: 'llama', vocab_size: 32064, rms_norm_eps: 1e-5 },
      vision_config: { ...clip, num_attention_heads: 16, image_size: 336, patch_size: 14 },
    },
    // the vision tower's last layer is not needed
    7.051,
  ],
  [
    'Qwen2.5-VL-7B',
    {
      model_type: 'qwen2_5_vl',
      ...{ hidden_size: 3584, intermediate_size: 18944, num_hidden_layers: 28, vocab_size: 152064 },
      ...{ num_attention_heads: 28, num_key_value_heads: 4, rms_norm_eps: 1e-6, rope_theta: 1e6 },
      rope_scaling: { type: 'mrope', mrope_section: [16, 24, 24] },
      vision_config: { hidden_size: 1280, in_chans: 3, out_hidden_size: 3584, spatial_patch_size: 14 },
    },
    8.292,
  ],
  [
    'Qwen3-VL-4B',
    {
      model_type: 'qwen3_vl',
      tie_word_embeddings: true,
      text_config: {
        ...{ hidden_size: 2560, intermediate_size: 9728, num_hidden_layers: 36, num_key_value_heads: 8 },
        rope_scaling: { mrope_interleaved: true, mrope_section: [24, 20, 20], rope_type: 'default' },
      },
      vision_config: {
        ...{ depth: 24, hidden_size: 1024, intermediate_size: 4096, out_hidden_size: 2560 },
        deepstack_visual_indexes: [5, 11, 17],
      },
    },
    4.438,
  ],
  [
    'SmolVLM2-500M',
    {
      ...{ model_type: 'smolvlm', scale_factor: 4, image_token_id: 49190 },
      text_config: {
        ...{ model_type: 'llama', hidden_size: 960, intermediate_size: 2560, num_hidden_layers: 32 },
        ...{ num_attention_heads: 15, num_key_value_heads: 5, vocab_size: 49280 },
      },
      vision_config: { hidden_size: 768, image_size: 512, num_attention_heads: 12, patch_size: 16 },
    },
    0.507,
  ],
  [
    'Idefics3-8B',
    {
      model_type: 'idefics3',
      text_config: {
        ...{ model_type: 'llama', hidden_size: 4096, intermediate_size: 14336, num_hidden_layers: 32 },
        ...{ num_attention_heads: 32, num_key_value_heads: 8, vocab_size: 128259 },
        rope_scaling: { factor: 8, high_freq_factor: 4, low_freq_factor: 1, rope_type: 'llama3' },
      },
      vision_config: { image_size: 364, intermediate_size: 4304, num_hidden_layers: 27, patch_size: 14 },
    },
    8.462,
  ],
  [
    'BLIP2-OPT-2.7B',
    {
      model_type: 'blip-2',
      text_config: {
        model_type: 'opt',
        hidden_size: 2560,
        ffn_dim: 10240,
        num_hidden_layers: 32,
        num_attention_heads: 32,
      },
    },
    3.745,
  ],
];

test.each(models)('%s', (_name, json, billions) => {
  const { family, config } = readConfig(json);
  let count = 0;
  for (const shape of family.backbone(config).tensors().values()) count += shape.reduce((a, b) => a * b, 1);
  expect(count / 1e9).toBeCloseTo(billions, 3);
});

test('M-RoPE of published models turns the frequencies its config says', () => {
  const { config } = readConfig({ model_type: 'qwen2_5_vl' });
  expect(config.text).toMatchObject({
    mrope: { sections: [16, 24, 24], interleaved: false },
    rmsNormEps: 1e-5,
  });
  expect(readConfig({ model_type: 'qwen3_vl' }).config.text).toMatchObject({
    mrope: { sections: [24, 20, 20], interleaved: true },
    queryKeyNorm: true,
    ropeTheta: 500_000,
  });
  expect(() =>
    readConfig({ model_type: 'qwen2_5_vl', rope_scaling: { type: 'mrope', mrope_section: [16, 24, 8] } }),
  ).toThrow(/mrope_section \[16, 24, 8\] does not add up to 64/);
});

test('parts of a family that are not run are named', () => {
  const t5 = { model_type: 'blip-2', text_config: { model_type: 't5' } };
  expect(() => readConfig(t5)).toThrow(/text_config\.model_type "t5".*encoder/);
  expect(() => readConfig({ model_type: 'blip-2', text_config: { word_embed_proj_dim: 512 } })).toThrow(
    /word_embed_proj_dim 512/,
  );
  expect(() => readConfig({ model_type: 'smolvlm', vision_config: { image_size: 96 } })).toThrow(
    /scale_factor 2 does not divide/,
  );
  expect(() =>
    readConfig({ model_type: 'qwen3_vl', vision_config: { deepstack_visual_indexes: [40] } }),
  ).toThrow(/deepstack_visual_indexes \[40\]/);
});
