/**
 * @file VisEdit's training losses (eqs. 12–19) as a graph above the edit layer. What lies below is frozen and the same for
 * every adapter, so it runs elsewhere and only its output enters here.
 */

import { EmendError } from '../../errors.ts';
import { attentionInputs, type Decoder, enter } from '../../models/decoder.ts';
import type { WeightOf, Weights } from '../../models/weights.ts';
import { productOfDims } from '../../tensor/dims.ts';
import * as f from '../../tensor/functions.ts';
import type { Graph, Tensor } from '../../tensor/graph.ts';
import type { AdapterWeights } from '../adapterFiles.ts';
import { type AnswerTerms, answerTerms } from '../training/answerTerms.ts';
import type { BatchSizes } from '../training/batch.ts';
import {
  type AdapterShape,
  adaptRows,
  influenceKeyOf,
  influenceLogits,
  rowKinds,
  type SignalInputs,
} from './adapterGraph.ts';

/** Weights of the terms in the total. */
export interface LossWeights {
  readonly reliability: number;
  readonly textGenerality: number;
  readonly imageGenerality: number;
  readonly imageLocality: number;
  readonly influenceUp: number;
  readonly influenceDown: number;
  readonly influenceAttribution: number;
  /** not in the paper: see `influenceOverlap` of `visEditLosses` */
  readonly influenceOverlap: number;
}

/** The published code's weights. */
export const publishedWeights: LossWeights = {
  reliability: 1,
  textGenerality: 1,
  imageGenerality: 1,
  imageLocality: 1,
  influenceUp: 0.1,
  influenceDown: 0.1,
  influenceAttribution: 0.1,
  influenceOverlap: 0,
};

/** An editor's terms: of its answers, and of its influence mapper, as far as either is trained. */
export type LossTerms = Partial<AnswerTerms & InfluenceTerms>;

/** Inside every logarithm of the influence losses, as in the published code. */
const logFloor = 1e-8;

/**
 * Builds the losses. Inputs of the graph (R = 3·edits·rows):
 * `hidden` [3·edits, rows, hidden], output of the edit layer for all edits' own sequences, then all rephrased pictures', then all locality pictures';
 * what `attentionInputs` declares for 3·edits sequences of rows, each with positions and mask of its own;
 * `visual_rows` int64 [3·edits·visual], the pictures' rows among R, and `visual_used` [3·edits, visual, 1], 0 where a picture has
 * fewer rows than the largest and an entry stands for none;
 * `signal_mask` [edits, 1, 1, rows], 0 on rows of the edit signal (image, prompt ⊕ target), very negative elsewhere;
 * `kinds` [edits, rows, 4]; `key_rows` int64 [edits], last prompt token of each edit among edits·rows;
 * `picked` int64 [picked] rows among R that predict a label, `next` int64 [picked] the labels, and
 * `weight.reliability`, `weight.textGenerality`, `weight.imageGenerality` [picked], the share of each label in each term;
 * `picked_locality` int64 [kept] rows among R whose next-token distribution must stay what it was, the unedited
 * model's logits there as `before` [kept, vocabulary], and `weight.imageLocality` [kept];
 * `raised` int64 [raisedPictures·edits·sampled], `lowered` int64 [edits·sampled], rows among R whose influence is to rise and to fall;
 * `attribution` [edits, sampled], the influence target of the last picture's raised rows (eq. 18, normalised).
 *
 * Beside the paper's terms there is `influenceOverlap`: eq. 18 says only how influence is shared among the rows of a picture, so that
 * nothing draws it to one on what is asked about and to zero beside it. Here the map as a whole is drawn over the rows that are attributed at
 * least about twice their even share: 1 − their Tversky index (Salehi et al. 2017, "Tversky loss function"), in which influence beside them
 * counts for one part and influence that they lack for nine: one layer reads few of a thing's rows, and the map is to cover it.
 */
export function visEditLosses(
  graph: Graph,
  sizes: BatchSizes,
  shape: AdapterShape,
  decoder: Decoder,
  editLayer: number,
  frozen: Weights,
  adapter: WeightOf,
  scale = 1,
): LossTerms {
  const attention = attentionInputs(graph, decoder, 3 * sizes.edits, sizes.rows, sizes.rows);
  const { adapted, influence } = adaptedHidden(graph, sizes, shape, decoder.hidden, adapter, scale);
  let x = adapted;
  for (let layer = editLayer + 1; layer < decoder.layers; layer++)
    x = decoder.layer(enter(x, layer, attention), layer, attention, frozen).hidden;
  return { ...answerTerms(graph, enter(x, decoder.layers, attention), decoder, frozen), ...influence };
}

/** The edit signals of a batch from hidden states of their layer [3·edits, rows, width]: those of the edits' own sequences. */
export function signalsOf(
  graph: Graph,
  { edits, rows }: Pick<BatchSizes, 'edits' | 'rows'>,
  width: number,
): (hidden: Tensor) => SignalInputs {
  const keys = graph.input('key_rows', 'int64', [edits]);
  const mask = graph.input('signal_mask', 'float32', [edits, 1, 1, rows]);
  const kinds = graph.input('kinds', 'float32', [edits, rows, rowKinds.length]);
  return (hidden) => {
    const signal = f.slice(hidden, 0, 0, edits);
    const key = f.gather(f.reshape(signal, [edits * rows, width]), keys);
    return { rows: signal, key, mask, kinds };
  };
}

/**
 * Adapts the rows of x [all, rows, width] that the inputs `visual_rows` and `visual_used`, or `text_rows` and `text_used`, name.
 */
export function adaptChosen(
  graph: Graph,
  x: Tensor,
  kind: 'visual' | 'text',
  signal: SignalInputs,
  shape: AdapterShape,
  adapter: WeightOf,
  scale: number,
): Tensor {
  const [all, rows, width] = x.shape as [number, number, number];
  const flat = f.reshape(x, [all * rows, width]);
  const places = graph.input(`${kind}_rows`, 'int64', [productOfDims([all, kind])]);
  const used = graph.input(`${kind}_used`, 'float32', [all, kind, 1]);
  const chosen = f.reshape(f.gather(flat, places), [all, kind, width], used);
  const { change, influence } = adaptRows(chosen, signal, shape, adapter, scale);
  const gate = influence ? f.multiply(used, f.reshape(influence, [all, kind, 1], used)) : used;
  const moved = f.reshape(f.multiply(change, gate), [productOfDims([all, kind]), width], places);
  return f.reshape(f.scatterRows(flat, places, moved, 'add'), [all, rows, width]);
}

type InfluenceTerms = Record<
  'influenceUp' | 'influenceDown' | 'influenceAttribution' | 'influenceOverlap',
  Tensor
>;

/**
 * What lies at the edit layer: hidden states with the adapter's change [3·edits, rows, hidden], and the terms that need no answer; none
 * without an influence mapper.
 */
export function adaptedHidden(
  graph: Graph,
  sizes: BatchSizes,
  shape: AdapterShape,
  width: number,
  adapter: WeightOf,
  scale: number,
): { readonly adapted: Tensor; readonly influence: Partial<InfluenceTerms> } {
  const hidden = hiddenAtEdit(graph, sizes, width);
  const signal = signalsOf(graph, sizes, width)(hidden);
  const adapted = adaptChosen(graph, hidden, 'visual', signal, shape, adapter, scale);
  if (!shape.influenceMapper) return { adapted, influence: {} };
  return { adapted, influence: influenceTerms(graph, sizes, shape, hidden, signal, adapter) };
}

/** The terms that need no answer alone: those of an influence mapper, by which nothing else of the adapter is moved. */
export function influenceLosses(
  graph: Graph,
  sizes: BatchSizes,
  shape: AdapterShape,
  width: number,
  adapter: WeightOf,
): InfluenceTerms {
  const hidden = hiddenAtEdit(graph, sizes, width);
  return influenceTerms(graph, sizes, shape, hidden, signalsOf(graph, sizes, width)(hidden), adapter);
}

const hiddenAtEdit = (graph: Graph, { edits, rows }: BatchSizes, width: number): Tensor =>
  graph.input('hidden', 'float32', [3 * edits, rows, width]);

/** 1 where a row is attributed several times twice its even share of the picture, 0 where much less, 0.5 at it. [edits, sampled] */
function isAttributed(target: Tensor, sampled: number): Tensor {
  const times = f.multiply(target, sampled / 2);
  const squared = f.multiply(times, times);
  const fourth = f.multiply(squared, squared);
  return f.divide(fourth, f.add(fourth, 1));
}

const BESIDE_WEIGHT = 0.1;
/** Keeps the index of nothing with nothing a number. */
const OVERLAP_FLOOR = 1e-3;

/** The Tversky index of each map with the rows it should cover, both 0..1 [edits, sampled] → [edits], 1 where they agree. */
function tverskyIndex(map: Tensor, covered: Tensor): Tensor {
  const total = (x: Tensor) => f.sum(x, [-1]);
  const common = total(f.multiply(map, covered));
  const beside = f.multiply(total(f.multiply(map, f.subtract(1, covered))), BESIDE_WEIGHT);
  const missed = f.multiply(total(f.multiply(f.subtract(1, map), covered)), 1 - BESIDE_WEIGHT);
  return f.divide(common, f.add(f.add(common, f.add(beside, missed)), OVERLAP_FLOOR));
}

function influenceTerms(
  graph: Graph,
  { edits, rows, sampled, raisedPictures }: BatchSizes,
  shape: AdapterShape,
  hidden: Tensor,
  signal: SignalInputs,
  adapter: WeightOf,
): InfluenceTerms {
  const width = shape.hidden;
  const flat = f.reshape(hidden, [3 * edits * rows, width]);
  const key = influenceKeyOf(signal, shape, adapter);
  const influenceOf = (name: string, pictures: 1 | 2) => {
    const rowsOf = graph.input(name, 'int64', [pictures * edits * sampled]);
    const chosen = f.reshape(f.gather(flat, rowsOf), [pictures * edits, sampled, width]);
    return influenceLogits(chosen, key, shape, adapter);
  };
  const raised = influenceOf('raised', raisedPictures);
  const lastRaised = raisedPictures === 1 ? raised : f.slice(raised, 0, edits, 2 * edits);
  const lowered = f.sigmoid(influenceOf('lowered', 1));
  const target = graph.input('attribution', 'float32', [edits, sampled]);
  const surprise = (x: Tensor) => f.negate(f.log(f.add(x, logFloor)));
  return {
    // a term for each picture
    influenceUp: f.multiply(f.mean(surprise(f.sigmoid(raised))), raisedPictures),
    influenceDown: f.mean(surprise(f.subtract(1, lowered))),
    influenceAttribution: f.mean(f.sum(f.multiply(target, surprise(f.softmax(lastRaised))), [-1])),
    influenceOverlap: f.subtract(
      1,
      f.mean(tverskyIndex(f.sigmoid(lastRaised), isAttributed(target, sampled))),
    ),
  };
}

/** Weights of an adapter of which some are not trained: `fixed` are constants of the graph, the others as `weight` gives them. */
export function withFixed(graph: Graph, weight: WeightOf, fixed: AdapterWeights): WeightOf {
  return (name) => {
    const found = fixed.get(name);
    return found ? graph.constant(found.data, found.shape) : weight(name);
  };
}

/** Σ weight·term, over the terms whose weight is not 0; null where there is none. */
export function weightedSum(
  terms: Partial<Record<keyof LossWeights, Tensor>>,
  weights: LossWeights,
): Tensor | null {
  const parts = (Object.keys(terms) as Array<keyof LossWeights>)
    .filter((name) => weights[name] !== 0)
    .map((name) => f.multiply(terms[name]!, weights[name]));
  return parts.length > 0 ? parts.reduce((a, b) => f.add(a, b)) : null;
}

/** The weighted sum of all terms. @throws EmendError 'invalid-input' where every weight is 0 */
export function totalLoss(terms: LossTerms, weights: LossWeights): Tensor {
  const loss = weightedSum(terms, weights);
  if (!loss)
    throw new EmendError('invalid-input', 'All terms of the loss have weight 0: nothing would be trained.');
  return loss;
}
