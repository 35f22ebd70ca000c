/**
 * @file Lists of edits: filtered, searched, sorted and counted by SQL, a page at a time.
 */
import type { EditFilter, EditRow, EditSelection, EditSort, EditStatus } from '../api/contract.ts';
import type { Store } from './database.ts';
import { editRow, listedEdits } from './rows.ts';
import { influenceOf } from './signals.ts';

/** A condition on `edits`, with the values it asks for. */
interface Condition {
  readonly sql: string;
  readonly values: Array<string | number>;
}

/** Columns a list can be sorted by, as their index has them. */
const sortColumns: Readonly<Record<EditSort['by'], string>> = {
  id: 'id',
  updated: 'updated',
  created: 'created',
  committed: 'committed',
  prompt: 'prompt COLLATE NOCASE',
  target: 'target COLLATE NOCASE',
  status: 'status',
};

/**
 * The words of a search as SQLite's FTS5 takes them: each one a beginning, all of them demanded. Empty where there is none.
 * Everything is quoted, so that nothing in it is an operator.
 */
export function searchPhrase(text: string): string {
  return text
    .replaceAll('\0', ' ')
    .split(/\s+/u)
    .filter((word) => /[\p{L}\p{N}\p{Co}]/u.test(word))
    .map((word) => `"${word.replaceAll('"', '""')}"*`)
    .join(' ');
}

const places = (values: readonly unknown[]): string => values.map(() => '?').join(', ');

function textCondition(text: string): Condition | null {
  const numbered = /^\s*(#?)(\d{1,15})\s*$/u.exec(text);
  if (numbered?.[1] === '#') return { sql: 'id = ?', values: [Number(numbered[2])] };
  const phrase = searchPhrase(text);
  if (phrase === '') return null;
  const matching = 'SELECT rowid FROM edit_words WHERE edit_words MATCH ?';
  if (!numbered) return { sql: `id IN (${matching})`, values: [phrase] };
  return { sql: `id IN (${matching} UNION SELECT ?)`, values: [phrase, Number(numbered[2])] };
}

/** Fingerprints that begin as given, in a table of a few rows. */
function actorCondition(filter: EditFilter): Condition | null {
  const given = (['model', 'adapter'] as const).flatMap((column) => {
    const beginning = filter[column];
    return beginning === undefined ? [] : [{ column, beginning }];
  });
  if (given.length === 0) return null;
  const tests = given.map(({ column }) => `substr(${column}, 1, length(?)) = ?`).join(' AND ');
  return {
    sql: `pair IN (SELECT id FROM actor_pairs WHERE ${tests})`,
    values: given.flatMap(({ beginning }) => [beginning, beginning]),
  };
}

function periodConditions(filter: EditFilter): Condition[] {
  return (['created', 'updated', 'committed'] as const).flatMap((column): Condition[] => {
    const { from, to } = filter[column] ?? {};
    return [
      ...(from === undefined ? [] : [{ sql: `${column} >= ?`, values: [from] }]),
      ...(to === undefined ? [] : [{ sql: `${column} < ?`, values: [to] }]),
    ];
  });
}

/** The filter as a condition that is always one: `true` where everything is let through. */
function conditionOf(filter: EditFilter): Condition {
  const conditions: Condition[] = [];
  const { status, verdict, tags = [], text } = filter;
  if (status) conditions.push({ sql: `status IN (${places(status)})`, values: [...status] });
  if (verdict) conditions.push({ sql: `verdict IN (${places(verdict)})`, values: [...verdict] });
  for (const tag of tags) {
    const sql = 'id IN (SELECT edit FROM edit_tags WHERE tag = (SELECT id FROM tags WHERE name = ?))';
    conditions.push({ sql, values: [tag] });
  }
  for (const condition of [actorCondition(filter), text === undefined ? null : textCondition(text)]) {
    if (condition) conditions.push(condition);
  }
  conditions.push(...periodConditions(filter));
  return {
    sql: conditions.map(({ sql }) => `(${sql})`).join(' AND ') || 'true',
    values: conditions.flatMap(({ values }) => values),
  };
}

/** `ORDER BY` of a list: ties stand in the order of their numbers, so that every page continues the one before. */
function orderOf({ by, descending }: EditSort, backwards = false): string {
  const direction = descending !== backwards ? 'DESC' : 'ASC';
  return by === 'id'
    ? `ORDER BY id ${direction}`
    : `ORDER BY ${sortColumns[by]} ${direction}, id ${direction}`;
}

/** How many edits a filter lets through. */
export function countMatches(store: Store, filter: EditFilter): number {
  const { sql, values } = conditionOf(filter);
  return store.database
    .prepare<unknown[], number>(`SELECT count(*) FROM edits WHERE ${sql}`)
    .pluck()
    .get(...values)!;
}

/** Numbers of the edits a filter lets through, in order: those at `offset` up to `offset + limit`. */
export function editNumbers(
  store: Store,
  { filter, sort, offset, limit }: { filter: EditFilter; sort: EditSort; offset: number; limit: number },
): number[] {
  const { sql, values } = conditionOf(filter);
  return store.database
    .prepare<unknown[], number>(`SELECT id FROM edits WHERE ${sql} ${orderOf(sort)} LIMIT ? OFFSET ?`)
    .pluck()
    .all(...values, limit, offset);
}

/** One page of a list, and how long the whole list is. */
export function findEdits(
  store: Store,
  page: { filter: EditFilter; sort: EditSort; offset: number; limit: number },
  options: { influence: boolean },
): { total: number; rows: EditRow[] } {
  return store.read(() => {
    const ids = editNumbers(store, page);
    // A first page that is not full is the whole list.
    const complete = page.offset === 0 && ids.length < page.limit;
    const total = complete ? ids.length : countMatches(store, page.filter);
    return { total, rows: listRows(store, ids, options) };
  });
}

/** Rows of a table for the edits of the given numbers that are there, in that order. */
export function listRows(
  store: Store,
  ids: readonly number[],
  { influence }: { influence: boolean },
): EditRow[] {
  return store.read(() =>
    listedEdits(store, ids).map((edit) => ({
      ...edit,
      influence: influence ? influenceOf(store, edit) : null,
    })),
  );
}

/** The edit before and the edit after one in a list, its place in it from 0, and how long the list is. */
export function neighbours(
  store: Store,
  { id, filter, sort }: { id: number; filter: EditFilter; sort: EditSort },
): { previous: number | null; next: number | null; place: number; total: number } {
  return store.read(() => {
    const { sql, values } = conditionOf(filter);
    const column = sortColumns[sort.by];
    const key = editRow(store, id)[sort.by];

    /** the nearest edit on one side: with the same key, else with the nearest key; no date is before every date */
    const nearest = (backwards: boolean): number | null => {
      const upwards = sort.descending === backwards;
      const than = upwards ? '>' : '<';
      const find = (where: string, ...keys: unknown[]) =>
        store.database
          .prepare<unknown[], number>(
            `SELECT id FROM edits WHERE ${sql} AND ${where} ${orderOf(sort, backwards)} LIMIT 1`,
          )
          .pluck()
          .get(...values, ...keys);
      if (sort.by === 'id') return find(`id ${than} ?`, id) ?? null;
      const tied = find(`${column} IS ? AND id ${than} ?`, key, id);
      if (tied !== undefined) return tied;
      if (key !== null) {
        const other = find(`${column} ${than} ?`, key);
        if (other !== undefined || upwards) return other ?? null;
        return find(`${column} IS NULL`) ?? null;
      }
      return upwards ? (find(`${column} IS NOT NULL`) ?? null) : null;
    };

    const than = sort.descending ? '>' : '<';
    const earlier =
      sort.by === 'id'
        ? { sql: `id ${than} ?`, values: [id] }
        : {
            sql: `(${column} ${than} ? OR (${column} IS ? AND id ${than} ?)
                   OR (${sort.descending ? '? IS NULL AND' : '? IS NOT NULL AND NOT'} ${column} IS NOT NULL))`,
            values: [key, key, id, key],
          };
    const place = store.database
      .prepare<unknown[], number>(`SELECT count(*) FROM edits WHERE ${sql} AND ${earlier.sql}`)
      .pluck()
      .get(...values, ...earlier.values)!;
    return { previous: nearest(true), next: nearest(false), place, total: countMatches(store, filter) };
  });
}

/** Numbers of the edits a selection names, each once, oldest first; numbers no edit has are left out. */
export function selectedEdits(store: Store, select: EditSelection): number[] {
  if ('filter' in select) {
    const sort = { by: 'id', descending: false } as const;
    const all = editNumbers(store, { filter: select.filter, sort, offset: 0, limit: -1 });
    if (!select.except?.length) return all;
    const except = new Set(select.except);
    return all.filter((id) => !except.has(id));
  }
  return store.database
    .prepare<[string], number>(
      'SELECT id FROM edits WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id',
    )
    .pluck()
    .all(JSON.stringify(select.edits));
}

/** How many edits have each status. */
export function countEdits(store: Store): Record<EditStatus, number> {
  const rows = store.database
    .prepare<[], [EditStatus, number]>('SELECT status, edits FROM edit_counts')
    .raw()
    .all();
  return Object.fromEntries(rows) as Record<EditStatus, number>;
}
