import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openSafetensors, readTensor } from '../../electron/files/safetensors.ts';
import { generate } from '../../electron/models/generation.ts';
import { promptToTrace, trace, traceDecoder } from '../../electron/models/trace.ts';
import { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { fixture, largestDifference } from '../support/fixtures.ts';
import { squarePicture } from '../support/pictures.ts';

interface Case {
  text_prompt: string;
  input_ids_prompt: number[];
  input_ids_full: number[];
  image?: string;
  greedy_ids: number[];
  vt_range?: [number, number];
  prompt_end: number;
  n_rows_prompt: number;
}

describe('the forward pass equals the reference', async () => {
  const folder = fixture('checkpoints/llava_tiny');
  const cases: Record<string, Case> = JSON.parse(await readFile(fixture('llava_tiny/forward.json'), 'utf8'));
  let model: VisionLanguageModel;
  let cut: VisionLanguageModel;
  const reference = async (name: string) =>
    (await readTensor(await openSafetensors(fixture('llava_tiny/forward.safetensors')), name))
      .data as Float32Array;
  beforeAll(async () => {
    model = await VisionLanguageModel.open(folder, { providers: ['cpu'] });
    cut = await VisionLanguageModel.open(folder, { providers: ['cpu'], cuts: [1, 3] });
  });
  afterAll(async () => {
    await model.dispose();
    await cut.dispose();
  });

  const inputOf = async (entry: Case, name: string, ids: readonly number[]) => {
    const image = entry.vt_range
      ? await model.visualEmbeddings(squarePicture(model, await reference(`${name}.pixel_values`)))
      : null;
    const pictures = image ? [ids.indexOf(model.checkpoint.config.imageTokenId!)] : [];
    return model.lay({ ids, pictures, lastPromptToken: ids.length - 1 }, image);
  };

  test.each(Object.keys(cases))('%s: rows, logits and greedy tokens', async (name) => {
    const entry = cases[name]!;
    const input = await inputOf(entry, name, entry.input_ids_prompt);
    expect(input.rows).toBe(entry.n_rows_prompt);
    expect(input.lastPromptRow).toBe(entry.prompt_end);
    if (entry.vt_range) expect([input.imageRows![0], input.imageRows!.at(-1)! + 1]).toEqual(entry.vt_range);
    const { logits } = await traceDecoder(model, input);
    expect(largestDifference(logits, await reference(`${name}.logits`))).toBeLessThan(3e-4);
    const full = await traceDecoder(model, await inputOf(entry, name, entry.input_ids_full));
    expect(largestDifference(full.logits, await reference(`${name}.full.logits`))).toBeLessThan(3e-4);

    for (const one of [model, cut]) {
      const generation = await generate(one, await one.prefill(input), {
        maxNewTokens: entry.greedy_ids.length,
      });
      const ended = generation.tokens.map((token) => token.id);
      expect(ended).toEqual(entry.greedy_ids.slice(0, ended.length));
      expect(generation.ended === 'stop-token' || ended.length === entry.greedy_ids.length).toBe(true);
    }
  });

  test.each(['edit', 'text_loc'])('%s: every layer', async (name) => {
    const input = await inputOf(cases[name]!, name, cases[name]!.input_ids_prompt);
    const { layers } = await traceDecoder(model, input);
    const hidden = await reference(`${name}.hidden_states`);
    const attention = await reference(`${name}.attn_out`);
    const mlp = await reference(`${name}.mlp_out`);
    const size = input.rows * model.hidden;
    const part = (all: Float32Array, index: number) => all.subarray(index * size, (index + 1) * size);
    expect(largestDifference(input.embeddings.data as Float32Array, part(hidden, 0))).toBeLessThan(5e-5);
    layers.forEach((layer, index) => {
      expect(largestDifference(layer.hidden, part(hidden, index + 1))).toBeLessThan(5e-4);
      expect(largestDifference(layer.attention, part(attention, index))).toBeLessThan(5e-4);
      expect(largestDifference(layer.mlp, part(mlp, index))).toBeLessThan(5e-4);
    });
  });

  test('from picture file and prompt to a trace', async () => {
    const entry = cases['edit']!;
    const pixels = await model.pixelsOf(await readFile(fixture(`images/${entry.image!}`)));
    const encoded = model.prompts.encodePrompt({
      prompt: 'What is the animal on the left? The answer is:',
      image: true,
    });
    expect(encoded.ids).toEqual(entry.input_ids_prompt);
    const tensors = await trace(model, promptToTrace(model, encoded, [pixels]), 8);
    expect(
      largestDifference(
        tensors.get('visual_embeddings')!.data as Float32Array,
        await reference('edit.visual_embeds'),
      ),
    ).toBeLessThan(5e-5);
    expect(Array.from(tensors.get('generated_ids')!.data as BigInt64Array, Number)).toEqual(entry.greedy_ids);
    expect(tensors.get('hidden_states.0')!.shape).toEqual([1, 30, 64]);
  });
});
