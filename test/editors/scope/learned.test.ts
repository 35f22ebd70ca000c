/** @file A learned scope: its gradients, its examples, its thresholds, and one trained in seconds that tells inputs apart. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  brackets,
  outcomes,
  rising,
  thresholdAt,
  thresholdFor,
  upperQuantile,
} from '../../../electron/editors/scope/learned/calibrate.ts';
import {
  inScope,
  type NumberedAsk,
  type ScopeSource,
} from '../../../electron/editors/scope/learned/examples.ts';
import { plainQuestion, pooled } from '../../../electron/editors/scope/learned/features.ts';
import { askInputs, pairInputs } from '../../../electron/editors/scope/learned/feeding.ts';
import { LearnedScope } from '../../../electron/editors/scope/learned/learnedScope.ts';
import {
  keysOf,
  keyWeights,
  type ScopeShape,
  scoresOf,
  scoreWeights,
  startWeights,
} from '../../../electron/editors/scope/learned/network.ts';
import { readScopeFiles } from '../../../electron/editors/scope/learned/scopeFile.ts';
import { scopeCuts, trainScope, usualTraining } from '../../../electron/editors/scope/learned/trainScope.ts';
import { MemoryBank } from '../../../electron/editors/scope/memoryBank.ts';
import { readScope } from '../../../electron/editors/scope/openScope.ts';
import { decide } from '../../../electron/editors/scope/scope.ts';
import { fingerprint } from '../../../electron/models/checkpoint.ts';
import { gridLayout, type Pixels } from '../../../electron/models/picture.ts';
import { VisionLanguageModel } from '../../../electron/models/visionLanguageModel.ts';
import * as f from '../../../electron/tensor/functions.ts';
import { Graph } from '../../../electron/tensor/graph.ts';
import { float32, int64 } from '../../../electron/tensor/session.ts';
import { adamDefaults } from '../../../electron/training/optimizer.ts';
import { Trainer } from '../../../electron/training/trainer.ts';
import { normalNumbers, writeTinyCheckpoint } from '../../support/checkpointFixtures.ts';

describe('the networks', () => {
  const shape: ScopeShape = {
    ...{
      rows: 3,
      pictureWidth: 4,
      questionWidth: 5,
      heads: 2,
      keyHead: 2,
      valueHead: 3,
      hidden: 6,
      keyWidth: 4,
    },
  };
  const normal = normalNumbers(17);
  const floats = (count: number) => Float32Array.from({ length: count }, () => normal());
  const feeds = {
    pictures: float32(floats(2 * 3 * 4), [2, 3, 4]),
    picture_mask: float32(Float32Array.of(0, 0, -1e4, 0, 0, 0), [2, 1, 1, 3]),
    questions: float32(floats(2 * 2 * 5), [2, 2, 5]),
    question_mask: float32(Float32Array.of(0, 0, 0, -1e4), [2, 1, 1, 2]),
    picture_of: int64([0, 1, 1], [3]),
    question_of: int64([1, 0, 1], [3]),
    pair_input: int64([0, 2], [2]),
    pair_edit: int64([1, 0], [2]),
    pair_reach: float32(Float32Array.of(1, 0, 0, 1), [2, 2]),
    aim: float32(floats(3 * 4), [3, 4]),
  };

  it.each(['key', 'score'] as const)('%s: gradients are those of finite differences', async (which) => {
    const wanted = which === 'key' ? keyWeights(shape) : scoreWeights(shape);
    const weights = startWeights(wanted, normal);
    const graph = new Graph();
    const asks = askInputs(graph, shape);
    const inputs = new Map([...wanted].map(([name, dims]) => [name, graph.input(name, 'float32', dims)]));
    const weight = (name: string) => inputs.get(name)!;
    let loss: ReturnType<typeof f.sum>;
    if (which === 'key') {
      const keys = keysOf(asks, shape, weight, null);
      const aim = graph.input('aim', 'float32', ['asks', 4]);
      const all = f.add(f.add(keys.input, f.multiply(keys.picture, 2)), f.multiply(keys.thing, 3));
      loss = f.sum(f.multiply(all, aim));
    } else {
      const scores = scoresOf(asks, pairInputs(graph), shape, weight, null);
      loss = f.sum(f.multiply(scores, scores));
    }
    const trainer = await Trainer.create(graph, loss, {}, weights, adamDefaults(1e-3), {
      providers: ['cpu'],
    });
    try {
      const { gradients } = await trainer.evaluate(feeds);
      for (const [name, { data }] of weights) {
        const place = data.length - 1;
        const kept = data[place]!;
        const at = async (value: number) => {
          data[place] = value;
          return (await trainer.evaluate(feeds)).loss;
        };
        const step = 1e-3;
        const slope = ((await at(kept + step)) - (await at(kept - step))) / (2 * step);
        data[place] = kept;
        expect(Math.abs(gradients.get(name)![place]! - slope), name).toBeLessThan(
          0.02 * Math.max(1, Math.abs(slope)),
        );
      }
    } finally {
      await trainer.dispose();
    }
  });
});

describe('a question, as the scope reads it', () => {
  it('is the same however it is typed', () => {
    const typed = [
      'What animal is this?',
      'what animal is this',
      'WHAT ANIMAL IS THIS?',
      'What  animal is this ??',
      ' What animal is this.',
      'What animal is this ?',
    ];
    expect(new Set(typed.map(plainQuestion))).toEqual(new Set(['What animal is this?']));
    expect(plainQuestion('What animal is that?')).not.toBe(plainQuestion(typed[0]!));
    expect(plainQuestion('Is it 3.5 m, or 35 m?')).toBe('Is it 3.5 m, or 35 m?');
    expect(plainQuestion('?!')).toBe('?');
  });
});

describe('rows of large pictures', () => {
  it('are averaged in squares of their grid, small ones kept as they are', () => {
    const rows = Float32Array.from({ length: 24 * 24 }, (_, i) => i);
    const cells = pooled(rows, 1, 24);
    expect(cells).toHaveLength(144);
    expect(cells[0]).toBe((0 + 1 + 24 + 25) / 4);
    expect(cells[143]).toBe((550 + 551 + 574 + 575) / 4);
    expect(pooled(rows.slice(0, 100), 1, 10)).toEqual(rows.slice(0, 100));
    expect(pooled(rows.slice(0, 300), 1, 1).length).toBeLessThanOrEqual(144);
  });
});

describe('who is in whose scope', () => {
  const base: NumberedAsk = {
    ...{ family: 1, scene: 0, question: 5, thing: 7, about: 3, names: true, doubtful: false, prompts: [0] },
  };
  const of = (changes: Partial<NumberedAsk>) =>
    (['picture', 'thing'] as const).map((reach) => inScope(base, { ...base, ...changes }, reach));

  it('follows from scene, question and thing', () => {
    expect(of({})).toEqual([true, true]);
    expect(of({ family: 2 })).toEqual([false, true]);
    expect(of({ question: 6, thing: 8, about: 4 })).toEqual([false, false]);
    expect(of({ family: 2, thing: -1, about: -1 })).toEqual([false, false]);
  });
  it('takes in every question for the thing’s name where it goes as far as the thing', () => {
    expect(of({ question: 6, thing: 8 })).toEqual([null, true]);
    expect(of({ family: 2, question: 6, thing: 8 })).toEqual([false, true]);
    expect(of({ family: 2, question: 6, thing: 8, names: false })).toEqual([false, false]);
  });
  it('is left open where the thing’s name is asked for otherwise, or where a changed scene kept the thing', () => {
    expect(of({ scene: 1 })).toEqual([null, true]);
    expect(of({ scene: 1, thing: 9, about: 4 })).toEqual([false, false]);
  });
});

describe('thresholds', () => {
  const edits = ['picture', 'thing'].map((reach, at) => ({
    reach: reach as 'picture' | 'thing',
    row: {
      ask: {
        ...{
          family: at,
          scene: 0,
          question: at,
          thing: at,
          about: at,
          names: true,
          doubtful: false,
          prompts: [0],
        },
      },
      picture: 0,
      question: 0,
    },
  }));
  const stranger = { ...edits[0]!.row, ask: { ...edits[0]!.row.ask, family: 9, thing: 9, about: 9 } };
  const query = (
    kind: 'edit' | 'unrelated' | 'swapped',
    own: number | null,
    scores: number[],
    within: boolean[],
  ) => ({
    query: {
      ...{ kind, own, row: kind === 'edit' ? edits[own ?? 0]!.row : stranger },
      candidates: within.map((inside, edit) => ({ edit, similarity: 0, within: inside })),
    },
    scores,
  });

  it('let no more than the stated share of harm through, and grow with the library only', () => {
    const strangers = Array.from({ length: 1000 }, (_, i) =>
      query('unrelated', null, [i / 100, i / 50], [false, false]),
    );
    const rates = { unrelated: 0.02, near: 1, swapped: 1, elsewhere: 1 };
    const found = thresholdFor(strangers, rates);
    expect(found).toBeCloseTo(19.6, 1);
    const { harm } = outcomes(edits, strangers, found);
    expect(harm).toBeLessThanOrEqual(0.02);
    expect(harm).toBeGreaterThan(0.018);
    expect(rising([found, 2, 30])).toEqual([found, found, 30]);
  });

  it('are never under what an edit’s own look-alikes ask for', () => {
    const inputs = [query('swapped', 0, [6, -9], [false, false]), query('edit', 0, [8, -9], [true, false])];
    const found = thresholdFor(inputs, { unrelated: 0.01, near: 0.01, swapped: 0.01, elsewhere: 0.01 });
    expect(found).toBeGreaterThan(6);
    expect(outcomes(edits, inputs, found)).toEqual({ right: 1, harm: 0 });
    expect(outcomes(edits, inputs, 5)).toEqual({ right: 1, harm: 1 });
    expect(outcomes(edits, inputs, 9)).toEqual({ right: 0, harm: 0 });
    // Nor where the scorer holds that an edit is out of scope.
    const far = [query('swapped', 0, [-6, -9], [false, false])];
    expect(thresholdFor(far, { unrelated: 0, near: 0, swapped: 0, elsewhere: 0 })).toBeGreaterThanOrEqual(0);
  });

  it('hold up to their bracket’s size, the last for all larger libraries', () => {
    const list = brackets.map((_, at) => at);
    const thresholds = { picture: list, thing: list.map((value) => value + 100) };
    expect([1, 2, 10, 11, 10_000, 50_000].map((size) => thresholdAt(thresholds, size, 'picture'))).toEqual([
      0, 1, 1, 2, 6, 6,
    ]);
    expect(thresholdAt(thresholds, 3, 'thing')).toBe(101);
  });

  it('come from a quantile that counts from above', () => {
    expect(upperQuantile([1, 2, 3, 4], 0)).toBe(4);
    expect(upperQuantile([1, 2, 3, 4], 0.5)).toBe(2);
    expect(upperQuantile([], 0.5)).toBe(Number.NEGATIVE_INFINITY);
  });
});

describe('a scope trained on a tiny model', () => {
  let base: string;
  let model: VisionLanguageModel;
  let own: string;
  const questions = ['What is the animal?', 'How many?', 'Which vehicle is above?'];
  /** Pictures of one colour and a little noise; other shots have other noise. */
  const shot = (seed: number, noise: number): Pixels => {
    const colour = normalNumbers(seed);
    const [r, g, b] = [2 * colour(), 2 * colour(), 2 * colour()];
    const normal = normalNumbers(noise);
    const values = Float32Array.from(
      { length: 3 * 28 * 28 },
      (_, i) => [r, g, b][Math.floor(i / 784)]! + 0.05 * normal(),
    );
    return { values, shape: [3, 28, 28], layout: gridLayout({ height: 2, width: 2 }) };
  };
  const source: ScopeSource = {
    name: 'colours',
    families: 40,
    async family(index) {
      const asks = questions.flatMap((question) =>
        [0, 1].map((scene) => ({
          ...{ scene, question, kind: question, about: `${index} ${scene}`, names: false, doubtful: false },
          wordings: [question, question.toLowerCase()],
        })),
      );
      const pixels = [shot(index, 1000 + index), shot(index, 2000 + index), shot(100 + index, 3000 + index)];
      return { family: { pictures: [0, 0, 1], asks, answers: asks }, pixels };
    },
    async close() {},
  };

  beforeAll(async () => {
    base = await mkdtemp(join(tmpdir(), 'emend-scope-'));
    await writeTinyCheckpoint(join(base, 'model'), { layers: 4, imageSize: 28, patchSize: 14 });
    model = await VisionLanguageModel.open(join(base, 'model'), {
      providers: ['cpu'],
      cuts: scopeCuts(4),
      threads: 1,
    });
    own = await fingerprint(model.checkpoint);
    const settings = {
      ...usualTraining,
      key: { ...usualTraining.key, steps: 80, edits: 6, rate: 5e-3 },
      scorer: { ...usualTraining.scorer, steps: 160, edits: 2, library: 30, libraries: 2, rate: 5e-3 },
      rates: {
        picture: { unrelated: 0.02, near: 0.02, swapped: 0.02, elsewhere: 0.02 },
        thing: { unrelated: 0.02, near: 0.02, swapped: 0.02, elsewhere: 1 },
      },
      ...{ probes: 12, sizes: [1, 10], seed: 3 },
    };
    await trainScope(model, own, source, settings, { out: base, work: join(base, 'work') });
  }, 120_000);
  afterAll(async () => {
    await model?.dispose();
    await rm(base, { recursive: true, force: true });
  });

  const asked = async (pixels: Pixels, prompt: string) => {
    const encoded = model.prompts.encodePrompt({ prompt, image: true });
    return model.prefill(await model.lay(encoded, await model.visualEmbeddings(pixels)));
  };

  it('lets an edit act on another shot of its picture, however the question is typed, and on nothing else', async () => {
    const scope = await LearnedScope.open((await readScopeFiles(base))!, model.hidden);
    try {
      const describe = async (pixels: Pixels, prompt: string) =>
        (await scope.describe(model, await asked(pixels, prompt), prompt))!;
      const bank = new MemoryBank(scope.keyWidth);
      for (let edit = 0; edit < 10; edit++)
        bank.add(edit, 'picture', await describe(shot(500 + edit, 1), questions[0]!));
      const acting = async (pixels: Pixels, prompt: string) =>
        (await decide(scope, await describe(pixels, prompt), bank)).acting?.edit ?? null;
      let [right, harm] = [0, 0];
      for (let edit = 0; edit < 10; edit++) {
        if ((await acting(shot(500 + edit, 2), 'what  IS the animal')) === edit) right++;
        if ((await acting(shot(500 + edit, 3), questions[1]!)) !== null) harm++;
        if ((await acting(shot(700 + edit, 4), questions[0]!)) !== null) harm++;
      }
      expect(right).toBeGreaterThanOrEqual(8);
      expect(harm).toBeLessThanOrEqual(3);

      const one = await describe(shot(500, 2), questions[0]!);
      const again = await describe(shot(500, 2), questions[0]!);
      expect(again).toEqual(one);
      const entries = [0, 1, 2].map((edit) => bank.entry(edit));
      const together = await scope.score(one.detail, entries);
      // What an edit scores depends on neither the others nor their order.
      for (const [place, entry] of entries.entries())
        expect((await scope.score(one.detail, [entry]))[0]).toBe(together[place]);
      await expect(scope.score(one.detail.slice(1), entries)).rejects.toMatchObject({ code: 'damaged' });
    } finally {
      await scope.dispose();
    }
  });

  it('asks for at least as much in larger libraries', async () => {
    const { description } = (await readScopeFiles(base))!;
    for (const reach of ['picture', 'thing'] as const) {
      const list = [1, 5, 10, 50, 1000, 10_000, 99_999].map((size) =>
        thresholdAt(description.thresholds, size, reach),
      );
      expect(list).toEqual(list.toSorted((a, b) => a - b));
    }
    expect(description.curve.map(({ edits }) => edits)).toEqual([1, 10, 1, 10]);
  });

  it('gives way to the cosine for another model, and says when it was asked for by name', async () => {
    const cosine = { layer: 1, threshold: 0.8 };
    expect((await readScope([base], { cosine, model: own })).cuts).toEqual(scopeCuts(4));
    expect((await (await readScope([base], { cosine, model: 'another' })).open(32)).form).toBe('cosine');
    await expect(readScope([base], { cosine, model: 'another' }, 'learned')).rejects.toMatchObject({
      code: 'not-found',
    });
    expect((await (await readScope([base], { cosine, model: own }, 'cosine')).open(32)).form).toBe('cosine');
    await expect(LearnedScope.open((await readScopeFiles(base))!, 64)).rejects.toMatchObject({
      code: 'invalid-input',
    });
  });

  it('is refused when its files contradict themselves or are out of bounds', async () => {
    const path = join(base, 'scope.json');
    const text = await readFile(path, 'utf8');
    const description = JSON.parse(text);
    const { shape, thresholds } = description;
    const changed = async (changes: Record<string, unknown>) => {
      await writeFile(path, JSON.stringify({ ...description, ...changes }));
      return readScopeFiles(base).catch((error) => error);
    };
    try {
      for (const changes of [
        { shape: { ...shape, hidden: 1e9 } },
        { shape: { ...shape, rows: 5 } },
        { components: 7 },
        { thresholds: { ...thresholds, picture: [1] } },
        { thresholds: { ...thresholds, thing: ['low', ...thresholds.thing.slice(1)] } },
        { layers: undefined },
      ])
        expect(await changed(changes)).toMatchObject({ code: 'damaged' });
      const weights = join(base, 'scope.safetensors');
      const bytes = await readFile(weights);
      await writeFile(path, text);
      await writeFile(weights, bytes.subarray(0, bytes.length - 100));
      await expect(readScopeFiles(base)).rejects.toMatchObject({ code: 'damaged' });
      await writeFile(weights, bytes);
    } finally {
      await writeFile(path, text);
    }
  });
});
