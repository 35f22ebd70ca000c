/** @file What bounds a prompt and an answer: positions, as scaling stretches them, tokens, and where answers end. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { generate } from '../../electron/models/generation.ts';
import { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { type TinyCheckpointOptions, writeTinyCheckpoint } from '../support/checkpointFixtures.ts';

const opened: Array<() => Promise<unknown>> = [];
afterEach(async () => {
  for (const close of opened.splice(0)) await close();
});

async function tiny(options: TinyCheckpointOptions = {}, change?: (folder: string) => Promise<void>) {
  const folder = await mkdtemp(join(tmpdir(), 'emend-limits-'));
  opened.push(() => rm(folder, { recursive: true, force: true }));
  await writeTinyCheckpoint(folder, options);
  await change?.(folder);
  const model = await VisionLanguageModel.open(folder, { providers: ['cpu'] });
  opened.unshift(() => model.dispose());
  return model;
}

/** Rows of a prompt of text alone. */
const asked = (model: VisionLanguageModel, ids: number[]) =>
  model.lay({ ids, pictures: [], lastPromptToken: ids.length - 1 }, null);

test('a prompt fits to the last position, which scaling moves, and an answer may fill the rest and one token more', async () => {
  const plain = await tiny({ textConfig: { max_position_embeddings: 12 } });
  await expect(asked(plain, new Array(13).fill(5))).rejects.toMatchObject({ code: 'invalid-input' });
  const prefill = await plain.prefill(await asked(plain, new Array(10).fill(5)));
  const { tokens, ended } = await generate(plain, prefill, { maxNewTokens: 50 });
  expect(ended === 'stop-token' || tokens.length === 3).toBe(true);

  const scaling = { rope_scaling: { type: 'dynamic', factor: 2 } };
  const stretched = await tiny({ textConfig: { max_position_embeddings: 12, ...scaling } });
  await expect(asked(stretched, new Array(24).fill(5))).resolves.toMatchObject({ rows: 24 });
  await expect(asked(stretched, new Array(25).fill(5))).rejects.toMatchObject({ code: 'invalid-input' });
});

test('tokens the model has no row for are refused by name', async () => {
  const model = await tiny();
  const beyond = model.checkpoint.config.text.vocab;
  await expect(asked(model, [1, beyond])).rejects.toMatchObject({
    code: 'damaged',
    message: expect.stringContaining(String(beyond)),
  });
});

test('answers end at the generation config’s tokens alone, where it names any', async () => {
  const model = await tiny({}, (folder) =>
    writeFile(join(folder, 'generation_config.json'), '{"eos_token_id": [5, 7]}'),
  );
  expect([...model.stopIds]).toEqual([5, 7]);
  const silent = await tiny({}, async (folder) => {
    await rm(join(folder, 'generation_config.json'));
    const path = join(folder, 'config.json');
    const json = JSON.parse(await readFile(path, 'utf8'));
    json.text_config.eos_token_id = null;
    await writeFile(path, JSON.stringify(json));
  });
  expect([...silent.stopIds]).toEqual([2]);
});

test('opening a model can be stopped, and leaves nothing open', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'emend-limits-'));
  opened.push(() => rm(folder, { recursive: true, force: true }));
  await writeTinyCheckpoint(folder);
  const stop = new AbortController();
  const opening = VisionLanguageModel.open(folder, { providers: ['cpu'], signal: stop.signal });
  stop.abort();
  await expect(opening).rejects.toMatchObject({ code: 'cancelled' });
});
