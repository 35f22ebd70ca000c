/**
 * @file Editors that adapt hidden states, in training: losses above the frozen model, by the weights of their adapters.
 */
import { EmendError } from '../../errors.ts';
import type { VisionLanguageModel } from '../../models/visionLanguageModel.ts';
import { type WeightOf, type Weights, weightsAsInputs } from '../../models/weights.ts';
import { Graph } from '../../tensor/graph.ts';
import { floatsOf, type Value } from '../../tensor/session.ts';
import { type Evaluator, graphEvaluator, parameterFeeds } from '../../training/trainer.ts';
import type { AdapterWeights } from '../adapterFiles.ts';
import { LayerwiseFrozen } from '../visedit/layerwiseTraining.ts';
import { type LossTerms, type LossWeights, totalLoss } from '../visedit/losses.ts';
import { type BatchSizes, type LaidBatch, layBatch, type RaisedPictures, seeEdits } from './batch.ts';
import type { EditorInTraining, TrainingOptions, TrainingStart } from './editorTraining.ts';
import { FrozenModel } from './frozenModel.ts';
import { startingWeights } from './startingWeights.ts';

/** What every training of adapters of rows is told. */
export interface RowTraining {
  /** rows of a sequence; edits whose texts need more are refused, extra locality texts are left out */
  readonly rows: number;
  /** visual tokens drawn for the influence losses; all of them where there are no more */
  readonly sampled: number;
  readonly raised: RaisedPictures;
  readonly weights: LossWeights;
  /** targets end with the end token in the loss */
  readonly endToken: boolean;
  /** a change is multiplied by this many times the rows' root mean square at its layer; 0: by nothing, as published */
  readonly scale: number;
}

/** The same with the common options. */
export interface AdapterTraining extends RowTraining, TrainingOptions {}

/** An adapter of the editor that is trained. */
export interface TrainedAdapter {
  /** what the names of its weights begin with */
  readonly prefix: string;
  /** decoder layer whose output it changes, from 0 */
  readonly layer: number;
}

/** The editor that is trained: its adapters, and its losses above the frozen model. */
export interface TrainedEditor {
  readonly adapters: readonly TrainedAdapter[];
  /** of all adapters; trained in place */
  readonly weights: AdapterWeights;
  /** what makes this training another one than others, beside the common options; kept with its state */
  readonly settings: object;
  /** decoder layers whose entering hidden states `feeds` needs */
  readonly entering?: readonly number[];
  /** What the losses are fed beside the batch and what the frozen model gave. */
  feeds?(
    batch: LaidBatch,
    given: Readonly<Record<string, Value>>,
    step: number,
  ): Promise<Record<string, Value>>;
  /** `scales`: what each adapter's change is multiplied by, in the order of `adapters` */
  losses(
    graph: Graph,
    sizes: BatchSizes,
    frozen: Weights,
    adapter: WeightOf,
    scales: readonly number[],
  ): LossTerms;
  /** The same losses through a decoder that is run one layer at a time; absent: they need no decoder, or there is no such form. */
  layerwise?(sizes: BatchSizes, scales: readonly number[]): Promise<Evaluator>;
  dispose?(): Promise<void>;
}

function seededUniform(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

function rootMeanSquare(values: Float32Array): number {
  let sum = 0;
  for (const value of values) sum += value * value;
  return Math.sqrt(sum / values.length);
}

/** Adapters of rows, ready to be trained on batches like the first. */
export async function adaptersInTraining(
  { model, modelFingerprint, vision, first, seed, from, keptBelow }: TrainingStart,
  { rows, sampled: drawn, raised, weights: lossWeights, endToken, scale }: RowTraining,
  editor: TrainedEditor,
): Promise<EditorInTraining> {
  const { weights, adapters, entering = [] } = editor;
  const layers = [...new Set(adapters.map(({ layer }) => layer))].sort((a, b) => a - b);
  const lowest = layers[0]!;
  if (model.cuts[0] !== lowest)
    throw new EmendError('internal', `The model must be opened with a cut after layer ${lowest}.`);
  const sampled = Math.min(drawn, model.images.rows.most);
  if (keptBelow !== undefined && layers.length > 1)
    throw new EmendError('internal', 'An editor of several layers is not trained one layer at a time.');
  const frozen =
    keptBelow === undefined
      ? await FrozenModel.compile(model, layers, entering)
      : await LayerwiseFrozen.create(model, modelFingerprint, lowest, entering, keptBelow);
  const lay = async (edits: TrainingStart['first'], number: number) => {
    const random = seededUniform(seed * 7919 + number);
    const seen = await seeEdits(vision, edits);
    return layBatch(model, edits, { endToken, rows, sampled, raised, random, seen });
  };
  let evaluator: Evaluator | null = null;
  const dispose = async () => {
    await evaluator?.dispose();
    await frozen.dispose();
    await editor.dispose?.();
  };
  try {
    const batch = await lay(first, 0);
    const given = await frozen.run(batch);
    const scales: number[] = [];
    for (const { layer } of adapters) {
      const states = await floatsOf(given[layer === lowest ? 'hidden' : `hidden.${layer}`]!);
      scales.push(scale > 0 ? scale * rootMeanSquare(states) : 1);
    }
    // The scale becomes part of the last projection: a saved adapter needs no setting of its own.
    const scaleOf = (name: string) => {
      const at = adapters.findIndex(({ prefix }) => name.startsWith(`${prefix}mlp_end.`));
      return at < 0 ? 1 : scales[at]!;
    };
    if (from) startingWeights(weights, from.weights, scaleOf);
    const evaluate =
      keptBelow !== undefined && editor.layerwise
        ? await editor.layerwise(batch.sizes, scales)
        : await inOneGraph(model, batch.sizes, scales, lossWeights, editor);
    evaluator = evaluate;
    return {
      parameters: weights,
      settings: { rows, sampled, raised, weights: lossWeights, endToken, scale, ...editor.settings },
      async evaluate(edits, number) {
        const laid = await lay(edits, number);
        const below = await frozen.run(laid);
        const own = await editor.feeds?.(laid, below, number);
        return evaluate.evaluate({ ...laid.feeds, ...below, ...own, ...parameterFeeds(weights) });
      },
      weights: () =>
        new Map(
          [...weights].map(([name, { shape, data }]) => {
            const by = scaleOf(name);
            return [name, { shape, data: by === 1 ? data : data.map((value) => value * by) }] as const;
          }),
        ),
      dispose,
    };
  } catch (error) {
    await dispose();
    throw error;
  }
}

/** The losses and the decoder above the lowest adapter in one graph. */
function inOneGraph(
  model: VisionLanguageModel,
  sizes: BatchSizes,
  scales: readonly number[],
  lossWeights: LossWeights,
  editor: TrainedEditor,
): Promise<Evaluator> {
  const graph = new Graph();
  const shapes = new Map([...editor.weights].map(([name, value]) => [name, value.shape]));
  const terms = editor.losses(
    graph,
    sizes,
    model.decoder.weightsOf(graph),
    weightsAsInputs(graph, shapes),
    scales,
  );
  const loss = totalLoss(terms, lossWeights);
  return graphEvaluator(graph, loss, terms, [...editor.weights.keys()], { providers: [model.provider] });
}
