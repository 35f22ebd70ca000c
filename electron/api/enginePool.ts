/**
 * @file Engines beside the one that answers, for what takes long: a process for each call that runs, so many at most. Memory is bounded by that,
 * and what a process dies of is its call's alone. One that has nothing to do ends after a while.
 */
import type { EngineOperations, OperationName } from '../engine/protocol.ts';
import type { Engine } from '../engine/supervisor.ts';
import { EmendError } from '../errors.ts';
import type { EngineCallOptions } from './engineClient.ts';
import type { EngineTurn } from './engineTurns.ts';

/** Processes at a time; each may hold a model. */
const MOST = 2;
/** So long a process that has nothing to do is kept for the next call, in milliseconds: starting one takes seconds. */
const IDLE = 5000;
/** Of each of these one at a time: they take hours, and what is shorter is to find a process beside them. */
const alone: ReadonlySet<OperationName> = new Set(['train', 'measure']);

export interface PoolCallOptions extends EngineCallOptions {
  /** hears what the process holds, in bytes */
  readonly onMemory?: (bytes: number) => void;
}

export interface EnginePoolOptions {
  /** starts an engine process */
  readonly start: () => Engine;
  /** the job the calling code is a part of */
  readonly job: () => string | null;
  /** hears of all calls that wait, each with those of which one must end first */
  readonly onWaiting: (waiting: ReadonlyMap<EngineTurn, readonly EngineTurn[]>) => void;
}

interface Waiting {
  readonly turn: EngineTurn;
  readonly begin: (engine: Engine) => void;
  readonly refuse: (error: unknown) => void;
}

export class EnginePool {
  readonly #options: EnginePoolOptions;
  readonly #running = new Map<EngineTurn, Engine>();
  /** those with nothing to do, with what ends them */
  readonly #idle = new Map<Engine, NodeJS.Timeout>();
  readonly #ending = new Set<Engine>();
  #waiting: readonly Waiting[] = [];
  #stopped = false;

  constructor(options: EnginePoolOptions) {
    this.#options = options;
  }

  /**
   * Runs one operation in a process of its own, as soon as there is room for it.
   * @throws EmendError the operation's own, 'cancelled', or 'engine' when the process ended meanwhile
   */
  async call<N extends OperationName>(
    name: N,
    input: EngineOperations[N]['input'],
    options: PoolCallOptions = {},
  ): Promise<EngineOperations[N]['output']> {
    const turn: EngineTurn = { name, job: this.#options.job() };
    const engine = await this.#beginning(turn, options.signal);
    const quiet = engine.onState(
      ({ memoryBytes }) => memoryBytes !== null && options.onMemory?.(memoryBytes),
    );
    try {
      return await engine.call(name, input, options);
    } finally {
      quiet();
      this.#running.delete(turn);
      // One that died, or was ended while it hung, is not for the next call; one that has yet to start, because its call was stopped, is.
      if (this.#stopped || ['restarting', 'failed'].includes(engine.state.state)) this.#end(engine);
      else this.#idle.set(engine, setTimeout(() => this.#end(engine), IDLE).unref());
      this.#advance();
    }
  }

  /** Ends all processes and calls. Final. */
  async stop(): Promise<void> {
    this.#stopped = true;
    for (const { refuse } of this.#waiting) refuse(new EmendError('engine', 'The engine has been stopped.'));
    this.#waiting = [];
    for (const engine of [...this.#running.values(), ...this.#idle.keys()]) this.#end(engine);
    await Promise.all([...this.#ending].map((engine) => engine.stop()));
  }

  #end(engine: Engine): void {
    clearTimeout(this.#idle.get(engine));
    this.#idle.delete(engine);
    this.#ending.add(engine);
    void engine.stop().then(() => {
      this.#ending.delete(engine);
      this.#advance();
    });
  }

  /** Settles when a call's turn has come, with the engine started for it. */
  #beginning(turn: EngineTurn, signal: AbortSignal | undefined): Promise<Engine> {
    if (this.#stopped) throw new EmendError('engine', 'The engine has been stopped.');
    if (signal?.aborted) throw new EmendError('cancelled', 'Stopped.');
    const { promise, resolve, reject } = Promise.withResolvers<Engine>();
    const waiting: Waiting = { turn, begin: resolve, refuse: reject };
    const leave = () => {
      if (!this.#waiting.includes(waiting)) return;
      this.#waiting = this.#waiting.filter((one) => one !== waiting);
      reject(new EmendError('cancelled', 'Stopped.'));
      this.#advance();
    };
    signal?.addEventListener('abort', leave, { once: true });
    this.#waiting = [...this.#waiting, waiting];
    this.#advance();
    return promise.finally(() => signal?.removeEventListener('abort', leave));
  }

  /** Begins what can be, in the order it was asked for, and tells what waits. */
  #advance(): void {
    for (const waiting of this.#waiting) {
      if (this.#before(waiting.turn) !== null) continue;
      this.#waiting = this.#waiting.filter((one) => one !== waiting);
      try {
        const engine = this.#takeIdle() ?? this.#options.start();
        this.#running.set(waiting.turn, engine);
        waiting.begin(engine);
      } catch (error) {
        waiting.refuse(error);
      }
    }
    this.#options.onWaiting(new Map(this.#waiting.map(({ turn }) => [turn, this.#before(turn) ?? []])));
  }

  #takeIdle(): Engine | null {
    const [engine, timer] = this.#idle.entries().next().value ?? [null];
    if (engine) {
      clearTimeout(timer);
      this.#idle.delete(engine);
    }
    return engine;
  }

  /** Calls of which one must end before another begins; null: it can begin. */
  #before({ name }: EngineTurn): readonly EngineTurn[] | null {
    const running = [...this.#running.keys()];
    const alike = alone.has(name) ? running.filter((one) => one.name === name) : [];
    if (alike.length > 0) return alike;
    return running.length + this.#ending.size < MOST ? null : running;
  }
}
