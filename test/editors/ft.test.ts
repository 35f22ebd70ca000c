import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import { FtLanguage, FtLanguageSettings, ftLanguageNeeds } from '../../electron/editors/ft/ftLanguage.ts';
import { FtVision, FtVisionSettings, ftVisionNeeds } from '../../electron/editors/ft/ftVision.ts';
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
let editor: FtLanguage | FtVision | undefined;
beforeAll(async () => {
  reference = await EditorReference.open('ft');
});
afterEach(async () => {
  await editor?.dispose();
  await model?.dispose();
});

const at = (folder: string) => fixture(`checkpoints/${folder}`);

async function openLanguage(folder: string, given: Partial<FtLanguageSettings>) {
  const settings = FtLanguageSettings.parse(given);
  const needs = ftLanguageNeeds(settings, (await openCheckpoint(at(folder))).backbone.decoder);
  model = await VisionLanguageModel.open(at(folder), { providers: ['cpu'], threads: 1, ...needs });
  editor = new FtLanguage(model, settings);
  return { model, editor };
}

async function openVision(folder: string, given: Partial<FtVisionSettings>) {
  const settings = FtVisionSettings.parse(given);
  const needs = ftVisionNeeds(settings, (await openCheckpoint(at(folder))).backbone);
  model = await VisionLanguageModel.open(at(folder), {
    providers: ['cpu'],
    threads: 1,
    cuts: [2],
    changeable: needs.changeable,
  });
  editor = new FtVision(model, settings);
  return { model, editor };
}

describe.each([
  [
    'ft_l.down_proj',
    6e-4,
    (common: object) => openLanguage('llava_tiny', { ...common, weights: 'mlp output' }),
  ],
  [
    'ft_l.down_proj_norm',
    6e-4,
    (common: object) => openLanguage('llava_tiny', { ...common, weights: 'mlp output' }),
  ],
  [
    'ft_l.whole_layer',
    6e-4,
    (common: object) => openLanguage('llava_tiny', { ...common, weights: 'whole layer' }),
  ],
  ['ft_v.projector', 6e-4, (common: object) => openVision('llava_tiny', { ...common, part: 'connector' })],
  [
    'ft_v.vision_layer',
    3e-2,
    (common: object) => openVision('llava_tiny', { ...common, part: 'vision layer' }),
  ],
] as const)('%s', (set, tolerance, open) => {
  test('equals the reference', async () => {
    const { lr, steps, stop_below, sets } = reference.json;
    const { losses_before_steps, delta_norms, norm = null, cases } = sets[set]!;
    const { model, editor } = await open({ rate: lr, steps, stopBelow: stop_below, norm });
    const { losses, deltas, firstGradients, changes } = await editor.tune(
      model,
      await reference.request(model),
    );
    expect(largestDifference(losses, losses_before_steps)).toBeLessThan(tolerance === 3e-2 ? 2e-3 : 2e-4);
    expect([...deltas.keys()].sort()).toEqual(Object.keys(delta_norms).sort());
    for (const [name, length] of Object.entries(delta_norms)) {
      // Its gradient is zero in exact arithmetic: softmax does not see it.
      if (name.endsWith('k_proj.bias')) continue;
      expect(Math.abs(Math.hypot(...deltas.get(name)!) - length), name).toBeLessThan(2e-3 * length);
    }
    for (const [name, gradient] of firstGradients) {
      const stored = `${set}.first_grad.${name}`;
      if (!reference.names.includes(stored)) continue;
      const wanted = await reference.floats(stored);
      const largest = wanted.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      expect(largestDifference(gradient, wanted) / largest).toBeLessThan(1e-4);
      expect(
        largestDifference(deltas.get(name)!, await reference.floats(`${set}.delta.${name}`)),
      ).toBeLessThan(3e-3);
    }
    await reference.expectAnswers(model, changes, `${set}.`, cases, tolerance);
  });
});

test('no step is taken from a loss that is low enough, and none after the work was stopped', async () => {
  const { model, editor } = await openLanguage('llava_tiny', { stopBelow: 9.2 });
  const request = await reference.request(model);
  const { losses } = await editor.tune(model, request);
  expect(losses.length).toBe(2);
  expect(losses[1]).toBeLessThan(9.2);
  const stopping = new AbortController();
  const told: number[] = [];
  const work = {
    signal: stopping.signal,
    progress: (done: number, total: number) => {
      told.push(done);
      expect(total).toBe(25);
      if (done === 1) stopping.abort();
    },
  };
  const endless = new FtLanguage(model, FtLanguageSettings.parse({ stopBelow: 0 }));
  try {
    await expect(endless.make(model, request, work)).rejects.toThrow(
      expect.objectContaining({ code: 'cancelled' }),
    );
    expect(told).toEqual([0, 1]);
  } finally {
    await endless.dispose();
  }
});
