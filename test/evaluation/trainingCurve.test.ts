/** @file The curve of a training: points in time however slow the steps are, never too many kept, speed told. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { readTrainingCurve, TrainingCurve } from '../../electron/evaluation/trainingCurve.ts';

const folder = mkdtempSync(join(tmpdir(), 'emend-curve-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const progress = (step: number, seconds: number, loss = step) => ({
  ...{ step, seconds, loss, steps: 1_000_000, gradientNorm: 1, terms: { reliability: 2 * loss } },
});

test('of a long training a point comes every few seconds, and is the mean of its steps', () => {
  const curve = new TrainingCurve(folder, 1_000_000, 8);
  const points = [1, 2, 3, 4, 5, 6, 7].flatMap((step) => curve.add(progress(step, step - 1)) ?? []);
  expect(points.map(({ step }) => step)).toEqual([4, 7]);
  expect(points[1]).toMatchObject({ loss: 6, terms: { reliability: 12 }, editsPerSecond: 8 });
});

test('what is kept stays bounded: two points become one, and say the mean of the steps of both', async () => {
  const curve = new TrainingCurve(folder, 1_000_000, 1);
  await curve.validated({ step: 5, exactMatch: 0.5, teacherForced: 0.6 });
  let seconds = 0;
  for (let step = 1; step <= 5000; step++) {
    seconds += 4;
    curve.add(progress(step, seconds));
    if (step % 250 === 0) await curve.save();
  }
  await curve.save();
  const { points, validations } = await readTrainingCurve(folder);
  expect(points.length).toBeLessThanOrEqual(2000);
  expect(points.length).toBeGreaterThan(900);
  expect(points.at(-1)!.step).toBe(5000);
  expect(validations).toEqual([{ step: 5, exactMatch: 0.5, teacherForced: 0.6 }]);
  // The losses are their steps: a point's mean lies in the middle of what it is about.
  for (const [at, { step, loss }] of points.slice(1).entries())
    expect(loss).toBeCloseTo((points[at]!.step + 1 + step) / 2, 6);
});
