import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { editedInput, withAddedLayers } from '../../electron/attribution/editedInput.ts';
import { LayerInputs } from '../../electron/attribution/layerInputs.ts';
import { ModalityAttention, modalityRows } from '../../electron/attribution/modalityAttention.ts';
import { ModalityNoise, modalities } from '../../electron/attribution/modalityNoise.ts';
import { ModuleAttribution } from '../../electron/attribution/moduleContribution.ts';
import { PictureAttribution, standardNormal } from '../../electron/attribution/visualContribution.ts';
import { attentionFeeds, attentionInputs } from '../../electron/models/decoder.ts';
import { causalMask } from '../../electron/models/positions.ts';
import {
  type Adapt,
  type ModelInput,
  VisionLanguageModel,
} from '../../electron/models/visionLanguageModel.ts';
import { Graph } from '../../electron/tensor/graph.ts';
import { float32, floatsOf, Session } from '../../electron/tensor/session.ts';
import { fixture, largestDifference } from '../support/fixtures.ts';

const CUT = 2;
const families = [
  'llava_tiny',
  'qwen2_5_vl_tiny',
  'qwen3_vl_tiny',
  'smolvlm_tiny',
  'blip2_tiny',
  'minigpt4_tiny',
];

describe.each(families)('%s', (name) => {
  let model: VisionLanguageModel;
  let input: ModelInput;
  beforeAll(async () => {
    model = await VisionLanguageModel.open(fixture(`checkpoints/${name}`), {
      providers: ['cpu'],
      cuts: [CUT],
    });
    const pixels = await model.pixelsOf(await readFile(fixture('images/a.png')));
    const encoded = model.prompts.encodePrompt({ prompt: 'What is the animal?', image: true });
    input = await model.lay(encoded, await model.visualEmbeddings(pixels));
  });
  afterAll(() => model.dispose());

  /** Logits at the last prompt token with hidden states at the cut changed, through the model's own segments. */
  const logitsWith = async (adapt?: Adapt) => {
    const row = input.lastPromptRow;
    const { logits } = await model.finish(await model.prefill(input, [row]), [row], adapt);
    return floatsOf(logits);
  };

  test('attention to either modality is that of the heads one by one', async () => {
    const { decoder } = model;
    const { layers, hidden, heads, keyValueHeads, headDim } = decoder;
    const attention = await ModalityAttention.compile(decoder);
    const found = await attention.run(input);
    await attention.dispose();
    const every = Array.from({ length: layers }, (_, layer) => layer);
    const below = await LayerInputs.compile(decoder, every);
    const [states] = await below.run([{ ...input, hidden: await floatsOf(input.embeddings) }]);
    await below.dispose();
    const { text, visual } = modalityRows(input);
    expect(text.length + visual.length).toBe(input.lastPromptRow + 1);

    for (const layer of [0, layers - 1]) {
      const graph = new Graph();
      const { cosine, sine } = attentionInputs(graph, decoder, 1, 'rows', 'rows');
      const parts = decoder.attention(layer, decoder.weightsOf(graph));
      const normed = parts.norm(graph.input('hidden', 'float32', [1, 'rows', hidden]));
      const tables = cosine && sine ? { cosine, sine } : {};
      graph.output('query', parts.query(normed, tables));
      graph.output('key', parts.key(normed, tables));
      const session = await Session.create(graph, decoder.session);
      const all = attentionFeeds(decoder, input.positions, 0, input.added);
      const out = await session.run({
        hidden: float32(states![layer]!, [1, input.rows, hidden]),
        ...(decoder.rotates && { cosine: all['cosine']!, sine: all['sine']! }),
      });
      const [query, key] = [await floatsOf(out['query']!), await floatsOf(out['key']!)];
      await session.dispose();

      const mask = causalMask(input.rows, 0, decoder.slidingWindow);
      const weights = new Float64Array(input.rows);
      for (let head = 0; head < heads; head++) {
        const from = (head * input.rows + input.lastPromptRow) * headDim;
        const shared = Math.floor(head / (heads / keyValueHeads));
        const scores = Array.from({ length: input.rows }, (_, row) => {
          let dot = 0;
          for (let i = 0; i < headDim; i++)
            dot += query[from + i]! * key[(shared * input.rows + row) * headDim + i]!;
          return Math.exp(dot / Math.sqrt(headDim) + mask[input.lastPromptRow * input.rows + row]!);
        });
        const sum = scores.reduce((a, b) => a + b, 0);
        for (const [row, score] of scores.entries()) weights[row]! += score / sum / heads;
      }
      const mean = (rows: readonly number[]) =>
        rows.reduce((sum, row) => sum + weights[row]!, 0) / rows.length;
      const top = visual.map((row) => weights[row]!).sort((a, b) => b - a);
      const close = (value: number | undefined, expected: number) =>
        expect(Math.abs(value! - expected)).toBeLessThan(2e-6);
      close(found.text[layer], mean(text));
      close(found.visual[layer], mean(visual));
      close(found.topVisual[layer], (top[0]! + top[1]! + top[2]!) / 3);
      close(found.visualShare[layer], mean(visual) * visual.length);
      close(found.visualShare[layer]! + found.text[layer]! * text.length, 1);
      const question = text.filter((row) => row > Math.max(...visual) && row !== input.lastPromptRow);
      close(found.questionShare[layer], mean(question) * question.length);
    }
  });

  test('noise on rows at a layer does to the prediction what it does in the model itself', async () => {
    const settings = { level: 0.8, draws: 2, seed: 3 };
    const noise = await ModalityNoise.compile(model.decoder);
    const found = await noise.run(input, settings);
    const few = await noise.run(input, settings, undefined, 1);
    await noise.dispose();

    const { hidden } = model;
    const { text, visual } = modalityRows(input);
    const rowsOf = { text, visual, both: [...text, ...visual] };
    const log = (logits: Float32Array) => {
      const scale = Math.log(logits.reduce((sum, value) => sum + Math.exp(value), 0));
      return Array.from(logits, (value) => value - scale);
    };
    const clean = log(await logitsWith());
    for (const modality of modalities) {
      expect(largestDifference(few[modality], found[modality])).toBeLessThan(1e-4);
      let mean = 0;
      for (let draw = 0; draw < settings.draws; draw++) {
        const normal = standardNormal(input.rows * hidden, settings.seed * 1000 + draw);
        const noisy = log(
          await logitsWith(async (given) => {
            const states = (await floatsOf(given)).slice();
            const at = rowsOf[modality].flatMap((row) =>
              Array.from({ length: hidden }, (_, i) => row * hidden + i),
            );
            const average = at.reduce((sum, i) => sum + states[i]!, 0) / at.length;
            const sigma = Math.sqrt(at.reduce((sum, i) => sum + (states[i]! - average) ** 2, 0) / at.length);
            for (const i of at) states[i]! += settings.level * sigma * normal[i]!;
            return float32(states, [1, input.rows, hidden]);
          }),
        );
        mean += clean.reduce((sum, p, i) => sum + Math.exp(p) * (p - noisy[i]!), 0) / settings.draws;
      }
      expect(mean).toBeGreaterThan(0);
      expect(Math.abs(found[modality][CUT]! - mean) / mean, modality).toBeLessThan(0.02);
    }
    // Behind the last layer nobody reads the picture's rows.
    expect(found.visual.at(-1)).toBeLessThan(1e-6);
    expect(found.text.at(-1)).toBeGreaterThan(1e-3);
  });

  test('an edited input gives layers above the edit what the edited model gives them', async () => {
    const adapt: Adapt = async (given, { imageRows, rows }) => {
      const states = (await floatsOf(given)).slice();
      const change = standardNormal(imageRows!.length * model.hidden, 5);
      for (const [at, row] of imageRows!.entries())
        for (let i = 0; i < model.hidden; i++)
          states[row * model.hidden + i]! += change[at * model.hidden + i]!;
      return float32(states, [1, rows, model.hidden]);
    };
    const edited = await editedInput(model, await model.prefill(input), adapt);
    const untouched = await editedInput(model, await model.prefill(input), async (given) => given);
    expect(untouched.added).toEqual(input.added);

    const decoder = withAddedLayers(model.decoder, CUT + 1);
    const modules = await ModuleAttribution.compile(decoder, 'code');
    const [before, after] = [await modules.run(input), await modules.run(edited)];
    await modules.dispose();
    const argmax = (logits: Float32Array) => logits.indexOf(Math.max(...logits));
    expect(after[0]!.keyToken).toBe(argmax(await logitsWith(adapt)));
    expect(before[0]!.keyToken).toBe(argmax(await logitsWith()));

    // What enters the layers above, against a run of them that begins with the changed states.
    const entering = await LayerInputs.compile(decoder, [CUT, CUT + 1, CUT + 2]);
    const given = await floatsOf(input.embeddings);
    const [with_, without] = await entering.run([
      { ...edited, hidden: given },
      { ...input, hidden: given },
    ]);
    await entering.dispose();
    expect(largestDifference(with_![0]!, without![0]!)).toBeLessThan(1e-4);
    const changed = without![1]!.slice();
    const change = standardNormal(input.imageRows!.length * model.hidden, 5);
    for (const [at, row] of input.imageRows!.entries())
      for (let i = 0; i < model.hidden; i++)
        changed[row * model.hidden + i]! += change[at * model.hidden + i]!;
    expect(largestDifference(with_![1]!, changed)).toBeLessThan(1e-4);
    const above = await LayerInputs.compile(model.decoder, [CUT + 2], CUT + 1);
    const [continued] = await above.run([{ ...input, hidden: changed }]);
    await above.dispose();
    expect(largestDifference(with_![2]!, continued![0]!)).toBeLessThan(1e-3);

    // Below the edit nothing differs; above it the picture is another one.
    const picture = await PictureAttribution.compile(decoder, [CUT, CUT + 1]);
    const [lower, upper] = await picture.run(input, 1);
    const [lowerAfter, upperAfter] = await picture.run(edited, 1);
    await picture.dispose();
    expect(largestDifference(lower!.mean, lowerAfter!.mean)).toBeLessThan(1e-5);
    expect(largestDifference(upper!.mean, upperAfter!.mean)).toBeGreaterThan(1e-4);
  });
});

test('noise nobody can mean, and prompts without a picture, are refused', async () => {
  const model = await VisionLanguageModel.open(fixture('checkpoints/llava_tiny'), { providers: ['cpu'] });
  const noise = await ModalityNoise.compile(model.decoder);
  const attention = await ModalityAttention.compile(model.decoder);
  const text = await model.lay(
    model.prompts.encodePrompt({ prompt: 'Is there a tree?', image: false }),
    null,
  );
  await expect(noise.run(text)).rejects.toThrow(/with a picture/);
  await expect(attention.run(text)).rejects.toThrow(/with a picture/);
  for (const change of [{ level: 0 }, { level: Number.NaN }, { draws: 0 }, { draws: 1.5 }])
    await expect(noise.run(text, { level: 1, draws: 1, seed: 0, ...change })).rejects.toThrow(
      /cannot be used/,
    );
  const pixels = await model.pixelsOf(await readFile(fixture('images/a.png')));
  const encoded = model.prompts.encodePrompt({ prompt: 'What?', image: true });
  const seen = await model.lay(encoded, await model.visualEmbeddings(pixels));
  const settings = { level: 1, draws: 1, seed: 0 };
  await expect(noise.run(seen, settings, AbortSignal.abort())).rejects.toThrow(/stopped/);
  await noise.dispose();
  await attention.dispose();
  await model.dispose();
});
