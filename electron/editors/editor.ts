/**
 * @file What every editor of the workbench is: it makes a request into a state, and a state acts where the editor says.
 */
import type { WeightForm } from '../models/packed/form.ts';
import type { Visual } from '../models/picture.ts';
import type { Adapt, Prefill, VisionLanguageModel, WeightChanges } from '../models/visionLanguageModel.ts';
import type { Provider } from '../tensor/session.ts';
import type { EditorTraining } from './trainAdapters.ts';

/** A request: answer `target` when this picture is shown and `prompt` is asked. */
export interface EditRequest {
  readonly visual: Visual;
  readonly prompt: string;
  readonly target: string;
}

/** What an editor made of a request and acts by. Only the editor that made it knows what is in it. */
export type EditState = object;

/** Where edits act in a model; any subset. */
export interface Effect {
  /** hidden states at the editor's cuts */
  readonly rows?: Adapt;
  /** linear layers above the first cut */
  readonly weights?: WeightChanges;
}

/** How much an edit changes each visual row of an input [visual rows], 0..1. */
export interface EditMap {
  readonly name: string;
  readonly values: Float32Array;
}

export interface Editor<State extends EditState = EditState> {
  /** the papers' name */
  readonly name: string;
  /** decoder layers after whose output the editor acts, ascending; the model is opened with these cuts */
  readonly cuts: readonly number[];
  make(model: VisionLanguageModel, request: EditRequest): Promise<State>;
  /** The state as bytes, for the library. */
  encode(state: State): Uint8Array;
  /** @throws EmendError 'damaged' when the bytes are no state of this editor beside this model */
  decode(bytes: Uint8Array): State;
  /** What these edits do to an input on which all of them act. */
  effect(states: readonly State[]): Effect;
  /** Maps of an edit on an input with a picture; absent: the editor has none. */
  maps?(model: VisionLanguageModel, prefill: Prefill, state: State): Promise<readonly EditMap[]>;
  dispose(): Promise<void>;
}

/** An adapter, read and checked, not yet opened. */
export interface AdapterFolder {
  readonly editor: EditorKind;
  /** a single file that another program saved: no scope lies beside it */
  readonly single?: boolean;
  readonly name: string;
  /** decoder layers after whose output it acts, ascending */
  readonly cuts: readonly number[];
  /** fingerprint of the checkpoint it was trained on */
  readonly model: string;
  /** the form of the weights it was trained on; `dense` when absent */
  readonly weights?: WeightForm | undefined;
  /** sha256 of its files */
  readonly fingerprint: string;
  /** where one cosine decides whether its edits act, and from which value; for adapters without a learned scope */
  readonly router: { readonly layer: number; readonly threshold: number };
  /** Compiles it beside a model whose decoder is `hidden` wide. */
  open(options: { readonly hidden: number; readonly providers: readonly Provider[] }): Promise<Editor>;
}

/** An editor as the registry lists it. */
export interface EditorKind {
  /** the papers' name */
  readonly name: string;
  /** in a few words: what of the model it changes */
  readonly acts: string;
  /** whether it must be trained on a model before it can edit it */
  readonly trains: boolean;
  /** how its adapters are trained here; absent: nothing to train, or only elsewhere */
  readonly training?: EditorTraining;
  /** what holds whatever its weights are, by the metric's name, each with the reason in one sentence */
  readonly byConstruction: Readonly<Partial<Record<'textLocality', string>>>;
  /** Reads an adapter folder whose adapter.json names this editor. */
  read(folder: string): Promise<AdapterFolder>;
}
