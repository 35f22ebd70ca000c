/**
 * @file Finds what the page talks through: the window's preload, or the server that sent the page. Both speak the
 * contract, and nothing else in the page knows which one it is.
 */
import type {
  Backend,
  CallInput,
  CallName,
  CallOutput,
  EventName,
  EventPayload,
  WireError,
} from '../electron/api/contract.ts';
import { EmendError, type ErrorCode } from '../electron/errors.ts';

/** A backend that also says whether anyone is listening at the other end. */
export interface Connection extends Backend {
  /** Calls back with false when the other end is lost and with true when it is back. Returns a function that stops. */
  onConnection(listener: (up: boolean) => void): () => void;
  /** Asks for a folder with the system's own dialog; absent where there is none. */
  chooseFolder?(): Promise<string | null>;
  /** Where a file lies that was dropped on the page or chosen; absent where a page cannot know that. */
  pathOf?(file: File): string;
}

/** What the desktop preload puts on the window. */
export interface DesktopBridge extends Backend {
  chooseFolder?(): Promise<string | null>;
  pathOf?(file: File): string;
}

/** The backend of this page: the desktop bridge where the window has one, else HTTP to where the page came from. */
export function connect(page: Window & { emend?: DesktopBridge }): Connection {
  return page.emend ? overBridge(page.emend) : new HttpConnection();
}

/** Whatever was thrown, as an error that can be shown: `{ code, message }`. */
export function toWireError(thrown: unknown): WireError {
  if (typeof thrown === 'object' && thrown !== null && 'message' in thrown) {
    const code = 'code' in thrown && typeof thrown.code === 'string' ? thrown.code : 'internal';
    return { code, message: String(thrown.message) };
  }
  return { code: 'internal', message: String(thrown) };
}

function overBridge(bridge: DesktopBridge): Connection {
  const { chooseFolder, pathOf } = bridge;
  return {
    call: (name, input, options) => bridge.call(name, input, options),
    on: (name, listener) => bridge.on(name, listener),
    onConnection: () => () => {}, // the main process outlives its window
    ...(chooseFolder && { chooseFolder: () => chooseFolder() }),
    ...(pathOf && { pathOf: (file: File) => pathOf(file) }),
  };
}

/** Calls by POST, events by one EventSource for the whole page. */
class HttpConnection implements Connection {
  readonly #events = new EventSource('/api/events');
  readonly #listeners = new Map<string, Set<(payload: never) => void>>();
  readonly #connectionListeners = new Set<(up: boolean) => void>();

  constructor() {
    this.#events.onmessage = (message: MessageEvent<string>) => {
      const { name, payload } = JSON.parse(message.data) as { name: string; payload: never };
      for (const listener of this.#listeners.get(name) ?? []) listener(payload);
    };
    this.#events.onopen = () => this.#tellConnection(true);
    this.#events.onerror = () => this.#tellConnection(false);
  }

  async call<N extends CallName>(
    name: N,
    input: CallInput<N>,
    options?: { job?: string },
  ): Promise<CallOutput<N>> {
    let response: Response;
    try {
      response = await fetch('/api/call', {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ name, input, job: options?.job }),
      });
    } catch {
      throw new EmendError(
        'engine',
        `Emend does not answer at ${location.origin}. If it was stopped, start it again and open the address it prints.`,
      );
    }
    const reply = (await response.json().catch(() => null)) as
      | { output: CallOutput<N> }
      | { error: WireError }
      | null;
    if (reply && 'error' in reply) throw new EmendError(reply.error.code as ErrorCode, reply.error.message);
    if (reply && 'output' in reply) return reply.output;
    throw new EmendError(
      'internal',
      `Emend answered “${name}” with status ${response.status} and nothing readable.`,
    );
  }

  on<N extends EventName>(name: N, listener: (payload: EventPayload<N>) => void): () => void {
    const listeners = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, listeners);
    listeners.add(listener);
    return () => listeners.delete(listener);
  }

  onConnection(listener: (up: boolean) => void): () => void {
    this.#connectionListeners.add(listener);
    return () => this.#connectionListeners.delete(listener);
  }

  #tellConnection(up: boolean): void {
    for (const listener of this.#connectionListeners) listener(up);
  }
}
