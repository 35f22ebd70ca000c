/** @file Adapters of the published code, opened as torch.save wrote them, beside the backbone they were trained for. */
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readAdapter } from '../../electron/editors/registry.ts';
import { publishedVisEdit, readSavedAdapters } from '../../electron/editors/visedit/publishedAdapter.ts';
import { operations, release } from '../../electron/engine/operations.ts';
import { floatToHalf, halfToFloat, openSafetensors, readTensor } from '../../electron/files/safetensors.ts';
import type { Checkpoint } from '../../electron/models/open.ts';
import { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { floatsOf } from '../../electron/tensor/session.ts';
import { writeTinyCheckpoint } from '../support/checkpointFixtures.ts';
import { fixture, largestDifference } from '../support/fixtures.ts';
import { float32s, pickleOf, storedZip, tensor } from '../support/torchArchives.ts';

/** As the published training writes it into the run's folder. */
const CONFIG = `IT:
  add_it: true
  layers:
  - 3
  - 4
  mid_dim: 48
adaptor_cross_att_head_n: 4
adaptor_mid_dim: 32
edit_layers:
- 2
edit_model_name: llava-v1.5-7b
`;
const NAME = 'epoch-2-i-3000-ema_loss-0.3125';
const path = fixture('checkpoints/llava_tiny');
const context = { signal: new AbortController().signal, send: () => {} };
const model = { fingerprint: 'of the model', hidden: 64, layers: 6 };

/** An adapter of any editor, for a model of this size. */
const readFor = (path: string, { fingerprint, ...decoder }: typeof model) =>
  readAdapter(path, { backbone: { decoder } } as Checkpoint, fingerprint);

const readPublishedAdapter = async (file: string, backbone: typeof model) =>
  publishedVisEdit(await readSavedAdapters(file), file, backbone);

let run: string;
let checkpoint: string;
beforeAll(async () => {
  run = await mkdtemp(join(tmpdir(), 'emend-published-'));
  await mkdir(join(run, 'checkpoints'));
  checkpoint = join(run, 'checkpoints', NAME);
  await cp(fixture('torch/visedit_llava_tiny'), checkpoint);
  await writeFile(join(run, 'config.yaml'), CONFIG);
});
afterAll(async () => {
  await release();
  await rm(run, { recursive: true, force: true });
});

test('its weights are those that were saved, its layer and heads as the run has them', async () => {
  const { description, shape, weights } = await readPublishedAdapter(checkpoint, model);
  expect(description).toMatchObject({
    name: NAME,
    layer: 2,
    heads: 4,
    attention: 'published',
    influenceMapper: true,
  });
  expect(shape).toMatchObject({ hidden: 64, middle: 32, influenceMiddle: 48 });
  const reference = await openSafetensors(fixture('llava_tiny/vead.safetensors'));
  const names = [...reference.tensors.keys()].filter((name) => name.startsWith('adaptor.'));
  expect(weights.size).toBe(names.length);
  for (const name of names) {
    const { data } = await readTensor(reference, name);
    // The archive's are in half precision, so that it is small.
    expect(weights.get(name.slice('adaptor.'.length))!.data).toEqual(
      halfToFloat(floatToHalf(data as Float32Array)),
    );
  }
});

test('it edits its backbone, and another run is another adapter', async () => {
  const opening = { path, adapter: checkpoint, providers: ['cpu' as const], template: 'plain' as const };
  const opened = await operations.open(opening, context);
  expect(opened.summary.adapter).toMatchObject({
    name: NAME,
    editor: 'VisEdit',
    where: 'layer 2',
    scope: { form: 'cosine' },
  });
  const picture = await readFile(fixture('images/a.png'));
  const edit = {
    id: 1,
    reach: 'picture' as const,
    picture,
    prompt: 'What is it?',
    target: 'a cat',
    signal: null,
  };
  const { signals } = await operations.sign({ edits: [edit], influence: true }, context);
  const { influence } = signals[0]!;
  expect(influence).toMatchObject({ rows: 4, columns: 4, layer: 2 });
  expect(new Set(influence!.values).size).toBeGreaterThan(1);
  const preview = await operations
    .preview({ edit, maxNewTokens: 4 }, context)
    .catch((error: Error) => error.message);
  // Without a library no committed edit is known: what comes before that has run.
  expect(preview).toMatch(/was not told which library/);
  await writeFile(join(run, 'config.yaml'), CONFIG.replace('add_it: true', 'add_it: false'));
  const other = await readPublishedAdapter(checkpoint, model);
  expect(other.shape.influenceMapper).toBe(false);
  await writeFile(join(run, 'config.yaml'), CONFIG);
  expect((await readPublishedAdapter(checkpoint, model)).fingerprint).not.toBe(other.fingerprint);
});

test('DualEdit’s adapters open as they were saved, each at its layer, and are the reference’s', async () => {
  const reference = await openSafetensors(fixture('llava_tiny/dualedit.safetensors'));
  const storages: Array<[string, Buffer]> = [];
  const dict = async (prefix: string) => {
    const entries = [];
    for (const [name, { shape }] of reference.tensors) {
      if (!name.startsWith(prefix)) continue;
      const { data } = await readTensor(reference, name);
      const stride = shape.map((_, at) => shape.slice(at + 1).reduce((a, b) => a * b, 1));
      const storage = String(storages.length);
      storages.push([`a/data/${storage}`, float32s([...(data as Float32Array)])]);
      entries.push([name.slice(prefix.length), tensor(storage, data.length, 0, shape, stride)]);
    }
    return Object.fromEntries(entries);
  };
  const modules = {
    'language_model.model.layers.3': await dict('visual_adaptor.'),
    'text_language_model.model.layers.1': await dict('text_adaptor.'),
  };
  const file = join(run, 'checkpoints', 'dual');
  const saved = (train_modules: typeof modules | Partial<typeof modules>) =>
    writeFile(file, storedZip([['a/data.pkl', pickleOf({ train_modules })], ...storages]));
  await saved(modules);
  const found = await readFor(file, model);
  expect(found).toMatchObject({ name: 'dual', cuts: [1, 3], folder: false, editor: { name: 'DualEdit' } });
  const backbone = await VisionLanguageModel.open(path, { providers: ['cpu'], cuts: [1, 3] });
  const editor = await found.open(backbone, 'routed');
  try {
    const visual = await backbone.visualEmbeddings(
      await backbone.pixelsOf(await readFile(fixture('images/a.png'))),
    );
    const { text_prompt, text_full } = JSON.parse(
      await readFile(fixture('llava_tiny/forward.json'), 'utf8'),
    ).edit;
    const prompt = text_prompt.replace('<image>\n', '');
    const target = text_full.slice(text_prompt.length + 1);
    const state = await editor.make(backbone, { visual, prompt, target });
    const encoded = backbone.prompts.encodePrompt({ prompt, image: true });
    const prefill = await backbone.prefill(await backbone.lay(encoded, visual));
    const every = Array.from({ length: prefill.input.rows }, (_, row) => row);
    const { logits } = await backbone.finish(prefill, every, editor.effect([state]).rows);
    const { data } = await readTensor(reference, 'edit.prompt_only.pe_own.ungated_logits');
    expect(largestDifference(await floatsOf(logits), data as Float32Array)).toBeLessThan(5e-4);
  } finally {
    await editor.dispose();
    await backbone.dispose();
  }
  await expect(readFor(file, { ...model, layers: 4 })).rejects.toMatchObject({
    code: 'invalid-input',
  });
  const { 'language_model.model.layers.3': _, ...half } = modules;
  await saved(half);
  expect(await readFor(file, model)).toMatchObject({ cuts: [1], editor: { name: 'DualEdit' } });
  await saved({
    ...modules,
    'text_language_model.model.layers.2': await dict('text_adaptor.'),
  } as typeof modules);
  await expect(readFor(file, model)).rejects.toThrow(/2 adapters of text rows and 1 of visual rows/);
});

describe('refused by name is', () => {
  test('a folder of an editor that is not here, or of none', async () => {
    const folder = join(run, 'folder');
    await mkdir(folder);
    await writeFile(join(folder, 'adapter.json'), JSON.stringify({ editor: 'Nobody' }));
    await expect(readFor(folder, model)).rejects.toMatchObject({
      code: 'unsupported',
      message: expect.stringMatching(/Nobody.*VisEdit, DualEdit/),
    });
    await writeFile(join(folder, 'adapter.json'), '{}');
    await expect(readFor(folder, model)).rejects.toMatchObject({ code: 'damaged' });
  });

  test('one for another model', async () => {
    const small = join(run, 'small');
    await writeTinyCheckpoint(small);
    const opening = {
      path: small,
      adapter: checkpoint,
      providers: ['cpu' as const],
      template: 'plain' as const,
    };
    await expect(operations.open(opening, context)).rejects.toMatchObject({
      code: 'invalid-input',
      message: expect.stringContaining('64 wide; this model has 4 layers, 32 wide'),
    });
    await expect(readPublishedAdapter(checkpoint, { ...model, layers: 3 })).rejects.toMatchObject({
      code: 'invalid-input',
    });
  });

  test.each([
    ['no state dict', { train_modules: 4 }, /holds no adapter/],
    ['nothing', {}, /holds no adapter/],
    [
      'a layer that is none',
      { train_modules: { head: { w: tensor('0', 1, 0, [1], [1]) } } },
      /holds no adapter/,
    ],
    [
      'another module',
      { train_modules: { 'x.layers.1': { w: tensor('0', 1, 0, [1], [1]) } } },
      /lacks the tensor/,
    ],
    ['two layers', { train_modules: { 'x.layers.1': {}, 'x.layers.2': {} } }, /several layers \(1, 2\)/],
    ['a text for a tensor', { train_modules: { 'x.layers.1': { w: 'hello' } } }, /w is no tensor/],
  ])('an archive with %s', async (_what, saved, message) => {
    const file = join(run, 'checkpoints', 'wrong');
    await writeFile(
      file,
      storedZip([
        ['a/data.pkl', pickleOf(saved)],
        ['a/data/0', float32s([1])],
      ]),
    );
    await expect(readPublishedAdapter(file, model)).rejects.toThrow(message);
  });
});
