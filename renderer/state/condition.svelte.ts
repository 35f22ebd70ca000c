/**
 * @file How the application stands: library, engine, model, counts, and whether the page can reach it at all.
 */
import type { Status, WireError } from '../../electron/api/contract.ts';
import { type Connection, toWireError } from '../backend.ts';

export class Condition {
  readonly #connection: Connection;
  /** null until it was first told */
  status = $state.raw<Status | null>(null);
  /** false while nothing answers at the other end */
  connected = $state(true);
  error = $state.raw<WireError | null>(null);
  /** what the last finished work was and how long it took, for the bottom line */
  lastResult = $state('');

  constructor(connection: Connection) {
    this.#connection = connection;
    connection.on('app.status', (status) => {
      this.status = status;
    });
    connection.on('library.changed', () => void this.read()); // the counts
    connection.onConnection((up) => {
      if (up && !this.connected) void this.read();
      this.connected = up;
    });
  }

  readonly model = $derived.by(() => this.status?.model ?? null);
  /** whether the model can be asked now */
  readonly canAsk = $derived.by(() => this.obstacle === '');
  /** why the model cannot be asked now; empty when it can */
  readonly obstacle = $derived.by(() => {
    if (!this.connected) return 'Emend does not answer. The page reconnects by itself.';
    const engine = this.status?.engine;
    if (!engine) return 'Emend is starting.';
    if (engine.state === 'starting') return 'The engine is starting.';
    if (engine.state === 'restarting') return 'The engine is being started again.';
    if (engine.state === 'failed') return 'The engine is not running.';
    if (!this.status?.model)
      return engine.state === 'busy' ? 'The model is being opened.' : 'No model is open.';
    return '';
  });

  /** why nothing in the library can be changed; empty when it can */
  readonly locked = $derived.by(() =>
    this.status?.library.readOnly
      ? 'This library can only be read: its file or its folder may not be written.'
      : '',
  );
  /** why the open model cannot be edited now: that takes an adapter, and a library to keep edits in; empty when it can */
  readonly editObstacle = $derived.by(() => {
    if (this.obstacle || this.locked) return this.obstacle || this.locked;
    return this.model?.adapter ? '' : 'The model is open without an editor: it can be asked, not edited.';
  });
  readonly canEdit = $derived.by(() => this.editObstacle === '');

  async read(): Promise<void> {
    try {
      this.status = await this.#connection.call('app.status', {});
      this.error = null;
    } catch (thrown) {
      this.error = toWireError(thrown);
    }
  }
}
