/** @file Keeps one engine process alive and carries calls to it: restarts it when it dies, and says what happened. */
import type { EngineState } from '../api/contract.ts';
import { EmendError, type ErrorCode } from '../errors.ts';
import { checkMessageSize } from './messageSize.ts';
import type { EngineOperations, EngineStream, FromEngine, OperationName, ToEngine } from './protocol.ts';

/** A running engine process, however it was started. */
export interface EngineProcess {
  send(message: ToEngine): void;
  /** what arrives is what `FromEngine` says: the engine is this program */
  onMessage(listener: (message: FromEngine) => void): void;
  onExit(listener: (exit: EngineExit) => void): void;
  /** ends it at once, whatever it does */
  kill(): void;
}

export interface EngineExit {
  readonly code: number | null;
  readonly signal: string | null;
  /** why it did not even start */
  readonly reason?: string;
}

export interface CallOptions {
  readonly signal?: AbortSignal;
  readonly onStream?: (message: EngineStream) => void;
}

export interface Engine {
  readonly state: EngineState;
  /**
   * Runs one operation; calls made while the engine starts wait for it. After the engine was given up, a call starts it again.
   * @throws EmendError the operation's own, `cancelled`, or `engine` when the process ended meanwhile
   */
  call<N extends OperationName>(
    name: N,
    input: EngineOperations[N]['input'],
    options?: CallOptions,
  ): Promise<EngineOperations[N]['output']>;
  /** Both return a function that stops listening. */
  onState(listener: (state: EngineState) => void): () => void;
  /** The engine died and a new one is ready: it has no model and no edits. Calls made in the listener go before those waiting. */
  onRestart(listener: () => void): () => void;
  /** Ends the process and every call. Final. */
  stop(): Promise<void>;
}

/** Milliseconds, and how many deaths in a row are too many. */
export interface EnginePatience {
  /** from launch to ready */
  readonly start: number;
  /** from cancel to the end of the call; past it the process is killed */
  readonly cancel: number;
  /** from stop to the end of the process */
  readonly stop: number;
  /** pause before the first restart; doubles with each death in a row */
  readonly pause: number;
  /** a process that lived longer than this died of something new */
  readonly stable: number;
  readonly deaths: number;
}

/** Said of an engine that the system ended. */
export const OUT_OF_MEMORY = 'the system killed it, most often because memory ran out';

const PATIENCE: EnginePatience = {
  start: 60_000,
  cancel: 10_000,
  stop: 3_000,
  pause: 250,
  stable: 30_000,
  deaths: 4,
};

interface Call {
  readonly id: number;
  readonly name: OperationName;
  readonly input: unknown;
  readonly options: CallOptions;
  readonly resolve: (output: unknown) => void;
  readonly reject: (error: EmendError) => void;
  cancelTimer?: NodeJS.Timeout;
}

/**
 * Starts an engine process with `launch` and supervises it. Returns at once; the state says when it is ready.
 * `begin`: at once, or with the first call, for programs that may end without one.
 */
export function startEngine(options: {
  launch: () => EngineProcess;
  patience?: Partial<EnginePatience>;
  begin?: 'at once' | 'with the first call';
}): Engine {
  const supervisor = new Supervisor(options.launch, { ...PATIENCE, ...options.patience });
  if (options.begin !== 'with the first call') supervisor.begin();
  return supervisor;
}

class Supervisor implements Engine {
  readonly #launch: () => EngineProcess;
  readonly #patience: EnginePatience;
  readonly #stateListeners = new Set<(state: EngineState) => void>();
  readonly #restartListeners = new Set<() => void>();
  /** not sent yet, in order */
  #waiting: Call[] = [];
  /** sent and not answered, by id */
  readonly #sent = new Map<number, Call>();
  #state: EngineState = { state: 'starting', message: '', provider: null, refusals: [], memoryBytes: null };
  #process: EngineProcess | null = null;
  #ready = false;
  /** when the process was launched; 0: none was yet */
  #launched = 0;
  #deaths = 0;
  /** set when we killed the process ourselves: what to tell, in place of its exit code */
  #killedBecause: string | null = null;
  /** a death by somebody's wish says nothing about the engine's health */
  #killedForCancel = false;
  #timer: NodeJS.Timeout | undefined;
  #stopped: { promise: Promise<void>; resolve: () => void } | null = null;
  #nextId = 1;

  constructor(launch: () => EngineProcess, patience: EnginePatience) {
    this.#launch = launch;
    this.#patience = patience;
  }

  get state(): EngineState {
    return this.#state;
  }

  onState(listener: (state: EngineState) => void): () => void {
    this.#stateListeners.add(listener);
    return () => this.#stateListeners.delete(listener);
  }

  onRestart(listener: () => void): () => void {
    this.#restartListeners.add(listener);
    return () => this.#restartListeners.delete(listener);
  }

  async call<N extends OperationName>(
    name: N,
    input: EngineOperations[N]['input'],
    options: CallOptions = {},
  ): Promise<EngineOperations[N]['output']> {
    if (this.#stopped) throw new EmendError('engine', 'The engine has been stopped.');
    if (options.signal?.aborted) throw new EmendError('cancelled', 'Stopped.');
    checkMessageSize(input);
    if (this.#launched === 0) this.begin();
    if (this.#state.state === 'failed') this.#tryAgain();
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const call: Call = { id: this.#nextId++, name, input, options, resolve, reject };
    const cancel = (): void => this.#cancel(call);
    options.signal?.addEventListener('abort', cancel);
    this.#waiting.push(call);
    if (this.#ready) this.#sendWaiting();
    try {
      // The engine answers a call with that operation's output.
      return (await promise) as EngineOperations[N]['output'];
    } finally {
      clearTimeout(call.cancelTimer);
      options.signal?.removeEventListener('abort', cancel);
    }
  }

  stop(): Promise<void> {
    if (this.#stopped) return this.#stopped.promise;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#stopped = { promise, resolve };
    clearTimeout(this.#timer);
    this.#rejectAll(new EmendError('engine', 'The engine has been stopped.'));
    const running = this.#process;
    if (!running) resolve();
    else {
      running.send({ kind: 'stop' });
      this.#timer = setTimeout(() => running.kill(), this.#patience.stop);
    }
    return promise;
  }

  /** Launches a process; the one before it, if there was one, has ended. */
  begin(): void {
    const engine = this.#launch();
    this.#process = engine;
    this.#ready = false;
    this.#launched = Date.now();
    this.#killedBecause = null;
    this.#killedForCancel = false;
    engine.onMessage((message) => this.#receive(message));
    engine.onExit((exit) => this.#exited(exit));
    this.#timer = setTimeout(
      () => this.#kill(`it was not ready after ${this.#patience.start / 1000} s`),
      this.#patience.start,
    );
  }

  #receive(message: FromEngine): void {
    if (this.#stopped) return;
    if (message.kind === 'ready') this.#becameReady();
    else if (message.kind === 'memory') this.#tell({ memoryBytes: message.bytes });
    else {
      const call = this.#sent.get(message.id);
      if (!call) return;
      if (message.kind === 'stream') call.options.onStream?.(message.message);
      else this.#ended(call, message);
    }
  }

  #ended(call: Call, message: Extract<FromEngine, { kind: 'result' | 'error' }>): void {
    this.#sent.delete(call.id);
    this.#limitCancelled();
    const state = this.#sent.size > 0 ? 'busy' : 'ready';
    if (message.kind === 'error') {
      this.#tell({ state });
      call.reject(new EmendError(message.error.code as ErrorCode, message.error.message));
      return;
    }
    // Something worked: what went wrong before is no longer news.
    this.#tell({ state, message: '', ...(call.name === 'open' ? openedProvider(message.output) : {}) });
    call.resolve(message.output);
  }

  #becameReady(): void {
    clearTimeout(this.#timer);
    const restarted = this.#state.state === 'restarting';
    this.#ready = true;
    this.#tell({
      state: 'ready',
      message: restarted
        ? this.#state.message.replace(/ It is being restarted\.$/, ' It was restarted.')
        : '',
    });
    if (restarted) {
      const waiting = this.#waiting;
      this.#waiting = [];
      for (const listener of this.#restartListeners) listener();
      this.#waiting.push(...waiting);
    }
    this.#sendWaiting();
  }

  #exited(exit: EngineExit): void {
    clearTimeout(this.#timer);
    this.#process = null;
    this.#ready = false;
    if (this.#stopped) {
      this.#stopped.resolve();
      return;
    }
    const what = `The engine ended unexpectedly (${this.#killedBecause ?? describeExit(exit)}).`;
    if (!this.#killedForCancel) {
      this.#deaths = Date.now() - this.#launched > this.#patience.stable ? 1 : this.#deaths + 1;
    }
    const lost = { provider: null, refusals: [], memoryBytes: null };
    for (const [place, call] of [...this.#sent.values()].entries()) {
      if (call.options.signal?.aborted) call.reject(new EmendError('cancelled', 'Stopped.'));
      // What had not begun and needs nothing of the engine that ended is run by the next one.
      else if (place > 0 && independent.has(call.name)) this.#waiting.push(call);
      else
        call.reject(new EmendError('engine', `${what} ${afterDeath(call.name, exit, this.#killedBecause)}`));
    }
    this.#sent.clear();
    if (this.#deaths >= this.#patience.deaths) {
      const message = `${what} It did so ${this.#deaths} times in a row, so it is left alone now. Open a model to start it again.`;
      this.#tell({ ...lost, state: 'failed', message });
      this.#rejectAll(new EmendError('engine', message));
      return;
    }
    this.#tell({ ...lost, state: 'restarting', message: `${what} It is being restarted.` });
    const pause = Math.min(this.#patience.pause * 2 ** Math.max(0, this.#deaths - 1), 10_000);
    this.#timer = setTimeout(() => this.begin(), pause);
  }

  /** One more try after giving up, a start like the first: if that dies too, it is given up again. */
  #tryAgain(): void {
    this.#deaths = this.#patience.deaths - 1;
    this.#tell({ state: 'starting' });
    this.begin();
  }

  #cancel(call: Call): void {
    const place = this.#waiting.indexOf(call);
    if (place >= 0) {
      this.#waiting.splice(place, 1);
      call.reject(new EmendError('cancelled', 'Stopped.'));
      return;
    }
    if (!this.#sent.has(call.id)) return;
    this.#process?.send({ kind: 'cancel', id: call.id });
    this.#limitCancelled();
  }

  /**
   * One long step blocks the engine's only thread, so the wish to stop may never be heard: patience with it is limited. Calls are
   * taken one after the other, so that only counts for the first; the engine is not ended for one that waits behind another's.
   */
  #limitCancelled(): void {
    const first = this.#sent.values().next().value;
    if (!first?.options.signal?.aborted || first.cancelTimer) return;
    first.cancelTimer = setTimeout(() => {
      this.#killedForCancel = true;
      this.#kill('a request that was stopped did not end, so the engine was ended');
    }, this.#patience.cancel);
  }

  #kill(because: string): void {
    this.#killedBecause = because;
    this.#process?.kill();
  }

  #sendWaiting(): void {
    if (this.#waiting.length === 0) return;
    for (const call of this.#waiting) {
      this.#sent.set(call.id, call);
      this.#process?.send({ kind: 'call', id: call.id, name: call.name, input: call.input });
    }
    this.#waiting = [];
    this.#tell({ state: 'busy' });
  }

  #rejectAll(error: EmendError): void {
    for (const call of [...this.#sent.values(), ...this.#waiting]) call.reject(error);
    this.#sent.clear();
    this.#waiting = [];
  }

  #tell(change: Partial<EngineState>): void {
    this.#state = { ...this.#state, ...change };
    for (const listener of this.#stateListeners) listener(this.#state);
  }
}

function openedProvider(output: unknown): Pick<EngineState, 'provider' | 'refusals'> {
  const opened = output as EngineOperations['open']['output'];
  return { provider: opened.provider, refusals: [...opened.refusals] };
}

/** Operations that need nothing that was done in the process before. */
const independent: ReadonlySet<OperationName> = new Set([
  ...(['open', 'inspect', 'ways', 'train', 'keepTrained', 'measure'] as const),
]);
/** Operations that keep what they did on the disk, and go on from there. */
const recorded: ReadonlySet<OperationName> = new Set(['train', 'measure']);

/** What to do about a request that was lost with the engine. A machine without room for it will have none the next time. */
function afterDeath(name: OperationName, exit: EngineExit, killedBecause: string | null): string {
  const outOfMemory = killedBecause === null && ranOutOfMemory(exit);
  if (recorded.has(name)) {
    const kept = 'What was recorded up to then is kept, and it can go on from there.';
    return outOfMemory
      ? `${kept} If it ends so again: close other programs, take fewer edits a batch, or open the model in 8 or 4 bits.`
      : kept;
  }
  if (outOfMemory) {
    return 'The request was lost with it and would be again: open the model in 8 or 4 bits, let pictures take fewer rows, or close other programs.';
  }
  return 'The request was lost with it: try again.';
}

/** Whether the system ended the process, as it does where memory runs out. */
const ranOutOfMemory = ({ code, signal }: EngineExit) => signal === 'SIGKILL' || code === 137;

function describeExit(exit: EngineExit): string {
  if (exit.reason) return `it could not be started: ${exit.reason}`;
  if (ranOutOfMemory(exit)) return OUT_OF_MEMORY;
  if (exit.signal) return `signal ${exit.signal}`;
  return `exit code ${exit.code ?? 'unknown'}`;
}
