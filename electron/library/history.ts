/**
 * @file What happened to each edit. Only ever added to, in the transaction that makes the change.
 */
import type { HistoryEntry } from '../api/contract.ts';
import { now, prepared, type Store } from './database.ts';

/** Adds an entry; called inside a `write`. `detail` is one sentence for people. */
export function remember(store: Store, edit: number, what: HistoryEntry['what'], detail: string): void {
  prepared(store, 'INSERT INTO history (edit, at, what, detail) VALUES (?, ?, ?, ?)').run(
    edit,
    now(),
    what,
    detail,
  );
}

/** The entries of one edit, oldest first. */
export function historyOf(store: Store, edit: number): HistoryEntry[] {
  return prepared<[number], HistoryEntry>(
    store,
    'SELECT id, edit, at, what, detail FROM history WHERE edit = ? ORDER BY id',
  ).all(edit);
}

/** Changes that name more edits than this tell that there were many, and name none. */
export const MOST_TOLD = 500;

/** A place in what happened: ids of the last entry of the history and of the last change of status that has none. */
export interface Change {
  readonly entry: number;
  readonly status: number;
}

/** Edits that changed after a place in what happened, null where they are more than {@link MOST_TOLD}; and the place now. */
export function changedSince(store: Store, since: Change): { edits: number[] | null; last: Change } {
  const edits = prepared<[number, number, number], number>(
    store,
    'SELECT edit FROM history WHERE id > ? UNION SELECT edit FROM status_changes WHERE id > ? LIMIT ?',
  )
    .pluck()
    .all(since.entry, since.status, MOST_TOLD + 1);
  return { edits: edits.length > MOST_TOLD ? null : edits, last: lastChange(store) };
}

/** Where what happened stands now. */
export function lastChange(store: Store): Change {
  return prepared<[], Change>(
    store,
    `SELECT coalesce((SELECT max(id) FROM history), 0) AS entry,
              coalesce((SELECT max(id) FROM status_changes), 0) AS status`,
  ).get()!;
}
