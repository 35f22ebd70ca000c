/**
 * @file The two answers of an edit's last preview, token by token, kept by edit and by what they were computed from.
 */
import type { PreviewAnswers } from '../api/contract.ts';
import { parseStored, prepared, type Store } from './database.ts';
import { signalState } from './freshness.ts';
import type { EditRow } from './rows.ts';

/** Keeps the answers of a preview; those of the edit's earlier previews go. Called inside a `write`. */
export function keepAnswers(store: Store, edit: number, state: string, answers: PreviewAnswers): void {
  prepared(
    store,
    `INSERT INTO previews (edit, state, answers) VALUES (?, ?, ?)
       ON CONFLICT DO UPDATE SET state = excluded.state, answers = excluded.answers`,
  ).run(edit, state, JSON.stringify(answers));
}

/** The answers as last previewed, if that was in the edit's present content under the model and adapter that act now. */
export function answersOf(store: Store, edit: EditRow): PreviewAnswers | null {
  const row = prepared<[number, string], { answers: string }>(
    store,
    'SELECT answers FROM previews WHERE edit = ? AND state = ?',
  ).get(edit.id, signalState(store, edit));
  return row ? parseStored<PreviewAnswers>(row.answers, `the preview of edit ${edit.id}`) : null;
}
