/**
 * @file One model in the forms its files come in: other tensor names, flat configs, half precision in shards, tied heads, fields left
 * out; and files that do not belong together.
 */
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import {
  openSafetensors,
  readTensor,
  type WritableTensor,
  writeSafetensors,
} from '../../electron/files/safetensors.ts';
import { projectFolder } from '../../electron/frontends/places.ts';
import { openCheckpoint } from '../../electron/models/open.ts';
import { promptFromTensors } from '../../electron/models/trace.ts';
import { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { floatsOf } from '../../electron/tensor/session.ts';
import { fixture, largestDifference } from '../support/fixtures.ts';
import { type PickledTensor, pickleOf, storedZip, tensor } from '../support/torchArchives.ts';

let base: string;
beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), 'emend-forms-'));
});
afterAll(() => rm(base, { recursive: true, force: true }));

type Json = Record<string, unknown> & { text_config: Record<string, unknown> };

/** A copy of a tiny checkpoint with its config changed and its tensors renamed, left out (null), narrowed and spread over shards. */
async function inForm(
  name: string,
  form: {
    config?: (config: Json) => object;
    rename?: (tensor: string) => string | null;
    dtype?: 'F32' | 'F16' | 'BF16';
    shards?: number;
  },
): Promise<string> {
  const folder = await mkdtemp(join(base, 'm-'));
  await cp(fixture(`checkpoints/${name}`), folder, { recursive: true });
  const config = JSON.parse(await readFile(join(folder, 'config.json'), 'utf8')) as Json;
  await writeFile(join(folder, 'config.json'), JSON.stringify(form.config?.(config) ?? config));
  const file = await openSafetensors(fixture(`checkpoints/${name}/model.safetensors`));
  const shards = form.shards ?? 1;
  const parts = Array.from({ length: shards }, () => new Map<string, WritableTensor>());
  const weight_map: Record<string, string> = {};
  const shardName = (index: number) => `model-0000${index + 1}-of-0000${shards}.safetensors`;
  for (const [index, tensor] of [...file.tensors.keys()].entries()) {
    const renamed = form.rename ? form.rename(tensor) : tensor;
    if (renamed === null) continue;
    const { shape, data } = await readTensor(file, tensor);
    parts[index % shards]!.set(renamed, {
      dtype: form.dtype ?? 'F32',
      shape: [...shape],
      data: data as Float32Array,
    });
    weight_map[renamed] = shardName(index % shards);
  }
  await rm(join(folder, 'model.safetensors'));
  if (shards === 1) await writeSafetensors(join(folder, 'model.safetensors'), parts[0]!);
  else {
    for (const [index, part] of parts.entries()) await writeSafetensors(join(folder, shardName(index)), part);
    await writeFile(join(folder, 'model.safetensors.index.json'), JSON.stringify({ weight_map }));
  }
  return folder;
}

/** Logits after a picture and a question. */
async function logitsOf(folder: string): Promise<Float32Array> {
  const model = await VisionLanguageModel.open(folder, { providers: ['cpu'] });
  try {
    const visual = await model.visualEmbeddings(
      await model.pixelsOf(await readFile(fixture('images/pan.png'))),
    );
    const prompt = model.prompts.encodePrompt({ prompt: 'What is it?', image: true });
    const prefill = await model.prefill(await model.lay(prompt, visual));
    return (await floatsOf(prefill.logits!)).slice();
  } finally {
    await model.dispose();
  }
}

const flat = ({ text_config, ...whole }: Json) => ({ ...text_config, ...whole, model_type: 'qwen2_5_vl' });
const newerQwen = (name: string) =>
  name.replace(/^model\./, 'model.language_model.').replace(/^visual\./, 'model.visual.');

test('Qwen2.5-VL: flat or nested, by older or newer names, the same numbers', async () => {
  const own = await logitsOf(fixture('checkpoints/qwen2_5_vl_tiny'));
  const mrope = { type: 'mrope', mrope_section: [2, 3, 3] };
  const folder = await inForm('qwen2_5_vl_tiny', {
    config: (config) => ({ ...flat(config), rope_scaling: mrope }),
    rename: newerQwen,
  });
  expect(await logitsOf(folder)).toEqual(own);
});

test.each([
  ['qwen2_5_vl_tiny', 'F16', 0.05],
  ['qwen3_vl_tiny', 'BF16', 0.4],
  ['smolvlm_tiny', 'F16', 0.05],
  ['blip2_tiny', 'BF16', 0.4],
] as const)('%s in %s, in three shards', async (name, dtype, near) => {
  const own = await logitsOf(fixture(`checkpoints/${name}`));
  const folder = await inForm(name, { dtype, shards: 3 });
  const { weights } = await openCheckpoint(folder);
  expect(new Set(weights.names().map((tensor) => weights.find(tensor)!.dtype))).toEqual(new Set([dtype]));
  expect(largestDifference(await logitsOf(folder), own)).toBeLessThan(near);
});

test.each(['qwen2_5_vl_tiny', 'qwen3_vl_tiny', 'smolvlm_tiny', 'minigpt4_tiny'])(
  '%s without a head has that of its embeddings',
  async (name) => {
    const tied = await inForm(name, { rename: (tensor) => (/lm_head/.test(tensor) ? null : tensor) });
    expect((await openCheckpoint(tied)).config.text.tieWordEmbeddings).toBe(true);
    expect((await logitsOf(tied)).every(Number.isFinite)).toBe(true);
  },
);

/** MiniGPT-4 as it is published: a folder of the language model alone, and beside it what sees, in three archives of PyTorch. */
async function publishedMiniGpt4(config: (config: Json) => object): Promise<string> {
  const folder = await inForm('minigpt4_tiny', {
    config,
    rename: (name) => (name.startsWith('llama_model.') ? name.slice('llama_model.'.length) : null),
  });
  const file = await openSafetensors(fixture('checkpoints/minigpt4_tiny/model.safetensors'));
  const archive = async (belongs: RegExp, cut = '') => {
    const tensors: Record<string, PickledTensor> = {};
    const storages: Array<[string, Buffer]> = [];
    for (const name of file.tensors.keys()) {
      if (!belongs.test(name)) continue;
      const { shape, data } = await readTensor(file, name);
      const stride = shape.map((_, axis) => shape.slice(axis + 1).reduce((a, b) => a * b, 1));
      const storage = String(storages.length);
      tensors[name.slice(name.startsWith(cut) ? cut.length : 0)] = tensor(
        storage,
        data.length,
        0,
        shape,
        stride,
      );
      storages.push([`archive/data/${storage}`, Buffer.from((data as Float32Array).buffer)]);
    }
    return { tensors, storages };
  };
  const write = (name: string, value: Parameters<typeof pickleOf>[0], storages: Array<[string, Buffer]>) =>
    writeFile(join(folder, name), storedZip([['archive/data.pkl', pickleOf(value)], ...storages]));
  const vit = await archive(/^visual_encoder\./, 'visual_encoder.');
  // the last block is there and is not used
  await write(
    'eva_vit_g.pth',
    { ...vit.tensors, 'blocks.3.norm1.weight': vit.tensors['blocks.2.norm1.weight']! },
    vit.storages,
  );
  const qformer = await archive(/^(Qformer|query_tokens|ln_vision)/);
  await write('blip2_pretrained_flant5xxl.pth', { model: qformer.tensors }, qformer.storages);
  const projection = await archive(/^llama_proj/);
  await write('prerained_minigpt4_7b.pth', { model: projection.tensors, epoch: 3 }, projection.storages);
  return folder;
}

test('MiniGPT-4 in its published parts is opened where they lie, and answers as whole', async () => {
  const own = await logitsOf(fixture('checkpoints/minigpt4_tiny'));
  const folder = await publishedMiniGpt4((config) => config);
  const { files } = await openCheckpoint(folder);
  expect([...files.keys()].filter((name) => name.endsWith('.pth'))).toHaveLength(3);
  expect(await logitsOf(folder)).toEqual(own);
  // a tokenizer that knows no picture, as Vicuna's, is given a token for it
  const plain = await publishedMiniGpt4(({ image_token_index, ...config }) => config);
  expect(await logitsOf(plain)).toEqual(own);
});

test('a part of MiniGPT-4 that is missing, of another size or no state dict is told', async () => {
  const folder = await publishedMiniGpt4((config) => config);
  await cp(fixture('torch/evil.pt'), join(folder, 'another.pth'));
  await expect(openCheckpoint(folder)).rejects.toMatchObject({
    code: 'unsupported',
    message: expect.stringContaining('another.pth'),
  });
  await rm(join(folder, 'another.pth'));
  await rm(join(folder, 'blip2_pretrained_flant5xxl.pth'));
  await expect(openCheckpoint(folder)).rejects.toMatchObject({
    code: 'not-found',
    message: expect.stringMatching(/lacks parts of MiniGPT-4: the Q-Former \(blip2_/),
  });
  // beside Vicuna alone, everything else is as it was published
  const vicuna = await publishedMiniGpt4(({ text_config }) => ({ ...text_config, model_type: 'llama' }));
  await expect(openCheckpoint(vicuna)).rejects.toThrow(
    /"cls_token" of .*eva_vit_g\.pth has shape \[1,1,48\].*\[1,1,1408\]/,
  );
});

test('fields that equal the class defaults may be left out', async () => {
  const left = (section: Record<string, unknown>, ...names: string[]) =>
    Object.fromEntries(Object.entries(section).filter(([name]) => !names.includes(name)));
  const cases: Array<[string, (config: Json) => object]> = [
    [
      'qwen3_vl_tiny',
      (config) => ({
        ...config,
        vision_config: left(
          config['vision_config'] as Json,
          'hidden_act',
          'in_channels',
          'spatial_merge_size',
          'temporal_patch_size',
        ),
        text_config: left(
          config.text_config,
          'rms_norm_eps',
          'attention_bias',
          'hidden_act',
          'tie_word_embeddings',
        ),
      }),
    ],
    [
      'smolvlm_tiny',
      (config) => ({
        ...config,
        vision_config: left(config['vision_config'] as Json, 'hidden_act', 'layer_norm_eps', 'num_channels'),
        text_config: left(
          config.text_config,
          'hidden_act',
          'attention_bias',
          'mlp_bias',
          'head_dim',
          'rope_scaling',
        ),
      }),
    ],
  ];
  for (const [name, config] of cases)
    expect(await logitsOf(await inForm(name, { config }))).toEqual(
      await logitsOf(fixture(`checkpoints/${name}`)),
    );
});

test('LLaVA with a SigLIP tower and decoders of other kinds opens by its config, and says what it lacks', async () => {
  const folder = await inForm('llava_tiny', {
    config: (config) => ({ ...config, text_config: { ...config.text_config, model_type: 'qwen2' } }),
  });
  await expect(openCheckpoint(folder)).rejects.toMatchObject({
    code: 'damaged',
    message: expect.stringMatching(/no tensor "language_model\.model\.layers\.0\.self_attn\.q_proj\.bias"/),
  });
  const siglip = await inForm('llava_tiny', {
    config: (config) => ({
      ...config,
      vision_config: { ...(config['vision_config'] as object), model_type: 'siglip_vision_model' },
    }),
  });
  await expect(openCheckpoint(siglip)).rejects.toMatchObject({
    message: expect.stringMatching(/patch_embedding\.bias/),
  });
});

test('a config of one family with the tensors of another is refused before anything is loaded', async () => {
  const folder = await inForm('qwen3_vl_tiny', {});
  await cp(fixture('checkpoints/qwen2_5_vl_tiny/config.json'), join(folder, 'config.json'));
  await expect(openCheckpoint(folder)).rejects.toMatchObject({
    code: 'damaged',
    message: expect.stringMatching(/no tensor|has shape/),
  });
});

test('an unknown family is told what there is', async () => {
  const folder = await inForm('llava_tiny', { config: () => ({ model_type: 'paligemma' }) });
  await expect(openCheckpoint(folder)).rejects.toMatchObject({
    code: 'unsupported',
    message: expect.stringMatching(/"paligemma".*LLaVA.*Qwen2\.5-VL.*Qwen3-VL.*Idefics3.*BLIP-2.*MiniGPT-4/),
  });
});

test('a picture takes no more rows than wished for, and a limit that none keeps is refused', async () => {
  const file = await readFile(fixture('images/big.png'));
  const rowsAt = async (name: string, pictureRows?: number) => {
    const model = await VisionLanguageModel.open(fixture(`checkpoints/${name}`), {
      providers: ['cpu'],
      pictureRows,
    });
    try {
      const { layout } = await model.pixelsOf(file);
      expect(layout.rows).toBeLessThanOrEqual(model.images.rows.most);
      return layout.rows;
    } finally {
      await model.dispose();
    }
  };
  expect(await rowsAt('qwen2_5_vl_tiny')).toBe(24);
  expect(await rowsAt('qwen2_5_vl_tiny', 12)).toBeLessThanOrEqual(12);
  expect(await rowsAt('smolvlm_tiny')).toBe(20);
  expect(await rowsAt('smolvlm_tiny', 19)).toBe(4);
  await expect(rowsAt('smolvlm_tiny', 3)).rejects.toMatchObject({ code: 'invalid-input' });
  await expect(rowsAt('llava_tiny', 15)).rejects.toMatchObject({
    code: 'invalid-input',
    message: expect.stringMatching(/at least 16 rows.*limit is 15/),
  });
});

test('a GGUF file, or a folder of them, is said to be another thing', async () => {
  const folder = await mkdtemp(join(base, 'gguf-'));
  await writeFile(join(folder, 'model-Q4_K_M.gguf'), 'GGUF');
  for (const path of [folder, join(folder, 'model-Q4_K_M.gguf')]) {
    await expect(openCheckpoint(path)).rejects.toMatchObject({
      code: 'unsupported',
      message: expect.stringMatching(/GGUF.*safetensors/),
    });
  }
});

test('grids, tiles and image tokens that do not fit are told, before the vision tower runs', async () => {
  const refused = async (
    name: string,
    tensors: Record<string, { shape: number[]; data: Float32Array | BigInt64Array }>,
    ids: number[],
    message: RegExp,
  ) => {
    const model = await VisionLanguageModel.open(fixture(`checkpoints/${name}`), { providers: ['cpu'] });
    try {
      expect(() => promptFromTensors(model, ids, new Map(Object.entries(tensors)))).toThrow(
        expect.objectContaining({ code: 'invalid-input', message: expect.stringMatching(message) }),
      );
    } finally {
      await model.dispose();
    }
  };
  const patches = { shape: [16, 216], data: new Float32Array(16 * 216) };
  const grid = (...thw: number[]) => ({ shape: [thw.length / 3, 3], data: BigInt64Array.from(thw, BigInt) });
  const qwen = 'qwen2_5_vl_tiny';
  await refused(qwen, { pixel_values: patches, image_grid_thw: grid(1, 3, 4) }, [333], /multiples of 2/);
  await refused(
    qwen,
    { pixel_values: patches, image_grid_thw: grid(1, 2, 4) },
    [333],
    /accounts for 8 patches.*16/,
  );
  await refused(qwen, { pixel_values: patches, image_grid_thw: grid(1, 4, 6) }, [333], /16 patches/);
  await refused(qwen, { pixel_values: patches }, [333], /both pixel_values and image_grid_thw/);
  await refused(
    qwen,
    { pixel_values: patches, image_grid_thw: grid(1, 4, 4) },
    [333, 333],
    /2 image tokens; give one, or 4/,
  );
  const tiles = { shape: [2, 3, 30, 32], data: new Float32Array(2 * 3 * 30 * 32) };
  await refused('smolvlm_tiny', { pixel_values: tiles }, [362], /\[tiles, 3, 32, 32\]/);
});

test('no weight is named outside the families and the parts they share', async () => {
  const spelled =
    /lm_head|self_attn|embed_tokens|\b(?:q|k|v|o|up|gate|down)_proj\b|vision_tower|vision_model|visual_encoder|multi_modal|language_model\./;
  const texts = /'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\.)*`|\/[^/\s*].*\//g;
  const found: string[] = [];
  for (const file of await readdir(join(projectFolder, 'electron'), { recursive: true })) {
    if (!file.endsWith('.ts') || /^(demo|models.(families|parts))\b/.test(file)) continue;
    const source = (await readFile(join(projectFolder, 'electron', file), 'utf8')).replaceAll(
      /^\s*(\/?\*|\/\/).*$/gm,
      '',
    );
    if ((source.match(texts) ?? []).some((text) => spelled.test(text))) found.push(file);
  }
  expect(found).toEqual([]);
});
