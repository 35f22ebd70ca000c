/** @file A library's daily work with a model of every family, over the contract, with a real engine: preview, check, commit, ask, look into it. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Application, createApplication } from '../../electron/api/application.ts';
import { forkEngine } from '../../electron/engine/forkEngine.ts';
import { type Engine, startEngine } from '../../electron/engine/supervisor.ts';
import { fixture } from '../support/fixtures.ts';
import { MAPPED_LAYER, writeMappedAdapter } from '../support/mappedAdapter.ts';

const families: ReadonlyArray<readonly [checkpoint: string, family: string, map: object]> = [
  ['llava_tiny', 'LLaVA', { rows: 4, columns: 4 }],
  ['qwen2_5_vl_tiny', 'Qwen2.5-VL', { rows: 5, columns: 6 }],
  ['qwen3_vl_tiny', 'Qwen3-VL', { rows: 5, columns: 6 }],
  ['smolvlm_tiny', 'Idefics3 / SmolVLM', { rows: 4, columns: 4 }],
  ['blip2_tiny', 'BLIP-2', { rows: 1, columns: 8, placed: false }],
  ['minigpt4_tiny', 'MiniGPT-4', { rows: 1, columns: 8, placed: false }],
];
const folder = mkdtempSync(join(tmpdir(), 'emend-every-'));
let engine: Engine;
let application: Application;
let picture: string;
const call: Application['call'] = (name, input) => application.call(name, input);

beforeAll(async () => {
  engine = startEngine({ launch: () => forkEngine() });
  application = createApplication({
    ...{ libraryPath: join(folder, 'every.emend'), resources: folder, version: '0', startModel: 'none' },
    engine,
  });
  await call('settings.set', { maxNewTokens: 3 });
  const base64 = readFileSync(fixture('images/a.png')).toString('base64');
  picture = (await call('pictures.add', { base64 })).id;
});
afterAll(async () => {
  await application?.close();
  await engine?.stop();
  rmSync(folder, { recursive: true, force: true });
});

test.each(families)('%s', async (checkpoint, family, map) => {
  const path = fixture(`checkpoints/${checkpoint}`);
  const adapter = join(folder, checkpoint);
  await writeMappedAdapter(adapter, path);
  const summary = await call('models.open', { path, adapter });
  expect(summary).toMatchObject({
    architecture: family,
    adapter: { where: `layer ${MAPPED_LAYER}`, map: true },
  });

  const prompt = 'What is the animal?';
  const { id } = await call('edits.create', { picture, prompt, target: 'the cat' });
  const shown = await call('edits.preview', { id });
  expect(shown.influence).toMatchObject({ ...map, layer: MAPPED_LAYER });
  const check = await call('checks.run', { edit: id });
  const own = check.results.find(({ probe }) => probe.kind === 'reliability')!;
  expect([own.before, own.after]).toEqual([shown.before.text, shown.after.text]);
  expect(own.acting.after).toBe(id);
  expect((await call('edits.show', { id })).answers).toMatchObject({ before: { text: shown.before.text } });

  await call('edits.commit', { id, reason: 'to see it act' });
  const acted = await call('answers.ask', { picture, prompt, edits: 'committed' });
  expect(acted).toMatchObject({ text: shown.after.text, routing: { edit: id } });
  const plain = await call('answers.ask', { picture, prompt, edits: 'none' });
  expect(plain.text).toBe(shown.before.text);
  // A random mapper may let nothing through: then the edit acts, and changes nothing.
  const influences = Math.max(...shown.influence!.values) > 1e-6;
  expect(plain.tokens[0]!.probability !== acted.tokens[0]!.probability).toBe(influences);
  // both sides of a comparison, which share what lies below the edit
  const turns = [{ role: 'user' as const, text: prompt, pictures: [picture] }];
  const original = await call('answers.chat', { turns, edits: 'none', share: true });
  const corrected = await call('answers.chat', { turns, edits: 'committed', share: true });
  expect([original.text, corrected.text]).toEqual([plain.text, acted.text]);
  expect(corrected.tokens[0]!.probability).toBe(acted.tokens[0]!.probability);
  expect(corrected.routing).toMatchObject({ edit: id });

  const health = await call('checks.health', { select: { edits: [id] } });
  expect(health.results.map(({ edit }) => edit)).toEqual([id]);

  const visual = await call('attribution.visual', { of: { edit: id }, layers: [2], draws: 1 });
  expect(visual).toMatchObject({ ...map, layers: [{ layer: 2 }] });
  // what attribution let go is there again
  expect(await call('answers.ask', { picture, prompt, edits: 'committed' })).toMatchObject({
    text: acted.text,
    routing: { edit: id },
  });
});
