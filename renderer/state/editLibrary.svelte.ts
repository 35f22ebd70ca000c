/**
 * @file The library's edits as the page lists them: read once, again when something changed; searched and filtered here.
 */
import type { CallOutput, Edit, InfluenceMap, WireError } from '../../electron/api/contract.ts';
import { type Connection, toWireError } from '../backend.ts';
import { type Filter, filterNames, matches } from '../library/filters.ts';
import type { Toasts } from './toasts.svelte.ts';
import { restoredWords } from './workbench.svelte.ts';

export type EditDetails = CallOutput<'edits.show'>;

export class EditLibrary {
  readonly #connection: Connection;
  readonly #toasts: Toasts;
  /** newest first; null until they were read */
  edits = $state.raw<readonly Edit[] | null>(null);
  error = $state.raw<WireError | null>(null);
  filter = $state<Filter>('all');
  search = $state('');
  selected = $state<number | null>(null);
  details = $state.raw<EditDetails | null>(null);
  detailsError = $state.raw<WireError | null>(null);
  /** influence maps of edits already looked up; null where an edit has none */
  readonly #influence = new Map<string, Promise<InfluenceMap | null>>();

  constructor(connection: Connection, toasts: Toasts) {
    this.#connection = connection;
    this.#toasts = toasts;
    connection.on('library.changed', () => {
      void this.read();
      if (this.selected !== null) void this.#readDetails(this.selected);
    });
  }

  readonly found = $derived.by(() =>
    (this.edits ?? []).filter((edit) => matches(edit, this.filter, this.search)),
  );

  /** How many edits each tab holds, whatever is searched for. */
  readonly counts = $derived.by(
    () =>
      Object.fromEntries(
        filterNames.map((name) => [
          name,
          (this.edits ?? []).filter((edit) => matches(edit, name, '')).length,
        ]),
      ) as Record<Filter, number>,
  );

  async read(): Promise<void> {
    try {
      const edits = await this.#connection.call('edits.list', {});
      this.edits = edits.toSorted((one, other) => other.id - one.id);
      this.error = null;
    } catch (thrown) {
      this.error = toWireError(thrown);
    }
  }

  /** Shows an edit in the pane beside the table. */
  select(id: number | null): void {
    if (id === this.selected) return;
    this.selected = id;
    this.detailsError = null;
    if (id === null) this.details = null;
    else void this.#readDetails(id);
  }

  /** Where an edit acts, if that is known. Looked up once for every state of the edit. */
  influenceOf(edit: Edit): Promise<InfluenceMap | null> {
    const key = `${edit.id} ${edit.updated}`;
    const known = this.#influence.get(key);
    if (known) return known;
    const found = this.#connection.call('edits.show', { id: edit.id }).then(
      (shown) => shown.influence,
      () => null,
    );
    this.#influence.set(key, found);
    return found;
  }

  /** Takes an edit out of the edited model, with a way back. */
  async retire(id: number): Promise<void> {
    await this.#do(
      () => this.#connection.call('edits.retire', { id }),
      ({ committed }) =>
        this.#toasts.tell(`Edit ${id} retired`, {
          label: committed === null ? 'Undo' : 'Restore as draft',
          run: () => void this.restore(id),
        }),
    );
  }

  /** Makes a retired edit a draft again, with a way back. */
  async restore(id: number): Promise<void> {
    await this.#do(
      () => this.#connection.call('edits.restore', { id }),
      ({ status }) =>
        this.#toasts.tell(restoredWords(id, status), {
          label: 'Undo',
          run: () => void this.retire(id),
        }),
    );
  }

  async #do(call: () => Promise<Edit>, done: (edit: Edit) => void): Promise<void> {
    try {
      done(await call());
      await this.read();
      if (this.selected !== null) await this.#readDetails(this.selected);
    } catch (thrown) {
      this.#toasts.complain(toWireError(thrown).message);
    }
  }

  async #readDetails(id: number): Promise<void> {
    try {
      const details = await this.#connection.call('edits.show', { id });
      if (this.selected !== id) return;
      this.details = details;
      this.detailsError = null;
    } catch (thrown) {
      if (this.selected !== id) return;
      this.details = null;
      this.detailsError = toWireError(thrown);
    }
  }
}
