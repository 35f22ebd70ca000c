/** @file Comparisons of editors over the contract: measured in processes of their own, told row by row, stopped, taken up, looked through. */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { cp, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Application, createApplication } from '../../electron/api/application.ts';
import type { CallInput } from '../../electron/api/contract.ts';
import type { MeasurementRequest } from '../../electron/engine/benchmarking.ts';
import { forkEngine } from '../../electron/engine/forkEngine.ts';
import { type Engine, type EngineProcess, startEngine } from '../../electron/engine/supervisor.ts';
import { writeTinyAdapter } from '../evaluation/tinyAdapter.ts';
import { writeTinyCheckpoint } from '../support/checkpointFixtures.ts';

const folder = mkdtempSync(join(tmpdir(), 'emend-benchmarks-'));
const at = (...names: string[]) => join(folder, ...names);
let engine: Engine;
let application: Application;
const call: Application['call'] = (name, input, options) => application.call(name, input, options);
const request: CallInput<'benchmarks.start'> = {
  ...{ editors: ['VisEdit'], sets: [{ data: at('data.json') }], at: [1, 2], limit: 3, limitProbes: 3 },
};

/** A process that measures is killed as the system kills, in the midst of a measurement of which this is true. */
let killIn: (request: MeasurementRequest) => boolean = () => false;
function killable(): EngineProcess {
  const forked = forkEngine();
  let doomed = false;
  return {
    ...forked,
    send: (message) => {
      if (message.kind === 'call' && message.name === 'measure')
        doomed = killIn((message.input as { request: MeasurementRequest }).request);
      forked.send(message);
    },
    onMessage: (listener) =>
      forked.onMessage((message) => {
        if (!doomed) listener(message);
        else if (message.kind === 'stream') forked.kill();
      }),
  };
}

beforeAll(async () => {
  await writeTinyCheckpoint(at('model'));
  await writeTinyAdapter(at('adapters', 'a tiny one'), at('model'), 0.9999);
  for (const [name, r] of Object.entries({ a: 40, b: 120, c: 220 }))
    await sharp({ create: { width: 28, height: 28, channels: 3, background: { r, g: 90, b: 255 - r } } })
      .png()
      .toFile(at(`${name}.png`));
  const record = {
    ...{ src: 'What is the animal?', rephrase: 'Which animal?', pred: '', alt: 'the cat' },
    ...{ image: 'a.png', image_rephrase: 'b.png', loc: 'Is there a tree?', loc_ans: 'yes' },
    ...{ m_loc: 'c.png', m_loc_q: 'What is the fruit?', m_loc_a: 'a small apple' },
    port_new: [{ port_type: '1-hop', 'Q&A': { Question: 'What is above?', Answer: 'the train' } }],
  };
  const others = ['a red apple', 'the train'].map((alt) => ({ ...record, alt, image: 'c.png' }));
  await writeFile(at('data.json'), JSON.stringify([record, { src: 'no answer' }, ...others]));
  engine = startEngine({ launch: () => forkEngine() });
  application = createApplication({
    ...{ libraryPath: at('real.emend'), resources: folder, version: '0', startModel: 'none' },
    ...{ engine, adaptersFolder: at('adapters') },
    startLongEngine: () => startEngine({ launch: killable, patience: { pause: 20 } }),
  });
  await call('settings.set', { maxNewTokens: 3 });
  await call('models.open', { path: at('model') });
}, 120_000);

afterAll(async () => {
  await application?.close();
  await engine?.stop();
  rmSync(folder, { recursive: true, force: true });
});

const heard = (of: (benchmark: string) => Promise<boolean>) =>
  new Promise<string>((resolve) => {
    const quiet = application.on('benchmark.changed', ({ benchmark }) => {
      void of(benchmark).then((fits) => {
        if (!fits) return;
        quiet();
        resolve(benchmark);
      });
    });
  });
const theOne = async () => (await call('benchmarks.list', {}))[0]!.id;
const rowsOf = async (benchmark: string) =>
  (await call('benchmarks.read', { benchmark })).comparison?.editors.length ?? 0;

test('what can be measured, and what is in a data set', async () => {
  const { editors, warning } = await call('benchmarks.candidates', {});
  const candidate = (name: string) => editors.find(({ editor }) => editor === name);
  expect(candidate('VisEdit')).toMatchObject({ trains: true, adapters: ['a tiny one'], refused: null });
  expect(candidate('IKE')).toMatchObject({ trains: false, adapters: [], refused: null });
  expect(warning).toBeNull();
  expect(await call('benchmarks.dataSet', { data: at('data.json') })).toEqual({
    ...{ format: 'vlkeb', edits: 3, leftOut: 1 },
    problems: [{ row: 2, reason: '"alt" is missing' }],
    probes: expect.arrayContaining([{ kind: 'portability', edits: 3 }]),
  });
  await expect(call('benchmarks.dataSet', { data: at('none.json') })).rejects.toMatchObject({
    code: 'not-found',
  });
});

test('stopped after a row, it is found stopped, goes on without measuring that again, and ends', async () => {
  const stopped = call('benchmarks.start', request, { job: 'first' });
  const cancelled = expect(stopped).rejects.toMatchObject({ code: 'cancelled' });
  const id = await heard(async (benchmark) => (await rowsOf(benchmark)) > 0);
  // The engine that answers is another.
  const asked = { picture: null, prompt: 'What is it?', edits: 'none' as const };
  expect((await call('answers.ask', asked)).text).toEqual(expect.any(String));
  await call('jobs.cancel', { job: 'first' });
  await cancelled;
  expect((await call('benchmarks.list', {}))[0]).toMatchObject({
    ...{ id, state: 'stopped', job: null, total: 2 },
    parts: [{ model: 'model', data: 'data.json', leftOut: 1, refused: [] }],
  });

  const runs = at('benchmarks', id, 'runs');
  const first = join(
    runs,
    (await readdir(runs)).find((name) => name.endsWith('.key'))!.replace('.key', '.json'),
  );
  const { mtimeMs } = await stat(first);
  const done = await call('benchmarks.resume', { benchmark: id });
  expect(done).toMatchObject({ state: 'done', measured: 2, total: 2, sizes: [1, 2] });
  expect((await stat(first)).mtimeMs).toBe(mtimeMs);
  const { comparison } = await call('benchmarks.read', { benchmark: id });
  expect(
    comparison!.editors.map(({ editor, scope, sizes }) => [editor, scope, sizes.map(({ edits }) => edits)]),
  ).toEqual([
    ['VisEdit', 'no scope', [1]],
    ['VisEdit', 'behind the router', [1, 2]],
  ]);
  expect(comparison!.command).toContain('--editor VisEdit, ');
  expect(comparison!.editors[0]!.sizes[0]!.metrics['portability']!.exactMatch!.count).toBe(3);
  for (const name of ['report.html', 'report.csv', 'report.json'])
    expect(existsSync(at('benchmarks', id, name))).toBe(true);
}, 120_000);

test('its samples are looked through: every input, by kind, by text, beside another editor, in parts', async () => {
  const benchmark = await theOne();
  const of = { editor: 0, edits: 1 };
  const all = await call('benchmarks.samples', { benchmark, of, limit: 500 });
  // three edits with reliability, five generalities and localities, the question elsewhere, and portability
  expect([all.total, all.all]).toEqual([21, 21]);
  expect(all.samples[0]).toEqual({
    other: null,
    sample: {
      ...{ row: 1, kind: 'reliability', picture: 'a.png', prompt: 'What is the animal?', stays: false },
      ...{ expected: 'the cat', before: expect.any(String), after: expect.any(String), acting: 1 },
      ...{ passes: false, teacherForced: expect.any(Number), verdict: 'fails' },
    },
  });
  const part = await call('benchmarks.samples', { benchmark, of, offset: 20, limit: 5 });
  expect(part.samples).toEqual([all.samples[20]]);
  const portable = await call('benchmarks.samples', {
    ...{ benchmark, of, filter: { kinds: ['portability'], text: 'ABOVE what' } },
    sort: { by: 'row', descending: true },
  });
  expect(portable.samples.map(({ sample }) => sample.row)).toEqual([4, 3, 1]);
  expect(portable).toMatchObject({ total: 3, all: 21 });

  const against = { editor: 1, edits: 1 };
  const beside = await call('benchmarks.samples', { benchmark, of, against, limit: 500 });
  expect(beside.samples.every(({ sample, other }) => other?.prompt === sample.prompt)).toBe(true);
  const differing = await call('benchmarks.samples', {
    ...{ benchmark, of, against, limit: 500, filter: { differs: true } },
  });
  const wanted = beside.samples.filter(
    ({ sample, other }) => sample.passes !== other!.passes || sample.after !== other!.after,
  );
  expect(differing.total).toBe(wanted.length);
  expect(differing.total).toBeGreaterThan(0);
  expect(differing.total).toBeLessThan(21);

  // Together: which edit acted.
  const routed = await call('benchmarks.samples', { benchmark, of: { editor: 1, edits: 2 }, limit: 500 });
  expect(routed.samples[0]!.sample.acting).toBe(1);
  await expect(call('benchmarks.samples', { benchmark, of: { editor: 9, edits: 1 } })).rejects.toMatchObject({
    code: 'not-found',
  });

  const thumbnails = await call('benchmarks.thumbnails', {
    benchmark,
    pictures: ['a.png', 'none.png', '../../etc/hostname', 'data.json'],
  });
  expect(thumbnails).toEqual([
    { picture: 'a.png', mime: expect.stringMatching(/^image/), base64: expect.any(String) },
  ]);
});

test('tables and samples are written to files, never over one that is there', async () => {
  const benchmark = await theOne();
  const of = { editor: 0, edits: 1 };
  const file = at('samples.csv');
  expect(
    await call('benchmarks.export', {
      benchmark,
      format: 'csv',
      file,
      samples: { of, filter: { kinds: ['portability'] } },
    }),
  ).toEqual({ file, lines: 3 });
  expect(readFileSync(file, 'utf8').split('\n')).toHaveLength(5);
  await expect(call('benchmarks.export', { benchmark, format: 'csv', file })).rejects.toMatchObject({
    code: 'conflict',
  });
  await call('benchmarks.export', { benchmark, format: 'json', file: at('table.json') });
  expect(JSON.parse(readFileSync(at('table.json'), 'utf8')).editors).toHaveLength(2);
});

test('a report that was made elsewhere opens, and is left where it is when it is forgotten', async () => {
  const id = await theOne();
  await cp(at('benchmarks', id), at('elsewhere'), { recursive: true });
  const opened = await call('benchmarks.open', { path: at('elsewhere', 'report.json') });
  expect(opened).toMatchObject({ state: 'opened', parts: [{ model: 'model' }], measured: 2 });
  expect(await call('benchmarks.open', { path: at('elsewhere') })).toMatchObject({ id: opened.id });
  const found = await call('benchmarks.samples', { benchmark: opened.id, of: { editor: 0, edits: 1 } });
  expect(found.total).toBe(21);
  await rm(at('elsewhere', 'runs'), { recursive: true });
  const bare = await call('benchmarks.samples', { benchmark: opened.id, of: { editor: 1, edits: 1 } });
  expect(bare).toEqual({ total: null, all: 0, samples: [] });
  await expect(call('benchmarks.resume', { benchmark: opened.id })).rejects.toMatchObject({
    code: 'conflict',
  });
  await call('benchmarks.remove', { benchmark: opened.id });
  expect(existsSync(at('elsewhere', 'report.json'))).toBe(true);
  expect((await call('benchmarks.list', {})).map((one) => one.id)).toEqual([id]);

  await writeFile(at('elsewhere', 'report.json'), '{"editors": 3}');
  await expect(call('benchmarks.open', { path: at('elsewhere') })).rejects.toMatchObject({ code: 'damaged' });
  await expect(call('benchmarks.open', { path: at('nowhere') })).rejects.toMatchObject({ code: 'not-found' });
});

test('what cannot be measured is refused before anything begins', async () => {
  await expect(call('benchmarks.start', { ...request, at: [1, 10] })).rejects.toThrow(/has 3 edits/);
  await expect(call('benchmarks.start', { ...request, at: [2, 1] })).rejects.toThrow(/rising/);
  await expect(call('benchmarks.start', { ...request, editors: ['MEND'] })).rejects.toThrow(/train one/);
  await expect(call('benchmarks.start', { ...request, editors: ['Nobody'] })).rejects.toMatchObject({
    code: 'not-found',
  });
  expect(await call('benchmarks.list', {})).toHaveLength(1);
});

test('an engine that is killed loses what it was measuring and nothing else, which goes on from there', async () => {
  killIn = ({ scoped, at }) => scoped && at !== null;
  const killed = await call('benchmarks.start', request);
  killIn = () => false;
  expect(killed).toMatchObject({ state: 'done', job: null, measured: 2, failedRows: 1, failed: null });
  const rows = async () => {
    const { comparison } = await call('benchmarks.read', { benchmark: killed.id });
    return comparison!.editors.map(({ scope, sizes, failed }) => {
      return { scope, sizes: sizes.map(({ edits }) => edits), failed };
    });
  };
  const why = expect.stringMatching(
    /ended unexpectedly.*memory ran out.*is kept, and it can go on from there/,
  );
  expect(await rows()).toEqual([
    { scope: 'no scope', sizes: [1], failed: null },
    { scope: 'behind the router', sizes: [1], failed: why },
  ]);
  expect((await call('jobs.list', {}))[0]).toMatchObject({
    kind: 'benchmarks.start',
    outcome: expect.stringMatching(/^1 of 2/),
  });
  const runs = at('benchmarks', killed.id, 'runs');
  const measured = (await readdir(runs)).filter((name) => name.endsWith('.json'));
  expect(measured).toHaveLength(2);
  const times = () => Promise.all(measured.map(async (name) => (await stat(join(runs, name))).mtimeMs));
  const before = await times();

  // What was measured before stays in the report while the rest goes on.
  let seen = 0;
  const quiet = application.on('benchmark.changed', async () => {
    seen = Math.min(seen || 9, await rowsOf(killed.id));
  });
  const done = await call('benchmarks.resume', { benchmark: killed.id });
  quiet();
  expect(done).toMatchObject({ state: 'done', failedRows: 0 });
  expect(seen).toBe(2);
  expect(await times()).toEqual(before);
  expect(await rows()).toEqual([
    { scope: 'no scope', sizes: [1], failed: null },
    { scope: 'behind the router', sizes: [1, 2], failed: null },
  ]);
}, 120_000);

test('what ends a comparison as a whole is kept with it, until it goes on', async () => {
  const benchmark = await theOne();
  const runs = at('benchmarks', benchmark, 'runs');
  await rename(runs, `${runs}-aside`);
  await writeFile(runs, 'a file in its place');
  await expect(call('benchmarks.resume', { benchmark })).rejects.toThrow();
  const found = async () => (await call('benchmarks.read', { benchmark })).benchmark;
  expect(await found()).toMatchObject({ job: null, measured: 2, failed: expect.stringContaining('runs') });
  await rm(runs);
  await rename(`${runs}-aside`, runs);
  await call('benchmarks.resume', { benchmark });
  expect(await found()).toMatchObject({ state: 'done', failed: null });
}, 60_000);

describe('several models and data sets', () => {
  const several = { ...request, at: [1], limit: 1 };
  beforeAll(async () => {
    await writeTinyCheckpoint(at('other'), { seed: 7 });
    const records = JSON.parse(readFileSync(at('data.json'), 'utf8')) as object[];
    await writeFile(at('more.json'), JSON.stringify(records.toReversed()));
  });

  test('from its files alone a model says which editors can act on it, and why others cannot', async () => {
    const models = await call('benchmarks.models', {});
    expect(models[0]).toMatchObject({ name: 'model', open: true, weights: 'dense' });
    const { editors } = await call('benchmarks.candidates', { model: at('other') });
    const refused = (name: string) => editors.find(({ editor }) => editor === name)!.refused;
    expect(refused('VisEdit')).toMatch(
      /^No adapter fits: train one first.* The one on this machine is for another model\.$/,
    );
    expect(refused('IKE')).toBeNull();
    await expect(call('benchmarks.candidates', { model: at('adapters') })).rejects.toMatchObject({
      code: 'not-found',
    });
  });

  test('what cannot act on any of the models is refused; on some of them, it is left out there and told', async () => {
    const models = [at('other')];
    await expect(call('benchmarks.start', { ...several, models })).rejects.toThrow(
      /^VisEdit cannot be measured on other\. No adapter fits: train one/,
    );
    await expect(
      call('benchmarks.start', { ...several, editors: ['IKE', 'VisEdit'], models }),
    ).rejects.toThrow(/^VisEdit cannot be measured/);
    const sets = [...request.sets, ...request.sets];
    await expect(call('benchmarks.start', { ...several, sets })).rejects.toThrow(/named twice/);
  });

  test('each has its comparison; stopped, it goes on; one table tells of all, and is written to a file', async () => {
    const asked = {
      ...{ ...several, editors: ['VisEdit', 'IKE'], models: [at('model'), at('other')] },
      sets: [{ data: at('data.json') }, { data: at('more.json') }],
    };
    const shares: number[] = [];
    const quiet = application.on(
      'job.progress',
      ({ share }) => void (share !== undefined && shares.push(Math.round(1e6 * share))),
    );
    const running = call('benchmarks.start', asked, { job: 'all' });
    const cancelled = expect(running).rejects.toMatchObject({ code: 'cancelled' });
    const rows = async (id: string, part: number) =>
      (await call('benchmarks.read', { benchmark: id, part })).comparison?.editors.length ?? 0;
    const id = await heard(async (benchmark) => (await rows(benchmark, 1)) > 0);
    await call('jobs.cancel', { job: 'all' });
    await cancelled;
    const before = (await call('benchmarks.list', {}))[0]!;
    expect(before).toMatchObject({
      ...{ id, state: 'stopped', total: 12 },
      parts: [
        { model: 'model', data: 'data.json', measured: 4, total: 4, refused: [] },
        { model: 'model', data: 'more.json', total: 4 },
        { model: 'other', data: 'data.json', measured: 0, total: 2, refused: [{ editor: 'VisEdit' }] },
        { model: 'other', data: 'more.json', measured: 0, total: 2 },
      ],
    });
    const done = await call('benchmarks.resume', { benchmark: id });
    quiet();
    expect(done).toMatchObject({ state: 'done', measured: 12, failedRows: 0 });
    // What is left is told as a whole: from nothing to nearly all, twice.
    const begun = shares.findIndex((share, place) => share < (shares[place - 1] ?? 0));
    for (const part of [shares.slice(0, begun), shares.slice(begun)])
      expect(part.toSorted((a, b) => a - b)).toEqual(part);
    expect(shares.slice(begun).at(-1)).toBe(1e6);

    const { overview } = await call('benchmarks.read', { benchmark: id });
    expect(
      overview.map(({ model, data, rows: of }) => [model, data, of.map(({ editor }) => editor)]),
    ).toEqual([
      ['model', 'data.json', ['VisEdit', 'VisEdit', 'IKE', 'IKE']],
      ['model', 'more.json', ['VisEdit', 'VisEdit', 'IKE', 'IKE']],
      ['other', 'data.json', ['IKE', 'IKE']],
      ['other', 'more.json', ['IKE', 'IKE']],
    ]);
    const { comparison } = await call('benchmarks.read', { benchmark: id, part: 2 });
    expect(overview[2]!.rows[0]!.sizes[0]!.meanOfFive).toEqual(comparison!.editors[0]!.sizes[0]!.meanOfFive);
    expect(comparison!.command).toContain(`--model ${at('other')}`);
    const of = { editor: 0, edits: 1 };
    const first = async (part: number) =>
      (await call('benchmarks.samples', { benchmark: id, part, of })).samples[0]!.sample;
    expect([(await first(2)).expected, (await first(3)).expected]).toEqual(['the cat', 'the train']);
    const pictures = ['a.png'];
    expect(await call('benchmarks.thumbnails', { benchmark: id, part: 3, pictures })).toHaveLength(1);
    await expect(call('benchmarks.read', { benchmark: id, part: 4 })).rejects.toMatchObject({
      code: 'not-found',
    });

    const file = at('overview.csv');
    await call('benchmarks.export', { benchmark: id, part: null, format: 'csv', file });
    const lines = readFileSync(file, 'utf8').trim().split('\n');
    expect(lines).toHaveLength(1 + 2 * 12);
    expect(lines[1]).toMatch(/^model,data\.json,VisEdit,no scope,adapter a tiny one,1,teacherForced,[\d.]+,/);
    expect(readFileSync(at('benchmarks', id, 'overview.csv'), 'utf8')).toBe(readFileSync(file, 'utf8'));

    // As a whole it opens where it was made elsewhere, too.
    await cp(at('benchmarks', id), at('all elsewhere'), { recursive: true });
    await rm(at('all elsewhere', 'benchmark.json'));
    const opened = await call('benchmarks.open', { path: at('all elsewhere') });
    expect(opened).toMatchObject({ state: 'opened', measured: 12, parts: { length: 4 } });
    const there = await call('benchmarks.read', { benchmark: opened.id, part: 3 });
    expect(there.overview).toEqual(overview);
    expect(there.comparison!.data.name).toBe('more.json');
  }, 240_000);
});

test('a benchmark that was recorded when it was of one model and one data set goes on', async () => {
  const id = '2026-01-01-00-00-00-abcd';
  const { sets, ...asked } = { ...request, at: [1], limit: 1 };
  const done = await call('benchmarks.start', { ...asked, sets });
  await rename(at('benchmarks', done.id), at('benchmarks', id));
  const path = at('benchmarks', id, 'benchmark.json');
  const { parts, request: of, ...rest } = JSON.parse(readFileSync(path, 'utf8'));
  const { folder, set, refused, ...part } = parts[0];
  await writeFile(path, JSON.stringify({ ...rest, ...part, done: false, request: { ...of, ...set } }));
  const runs = at('benchmarks', id, 'runs');
  const times = async () =>
    Promise.all((await readdir(runs)).map(async (name) => (await stat(join(runs, name))).mtimeMs));
  const before = await times();
  expect(await call('benchmarks.resume', { benchmark: id })).toMatchObject({ state: 'done', measured: 2 });
  expect(await times()).toEqual(before);
  expect((await call('benchmarks.read', { benchmark: id })).overview).toEqual([]);
});
