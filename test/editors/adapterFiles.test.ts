/** @file An adapter's two files belong together. */
import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { layersTold } from '../../electron/editors/adapterFiles.ts';
import { readAdapter, writeAdapter } from '../../electron/editors/visedit/visEdit.ts';
import { randomWeights } from '../evaluation/tinyAdapter.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'emend-adapter-'));
});
afterAll(() => rm(folder, { recursive: true }));

const description = {
  editor: 'VisEdit' as const,
  name: 'tiny',
  layer: 1,
  heads: 2,
  influenceMapper: false,
  attention: 'published' as const,
  model: 'm',
  router: { layer: 1, threshold: 0.5 },
};

test('weights of another writing are refused; an adapter that does not say is taken as it is', async () => {
  await writeAdapter(folder, description, randomWeights(), 'F32');
  const whole = await readAdapter(folder);
  expect(whole.description).toMatchObject(description);
  await copyFile(join(folder, 'adapter.json'), join(folder, 'first.json'));

  // As if the writer had been killed between the two.
  await writeAdapter(folder, { ...description, name: 'second' }, randomWeights(), 'F16');
  await copyFile(join(folder, 'first.json'), join(folder, 'adapter.json'));
  await expect(readAdapter(folder)).rejects.toMatchObject({
    code: 'damaged',
    message: expect.stringMatching(/adapter\.safetensors is not the file that adapter\.json/),
  });

  const { weightsSha256, ...older } = JSON.parse(await readFile(join(folder, 'first.json'), 'utf8'));
  expect(weightsSha256).toMatch(/^[0-9a-f]{64}$/);
  await writeFile(join(folder, 'adapter.json'), JSON.stringify(older));
  expect((await readAdapter(folder)).shape).toEqual(whole.shape);
});

test.each([
  [{ layer: 5, router: { layer: 1 } }, 'layer 5'],
  [{ textLayer: 2, visualLayer: 0, heads: 8 }, 'text layer 2, visual layer 0'],
  [{ layers: [5, 6, 7] }, 'layers 5, 6, 7'],
  [{ layer: -1 }, 'the last layer'],
  [{ layer: null, layers: 'somewhere', player: 3 }, ''],
])('an adapter says where it acts: %o', (described, told) => {
  expect(layersTold(described)).toBe(told);
});
