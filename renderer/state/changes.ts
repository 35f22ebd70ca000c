/**
 * @file Changes to the library: said when they are done, and taken back.
 */
import { type Connection, toWireError } from '../backend.ts';
import type { Toasts } from './toasts.svelte.ts';

export class Changes {
  readonly #connection: Connection;
  readonly #toasts: Toasts;

  constructor(connection: Connection, toasts: Toasts) {
    this.#connection = connection;
    this.#toasts = toasts;
  }

  /** Says what was just done to the library, with a way to take that back, and nothing that came after it. */
  async tell(message: string): Promise<void> {
    const operation = await this.#connection.call('history.undoable', {}).catch(() => null);
    this.#toasts.tell(message, operation && { label: 'Undo', run: () => void this.undo(operation.id) });
  }

  /** Takes back the last change to the library; `operation`: only if that is the last. */
  async undo(operation?: number): Promise<void> {
    try {
      if (operation === undefined && (await this.#connection.call('history.undoable', {})) === null) {
        this.#toasts.tell('Nothing to take back');
        return;
      }
      const { label } = await this.#connection.call(
        'history.undo',
        operation === undefined ? {} : { operation },
      );
      this.#toasts.tell(`Taken back: ${label[0]!.toLowerCase()}${label.slice(1)}`);
    } catch (thrown) {
      this.#toasts.complain(toWireError(thrown).message);
    }
  }
}
