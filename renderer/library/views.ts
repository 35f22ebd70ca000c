/**
 * @file Lists of edits under a name: those every library has, and how a list's filter is told.
 */
import type { EditFilter, EditRow, EditSort, EditStatus, Finding } from '../../electron/api/contract.ts';
import { reachNames } from '../workbench/reaches.ts';

export const newestFirst: EditSort = { by: 'id', descending: true };

/** The lists every library has; saved views come after them. */
export const builtInViews = [
  { name: 'All edits', filter: {}, sort: newestFirst },
  { name: 'Needs review', filter: { status: ['draft', 'checked', 'failed', 'stale'] }, sort: newestFirst },
  { name: 'Committed', filter: { status: ['committed'] }, sort: newestFirst },
  { name: 'Retired', filter: { status: ['retired'] }, sort: newestFirst },
] as const satisfies ReadonlyArray<{ name: string; filter: { status?: EditStatus[] }; sort: EditSort }>;

export const statusNames: Readonly<Record<EditStatus, string>> = {
  draft: 'Draft',
  checked: 'Checked',
  failed: 'Failed check',
  stale: 'Stale',
  committed: 'Committed',
  retired: 'Retired',
};

export const verdictNames: Readonly<Record<EditRow['verdict'], string>> = {
  passes: 'Check passes',
  fails: 'Check fails',
  none: 'Never checked',
};

export const findingNames: Readonly<Record<Finding['kind'], string>> = {
  holds: 'Holds',
  fails: 'Fails its own question',
  'under-generalises': 'Under-generalises',
  leaks: 'Leaks',
  entangled: 'Entangled',
};

/** The moments of an edit that lists can be narrowed by. */
export const moments = [
  { key: 'created', name: 'Created' },
  { key: 'updated', name: 'Changed' },
  { key: 'committed', name: 'Committed' },
] as const satisfies ReadonlyArray<{ key: keyof EditFilter; name: string }>;

/** How many edits a filter by status alone lets through. */
export function countOf(filter: EditFilter, edits: Readonly<Record<EditStatus, number>>): number {
  const statuses = filter.status ?? (Object.keys(edits) as EditStatus[]);
  return statuses.reduce((sum, status) => sum + edits[status], 0);
}

/** Whether two lists are the same: the same filter, whatever the order it is written in, and the same sort. */
export function sameList(
  one: { filter: EditFilter; sort: EditSort },
  other: { filter: EditFilter; sort: EditSort },
): boolean {
  return canonical([one.filter, one.sort]) === canonical([other.filter, other.sort]);
}

function canonical(value: unknown): string {
  return JSON.stringify(value, (_, part: unknown) => {
    if (Array.isArray(part) && part.every((one) => typeof one === 'string')) return part.toSorted();
    if (Array.isArray(part)) return part;
    if (typeof part !== 'object' || part === null) return part;
    return Object.fromEntries(Object.entries(part).toSorted(([one], [other]) => (one < other ? -1 : 1)));
  });
}

/** One part of a filter, as it is shown to be seen and removed. */
export interface FilterPart {
  readonly key: Exclude<keyof EditFilter, 'text'>;
  readonly label: string;
  readonly value: string;
}

/** The parts of a filter but for its text, which has a field of its own. `modelName` names a fingerprint. */
export function filterParts(filter: EditFilter, modelName: (fingerprint: string) => string): FilterPart[] {
  const parts: FilterPart[] = [];
  if (filter.status?.length)
    parts.push({
      key: 'status',
      label: 'Status',
      value: listed(filter.status.map((name) => statusNames[name])),
    });
  if (filter.verdict?.length)
    parts.push({
      key: 'verdict',
      label: 'Last check',
      value: listed(filter.verdict.map((name) => verdictNames[name])),
    });
  if (filter.finding?.length)
    parts.push({
      key: 'finding',
      label: 'Finding',
      value: listed(filter.finding.map((kind) => findingNames[kind])),
    });
  if (filter.reach) parts.push({ key: 'reach', label: 'Reach', value: reachNames[filter.reach] });
  if (filter.tags?.length) parts.push({ key: 'tags', label: 'Tag', value: filter.tags.join(' and ') });
  if (filter.model) parts.push({ key: 'model', label: 'Model', value: modelName(filter.model) });
  if (filter.adapter) parts.push({ key: 'adapter', label: 'Adapter', value: modelName(filter.adapter) });
  for (const { key, name } of moments) {
    const { from, to } = filter[key] ?? {};
    const value = [
      from && `from ${day(from)}`,
      to && `to ${day(new Date(Date.parse(to) - 1).toISOString())}`,
    ].filter(Boolean);
    if (value.length > 0) parts.push({ key, label: name, value: value.join(' ') });
  }
  return parts;
}

function listed(names: readonly string[]): string {
  return names.length > 2 ? `${names.slice(0, 2).join(', ')} + ${names.length - 2}` : names.join(' or ');
}

function day(moment: string): string {
  return new Date(moment).toLocaleDateString([], { day: 'numeric', month: 'short', year: 'numeric' });
}

/** Midnight that begins a day of a date field (`2026-11-26`), by the reader's clock; `after`: so many days later. */
export function dayBegins(date: string, after = 0): string {
  const [year, month, dayOfMonth] = date.split('-').map(Number);
  return new Date(year!, month! - 1, dayOfMonth! + after).toISOString();
}

/** The date field's words for a moment; `after` as in {@link dayBegins}. */
export function dateField(moment: string | undefined, after = 0): string {
  if (!moment) return '';
  const at = new Date(moment);
  const there = new Date(at.getFullYear(), at.getMonth(), at.getDate() - after);
  const two = (number: number) => String(number).padStart(2, '0');
  return `${there.getFullYear()}-${two(there.getMonth() + 1)}-${two(there.getDate())}`;
}
