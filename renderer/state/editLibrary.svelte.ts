/**
 * @file The library as the page lists it: which list is in view, its rows, what is selected, the edit one is at, and what is
 * done to many edits at once.
 */
import { untrack } from 'svelte';
import type {
  CallInput,
  CallOutput,
  EditFilter,
  EditSelection,
  EditSort,
  InfluenceMap,
  SavedView,
  WireError,
} from '../../electron/api/contract.ts';
import { type Connection, toWireError } from '../backend.ts';
import { builtInViews, newestFirst, sameList } from '../library/views.ts';
import type { Changes } from './changes.ts';
import { EditRows } from './editRows.svelte.ts';
import type { Jobs } from './jobs.svelte.ts';
import type { Pictures } from './pictures.svelte.ts';
import { Selection } from './selection.svelte.ts';
import type { Toasts } from './toasts.svelte.ts';

export type EditDetails = CallOutput<'edits.show'>;
type Bulk = CallOutput<'edits.tagMany'>;

/** While one types or moves on within this time, nothing is read, in milliseconds. */
const pause = 120;

export class EditLibrary {
  readonly #connection: Connection;
  readonly #toasts: Toasts;
  readonly #changes: Changes;
  readonly #jobs: Jobs;
  readonly rows: EditRows;
  readonly selection = new Selection();

  /** the list in view, but for the text searched for */
  filter = $state.raw<EditFilter>(builtInViews[0].filter);
  sort = $state.raw<EditSort>(newestFirst);
  search = $state('');
  /** name of the view the list began as */
  view = $state<string>(builtInViews[0].name);
  saved = $state.raw<readonly SavedView[]>([]);
  /** how many edits each saved view holds, by name */
  savedCounts = $state.raw<Readonly<Record<string, number>>>({});
  tags = $state.raw<CallOutput<'tags.list'>>([]);
  /** models and adapters that edits were made for */
  actors = $state.raw<CallOutput<'edits.actors'>>([]);

  /** the edit one is at, and its place in the list; its number is null while its row was not read */
  current = $state<number | null>(null);
  place = $state(0);
  details = $state.raw<EditDetails | null>(null);
  detailsError = $state.raw<WireError | null>(null);
  /** where the table is scrolled to, kept for when one comes back */
  scrollTop = 0;
  /** Gives the table the focus; the table that is in view says how. */
  focusTable: () => void = () => {};
  /** what could not be done to some of many edits */
  refusals = $state.raw<{ readonly what: string; readonly outcome: Omit<Bulk, 'stopped'> } | null>(null);
  /** what the check of several edits found; null once that was read */
  checked = $state.raw<CallOutput<'checks.runSet'> | null>(null);
  /** something is being done to many edits */
  working = $state(false);

  readonly #influence = new Map<string, Promise<InfluenceMap | null>>();
  #reading: ReturnType<typeof setTimeout> | null = null;
  #searching: ReturnType<typeof setTimeout> | null = null;
  #readingLists: ReturnType<typeof setTimeout> | null = null;

  constructor(connection: Connection, jobs: Jobs, pictures: Pictures, toasts: Toasts, changes: Changes) {
    this.#jobs = jobs;
    this.#connection = connection;
    this.#toasts = toasts;
    this.#changes = changes;
    this.rows = new EditRows(connection, pictures);
    connection.on('library.changed', ({ edits }) => {
      this.rows.changed();
      this.#readListsSoon();
      if (this.current !== null && (edits.length === 0 || edits.includes(this.current)))
        void this.#readDetails(this.current);
    });
    $effect.root(() => {
      $effect(() => this.#stayAtEdit());
      $effect(() => {
        const edit = this.current;
        untrack(() => this.#showDetails(edit));
      });
    });
  }

  /** The filter of the list in view, with the text searched for. */
  readonly whole = $derived.by((): EditFilter => {
    const text = this.search.trim();
    return text ? { ...this.filter, text } : this.filter;
  });
  readonly views = $derived.by((): readonly SavedView[] => [
    ...builtInViews.map(({ name, filter, sort }) => ({ name, filter: filter as EditFilter, sort })),
    ...this.saved,
  ]);
  /** whether the list is no longer what its view says */
  readonly modified = $derived.by(() => {
    const view = this.views.find(({ name }) => name === this.view);
    return !view || !sameList(view, { filter: this.whole, sort: this.sort });
  });
  readonly selected = $derived.by(() => this.selection.count(this.rows.total ?? 0));

  async read(): Promise<void> {
    await Promise.all([this.rows.show(this.whole, this.sort), this.#readLists(), this.readActors()]);
  }

  /** Reads which models and adapters edits were made for. */
  async readActors(): Promise<void> {
    this.actors = await this.#connection.call('edits.actors', {}).catch(() => this.actors);
  }

  /** Turns to a view. */
  showView(view: SavedView): void {
    const { text, ...filter } = view.filter;
    this.view = view.name;
    this.search = text ?? '';
    this.#show(filter, view.sort);
  }

  /** Changes parts of the filter; what is undefined or empty no longer counts. */
  refine(changes: Partial<EditFilter>): void {
    const parts = Object.entries({ ...this.filter, ...changes }).filter(
      ([, value]) => value !== undefined && value !== '' && !(Array.isArray(value) && value.length === 0),
    );
    this.#show(Object.fromEntries(parts), this.sort);
  }

  sortBy(by: EditSort['by']): void {
    const descending = this.sort.by === by ? !this.sort.descending : by === 'id' || by === 'updated';
    this.#show(this.filter, { by, descending });
  }

  /** Searches as one types. */
  searchFor(text: string): void {
    this.search = text;
    if (this.#searching) clearTimeout(this.#searching);
    this.#searching = setTimeout(() => this.#show(this.filter, this.sort), pause);
  }

  async saveView(name: string): Promise<boolean> {
    try {
      this.saved = await this.#connection.call('views.save', { name, filter: this.whole, sort: this.sort });
      this.view = name;
      void this.#readLists();
      return true;
    } catch (thrown) {
      this.#complain(thrown);
      return false;
    }
  }

  async removeView(name: string): Promise<void> {
    const view = this.saved.find((saved) => saved.name === name);
    try {
      this.saved = await this.#connection.call('views.remove', { name });
      if (this.view === name) this.showView(this.views[0]!);
      if (view)
        this.#toasts.tell(`View “${name}” removed`, {
          label: 'Undo',
          run: () =>
            void this.#connection.call('views.save', view).then((saved) => {
              this.saved = saved;
            }),
        });
    } catch (thrown) {
      this.#complain(thrown);
    }
  }

  /** Goes to a place of the list, or as near to it as the list reaches. */
  goTo(place: number): void {
    const total = this.rows.total ?? 0;
    this.place = Math.max(0, Math.min(total - 1, place));
    this.current = this.rows.at(this.place)?.id ?? null;
  }

  /** Is now at an edit that was come to on the workbench: coming back, one finds it in view. */
  comeTo(edit: number, place: number): void {
    this.#cameTo = edit;
    this.current = edit;
    this.place = place;
  }

  /** Selects from where the last selection began up to a place. */
  async selectUpTo(place: number): Promise<void> {
    const anchor = this.selection.anchor ?? this.place;
    const first = Math.min(anchor, place);
    const count = Math.abs(anchor - place) + 1;
    const known = Array.from({ length: count }, (_, at) => this.rows.at(first + at)?.id);
    if (known.every((id) => id !== undefined)) {
      this.selection.add(known);
      return;
    }
    try {
      this.selection.add(
        await this.#connection.call('edits.numbers', {
          filter: this.whole,
          sort: this.sort,
          offset: first,
          limit: count,
        }),
      );
    } catch (thrown) {
      this.#complain(thrown);
    }
  }

  /** Where an edit acts, if that is known; looked up once for every state of the edit. */
  influenceOf(edit: { id: number; updated: string }): Promise<InfluenceMap | null> {
    const key = `${edit.id} ${edit.updated}`;
    const known = this.#influence.get(key);
    if (known) return known;
    const found = this.#connection.call('edits.rows', { edits: [edit.id], influence: true }).then(
      ({ rows }) => rows[0]?.influence ?? null,
      () => null,
    );
    this.#influence.set(key, found);
    return found;
  }

  /** What is selected; without a selection the edit one is at. Null where there is neither. */
  readonly subject = $derived.by((): EditSelection | null => {
    return this.selection.inList(this.whole) ?? (this.current === null ? null : { edits: [this.current] });
  });

  /** Takes the edits out of the edited model. */
  async retire(select: EditSelection): Promise<void> {
    await this.#do('retired', () => this.#connection.call('edits.retireMany', { select }));
  }

  /** Makes retired edits drafts again. */
  async restore(select: EditSelection): Promise<void> {
    await this.#do('restored', () => this.#connection.call('edits.restoreMany', { select }));
  }

  async tag(select: EditSelection, add: readonly string[], remove: readonly string[] = []): Promise<void> {
    await this.#do('tagged', () =>
      this.#connection.call('edits.tagMany', { select, add: [...add], remove: [...remove] }),
    );
  }

  /** Checks drafts one after the other, as a job that can be followed and stopped from anywhere. */
  async check(select: EditSelection): Promise<void> {
    try {
      const outcome = await this.#jobs.start('checks.runSet', { select }).result;
      if (outcome.results.length === 1) {
        const [{ edit, verdict, error }] = outcome.results as [(typeof outcome.results)[number]];
        this.#toasts.tell(error ?? `The check of edit ${edit} ${verdict ?? 'could not be run'}`);
      } else this.checked = outcome;
    } catch (thrown) {
      this.#complain(thrown);
    }
  }

  /** Commits edits one after the other; those without a fresh passing check only with a reason. */
  async commit(select: EditSelection, reason?: string): Promise<void> {
    if (this.working) return;
    this.working = true;
    try {
      const { committed, refused } = await this.#jobs.start('edits.commitSet', {
        select,
        ...(reason && { reason }),
      }).result;
      const count = committed.length;
      if (count > 0)
        await this.#changes.tell(`${count.toLocaleString()} ${count === 1 ? 'edit' : 'edits'} committed`);
      if (refused.length > 0)
        this.refusals = {
          what: 'committed',
          outcome: {
            changed: count,
            refused: refused.map(({ edit, message }) => ({ edit, reason: message })),
            refusals: refused.length,
          },
        };
    } catch (thrown) {
      this.#complain(thrown);
    } finally {
      this.working = false;
    }
  }

  /** Writes edits into a new folder, with their pictures. */
  async export(
    select: EditSelection,
    format: CallInput<'edits.exportMany'>['format'],
    folder: string,
  ): Promise<void> {
    try {
      const { file, edits, refused, refusals } = await this.#jobs.start('edits.exportMany', {
        select,
        format,
        folder,
      }).result;
      this.#toasts.tell(`${edits.toLocaleString()} ${edits === 1 ? 'edit' : 'edits'} exported to ${file}`);
      if (refusals > 0) this.refusals = { what: 'exported', outcome: { changed: edits, refused, refusals } };
    } catch (thrown) {
      this.#complain(thrown);
    }
  }

  async note(id: number, note: string): Promise<void> {
    try {
      await this.#connection.call('edits.note', { id, note });
    } catch (thrown) {
      this.#complain(thrown);
    }
  }

  /** Does something to many edits, says what came of it, and what could not be done. */
  async #do(what: string, call: () => Promise<Bulk>): Promise<void> {
    if (this.working) return;
    this.working = true;
    try {
      const outcome = await call();
      const edits = `${outcome.changed.toLocaleString()} ${outcome.changed === 1 ? 'edit' : 'edits'}`;
      if (outcome.changed > 0) await this.#changes.tell(`${edits} ${what}`);
      else if (outcome.refusals === 0) this.#toasts.tell('Nothing to change');
      if (outcome.refusals > 0) this.refusals = { what, outcome };
    } catch (thrown) {
      this.#complain(thrown);
    } finally {
      this.working = false;
    }
  }

  /** Says what failed; what a person stopped is no failure. */
  #complain(thrown: unknown): void {
    const { code, message } = toWireError(thrown);
    if (code !== 'cancelled') this.#toasts.complain(message);
  }

  #show(filter: EditFilter, sort: EditSort): void {
    this.filter = filter;
    this.sort = sort;
    this.selection.clear();
    this.place = 0;
    this.scrollTop = 0;
    this.current = null;
    void this.#turnTo(sort);
  }

  /** lists that were turned to and have not come: the rows still there are not theirs */
  #turning = $state(0);

  async #turnTo(sort: EditSort): Promise<void> {
    this.#turning++;
    await this.rows.show(this.whole, sort);
    this.#turning--;
  }

  /** the edit that was come to on the workbench, until its row was seen: rows read before that know nothing of it */
  #cameTo: number | null = null;

  /** After rows came: stays at the edit one was at, or at its place when it left the list. */
  #stayAtEdit(): void {
    const { rows, current } = this;
    if (this.#turning > 0) return;
    const total = rows.total ?? 0;
    const found = current === null ? -1 : rows.placeOf(current);
    const place = untrack(() => Math.min(this.place, Math.max(0, total - 1)));
    const there = rows.at(place);
    untrack(() => {
      if (found !== -1) {
        this.place = found;
        this.#cameTo = null;
      } else if (there && (current === null || current !== this.#cameTo)) {
        this.place = place;
        this.current = there.id;
      } else if (total === 0 && rows.total !== null) this.current = null;
    });
  }

  #showDetails(edit: number | null): void {
    this.detailsError = null;
    if (edit === null) this.details = null;
    else {
      if (this.#reading) clearTimeout(this.#reading);
      this.#reading = setTimeout(() => void this.#readDetails(edit), this.details === null ? 0 : pause);
    }
  }

  #readListsSoon(): void {
    this.#readingLists ??= setTimeout(() => {
      this.#readingLists = null;
      void this.#readLists();
    }, 500);
  }

  async #readLists(): Promise<void> {
    try {
      const [saved, tags] = await Promise.all([
        this.#connection.call('views.list', {}),
        this.#connection.call('tags.list', {}),
      ]);
      this.saved = saved;
      this.tags = tags;
      const counts = await Promise.all(
        saved.map(({ filter }) => this.#connection.call('edits.find', { filter, limit: 1 })),
      );
      this.savedCounts = Object.fromEntries(saved.map(({ name }, at) => [name, counts[at]!.total]));
    } catch {
      // The table says what is wrong.
    }
  }

  async #readDetails(id: number): Promise<void> {
    try {
      const details = await this.#connection.call('edits.show', { id });
      if (this.current !== id) return;
      this.details = details;
      this.detailsError = null;
    } catch (thrown) {
      if (this.current !== id) return;
      this.details = null;
      this.detailsError = toWireError(thrown);
    }
  }
}
