/**
 * @file What happened to each edit. Only ever added to, in the transaction that makes the change.
 */
import type { HistoryEntry } from '../api/contract.ts';
import { now, type Store } from './database.ts';

/** Adds an entry; called inside a `write`. `detail` is one sentence for people. */
export function remember(store: Store, edit: number, what: HistoryEntry['what'], detail: string): void {
  store.database
    .prepare('INSERT INTO history (edit, at, what, detail) VALUES (?, ?, ?, ?)')
    .run(edit, now(), what, detail);
}

/** The entries of one edit, oldest first. */
export function historyOf(store: Store, edit: number): HistoryEntry[] {
  return store.database
    .prepare<[number], HistoryEntry>(
      'SELECT id, edit, at, what, detail FROM history WHERE edit = ? ORDER BY id',
    )
    .all(edit);
}

/** Edits with entries after `id`, and the id of the last entry. */
export function changedSince(store: Store, id: number): { edits: number[]; last: number } {
  const rows = store.database
    .prepare<[number], { edit: number; last: number }>(
      'SELECT edit, max(id) AS last FROM history WHERE id > ? GROUP BY edit',
    )
    .all(id);
  return {
    edits: rows.map((row) => row.edit),
    last: rows.reduce((last, row) => Math.max(last, row.last), id),
  };
}

/** The id of the last entry of all; 0 before there is one. */
export function lastEntry(store: Store): number {
  return store.database
    .prepare<[], { last: number }>('SELECT coalesce(max(id), 0) AS last FROM history')
    .get()!.last;
}
