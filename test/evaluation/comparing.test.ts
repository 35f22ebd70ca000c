/** @file Comparisons one after the other: what is still to be measured is told as a whole, and what was measured stays in the overview. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, expect, test } from 'vitest';
import { editorNamed } from '../../electron/editors/registry.ts';
import { EmendError } from '../../electron/errors.ts';
import {
  type ComparisonPlan,
  compareEach,
  contendersOf,
  type MeasurementStep,
  partFolder,
} from '../../electron/evaluation/comparing.ts';
import { readEditingSet } from '../../electron/evaluation/editingSet.ts';

const folder = mkdtempSync(join(tmpdir(), 'emend-comparing-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** What a measurement of edits alone writes, as far as a comparison reads it. */
const run = (model: string, mean: number) => {
  const told = { mean, low: mean, high: mean, count: 1 };
  return JSON.stringify({
    model: { name: model, fingerprint: 'f' },
    ...{ metrics: {}, meanOfFive: { teacherForced: null, exactMatch: told } },
    ...{ verdicts: null, cost: null, records: [], peakBytes: 1 },
  });
};

test('the share of all that is missing is told; stopped while the first is measured again, the overview keeps the others', async () => {
  await sharp({ create: { width: 28, height: 28, channels: 3, background: '#5a8040' } })
    .png()
    .toFile(join(folder, 'a.png'));
  const record = {
    ...{ src: 'What is the animal?', rephrase: 'Which animal?', pred: '', alt: 'the cat' },
    ...{ image: 'a.png', image_rephrase: 'a.png', loc: 'Is there a tree?', loc_ans: 'yes' },
    ...{ m_loc: 'a.png', m_loc_q: 'What is the fruit?', m_loc_a: 'a small apple' },
  };
  await writeFile(join(folder, 'set.json'), JSON.stringify([record, { ...record, alt: 'the train' }]));
  const set = await readEditingSet(join(folder, 'set.json'), {});
  const controller = new AbortController();
  const steps: MeasurementStep[] = [];
  const scope = join(folder, 'scope');
  await mkdir(scope);
  await writeFile(join(scope, 'scope.json'), 'one');
  let stopAt: string | null = null;
  const plans = ['first', 'second'].map(
    (model, place): ComparisonPlan => ({
      ...{ model, set, contenders: contendersOf([editorNamed('IKE')!], [], 'cosine'), at: [1] },
      ...{ limit: 2, limitProbes: 2, folder: join(folder, partFolder(place, model, set.path)) },
      ...{ emend: '1', command: 'bench', signal: controller.signal, identity: ({ scope }) => [model, scope] },
      scopeFolder: scope,
      measure: async (_contender, _edits, path) => {
        if (stopAt === model) {
          controller.abort();
          throw new EmendError('cancelled', 'Stopped.');
        }
        await writeFile(path, run(model, 0.25 + place / 4));
      },
    }),
  );
  const compare = () => compareEach(plans, folder, (step) => steps.push(step));
  const told = () =>
    steps.map(({ plan, place, of, before, share }) => [plan.model, place, of, before, share]);
  expect(await compare()).toHaveLength(2);
  expect(told()).toEqual([
    ['first', 1, 4, 0, 0.25],
    ['first', 2, 4, 0.25, 0.25],
    ['second', 3, 4, 0.5, 0.25],
    ['second', 4, 4, 0.75, 0.25],
  ]);
  const overview = () => readFileSync(join(folder, 'overview.csv'), 'utf8').trim().split('\n').slice(1);
  expect(overview().filter((line) => line.includes('exactMatch'))).toEqual(
    [
      ['first', 'no scope', '25.0'],
      ['first', 'behind the router', '25.0'],
      ['second', 'no scope', '50.0'],
      ['second', 'behind the router', '50.0'],
    ].map(([model, scope, mean]) => `${model},set.json,IKE,${scope},,1,exactMatch,${mean},${mean},${mean},`),
  );

  // What lies there is not measured again; what is missing is all there is to do.
  const before = overview();
  const runs = join(plans[0]!.folder, 'runs');
  const key = (await readdir(runs)).find((name) => name.endsWith('router-single.key'))!;
  await rm(join(runs, key));
  steps.length = 0;
  stopAt = 'first';
  await expect(compare()).rejects.toMatchObject({ code: 'cancelled' });
  expect(told()).toEqual([['first', 1, 1, 0, 1]]);
  expect(overview()).toEqual(before);

  // Another scope in the same place: what was measured behind the router is measured again.
  await writeFile(join(scope, 'scope.json'), 'two');
  steps.length = 0;
  stopAt = null;
  const again = compareEach(
    plans.map((plan) => ({ ...plan, signal: new AbortController().signal })),
    folder,
    (step) => steps.push(step),
  );
  await again;
  expect(steps.map(({ plan, contender }) => [plan.model, contender.scope])).toEqual([
    ['first', 'behind the router'],
    ['second', 'behind the router'],
  ]);
});

test('what cannot be measured at all is refused before anything is', async () => {
  const set = await readEditingSet(join(folder, 'set.json'), {});
  const measured: string[] = [];
  const plan = (contenders: ComparisonPlan['contenders'], at: number[]): ComparisonPlan => ({
    ...{ model: 'm', set, contenders, at, limit: 2, limitProbes: 2, folder: join(folder, 'refused') },
    ...{ emend: '1', command: 'bench', signal: new AbortController().signal, identity: () => [] },
    scopeFolder: null,
    measure: async (_contender, _edits, path) => void measured.push(path),
  });
  const some = contendersOf([editorNamed('IKE')!], [], 'cosine');
  await expect(compareEach([plan(some, [1]), plan([], [1])], folder)).rejects.toMatchObject({
    code: 'not-found',
  });
  await expect(compareEach([plan(some, [1]), plan(some, [1, 3])], folder)).rejects.toMatchObject({
    code: 'invalid-input',
    message: expect.stringContaining('holds 2 edits, and 3'),
  });
  expect(measured).toEqual([]);
});

test('each editor is measured as published, and behind the router, with an adapter or without', () => {
  const folders = ['VisEdit', 'MEND', 'LTE'].map((editor) => ({ folder: `adapters/${editor}`, editor }));
  const of = (name: string) =>
    contendersOf([editorNamed(name)!], folders, 'learned').map(
      ({ adapter, scope, form, scoped, measures }) =>
        `${adapter ?? 'untrained'}: ${scope}, ${form ?? 'as it opens'}, ${scoped ? 'scoped' : 'not scoped'}, ${measures.join(' and ')}`,
    );
  expect(of('VisEdit')).toEqual([
    'adapters/VisEdit: no scope, as it opens, not scoped, single',
    'adapters/VisEdit: behind the router, as it opens, scoped, single and many',
  ]);
  // Its edits act everywhere unless told otherwise.
  expect(of('MEND')).toEqual([
    'adapters/MEND: no scope, as it opens, not scoped, single and many',
    'adapters/MEND: behind the router, learned, scoped, single and many',
  ]);
  expect(of('LTE')).toEqual([
    'untrained: its own scope, as it opens, not scoped, single and many',
    'untrained: behind the router, learned, scoped, single and many',
    'adapters/LTE: its own scope, as it opens, not scoped, single and many',
    'adapters/LTE: behind the router, learned, scoped, single and many',
  ]);
});
