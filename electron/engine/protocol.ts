/**
 * @file What the application asks of the engine process. Messages are structured clones, so bytes travel as they are.
 */
import type {
  Answer,
  AnswerToken,
  ChatAnswer,
  InfluenceMap,
  LayerProposal,
  ModalityReport,
  ModelSummary,
  ModuleReport,
  VisualReport,
} from '../api/contract.ts';
import type { ModuleContributionVariant } from '../attribution/moduleContribution.ts';
import type { Perturbation } from '../attribution/visualContribution.ts';
import type { EditorChoice } from '../editors/registry.ts';
import type { ScopeForm } from '../editors/scope/openScope.ts';
import type { Reach, ScopeInput } from '../editors/scope/scope.ts';
import type { GateReport } from '../evaluation/gateReport.ts';
import type { TrainingPoint, TrainingValidation } from '../evaluation/trainingCurve.ts';
import type { TrainingRequest } from '../evaluation/trainingRun.ts';
import type { Actors } from '../library/database.ts';
import type { KeptMatch } from '../library/scopeInputs.ts';
import type { ScopeFacts } from '../library/scopes.ts';
import type { Comparison } from '../library/watched.ts';
import type { OpeningWay } from '../models/memory.ts';
import type { PackedCache } from '../models/packed/cache.ts';
import type { WeightForm } from '../models/packed/form.ts';
import type { Provider } from '../tensor/session.ts';
import type { MeasurementRequest } from './benchmarking.ts';
import type { ComparisonRequest } from './comparing.ts';
import type { GateRequest } from './gating.ts';

/** An edit as the engine needs it. `signal` spares recomputing what the library already holds. */
export interface EngineEdit {
  readonly id: number;
  readonly reach: Reach;
  /** the picture file's bytes */
  readonly picture: Uint8Array;
  readonly prompt: string;
  readonly target: string;
  /** edit signal in safetensors form, as an earlier operation returned it; null: compute it */
  readonly signal: Uint8Array | null;
}

/** An input to describe, to ask of the unedited model, or both. */
export interface EngineInput {
  readonly picture: Uint8Array | null;
  readonly prompt: string;
  readonly describe: boolean;
  readonly answer: boolean;
}

/** A turn of a conversation. */
export interface EngineTurn {
  readonly role: 'system' | 'user' | 'assistant';
  readonly text: string;
  /** picture files' bytes, which come before the text */
  readonly pictures: readonly Uint8Array[];
}

/** What was found of an input: null where it was not wanted, or where no edit can act. */
export interface EngineInputResult {
  readonly described: ScopeInput | null;
  /** the committed edits most similar to it, scored */
  readonly matches: readonly KeptMatch[];
  readonly unedited: string | null;
}

/** Pictures with questions to attribute: given, or those of an editing set's first edits. */
export type AttributedInputs =
  | { readonly inputs: ReadonlyArray<{ readonly picture: Uint8Array; readonly prompt: string }> }
  | {
      readonly file: string;
      readonly images?: string | undefined;
      readonly limit: number;
      readonly suffix: string;
    };

export interface EngineSampling {
  readonly temperature: number;
  readonly topP: number;
  readonly seed: number;
}

/** A model that is opened for an operation alone and closed after it; absent: it is of the one that is open. */
type ModelAlone = EngineOperations['open']['input'];

/** Every operation: what goes in, what comes out, what is streamed meanwhile under the name `progress` or others. */
/** Where a training lies, and what it shares with others. */
export interface TrainingFolders {
  readonly folder: string;
  /** of the adapter that is made of it */
  readonly out: string;
  readonly packed: PackedCache;
  /** where visual embeddings are kept for all trainings */
  readonly pictureCache: string;
}

export interface EngineOperations {
  open: {
    input: {
      path: string;
      /** folder of an adapter, or a file of the published code */
      adapter: string | null;
      /** an editor that needs no training, in place of an adapter */
      editor?: EditorChoice | undefined;
      providers: readonly Provider[];
      template: 'plain' | 'chat';
      /** most rows a picture may take, where the checkpoint allows more */
      pictureRows?: number | undefined;
      /** the form of the weights; `dense` when absent. Others need `packed`. */
      weights?: WeightForm | undefined;
      packed?: PackedCache | undefined;
      /** the same as a wish: kept as far as the model allows so few */
      mostPictureRows?: number | undefined;
      /** the scope asked for; the editor's own choice when absent, where that is to be routed the best there is */
      scope?: ScopeForm | undefined;
      /** folder of a scope that was trained for this model, for editors without one of their own */
      scopeFolder?: string | undefined;
    };
    output: {
      summary: ModelSummary;
      /** null without an adapter */
      scope: ScopeFacts | null;
      provider: Provider;
      refusals: ReadonlyArray<{ provider: Provider; reason: string }>;
    };
  };
  /** Measures what a gate compares over an editing set. Opens a model of its own. */
  measureGate: {
    input: { request: GateRequest; emend: string; packed: PackedCache; command: string };
    output: GateReport;
  };
  /** Trains an editor's adapters, in a folder; goes on where the training in it was left. Opens a model of its own. */
  train: {
    input: { request: TrainingRequest } & TrainingFolders;
    output: null;
  };
  /** Makes an adapter folder of the best weights so far of the training in `folder`. */
  keepTrained: { input: TrainingFolders; output: null };
  /** Measures an editor over an editing set and writes the report to `out`. Opens a model of its own. */
  measure: {
    input: { request: MeasurementRequest; emend: string; packed: PackedCache; out: string };
    output: null;
  };
  /** Reads config and headers only. */
  ways: {
    input: { path: string; providers: readonly Provider[]; packed: PackedCache };
    output: {
      ways: ReadonlyArray<OpeningWay & { readonly made: boolean }>;
      proposed: WeightForm | null;
      available: number;
    };
  };
  inspect: {
    input: { path: string };
    output: {
      summary: ModelSummary;
      tensors: ReadonlyArray<{ name: string; dtype: string; shape: number[]; file: string }>;
    };
  };
  /**
   * Takes up the committed edits of a library, which the engine reads itself, all or none. `missing`: edits that lack a signal or a
   * description; then nothing changed. `changes`: how often the committed set had changed.
   */
  activate: {
    input: { library: string; actors: Actors; template: 'plain' | 'chat' };
    output: { missing: readonly number[]; changes: number };
  };
  /** Edit signals, and where asked for the influence map of each. */
  sign: {
    input: { edits: readonly EngineEdit[]; influence: boolean };
    output: { signals: ReadonlyArray<{ id: number; signal: Uint8Array; influence: InfluenceMap | null }> };
  };
  /** Describes inputs and asks them of the unedited model. `changes` as for `activate`: the set the matches are of. */
  describe: {
    input: { inputs: readonly EngineInput[]; maxNewTokens: number };
    output: { results: readonly EngineInputResult[]; changes: number };
  };
  /** Finds the matches of kept inputs anew. */
  settle: {
    input: { inputs: readonly number[] };
    output: { matches: ReadonlyArray<readonly KeptMatch[]>; changes: number };
  };
  compare: { input: ComparisonRequest; output: Comparison };
  /** Answers of inputs under edits that act together, whose signals the library holds; none: of the unedited model. */
  answer: {
    input: {
      items: ReadonlyArray<{ picture: Uint8Array | null; prompt: string; edits: readonly number[] }>;
      maxNewTokens: number;
    };
    output: { texts: readonly string[] };
  };
  /**
   * `token`: a text whose first token is the key token; null: the model's own next. `control`: one for the wrong key token; null: the
   * set's locality answers, or what the model says to the input before. `edit`: acts on the inputs in a second run.
   */
  attributeModules: {
    input: {
      model?: ModelAlone | undefined;
      of: AttributedInputs;
      token: string | null;
      control: string | null;
      variant: ModuleContributionVariant;
      edit: EngineEdit | null;
    };
    output: ModuleReport;
  };
  /** `layers`: ascending; null: all */
  attributeVisual: {
    input: {
      picture: Uint8Array;
      prompt: string;
      layers: readonly number[] | null;
      perturbation: Perturbation;
      seed: number;
      edit: EngineEdit | null;
    };
    output: VisualReport;
  };
  /** `noise` null: attention alone */
  attributeModality: {
    input: {
      model?: ModelAlone | undefined;
      of: AttributedInputs;
      noise: { readonly level: number; readonly draws: number; readonly seed: number } | null;
    };
    output: ModalityReport;
  };
  proposeLayer: {
    input: {
      model?: ModelAlone | undefined;
      of: AttributedInputs;
      rows: 'visual' | 'text';
      seed: number;
    };
    output: LayerProposal;
  };
  ask: {
    input: {
      picture: Uint8Array | null;
      prompt: string;
      edits: 'none' | 'committed';
      maxNewTokens: number;
      sampling: EngineSampling | null;
    };
    output: Answer;
  };
  /** Writes the weights that all committed edits change together: a copy of the checkpoint with them, or what is added alone. */
  exportWeights: {
    input: { path: string; form: 'checkpoint' | 'delta' };
    output: { edits: number; written: readonly string[]; linked: readonly string[] };
  };
  /** How many rows a picture of this size takes. */
  rows: { input: { width: number; height: number }; output: { rows: number } };
  /** The next turn of a conversation, which ends in a question. */
  chat: {
    input: {
      turns: readonly EngineTurn[];
      edits: 'none' | 'committed';
      maxNewTokens: number;
      sampling: EngineSampling | null;
      /** texts before which the answer ends */
      stop: readonly string[];
      /** likeliest tokens told for each token */
      alternatives: number;
      /** the same turns are asked twice, with and without edits: what both have in common is computed once */
      share?: boolean;
    };
    output: ChatAnswer;
  };
  /** `acting`: the committed edit that acts on the edit's own input now */
  preview: {
    input: { edit: EngineEdit; maxNewTokens: number };
    output: {
      before: Answer;
      after: Answer;
      influence: InfluenceMap | null;
      signal: Uint8Array;
      input: EngineInputResult;
      changes: number;
      acting: number | null;
    };
  };
}

export type OperationName = keyof EngineOperations;

/** What an operation may send while it runs. */
export type EngineStream =
  | {
      readonly kind: 'progress';
      readonly stage: string;
      readonly done: number;
      readonly total: number | null;
      readonly unit: string;
      /** how much of the whole operation is done, 0..1, where it has stages and knows */
      readonly share?: number;
    }
  | {
      readonly kind: 'token';
      readonly side: 'before' | 'after' | 'answer';
      readonly token: AnswerToken;
      /** what is certain of the answer's text by now and was not told before */
      readonly text: string;
    }
  | { readonly kind: 'training'; readonly point: TrainingPoint }
  | { readonly kind: 'validation'; readonly validation: TrainingValidation };

/** What an operation is given beside its input. */
export interface OperationContext {
  /** aborted when the caller cancels; operations look at it between steps */
  readonly signal: AbortSignal;
  readonly send: (message: EngineStream) => void;
}

/** The engine's side: one function per operation. */
export type OperationTable = {
  readonly [N in OperationName]: (
    input: EngineOperations[N]['input'],
    context: OperationContext,
  ) => Promise<EngineOperations[N]['output']>;
};

/** Messages to the engine process. */
export type ToEngine =
  | { readonly kind: 'call'; readonly id: number; readonly name: OperationName; readonly input: unknown }
  | { readonly kind: 'cancel'; readonly id: number }
  | { readonly kind: 'stop' };

/** Messages from the engine process. */
export type FromEngine =
  | { readonly kind: 'ready' }
  | { readonly kind: 'result'; readonly id: number; readonly output: unknown }
  | { readonly kind: 'error'; readonly id: number; readonly error: { code: string; message: string } }
  | { readonly kind: 'stream'; readonly id: number; readonly message: EngineStream }
  | { readonly kind: 'memory'; readonly bytes: number };
