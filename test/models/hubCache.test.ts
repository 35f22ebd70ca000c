/** @file Models of a Hugging Face cache: found, told what they are, opened through their links; and caches that mean no good. */
import { cp, mkdir, mkdtemp, readdir, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { typedPath } from '../../electron/api/typedPath.ts';
import { operations, release } from '../../electron/engine/operations.ts';
import { findModels, hubCaches, nameOfModel } from '../../electron/models/hubCache.ts';
import { fixture } from '../support/fixtures.ts';

const COMMIT = '0123456789abcdef0123456789abcdef01234567';
let base: string;
let cache: string;
beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), 'emend-cache-'));
  cache = join(base, 'hub');
});
afterAll(async () => {
  await release();
  await rm(base, { recursive: true, force: true });
});

/** Lays a checkpoint into a cache as the hub's programs do: blobs, and a snapshot of links to them. */
async function lay(name: string, checkpoint: string, commit = COMMIT): Promise<string> {
  const repository = join(cache, name);
  const snapshot = join(repository, 'snapshots', commit);
  await mkdir(join(repository, 'refs'), { recursive: true });
  await mkdir(snapshot, { recursive: true });
  await cp(fixture(`checkpoints/${checkpoint}`), join(repository, 'blobs'), { recursive: true });
  for (const [index, file] of (await readdir(join(repository, 'blobs'))).entries()) {
    const blob = `${index}`.repeat(40).slice(0, 40);
    await rename(join(repository, 'blobs', file), join(repository, 'blobs', blob));
    await symlink(join('..', '..', 'blobs', blob), join(snapshot, file));
  }
  await writeFile(join(repository, 'refs', 'main'), commit);
  return snapshot;
}

async function bare(name: string, files: Readonly<Record<string, string>>): Promise<string> {
  const snapshot = join(cache, name, 'snapshots', COMMIT);
  await mkdir(snapshot, { recursive: true });
  for (const [file, text] of Object.entries(files)) await writeFile(join(snapshot, file), text);
  return snapshot;
}

const only = async (name: string) => (await findModels([cache])).models.find((model) => model.name === name);

test('a model is found by its name on the hub, and opens and answers through its links', async () => {
  const path = await lay('models--tiny-lab--qwen2.5-vl--tiny', 'qwen2_5_vl_tiny');
  const found = await findModels([cache, join(base, 'nowhere')]);
  expect(found).toMatchObject({
    more: 0,
    models: [{ path, name: 'tiny-lab/qwen2.5-vl--tiny', state: 'opens' }],
  });
  expect(found.models[0]).toMatchObject({ family: 'Qwen2.5-VL', dtype: 'F32', reason: '' });
  expect(found.models[0]!.bytes).toBeGreaterThan(100_000);

  const context = { signal: new AbortController().signal, send: () => {} };
  const opening = { path, adapter: null, providers: ['cpu' as const], template: 'chat' as const };
  expect((await operations.open(opening, context)).summary.name).toBe('tiny-lab/qwen2.5-vl--tiny');
  const asked = {
    picture: null,
    prompt: 'What is it?',
    edits: 'none' as const,
    maxNewTokens: 3,
    sampling: null,
  };
  const through = await operations.ask(asked, context);
  await operations.open({ ...opening, path: fixture('checkpoints/qwen2_5_vl_tiny') }, context);
  expect((await operations.ask(asked, context)).tokens).toEqual(through.tokens);
});

test('of several snapshots the one of the main branch is taken', async () => {
  await lay('models--a--two', 'llava_tiny');
  const other = 'f'.repeat(40);
  await mkdir(join(cache, 'models--a--two', 'snapshots', other), { recursive: true });
  expect((await only('a/two'))?.path).toContain(COMMIT);
  await writeFile(join(cache, 'models--a--two', 'refs', 'main'), other);
  expect(await only('a/two')).toMatchObject({ state: 'incomplete', path: expect.stringContaining(other) });
});

test('what Emend cannot do with a model is told with the reason', async () => {
  const config = { 'config.json': '{"model_type":"whisper"}', 'tokenizer.json': '{}' };
  await bare('models--a--ears', config);
  expect(await only('a/ears')).toMatchObject({
    state: 'unsupported',
    reason: expect.stringContaining('whisper'),
  });
  await bare('models--a--llama-gguf', { 'llama.Q4_K_M.gguf': 'GGUF' });
  expect(await only('a/llama-gguf')).toMatchObject({
    state: 'gguf',
    reason: expect.stringContaining('llama.cpp'),
  });
  await bare('models--a--half', { 'config.json': '{}' });
  expect(await only('a/half')).toMatchObject({ state: 'incomplete', reason: 'It lacks tokenizer.json.' });
  const shard = await lay('models--a--partly', 'smolvlm_tiny');
  await rm(join(shard, 'model.safetensors'));
  expect(await only('a/partly')).toMatchObject({ state: 'incomplete' });
  await symlink('../../blobs/never', join(shard, 'model.safetensors'));
  expect(await only('a/partly')).toMatchObject({
    reason: expect.stringContaining('model.safetensors leads to a file'),
  });
  await mkdir(join(cache, 'models--a--nothing', 'snapshots'), { recursive: true });
  await mkdir(join(cache, 'datasets--a--b', 'snapshots', COMMIT), { recursive: true });
  const names = (await findModels([cache])).models.map(({ name }) => name);
  expect(names).not.toContain('a/nothing');
  expect(names).not.toContain('a/b');
});

describe('a cache that means no good', () => {
  test('leads out of itself, and is not followed', async () => {
    await writeFile(join(base, 'secret'), 'a secret');
    const files = await lay('models--evil--file', 'llava_tiny');
    await rm(join(files, 'config.json'));
    await symlink(join(base, 'secret'), join(files, 'config.json'));
    expect(await only('evil/file')).toMatchObject({
      state: 'damaged',
      reason: expect.stringContaining('leads out'),
    });
    await mkdir(join(cache, 'models--evil--snapshots'));
    await symlink(base, join(cache, 'models--evil--snapshots', 'snapshots'));
    await mkdir(join(cache, 'models--evil--snapshot', 'snapshots'), { recursive: true });
    await symlink(base, join(cache, 'models--evil--snapshot', 'snapshots', COMMIT));
    await symlink('loop', join(cache, 'models--evil--loop'));
    const names = (await findModels([cache])).models.map(({ name }) => name);
    expect(names).not.toContain('evil/snapshots');
    expect(names).not.toContain('evil/snapshot');
    const ref = await lay('models--evil--ref', 'llava_tiny');
    await rm(join(cache, 'models--evil--ref', 'refs', 'main'));
    await symlink('/dev/zero', join(cache, 'models--evil--ref', 'refs', 'main'));
    expect(await only('evil/ref')).toMatchObject({ state: 'opens', path: ref });
  });

  test('is huge, and looked at in part', async () => {
    const huge = join(base, 'huge');
    for (let i = 0; i < 310; i++) await mkdir(join(huge, `models--a--${i}`), { recursive: true });
    expect((await findModels([huge])).more).toBe(10);
    const many = await bare('models--a--many', {});
    for (let i = 0; i < 2001; i++) await writeFile(join(many, `${i}`), '');
    expect(await only('a/many')).toMatchObject({
      state: 'damaged',
      reason: expect.stringContaining('2000 files'),
    });
    const wide = await bare('models--a--config', { 'tokenizer.json': '{}' });
    await writeFile(join(wide, 'config.json'), Buffer.alloc(20 * 1024 * 1024, 32));
    expect(await only('a/config')).toMatchObject({ state: 'damaged' });
  });
});

test('the cache is where its variables say', () => {
  const home = '/home/me';
  const usual = join(home, '.cache', 'huggingface', 'hub');
  expect(hubCaches({}, home)).toEqual([usual]);
  expect(hubCaches({ XDG_CACHE_HOME: '/c' }, home)).toEqual([join('/c', 'huggingface', 'hub')]);
  expect(hubCaches({ HF_HOME: '/hf' }, home)).toEqual([join('/hf', 'hub')]);
  expect(hubCaches({ HF_HOME: '/hf', HF_HUB_CACHE: '~/models' }, home)).toEqual([
    '/home/me/models',
    join('/hf', 'hub'),
  ]);
  expect(nameOfModel(join('/x', 'llava-1.5-7b-hf'))).toBe('llava-1.5-7b-hf');
});

test('a path is understood as people paste it', () => {
  const home = '/home/me';
  expect(typedPath('  "/a folder/b" ', home)).toBe('/a folder/b');
  expect(typedPath("'/a/b'", home)).toBe('/a/b');
  expect(typedPath('~/models/x', home)).toBe('/home/me/models/x');
  expect(typedPath("'~/models/x'", home)).toBe('/home/me/models/x');
  expect(typedPath('~', home)).toBe(home);
  expect(typedPath('~user/x', home)).toBe('~user/x');
  expect(typedPath('file:///a%20b/c', home)).toBe('/a b/c');
  expect(typedPath('"half', home)).toBe('"half');
});
