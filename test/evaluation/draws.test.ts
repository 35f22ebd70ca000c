/** @file Random draws of edits: each the same for its seed, every edit measured once, scores told as the mean of the draws and its deviation. */
import { expect, test } from 'vitest';
import type { MeasuredRecord } from '../../electron/evaluation/benchmark.ts';
import { drawEdits, scoresOverDraws } from '../../electron/evaluation/draws.ts';
import type { EditingSet } from '../../electron/evaluation/editingSet.ts';
import { type Measurement, type Metric, metricNames } from '../../electron/evaluation/metrics.ts';

const records = Array.from({ length: 40 }, (_, at) => ({
  ...{ row: at + 1, picture: 'a.png', prompt: `question ${at}`, target: 'x' },
  ...{ note: '', tags: [], probes: [] },
}));
const set = { path: 'set.json', records } as unknown as EditingSet;

test('draws are the same for the same seeds, unlike one another, and share what is measured', () => {
  const { set: drawn, draws } = drawEdits(set, { seeds: 3, edits: 20 });
  const again = drawEdits(set, { seeds: 3, edits: 20 });
  expect(again.draws).toEqual(draws);
  const rows = draws.map((draw) => draw.map((place) => drawn.records[place]!.row).sort((a, b) => a - b));
  for (const draw of rows) expect(new Set(draw).size).toBe(20);
  expect(rows[0]).not.toEqual(rows[1]);
  // every drawn edit once, in the order of the file, and no other
  expect(drawn.records.map(({ row }) => row)).toEqual([...new Set(rows.flat())].sort((a, b) => a - b));
  expect(drawn.records.length).toBeGreaterThan(20);
  expect(() => drawEdits(set, { seeds: 2, edits: 40 })).toThrow(/all the same/);
});

test('scores are means of the draws with their sample deviation', () => {
  const measured = (exactMatch: boolean): MeasuredRecord => {
    const found = [{ exactMatch, teacherForced: Number(exactMatch) / 2 } as Measurement];
    const five = new Set([
      'reliability',
      'textGenerality',
      'imageGenerality',
      'textLocality',
      'imageLocality',
    ]);
    const measurements = Object.fromEntries(
      metricNames.map((metric) => [metric, five.has(metric) ? found : []]),
    ) as unknown as Record<Metric, Measurement[]>;
    return { index: 0, kind: null, verdict: 'holds', measurements };
  };
  const list = [true, true, true, false].map(measured);
  // Draws of 100 %, 50 % and 75 %: mean 75 %, deviation 25 %.
  const draws = [
    [0, 1],
    [2, 3],
    [0, 1, 2, 3],
  ];
  const { metrics, meanOfFive } = scoresOverDraws(list, draws, 1);
  for (const told of [metrics.reliability, meanOfFive]) {
    expect(told.exactMatch!.mean).toBeCloseTo(0.75, 12);
    expect(told.exactMatch!.deviation).toBeCloseTo(0.25, 12);
    expect(told.teacherForced!.deviation).toBeCloseTo(0.125, 12);
  }
  expect(metrics.portability.exactMatch).toBeNull();
});
