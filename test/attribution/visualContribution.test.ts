import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { AttentionNorms, decoderOf, LayerInputs } from '../../electron/attribution/layerInputs.ts';
import { PerturbedAttention } from '../../electron/attribution/perturbedAttention.ts';
import {
  type AttributionInput,
  codePerturbation,
  type Perturbation,
  PictureAttribution,
  paperPerturbation,
  perturbedItem,
  standardNormal,
  VisualAttribution,
  visualGrid,
  windows,
} from '../../electron/attribution/visualContribution.ts';
import type { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { largestDifference } from '../support/fixtures.ts';
import {
  hiddenOf,
  literalContributions,
  openTinyModel,
  promptOf,
  randomDecoder,
  referenceCase,
} from './support.ts';

interface Settings {
  layers: number[];
  cases: Record<string, { radius: number; test_n: number; attr_toks?: number[][] }>;
}

describe('visual contributions', () => {
  let model: VisionLanguageModel;
  beforeAll(async () => {
    model = await openTinyModel();
  });
  afterAll(() => model.dispose());

  test.each([
    ['official_r1_n0.7', 'code', 'noise', 1],
    ['official_r0_n0.3', 'code', 'noise', 1],
    ['paper', 'paper', 'unit_noise', 3],
  ] as const)('%s: equal to the reference, draw by draw', async (name, variant, noiseName, level) => {
    const { settings, floats } = await referenceCase<Settings>('e2');
    const { radius, test_n: draws, attr_toks } = settings.cases[name]!;
    if (attr_toks) expect(windows(visualGrid(16), radius)).toEqual(attr_toks);
    const perturbation: Perturbation = { variant, level, draws, radius };
    const attribution = await VisualAttribution.compile(decoderOf(model), settings.layers, perturbation);
    const noise = await floats(`${name}.${noiseName}`);
    const given = { kind: 'given', values: settings.layers.map(() => noise) } as const;
    const results = await attribution.run(await hiddenOf(model, 'edit', settings.layers), given);
    for (const { layer, mean, perDraw } of results) {
      expect(largestDifference(perDraw, await floats(`${name}.layer${layer}.per_draw`))).toBeLessThan(1e-5);
      expect(largestDifference(mean, await floats(`${name}.layer${layer}.mean`))).toBeLessThan(1e-5);
    }
    await attribution.dispose();
  });

  test('from a prompt with its picture, several layers at once', async () => {
    const layers = [0, 2, 5];
    const several = await PictureAttribution.compile(decoderOf(model), layers, codePerturbation);
    const results = await several.run(await promptOf(model, 'edit'), 3);
    const attribution = await VisualAttribution.compile(decoderOf(model), [2], codePerturbation);
    const [alone] = await attribution.run(await hiddenOf(model, 'edit', [2]), { kind: 'seed', seed: 3 });
    await attribution.dispose();
    expect(results.map(({ layer }) => layer)).toEqual(layers);
    expect(largestDifference(results[1]!.mean, alone!.mean)).toBeLessThan(1e-6);
    const text = await promptOf(model, 'text_loc');
    await expect(several.run(text)).rejects.toThrow(/needs a picture/);
    await several.dispose();
  });

  test('hidden states entering a layer do not depend on the inputs beside them, nor on where the run began', async () => {
    const inputs = await Promise.all(['edit', 'image_loc'].map((sample) => promptOf(model, sample)));
    const rows = inputs.map((input) => ({ ...input, hidden: input.embeddings.data as Float32Array }));
    const below = await LayerInputs.compile(decoderOf(model), [0, 2, 4]);
    const above = await LayerInputs.compile(decoderOf(model), [2, 4], 2);
    const together = await below.run(rows);
    const alone = await below.run([rows[0]!]);
    expect(together[0]![0]).toEqual(rows[0]!.hidden);
    for (const at of [0, 1, 2]) {
      expect(largestDifference(together[0]![at]!, alone[0]![at]!)).toBeLessThan(1e-4);
    }
    const continued = await above.run(together.map((hidden) => ({ hidden: hidden[1]! })));
    expect(largestDifference(continued[1]![1]!, together[1]![2]!)).toBeLessThan(1e-4);
    await below.dispose();
    await above.dispose();
  });
});

const input = (width: number, layers: number): AttributionInput => ({
  // Rows behind the last prompt token stand for a target: they must not be read.
  hidden: Array.from({ length: layers }, (_, layer) => standardNormal(20 * width, 100 + layer)),
  imageRows: [3, 4, 5, 6, 7, 8, 9, 10, 11],
  lastPromptRow: 15,
});

describe('batched perturbation', () => {
  test.each([
    ['multi-head attention', randomDecoder({ hidden: 48, heads: 4 })],
    [
      'grouped queries with biases',
      randomDecoder({ hidden: 48, heads: 6, keyValueHeads: 2, attentionBias: true }),
    ],
    ['attention resting on single rows', randomDecoder({ hidden: 48, heads: 4 }, 6)],
  ])('equals the whole attention run again for each token: %s', async (_, decoder) => {
    const draws = 2;
    const noise = standardNormal(9 * draws * 48, 5);
    const attribution = await VisualAttribution.compile(decoder, [1], { ...paperPerturbation, draws });
    const [batched] = await attribution.run(input(48, 1), { kind: 'given', values: [noise] });
    await attribution.dispose();
    const literal = await literalContributions(decoder, 1, input(48, 1), draws, noise);
    expect(Math.max(...literal)).toBeGreaterThan(0.01);
    expect(largestDifference(batched!.perDraw, literal)).toBeLessThan(2e-6);
  });

  test.each([
    ['windows of rows, attention resting on single rows', 6, 1],
    ['windows of rows', 2, 1],
    ['rows', 2, 0],
  ])('equals the whole attention run again at positions of its own: %s', async (_, strength, radius) => {
    const decoder = randomDecoder({ hidden: 48, heads: 4 }, strength);
    const positions = [Int32Array.from({ length: 20 }, (_, row) => 3 * row + (row > 11 ? 40 : 0))];
    const given = { ...input(48, 1), positions };
    const draws = 2;
    const unit = standardNormal(9 * draws * 48, 5);
    const all = windows({ height: 3, width: 3 }, radius);
    const most = Math.max(...all.map((window) => window.length));
    const noise = new Float32Array(9 * draws * most * 48);
    for (const [cell, window] of all.entries())
      for (let draw = 0; draw < draws; draw++)
        for (const [slot, row] of window.entries()) {
          const from = (row * draws + draw) * 48;
          noise.set(unit.subarray(from, from + 48), ((cell * draws + draw) * most + slot) * 48);
        }
    const attribution = await VisualAttribution.compile(decoder, [1], {
      ...paperPerturbation,
      draws,
      radius,
    });
    const [batched] = await attribution.run(given, { kind: 'given', values: [noise] });
    const [elsewhere] = await attribution.run(input(48, 1), { kind: 'given', values: [noise] });
    await attribution.dispose();
    const literal = await literalContributions(decoder, 1, given, draws, unit, all);
    expect(largestDifference(batched!.perDraw, literal)).toBeLessThan(2e-6);
    expect(largestDifference(batched!.perDraw, elsewhere!.perDraw)).toBeGreaterThan(1e-4);
  });

  test('scores far from zero neither overflow nor vanish in a window', async () => {
    const decoder = randomDecoder({ hidden: 48, heads: 4 }, 60);
    const attribution = await VisualAttribution.compile(decoder, [1], { ...paperPerturbation, radius: 1 });
    const [found] = await attribution.run(input(48, 1), { kind: 'seed', seed: 1 });
    await attribution.dispose();
    expect([...found!.perDraw].every((turn) => Number.isFinite(turn) && turn >= 0 && turn <= 1 + 1e-6)).toBe(
      true,
    );
  });

  test('perturbations that do not fit their input, or one another, are refused', async () => {
    const decoder = randomDecoder({ hidden: 32, heads: 4 });
    const attention = await PerturbedAttention.compile(decoder, [0, 2], 'attention-input', 'row');
    const perturbation: Perturbation = { variant: 'code', level: 0.7, draws: 2, radius: 0 };
    const grid = { height: 3, width: 3 };
    const good = perturbedItem(input(32, 2), [0, 1], grid, perturbation, { kind: 'seed', seed: 1 }, 32);
    const other = perturbedItem(input(32, 2), [0], grid, perturbation, { kind: 'seed', seed: 1 }, 32);
    const refused = [
      [{ ...good, rows: [15, 4] }], // the key row itself
      [{ ...good, rows: [-1, 4] }],
      [{ ...good, noise: [good.noise[0]!, good.noise[1]!.subarray(32)] }],
      [{ ...good, scale: [0.7] }],
      [{ ...good, cells: [[1], [0]] }],
      [{ ...good, keyRow: 20 }],
      [good, other],
    ];
    for (const items of refused)
      await expect(attention.run(items)).rejects.toThrow(/does not fit an input of 20 rows/);
    expect(await attention.run([])).toEqual([]);
    await attention.dispose();
  });

  test('small turns are told apart where 1 − cos would be rounded away', async () => {
    const decoder = randomDecoder({ hidden: 48, heads: 4 });
    const turns = async (level: number) => {
      const perturbation: Perturbation = { variant: 'code', level, draws: 1, radius: 0 };
      const attribution = await VisualAttribution.compile(decoder, [1], perturbation);
      const [result] = await attribution.run(input(48, 1), { kind: 'seed', seed: 2 });
      await attribution.dispose();
      return result!.mean;
    };
    const [small, smaller] = [await turns(1e-3), await turns(5e-4)];
    // The turn grows with the square of the noise, as far as float32 hidden states hold it; 1 − cos itself is a multiple of 6e-8 there.
    for (const [cell, value] of small.entries()) {
      expect(value).toBeLessThan(1e-6);
      expect(Math.abs(value / smaller[cell]! - 4)).toBeLessThan(0.4);
    }
  });

  test('the seed decides the noise, and a window is perturbed with the noise of its rows', async () => {
    const decoder = randomDecoder({ hidden: 32, heads: 4 });
    const perturbation: Perturbation = { variant: 'code', level: 0.7, draws: 3, radius: 1 };
    const attribution = await VisualAttribution.compile(decoder, [0, 2], perturbation);
    const run = (seed: number) => attribution.run(input(32, 2), { kind: 'seed', seed });
    const [first, again, other] = [await run(1), await run(1), await run(2)];
    expect(again).toEqual(first);
    expect(largestDifference(first[0]!.mean, other[0]!.mean)).toBeGreaterThan(1e-4);

    const drawn = standardNormal(3 * 9 * 32, 1);
    const given = new Float32Array(9 * 3 * 9 * 32);
    for (const [cell, window] of windows({ height: 3, width: 3 }, 1).entries()) {
      for (let draw = 0; draw < 3; draw++) {
        for (const [slot, row] of window.entries()) {
          const from = (draw * 9 + row) * 32;
          given.set(drawn.subarray(from, from + 32), ((cell * 3 + draw) * 9 + slot) * 32);
        }
      }
    }
    const same = await attribution.run(input(32, 2), { kind: 'given', values: [given, given] });
    await attribution.dispose();
    for (const layer of [0, 1]) {
      expect(largestDifference(same[layer]!.perDraw, first[layer]!.perDraw)).toBeLessThan(1e-6);
    }
  });

  test('splitting a run for memory changes nothing', async () => {
    const decoder = randomDecoder({ hidden: 32, heads: 4 });
    const attention = await PerturbedAttention.compile(decoder, [0, 2], 'attention-input', 'window');
    const perturbation: Perturbation = { variant: 'code', level: 0.7, draws: 3, radius: 1 };
    const cells = [0, 4, 8];
    const items = [1, 2, 3].map((seed) =>
      perturbedItem(input(32, 2), cells, { height: 3, width: 3 }, perturbation, { kind: 'seed', seed }, 32),
    );
    const together = await attention.run(items);
    const split = await attention.run(items, 1);
    await attention.dispose();
    for (const [item, turns] of together.entries()) {
      expect(turns[0]!.length).toBe(3 * cells.length);
      for (const layer of [0, 1])
        expect(largestDifference(split[item]![layer]!, turns[layer]!)).toBeLessThan(1e-6);
    }
    expect(largestDifference(together[0]![0]!, together[1]![0]!)).toBeGreaterThan(1e-4);
  });
});

describe('hidden states entering layers', () => {
  test('inputs have positions, windows of sight and added rows of their own', async () => {
    const decoder = { ...randomDecoder({ hidden: 32, heads: 4, slidingWindow: 6 }), addedLayers: 2 };
    const below = await LayerInputs.compile(decoder, [1, 2]);
    const rows = (seed: number) => standardNormal(12 * 32, seed);
    const one = {
      hidden: rows(1),
      positions: [Int32Array.from({ length: 12 }, (_, row) => 5 * row)],
      added: [rows(2), rows(3)],
    };
    const other = { hidden: rows(4).subarray(0, 9 * 32) };
    const together = await below.run([one, other, one]);
    const [alone] = await below.run([one]);
    const [otherAlone] = await below.run([other]);
    for (const layer of [0, 1]) {
      expect(largestDifference(together[0]![layer]!, alone![layer]!)).toBeLessThan(1e-5);
      expect(largestDifference(together[2]![layer]!, alone![layer]!)).toBeLessThan(1e-5);
      expect(largestDifference(together[1]![layer]!, otherAlone![layer]!)).toBeLessThan(1e-5);
    }
    // What is added after a layer is in what enters the next.
    const [without] = await below.run([{ ...one, added: [new Float32Array(12 * 32), one.added[1]!] }]);
    const shifted = without![0]!.map((value, at) => value + one.added[0]![at]!);
    expect(largestDifference(alone![0]!, shifted)).toBeLessThan(1e-5);
    const [plain] = await below.run([
      { ...one, positions: [Int32Array.from({ length: 12 }, (_, row) => row)] },
    ]);
    expect(largestDifference(alone![0]!, plain![0]!)).toBeGreaterThan(1e-3);
    // A row sees the last six of those before it, and no further.
    const moved = { ...one, hidden: one.hidden.map((value, at) => value + (at < 32 ? 1 : 0)) };
    const [seen] = await below.run([moved]);
    const row = (states: Float32Array, index: number) => states.subarray(index * 32, (index + 1) * 32);
    expect(largestDifference(row(seen![0]!, 5), row(alone![0]!, 5))).toBeGreaterThan(1e-4);
    expect(largestDifference(row(seen![0]!, 6), row(alone![0]!, 6))).toBeLessThan(1e-6);
    await below.dispose();
    await expect(LayerInputs.compile(decoder, [1, 2], 2)).rejects.toThrow(/give layers 2 to 2/);
  });

  test('norms are those of each layer, and what is no row is refused', async () => {
    const decoder = randomDecoder({ hidden: 32, heads: 4 });
    const norms = await AttentionNorms.compile(decoder, [0, 2]);
    const [first, second] = [standardNormal(3 * 32, 1), standardNormal(3 * 32, 2)];
    const both = await norms.run([first, second]);
    const swapped = await norms.run([second, first]);
    await norms.dispose();
    expect(largestDifference(both[0]!, swapped[1]!)).toBeGreaterThan(1e-3);
    expect(largestDifference(both[1]!, swapped[0]!)).toBeGreaterThan(1e-3);
    // Normed by root mean square, with the layer's own weight.
    const square = Math.sqrt(
      first.subarray(0, 32).reduce((sum, value) => sum + value * value, 0) / 32 + 1e-5,
    );
    const weight = both[0]!.subarray(0, 32).map((value, at) => (value * square) / first[at]!);
    const again = swapped[1]!.subarray(0, 32).map((value, at) => (value * square) / first[at]!);
    expect(largestDifference(weight, again)).toBeGreaterThan(1e-3);
    const below = await LayerInputs.compile(decoder, [1]);
    await expect(below.run([{ hidden: new Float32Array(33) }])).rejects.toThrow(
      /33 numbers are not rows of 32/,
    );
    await below.dispose();
  });
});

describe('visual attribution refuses', () => {
  const decoder = randomDecoder({ hidden: 32, heads: 4 });

  test.each([[[]], [[3]], [[-1]], [[1, 1]], [[2, 0]], [[0.5]]])('layers %j', async (layers) => {
    await expect(VisualAttribution.compile(decoder, layers)).rejects.toThrow(/layers 0 to 2, ascending/);
  });

  test.each([{ level: 0 }, { level: Number.NaN }, { draws: 0 }, { draws: 1.5 }, { radius: -1 }])(
    '%j',
    async (change) => {
      const perturbation = { ...paperPerturbation, ...change };
      await expect(VisualAttribution.compile(decoder, [1], perturbation)).rejects.toThrow(/cannot be used/);
    },
  );

  test('rows, grids and noise that do not fit the picture', async () => {
    const attribution = await VisualAttribution.compile(decoder, [1]);
    const good = input(32, 1);
    const seed = { kind: 'seed', seed: 0 } as const;
    await expect(attribution.run({ ...good, lastPromptRow: 11 }, seed)).rejects.toThrow(
      /before the last prompt token/,
    );
    await expect(attribution.run({ ...good, imageRows: [] }, seed)).rejects.toThrow(/needs a picture before/);
    await expect(attribution.run(good, seed, { height: 2, width: 4 })).rejects.toThrow(/grid 2×4/);
    await expect(attribution.run({ ...good, lastPromptRow: 20 }, seed)).rejects.toThrow(
      /does not fit an input of 20 rows/,
    );
    const noise = { kind: 'given', values: [new Float32Array(9 * 10 * 31)] } as const;
    await expect(attribution.run(good, noise)).rejects.toThrow(/windows have up to 1/);
    await attribution.dispose();
  });
});

test('queries without a place in the picture lie on a line', () => {
  expect(visualGrid(576)).toEqual({ height: 24, width: 24 });
  expect(visualGrid(32)).toEqual({ height: 1, width: 32 });
  expect(windows(visualGrid(5), 1)).toEqual([
    [0, 1],
    [0, 1, 2],
    [1, 2, 3],
    [2, 3, 4],
    [3, 4],
  ]);
});

test('standard normal noise has mean 0 and deviation 1', () => {
  const values = standardNormal(100_001, 9);
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  const variance = values.reduce((sum, value) => sum + value * value, 0) / values.length;
  expect(Math.abs(mean)).toBeLessThan(0.02);
  expect(Math.abs(variance - 1)).toBeLessThan(0.02);
});
