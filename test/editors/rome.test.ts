import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { keyPlaces, Rome, RomeSettings, romeNeeds } from '../../electron/editors/rome/rome.ts';
import { openCheckpoint } from '../../electron/models/open.ts';
import { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { type LinearChange, matrixOf } from '../../electron/models/weightChanges.ts';
import { type Cases, EditorReference } from '../support/editorFixtures.ts';
import { fixture, largestDifference } from '../support/fixtures.ts';

interface RomeJson {
  readonly layer: number;
  readonly subject: string;
  readonly settings: Readonly<
    Record<
      'lr' | 'forward_passes' | 'weight_decay' | 'kl_factor' | 'clamp_norm_factor' | 'stop_below',
      number
    >
  >;
  readonly cases: Readonly<
    Record<
      string,
      {
        readonly fact_token: string;
        readonly contexts: readonly string[];
        readonly terms_before_steps: ReadonlyArray<
          Readonly<Record<'loss' | 'nll' | 'kl' | 'weight_decay' | 'delta_norm', number>>
        >;
        readonly cases: Cases;
      }
    >
  >;
}

async function open(folder: string, given: Partial<RomeSettings>) {
  const settings = RomeSettings.parse(given);
  const { backbone } = await openCheckpoint(fixture(`checkpoints/${folder}`));
  const needs = romeNeeds(settings, backbone.decoder);
  const model = await VisionLanguageModel.open(fixture(`checkpoints/${folder}`), {
    providers: ['cpu'],
    threads: 1,
    ...needs,
  });
  return { model, editor: new Rome(model, settings) };
}

describe('ROME equals the reference', async () => {
  const reference = await EditorReference.open<RomeJson>('rome');
  const { layer, subject, settings, cases } = reference.json;

  test.each(Object.keys(cases))('%s', async (name) => {
    const wanted = cases[name]!;
    const { model, editor } = await open('llava_tiny', {
      layer,
      rate: settings.lr,
      passes: settings.forward_passes,
      decay: settings.weight_decay,
      klFactor: settings.kl_factor,
      clamp: settings.clamp_norm_factor,
      stopBelow: settings.stop_below,
      contexts: [...wanted.contexts],
      keyToken: wanted.fact_token === 'last' ? 'prompt' : 'subject',
    });
    try {
      const ids = await reference.integers('cov_ids');
      const [count, size] = ids.shape as [number, number];
      const moments = await editor.momentsOver(
        Array.from({ length: count }, (_, at) => ids.data.slice(at * size, (at + 1) * size)),
      );
      expect(largestDifference(moments.moments, await reference.floats('cov'))).toBeLessThan(1e-5);

      const request = { ...(await reference.request(model)), subject };
      const { vector, keys, u, right, changes } = await editor.edit(request, moments);
      for (const [at, terms] of wanted.terms_before_steps.entries()) {
        const found = vector.terms[at]!;
        expect(Math.abs(found.loss - terms.loss), `loss ${at}`).toBeLessThan(5e-4);
        expect(Math.abs(found.nll - terms.nll), `nll ${at}`).toBeLessThan(5e-4);
        expect(Math.abs(found.kl - terms.kl), `kl ${at}`).toBeLessThan(5e-4);
        expect(Math.abs(found.decay - terms.weight_decay), `decay ${at}`).toBeLessThan(5e-4);
      }
      expect(vector.terms.length).toBe(wanted.terms_before_steps.length);
      const near = async (values: ArrayLike<number>, tensor: string, tolerance: number) =>
        expect(largestDifference(values, await reference.floats(`${name}.${tensor}`)), tensor).toBeLessThan(
          tolerance,
        );
      await near(vector.firstGradient, 'first_grad', 2e-5);
      await near(vector.initial, 'v_init', 3e-4);
      await near(vector.delta, 'delta', 3e-3);
      await near(vector.target, 'v_star', 3e-3);
      await near(
        keys.flatMap((key) => [...key]),
        'keys',
        3e-4,
      );
      await near(u, 'u', 5e-6);
      await near(right, 'right', name === 'last' ? 2e-4 : 1e-4);
      const change = changes.get(editor.changeable[0]!) as LinearChange;
      if (reference.names.includes(`${name}.delta_w`)) await near(matrixOf(change).matrix, 'delta_w', 1e-4);
      await reference.expectAnswers(model, changes, `${name}.`, wanted.cases, 6e-4);
    } finally {
      await editor.dispose();
      await model.dispose();
    }
  });
});

describe('ROME is told what it needs', () => {
  test('texts of a file give the covariance; too few of them, and subjects that are not in the prompt, are refused', async () => {
    const base = await mkdtemp(join(tmpdir(), 'emend-rome-'));
    const reference = await EditorReference.open<RomeJson>('rome');
    const texts = join(base, 'texts.txt');
    await writeFile(texts, 'A dog.\n\nTwo cats.\n');
    const { model, editor } = await open('llava_tiny', { layer: 2, passes: 2, texts });
    try {
      const request = await reference.request(model);
      await expect(editor.make(model, request)).rejects.toThrow(/cannot be inverted/);
      await expect(editor.edit({ ...request, subject: 'zebra' }, null)).rejects.toThrow(/zebra/);
      const placed = await keyPlaces(
        model,
        { ...request, subject: 'on the left' },
        ['', 'There it is. '],
        'subject',
      );
      const { prompts, unchanged } = placed;
      for (const { input, row } of prompts) {
        // The mark merges with the subject's last characters.
        expect(model.tokenizer.tokenText(input.ids[row]!).trim()).toBe('left?');
        expect(row).toBeLessThan(input.lastPromptRow);
      }
      expect(unchanged.input.imageRows).toBeNull();
      const last = await keyPlaces(model, { ...request, subject: 'animal' }, [''], 'prompt');
      expect(last.prompts[0]!.row).toBe(last.prompts[0]!.input.lastPromptRow);
    } finally {
      await editor.dispose();
      await model.dispose();
      await rm(base, { recursive: true, force: true });
    }
  });
});
