/**
 * @file What the application asks of the engine process. Messages are structured clones, so bytes travel as they are.
 */
import type { Answer, AnswerToken, InfluenceMap, ModelSummary, ProbeKind, Routing } from '../api/contract.ts';
import type { ScopeForm } from '../editors/scope/openScope.ts';
import type { Provider } from '../tensor/session.ts';

/** An edit as the engine needs it. `signal` spares recomputing what the library already holds. */
export interface EngineEdit {
  readonly id: number;
  /** the picture file's bytes */
  readonly picture: Uint8Array;
  readonly prompt: string;
  readonly target: string;
  /** edit signal in safetensors form, as an earlier operation returned it; null: compute it */
  readonly signal: Uint8Array | null;
}

/** An edit with its signal, or else with the picture to compute it from. */
export type SignalledEdit = Omit<EngineEdit, 'picture'> & { readonly picture: Uint8Array | null };

/** A committed edit: whole, or as the engine already has it acting. */
export type ActingEdit = SignalledEdit | { readonly id: number; readonly held: true };

/** One input of a check. */
export interface EngineProbe {
  readonly key: number;
  readonly kind: ProbeKind;
  readonly picture: Uint8Array | null;
  readonly prompt: string;
  readonly expected: string | null;
}

export interface EngineProbeResult {
  readonly key: number;
  readonly before: string;
  readonly after: string;
  readonly passes: boolean;
  readonly routing: Routing | null;
}

export interface EngineSampling {
  readonly temperature: number;
  readonly topP: number;
  readonly seed: number;
}

/** Every operation: what goes in, what comes out, what is streamed meanwhile under the name `progress` or others. */
export interface EngineOperations {
  open: {
    input: {
      path: string;
      adapter: string | null;
      providers: readonly Provider[];
      template: 'plain' | 'chat';
      /** the scope asked for; the best there is when absent */
      scope?: ScopeForm;
    };
    output: {
      summary: ModelSummary;
      provider: Provider;
      refusals: ReadonlyArray<{ provider: Provider; reason: string }>;
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
   * Replaces the set of committed edits that act together; it may come in parts, and acts with the last.
   * Returns signals that had to be computed, by edit.
   */
  activate: {
    input: { edits: readonly ActingEdit[]; begin: boolean; end: boolean };
    output: { signals: ReadonlyArray<{ id: number; signal: Uint8Array }> };
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
  preview: {
    input: { edit: EngineEdit; maxNewTokens: number };
    output: { before: Answer; after: Answer; influence: InfluenceMap; signal: Uint8Array };
  };
  /**
   * Answers every probe without the candidate (as the library acts now) and with it (candidate and committed edits, through the router).
   * Streams `result` per probe.
   */
  check: {
    input: { edit: EngineEdit; probes: readonly EngineProbe[]; maxNewTokens: number };
    output: { results: readonly EngineProbeResult[]; influence: InfluenceMap; signal: Uint8Array };
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
    }
  | { readonly kind: 'token'; readonly side: 'before' | 'after' | 'answer'; readonly token: AnswerToken }
  | { readonly kind: 'result'; readonly result: EngineProbeResult };

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
