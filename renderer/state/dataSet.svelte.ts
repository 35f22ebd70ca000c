/**
 * @file A data set that is asked for: where it lies, and what is in it or wrong with it, read before anything begins.
 */
import type { CallInput, CallOutput, WireError } from '../../electron/api/contract.ts';
import { type Connection, toWireError } from '../backend.ts';

export class DataSetChoice {
  readonly #connection: Connection;
  readonly #use: CallInput<'benchmarks.dataSet'>['use'];
  data = $state('');
  /** folder of its pictures; empty: its own */
  images = $state('');
  found = $state.raw<CallOutput<'benchmarks.dataSet'> | null>(null);
  /** why it cannot be read */
  error = $state.raw<WireError | null>(null);
  reading = $state(false);
  /** a file that was dropped without the page knowing where it lies */
  dropped = $state('');
  #turn = 0;

  constructor(connection: Connection, use: 'measuring' | 'training') {
    this.#connection = connection;
    this.#use = use;
  }

  /** Takes a file that was dropped. */
  drop(file: File): void {
    const path = this.#connection.pathOf?.(file) ?? '';
    this.dropped = path ? '' : file.name;
    if (!path) return;
    this.data = path;
    void this.read();
  }

  async read(): Promise<void> {
    const turn = ++this.#turn;
    const { data, images } = this;
    this.found = null;
    this.error = null;
    this.reading = data.trim() !== '';
    if (!this.reading) return;
    try {
      const input = { data, use: this.#use, ...(images.trim() && { images }) };
      const found = await this.#connection.call('benchmarks.dataSet', input);
      if (turn === this.#turn) this.found = found;
    } catch (error) {
      if (turn === this.#turn) this.error = toWireError(error);
    } finally {
      if (turn === this.#turn) this.reading = false;
    }
  }

  /** What keeps it from being used, in words; '' for nothing. */
  readonly lacks = $derived.by(() => {
    if (!this.data.trim()) return 'Name a data set.';
    if (this.reading) return 'Reading the data set…';
    if (this.error) return 'The data set cannot be read.';
    return this.found ? '' : 'Leave its field, and the data set is read.';
  });
}
