/** @file Jobs are records of the application: listed to every page, stopped from anywhere, telling what they wait for. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { expect, test } from 'vitest';
import type { JobRecord } from '../../electron/api/contract.ts';
import { Jobs, MOST_KEPT } from '../../electron/api/jobs.ts';
import { wireError } from '../../electron/api/router.ts';
import { deadEngine, loggingEngine, makeApplication, modelFolder, temporaryFolder } from './support.ts';

const about = { kind: 'edits.import', subject: 'x.json', edit: null, engine: null, quick: false };

test('what goes on from before takes as long for the rest as it did since', async () => {
  const jobs = new Jobs({});
  await jobs.run('j', about, async (_signal, report) => {
    report.progress('Training', 900, 1000, 'steps');
    await delay(1100);
    report.progress('Training', 901, 1000, 'steps');
    expect(jobs.list()[0]!.secondsLeft).toBeGreaterThan(99);
  });
});

test('a job that knows its share of the whole says what is left of it all, whatever its stages are', async () => {
  const jobs = new Jobs({});
  await jobs.run('j', about, async () => {
    const at = { done: 9, total: 10, unit: 'edits' };
    jobs.progress('j', { ...at, stage: 'the first', share: 0 });
    await delay(1100);
    jobs.progress('j', { ...at, stage: 'the second', share: 0.01 });
    expect(jobs.list()[0]).toMatchObject({ stage: 'the second', share: 0.01 });
    expect(jobs.list()[0]!.secondsLeft).toBeGreaterThan(99);
  });
});

test('a job is told of when it begins, goes on and ends, with what is left of it', async () => {
  const told: JobRecord[] = [];
  const jobs = new Jobs({ onChange: (job) => told.push(job) });
  const result = await jobs.run('j', about, async (_signal, report) => {
    report.progress('Importing', 0, 100, 'rows');
    await delay(1100);
    report.progress('Importing', 50, 100, 'rows');
    report.log('row 3: no picture');
    expect(jobs.list()).toMatchObject([{ id: 'j', state: 'running', done: 50, total: 100, ended: null }]);
    const { secondsLeft } = jobs.list()[0]!;
    expect(secondsLeft).toBeGreaterThanOrEqual(1);
    expect(secondsLeft).toBeLessThan(10);
    // a thousand steps are not a thousand messages
    for (let i = 50; i < 1050; i += 1) report.progress('Importing', i, 2000, 'rows');
    report.outcome('Added 100 edits.');
    return 7;
  });
  expect(result).toBe(7);
  expect(told[0]).toMatchObject({ id: 'j', state: 'running', subject: 'x.json' });
  expect(told.at(-1)).toMatchObject({
    ...{ state: 'done', outcome: 'Added 100 edits.', done: 1049, log: ['row 3: no picture'] },
    ended: expect.any(String),
  });
  expect(told.length).toBeLessThan(12);
  expect(jobs.list()).toEqual([told.at(-1)]);
});

test('what failed says why, what was stopped that it was, and so many are kept', async () => {
  const jobs = new Jobs();
  await jobs.run('a', about, () => Promise.reject(new Error('no space'))).catch(() => undefined);
  const stopped = jobs
    .run('b', about, (signal) => new Promise((_, reject) => signal.addEventListener('abort', reject)))
    .catch(wireError);
  await delay(0);
  jobs.cancel('b');
  expect(await stopped).toMatchObject({ code: 'cancelled' });
  expect(jobs.list()).toMatchObject([
    { id: 'b', state: 'cancelled' },
    { id: 'a', state: 'failed', outcome: 'no space' },
  ]);
  for (let i = 0; i < MOST_KEPT + 5; i += 1) await jobs.run(`n${i}`, about, async () => i);
  expect(jobs.list()).toHaveLength(MOST_KEPT);
  expect(jobs.list()[0]).toMatchObject({ id: `n${MOST_KEPT + 4}` });
});

test('a job that waits says for what, and is seen and stopped by whoever did not start it', async () => {
  const engine = loggingEngine();
  const application = makeApplication(engine.client);
  const folder = temporaryFolder();
  const release = engine.holdOpenings();
  const opening = application.call('models.open', { path: modelFolder(folder, 'mine') }, { job: 'one' });
  await expect.poll(() => engine.log.map(({ name }) => name)).toEqual(['open']);
  const told: JobRecord[] = [];
  application.on('jobs.changed', ({ job }) => told.push(job));
  const question = { picture: null, prompt: 'what is it?', edits: 'none' } as const;
  const asking = application.call('answers.ask', question, { job: 'two' }).catch(wireError);
  const list = () => application.call('jobs.list', {});
  await expect.poll(list).toMatchObject([
    { id: 'one', state: 'running', subject: 'mine', waitsFor: null },
    { id: 'two', state: 'waiting', subject: '“what is it?”', waitsFor: 'the opening of mine' },
  ]);
  await application.call('jobs.cancel', { job: 'two' });
  release();
  await Promise.all([opening, asking]);
  await expect.poll(list).toEqual([]);
  expect(
    told
      .filter((job) => job.ended !== null)
      .map(({ id }) => id)
      .sort(),
  ).toEqual(['one', 'two']);
});

test('what ended is still known when the application is started again', async () => {
  const application = makeApplication(deadEngine);
  const file = join(temporaryFolder(), 'set.json');
  writeFileSync(file, '[7]');
  await application.call('edits.import', { file }, { job: 'mine' });
  const [job] = await application.call('jobs.list', {});
  expect(job).toMatchObject({
    ...{ id: 'mine', kind: 'edits.import', subject: 'set.json', state: 'done' },
    outcome: 'Added 0 edits; 1 rows cannot be used.',
    log: ['row 1: it is not an object with named fields'],
  });
  const { path } = (await application.call('app.status', {})).library;
  await application.close();
  expect(await makeApplication(deadEngine, undefined, path).call('jobs.list', {})).toEqual([job]);
});
