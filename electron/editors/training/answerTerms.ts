/**
 * @file The terms of a loss that compare an edited model's answers with what they should be: targets, and what it said unedited.
 */
import type { Decoder } from '../../models/decoder.ts';
import type { Weights } from '../../models/weights.ts';
import { productOfDims } from '../../tensor/dims.ts';
import * as f from '../../tensor/functions.ts';
import type { Graph, Tensor } from '../../tensor/graph.ts';

export type AnswerTerms = Record<
  'reliability' | 'textGenerality' | 'imageGenerality' | 'imageLocality',
  Tensor
>;

/** `likelihoodTerms` and image locality. */
export function answerTerms(graph: Graph, x: Tensor, decoder: Decoder, weights: Weights): AnswerTerms {
  return {
    ...likelihoodTerms(graph, x, decoder, weights),
    ...localityTerms(graph, x, decoder, weights, ['imageLocality']),
  };
}

/**
 * Mean NLL of targets over the edit's own input, the rephrased prompt and the rephrased picture. x [sequences, rows, hidden]: the decoder's
 * last hidden states of a batch as `layBatch` lays it, as they enter the final norm; R = sequences·rows. Inputs: `picked` int64 [picked]
 * rows among R that predict a label, `next` int64 [picked] the labels, and `weight.reliability`, `weight.textGenerality`,
 * `weight.imageGenerality` [picked]. `smoothing` ε: (1 − ε − ε/(V − 1))·NLL + ε/(V − 1)·Σ −log p over the vocabulary V (KE).
 */
export function likelihoodTerms(
  graph: Graph,
  x: Tensor,
  decoder: Decoder,
  weights: Weights,
  smoothing = 0,
): Omit<AnswerTerms, 'imageLocality'> {
  const logits = logitsOf(graph, x, 'picked', decoder, weights);
  const nll = f.crossEntropy(logits, graph.input('next', 'int64', ['picked']));
  const share = smoothing / (decoder.vocab - 1);
  const surprise = () => f.negate(f.sum(f.logSoftmax(logits), [-1]));
  const likelihood =
    smoothing === 0 ? nll : f.add(f.multiply(nll, 1 - smoothing - share), f.multiply(surprise(), share));
  const term = (name: string) =>
    f.sum(f.multiply(likelihood, graph.input(`weight.${name}`, 'float32', ['picked'])));
  return {
    reliability: term('reliability'),
    textGenerality: term('textGenerality'),
    imageGenerality: term('imageGenerality'),
  };
}

/**
 * Mean KL(before ‖ after) over locality inputs, by kind. Inputs: `picked_locality` int64 [kept] rows among R whose next-token distribution
 * must stay what it was, the unedited model's logits there as `before` [kept, vocabulary], and `weight.` + kind [kept].
 */
export function localityTerms<Kind extends string>(
  graph: Graph,
  x: Tensor,
  decoder: Decoder,
  weights: Weights,
  kinds: readonly Kind[],
): Record<Kind, Tensor> {
  const logits = logitsOf(graph, x, 'picked_locality', decoder, weights);
  const drift = f.klDivergence(graph.input('before', 'float32', ['kept', decoder.vocab]), logits);
  const terms = kinds.map((kind) => [
    kind,
    f.sum(f.multiply(drift, graph.input(`weight.${kind}`, 'float32', ['kept']))),
  ]);
  return Object.fromEntries(terms) as Record<Kind, Tensor>;
}

const sizeOf = { picked: 'picked', picked_locality: 'kept' } as const;

/** Logits of the rows that an input names. */
function logitsOf(
  graph: Graph,
  x: Tensor,
  rows: keyof typeof sizeOf,
  decoder: Decoder,
  weights: Weights,
): Tensor {
  const [sequences, each] = x.shape;
  const flat = f.reshape(x, [productOfDims([sequences!, each!]), decoder.hidden]);
  const chosen = f.gather(flat, graph.input(rows, 'int64', [sizeOf[rows]]));
  return decoder.head(decoder.finalNorm(chosen, weights), weights);
}
