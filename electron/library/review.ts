/**
 * @file What a transaction changed, and what that means for checks: written before it ends, whatever made the change.
 */
import { prepared, type Store } from './database.ts';
import { reviewFreshness } from './freshness.ts';
import { editRow } from './rows.ts';
import { committedCount } from './scopes.ts';
import { afterCommit, afterGrowth, afterRetirement, type Comparison } from './watched.ts';

interface Change {
  readonly id: number;
  readonly what: 'committed' | 'left' | 'edit';
  readonly edit: number | null;
}

/**
 * Writes to each check that decides a status why it is stale, as far as something changed since that was last done. Called inside
 * the transaction of what changed. `comparison`: of edits that were committed, where the engine made one.
 */
export function refreshFreshness(store: Store, comparison: Comparison | null = null): void {
  const changes = prepared<[], Change>(store, 'SELECT id, what, edit FROM unreviewed ORDER BY id').all();
  if (changes.length === 0) return;
  store.database.exec('DELETE FROM unreviewed');
  let was = committedCount(store);
  let last: number | null = null;
  for (const { what, edit: id } of changes) {
    if (what !== 'committed' && what !== 'left') continue;
    const edit = editRow(store, id!);
    if (what === 'committed') afterCommit(store, edit, comparison);
    else afterRetirement(store, edit);
    const { model, adapter } = store.actors;
    if (edit.model !== model || edit.adapter !== adapter) continue;
    was += what === 'committed' ? -1 : 1;
    last = edit.id;
  }
  if (last !== null) afterGrowth(store, was, last);
  reviewFreshness(store, [...new Set(changes.flatMap(({ edit }) => edit ?? []))]);
}
