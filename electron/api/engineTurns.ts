/**
 * @file Whose turn it is at the engine, which serves one call after the other in the order they were made.
 */
import type { EngineOperations, OperationName } from '../engine/protocol.ts';
import type { EngineState } from './contract.ts';
import type { EngineCallOptions, EngineClient } from './engineClient.ts';

/** The call that is being served. */
export interface EngineTurn {
  readonly name: OperationName;
  /** the job it is a part of; null for what nobody asked for, such as opening the model at the start */
  readonly job: string | null;
}

/** An engine that tells whose turn it is. */
export class EngineTurns implements EngineClient {
  readonly #engine: EngineClient;
  readonly #job: () => string | null;
  readonly #onTurn: (turn: EngineTurn | null) => void;
  readonly #queue: EngineTurn[] = [];

  /**
   * @param job the job the calling code is a part of
   * @param onTurn hears of the call whose turn begins; null: the engine is free
   */
  constructor(engine: EngineClient, job: () => string | null, onTurn: (turn: EngineTurn | null) => void) {
    this.#engine = engine;
    this.#job = job;
    this.#onTurn = onTurn;
  }

  async call<N extends OperationName>(
    name: N,
    input: EngineOperations[N]['input'],
    options?: EngineCallOptions,
  ): Promise<EngineOperations[N]['output']> {
    const turn: EngineTurn = { name, job: this.#job() };
    this.#queue.push(turn);
    if (this.#queue.length === 1) this.#onTurn(turn);
    try {
      return await this.#engine.call(name, input, options);
    } finally {
      const first = this.#queue[0] === turn;
      this.#queue.splice(this.#queue.indexOf(turn), 1);
      if (first) this.#onTurn(this.#queue[0] ?? null);
    }
  }

  get state(): EngineState {
    return this.#engine.state;
  }

  onState(listener: (state: EngineState) => void): () => void {
    return this.#engine.onState(listener);
  }

  onRestart(listener: () => void): () => void {
    return this.#engine.onRestart(listener);
  }
}
