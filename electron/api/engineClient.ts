/**
 * @file What the application knows of the engine process: operations, a state, and that it may begin anew.
 */
import type { EngineOperations, EngineStream, OperationName } from '../engine/protocol.ts';
import type { EngineState } from './contract.ts';

export interface EngineCallOptions {
  /** aborting it ends the call with EmendError 'cancelled' */
  readonly signal?: AbortSignal;
  readonly onStream?: (message: EngineStream) => void;
}

export interface EngineClient {
  /** Calls are served one after the other, in the order they were made. Rejects with an EmendError. */
  call<N extends OperationName>(
    name: N,
    input: EngineOperations[N]['input'],
    options?: EngineCallOptions,
  ): Promise<EngineOperations[N]['output']>;
  readonly state: EngineState;
  /** Returns a function that stops listening. */
  onState(listener: (state: EngineState) => void): () => void;
  /** A fresh process took the place of one that ended: it needs `open` and `activate` again. */
  onRestart(listener: () => void): () => void;
}
