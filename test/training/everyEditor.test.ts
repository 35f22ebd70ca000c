/**
 * @file Every editor that is trained from the common loop: stopped and taken up again it ends in the same weights to the bit, with what the frozen
 * model makes of pictures kept on disk or not; its loss falls, and the folder made of it opens and edits.
 */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { writeAdapterFiles } from '../../electron/editors/adapterFiles.ts';
import { EditedModel } from '../../electron/editors/editedModel.ts';
import { demandEditor, readAdapter } from '../../electron/editors/registry.ts';
import { parseSettings } from '../../electron/editors/settings.ts';
import type { TrainingRun } from '../../electron/editors/training/editorTraining.ts';
import { trainEditor } from '../../electron/editors/training/trainEditor.ts';
import { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { adamDefaults } from '../../electron/training/optimizer.ts';
import { writeTinyCheckpoint } from '../support/checkpointFixtures.ts';
import { tinyEdits } from '../support/tinyEdits.ts';

const folder = mkdtempSync(join(tmpdir(), 'emend-every-editor-'));
const at = (...names: string[]) => join(folder, ...names);
beforeAll(() => writeTinyCheckpoint(at('model')));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const trained: ReadonlyArray<readonly [name: string, settings: Record<string, unknown>]> = [
  ['MEND', { lastLayers: 2, rank: 8, editRate: 1e-2 }],
  ['LTE', { rank: 2 }],
  ['SERAC', { rank: 2, width: 16 }],
  ['KE', { lstmWidth: 8, conditionWidth: 16, maxScale: 10 }],
];

test.each(trained)(
  '%s',
  async (name, given) => {
    const { training } = demandEditor(name);
    const settings = parseSettings(name, training!.settings, given);
    const plain = await VisionLanguageModel.open(at('model'), { providers: ['cpu'], decoderLater: true });
    const needs = training!.needs(settings, plain.checkpoint);
    await plain.dispose();
    const model = await VisionLanguageModel.open(at('model'), { providers: ['cpu'], ...needs });
    try {
      const losses: number[] = [];
      let heard = (_: number) => {};
      // The same two edits again and again, one a batch: their loss must fall.
      const source = {
        ...tinyEdits(model),
        batch: (number: number, count: number) => {
          heard(number);
          return tinyEdits(model).batch(number % 2, count);
        },
      };
      const pictureCache = { folder: at(`${name}-pictures`), limitBytes: 1e9 };
      const train = (state: string, run: Partial<TrainingRun> = {}, repeats = false) =>
        trainEditor(
          model,
          { ...source, repeats },
          { edits: 1, accumulate: 2, optimizer: adamDefaults(3e-3), steps: 4, seed: 3 },
          { statePath: at(state), ...run },
          (start) => training!.begin(settings, start),
        );
      const onStep = ({ loss }: { loss: number }) => losses.push(loss);
      const whole = await train(`${name}-whole`, { onStep, pictureCache });
      // A source that composes its pictures has none that come again.
      expect(existsSync(pictureCache.folder)).toBe(false);
      expect(losses.length).toBe(4);
      expect(losses.every(Number.isFinite)).toBe(true);
      expect(losses.at(-1)).toBeLessThan(losses[0]!);

      const stop = new AbortController();
      // In the middle of the third step: what its first batch has changed must be as if it had not been.
      heard = (number) => number === 4 && stop.abort();
      const seen = vi.spyOn(model, 'visualEmbeddings');
      await expect(train(`${name}-parts`, { signal: stop.signal, pictureCache }, true)).rejects.toMatchObject(
        {
          code: 'cancelled',
          message: expect.stringContaining('after 2 steps'),
        },
      );
      heard = () => {};
      const resumed = await train(`${name}-parts`, { pictureCache }, true);
      expect(resumed.weights).toEqual(whole.weights);
      // Three pictures of either edit, each once.
      expect(seen).toHaveBeenCalledTimes(6);
      seen.mockRestore();
      // From weights that were trained it begins where they ended, whatever the seed.
      const from = { fingerprint: 'f', weights: whole.weights };
      const still = { ...adamDefaults(0) };
      const begun = await trainEditor(
        model,
        source,
        { edits: 1, optimizer: still, steps: 1, seed: 4 },
        { statePath: at(`${name}-from`), from },
        (start) => training!.begin(settings, start),
      );
      for (const [weight, { data }] of whole.weights)
        if (!/\.(?:k|[uv]_\w+)$/.test(weight))
          for (const [i, value] of begun.weights.get(weight)!.data.entries())
            expect(Math.abs(value - data[i]!), weight).toBeLessThanOrEqual(1e-6 * Math.abs(data[i]!));

      const description = {
        ...{ editor: name, name: 'tiny', ...training!.describe(settings, model.checkpoint) },
        ...{ model: whole.modelFingerprint, router: { layer: 0, threshold: 0.5 } },
      };
      const dtype = (weight: string) => (training!.exact?.(weight) ? 'F32' : 'F16');
      await writeAdapterFiles(at(`${name}-adapter`), description, whole.weights, dtype);
      const read = await readAdapter(at(`${name}-adapter`), model.checkpoint, whole.modelFingerprint);
      const { trainedScope, untrained } = demandEditor(name);
      const scope = untrained?.scope ?? trainedScope ?? 'routed';
      expect(read).toMatchObject({ name: 'tiny', cuts: needs.cuts, scope });
      expect(read.changeable.toSorted()).toEqual(needs.changeable.toSorted());
      const editor = await read.open(model, read.scope);
      const edited = new EditedModel(model, editor, null);
      const [edit] = await source.batch(0, 1);
      const visual = await model.visualEmbeddings(edit!.pixels);
      const state = await edited.make({ visual, prompt: edit!.prompt, target: edit!.target });
      const prepared = await edited.prepare(visual, edit!.prompt);
      const again = edited.decode(edited.encode(state));
      const answers = await Promise.all(
        [[state], [again]].map((states) => edited.answer(prepared, states, { maxNewTokens: 4 })),
      );
      expect(answers[0]!.ids).toEqual(answers[1]!.ids);
      await editor.dispose();
    } finally {
      await model.dispose();
    }
  },
  300_000,
);
