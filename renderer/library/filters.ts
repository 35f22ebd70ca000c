/**
 * @file Which edits a tab and a search let through.
 */
import type { Edit, EditStatus } from '../../electron/api/contract.ts';

/** The status tabs over the table, and what each lets through. */
export const filters = {
  all: { label: 'All edits', statuses: null },
  review: { label: 'Needs review', statuses: ['draft', 'checked', 'failed', 'stale'] },
  committed: { label: 'Committed', statuses: ['committed'] },
  retired: { label: 'Retired', statuses: ['retired'] },
} as const satisfies Record<string, { label: string; statuses: readonly EditStatus[] | null }>;
export type Filter = keyof typeof filters;
export const filterNames = Object.keys(filters) as Filter[];

/** Whether an edit is let through by a filter and a search; every word searched for must be somewhere in it. */
export function matches(edit: Edit, filter: Filter, search: string): boolean {
  const statuses: readonly EditStatus[] | null = filters[filter].statuses;
  if (statuses && !statuses.includes(edit.status)) return false;
  const text =
    `${edit.id} ${edit.prompt} ${edit.target} ${edit.before ?? ''} ${edit.after ?? ''} ${edit.note}`.toLowerCase();
  return search
    .toLowerCase()
    .split(/\s+/)
    .every((word) => text.includes(word));
}
