/** @file Checkpoint folders opened in place: names, shards, dtypes, and what is wrong with broken ones. */

import { cp, mkdir, mkdtemp, open, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openSafetensors, type WritableTensor, writeSafetensors } from '../../electron/files/safetensors.ts';
import { fingerprint } from '../../electron/models/checkpoint.ts';
import { llava } from '../../electron/models/families/llava/llava.ts';
import { canonicalName as nameIn } from '../../electron/models/family.ts';
import { openCheckpoint, stopTokenIds } from '../../electron/models/open.ts';
import { writeTinyCheckpoint } from '../support/checkpointFixtures.ts';
import { fixture } from '../support/fixtures.ts';

const INDEX = 'model.safetensors.index.json';

let base: string;
beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), 'emend-checkpoint-'));
});
afterAll(() => rm(base, { recursive: true, force: true }));

async function tiny(options?: Parameters<typeof writeTinyCheckpoint>[1]) {
  const folder = await mkdtemp(join(base, 'm-'));
  return { folder, ...(await writeTinyCheckpoint(folder, options)) };
}

async function rewriteJson(path: string, change: (json: Record<string, unknown>) => object) {
  await writeFile(path, JSON.stringify(change(JSON.parse(await readFile(path, 'utf8')))));
}

describe('opening', () => {
  it.each([
    { dtype: 'F32', naming: 'first', shards: 1 },
    { dtype: 'F16', naming: 'newer', shards: 3 },
    { dtype: 'BF16', naming: 'newer', shards: 1, tied: true, keyValueHeads: 2 },
  ] as const)('finds every weight by its canonical name: %o', async (options) => {
    const { folder, tensors } = await tiny(options);
    const checkpoint = await openCheckpoint(folder);
    expect(checkpoint.weights.names().toSorted()).toEqual([...tensors.keys()].toSorted());
    expect(checkpoint.files.size).toBe(options.shards);
    for (const name of [
      'language_model.model.layers.1.self_attn.k_proj.weight',
      'multi_modal_projector.linear_1.bias',
    ]) {
      const { shape, data } = tensors.get(name)!;
      expect(checkpoint.weights.find(name)).toMatchObject({ dtype: options.dtype, shape });
      const read = await checkpoint.weights.read(name);
      const relative = { F32: 0, F16: 2 ** -11, BF16: 2 ** -8 }[options.dtype];
      read.forEach((value, i) => {
        expect(Math.abs(value - data[i]!)).toBeLessThanOrEqual(Math.abs(data[i]!) * relative + 1e-7);
      });
    }
  });

  it('says where the bytes of a weight lie', async () => {
    const { folder, tensors } = await tiny();
    const { weights } = await openCheckpoint(folder);
    const name = 'vision_tower.vision_model.embeddings.patch_embedding.weight';
    const at = weights.find(name)!;
    const handle = await open(at.path);
    const { buffer } = await handle.read(Buffer.alloc(at.bytes), 0, at.bytes, at.offset);
    await handle.close();
    expect(buffer.readFloatLE(8)).toBe(tensors.get(name)!.data[2]);
    expect(weights.find('nothing')).toBeUndefined();
    await expect(weights.read('nothing')).rejects.toMatchObject({ code: 'not-found' });
  });

  it('follows symbolic links, as in the hub cache, to real paths', async () => {
    const { folder } = await tiny();
    const blobs = await mkdtemp(join(base, 'blobs-'));
    await rename(join(folder, 'model.safetensors'), join(blobs, 'abc'));
    await symlink(join(blobs, 'abc'), join(folder, 'model.safetensors'));
    const { weights } = await openCheckpoint(folder);
    expect(weights.find('language_model.model.norm.weight')?.path.endsWith(join(blobs, 'abc'))).toBe(true);
  });

  it('needs no layer of the vision tower above the feature layer, and no head when tied', async () => {
    const { folder } = await tiny({ featureLayer: 1, tied: true });
    const names = [...(await openCheckpoint(folder)).backbone.tensors().keys()];
    expect(names.filter((name) => name.includes('encoder.layers.1'))).toEqual([]);
    expect(names.some((name) => name.includes('encoder.layers.0'))).toBe(true);
    expect(names.some((name) => name.includes('lm_head'))).toBe(false);
  });

  it('is tied where the whole config says so, text_config does not, and there is no head', async () => {
    const { folder } = await tiny({ tied: true });
    const path = join(folder, 'config.json');
    const json = JSON.parse(await readFile(path, 'utf8'));
    json.tie_word_embeddings = true;
    json.text_config.tie_word_embeddings = false;
    await writeFile(path, JSON.stringify(json));
    expect((await openCheckpoint(folder)).config.text.tieWordEmbeddings).toBe(true);
  });

  it('joins several feature layers in the projector', async () => {
    const { folder } = await tiny({ featureLayer: [-2, -3], visionHidden: 16 });
    const { weights } = await openCheckpoint(folder);
    expect(weights.find('multi_modal_projector.linear_1.weight')?.shape[1]).toBe(32);
  });

  it('stops at the tokens of the generation config, else at those of the model', async () => {
    const { folder } = await tiny();
    await writeFile(join(folder, 'generation_config.json'), '{"eos_token_id": [2, 5], "temperature": 0.0}');
    expect(stopTokenIds(await openCheckpoint(folder))).toEqual([2, 5]);
    await rm(join(folder, 'generation_config.json'));
    expect(stopTokenIds(await openCheckpoint(folder))).toEqual([2]);
  });
});

describe('refusing', () => {
  const failing = async (folder: string, code: string, message: RegExp) =>
    expect(openCheckpoint(folder)).rejects.toMatchObject({ code, message: expect.stringMatching(message) });

  it('a folder that is none, is a file, or is empty', async () => {
    await failing(join(base, 'nowhere'), 'not-found', /no folder/);
    await writeFile(join(base, 'file'), '');
    await failing(join(base, 'file'), 'not-found', /is a file/);
    await failing(await mkdtemp(join(base, 'empty-')), 'not-found', /config\.json/);
  });

  it('a folder without weights, or with pickled ones', async () => {
    const { folder } = await tiny();
    await rm(join(folder, 'model.safetensors'));
    await failing(folder, 'not-found', /neither model\.safetensors/);
    await writeFile(join(folder, 'pytorch_model.bin'), '');
    await failing(folder, 'unsupported', /pytorch_model\.bin/);
  });

  it('a missing shard, by name', async () => {
    const { folder } = await tiny({ shards: 2 });
    await rm(join(folder, 'model-00002-of-00002.safetensors'));
    await failing(folder, 'not-found', /model-00002-of-00002\.safetensors/);
  });

  it('a tensor the index promises and the shard lacks', async () => {
    const { folder } = await tiny({ shards: 2 });
    await rewriteJson(join(folder, INDEX), (json) => ({
      weight_map: { ...(json.weight_map as object), 'extra.weight': 'model-00001-of-00002.safetensors' },
    }));
    await failing(folder, 'damaged', /"extra\.weight" is in model-00001-of-00002/);
  });

  it.each(['../other/model.safetensors', '/etc/passwd', 'a/../../b', '..\\b', 'C:\\b', ''])(
    'a shard outside the folder: %j',
    async (shard) => {
      const { folder } = await tiny({ shards: 2 });
      await rewriteJson(join(folder, INDEX), () => ({ weight_map: { x: shard } }));
      await failing(folder, 'damaged', /not inside the folder/);
    },
  );

  it('an index without a map', async () => {
    const { folder } = await tiny({ shards: 2 });
    await writeFile(join(folder, INDEX), '{"weight_map": [1]}');
    await failing(folder, 'damaged', /weight_map/);
  });

  /** Rewrites model.safetensors with the same tensors after `change`. */
  async function rewriteWeights(folder: string, change: (tensors: Map<string, WritableTensor>) => void) {
    const { weights } = await openCheckpoint(folder);
    const tensors = new Map<string, WritableTensor>();
    for (const name of weights.names()) {
      const { shape } = weights.find(name)!;
      tensors.set(name, { dtype: 'F32', shape, data: await weights.read(name) });
    }
    change(tensors);
    await writeSafetensors(join(folder, 'model.safetensors'), tensors);
  }

  it('a missing tensor, a wrong shape, a dtype that is no weight, one tensor under two names', async () => {
    const { folder } = await tiny();
    const original = await mkdtemp(join(base, 'copy-'));
    await cp(folder, original, { recursive: true });
    const again = () => cp(original, folder, { recursive: true, force: true });
    const norm = 'language_model.model.norm.weight';

    await rewriteWeights(folder, (tensors) => tensors.delete(norm));
    await failing(folder, 'damaged', /no tensor "language_model\.model\.norm\.weight" of shape \[32\]/);
    await again();
    const short: WritableTensor = { dtype: 'F32', shape: [31], data: new Float32Array(31) };
    await rewriteWeights(folder, (tensors) => tensors.set(norm, short));
    await failing(folder, 'damaged', /norm\.weight".*has shape \[31\].*asks for \[32\]/);
    await again();
    const ids: WritableTensor = { dtype: 'I32', shape: [32], data: new Int32Array(32) };
    await rewriteWeights(folder, (tensors) => tensors.set(norm, ids));
    await failing(folder, 'unsupported', /norm\.weight".*I32.*F32, F16 and BF16/);
    await again();
    await rewriteWeights(folder, (tensors) =>
      tensors.set('model.language_model.norm.weight', tensors.get(norm)!),
    );
    await failing(folder, 'damaged', /holds both/);
  });

  it('a truncated weights file', async () => {
    const { folder } = await tiny();
    const path = join(folder, 'model.safetensors');
    await writeFile(path, (await readFile(path)).subarray(0, -100));
    await failing(folder, 'damaged', /model\.safetensors/);
  });
});

describe('fingerprint', () => {
  const fingerprintOf = async (folder: string) => fingerprint(await openCheckpoint(folder));

  it('is that of the model, wherever the folder lies', async () => {
    const [a, b, c] = [await tiny({ seed: 7 }), await tiny({ seed: 7 }), await tiny({ seed: 8 })];
    const print = await fingerprintOf(a.folder);
    expect(print).toMatch(/^[0-9a-f]{64}$/);
    expect(await fingerprintOf(b.folder)).toBe(print);
    expect(await fingerprintOf(c.folder)).not.toBe(print);
  });

  it('changes with one byte of the last weight, and with every file that tells how to read texts and pictures', async () => {
    const { folder } = await tiny();
    const before = await fingerprintOf(folder);
    const path = join(folder, 'model.safetensors');
    const bytes = await readFile(path);
    bytes[bytes.length - 1]! ^= 1;
    await writeFile(path, bytes);
    const after = await fingerprintOf(folder);
    expect(after).not.toBe(before);
    const seen = new Set([before, after]);
    const files = ['tokenizer', 'tokenizer_config', 'preprocessor_config', 'generation_config'];
    for (const [index, name] of files.entries()) {
      await rewriteJson(join(folder, `${name}.json`), (json) => ({ ...json, version: '2.0' }));
      expect(seen.add(await fingerprintOf(folder)).size).toBe(3 + index);
    }
  });
});

it('knows the names newer versions of transformers give', () => {
  const canonicalName = (name: string) => nameIn(llava.names, name);
  expect(canonicalName('model.language_model.layers.3.mlp.up_proj.weight')).toBe(
    'language_model.model.layers.3.mlp.up_proj.weight',
  );
  expect(canonicalName('lm_head.weight')).toBe('language_model.lm_head.weight');
  expect(canonicalName('model.multi_modal_projector.linear_2.bias')).toBe(
    'multi_modal_projector.linear_2.bias',
  );
  expect(canonicalName('model.vision_tower.pre_layrnorm.bias')).toBe(
    'vision_tower.vision_model.pre_layrnorm.bias',
  );
  expect(canonicalName('vision_tower.vision_model.post_layernorm.bias')).toBe(
    'vision_tower.vision_model.post_layernorm.bias',
  );
});

describe('a checkpoint that another program wrote', () => {
  it('opens, whole and in shards of subfolders', async () => {
    const source = fixture('checkpoints/llava_tiny');
    const checkpoint = await openCheckpoint(source);
    expect(checkpoint.weights.names().length).toBe(116);
    const embeddings = await checkpoint.weights.read('language_model.model.embed_tokens.weight');
    expect(embeddings.length).toBe(448 * 64);

    const folder = await mkdtemp(join(base, 'sub-'));
    await cp(join(source, 'config.json'), join(folder, 'config.json'));
    await mkdir(join(folder, 'parts'));
    await symlink(join(source, 'model.safetensors'), join(folder, 'parts/1.safetensors'));
    const { tensors } = await openSafetensors(join(source, 'model.safetensors'));
    const weight_map = Object.fromEntries([...tensors.keys()].map((name) => [name, 'parts/1.safetensors']));
    await writeFile(join(folder, INDEX), JSON.stringify({ weight_map }));
    expect((await openCheckpoint(folder)).weights.names().length).toBe(116);
  });
});
