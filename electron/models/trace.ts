/**
 * @file Everything a model computes on one prompt, as named tensors: for comparing implementations and for attribution.
 */
import { EmendError } from '../errors.ts';
import type { WritableTensor } from '../files/safetensors.ts';
import * as f from '../tensor/functions.ts';
import { Graph, type Tensor } from '../tensor/graph.ts';
import { floatsOf, type Provider, Session } from '../tensor/session.ts';
import { decoderLayer, finalNorm, languageHead } from './decoder.ts';
import { positionFeeds, positionInputs } from './decoderSegment.ts';
import { generate } from './generation.ts';
import type { EncodedPrompt } from './prompt.ts';
import type { ModelInput, VisionLanguageModel } from './visionLanguageModel.ts';
import { weightsInFiles } from './weights.ts';

export interface LayerTrace {
  /** the layer's output [rows, hidden] */
  readonly hidden: Float32Array;
  /** what its attention adds to the residual stream [rows, hidden] */
  readonly attention: Float32Array;
  /** what its MLP adds [rows, hidden] */
  readonly mlp: Float32Array;
}

/** Runs the whole decoder once, without a cache, and keeps every layer's outputs. logits [rows, vocabulary]. */
export async function traceDecoder(
  model: VisionLanguageModel,
  input: ModelInput,
  providers: readonly Provider[] = [model.provider],
): Promise<{ layers: LayerTrace[]; logits: Float32Array }> {
  const config = model.checkpoint.config.text;
  const graph = new Graph();
  const weight = weightsInFiles(graph, model.checkpoint.weights);
  const positions = positionInputs(graph, config, 'rows', 'rows');
  let x: Tensor = graph.input('embeddings', 'float32', [1, 'rows', config.hidden]);
  for (let layer = 0; layer < config.layers; layer++) {
    const result = decoderLayer(x, layer, positions, config, weight);
    graph.output(`hidden.${layer}`, result.hidden);
    graph.output(`attention.${layer}`, result.attention);
    graph.output(`mlp.${layer}`, result.mlp);
    x = result.hidden;
  }
  graph.output(
    'logits',
    f.reshape(languageHead(finalNorm(x, config, weight), config, weight), ['rows', config.vocab], x),
  );
  const session = await Session.create(graph, { providers });
  try {
    const out = await session.run({ embeddings: input.embeddings, ...positionFeeds(config, input.rows, 0) });
    const layers: LayerTrace[] = [];
    for (let layer = 0; layer < config.layers; layer++) {
      layers.push({
        hidden: await floatsOf(out[`hidden.${layer}`]!),
        attention: await floatsOf(out[`attention.${layer}`]!),
        mlp: await floatsOf(out[`mlp.${layer}`]!),
      });
    }
    return { layers, logits: await floatsOf(out['logits']!) };
  } finally {
    await session.dispose();
  }
}

/**
 * A trace as tensors to write: `pixel_values`, `input_ids`, `visual_embeddings`, `hidden_states.l`, `attention_outputs.l`,
 * `mlp_outputs.l` for every layer l from 0, `logits` and greedy `generated_ids`.
 * pixels [3, side, side], or null for a prompt without a picture.
 */
export async function trace(
  model: VisionLanguageModel,
  encoded: EncodedPrompt,
  pixels: Float32Array | null,
  maxNewTokens: number,
): Promise<Map<string, WritableTensor>> {
  const visual = pixels ? await model.visualEmbeddings(pixels) : null;
  const input = await model.lay(encoded, visual);
  const { layers, logits } = await traceDecoder(model, input);
  const generation = await generate(model, await model.prefill(input), { maxNewTokens });
  const { hidden, rows } = { hidden: model.hidden, rows: input.rows };
  const side = model.checkpoint.config.vision.imageSize;
  const tensors = new Map<string, WritableTensor>();
  const floats = (name: string, shape: number[], data: Float32Array) =>
    tensors.set(name, { dtype: 'F32', shape, data });
  const integers = (name: string, ids: readonly number[]) =>
    tensors.set(name, { dtype: 'I64', shape: [1, ids.length], data: BigInt64Array.from(ids, BigInt) });
  if (pixels && visual) {
    floats('pixel_values', [1, 3, side, side], pixels);
    floats('visual_embeddings', [1, visual.length / hidden, hidden], visual);
  }
  integers('input_ids', encoded.ids);
  for (const [index, layer] of layers.entries()) {
    floats(`hidden_states.${index}`, [1, rows, hidden], layer.hidden);
    floats(`attention_outputs.${index}`, [1, rows, hidden], layer.attention);
    floats(`mlp_outputs.${index}`, [1, rows, hidden], layer.mlp);
  }
  floats('logits', [1, rows, model.checkpoint.config.text.vocab], logits);
  const stop = generation.ended === 'stop-token' ? generation.tokens.slice(-1).map((token) => token.id) : [];
  integers('generated_ids', [...generation.ids, ...stop]);
  return tensors;
}

/**
 * Token ids given from outside as a prompt: one image token, or as many in a row as the picture has visual tokens.
 * Throws `invalid-input` when they fit neither the vocabulary nor the picture.
 */
export function promptFromIds(
  model: VisionLanguageModel,
  ids: readonly number[],
  hasPicture: boolean,
): EncodedPrompt {
  const { imageTokenId, imageTokenCount, text } = model.checkpoint.config;
  const stray = ids.find(
    (id) => !Number.isInteger(id) || id < 0 || (id >= text.vocab && id !== imageTokenId),
  );
  if (ids.length === 0) throw new EmendError('invalid-input', 'input_ids is empty.');
  if (stray !== undefined) {
    throw new EmendError('invalid-input', `input_ids holds ${stray}; the model has ${text.vocab} tokens.`);
  }
  const first = ids.indexOf(imageTokenId);
  const count = ids.filter((id) => id === imageTokenId).length;
  if (!hasPicture) {
    if (count > 0)
      throw new EmendError('invalid-input', 'input_ids holds an image token and there are no pixel_values.');
    return { ids, imageIndex: undefined, lastPromptToken: ids.length - 1 };
  }
  const together = ids.slice(first, first + count).every((id) => id === imageTokenId);
  if ((count !== 1 && count !== imageTokenCount) || !together) {
    throw new EmendError(
      'invalid-input',
      `input_ids holds ${count} image tokens; give one, or ${imageTokenCount} in a row (one for each visual token).`,
    );
  }
  const merged = [...ids.slice(0, first + 1), ...ids.slice(first + count)];
  return { ids: merged, imageIndex: first, lastPromptToken: merged.length - 1 };
}

/** pixel_values given from outside. Throws when they are not one picture of the model's size. */
export function pixelsFromTensor(
  model: VisionLanguageModel,
  shape: readonly number[],
  data: Float32Array,
): Float32Array {
  const side = model.checkpoint.config.vision.imageSize;
  const fits = [`3,${side},${side}`, `1,3,${side},${side}`].includes(shape.join(','));
  if (!fits)
    throw new EmendError(
      'invalid-input',
      `pixel_values is [${shape.join(', ')}]; the model takes [1, 3, ${side}, ${side}].`,
    );
  return data;
}
