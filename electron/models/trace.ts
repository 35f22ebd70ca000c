/**
 * @file Everything a model computes on one prompt, as named tensors: for comparing implementations and for attribution.
 */
import { EmendError } from '../errors.ts';
import type { WritableTensor } from '../files/safetensors.ts';
import * as f from '../tensor/functions.ts';
import { Graph, type Tensor } from '../tensor/graph.ts';
import { floatsOf, type Provider, Session } from '../tensor/session.ts';
import { attentionFeeds, attentionInputs, enter } from './decoder.ts';
import { generate } from './generation.ts';
import type { PictureTensors, Pixels, Visual } from './picture.ts';
import type { EncodedPrompt } from './prompt.ts';
import type { ModelInput, VisionLanguageModel } from './visionLanguageModel.ts';

export interface LayerTrace {
  /** what enters the next layer: the layer's output with what the decoder adds to it [rows, hidden] */
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
  // What runs the model's own sessions holds the same weights: one of the two at a time.
  await model.releaseDecoder();
  model.refuseUnlessDecoderFits();
  const { decoder } = model;
  const graph = new Graph();
  const weight = decoder.weightsOf(graph);
  const inputs = attentionInputs(graph, decoder, 1, 'rows', 'rows');
  let x: Tensor = graph.input('embeddings', 'float32', [1, 'rows', decoder.hidden]);
  for (let layer = 0; layer < decoder.layers; layer++) {
    const result = decoder.layer(x, layer, inputs, weight);
    x = enter(result.hidden, layer + 1, inputs);
    graph.output(`hidden.${layer}`, x);
    graph.output(`attention.${layer}`, result.attention);
    graph.output(`mlp.${layer}`, result.mlp);
  }
  const logits = decoder.head(decoder.finalNorm(x, weight), weight);
  graph.output('logits', f.reshape(logits, ['rows', decoder.vocab], x));
  const session = await Session.create(graph, { providers });
  try {
    const out = await session.run({
      embeddings: input.embeddings,
      ...attentionFeeds(decoder, input.positions, 0, input.added),
    });
    const layers: LayerTrace[] = [];
    for (let layer = 0; layer < decoder.layers; layer++) {
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

/** A prompt to trace: token ids as the model's own processor writes them, and how they are laid out with their pictures. */
export interface TracedPrompt {
  readonly ids: readonly number[];
  readonly pictures: readonly Pixels[];
  lay(visuals: readonly Visual[]): Promise<ModelInput>;
}

/** A prompt of ours with its pictures. */
export function promptToTrace(
  model: VisionLanguageModel,
  encoded: EncodedPrompt,
  pictures: readonly Pixels[],
): TracedPrompt {
  // Where pictures come before all tokens, the model's own processor writes none for them.
  const { picturesFirst } = model.checkpoint.backbone.prompts;
  const ids = picturesFirst ? encoded.ids.slice(encoded.pictures.length) : encoded.ids;
  return { ids, pictures, lay: (visuals) => model.lay(encoded, visuals) };
}

/**
 * A trace as tensors to write: what the pictures are to the model (`pixel_values` and what goes with it), `input_ids`,
 * `visual_embeddings` [1, visual rows, hidden] and `deepstack_features` [layers, visual rows, hidden] as they enter the decoder,
 * `position_ids` [3, rows] where positions have three axes, `hidden_states.l` (what enters layer l + 1), `attention_outputs.l`,
 * `mlp_outputs.l` for every layer l from 0, `logits` and greedy `generated_ids`.
 */
export async function trace(
  model: VisionLanguageModel,
  prompt: TracedPrompt,
  maxNewTokens: number,
): Promise<Map<string, WritableTensor>> {
  const { pictures } = prompt;
  const visuals = await model.visualEmbeddingsOf(pictures);
  const input = await prompt.lay(visuals);
  const { layers, logits } = await traceDecoder(model, input);
  const generation = await generate(model, await model.prefill(input), { maxNewTokens });
  const { hidden, rows } = { hidden: model.hidden, rows: input.rows };
  const tensors = new Map<string, WritableTensor>();
  const floats = (name: string, shape: number[], data: Float32Array) =>
    tensors.set(name, { dtype: 'F32', shape, data });
  const integers = (name: string, ids: readonly number[], shape = [1, ids.length]) =>
    tensors.set(name, { dtype: 'I64', shape, data: BigInt64Array.from(ids, BigInt) });
  if (pictures.length > 0) {
    for (const [name, { shape, data }] of model.images.toTensors(pictures)) {
      if (data instanceof Float32Array) floats(name, [...shape], data);
      else tensors.set(name, { dtype: 'I64', shape: [...shape], data });
    }
    const count = visuals.reduce((sum, { layout }) => sum + layout.rows, 0);
    floats('visual_embeddings', [1, count, hidden], joined(visuals.map((visual) => visual.rows)));
    const features = visuals[0]!.added.map((_, layer) => joined(visuals.map(({ added }) => added[layer]!)));
    if (features.length > 0) floats('deepstack_features', [features.length, count, hidden], joined(features));
  }
  integers('input_ids', model.checkpoint.backbone.idsExpanded ? input.ids : prompt.ids);
  if (input.positions.length > 1) {
    const all = input.positions.flatMap((axis) => [...axis]);
    integers('position_ids', all, [input.positions.length, rows]);
  }
  for (const [index, layer] of layers.entries()) {
    floats(`hidden_states.${index}`, [1, rows, hidden], layer.hidden);
    floats(`attention_outputs.${index}`, [1, rows, hidden], layer.attention);
    floats(`mlp_outputs.${index}`, [1, rows, hidden], layer.mlp);
  }
  floats('logits', [1, rows, model.decoder.vocab], logits);
  const stop = generation.ended === 'stop-token' ? generation.tokens.slice(-1).map((token) => token.id) : [];
  integers('generated_ids', [...generation.ids, ...stop]);
  return tensors;
}

function joined(parts: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/**
 * A prompt given from outside, as other programs write it: token ids with one image token a picture, or one for each of its rows,
 * or none where pictures come first; and the pictures' tensors.
 * Throws `invalid-input` when they fit neither the vocabulary nor one another.
 */
export function promptFromTensors(
  model: VisionLanguageModel,
  ids: readonly number[],
  tensors: PictureTensors,
): TracedPrompt {
  const { backbone, config } = model.checkpoint;
  const { imageTokenId } = config;
  const { vocab } = model.decoder;
  const stray = ids.find((id) => !Number.isInteger(id) || id < 0 || (id >= vocab && id !== imageTokenId));
  if (ids.length === 0) throw new EmendError('invalid-input', 'input_ids is empty.');
  if (stray !== undefined) {
    throw new EmendError('invalid-input', `input_ids holds ${stray}; the model has ${vocab} tokens.`);
  }
  const places = ids.flatMap((id, index) => (id === imageTokenId ? [index] : []));
  if (places.length === 0 && tensors.size > 0 && !backbone.prompts.picturesFirst) {
    throw new EmendError(
      'invalid-input',
      'There are pixel_values, and input_ids holds no image tokens: one for each picture, or one for each of its rows.',
    );
  }
  const pictures = model.images.fromTensors(tensors);
  const rows = pictures.reduce((sum, { layout }) => sum + layout.rows, 0);
  if (pictures.length === 0 && places.length > 0)
    throw new EmendError('invalid-input', 'input_ids holds an image token and there are no pixel_values.');
  if (places.length === 0 && backbone.prompts.picturesFirst) {
    const all = [...pictures.map(() => imageTokenId ?? 0), ...ids];
    const encoded = {
      ids: all,
      pictures: pictures.map((_, index) => index),
      lastPromptToken: all.length - 1,
    };
    return { ids, pictures, lay: (visuals) => model.lay(encoded, visuals) };
  }
  if (places.length === rows) {
    let taken = 0;
    const placed = pictures.map(({ layout }) => {
      taken += layout.rows;
      return { layout, rows: places.slice(taken - layout.rows, taken) };
    });
    return { ids, pictures, lay: (visuals) => model.layRows(ids, placed, visuals, ids.length - 1) };
  }
  if (places.length === pictures.length) {
    return promptToTrace(model, { ids, pictures: places, lastPromptToken: ids.length - 1 }, pictures);
  }
  throw new EmendError(
    'invalid-input',
    `input_ids holds ${places.length} image tokens; give ${pictures.length === 1 ? 'one' : pictures.length}, or ${rows} (one for each visual row).`,
  );
}
