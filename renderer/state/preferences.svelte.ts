/**
 * @file Settings as the backend keeps them.
 */
import type { CallInput, Settings, WireError } from '../../electron/api/contract.ts';
import { type Connection, toWireError } from '../backend.ts';
import { setTheme } from './theme.ts';

export class Preferences {
  readonly #connection: Connection;
  /** null until they were read */
  settings = $state.raw<Settings | null>(null);
  error = $state.raw<WireError | null>(null);

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  async read(): Promise<void> {
    await this.#take(() => this.#connection.call('settings.get', {}));
  }

  /** Changes some settings; says whether they were taken. */
  async change(changes: CallInput<'settings.set'>): Promise<boolean> {
    return this.#take(() => this.#connection.call('settings.set', changes));
  }

  async #take(call: () => Promise<Settings>): Promise<boolean> {
    try {
      this.settings = await call();
      this.error = null;
      setTheme(this.settings.theme);
      return true;
    } catch (thrown) {
      this.error = toWireError(thrown);
      return false;
    }
  }
}
