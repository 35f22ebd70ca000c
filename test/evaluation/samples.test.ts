/** @file Recorded inputs: found by what a filter says, beside another editor's, bounded, as CSV, and never read from outside a report's runs. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import type { BenchmarkSample, SampleFilter } from '../../electron/api/contract.ts';
import { recordedSamples } from '../../electron/evaluation/comparing.ts';
import type { ComparedEditor } from '../../electron/evaluation/comparisonReport.ts';
import { boundedSample, findSamples, samplesCsv } from '../../electron/evaluation/samples.ts';

const sample = (row: number, changes: Partial<BenchmarkSample> = {}): BenchmarkSample => ({
  ...{ row, kind: 'reliability', picture: 'a.png', prompt: `What is it, ${row}?`, expected: 'a lock' },
  ...{ stays: false, before: 'a book', after: 'a lock', passes: true, teacherForced: 1 },
  ...{ acting: row, verdict: 'holds', ...changes },
});
const samples = [
  sample(1),
  sample(2, { after: 'a Fox, "red"', passes: false, teacherForced: 0.5, verdict: 'fails' }),
  sample(2, { kind: 'text-locality', picture: null, stays: true, verdict: 'fails', acting: null }),
  sample(3, { after: 'A lock.', teacherForced: null }),
];
const order = { by: 'row', descending: false } as const;
const places = (filter: SampleFilter, others: readonly BenchmarkSample[] | null = null) =>
  findSamples(samples, others, filter, order).map((found) => samples.indexOf(found.sample));

test('a filter holds in all that it says', () => {
  expect(places({})).toEqual([0, 1, 2, 3]);
  expect(places({ passes: false })).toEqual([1]);
  expect(places({ kinds: ['text-locality'] })).toEqual([2]);
  expect(places({ verdicts: ['fails'] })).toEqual([1, 2]);
  expect(places({ text: '  FOX what ' })).toEqual([1]);
  expect(places({ verdicts: ['fails'], passes: true })).toEqual([2]);
});

test('what differs from another editor is the answer or whether it is right; what that was not asked is no difference', () => {
  const others = [
    sample(1, { after: 'A lock' }), // the same answer, as exact match has it
    sample(2, { after: 'a fox, "red"', passes: false }),
    sample(3, { after: 'a key', passes: false }),
  ];
  expect(places({ differs: true }, others)).toEqual([3]);
  const beside = findSamples(samples, others, {}, order).map(({ other }) => other?.after ?? null);
  expect(beside).toEqual(['A lock', 'a fox, "red"', null, 'a key']);
  // and its answer is searched too
  expect(places({ text: 'key' }, others)).toEqual([3]);
});

test('an order keeps rows in theirs where nothing tells them apart', () => {
  const by = (sort: Parameters<typeof findSamples>[3]) =>
    findSamples(samples, null, {}, sort).map((found) => samples.indexOf(found.sample));
  expect(by({ by: 'row', descending: true })).toEqual([3, 1, 2, 0]);
  expect(by({ by: 'passes', descending: false })).toEqual([1, 0, 2, 3]);
  expect(by({ by: 'teacherForced', descending: false })).toEqual([3, 1, 0, 2]);
});

test('CSV quotes what needs it, and long texts are cut', () => {
  const lines = samplesCsv(findSamples(samples, null, { passes: false }, order))
    .trim()
    .split('\n');
  expect(lines[1]).toContain('"a Fox, ""red"""');
  const { prompt, after } = boundedSample(sample(1, { prompt: 'x'.repeat(9000), after: 'short' }));
  expect([prompt.length, after]).toEqual([2000, 'short']);
});

const folder = mkdtempSync(join(tmpdir(), 'emend-samples-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
test.each([
  ['a path outside', '../secret.json', undefined, 'damaged'],
  ['a run that is none', 'a.json', { records: [{ measurements: null }] }, 'damaged'],
  ['another run that is none', 'a.json', { records: 'all of them' }, 'damaged'],
  ['answers that are none', 'a.json', { sizes: [{ edits: 2, samples: [{ row: 'x' }] }] }, 'damaged'],
])('refused: %s', async (_, name, content, code) => {
  mkdirSync(join(folder, 'runs'), { recursive: true });
  if (content) writeFileSync(join(folder, 'runs', 'a.json'), JSON.stringify(content));
  const edits = content && 'sizes' in content ? 2 : 1;
  const row = { runs: { single: name, many: name } } as unknown as ComparedEditor;
  await expect(recordedSamples(folder, row, edits)).rejects.toMatchObject({ code });
});

test('a run that is gone, and one without answers, have none', async () => {
  const row = { runs: { single: 'gone.json', many: null } } as unknown as ComparedEditor;
  expect(await recordedSamples(folder, row, 1)).toBeNull();
  expect(await recordedSamples(folder, row, 10)).toBeNull();
});
