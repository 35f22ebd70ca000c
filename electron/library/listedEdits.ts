/**
 * @file Edits as the contract has them, with the status they have now.
 */
import type { Edit, EditStatus, Finding } from '../api/contract.ts';
import { prepared, type Store } from './database.ts';
import { presentState, statusIn } from './freshness.ts';
import { EDIT_COLUMNS, type EditRow } from './rows.ts';

/** An edit as the contract has it. */
export function asEdit(store: Store, row: EditRow): Edit {
  return listedEdits(store, [row.id])[0]!;
}

interface ListedRow extends EditRow {
  readonly status: EditStatus;
  /** JSON list */
  readonly tags: string;
  readonly findingKind: Finding['kind'] | null;
  readonly findingEdit: number | null;
}

/** The edits of the given numbers that are there, in that order, as the contract has them, with the status they have now. */
export function listedEdits(store: Store, ids: readonly number[]): Edit[] {
  const now = presentState(store);
  const columns = EDIT_COLUMNS.replaceAll(/(^|, )/g, '$1edits.');
  return prepared<[number, number, string], ListedRow>(
    store,
    `SELECT ${columns}, ${statusIn('?', '?')} AS status, checks.finding AS findingKind, checks.finding_edit AS findingEdit,
         (SELECT json_group_array(name ORDER BY name) FROM edit_tags JOIN tags ON tags.id = tag WHERE edit = edits.id) AS tags
       FROM json_each(?) AS wanted CROSS JOIN edits ON edits.id = wanted.value
         LEFT JOIN checks ON checks.id = edits.last_check
       ORDER BY wanted.key`,
  )
    .all(now.state, now.commits, JSON.stringify(ids))
    .map(({ stage, restored, findingKind, findingEdit, ...row }) => ({
      ...row,
      tags: JSON.parse(row.tags) as string[],
      finding: findingKind === null ? null : { kind: findingKind, edit: findingEdit },
    }));
}
