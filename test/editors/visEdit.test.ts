import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { rowsOf } from '../../electron/attribution/layerInputs.ts';
import type { HiddenSignal } from '../../electron/editors/hiddenSignal.ts';
import { shapeOfWeights, VisEdit } from '../../electron/editors/visedit/visEdit.ts';
import { openSafetensors, readTensor, type SafetensorsFile } from '../../electron/files/safetensors.ts';
import { generate } from '../../electron/models/generation.ts';
import { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { floatsOf } from '../../electron/tensor/session.ts';
import { fixture, largestDifference } from '../support/fixtures.ts';
import { squarePicture } from '../support/pictures.ts';

const at = (name: string) => fixture(`llava_tiny/${name}`);
const json = async (name: string) => JSON.parse(await readFile(at(name), 'utf8'));

async function floats(file: SafetensorsFile, name: string): Promise<Float32Array> {
  return (await readTensor(file, name)).data as Float32Array;
}

async function adapterOf(
  file: SafetensorsFile,
  layer: number,
  heads: number,
  influenceMapper = true,
): Promise<VisEdit> {
  const weights = new Map<string, { shape: readonly number[]; data: Float32Array }>();
  for (const [name, { shape }] of file.tensors) {
    const wanted = name.startsWith('adaptor.') && (influenceMapper || !name.includes('influence_mapper'));
    if (wanted) weights.set(name.slice('adaptor.'.length), { shape, data: await floats(file, name) });
  }
  return VisEdit.create(layer, shapeOfWeights(weights, heads, 'the fixture'), weights, ['cpu']);
}

describe('VEAD equals the reference', async () => {
  const forward = await json('forward.json');
  const vead = await json('vead.json');
  const trained = await json('vead_trained.json');
  let model: VisionLanguageModel;
  let pictures: SafetensorsFile;
  beforeAll(async () => {
    model = await VisionLanguageModel.open(fixture('checkpoints/llava_tiny'), {
      providers: ['cpu'],
      cuts: [2],
    });
    pictures = await openSafetensors(at('forward.safetensors'));
  });
  afterAll(() => model.dispose());

  const inputOf = async (name: string, which: 'prompt' | 'full') => {
    const entry = forward[name];
    const ids: number[] = entry[`input_ids_${which}`];
    const visual = entry.vt_range
      ? await model.visualEmbeddings(squarePicture(model, await floats(pictures, `${name}.pixel_values`)))
      : null;
    const places = visual ? [ids.indexOf(model.checkpoint.config.imageTokenId!)] : [];
    return model.lay({ ids, pictures: places, lastPromptToken: ids.length - 1 }, visual);
  };
  const signalOfEdit = async (editor: VisEdit): Promise<HiddenSignal> => {
    const visual = await model.visualEmbeddings(
      squarePicture(model, await floats(pictures, 'edit.pixel_values')),
    );
    const [prompt, target] = ['What is the animal on the left? The answer is:', 'a small cat'];
    return editor.make(model, { visual, prompt, target });
  };

  test('the edit signal is the edit layer on image, prompt and target', async () => {
    const file = await openSafetensors(at('vead.safetensors'));
    const editor = await adapterOf(file, 2, 4);
    const signal = await signalOfEdit(editor);
    expect(signal.lastPromptRow).toBe(29);
    expect(largestDifference(signal.hidden, await floats(file, 'edit_signal'))).toBeLessThan(5e-4);
    await editor.dispose();
  });

  test.each(Object.keys(vead.cases ?? {}))(
    '%s: map, change, adapted rows, logits, greedy answer',
    async (name) => {
      const file = await openSafetensors(at('vead.safetensors'));
      const sample = name.replace('no_im.', '');
      const editor = await adapterOf(file, 2, 4, sample === name);
      const signal = await signalOfEdit(editor);
      const input = await inputOf(sample, 'full');
      const prefill = await model.prefill(input);
      if (input.imageRows) {
        const hidden = await floatsOf(prefill.hidden!);
        const rows = rowsOf(hidden, input.imageRows, 64);
        const applied = await editor.apply(rows, signal);
        const compared: Array<[string, Float32Array | null, number]> = [
          ['visual_before', rows, 5e-4],
          ['cross_out', applied.change, 5e-4],
          ['influence_logits', applied.influenceLogits, 1e-5],
          ['influence_map', applied.influence, 1e-5],
          ['adapted', applied.adapted, 5e-4],
        ];
        for (const [part, ours, tolerance] of compared) {
          if (!file.tensors.has(`${name}.${part}`)) continue;
          expect(largestDifference(ours!, await floats(file, `${name}.${part}`)), part).toBeLessThan(
            tolerance,
          );
        }
      }
      const every = Array.from({ length: input.rows }, (_, row) => row);
      const { logits } = await model.finish(prefill, every, editor.adapt(signal));
      const reference = input.imageRows
        ? await floats(file, `${name}.post_logits`)
        : await floats(pictures, `${sample}.full.logits`);
      expect(largestDifference(await floatsOf(logits), reference)).toBeLessThan(3e-4);

      const prompt = await model.prefill(await inputOf(sample, 'prompt'));
      const greedy: number[] = vead.cases[name].post_greedy_ids ?? forward[sample].greedy_ids;
      const generation = await generate(model, prompt, {
        maxNewTokens: greedy.length,
        adapt: editor.adapt(signal),
      });
      const ids = generation.tokens.map((token) => token.id);
      expect(ids).toEqual(greedy.slice(0, ids.length));
      await editor.dispose();
    },
  );

  test.each(Object.keys(trained.cases ?? {}))(
    '%s: a trained adapter gives the reference answer',
    async (name) => {
      const editor = await adapterOf(
        await openSafetensors(at('vead_trained.safetensors')),
        trained.edit_layer,
        trained.n_heads,
      );
      const signal = await signalOfEdit(editor);
      const prompt = await model.prefill(await inputOf(name, 'prompt'));
      const greedy: number[] = trained.cases[name].greedy_ids;
      const generation = await generate(model, prompt, {
        maxNewTokens: greedy.length,
        adapt: editor.adapt(signal),
      });
      const ids = generation.tokens.map((token) => token.id);
      expect(ids).toEqual(greedy.slice(0, ids.length));
      await editor.dispose();
    },
  );
});
