/**
 * @file Reference inputs of the attribution tests: the tiny model, its prompts laid out, and the hidden states inside it.
 */
import { readFile } from 'node:fs/promises';
import { type Decoder, decoderOf, LayerInputs } from '../../electron/attribution/layerInputs.ts';
import { type AttributionInput, standardNormal } from '../../electron/attribution/visualContribution.ts';
import { openSafetensors, readTensor } from '../../electron/files/safetensors.ts';
import type { TextConfig } from '../../electron/models/config.ts';
import { attentionFeeds, attentionInputs } from '../../electron/models/decoder.ts';
import { rotaryDecoder } from '../../electron/models/parts/rotaryDecoder.ts';
import { consecutive, type Positions } from '../../electron/models/positions.ts';
import { type ModelInput, VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { fixedWeights } from '../../electron/models/weights.ts';
import * as f from '../../electron/tensor/functions.ts';
import { Graph } from '../../electron/tensor/graph.ts';
import { float32, floatsOf, Session } from '../../electron/tensor/session.ts';
import { fixture } from '../support/fixtures.ts';
import { squarePicture } from '../support/pictures.ts';

export const openTinyModel = () =>
  VisionLanguageModel.open(fixture('checkpoints/llava_tiny'), { providers: ['cpu'] });

/** Tensors and settings of one reference case. */
export async function referenceCase<Settings>(name: string) {
  const file = await openSafetensors(fixture(`llava_tiny/${name}.safetensors`));
  const settings = JSON.parse(await readFile(fixture(`llava_tiny/${name}.json`), 'utf8')) as Settings;
  const floats = async (tensor: string) => {
    const { data } = await readTensor(file, tensor);
    if (!(data instanceof Float32Array)) throw new Error(`${tensor} is not F32`);
    return data;
  };
  return { settings, floats };
}

/** A sample's bare prompt, laid out for the model. */
export async function promptOf(model: VisionLanguageModel, sample: string): Promise<ModelInput> {
  const { settings, floats } =
    await referenceCase<Record<string, { input_ids_prompt: number[]; vt_range?: [number, number] }>>(
      'forward',
    );
  const { input_ids_prompt: ids, vt_range } = settings[sample]!;
  const visual = vt_range
    ? await model.visualEmbeddings(squarePicture(model, await floats(`${sample}.pixel_values`)))
    : null;
  const pictures = visual ? [ids.indexOf(model.checkpoint.config.imageTokenId!)] : [];
  return model.lay({ ids, pictures, lastPromptToken: ids.length - 1 }, visual);
}

/** A sample's hidden states entering `layers`, on its bare prompt. */
export async function hiddenOf(
  model: VisionLanguageModel,
  sample: string,
  layers: readonly number[],
): Promise<AttributionInput> {
  const input = await promptOf(model, sample);
  const below = await LayerInputs.compile(decoderOf(model), layers);
  const [hidden] = await below.run([{ ...input, hidden: await floatsOf(input.embeddings) }]);
  await below.dispose();
  return { hidden: hidden!, imageRows: input.imageRows!, lastPromptRow: input.lastPromptRow };
}

/** A decoder of random weights that needs no files. The stronger its projections, the more attention rests on single rows. */
export function randomDecoder(
  sizes: Partial<TextConfig> & Pick<TextConfig, 'hidden' | 'heads'>,
  strength = 2,
): Decoder {
  const config: TextConfig = {
    layers: 3,
    intermediate: 2 * sizes.hidden,
    keyValueHeads: sizes.heads,
    headDim: sizes.hidden / sizes.heads,
    vocab: 16,
    rmsNormEps: 1e-5,
    ropeTheta: 10000,
    ropeScaling: { kind: 'none' },
    maxPositions: 1024,
    activation: 'silu',
    tieWordEmbeddings: true,
    attentionBias: false,
    mlpBias: false,
    bosTokenId: 1,
    eosTokenIds: [2],
    padTokenId: undefined,
    ...sizes,
  };
  const { hidden, headDim } = config;
  const shapes: Record<string, number[]> = {
    q_proj: [config.heads * headDim, hidden],
    k_proj: [config.keyValueHeads * headDim, hidden],
    v_proj: [config.keyValueHeads * headDim, hidden],
    o_proj: [hidden, config.heads * headDim],
    gate_proj: [config.intermediate, hidden],
    up_proj: [config.intermediate, hidden],
    down_proj: [hidden, config.intermediate],
  };
  const weightsOf = (graph: Graph) =>
    fixedWeights((name: string) => {
      const parts = name.split('.');
      const kind = parts.at(-2)!;
      const seed = [...name].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) | 0, 7);
      const shape = parts.at(-1) === 'bias' ? shapes[kind]!.slice(0, 1) : (shapes[kind] ?? [hidden]);
      const values = standardNormal(
        shape.reduce((a, b) => a * b, 1),
        seed,
      );
      const width = shape.at(-1)!;
      const scaled = values.map((value) =>
        shapes[kind] ? (strength * value) / Math.sqrt(width) : 1 + 0.1 * value,
      );
      return graph.constant(scaled, shape);
    });
  return { ...rotaryDecoder(config), weightsOf, session: { providers: ['cpu'] } };
}

/** The attention of one layer as the decoder runs it: hidden states [1, rows, hidden] → attention output of the last row [hidden]. */
export async function wholeAttention(decoder: Decoder, layer: number) {
  const graph = new Graph();
  const inputs = attentionInputs(graph, decoder, 1, 'rows', 'rows');
  const hidden = graph.input('hidden', 'float32', [1, 'rows', decoder.hidden]);
  const { attention } = decoder.layer(hidden, layer, inputs, decoder.weightsOf(graph));
  graph.output('attention', f.slice(attention, 1, -1, Number.MAX_SAFE_INTEGER, 1));
  const session = await Session.create(graph, decoder.session);
  const run = async (states: Float32Array, positions?: Positions) => {
    const rows = states.length / decoder.hidden;
    const out = await session.run({
      hidden: float32(states, [1, rows, decoder.hidden]),
      ...attentionFeeds(decoder, positions?.map((axis) => axis.slice(0, rows)) ?? consecutive(rows), 0),
    });
    return floatsOf(out.attention!);
  };
  return { run, dispose: () => session.dispose() };
}

/**
 * Eqs. 6–8 taken literally: noise on one row of the layer's input, or on the rows of a cell's window together, the whole attention
 * again. unitNoise [visual, draws, hidden], a row's own whichever window it is in → [visual, draws].
 */
export async function literalContributions(
  decoder: Decoder,
  layer: number,
  { hidden, imageRows, lastPromptRow, positions }: AttributionInput,
  draws: number,
  unitNoise: Float32Array,
  cells: ReadonlyArray<readonly number[]> = imageRows.map((_, cell) => [cell]),
): Promise<Float32Array> {
  const width = decoder.hidden;
  const [start, end] = [imageRows[0]!, imageRows.at(-1)! + 1];
  const states = hidden[0]!.slice(0, (lastPromptRow + 1) * width);
  const visual = states.subarray(start * width, end * width);
  const average = visual.reduce((a, b) => a + b, 0) / visual.length;
  const sigma = Math.sqrt(visual.reduce((sum, value) => sum + (value - average) ** 2, 0) / visual.length);
  const attention = await wholeAttention(decoder, layer);
  const before = await attention.run(states, positions);
  const results = new Float32Array((end - start) * draws);
  for (let at = 0; at < results.length; at++) {
    const moved = states.slice();
    for (const cell of cells[Math.floor(at / draws)]!) {
      const from = (cell * draws + (at % draws)) * width;
      for (let i = 0; i < width; i++) moved[(start + cell) * width + i]! += 3 * sigma * unitNoise[from + i]!;
    }
    const after = await attention.run(moved, positions);
    let [dot, a, b] = [0, 0, 0];
    for (let i = 0; i < width; i++) {
      dot += before[i]! * after[i]!;
      a += before[i]! ** 2;
      b += after[i]! ** 2;
    }
    results[at] = 0.5 * (1 - dot / Math.sqrt(a * b));
  }
  await attention.dispose();
  return results;
}
