/**
 * @file What every editor of the workbench is: it makes a request into a state, and states act where the editor says.
 */
import type { z } from 'zod';
import type { Generation, GenerationOptions } from '../models/generation.ts';
import type { Checkpoint } from '../models/open.ts';
import type { WeightForm } from '../models/packed/form.ts';
import type { Visual } from '../models/picture.ts';
import type {
  Adapt,
  AdaptNext,
  Prefill,
  VisionLanguageModel,
  WeightChanges,
} from '../models/visionLanguageModel.ts';
import type { Question } from './question.ts';
import type { EditorTraining } from './training/editorTraining.ts';

/** A request: answer `target` when this picture is shown and `prompt` is asked. */
export interface EditRequest {
  readonly visual: Visual;
  readonly prompt: string;
  readonly target: string;
  /** edits that act already where all act together, in their order: some are made on what those left */
  readonly before?: readonly EditState[];
}

/** What an editor made of a request and acts by. Only the editor that made it knows what is in it. */
export type EditState = object;

/** What work that may take minutes is given: how to stop it, and whom it tells how far it is. */
export interface Work {
  /** aborted: the work ends with `cancelled`, between two steps */
  readonly signal?: AbortSignal;
  /** so many steps are done, of so many */
  readonly progress?: (done: number, total: number) => void;
}

/** Where edits act in a model; any subset. */
export interface Effect {
  /** what is asked in place of a question; the question itself where nothing of it changes */
  readonly question?: (question: Question) => Question | Promise<Question>;
  /** another model, which may answer in place of this one */
  readonly answer?: OtherAnswer;
  /** hidden states of the prompt's rows, at the editor's cuts */
  readonly rows?: Adapt;
  /** hidden states of each token that is generated, at the editor's cuts; absent: it sees the edit through the cache alone */
  readonly next?: AdaptNext;
  /** linear layers, of those the editor had made changeable */
  readonly weights?: WeightChanges;
}

/** Options of an answer; what the edits do to it is the editor's. */
export type AnswerOptions = Omit<GenerationOptions, 'adapt' | 'adaptNext' | 'changes'>;

/** Another model that answers where an edit acts. */
export interface OtherAnswer {
  /** Free generation; null: the model itself answers. */
  generate(question: Question, options: AnswerOptions): Promise<Generation | null>;
  /** What is read of a target, from the model's own logits of the rows that predict it [target tokens, vocabulary] → the same shape. */
  read(question: Question, target: string, own: Float32Array): Promise<Float32Array>;
}

/** How much an edit changes each visual row of an input [visual rows], 0..1. */
export interface EditMap {
  readonly name: string;
  /** decoder layer at whose output it changes them */
  readonly layer: number;
  readonly values: Float32Array;
}

/** A fact of an open editor, for pages. */
export interface EditorFact {
  readonly label: string;
  readonly value: string;
}

export interface Editor<State extends EditState = EditState> {
  /** the papers' name */
  readonly name: string;
  /** decoder layers after whose output the editor acts, ascending; the model is opened with these cuts */
  readonly cuts: readonly number[];
  readonly facts?: readonly EditorFact[];
  /** May optimise for minutes. @throws EmendError 'cancelled' when it is stopped */
  make(model: VisionLanguageModel, request: EditRequest, work?: Work): Promise<State>;
  /** The state as bytes, for the library. */
  encode(state: State): Uint8Array;
  /** @throws EmendError 'damaged' when the bytes are no state of this editor beside this model */
  decode(bytes: Uint8Array): State;
  /** What these edits do to an input on which all of them act, in the order they were committed. */
  effect(states: readonly State[]): Effect;
  /** Maps of an edit on an input with a picture; absent: the editor has none. */
  maps?(model: VisionLanguageModel, prefill: Prefill, state: State): Promise<readonly EditMap[]>;
  dispose(): Promise<void>;
}

/** What a model must be opened with for an editor. */
export interface EditorNeeds {
  /** decoder layers after whose output it acts or looks, ascending */
  readonly cuts: readonly number[];
  /** canonical names of the linear layers it changes */
  readonly changeable: readonly string[];
}

/** An editor with all that it is opened by, read and checked, not yet opened. */
export interface UnopenedEditor extends EditorNeeds {
  readonly editor: EditorKind;
  /** its weights lie in a folder, where a scope may lie beside them */
  readonly folder: boolean;
  readonly name: string;
  /** fingerprint of the checkpoint it is for */
  readonly model: string;
  /** the form of the weights it was trained on; `dense` when absent */
  readonly weights?: WeightForm | undefined;
  /** names editor, settings and weights: edits of one fingerprint are not edits of another */
  readonly fingerprint: string;
  /** where one cosine decides whether its edits act, and from which value; where there is no learned scope */
  readonly router: { readonly layer: number; readonly threshold: number };
  /** what decides where its edits act unless a person chooses */
  readonly scope: EditorScope;
  /** settings, as they were given or by default; null where they lie in its folder */
  readonly settings: Readonly<Record<string, unknown>> | null;
  /** Compiles it beside the model. `scope`: what decides where its edits act. */
  open(model: VisionLanguageModel, scope: EditorScope): Promise<Editor>;
}

/** An editor as the registry lists it. */
export interface EditorKind<Settings extends object = object> {
  /** the papers' name */
  readonly name: string;
  /** in a few words: what of the model it changes */
  readonly acts: string;
  /** how it is trained here; absent: nothing to train, or only elsewhere */
  readonly training?: EditorTraining;
  /** what holds whatever its weights are, by the metric's name, each with the reason in one sentence */
  readonly byConstruction: Readonly<Partial<Record<'textLocality', string>>>;
  /** what decides where edits of its adapters act unless a person chooses; `routed` when absent */
  readonly trainedScope?: EditorScope;
  /** Reads an adapter folder whose adapter.json names this editor. Absent: there is nothing to train. */
  read?(folder: string, checkpoint: Checkpoint): Promise<UnopenedEditor>;
  /** How it is opened with settings alone. Absent: it must be trained on a model before it can edit it. */
  readonly untrained?: UntrainedEditor<Settings>;
}

export type EditorScope = 'routed' | 'everywhere' | 'own';

/** An editor that needs no training. */
export interface UntrainedEditor<Settings extends object> {
  /**
   * What a person may set, the published values by default: one schema for the command line, files and the page's form. Fields have a
   * `title` and a `description` (`.meta`); a field whose meta says `file: true` is the path of a file, and what the file holds counts.
   */
  readonly settings: z.ZodType<Settings>;
  /**
   * What decides where its edits act unless a person chooses: `routed`, the best scope there is for the model; `everywhere`, nothing, as
   * published; `own`, the editor itself.
   */
  readonly scope: EditorScope;
  /** What the model must be opened with. @throws EmendError 'invalid-input' for settings that this model does not have */
  needs(settings: Settings, checkpoint: Checkpoint): EditorNeeds;
  /** `scope`: what decides where its edits act; not `own`: the editor leaves that to another. */
  open(settings: Settings, model: VisionLanguageModel, scope: EditorScope): Promise<Editor>;
}
