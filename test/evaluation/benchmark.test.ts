/** @file A benchmark over a set: the same twice over, means that follow from its records, and a damaged picture named. */
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { EditedModel } from '../../electron/editors/editedModel.ts';
import { VisEdit } from '../../electron/editors/visedit/visEdit.ts';
import { type BenchmarkOptions, benchmark, verdictOf } from '../../electron/evaluation/benchmark.ts';
import { estimate } from '../../electron/evaluation/bootstrap.ts';
import { readEditingSet } from '../../electron/evaluation/editingSet.ts';
import type { Measurement } from '../../electron/evaluation/metrics.ts';
import { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { writeTinyCheckpoint } from '../support/checkpointFixtures.ts';
import { LAYER, randomWeights, shape } from './tinyAdapter.ts';

let base: string;
let edited: EditedModel;
let data: string;

beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), 'emend-benchmark-'));
  await writeTinyCheckpoint(join(base, 'model'));
  const model = await VisionLanguageModel.open(join(base, 'model'), { providers: ['cpu'], cuts: [LAYER] });
  edited = new EditedModel(model, await VisEdit.create(LAYER, shape, randomWeights(), ['cpu']), null);

  for (const [name, r] of Object.entries({ a: 40, b: 120, c: 220 })) {
    const create = { width: 28, height: 28, channels: 3 as const, background: { r, g: 90, b: 255 - r } };
    await sharp({ create })
      .png()
      .toFile(join(base, `${name}.png`));
  }
  const record = {
    ...{ src: 'What is the animal?', rephrase: 'Which animal?', pred: '', alt: 'the cat' },
    ...{ image: 'a.png', image_rephrase: 'b.png', loc: 'Is there a tree?', loc_ans: 'yes' },
    ...{ m_loc: 'c.png', m_loc_q: 'What is the fruit?', m_loc_a: 'a small apple' },
  };
  data = join(base, 'data.json');
  const another = { ...record, kind: 'count', alt: 'a red apple', image: 'c.png', m_loc: 'a.png' };
  const same = { same_image_q: 'Which vehicle is above?', same_image_a: 'the train' };
  await writeFile(data, JSON.stringify([{ ...record, ...same, kind: 'identity' }, another]));
});
afterAll(async () => {
  await edited.dispose();
  await rm(base, { recursive: true, force: true });
});

const options: BenchmarkOptions = {
  ...{
    scoped: false,
    reach: 'picture' as const,
    suffix: ' The answer is:',
    textSuffix: '',
    maxNewTokens: 4,
    seed: 1,
  },
};

describe('a benchmark', () => {
  it('gives the same numbers twice, and what they were made with', async () => {
    const set = await readEditingSet(data);
    const told: string[] = [];
    const onProgress = (done: number, total: number) => void told.push(`${done}/${total}`);
    const one = await benchmark(edited, set, { ...options, onProgress });
    const other = await benchmark(edited, set, options);
    const timeless = (result: typeof one) => ({
      ...result,
      seconds: 0,
      cost: { ...result.cost, seconds: 0 },
    });
    expect(timeless(one)).toEqual(timeless(other));
    expect(JSON.parse(JSON.stringify(one))).toEqual(one);
    expect(told).toEqual(['0/2', '1/2', '2/2']);
    expect(one.setting).toMatchObject({
      ...{ edits: 'single', editor: 'VisEdit', layers: [1], scope: null, promptTemplate: 'plain' },
      ...{ suffix: ' The answer is:', provider: 'cpu' },
      data: { path: data, sha256: set.sha256, taken: 2, total: 2 },
    });
    expect(one.records[0]!.measurements.reliability[0]!.prompt).toBe('What is the animal? The answer is:');
    expect(one.records[0]!.measurements.textLocality[0]!.prompt).toBe('Is there a tree?');
  });

  it('averages its records, over all and by kind, and leaves out what was not asked', async () => {
    const result = await benchmark(edited, await readEditingSet(data), options);
    const mean = (values: number[]) => values.reduce((a, b) => a + b, 0) / values.length;
    const locality = result.records.map(({ measurements }) => measurements.imageLocality[0]!);
    expect(result.metrics.imageLocality.teacherForced!.mean).toBeCloseTo(
      mean(locality.map(({ teacherForced }) => teacherForced!)),
      12,
    );
    expect(result.metrics.imageLocality.exactMatch!.mean).toBe(
      mean(locality.map(({ exactMatch }) => Number(exactMatch))),
    );
    expect(result.metrics.samePicture.exactMatch!.count).toBe(1);
    expect(result.kinds.count!.metrics.samePicture.exactMatch).toBeNull();
    expect(result.kinds.identity!.metrics.imageLocality.exactMatch!.mean).toBe(
      Number(locality[0]!.exactMatch),
    );
    const already = result.records.map(({ measurements: { reliability } }) =>
      Number(reliability[0]!.before === reliability[0]!.expected),
    );
    expect(result.answeredBefore!.mean).toBe(mean(already));
    const five = [
      'reliability',
      'textGenerality',
      'imageGenerality',
      'textLocality',
      'imageLocality',
    ] as const;
    expect(result.meanOfFive.teacherForced!.mean).toBeCloseTo(
      mean(five.map((metric) => result.metrics[metric].teacherForced!.mean)),
      12,
    );
  });

  it('gives each edit the worst verdict that fits, and says what making one takes', async () => {
    const { records, verdicts, cost } = await benchmark(edited, await readEditingSet(data), options);
    const all = Object.values(verdicts).reduce((a, b) => a + b, 0);
    expect(all).toBe(2);
    // a random adapter does not say the target
    expect(records.map(({ verdict }) => verdict)).toEqual(['fails', 'fails']);
    expect(cost.seconds).toBeGreaterThan(0);
    expect(cost.bytes).toBeGreaterThan(64 * 4);
    const holding = [{ exactMatch: true } as Measurement];
    const short = [...holding, { exactMatch: false } as Measurement];
    const good = records[0]!.measurements;
    const of = (changed: Partial<typeof good>) =>
      verdictOf({
        ...(Object.fromEntries(
          Object.keys(good).map((metric) => [metric, holding]),
        ) as unknown as typeof good),
        ...changed,
      });
    expect(of({})).toBe('holds');
    expect(of({ samePicture: [] })).toBe('holds');
    expect(of({ imageGenerality: short })).toBe('under-generalises');
    expect(of({ imageGenerality: short, sameQuestion: short })).toBe('leaks');
    expect(of({ textLocality: short })).toBe('leaks');
    expect(of({ reliability: short, textLocality: short })).toBe('fails');
  });

  it('runs what holds by construction all the same, and says that it does', async () => {
    const result = await benchmark(edited, await readEditingSet(data), options);
    expect(result.byConstruction.textLocality).toMatch(/visual rows/);
    for (const { measurements } of result.records) {
      expect(measurements.textLocality).toMatchObject([{ teacherForced: 1, exactMatch: true }]);
      // The adapter is random and strong, and has no map: with a picture, it changes something.
      const seen = Object.values(measurements)
        .filter((found) => found !== measurements.textLocality)
        .flat();
      expect(seen.some((found) => found.after !== found.before)).toBe(true);
    }
  });

  it('says how many edits had nothing to change', async () => {
    const list = JSON.parse(await readFile(data, 'utf8')) as Array<{ alt: string }>;
    const unedited = await benchmark(edited, await readEditingSet(data), options);
    list[1]!.alt = unedited.records[1]!.measurements.reliability[0]!.before;
    const path = join(base, 'known.json');
    await writeFile(path, JSON.stringify(list));
    const result = await benchmark(edited, await readEditingSet(path), options);
    expect(unedited.answeredBefore).toMatchObject({ mean: 0, count: 2 });
    expect(result.answeredBefore).toMatchObject({ mean: 0.5, count: 2 });
  });

  it('is stopped between edits', async () => {
    const controller = new AbortController();
    const onProgress = (done: number) => done === 1 && controller.abort();
    const run = benchmark(edited, await readEditingSet(data), {
      ...options,
      signal: controller.signal,
      onProgress: (done) => void onProgress(done),
    });
    await expect(run).rejects.toMatchObject({ code: 'cancelled', message: 'Stopped after 1 of 2 edits.' });
  });

  it('names record, field and picture where a picture cannot be read', async () => {
    await cp(data, join(base, 'broken', 'data.json'));
    for (const name of ['a', 'b']) await cp(join(base, `${name}.png`), join(base, 'broken', `${name}.png`));
    await writeFile(join(base, 'broken', 'c.png'), 'no picture');
    const run = benchmark(edited, await readEditingSet(join(base, 'broken', 'data.json')), options);
    await expect(run).rejects.toThrow(/row 1.*c\.png/);
  });
});

describe('an interval', () => {
  it('holds the mean, is the same for the same seed, and narrows with more values', () => {
    const few = Array.from({ length: 20 }, (_, i) => i % 2);
    const many = Array.from({ length: 2000 }, (_, i) => i % 2);
    const [narrow, wide] = [estimate(many, 1)!, estimate(few, 1)!];
    expect(wide).toEqual(estimate(few, 1));
    expect(wide.mean).toBe(0.5);
    // 1.96 standard errors of a fair coin: 0.219 for 20 values, 0.022 for 2000.
    expect(wide.high - wide.low).toBeGreaterThan(0.3);
    expect(wide.high - wide.low).toBeLessThan(0.55);
    expect(narrow.high - narrow.low).toBeGreaterThan(0.035);
    expect(narrow.high - narrow.low).toBeLessThan(0.055);
    expect(estimate([1, 1, 1], 1)).toEqual({ mean: 1, low: 1, high: 1, count: 3 });
    expect(estimate([], 1)).toBeNull();
  });
});
