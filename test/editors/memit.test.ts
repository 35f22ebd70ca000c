import { expect, test } from 'vitest';
import type { KeyMoments } from '../../electron/editors/keyMoments.ts';
import { Memit, MemitSettings, memitNeeds } from '../../electron/editors/memit/memit.ts';
import { openCheckpoint } from '../../electron/models/open.ts';
import type { Visual } from '../../electron/models/picture.ts';
import { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { type LinearChange, matrixOf } from '../../electron/models/weightChanges.ts';
import { type Cases, EditorReference } from '../support/editorFixtures.ts';
import { fixture, largestDifference } from '../support/fixtures.ts';

interface MemitJson {
  readonly layers: readonly number[];
  readonly facts: ReadonlyArray<Readonly<Record<'image' | 'prompt' | 'target' | 'subject', string>>>;
  readonly lambda_: number;
  readonly contexts: readonly string[];
  readonly settings: Readonly<
    Record<
      'lr' | 'forward_passes' | 'weight_decay' | 'kl_factor' | 'clamp_norm_factor' | 'stop_below',
      number
    >
  >;
  readonly optimisation: ReadonlyArray<{
    readonly terms_before_steps: ReadonlyArray<
      Readonly<Record<'loss' | 'nll' | 'kl' | 'weight_decay' | 'delta_norm', number>>
    >;
  }>;
  readonly layers_log: ReadonlyArray<{ readonly residual_norm: readonly number[] }>;
  readonly final_residual_norm: readonly number[];
  readonly cases: Cases;
}

test('MEMIT of two facts at two layers equals the reference', async () => {
  const reference = await EditorReference.open<MemitJson>('memit');
  const { layers, facts, lambda_, contexts, settings, optimisation, layers_log, ...wanted } = reference.json;
  const given = MemitSettings.parse({
    layers: layers.join(', '),
    lambda: lambda_,
    rate: settings.lr,
    passes: settings.forward_passes,
    decay: settings.weight_decay,
    klFactor: settings.kl_factor,
    clamp: settings.clamp_norm_factor,
    stopBelow: settings.stop_below,
    contexts: [...contexts],
  });
  const folder = fixture('checkpoints/llava_tiny');
  const { backbone } = await openCheckpoint(folder);
  const model = await VisionLanguageModel.open(folder, {
    providers: ['cpu'],
    threads: 1,
    ...memitNeeds(given, backbone.decoder),
  });
  const editor = new Memit(model, given);
  try {
    const ids = await reference.integers('cov_ids');
    const [count, size] = ids.shape as [number, number];
    const sequences = Array.from({ length: count }, (_, at) => ids.data.slice(at * size, (at + 1) * size));
    const moments = new Map<number, KeyMoments>();
    for (const layer of layers) {
      const found = await editor.momentsOver(layer, sequences);
      const stored = await reference.floats(`cov.layer${layer}`);
      expect(largestDifference(found.moments, stored)).toBeLessThan(1e-5);
      moments.set(layer, found);
    }
    const requests = [];
    for (const { image, ...fact } of facts)
      requests.push({ ...fact, visual: (await reference.visual(model, image)) as Visual });
    const { changes, vectors, steps, left } = await editor.edit(requests, moments);
    const near = async (values: ArrayLike<number>, tensor: string, tolerance: number) =>
      expect(largestDifference(values, await reference.floats(tensor)), tensor).toBeLessThan(tolerance);
    for (const [fact, vector] of vectors.entries()) {
      const { terms_before_steps } = optimisation[fact]!;
      expect(vector.terms.length).toBe(terms_before_steps.length);
      for (const [at, terms] of terms_before_steps.entries()) {
        const found = vector.terms[at]!;
        for (const [ours, theirs] of [
          [found.loss, terms.loss],
          [found.nll, terms.nll],
          [found.kl, terms.kl],
          [found.decay, terms.weight_decay],
        ] as const)
          expect(Math.abs(ours - theirs), `fact ${fact}, pass ${at}`).toBeLessThan(5e-4);
      }
      await near(vector.firstGradient, `fact${fact}.first_grad`, 2e-5);
      await near(vector.initial, `fact${fact}.z_init`, 5e-4);
      await near(vector.delta, `fact${fact}.delta`, 3e-3);
      await near(vector.target, `fact${fact}.z`, 3e-3);
    }
    for (const [at, { layer, keys, lacking }] of steps.entries()) {
      await near(
        keys.flatMap((key) => [...key]),
        `layer${layer}.keys`,
        5e-4,
      );
      expect(largestDifference(lacking, layers_log[at]!.residual_norm)).toBeLessThan(5e-3);
      const change = changes.get(model.decoder.mlp(layer).out) as LinearChange;
      await near(matrixOf(change).matrix, `layer${layer}.delta_w`, 1e-4);
    }
    expect(largestDifference(left, wanted.final_residual_norm)).toBeLessThan(5e-3);
    await reference.expectAnswers(model, changes, '', wanted.cases, 6e-4);
  } finally {
    await editor.dispose();
    await model.dispose();
  }
});
