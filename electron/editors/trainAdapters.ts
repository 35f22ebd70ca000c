/**
 * @file Trains an editor that adapts hidden states, on a frozen model: batches of edits in, adapter weights out.
 */
import { existsSync } from 'node:fs';
import { EmendError } from '../errors.ts';
import { fingerprint } from '../models/checkpoint.ts';
import type { VisionLanguageModel } from '../models/visionLanguageModel.ts';
import { type WeightOf, type Weights, weightsAsInputs } from '../models/weights.ts';
import { Graph } from '../tensor/graph.ts';
import { floatsOf, type Value } from '../tensor/session.ts';
import type { AdamOptions } from '../training/optimizer.ts';
import { type Evaluator, type StepReport, Trainer } from '../training/trainer.ts';
import type { AdapterWeights } from './adapterFiles.ts';
import type { AdapterShape } from './visedit/adapterGraph.ts';
import { type EditSource, type LaidBatch, layBatch, type RaisedPictures } from './visedit/batch.ts';
import { FrozenModel } from './visedit/frozen.ts';
import type { AdapterStart } from './visedit/initialAdapter.ts';
import { LayerwiseFrozen } from './visedit/layerwiseTraining.ts';
import { type LossSizes, type LossTerms, type LossWeights, totalLoss } from './visedit/losses.ts';

/** What every training of adapters is told. */
export interface AdapterTraining {
  /** edits a step */
  readonly edits: number;
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
  readonly optimizer: AdamOptions;
  readonly steps: number;
  readonly seed: number;
}

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
    sizes: LossSizes,
    frozen: Weights,
    adapter: WeightOf,
    scales: readonly number[],
  ): LossTerms;
  /** The same losses through a decoder that is run one layer at a time; absent: there is no such form. */
  layerwise?(sizes: LossSizes, scales: readonly number[]): Promise<Evaluator>;
  dispose?(): Promise<void>;
}

export interface TrainingProgress extends StepReport {
  readonly steps: number;
  readonly seconds: number;
}

export interface TrainingRun {
  /** where the training's state is kept: saved every so many steps and at the end, and taken up where it exists */
  readonly statePath: string;
  /** 250 when absent */
  readonly saveEvery?: number;
  /**
   * Runs the decoder one layer at a time, for backbones whose layers do not fit in memory together, and keeps what lies below the
   * adapter in this folder. Losses and gradients are the same; every layer above the adapter is run twice.
   */
  readonly keptBelow?: string;
  /** weights to start from, those of a trained adapter of the same shape */
  readonly from?: { readonly fingerprint: string; readonly weights: AdapterWeights };
  readonly signal?: AbortSignal;
  readonly onStep?: (progress: TrainingProgress) => void;
  /** The state was saved; `weights` gives them as an adapter's file holds them. Waited for before the next step. */
  readonly onSaved?: (step: number, weights: () => AdapterWeights) => Promise<void>;
}

/** What a training gives: weights as an adapter's file holds them. */
export interface TrainedWeights {
  readonly weights: AdapterWeights;
  readonly modelFingerprint: string;
}

/** What `emend train` is told of an editor's adapters. */
export interface AdapterOptions extends AdapterTraining {
  /** decoder layer whose output the adapter of visual rows changes, from 0 */
  readonly layer: number;
  /** of the adapter of text rows, in editors that have one; the visual adapter's when absent */
  readonly textLayer?: number | undefined;
  readonly shape: Omit<AdapterShape, 'hidden'>;
  readonly start: AdapterStart;
  /** layers whose attention teaches an influence mapper where to look; those the published code takes when absent */
  readonly attributionLayers?: readonly number[] | undefined;
}

/** How an editor's adapters are trained. */
export interface EditorTraining {
  /** whether it also has an adapter of text rows, at a layer of its own */
  readonly textRows: boolean;
  /** layers of the decoder that it acts after, ascending: the model is opened with these cuts */
  cuts(options: AdapterOptions): number[];
  /** what its adapter.json says beside what all say */
  describe(options: AdapterOptions): object;
  train(
    model: VisionLanguageModel,
    source: EditSource,
    options: AdapterOptions,
    run: TrainingRun,
  ): Promise<TrainedWeights>;
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

/** @throws EmendError 'invalid-input' unless both have the same weights in the same shapes */
function takeOver(weights: AdapterWeights, from: AdapterWeights, scaleOf: (name: string) => number): void {
  for (const [name, { shape, data }] of weights) {
    const given = from.get(name);
    if (!given || given.shape.join() !== shape.join()) {
      throw new EmendError(
        'invalid-input',
        `The adapter to start from has ${name} as [${given?.shape ?? 'nothing'}], and this training as [${shape}]. Give the widths, heads and attention it was trained with.`,
      );
    }
    const scale = scaleOf(name);
    data.set(scale === 1 ? given.data : given.data.map((value) => value / scale));
  }
}

/**
 * Trains. The same options, source and model give the same weights to the bit, stopped and taken up again or not.
 * @throws EmendError 'cancelled' when the signal is aborted, with the state saved
 */
export async function trainAdapters(
  model: VisionLanguageModel,
  source: EditSource,
  options: AdapterTraining,
  run: TrainingRun,
  editor: TrainedEditor,
): Promise<TrainedWeights> {
  const { weights, adapters, entering = [] } = editor;
  const layers = [...new Set(adapters.map(({ layer }) => layer))].sort((a, b) => a - b);
  const lowest = layers[0]!;
  if (model.cuts[0] !== lowest)
    throw new EmendError('internal', `The model must be opened with a cut after layer ${lowest}.`);
  const sampled = Math.min(options.sampled, model.images.rows.most);
  const modelFingerprint = await fingerprint(model.checkpoint);
  if (run.keptBelow !== undefined && (!editor.layerwise || layers.length > 1))
    throw new EmendError(
      'unsupported',
      'This editor acts at several layers and is not trained one layer at a time. Train it on dense weights.',
    );
  const frozen =
    run.keptBelow === undefined
      ? await FrozenModel.compile(model, layers, entering)
      : await LayerwiseFrozen.create(model, modelFingerprint, lowest, entering, run.keptBelow);
  const lay = async (step: number) => {
    const random = seededUniform(options.seed * 7919 + step);
    return layBatch(model, await source.batch(step, options.edits), {
      endToken: options.endToken,
      rows: options.rows,
      sampled,
      raised: options.raised,
      random,
    });
  };

  // Longer or shorter training of the same thing may go on; anything else is another training.
  const { steps: _steps, optimizer: _optimizer, ...lasting } = options;
  const settings = JSON.stringify({
    ...lasting,
    ...editor.settings,
    source: source.name,
    model: modelFingerprint,
    ...(run.from && { from: run.from.fingerprint }),
  });
  let trainer: Trainer | null = null;
  try {
    const first = await lay(0);
    const given = await frozen.run(first);
    const scales: number[] = [];
    for (const { layer } of adapters) {
      const rows = await floatsOf(given[layer === lowest ? 'hidden' : `hidden.${layer}`]!);
      scales.push(options.scale > 0 ? options.scale * rootMeanSquare(rows) : 1);
    }
    // The scale becomes part of the last projection: a saved adapter needs no setting of its own.
    const scaleOf = (name: string) => {
      const at = adapters.findIndex(({ prefix }) => name.startsWith(`${prefix}mlp_end.`));
      return at < 0 ? 1 : scales[at]!;
    };
    const folded = () =>
      new Map(
        [...weights].map(([name, { shape, data }]) => {
          const scale = scaleOf(name);
          return [name, { shape, data: scale === 1 ? data : data.map((value) => value * scale) }] as const;
        }),
      );
    const save = async (step: number) => {
      await trainer!.save(run.statePath, settings);
      await run.onSaved?.(step, folded);
    };
    if (run.from) takeOver(weights, run.from.weights, scaleOf);
    trainer =
      run.keptBelow === undefined
        ? await wholeTrainer(first.sizes, scales)
        : new Trainer(await editor.layerwise!(first.sizes, scales), weights, options.optimizer);
    if (existsSync(run.statePath)) await trainer.load(run.statePath, settings);
    const started = performance.now();
    for (let step = trainer.optimizer.step; step < options.steps; step++) {
      if (run.signal?.aborted) {
        await save(step);
        throw new EmendError('cancelled', `Training was stopped after ${step} steps; it goes on from there.`);
      }
      const batch = await lay(step);
      const from = await frozen.run(batch);
      const report = await trainer.step({
        ...batch.feeds,
        ...from,
        ...(await editor.feeds?.(batch, from, step)),
      });
      run.onStep?.({ ...report, steps: options.steps, seconds: (performance.now() - started) / 1000 });
      if (report.step % (run.saveEvery ?? 250) === 0 || report.step === options.steps)
        await save(report.step);
      await new Promise((resolve) => setImmediate(resolve));
    }
    return { weights: folded(), modelFingerprint };
  } finally {
    await trainer?.dispose();
    await frozen.dispose();
    await editor.dispose?.();
  }

  /** The losses and the decoder above the lowest adapter in one graph. */
  function wholeTrainer(sizes: LossSizes, scales: readonly number[]): Promise<Trainer> {
    const graph = new Graph();
    const shapes = new Map([...weights].map(([name, value]) => [name, value.shape]));
    const terms = editor.losses(
      graph,
      sizes,
      model.decoder.weightsOf(graph),
      weightsAsInputs(graph, shapes),
      scales,
    );
    const loss = totalLoss(terms, options.weights);
    return Trainer.create(graph, loss, terms, weights, options.optimizer, { providers: [model.provider] });
  }
}
