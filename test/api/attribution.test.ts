/** @file Attribution over the contract: of one input in the engine that answers, over a set in a process of its own, listed and stopped. */
import { mkdtempSync, rmSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Application, createApplication } from '../../electron/api/application.ts';
import { forkEngine } from '../../electron/engine/forkEngine.ts';
import type { OperationName } from '../../electron/engine/protocol.ts';
import { type Engine, type EngineProcess, startEngine } from '../../electron/engine/supervisor.ts';
import { writeTinyCheckpoint } from '../support/checkpointFixtures.ts';

const folder = mkdtempSync(join(tmpdir(), 'emend-attribution-'));
const at = (name: string) => join(folder, name);
/** operations that were asked of the engine that answers, and of processes beside it */
const asked: Record<'shared' | 'own', OperationName[]> = { shared: [], own: [] };
const engine: Engine = startEngine({ launch: () => listening('shared') });
/** what is sent to processes beside it while they are held; null: they are not */
let held: Array<() => void> | null = null;
let application: Application;
let picture: string;
const call: Application['call'] = (name, input, options) => application.call(name, input, options);
const all = { select: { filter: {} } };

function listening(name: 'shared' | 'own'): EngineProcess {
  const forked = forkEngine();
  return {
    ...forked,
    send: (message) => {
      if (message.kind === 'call') asked[name].push(message.name);
      if (name === 'own' && held) held.push(() => forked.send(message));
      else forked.send(message);
    },
  };
}

function letGo(): void {
  const waiting = held ?? [];
  held = null;
  for (const send of waiting) send();
}

beforeAll(async () => {
  await writeTinyCheckpoint(at('model'));
  const png = await sharp({ create: { width: 28, height: 28, channels: 3, background: '#5a8040' } })
    .png()
    .toFile(at('a.png'))
    .then(() => sharp(at('a.png')).toBuffer());
  const record = {
    ...{ src: 'What is the animal?', rephrase: 'Which animal?', pred: '', alt: 'the cat' },
    ...{ image: 'a.png', image_rephrase: 'a.png', loc: 'Is there a tree?', loc_ans: 'yes' },
    ...{ m_loc: 'a.png', m_loc_q: 'What is the fruit?', m_loc_a: 'a small apple' },
  };
  await writeFile(at('set.json'), JSON.stringify([record, { ...record, alt: 'the train' }]));
  application = createApplication({
    ...{ libraryPath: at('attribution.emend'), resources: folder, version: '0', startModel: 'none' },
    ...{ engine, startLongEngine: () => startEngine({ launch: () => listening('own') }) },
  });
  await call('settings.set', { maxNewTokens: 2, providers: ['cpu'] });
  await call('models.open', { path: at('model') });
  picture = (await call('pictures.add', { base64: png.toString('base64') })).id;
  for (const target of ['the cat', 'a red apple'])
    await call('edits.create', { picture, prompt: 'What is the animal?', target, probes: [] });
}, 120_000);
afterAll(async () => {
  await application?.close();
  await engine.stop();
  rmSync(folder, { recursive: true, force: true });
});

test('over a set asking goes on meanwhile; it is a job that waits for nobody who asks, and is stopped', async () => {
  const calls = {
    'attribution.modules': (job: string) => call('attribution.modules', { of: all }, { job }),
    'attribution.modality': (job: string) => call('attribution.modality', { of: all, noise: null }, { job }),
    'attribution.propose': (job: string) => call('attribution.propose', { of: all }, { job }),
  };
  for (const [name, attribute] of Object.entries(calls)) {
    held = [];
    const running = attribute(name);
    const stopped = expect(running, name).rejects.toMatchObject({ code: 'cancelled' });
    const question = { picture, prompt: 'What is it?', edits: 'none' as const };
    expect((await call('answers.ask', question)).text).toEqual(expect.any(String));
    const job = (await call('jobs.list', {})).find(({ id }) => id === name);
    expect(job).toMatchObject({ kind: name, state: 'running', ended: null });
    await call('jobs.cancel', { job: name });
    letGo();
    await stopped;
  }
  expect(asked.shared.filter((name) => /^(attribute|propose)/.test(name))).toEqual([]);
}, 60_000);

test('it finds what the open model does of the same inputs one by one', async () => {
  const one = { picture, prompt: 'What is the animal?' };
  const alone = await call('attribution.modules', { of: one });
  expect(asked.shared.at(-1)).toBe('attributeModules');
  const stages: string[] = [];
  const quiet = application.on('job.progress', ({ stage, done, total }) => {
    stages.push(`${stage} ${done}/${total}`);
  });
  const over = await call('attribution.modules', { of: all });
  quiet();
  expect(asked.own.at(-1)).toBe('attributeModules');
  expect(over.count).toBe(2);
  for (const [layer, value] of alone.contribution.attention.entries())
    expect(over.contribution.attention[layer]).toBeCloseTo(value, 5);
  expect(stages).toEqual(expect.arrayContaining(['Attributing 1/2', 'Attributing 2/2']));
  const modality = await call('attribution.modality', { of: { file: at('set.json') }, noise: null });
  expect(modality.count).toBe(2);
  const { attention } = await call('attribution.modality', { of: one, noise: null });
  expect(modality.attention.text[1]).toBeCloseTo(attention.text[1]!, 5);
}, 60_000);

test('what a gate compares of a data set is measured there too, with the command that repeats it', async () => {
  await expect(call('attribution.gate', { data: at('set.json'), layers: [0, 9] })).rejects.toMatchObject({
    code: 'invalid-input',
    message: expect.stringContaining('Layer 9'),
  });
  await expect(call('attribution.gate', { data: at('none.json') })).rejects.toMatchObject({
    code: 'not-found',
  });
  const { report } = await call('attribution.gate', { data: at('set.json'), layers: [1] });
  expect(asked.own.at(-1)).toBe('measureGate');
  expect(report.findings.map(({ layer }) => layer)).toEqual([1, 1, 1, 1, 1]);
  expect(report.findings[0]!.kinds['text-generality']!.count).toBe(2);
  expect(report.command).toBe(
    `npx emend attribute gate --model ${at('model')} --data ${at('set.json')} --layers 1 --limit 100`,
  );
}, 60_000);
