import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  InfluenceAttribution,
  type InfluencePair,
  influenceTarget,
  layersAfterEdit,
} from '../../electron/attribution/influenceTarget.ts';
import { decoderOf } from '../../electron/attribution/layerInputs.ts';
import type { Perturbation } from '../../electron/attribution/visualContribution.ts';
import type { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { largestDifference } from '../support/fixtures.ts';
import { hiddenOf, openTinyModel, referenceCase } from './support.ts';

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
