/**
 * @file The endpoint for other programs, as the backend keeps it, and its key while it is shown.
 */
import type { CallInput, EndpointState, WireError } from '../../electron/api/contract.ts';
import { type Connection, toWireError } from '../backend.ts';

export class EndpointControl {
  readonly #connection: Connection;
  /** null until it was read */
  state = $state.raw<EndpointState | null>(null);
  /** a key just made: shown this once */
  key = $state<string | null>(null);
  error = $state.raw<WireError | null>(null);
  busy = $state(false);

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  async read(): Promise<void> {
    await this.#take(async () => ({
      state: await this.#connection.call('endpoint.state', {}),
      key: this.key,
    }));
  }

  /** Says whether the change was taken. */
  async change(changes: CallInput<'endpoint.set'>): Promise<boolean> {
    return this.#take(async () => {
      const { state, key } = await this.#connection.call('endpoint.set', changes);
      return { state, key: key ?? this.key };
    });
  }

  async makeKey(): Promise<void> {
    await this.#take(() => this.#connection.call('endpoint.newKey', {}));
  }

  /** The key is seen no more. */
  forgetKey(): void {
    this.key = null;
  }

  async #take(call: () => Promise<{ state: EndpointState; key: string | null }>): Promise<boolean> {
    this.busy = true;
    try {
      const { state, key } = await call();
      this.state = state;
      this.key = key;
      this.error = null;
      return true;
    } catch (thrown) {
      this.error = toWireError(thrown);
      return false;
    } finally {
      this.busy = false;
    }
  }
}
