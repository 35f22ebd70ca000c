import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import { FtLanguage, FtLanguageSettings, ftLanguageNeeds } from '../../electron/editors/ft/ftLanguage.ts';
import { openCheckpoint } from '../../electron/models/open.ts';
import { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { type Cases, EditorReference } from '../support/editorFixtures.ts';
import { fixture, largestDifference } from '../support/fixtures.ts';

interface FtJson {
  readonly lr: number;
  readonly steps: number;
  readonly stop_below: number;
  readonly sets: Readonly<
    Record<
      string,
      {
        readonly losses_before_steps: readonly number[];
        readonly delta_norms: Readonly<Record<string, number>>;
        readonly norm?: number;
        readonly cases: Cases;
      }
    >
  >;
}

let reference: EditorReference<FtJson>;
let model: VisionLanguageModel | undefined;
let editor: FtLanguage | undefined;
beforeAll(async () => {
  reference = await EditorReference.open('ft');
});
afterEach(async () => {
  await editor?.dispose();
  await model?.dispose();
});

async function open(folder: string, given: Partial<FtLanguageSettings>) {
  const settings = FtLanguageSettings.parse(given);
  const { backbone } = await openCheckpoint(fixture(`checkpoints/${folder}`));
  const needs = ftLanguageNeeds(settings, backbone.decoder);
  model = await VisionLanguageModel.open(fixture(`checkpoints/${folder}`), { providers: ['cpu'], ...needs });
  editor = new FtLanguage(model, settings);
  return { model, editor };
}

describe('FT-L equals the reference', () => {
  test.each([
    ['down_proj', 'mlp output'],
    ['down_proj_norm', 'mlp output'],
    ['whole_layer', 'whole layer'],
  ] as const)('%s', async (set, weights) => {
    const { lr, steps, stop_below, sets } = reference.json;
    const { losses_before_steps, delta_norms, norm = null, cases } = sets[`ft_l.${set}`]!;
    const { model, editor } = await open('llava_tiny', {
      ...{ weights, rate: lr, steps, stopBelow: stop_below, norm },
    });
    const { losses, deltas, firstGradients, changes } = await editor.tune(
      model,
      await reference.request(model),
    );
    expect(largestDifference(losses, losses_before_steps)).toBeLessThan(2e-4);
    expect([...deltas.keys()].sort()).toEqual(Object.keys(delta_norms).sort());
    for (const [name, length] of Object.entries(delta_norms))
      expect(Math.hypot(...deltas.get(name)!)).toBeCloseTo(length, 3);
    for (const [name, gradient] of firstGradients) {
      const stored = `ft_l.${set}.first_grad.${name}`;
      if (!reference.names.includes(stored)) continue;
      const wanted = await reference.floats(stored);
      const largest = wanted.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      expect(largestDifference(gradient, wanted) / largest).toBeLessThan(1e-4);
      const delta = await reference.floats(`ft_l.${set}.delta.${name}`);
      expect(largestDifference(deltas.get(name)!, delta)).toBeLessThan(3e-3);
    }
    await reference.expectAnswers(model, changes, `ft_l.${set}.`, cases, 6e-4);
  });
});
