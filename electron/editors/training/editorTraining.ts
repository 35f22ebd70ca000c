/**
 * @file How an editor is trained: its settings, what it needs of the model, and the losses of a batch. The loop around that is one for
 * all editors (`trainEditor.ts`).
 */
import type { z } from 'zod';
import type { FloatCacheLimits } from '../../files/floatCache.ts';
import type { Checkpoint } from '../../models/open.ts';
import type { VisionLanguageModel } from '../../models/visionLanguageModel.ts';
import type { AdamOptions, Parameters } from '../../training/optimizer.ts';
import type { Evaluation, StepReport } from '../../training/trainer.ts';
import type { AdapterWeights } from '../adapterFiles.ts';
import type { EditorNeeds } from '../editor.ts';
import type { FrozenVision } from './cachedVision.ts';
import type { TrainingEdit } from './edits.ts';

/** What every training is told, whatever is trained. */
export interface TrainingOptions {
  /** edits a batch */
  readonly edits: number;
  /** batches a step: the optimiser follows the mean of their gradients; 1 when absent */
  readonly accumulate?: number | undefined;
  readonly optimizer: AdamOptions;
  readonly steps: number;
  readonly seed: number;
}

/** Weights of a trained adapter of the same editor, with the fingerprint of its files. */
export interface StartingWeights {
  readonly fingerprint: string;
  readonly weights: AdapterWeights;
}

/** What a training begins with. */
export interface TrainingStart {
  readonly model: VisionLanguageModel;
  readonly modelFingerprint: string;
  /** what sees the edits' pictures; an editor that changes or differentiates the vision side asks the model itself */
  readonly vision: FrozenVision;
  /** the edits of the first batch: all others are as many */
  readonly first: readonly TrainingEdit[];
  readonly seed: number;
  readonly from?: StartingWeights | undefined;
  /** run the decoder one layer at a time, and keep what lies below the adapter in this folder */
  readonly keptBelow?: string | undefined;
}

/** Learning rate where neither a person nor an editor says another: VisEdit's. */
export const USUAL_RATE = 1e-4;

/** How an editor is trained here. */
export interface EditorTraining<Settings extends object = object> {
  /** What may be set of it: one schema for the command line, run.json and the page's form. Fields have a `title` and a `description`. */
  readonly settings: z.ZodType<Settings>;
  /** learning rate where none is given; the usual one when absent */
  readonly rate?: number;
  /** settings and learning rate that a form begins with, where they are others than the published ones that the schema has */
  readonly proposed?: { readonly settings?: Partial<Settings>; readonly rate?: number };
  /** whether it can be trained on a decoder that is run one layer at a time: so it always is on packed weights, others are in one graph */
  readonly layerwise?: boolean;
  /** What the model must be opened with. @throws EmendError 'invalid-input' for settings that this model does not have */
  needs(settings: Settings, checkpoint: Checkpoint): EditorNeeds;
  /** What its adapter.json says beside what all say. */
  describe(settings: Settings, checkpoint: Checkpoint): object;
  /** Names of weights that half precision would not hold; the others are saved in it. */
  exact?(name: string): boolean;
  begin(settings: Settings, start: TrainingStart): Promise<EditorInTraining>;
}

/** An editor that is being trained. */
export interface EditorInTraining {
  /** followed by the optimiser, in place */
  readonly parameters: Parameters;
  /** what else changes as it is trained, in place: kept with its state */
  readonly kept?: Parameters;
  /** what makes this training another one than others, beside the common options; kept with its state */
  readonly settings: object;
  /** Loss, its terms, and its gradients by parameter on a batch; `number` counts batches from 0. */
  evaluate(edits: readonly TrainingEdit[], number: number): Promise<Evaluation>;
  /** A step was made. */
  stepped?(report: StepReport): void;
  /** Weights as an adapter's file holds them. */
  weights(): AdapterWeights;
  dispose(): Promise<void>;
}

export interface TrainingProgress extends StepReport {
  readonly steps: number;
  readonly seconds: number;
}

export interface TrainingRun {
  /** where the training's state is kept: saved every so many steps or two minutes, and at the end, and taken up where it exists */
  readonly statePath: string;
  /** 250 when absent */
  readonly saveEvery?: number;
  /**
   * Runs the decoder one layer at a time, for backbones whose layers do not fit in memory together, and keeps what lies below the
   * adapter in this folder. Losses and gradients are the same; every layer above the adapter is run twice.
   */
  readonly keptBelow?: string;
  /** where visual embeddings are kept of pictures that come again, for all trainings; nothing is kept when absent */
  readonly pictureCache?: FloatCacheLimits;
  /** weights to start from, those of a trained adapter of the same shape */
  readonly from?: StartingWeights;
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
