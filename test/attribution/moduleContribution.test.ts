import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { decoderOf } from '../../electron/attribution/layerInputs.ts';
import { ModuleAttribution, meanContributions } from '../../electron/attribution/moduleContribution.ts';
import type { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { largestDifference } from '../support/fixtures.ts';
import { openTinyModel, promptOf, referenceCase } from './support.ts';

const samples = ['edit', 'image_loc', 'text_loc'];

describe('module contributions', () => {
  let model: VisionLanguageModel;
  beforeAll(async () => {
    model = await openTinyModel();
  });
  afterAll(() => model.dispose());

  test.each([
    ['code', 'official'],
    ['paper', 'paper'],
  ] as const)(
    '%s: equal to the reference, for the predicted and for the target token',
    async (variant, name) => {
      const { settings, floats } =
        await referenceCase<Record<string, { predicted_id: number; first_target_id: number }>>('e1');
      const attribution = await ModuleAttribution.compile(decoderOf(model), variant);
      for (const sample of samples) {
        const input = await promptOf(model, sample);
        const { predicted_id, first_target_id } = settings[sample]!;
        for (const token of ['predicted', 'target'] as const) {
          const [result] = await attribution.run(input, [
            token === 'predicted' ? 'predicted' : first_target_id,
          ]);
          if (!result) throw new Error('nothing came back');
          expect(result.keyToken).toBe(token === 'predicted' ? predicted_id : first_target_id);
          const near = async (values: ArrayLike<number>, what: string, tolerance = 1e-5) => {
            const expected = await floats(`${sample}.${token}.${name}.${what}`);
            expect(largestDifference(values, expected), `${sample} ${token} ${what}`).toBeLessThan(tolerance);
          };
          // Logits carry the rounding of the whole model, as everywhere.
          await near([result.largestLogit], 'max_abs_v', 3e-4);
          await near(result.attention.contribution, 'c_att');
          await near(result.mlp.contribution, 'c_mlp');
          for (const [kind, short] of [
            ['attention', 'att'],
            ['mlp', 'mlp'],
            ['layer', 'layer'],
          ] as const) {
            await near(result[kind].logit, `v_${short}`, 3e-4);
            await near(result[kind].probability, `p_${short}`);
          }
        }
      }
      await attribution.dispose();
    },
  );

  test('averages over prompts layer by layer', async () => {
    const attribution = await ModuleAttribution.compile(decoderOf(model));
    const results = [];
    for (const sample of ['edit', 'image_loc'])
      results.push(...(await attribution.run(await promptOf(model, sample))));
    await attribution.dispose();
    const mean = meanContributions(results);
    expect(mean.prompts).toBe(2);
    for (let layer = 0; layer < 6; layer++) {
      const both = results.map((result) => result.mlp.contribution[layer]!);
      expect(mean.mlp[layer]).toBeCloseTo((both[0]! + both[1]!) / 2, 6);
    }
    expect(() => meanContributions([])).toThrow(/at least one prompt/);
  });

  test('several key tokens at once are what each is alone, in their order', async () => {
    const attribution = await ModuleAttribution.compile(decoderOf(model));
    const input = await promptOf(model, 'edit');
    const [predicted, other] = await attribution.run(input, ['predicted', 7]);
    expect([predicted!.keyToken, other!.keyToken]).toEqual([(await attribution.run(input))[0]!.keyToken, 7]);
    expect(other).toEqual((await attribution.run(input, [7]))[0]);
    expect(largestDifference(other!.mlp.logit, predicted!.mlp.logit)).toBeGreaterThan(1e-3);
    await attribution.dispose();
  });

  test('refuses a key token the model does not have', async () => {
    const attribution = await ModuleAttribution.compile(decoderOf(model));
    await expect(attribution.run(await promptOf(model, 'edit'), [448])).rejects.toThrow(/448 is not one of/);
    await attribution.dispose();
  });
});
