import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  InfluenceAttribution,
  type InfluencePair,
  influenceTarget,
  layersAfterEdit,
} from '../../electron/attribution/influenceTarget.ts';
import { decoderOf } from '../../electron/attribution/layerInputs.ts';
import {
  type Perturbation,
  standardNormal,
  VisualAttribution,
} from '../../electron/attribution/visualContribution.ts';
import type { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { largestDifference } from '../support/fixtures.ts';
import { hiddenOf, openTinyModel, randomDecoder, referenceCase } from './support.ts';

interface Settings {
  IT_layers: number[];
  test_n: number;
  window: number;
  sampled_tokens: number[];
  rg_sample: string;
}

describe('targets of the influence mapper', () => {
  let model: VisionLanguageModel;
  beforeAll(async () => {
    model = await openTinyModel();
  });
  afterAll(() => model.dispose());

  describe.each(['vead_losses', 'vead_losses_window1_n3'])('%s', (name) => {
    test.each(['paper', 'none', 'official'] as const)('%s: equal to the reference', async (replacement) => {
      const { settings, floats } = await referenceCase<Settings>(name);
      const layers = settings.IT_layers;
      const edit = await hiddenOf(model, 'edit', layers);
      const neighbour = await hiddenOf(model, settings.rg_sample, layers);
      const noise = await floats('noise');
      const size = noise.length / layers.length;
      const pair: InfluencePair = {
        edit,
        neighbour,
        cells: settings.sampled_tokens,
        noise: {
          kind: 'given',
          values: layers.map((_, index) => noise.subarray(index * size, (index + 1) * size)),
        },
      };
      // The stored noise is scaled already.
      const perturbation: Perturbation = {
        variant: 'code',
        level: 1,
        draws: settings.test_n,
        radius: settings.window,
      };
      const attribution = await InfluenceAttribution.compile(
        decoderOf(model),
        layers,
        perturbation,
        replacement,
      );
      const [result] = await attribution.run([pair]);
      await attribution.dispose();
      const perLayer = await floats(`attr.${replacement}.per_layer`);
      const cells = settings.sampled_tokens.length;
      result!.perLayer.forEach((values, index) => {
        const expected = perLayer.subarray(index * cells, (index + 1) * cells);
        expect(largestDifference(values, expected)).toBeLessThan(2e-5);
      });
      const target = influenceTarget(result!.mean);
      expect(largestDifference(target, await floats(`attr.${replacement}.target`))).toBeLessThan(2e-5);
    });
  });

  test('pairs of different lengths give together what each gives alone', async () => {
    const layers = [3, 4];
    const perturbation: Perturbation = { variant: 'paper', level: 3, draws: 2, radius: 0 };
    const [edit, other] = [await hiddenOf(model, 'edit', layers), await hiddenOf(model, 'image_loc', layers)];
    expect(edit.lastPromptRow).not.toBe(other.lastPromptRow);
    const cells = Array.from({ length: 16 }, (_, cell) => cell);
    const pairs: InfluencePair[] = [
      { edit, neighbour: other, cells, noise: { kind: 'seed', seed: 1 } },
      { edit: other, neighbour: edit, cells, noise: { kind: 'seed', seed: 2 } },
    ];
    const attribution = await InfluenceAttribution.compile(decoderOf(model), layers, perturbation);
    const together = await attribution.run(pairs);
    for (const [index, pair] of pairs.entries()) {
      const [alone] = await attribution.run([pair]);
      expect(largestDifference(alone!.mean, together[index]!.mean)).toBeLessThan(1e-6);
    }
    await attribution.dispose();
  });

  describe('on a decoder of random weights', () => {
    const width = 32;
    const decoder = randomDecoder({ hidden: width, heads: 4 });
    const layers = [1, 2];
    const perturbation: Perturbation = { variant: 'code', level: 0.7, draws: 2, radius: 0 };
    const noise = { kind: 'seed', seed: 4 } as const;
    const rows = (count: number, seed: number) =>
      layers.map((layer) => standardNormal(count * width, seed + layer));
    const positions = (count: number, step: number) => [
      Int32Array.from({ length: count }, (_, row) => step * row),
    ];
    const edit = {
      hidden: rows(14, 10),
      imageRows: [2, 3, 4, 5],
      lastPromptRow: 10,
      positions: positions(14, 1),
    };
    const cells = [0, 2, 3];
    /** Contributions in an input that is laid out by hand, nothing replaced. */
    const literal = async (input: InfluencePair['edit']) => {
      const attribution = await InfluenceAttribution.compile(decoder, layers, perturbation, 'none');
      const [found] = await attribution.run([{ edit: input, neighbour: input, cells, noise }]);
      await attribution.dispose();
      return found!;
    };
    const replaced = async (pair: Pick<InfluencePair, 'edit' | 'neighbour'>) => {
      const attribution = await InfluenceAttribution.compile(decoder, layers, perturbation);
      const [found] = await attribution.run([{ ...pair, cells, noise }]);
      await attribution.dispose();
      return found!;
    };
    const joined = (...parts: Float32Array[]) => Float32Array.from(parts.flatMap((part) => [...part]));

    test('a neighbour of the same rows takes their place, row by row and layer by layer, and the edit stays as it is', async () => {
      const neighbour = { hidden: rows(9, 20), imageRows: [2, 3, 4, 5], positions: positions(9, 1) };
      const kept = edit.hidden.map((states) => states.slice());
      const found = await replaced({ edit, neighbour });
      expect(edit.hidden).toEqual(kept);
      const hidden = edit.hidden.map((states, at) =>
        joined(
          states.subarray(0, 2 * width),
          neighbour.hidden[at]!.subarray(2 * width, 6 * width),
          states.subarray(6 * width),
        ),
      );
      const expected = await literal({ ...edit, hidden });
      expect(largestDifference(found.mean, expected.mean)).toBeLessThan(1e-6);
      // Averaged over layers and draws, the published code's without the half.
      for (const [at, value] of found.mean.entries())
        expect(value).toBeCloseTo((found.perLayer[0]![at]! + found.perLayer[1]![at]!) / 2, 6);
      const target = {
        ...edit,
        hidden: edit.hidden.map((states) => states.map((v, at) => (at >= 11 * width ? 99 : v))),
      };
      expect((await replaced({ edit: target, neighbour })).mean).toEqual(found.mean);
    });

    test('a neighbour of other rows goes before the edit’s question, which follows it as it followed its own picture', async () => {
      const neighbour = { hidden: rows(9, 20), imageRows: [1, 2, 3, 4, 5, 6], positions: positions(9, 2) };
      const found = await replaced({ edit, neighbour });
      const hidden = edit.hidden.map((states, at) =>
        joined(neighbour.hidden[at]!.subarray(0, 7 * width), states.subarray(6 * width, 11 * width)),
      );
      // The picture's last row is at 12; the edit's own was at 5, its question began at 6.
      const at = [Int32Array.of(0, 2, 4, 6, 8, 10, 12, 13, 14, 15, 16, 17)];
      const expected = await literal({
        hidden,
        imageRows: neighbour.imageRows,
        lastPromptRow: 11,
        positions: at,
      });
      expect(largestDifference(found.mean, expected.mean)).toBeLessThan(1e-6);
      const unmoved = [Int32Array.of(0, 2, 4, 6, 8, 10, 12, 6, 7, 8, 9, 10)];
      const other = await literal({
        hidden,
        imageRows: neighbour.imageRows,
        lastPromptRow: 11,
        positions: unmoved,
      });
      expect(largestDifference(found.mean, other.mean)).toBeGreaterThan(1e-5);
    });

    test('rows at other positions are other rows, and the official replacement does not take them', async () => {
      const neighbour = { hidden: rows(9, 20), imageRows: [2, 3, 4, 5], positions: positions(9, 2) };
      const found = await replaced({ edit, neighbour });
      const hidden = edit.hidden.map((states, at) =>
        joined(neighbour.hidden[at]!.subarray(0, 6 * width), states.subarray(6 * width, 11 * width)),
      );
      const at = [Int32Array.of(0, 2, 4, 6, 8, 10, 11, 12, 13, 14, 15)];
      const expected = await literal({ ...edit, hidden, positions: at });
      expect(largestDifference(found.mean, expected.mean)).toBeLessThan(1e-6);
      const official = await InfluenceAttribution.compile(decoder, layers, perturbation, 'official');
      await expect(official.run([{ edit, neighbour, cells, noise }])).rejects.toThrow(/the same rows/);
      await official.dispose();
    });

    test('the paper’s noise counts half of 1 − cos, whatever the number of draws', async () => {
      const one = { ...perturbation, variant: 'paper', level: 3, draws: 1 } as const;
      const values = layers.map((layer) => standardNormal(cells.length * width, layer));
      const twice = layers.map((_, layer) => {
        const doubled = new Float32Array(2 * cells.length * width);
        for (let cell = 0; cell < cells.length; cell++)
          for (const draw of [0, 1])
            doubled.set(values[layer]!.subarray(cell * width, (cell + 1) * width), (2 * cell + draw) * width);
        return doubled;
      });
      const found = async (of: Perturbation, given: Float32Array[]) => {
        const attribution = await InfluenceAttribution.compile(decoder, layers, of, 'none');
        const [result] = await attribution.run([
          { edit, neighbour: edit, cells, noise: { kind: 'given', values: given } },
        ]);
        await attribution.dispose();
        return result!.mean;
      };
      const single = await found(one, values);
      expect(largestDifference(await found({ ...one, draws: 2 }, twice), single)).toBeLessThan(1e-6);
      const visual = await VisualAttribution.compile(decoder, [2], one);
      const all = new Float32Array(4 * width);
      for (const [at, cell] of cells.entries())
        all.set(values[1]!.subarray(at * width, (at + 1) * width), cell * width);
      const [eq7] = await visual.run(
        { ...edit, hidden: [edit.hidden[1]!] },
        { kind: 'given', values: [all] },
      );
      await visual.dispose();
      const attribution = await InfluenceAttribution.compile(decoder, layers, one, 'none');
      const [own] = await attribution.run([
        { edit, neighbour: edit, cells, noise: { kind: 'given', values } },
      ]);
      await attribution.dispose();
      for (const [at, cell] of cells.entries())
        expect(Math.abs(own!.perLayer[1]![at]! - eq7!.mean[cell]!)).toBeLessThan(1e-6);
    });
  });

  test('refuses a neighbour without states at each layer, and the official replacement before the norm', async () => {
    const decoder = decoderOf(model);
    const perturbation: Perturbation = { variant: 'paper', level: 3, draws: 1, radius: 0 };
    await expect(InfluenceAttribution.compile(decoder, [3], perturbation, 'official')).rejects.toThrow(
      /published code/,
    );
    const attribution = await InfluenceAttribution.compile(decoder, [3], perturbation);
    const edit = await hiddenOf(model, 'edit', [3]);
    const pair: InfluencePair = {
      edit,
      neighbour: { ...edit, hidden: [] },
      cells: [0],
      noise: { kind: 'seed', seed: 0 },
    };
    await expect(attribution.run([pair])).rejects.toThrow(/at each of the layers/);
    await attribution.dispose();
  });
});

test('the target sums to one, and is even where nothing contributes', () => {
  expect(Array.from(influenceTarget(Float32Array.of(1, 3, 0, 4)))).toEqual([0.125, 0.375, 0, 0.5]);
  expect(Array.from(influenceTarget(new Float32Array(4)))).toEqual([0.25, 0.25, 0.25, 0.25]);
});

test('the published code attributes at the layers after the edit layer but the last', () => {
  expect(layersAfterEdit(2, 6)).toEqual([3, 4]);
  expect(layersAfterEdit(4, 6)).toEqual([5]);
  expect(() => layersAfterEdit(5, 6)).toThrow(/take 0 to 4/);
});
