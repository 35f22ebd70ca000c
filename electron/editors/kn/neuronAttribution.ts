/**
 * @file Which neurons of the MLPs an answer hangs on: integrated gradients of its probability by their activations
 * (Dai et al. 2022, eqs 4–5).
 *
 * Only the last row is scaled and nothing comes after it, so all earlier rows are run once; every layer and every step of the integral is
 * one more row that sees them and itself, and all of these run together.
 */
import { attentionFeeds, attentionInputs, type Decoder, enter } from '../../models/decoder.ts';
import { logitsAt } from '../../models/decoderPass.ts';
import { causalMask, forbidden } from '../../models/positions.ts';
import type { ModelInput, VisionLanguageModel } from '../../models/visionLanguageModel.ts';
import { observedWeights } from '../../models/weights.ts';
import * as f from '../../tensor/functions.ts';
import { gradients } from '../../tensor/gradients.ts';
import type { Graph, Tensor } from '../../tensor/graph.ts';
import { float32, floatsOf, int64, type Value } from '../../tensor/session.ts';
import type { Sessions } from '../weightEditor.ts';

/** Which activations are scaled: the inner ones, that the projection out of the MLP reads, or what the first projection into it gives. */
export type Activations = 'inner' | 'gate';

export interface Integral {
  readonly activations: Activations;
  /** shares of the activations at which gradients are taken */
  readonly alphas: readonly number[];
}

/** Rows that run together: more take more memory, fewer read the weights more often. */
const ROWS_TOGETHER = 640;

/**
 * Attribution of every neuron to the probability of token `id` behind the last prompt row: its activation · the mean of
 * ∂p/∂activation at the shares `alphas` of its layer's activations. [layers][inner width]
 */
export async function neuronAttribution(
  model: VisionLanguageModel,
  sessions: Sessions,
  input: ModelInput,
  id: number,
  { activations, alphas }: Integral,
): Promise<Float32Array[]> {
  const { decoder } = model;
  const session = await sessions.get(`attribution of ${activations}`, (graph) =>
    attributionGraph(graph, decoder, model.decoder.weightsOf(graph), activations),
  );
  const past = input.lastPromptRow;
  const shared = { ...(await pastFeeds(model, input, past)), label: int64([id], [1]) };
  const scores: Float32Array[] = [];
  const together = Math.max(1, Math.floor(ROWS_TOGETHER / alphas.length));
  for (let first = 0; first < decoder.layers; first += together) {
    const layers = Array.from({ length: Math.min(together, decoder.layers - first) }, (_, at) => first + at);
    const rows = layers.length * alphas.length;
    const feeds: Record<string, Value> = { ...shared, ...rowFeeds(model, input, past, rows) };
    for (let layer = 0; layer < decoder.layers; layer++) {
      const at = layers.indexOf(layer) * alphas.length;
      const scale = new Float32Array(rows).fill(1);
      const share = new Float32Array(rows);
      if (at >= 0) {
        scale.set(alphas, at);
        share.fill(1 / alphas.length, at, at + alphas.length);
      }
      feeds[`scale.${layer}`] = float32(scale, [1, rows, 1]);
      feeds[`share.${layer}`] = float32(share, [1, rows]);
    }
    // The rows of the highest layer are those in which nothing below it is scaled.
    feeds['unscaled'] = int64([rows - 1], [1]);
    const out = await session.run(feeds);
    for (const layer of layers) scores.push(await floatsOf(out[`attribution.${layer}`]!));
  }
  return scores;
}

/** One row for each layer and share, all behind the same past and none behind another. */
function attributionGraph(
  graph: Graph,
  decoder: Decoder,
  weights: ReturnType<VisionLanguageModel['decoder']['weightsOf']>,
  activations: Activations,
): void {
  const { hidden, keyValueHeads, headDim, layers } = decoder;
  const inputs = attentionInputs(graph, decoder, 1, 'rows', 'past+rows');
  const unscaled = graph.input('unscaled', 'int64', [1]);
  const scaled: Tensor[] = [];
  const own: Tensor[] = [];
  const scale = (layer: number, x: Tensor) => {
    const { width } = decoder.mlp(layer);
    own.push(f.gather(f.reshape(x, ['rows', width]), unscaled));
    const result = f.multiply(x, graph.input(`scale.${layer}`, 'float32', [1, 'rows', 1]));
    scaled.push(result);
    return result;
  };
  const layerOf = new Map(
    Array.from({ length: layers }, (_, layer) => {
      const { into, out } = decoder.mlp(layer);
      return [activations === 'inner' ? out : into[0]!, layer] as const;
    }),
  );
  const at = (name: string, x: Tensor) => (layerOf.has(name) ? scale(layerOf.get(name)!, x) : x);
  const observed =
    activations === 'inner'
      ? observedWeights(weights, (_, __, out) => out, at)
      : observedWeights(weights, (name, _, out) => at(name, out));
  let x: Tensor = graph.input('entering', 'float32', [1, 'rows', hidden]);
  for (let layer = 0; layer < layers; layer++) {
    const held = [1, keyValueHeads, 'past', headDim];
    const past = {
      key: graph.input(`past_key.${layer}`, 'float32', held),
      value: graph.input(`past_value.${layer}`, 'float32', held),
    };
    x = decoder.layer(enter(x, layer, inputs), layer, inputs, observed, past).hidden;
  }
  const top = f.reshape(enter(x, layers, inputs), ['rows', hidden]);
  const logits = logitsAt(top, graph.input('every', 'int64', ['rows']), decoder, observed);
  const label = f.oneHot(graph.input('label', 'int64', [1]), decoder.vocab);
  const probability = f.sum(f.multiply(f.softmax(logits), label));
  for (const [layer, gradient] of gradients(probability, scaled).entries()) {
    const { width } = decoder.mlp(layer);
    const share = graph.input(`share.${layer}`, 'float32', [1, 'rows']);
    const mean = f.matmul(share, f.reshape(gradient, ['rows', width]));
    graph.output(`attribution.${layer}`, f.multiply(own[layer]!, mean));
  }
}

/** Keys and values of the rows before the last prompt row. */
async function pastFeeds(
  model: VisionLanguageModel,
  input: ModelInput,
  past: number,
): Promise<Record<string, Value>> {
  const prefill = await model.prefill(input, [past]);
  const { caches } = await model.finish(prefill, [past]);
  const { keyValueHeads, headDim } = model.decoder;
  const feeds: Record<string, Value> = {};
  for (const { values, length } of caches) {
    for (const [name, value] of Object.entries(values)) {
      const all = await floatsOf(value);
      const kept = new Float32Array(keyValueHeads * past * headDim);
      for (let head = 0; head < keyValueHeads; head++)
        kept.set(
          all.subarray(head * length * headDim, (head * length + past) * headDim),
          head * past * headDim,
        );
      feeds[name] = float32(kept, [1, keyValueHeads, past, headDim]);
    }
  }
  return feeds;
}

/** The last prompt row so many times, each seeing the past and itself. */
function rowFeeds(
  { decoder, hidden }: VisionLanguageModel,
  { embeddings, positions, added }: ModelInput,
  past: number,
  rows: number,
): Record<string, Value> {
  const repeated = (values: Float32Array) => {
    const out = new Float32Array(rows * hidden);
    for (let row = 0; row < rows; row++)
      out.set(values.subarray(past * hidden, (past + 1) * hidden), row * hidden);
    return out;
  };
  const seen = causalMask(1, past, decoder.slidingWindow);
  const mask = new Float32Array(rows * (past + rows)).fill(forbidden);
  for (let row = 0; row < rows; row++) {
    mask.set(seen.subarray(0, past), row * (past + rows));
    mask[row * (past + rows) + past + row] = 0;
  }
  const place = positions.map((axis) => new Int32Array(rows).fill(axis[past]!));
  return {
    ...attentionFeeds(decoder, place, past, added.map(repeated)),
    mask: float32(mask, [1, 1, rows, past + rows]),
    entering: float32(repeated(embeddings.data as Float32Array), [1, rows, hidden]),
    every: int64(
      Array.from({ length: rows }, (_, row) => row),
      [rows],
    ),
  };
}
