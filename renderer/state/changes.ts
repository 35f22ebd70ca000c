/**
 * @file Changes to the library: said when they are done, and taken back.
 */
import { type Connection, toWireError } from '../backend.ts';
import type { Toasts } from './toasts.svelte.ts';

/** A label within a sentence. */
const inside = (label: string): string => `${label[0]!.toLowerCase()}${label.slice(1)}`;

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
      const { label, stopped } = await this.#connection.call(
        'history.undo',
        operation === undefined ? {} : { operation },
      );
      if (stopped) this.#toasts.tell('Stopped in the middle: undo again to take back the rest');
      else this.#toasts.tell(`Taken back: ${inside(label)}`, { label: 'Redo', run: () => void this.redo() });
    } catch (thrown) {
      this.#toasts.complain(toWireError(thrown).message);
    }
  }

  /** Does again what was taken back last. */
  async redo(): Promise<void> {
    try {
      const { label, stopped } = await this.#connection.call('history.redo', {});
      if (stopped) this.#toasts.tell('Stopped in the middle: redo again to go on');
      else this.#toasts.tell(`Done again: ${inside(label)}`);
    } catch (thrown) {
      this.#toasts.complain(toWireError(thrown).message);
    }
  }
}
