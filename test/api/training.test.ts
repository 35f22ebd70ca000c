/** @file Trainings over the contract: another process trains, asking goes on, a stopped one is taken up, its adapter opens. */
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Application, createApplication } from '../../electron/api/application.ts';
import type { CallInput, EventPayload } from '../../electron/api/contract.ts';
import { forkEngine } from '../../electron/engine/forkEngine.ts';
import { type Engine, type EngineProcess, startEngine } from '../../electron/engine/supervisor.ts';
import { writeTinyCheckpoint } from '../support/checkpointFixtures.ts';
import { holdable } from '../support/holdableEngine.ts';

const folder = mkdtempSync(join(tmpdir(), 'emend-trainings-'));
const at = (...names: string[]) => join(folder, ...names);
let engine: Engine;
let training: EngineProcess;
let hold: () => () => void;
let application: Application;
const call: Application['call'] = (name, input, options) => application.call(name, input, options);
const request: CallInput<'training.start'> = {
  ...{
    editor: 'VisEdit',
    name: 'a tiny one',
    data: at('data.json'),
    settings: { layer: 1, middle: 16, heads: 2 },
    steps: 4,
    batch: 2,
    rate: 1e-3,
  },
  ...{
    extended: false,
    seed: 3,
    pictureCacheGb: 2,
    validation: { edits: 1, every: 2 },
  },
};

beforeAll(async () => {
  await writeTinyCheckpoint(at('model'));
  for (const [name, r] of Object.entries({ a: 40, b: 120, c: 220 }))
    await sharp({ create: { width: 28, height: 28, channels: 3, background: { r, g: 90, b: 255 - r } } })
      .png()
      .toFile(at(`${name}.png`));
  const record = {
    ...{ src: 'What is the animal?', rephrase: 'Which animal?', pred: '', alt: 'the cat' },
    ...{ image: 'a.png', image_rephrase: 'b.png', loc: 'Is there a tree?', loc_ans: 'yes' },
    ...{ m_loc: 'c.png', m_loc_q: 'What is the fruit?', m_loc_a: 'a small apple' },
  };
  const others = ['a red apple', 'the train', 'a small cat'].map((alt) => ({
    ...record,
    alt,
    image: 'c.png',
  }));
  await writeFile(at('data.json'), JSON.stringify([record, ...others]));
  engine = startEngine({ launch: () => forkEngine() });
  const held = holdable(() => {
    training = forkEngine();
    return training;
  });
  hold = held.hold;
  application = createApplication({
    ...{ libraryPath: at('real.emend'), resources: folder, version: '0', startModel: 'none' },
    ...{ engine, startLongEngine: () => startEngine({ launch: held.launch, patience: { pause: 20 } }) },
  });
  await call('models.open', { path: at('model') });
}, 120_000);

afterAll(async () => {
  await application?.close();
  await engine?.stop();
  rmSync(folder, { recursive: true, force: true });
});

test('an adapter is trained while the model answers, told as it goes, and opens', async () => {
  const points: Array<EventPayload<'training.point'>> = [];
  const quiet = application.on('training.point', (point) => points.push(point));
  const started = call('training.start', request, { job: 'first' });
  await expect.poll(() => points.length, { timeout: 60_000 }).toBeGreaterThan(0);
  const [running] = await call('training.list', {});
  expect(running).toMatchObject({
    name: 'a tiny one',
    state: 'running',
    job: 'first',
    steps: 4,
    adapter: null,
  });
  // The engine that answers is another.
  const asked = { picture: null, prompt: 'What is it?', edits: 'none' as const };
  expect((await call('answers.ask', asked)).text).toEqual(expect.any(String));
  const done = await started;
  quiet();
  expect(points.map(({ point }) => point.step)).toEqual([1, 2, 3, 4]);
  expect(done).toMatchObject({ state: 'done', step: 4, job: null, best: { exactMatch: expect.any(Number) } });
  expect(done.command).toContain('--editor VisEdit');
  expect(done.command).toContain('--layer 1 --middle 16 --heads 2');
  expect(done.command).toContain('--picture-cache 2');
  expect(readdirSync(at('picture-cache'))).not.toEqual([]);
  expect(done.settings).toContainEqual({ label: 'Layer', value: '1' });
  const { points: kept, validations } = await call('training.curve', { training: done.id });
  expect(kept.map(({ step }) => step)).toEqual([1, 2, 3, 4]);
  expect(validations.map(({ step }) => step)).toEqual([2, 4]);
  expect(await call('models.adapters', {})).toContainEqual(
    expect.objectContaining({ name: 'a tiny one', where: 'layer 1', path: done.adapter, fits: true }),
  );
  expect((await call('models.open', { path: at('model'), adapter: done.adapter })).adapter).toMatchObject({
    ...{ name: 'a tiny one', where: 'layer 1' },
  });
  await expect(call('training.resume', { training: done.id })).rejects.toMatchObject({ code: 'conflict' });
}, 120_000);

test('a stopped training, and one whose engine was killed, go on; what it has can be kept meanwhile', async () => {
  const points = (id: string) => call('training.curve', { training: id }).then((curve) => curve.points);
  const heard = (step: number) =>
    new Promise<string>((resolve) => {
      const quiet = application.on('training.point', ({ training: id, point }) => {
        if (point.step < step) return;
        quiet();
        resolve(id);
      });
    });
  const longer = { ...request, steps: 400, validation: { edits: 1, every: 3 } };
  const stopped = call('training.start', longer, { job: 'second' });
  const cancelled = expect(stopped).rejects.toMatchObject({ code: 'cancelled' });
  const id = await heard(4);
  await expect(call('training.remove', { training: id })).rejects.toMatchObject({ code: 'conflict' });
  await call('jobs.cancel', { job: 'second' });
  await cancelled;
  const paused = (await call('training.list', {})).find((one) => one.id === id)!;
  expect(paused).toMatchObject({ state: 'paused', job: null, adapter: null, failed: null });
  expect(paused.step).toBeGreaterThanOrEqual(4);
  const kept = await call('training.keep', { training: id });
  expect(kept).toMatchObject({ state: 'paused' });
  expect(existsSync(join(kept.adapter!, 'adapter.safetensors'))).toBe(true);

  const resumed = call('training.resume', { training: id }, { job: 'third' });
  const lost = expect(resumed).rejects.toMatchObject({ code: 'engine' });
  await heard(paused.step + 4);
  training.kill();
  await lost;
  const after = (await call('training.list', {})).find((one) => one.id === id)!;
  expect(after).toMatchObject({
    ...{ state: 'paused', job: null },
    failed: expect.stringMatching(/ended unexpectedly.*What was recorded up to then is kept/),
  });
  expect(after.step).toBeGreaterThanOrEqual(paused.step);
  // The curve is as far as the state that was saved, and no further: nothing is told twice.
  const again = call('training.resume', { training: id }, { job: 'fourth' });
  const stoppedAgain = expect(again).rejects.toMatchObject({ code: 'cancelled' });
  await heard(after.step + 1);
  await call('jobs.cancel', { job: 'fourth' });
  await stoppedAgain;
  expect((await call('training.list', {})).find((one) => one.id === id)!.failed).toBeNull();
  const steps = (await points(id)).map(({ step }) => step);
  expect(steps).toEqual(steps.map((_, place) => place + 1));

  await call('training.remove', { training: id });
  expect((await call('training.list', {})).some((one) => one.id === id)).toBe(false);
  expect(existsSync(kept.adapter!)).toBe(true);
}, 120_000);

test('one that waits for another is listed, says for which, and leaves nothing when it is stopped', async () => {
  const release = hold();
  const job = async (id: string) => (await call('jobs.list', {})).find((one) => one.id === id);
  const before = (await call('training.list', {})).map(({ id }) => id);
  const start = (name: string) => call('training.start', { ...request, name, steps: 400 }, { job: name });
  const stopped = [start('the first'), start('the second')].map((started) =>
    expect(started).rejects.toMatchObject({ code: 'cancelled' }),
  );
  await expect
    .poll(() => job('the second'), { timeout: 30_000 })
    .toMatchObject({
      ...{ state: 'waiting', waitsFor: 'the training of “the first”', subject: '“the second”' },
    });
  expect(await job('the first')).toMatchObject({ state: 'running', waitsFor: null });
  const listed = (await call('training.list', {})).filter(({ id }) => !before.includes(id));
  expect(listed).toMatchObject([
    { state: 'running', step: 0, steps: 400, name: expect.stringMatching(/the (first|second)/) },
    { state: 'running', step: 0, steps: 400 },
  ]);
  for (const id of ['the second', 'the first']) await call('jobs.cancel', { job: id });
  release();
  await Promise.all(stopped);
  const left = (await call('training.list', {})).filter(({ id }) => !before.includes(id));
  expect(left.filter(({ name }) => name === 'the second')).toEqual([]);
}, 60_000);

test('what cannot be trained is refused before anything begins', async () => {
  const before = (await call('training.list', {})).length;
  const set = (changed: Record<string, string | number>) => ({
    settings: { ...request.settings, ...changed },
  });
  const wrong: ReadonlyArray<readonly [Partial<typeof request>, string]> = [
    [set({ layer: 99 }), 'layers 0 to'],
    [{ editor: 'IKE' }, 'not trained here'],
    [set({ heads: 3 }), 'does not split'],
    [set({ start: 'similarity', attention: 'row-kinds' }), 'width must be'],
    [set({ depth: 2 }), 'has no setting depth'],
    [{ settings: {} }, 'setting layer'],
    [{ data: at('nowhere.json') }, 'nowhere.json'],
    [{ validation: { edits: 4, every: 2 } }, 'none is left to train on'],
  ];
  for (const [changed, message] of wrong)
    await expect(call('training.start', { ...request, ...changed })).rejects.toMatchObject({
      message: expect.stringContaining(message),
    });
  expect((await call('training.list', {})).length).toBe(before);
  expect(readdirSync(at('trainings'))).toHaveLength(before);
}, 60_000);
