/**
 * @file The decoder from one layer on as part of a graph of somebody's own: losses, gradients and what layers read, for one sequence.
 */
import { EmendError } from '../errors.ts';
import * as f from '../tensor/functions.ts';
import type { Graph, Tensor } from '../tensor/graph.ts';
import { int64, type Value } from '../tensor/session.ts';
import { attentionFeeds, attentionInputs, type Decoder, enter, type LayerOutputs } from './decoder.ts';
import type { ModelInput, VisionLanguageModel } from './visionLanguageModel.ts';
import { changeFeeds, type WeightChanges } from './weightChanges.ts';
import type { Weights } from './weights.ts';

/**
 * The output of layer `last` (of the decoder's last where absent), as it enters what lies above [rows, hidden]. The graph's inputs are
 * `entering` [1, rows, hidden], the output of layer `from − 1` (the embeddings where `from` is 0), and what `attentionInputs` declares.
 * `changed` may put another output in a layer's place.
 */
export function decoderFrom(
  graph: Graph,
  decoder: Decoder,
  from: number,
  weights: Weights,
  options: {
    readonly last?: number;
    readonly changed?: (layer: number, outputs: LayerOutputs) => Tensor;
  } = {},
): Tensor {
  const { last = decoder.layers - 1, changed } = options;
  const inputs = attentionInputs(graph, decoder, 1, 'rows', 'rows');
  let x: Tensor = graph.input('entering', 'float32', [1, 'rows', decoder.hidden]);
  for (let layer = from; layer <= last; layer++) {
    const outputs = decoder.layer(enter(x, layer, inputs), layer, inputs, weights);
    x = changed?.(layer, outputs) ?? outputs.hidden;
  }
  return f.reshape(enter(x, last + 1, inputs), ['rows', decoder.hidden]);
}

/** Feeds of `decoderFrom` for an input. The model must be cut after layer `from − 1`, unless that is 0. */
export async function feedsFrom(
  model: VisionLanguageModel,
  input: ModelInput,
  from: number,
  changes: WeightChanges = new Map(),
): Promise<Record<string, Value>> {
  const { embeddings, positions, added } = input;
  const own = { ...attentionFeeds(model.decoder, positions, 0, added), ...changeFeeds(changes) };
  if (from === 0) return { ...own, entering: embeddings };
  const prefill = await model.prefill(input, [], changes);
  return { ...own, entering: await model.unedited(prefill, from - 1) };
}

/** Logits of rows [n] of what `decoderFrom` gives → [n, vocabulary]. */
export function logitsAt(top: Tensor, rows: Tensor, decoder: Decoder, weights: Weights): Tensor {
  return decoder.head(decoder.finalNorm(f.gather(top, rows), weights), weights);
}

/**
 * Mean of −log p(target token) over a target's tokens. Inputs: `predicting` int64 [target], the rows that predict them, and `labels`
 * int64 [target].
 */
export function targetLoss(graph: Graph, top: Tensor, decoder: Decoder, weights: Weights): Tensor {
  const rows = graph.input('predicting', 'int64', ['target']);
  const labels = graph.input('labels', 'int64', ['target']);
  return f.mean(f.crossEntropy(logitsAt(top, rows, decoder, weights), labels));
}

/** Feeds of `targetLoss` for a target behind the last prompt row. */
export function targetFeeds(
  { lastPromptRow }: ModelInput,
  targetIds: readonly number[],
): Record<string, Value> {
  if (targetIds.length === 0) throw new EmendError('invalid-input', 'The target is empty. Type an answer.');
  return {
    predicting: int64(
      targetIds.map((_, place) => lastPromptRow + place),
      [targetIds.length],
    ),
    labels: int64(targetIds, [targetIds.length]),
  };
}
