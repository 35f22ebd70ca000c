/**
 * @file What every editor of the workbench is: it turns an edit into a signal, and changes hidden states by it.
 */
import type { Visual } from '../models/picture.ts';
import type { Adapt, VisionLanguageModel } from '../models/visionLanguageModel.ts';

/** A request: answer `target` when this picture is shown and `prompt` is asked. */
export interface EditRequest {
  readonly visual: Visual;
  readonly prompt: string;
  readonly target: string;
}

/** Output of the edit layer on (image, prompt ⊕ target). */
export interface EditSignal {
  /** [rows, hidden] */
  readonly hidden: Float32Array;
  readonly rows: number;
  /** rows of the picture, in the order of its visual embeddings */
  readonly imageRows: readonly number[];
  /** row of the last prompt token */
  readonly lastPromptRow: number;
}

export interface Editor {
  /** the papers' name */
  readonly name: string;
  /** decoder layers after whose output the editor acts, ascending; the model is opened with these cuts */
  readonly cuts: readonly number[];
  signal(model: VisionLanguageModel, edit: EditRequest): Promise<EditSignal>;
  /** The change an edit makes to the hidden states of an input. */
  adapt(signal: EditSignal): Adapt;
  /** Influence of the edit on each visual token of hidden states at the edit layer [visual tokens], 0..1; null when the editor has no map. */
  influence(
    hidden: Float32Array,
    imageRows: readonly number[],
    signal: EditSignal,
  ): Promise<Float32Array | null>;
  dispose(): Promise<void>;
}
