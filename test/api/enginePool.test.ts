/** @file What takes long over the contract: each in a process of its own beside the engine that answers, two at a time, and each dies alone. */
import { mkdtempSync, rmSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { type Application, createApplication } from '../../electron/api/application.ts';
import type { CallInput } from '../../electron/api/contract.ts';
import { forkEngine } from '../../electron/engine/forkEngine.ts';
import type { OperationName } from '../../electron/engine/protocol.ts';
import { type Engine, type EngineProcess, startEngine } from '../../electron/engine/supervisor.ts';
import { writeTinyCheckpoint } from '../support/checkpointFixtures.ts';

const folder = mkdtempSync(join(tmpdir(), 'emend-engine-pool-'));
const at = (name: string) => join(folder, name);
let engine: Engine;
let application: Application;
const call: Application['call'] = (name, input, options) => application.call(name, input, options);
const poll = <T>(value: () => T | Promise<T>) => expect.poll(value, { timeout: 60_000 });

/** A process that was started for a call. */
interface Started {
  /** what was asked of it last, as long as that is not answered */
  operation: OperationName | null;
  ended: boolean;
  kill(): void;
  /** lets through what was held */
  release(): void;
}
const started: Started[] = [];
/** calls that do not reach their process before it is released */
const held = new Set<OperationName>();

function launch(): EngineProcess {
  const forked = forkEngine();
  let waiting: Array<() => void> | null = null;
  const one: Started = {
    operation: null,
    ended: false,
    kill: () => forked.kill(),
    release: () => {
      for (const send of waiting ?? []) send();
      waiting = null;
    },
  };
  started.push(one);
  forked.onExit(() => {
    one.ended = true;
  });
  return {
    ...forked,
    onMessage: (listener) =>
      forked.onMessage((message) => {
        if (message.kind === 'result' || message.kind === 'error') one.operation = null;
        listener(message);
      }),
    send: (message) => {
      if (message.kind === 'call') {
        one.operation = message.name;
        if (held.has(message.name)) waiting = [];
      }
      if (waiting && message.kind !== 'stop') waiting.push(() => forked.send(message));
      else forked.send(message);
    },
  };
}
const processOf = (operation: OperationName) =>
  started.findLast((one) => one.operation === operation && !one.ended);
const jobOf = async (id: string) => (await call('jobs.list', {})).find((job) => job.id === id);

const training: CallInput<'training.start'> = {
  ...{ editor: 'VisEdit', name: 'tiny', data: at('set.json'), steps: 2, batch: 2, rate: 1e-3 },
  ...{ settings: { layer: 1, middle: 16, heads: 2 }, extended: false, seed: 3, validation: null },
};
const gate = (job: string) => call('attribution.gate', { data: at('set.json'), layers: [1] }, { job });
const modules = (job: string) => call('attribution.modules', { of: { file: at('set.json') } }, { job });
const train = (job: string) => call('training.start', { ...training, name: job }, { job });

beforeAll(async () => {
  await writeTinyCheckpoint(at('model'));
  await sharp({ create: { width: 28, height: 28, channels: 3, background: '#5a8040' } })
    .png()
    .toFile(at('a.png'));
  const record = {
    ...{ src: 'What is the animal?', rephrase: 'Which animal?', pred: '', alt: 'the cat' },
    ...{ image: 'a.png', image_rephrase: 'a.png', loc: 'Is there a tree?', loc_ans: 'yes' },
    ...{ m_loc: 'a.png', m_loc_q: 'What is the fruit?', m_loc_a: 'a small apple' },
  };
  await writeFile(at('set.json'), JSON.stringify([record, { ...record, alt: 'the train' }]));
  engine = startEngine({ launch: () => forkEngine() });
  application = createApplication({
    ...{ libraryPath: at('pool.emend'), resources: folder, version: '0', startModel: 'none' },
    ...{ engine, startLongEngine: () => startEngine({ launch, patience: { pause: 20 } }) },
  });
  await call('settings.set', { maxNewTokens: 2, providers: ['cpu'] });
  await call('models.open', { path: at('model') });
}, 120_000);
afterEach(async () => {
  held.clear();
  for (const one of started) one.release();
  await poll(() => started.every(({ operation, ended }) => operation === null || ended)).toBe(true);
}, 60_000);
afterAll(async () => {
  await application?.close();
  await engine?.stop();
  rmSync(folder, { recursive: true, force: true });
});

test('a gate and an attribution over a set end while an adapter is trained, and so does an answer', async () => {
  held.add('train');
  const trained = train('adapter');
  await poll(() => processOf('train')).toBeDefined();
  expect((await gate('a gate')).report.findings).toHaveLength(5);
  expect((await modules('a mean')).count).toBe(2);
  expect((await call('answers.ask', { picture: null, prompt: 'What is it?', edits: 'none' })).text).toEqual(
    expect.any(String),
  );
  expect(await jobOf('adapter')).toMatchObject({ state: 'running', ended: null });
  // The gate's process was kept for the next; it ends where none comes.
  expect(started).toHaveLength(2);
  await poll(() => started.filter(({ ended }) => !ended).map(({ operation }) => operation)).toEqual([
    'train',
  ]);
  processOf('train')!.release();
  expect(await trained).toMatchObject({ state: 'done', step: 2 });
}, 120_000);

test('beyond two at a time one waits, says for which, is stopped or begins when there is room', async () => {
  for (const name of ['train', 'measureGate'] as const) held.add(name);
  const trained = train('adapter');
  await poll(() => processOf('train')).toBeDefined();
  const second = gate('a gate');
  await poll(() => processOf('measureGate')).toBeDefined();
  const [third, fourth] = [modules('a mean'), modules('another')];
  const stopped = expect(fourth).rejects.toMatchObject({ code: 'cancelled' });
  const waits = { state: 'waiting', waitsFor: 'the training of “adapter” or the gate on set.json' };
  await poll(() => Promise.all([jobOf('a mean'), jobOf('another')])).toMatchObject([waits, waits]);
  expect(started.filter(({ ended }) => !ended)).toHaveLength(2);
  await call('jobs.cancel', { job: 'another' });
  await stopped;
  // Another training waits for the one that runs alone: for a gate there is room beside it.
  const next = train('next');
  await poll(() => jobOf('next')).toMatchObject({ state: 'waiting', waitsFor: 'the training of “adapter”' });
  processOf('measureGate')!.release();
  await second;
  expect((await third).count).toBe(2);
  expect(await jobOf('next')).toMatchObject({ state: 'waiting', waitsFor: 'the training of “adapter”' });
  const ends = [trained, next].map((one) => expect(one).rejects.toMatchObject({ code: 'cancelled' }));
  for (const job of ['next', 'adapter']) await call('jobs.cancel', { job });
  processOf('train')!.release();
  await Promise.all(ends);
}, 120_000);

test('a process that is killed fails its own job alone, with what to do', async () => {
  for (const name of ['train', 'measureGate'] as const) held.add(name);
  const trained = train('adapter');
  await poll(() => processOf('train')).toBeDefined();
  const lost = expect(gate('a gate')).rejects.toMatchObject({
    ...{ code: 'engine', message: expect.stringMatching(/memory ran out.*open the model in 8 or 4 bits/) },
  });
  await poll(() => processOf('measureGate')).toBeDefined();
  processOf('measureGate')!.kill();
  await lost;
  expect(await jobOf('adapter')).toMatchObject({ state: 'running' });
  const again = gate('again');
  await poll(() => processOf('measureGate')).toBeDefined();
  const ended = expect(trained).rejects.toMatchObject({
    message: expect.stringContaining('it can go on from there'),
  });
  processOf('train')!.kill();
  await ended;
  expect(await jobOf('again')).toMatchObject({ state: 'running' });
  processOf('measureGate')!.release();
  expect((await again).report.findings).toHaveLength(5);
}, 120_000);

test('closed, the application ends what runs and what waits', async () => {
  for (const name of ['train', 'measureGate'] as const) held.add(name);
  const refused = [train('adapter'), gate('a gate'), modules('a mean')].map((one) =>
    expect(one).rejects.toMatchObject({ code: expect.stringMatching(/cancelled|engine/) }),
  );
  await poll(() => [processOf('train'), processOf('measureGate')].filter(Boolean).length).toBe(2);
  await application.close();
  expect(started.every(({ ended }) => ended)).toBe(true);
  await Promise.all(refused);
}, 60_000);
