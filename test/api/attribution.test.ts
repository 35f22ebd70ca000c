/** @file Attribution over the contract: of one input in the engine that answers, over a set in a process of its own, listed, stopped and kept. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Application, createApplication } from '../../electron/api/application.ts';
import { Attributions } from '../../electron/api/attributions.ts';
import { Events } from '../../electron/api/events.ts';
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
}, 120_000);

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
}, 120_000);

test('what was found over a set is kept, is there when the application is started again, and can be removed', async () => {
  const heard: string[] = [];
  const quiet = application.on('attribution.changed', ({ run }) => heard.push(run));
  await call('attribution.modules', { of: { picture, prompt: 'What is the animal?' } });
  expect(heard).toEqual([]);
  const found = await call('attribution.modules', { of: all, token: 'cat' }, { job: 'mean' });
  quiet();
  const runs = await call('attribution.runs', {});
  expect(heard).toEqual([runs[0]!.id]);
  expect(runs[0]).toMatchObject({
    ...{ kind: 'modules', job: 'mean', set: 'the library’s edits', count: 2, detail: 'key token “cat”' },
    ...{ model: { name: 'model', fingerprint: expect.any(String) }, seconds: found.seconds },
  });
  expect(runs.map(({ kind }) => kind)).toContain('gate');
  expect((await call('jobs.list', {})).find(({ id }) => id === 'mean')!.outcome).toContain('kept');
  await application.close();
  application = createApplication({
    ...{ libraryPath: at('attribution.emend'), resources: folder, version: '0', startModel: 'none', engine },
  });
  expect(await call('attribution.runs', {})).toEqual(runs);
  const { id } = runs[0]!;
  expect(await call('attribution.read', { run: id })).toEqual({
    ...{ run: runs[0], found: { kind: 'modules', report: found } },
  });
  await call('attribution.remove', { run: id });
  expect(await call('attribution.runs', {})).toEqual(runs.slice(1));
  await expect(call('attribution.read', { run: id })).rejects.toMatchObject({ code: 'not-found' });
}, 120_000);

test('the last twenty are kept; one that cannot be is returned all the same, and its job says why', async () => {
  const [first] = await call('attribution.runs', {});
  const { found } = await call('attribution.read', { run: first!.id });
  const attributions = new Attributions(at('kept'), new Events());
  const { id: _, kind: __, created: ___, ...about } = first!;
  for (let count = 0; count < 22; count++) await attributions.keep({ ...about, count }, found);
  const kept = await attributions.list();
  expect(kept).toHaveLength(20);
  const counts = kept.map(({ count }) => count);
  expect(counts).toContain(21);
  expect(counts).not.toContain(0);
  writeFileSync(join(at('kept'), kept[0]!.id, 'attribution.json'), '{}');
  expect(await attributions.list()).toHaveLength(19);

  rmSync(at('attributions'), { recursive: true });
  writeFileSync(at('attributions'), 'no folder');
  await call('models.open', { path: at('model') });
  expect((await call('attribution.modality', { of: all, noise: null }, { job: 'lost' })).count).toBe(2);
  const { state, outcome } = (await call('jobs.list', {})).find(({ id }) => id === 'lost')!;
  expect({ state, outcome }).toMatchObject({
    ...{ state: 'done', outcome: expect.stringMatching(/cannot be kept/) },
  });
}, 120_000);
