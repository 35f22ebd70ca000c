import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { rowsOf, textRows } from '../../electron/attribution/layerInputs.ts';
import { DualEdit, type DualSignal } from '../../electron/editors/dualedit/dualEdit.ts';
import { decodeSignals } from '../../electron/editors/hiddenSignal.ts';
import { openSafetensors, readTensor, type SafetensorsFile } from '../../electron/files/safetensors.ts';
import { generate } from '../../electron/models/generation.ts';
import type { Visual } from '../../electron/models/picture.ts';
import { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { float32, floatsOf } from '../../electron/tensor/session.ts';
import { fixture, largestDifference } from '../support/fixtures.ts';

interface Sample {
  readonly text_prompt: string;
  readonly text_full: string;
  readonly image: string | null;
}
interface Case {
  readonly text_range: readonly [number, number];
  readonly ungated_greedy_ids?: readonly number[];
}

/** How a family's fixture writes the picture into its texts. */
const families = { llava_tiny: '<image>\n', blip2_tiny: '' };

describe.each(Object.entries(families))('DualEdit equals the reference: %s', async (name, pictureText) => {
  const at = (file: string) => fixture(`${name}/${file}`);
  const json = async (file: string) => JSON.parse(await readFile(at(file), 'utf8'));
  const samples: Record<string, Sample> = await json('forward.json');
  const { cases, text_layer, visual_layer, n_heads } = await json('dualedit.json');
  const layers = { text: text_layer, visual: visual_layer };
  let model: VisionLanguageModel;
  let file: SafetensorsFile;
  let editor: DualEdit;
  let signal: DualSignal;
  const floats = async (tensor: string) => (await readTensor(file, tensor)).data as Float32Array;
  const open = async (from: SafetensorsFile) => {
    const weights = new Map<string, { shape: readonly number[]; data: Float32Array }>();
    for (const [tensor, { shape }] of from.tensors)
      if (/^(text|visual)_adaptor\./.test(tensor))
        weights.set(tensor, { shape, data: (await readTensor(from, tensor)).data as Float32Array });
    return DualEdit.create(layers, n_heads, weights, ['cpu'], 'the fixture');
  };
  const visualOf = async ({ image }: Sample): Promise<Visual | null> =>
    image ? model.visualEmbeddings(await model.pixelsOf(await readFile(fixture(`images/${image}`)))) : null;
  const questionOf = (sample: Sample) => ({
    prompt: sample.text_prompt.replace(pictureText, ''),
    image: sample.image !== null && sample.image !== undefined,
  });
  const targetOf = ({ text_prompt, text_full }: Sample) => text_full.slice(text_prompt.length + 1);
  beforeAll(async () => {
    model = await VisionLanguageModel.open(fixture(`checkpoints/${name}`), {
      providers: ['cpu'],
      cuts: [layers.text, layers.visual],
    });
    file = await openSafetensors(at('dualedit.safetensors'));
    editor = await open(file);
    const edit = samples['edit']!;
    signal = await editor.make(model, {
      visual: (await visualOf(edit))!,
      prompt: questionOf(edit).prompt,
      target: targetOf(edit),
    });
  });
  afterAll(async () => {
    await editor?.dispose();
    await model?.dispose();
  });

  test('the signals are both layers on image, prompt and target, and come back from bytes', async () => {
    expect(largestDifference(signal.text!.hidden, await floats('edit_signal_text'))).toBeLessThan(5e-4);
    expect(largestDifference(signal.visual!.hidden, await floats('edit_signal_visual'))).toBeLessThan(5e-4);
    const bytes = editor.encode(signal);
    expect(editor.decode(bytes)).toEqual(signal);
    for (const [width, layers] of [
      [32, 2],
      [64, 3],
    ] as const)
      expect(() => decodeSignals(bytes, width, layers)).toThrow(expect.objectContaining({ code: 'damaged' }));
  });

  const own = Object.entries(cases as Record<string, Case>).filter(
    ([at, { text_range }]) => at.endsWith('pe_own') && text_range,
  );
  test.each(own)('%s: text rows, adapted rows, logits, greedy answer', async (at, entry) => {
    const [sample, telling] = at.split('.') as [string, string];
    const asked = samples[sample]!;
    const encoded =
      telling === 'prompt_only'
        ? model.prompts.encodePrompt(questionOf(asked))
        : model.prompts.encodeTarget(questionOf(asked), targetOf(asked));
    const prefill = await model.prefill(await model.lay(encoded, await visualOf(asked)));
    const { input } = prefill;
    const [from, to] = entry.text_range;
    expect(textRows(input)).toEqual(Array.from({ length: to - from }, (_, row) => from + row));

    const { rows: adapt } = editor.effect([signal]);
    for (const [part, layer, rows] of [
      ['text_adapted', layers.text, textRows(input)],
      ['visual_adapted', layers.visual, input.imageRows],
    ] as const) {
      if (!rows || !file.tensors.has(`${at}.${part}`)) continue;
      const unedited = await model.unedited(prefill, layer);
      // What reaches the visual layer was changed at the text layer.
      const reached =
        part === 'visual_adapted'
          ? await floats(`${at}.visual_before`)
          : rowsOf(await floatsOf(unedited), rows, 64);
      const whole = (await floatsOf(unedited)).slice();
      for (const [place, row] of rows.entries())
        whole.set(reached.subarray(place * 64, (place + 1) * 64), row * 64);
      const adapted = await floatsOf(await adapt!(float32(whole, unedited.dims), input, layer));
      expect(largestDifference(rowsOf(adapted, rows, 64), await floats(`${at}.${part}`)), part).toBeLessThan(
        5e-4,
      );
    }
    const every = Array.from({ length: input.rows }, (_, row) => row);
    const logits = await floatsOf((await model.finish(prefill, every, adapt)).logits);
    expect(largestDifference(logits, await floats(`${at}.ungated_logits`))).toBeLessThan(5e-4);
    const greedy = entry.ungated_greedy_ids;
    if (!greedy) return;
    const { tokens } = await generate(model, prefill, {
      maxNewTokens: greedy.length,
      ...(adapt && { adapt }),
    });
    const ids = tokens.map(({ id }) => id);
    expect(ids).toEqual(greedy.slice(0, ids.length));
  });

  test('a trained one says the target', async () => {
    const trained = await json('dualedit_trained.json');
    const editor = await open(await openSafetensors(at('dualedit_trained.safetensors')));
    const edit = samples['edit']!;
    const made = await editor.make(model, {
      visual: (await visualOf(edit))!,
      prompt: questionOf(edit).prompt,
      target: targetOf(edit),
    });
    for (const sample of ['edit', 'text_rephrase', 'image_rephrase']) {
      const asked = samples[sample]!;
      const { targetIds, ...encoded } = model.prompts.encodeTarget(questionOf(asked), targetOf(asked));
      const prefill = await model.prefill(await model.lay(encoded, await visualOf(asked)));
      const rows = targetIds.map((_, place) => prefill.input.lastPromptRow + place);
      const { rows: adapt } = editor.effect([made]);
      const logits = await floatsOf((await model.finish(prefill, rows, adapt)).logits);
      const width = logits.length / rows.length;
      const chosen = rows.map((_, place) => {
        const scores = logits.subarray(place * width, (place + 1) * width);
        return scores.indexOf(Math.max(...scores));
      });
      expect(chosen).toEqual(
        trained.cases[`${sample}.ungated`].teacher_forced_argmax.slice(0, chosen.length),
      );
    }
    await editor.dispose();
  });
});
