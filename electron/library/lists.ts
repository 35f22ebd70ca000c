/**
 * @file Lists of edits: filtered, searched, sorted and counted by SQL, a page at a time.
 */
import { basename } from 'node:path';
import {
  type EditFilter,
  type EditRow,
  type EditSelection,
  type EditSort,
  EditStatus,
} from '../api/contract.ts';
import { prepared, type Store } from './database.ts';
import { elsewhere, presentState, statusIn, statusOf } from './freshness.ts';
import { listedEdits } from './listedEdits.ts';
import { nameOfEditor, recentModels } from './recentModels.ts';
import { editRow } from './rows.ts';
import { influenceOf } from './signals.ts';

/** A condition on a column of `edits`, with the values it asks for. */
interface Condition {
  readonly column: string;
  /** what follows the column, or all of it from the column as it is to be written */
  readonly test: string | ((column: string) => string);
  readonly values: Array<string | number>;
}

/** Conditions as SQL, with the values it asks for. */
interface Where {
  readonly sql: string;
  readonly values: Array<string | number>;
}

/** Columns a list can be sorted by, as their index has them. */
const sortColumns: Readonly<Record<Exclude<EditSort['by'], 'status'>, string>> = {
  id: 'id',
  updated: 'updated',
  created: 'created',
  committed: 'committed',
  prompt: 'prompt COLLATE NOCASE',
  target: 'target COLLATE NOCASE',
};

/** Statuses as a list sorted by status has them. */
const statusOrder = EditStatus.options.toSorted();

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

/** The words of a search are in the edit. */
const MATCHING = 'IN (SELECT rowid FROM edit_words WHERE edit_words MATCH ?)';

function textCondition(text: string): Condition | null {
  const numbered = /^\s*(#?)(\d{1,15})\s*$/u.exec(text);
  if (numbered?.[1] === '#') return { column: 'id', test: '= ?', values: [Number(numbered[2])] };
  const phrase = searchPhrase(text);
  if (phrase === '') return null;
  if (!numbered) return { column: 'id', test: MATCHING, values: [phrase] };
  const test = MATCHING.replace(')', ' UNION SELECT ?)');
  return { column: 'id', test, values: [phrase, Number(numbered[2])] };
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
    column: 'pair',
    test: `IN (SELECT id FROM actor_pairs WHERE ${tests})`,
    values: given.flatMap(({ beginning }) => [beginning, beginning]),
  };
}

function periodConditions(store: Store, filter: EditFilter): Condition[] {
  return (['created', 'updated', 'committed'] as const).flatMap((column): Condition[] => {
    const { from, to } = filter[column] ?? {};
    const limits = [...(from === undefined ? [] : ['>= ?']), ...(to === undefined ? [] : ['< ?'])];
    if (limits.length === 0) return [];
    const values = [from, to].filter((limit) => limit !== undefined);
    const within = (of: string) => limits.map((limit) => `${of} ${limit}`).join(' AND ');
    // A list walked in another order has no moments in its index: edits are looked up by number among those of the period, or among
    // those beyond it, whichever are fewer.
    const beyond = [
      ...(from === undefined ? [] : [`${column} < ?`]),
      ...(to === undefined ? [] : [`${column} >= ?`]),
      ...(column === 'committed' ? ['committed IS NULL'] : []),
    ];
    const test = (written: string) => {
      if (written === column) return within(column);
      const most = isMost(store, within(column), values);
      return `+id ${most ? 'NOT IN' : 'IN'} (SELECT id FROM edits WHERE ${most ? beyond.join(' OR ') : within(column)})`;
    };
    return [{ column, test, values }];
  });
}

/** Whether a condition that an index answers lets more than half of all edits through. */
function isMost(store: Store, sql: string, values: readonly unknown[]): boolean {
  const found = prepared<unknown[], number>(store, `SELECT count(*) FROM edits WHERE ${sql}`)
    .pluck()
    .get(...values)!;
  const all = prepared<[], number>(store, 'SELECT sum(edits) FROM edit_counts').pluck().get()!;
  return 2 * found > all;
}

/** Edits that have one of these statuses now: those with a check of another state are stale, whatever is stored. */
function statusCondition(store: Store, statuses: readonly EditStatus[]): Condition {
  const wanted = EditStatus.options.filter((status) => statuses.includes(status));
  const ofChecks = wanted.filter(
    (status) => status === 'checked' || status === 'failed' || status === 'stale',
  );
  if (ofChecks.length === 0 || ofChecks.length === 3)
    return { column: 'status', test: `IN (${wanted.map((status) => `'${status}'`).join(', ')})`, values: [] };
  const { state, commits } = presentState(store);
  const other = elsewhere(state, commits);
  const test = (column: string) =>
    wanted
      .map((status) => {
        if (status === 'stale')
          return `${column} = 'stale' OR (${column} IN ('checked', 'failed') AND ${other})`;
        if (status === 'checked' || status === 'failed') return `(${column} = '${status}' AND NOT ${other})`;
        return `${column} = '${status}'`;
      })
      .join(' OR ');
  return { column: 'status', test, values: [] };
}

function conditionsOf(store: Store, filter: EditFilter): Condition[] {
  const { status, verdict, finding, reach, tags = [], text } = filter;
  const anyOf = (column: string, values: readonly string[]) => {
    return { column, test: `IN (${places(values)})`, values: [...values] };
  };
  const conditions: Condition[] = [];
  if (status) conditions.push(statusCondition(store, status));
  if (verdict) conditions.push(anyOf('verdict', verdict));
  if (finding) conditions.push(anyOf('finding', finding));
  if (reach) conditions.push({ column: 'reach', test: '= ?', values: [reach] });
  for (const tag of tags) {
    const test = 'IN (SELECT edit FROM edit_tags WHERE tag = (SELECT id FROM tags WHERE name = ?))';
    conditions.push({ column: 'id', test, values: [tag] });
  }
  for (const condition of [actorCondition(filter), text === undefined ? null : textCondition(text)]) {
    if (condition) conditions.push(condition);
  }
  return [...conditions, ...periodConditions(store, filter)];
}

/**
 * The filter as SQL: `true` where everything is let through. `walked`: the list is walked in its order and each edit looked at, which is
 * soon over where many match; otherwise SQLite finds what matches by whatever index tells, and sorts it. It cannot know which is better:
 * a plus before a column keeps it from looking for an index of it.
 */
function whereOf(store: Store, filter: EditFilter, walked: EditSort['by'] | null = null): Where {
  const conditions = conditionsOf(store, filter);
  const written = ({ column, test }: Condition) => {
    const sought = walked === null || column === walked ? column : `+${column}`;
    return typeof test === 'string' ? `${sought} ${test}` : test(sought);
  };
  return {
    sql: conditions.map((condition) => `(${written(condition)})`).join(' AND ') || 'true',
    values: conditions.flatMap(({ values }) => values),
  };
}

/** Where more edits match than this, their list is walked. */
const MANY = 1000;

/**
 * `ORDER BY` of a list: ties stand in the order of their numbers, so that every page continues the one before. A list sorted by status is
 * read status by status.
 */
function orderOf({ by, descending }: EditSort, backwards = false): string {
  const direction = descending !== backwards ? 'DESC' : 'ASC';
  return by === 'id' || by === 'status'
    ? `ORDER BY id ${direction}`
    : `ORDER BY ${sortColumns[by]} ${direction}, id ${direction}`;
}

/** How many edits a filter lets through. */
export function countMatches(store: Store, filter: EditFilter): number {
  const { status, text, tags = [], ...others } = filter;
  const few = Object.values(others).every((value) => value === undefined);
  const only = few && tags.length === 0;
  // These are kept up to date.
  if (only && text === undefined) {
    const counts = countEdits(store);
    return [...new Set(status ?? EditStatus.options)].reduce((sum, name) => sum + counts[name], 0);
  }
  if (few && tags.length === 1 && !status && text === undefined) {
    const counted = prepared<[string], number>(store, 'SELECT edits FROM tags WHERE name = ?').pluck();
    return counted.get(tags[0]!) ?? 0;
  }
  const found = text === undefined ? null : textCondition(text);
  if (only && !status && found?.test === MATCHING) {
    return store.database
      .prepare<unknown[], number>('SELECT count(*) FROM edit_words WHERE edit_words MATCH ?')
      .pluck()
      .get(...found.values)!;
  }
  const { sql, values } = whereOf(store, filter);
  return store.database
    .prepare<unknown[], number>(`SELECT count(*) FROM edits WHERE ${sql}`)
    .pluck()
    .get(...values)!;
}

interface Page {
  readonly filter: EditFilter;
  readonly sort: EditSort;
  readonly offset: number;
  readonly limit: number;
}

/** Numbers of the edits a filter lets through, in order: those at `offset` up to `offset + limit`. */
export function editNumbers(store: Store, page: Page): number[] {
  return store.read(() => numbersOf(store, page, countMatches(store, page.filter)));
}

/** As {@link editNumbers}, of `total` that match. */
function numbersOf(store: Store, { filter, sort, offset, limit }: Page, total: number): number[] {
  if (total <= offset) return [];
  if (sort.by === 'status') return numbersByStatus(store, { filter, sort, offset, limit });
  const { sql, values } = whereOf(store, filter, total > MANY ? sort.by : null);
  return store.database
    .prepare<unknown[], number>(`SELECT id FROM edits WHERE ${sql} ${orderOf(sort)} LIMIT ? OFFSET ?`)
    .pluck()
    .all(...values, limit, offset);
}

/** As {@link editNumbers}, sorted by status: the statuses one after the other, each in the order of numbers. */
function numbersByStatus(store: Store, { filter, sort: { descending }, offset, limit }: Page): number[] {
  const wanted = statusOrder.filter((status) => filter.status?.includes(status) ?? true);
  const counts = offset > 0 ? statusCounts(store, filter) : null;
  const found: number[] = [];
  let skipped = 0;
  for (const status of descending ? wanted.toReversed() : wanted) {
    const before = Math.max(0, offset - skipped);
    skipped += Math.min(before, counts?.[status] ?? 0);
    if (counts && counts[status] <= before) continue;
    const left = limit < 0 ? -1 : limit - found.length;
    // What is stale lies in several places of the index, and is looked for in the order of numbers.
    const { sql, values } = whereOf(
      store,
      { ...filter, status: [status] },
      status === 'stale' ? 'id' : 'status',
    );
    const rows = store.database
      .prepare<unknown[], number>(
        `SELECT id FROM edits WHERE ${sql} ${orderOf({ by: 'id', descending })} LIMIT ? OFFSET ?`,
      )
      .pluck()
      .all(...values, left, before);
    found.push(...rows);
    if (found.length === limit) break;
  }
  return found;
}

/** How many of the edits a filter lets through have each status. */
function statusCounts(store: Store, filter: EditFilter): Record<EditStatus, number> {
  const { state, commits } = presentState(store);
  const { sql, values } = whereOf(store, filter);
  const rows = store.database
    .prepare<unknown[], [EditStatus, number]>(
      `SELECT ${statusIn(state, commits)} AS now, count(*) FROM edits WHERE ${sql} GROUP BY now`,
    )
    .raw()
    .all(...values);
  return { ...noEdits, ...Object.fromEntries(rows) };
}

/** One page of a list, and how long the whole list is. */
export function findEdits(
  store: Store,
  page: Page,
  options: { influence: boolean },
): { total: number; rows: EditRow[] } {
  return store.read(() => {
    const total = countMatches(store, page.filter);
    return { total, rows: listRows(store, numbersOf(store, page, total), options) };
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
      influence: (influence && influenceOf(store, edit)) || null,
    })),
  );
}

/** The edit before and the edit after one in a list, its place in it from 0, and how long the list is. */
export function neighbours(
  store: Store,
  { id, filter, sort }: { id: number; filter: EditFilter; sort: EditSort },
): { previous: number | null; next: number | null; place: number; total: number } {
  return store.read(() => {
    const byStatus = sort.by === 'status';
    const wanted = (status: EditStatus) => filter.status?.includes(status) ?? true;
    const { sql, values } = byStatus
      ? whereOf(store, { ...filter, status: undefined }, 'id')
      : whereOf(store, filter, sort.by);
    const order = (backwards: boolean) => orderOf(sort, backwards);

    /** the first edit of a part of the list, from one side of the edit on; null where there is none */
    const first = (backwards: boolean, where: string, ...keys: unknown[]): number | null =>
      store.database
        .prepare<unknown[], number>(
          `SELECT id FROM edits WHERE ${where} AND ${sql} ${order(backwards)} LIMIT 1`,
        )
        .pluck()
        .get(...keys, ...values) ?? null;
    const count = (where: string, ...keys: unknown[]): number =>
      store.database
        .prepare<unknown[], number>(`SELECT count(*) FROM edits WHERE ${where} AND ${sql}`)
        .pluck()
        .get(...keys, ...values)!;

    const is = (status: EditStatus) =>
      whereOf(store, { status: [status] }, status === 'stale' ? 'id' : 'status').sql;

    /** what lies on one side of the edit: those with the same key, then those with others; no date is before every date */
    const beyond = (backwards: boolean): Array<[where: string, ...keys: unknown[]]> => {
      const upwards = sort.descending === backwards;
      const than = upwards ? '>' : '<';
      const edit = editRow(store, id);
      if (sort.by === 'id') return [[`id ${than} ?`, id]];
      if (sort.by === 'status') {
        const own = statusOf(store, id);
        const further = upwards
          ? statusOrder.filter((status) => status > own)
          : statusOrder.filter((status) => status < own).toReversed();
        return [
          ...(wanted(own) ? [[`${is(own)} AND id ${than} ?`, id] as [string, number]] : []),
          ...further.filter(wanted).map((status): [string] => [is(status)]),
        ];
      }
      const column = sortColumns[sort.by];
      const key = edit[sort.by];
      const tied: [string, ...unknown[]] =
        key === null
          ? [`${column} IS NULL AND id ${than} ?`, id]
          : [`${column} = ? AND id ${than} ?`, key, id];
      if (key === null) return upwards ? [tied, [`${column} IS NOT NULL`]] : [tied];
      const others: [string, ...unknown[]] = [`${column} ${than} ?`, key];
      return upwards ? [tied, others] : [tied, others, [`${column} IS NULL`]];
    };
    const nearest = (backwards: boolean): number | null => {
      for (const part of beyond(backwards)) {
        const found = first(backwards, ...part);
        if (found !== null) return found;
      }
      return null;
    };
    return {
      previous: nearest(true),
      next: nearest(false),
      place: beyond(true).reduce((sum, part) => sum + count(...part), 0),
      total: countMatches(store, filter),
    };
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

/** Each model and adapter that edits were made for, the most used first. */
export function listActors(store: Store): Array<{
  model: string;
  modelName: string | null;
  adapter: string;
  adapterName: string | null;
  edits: number;
}> {
  return store.read(() => {
    const known = recentModels(store);
    return store.database
      .prepare<[], { model: string; adapter: string; edits: number }>(
        `SELECT model, adapter, edits FROM (SELECT pair, count(*) AS edits FROM edits INDEXED BY edits_by_id GROUP BY pair)
         JOIN actor_pairs ON actor_pairs.id = pair ORDER BY edits DESC, actor_pairs.id`,
      )
      .all()
      .map((actors) => {
        const opened = known.find(({ adapter }) => adapter !== '' && adapter === actors.adapter);
        return {
          ...actors,
          modelName: known.find(({ model }) => model === actors.model)?.name ?? null,
          adapterName:
            nameOfEditor(store, actors.adapter) ??
            (opened?.adapterPath ? basename(opened.adapterPath) : null),
        };
      });
  });
}

const noEdits = Object.fromEntries(EditStatus.options.map((status) => [status, 0])) as Record<
  EditStatus,
  number
>;

/** How many edits have each status. */
export function countEdits(store: Store): Record<EditStatus, number> {
  return store.read(() => {
    const now = presentState(store);
    const counts = { ...noEdits };
    const kept = prepared<[], { status: EditStatus; state: number; edits: number }>(
      store,
      'SELECT status, state, edits FROM edit_counts',
    ).all();
    for (const { status, state, edits } of kept) {
      const isStale = (status === 'checked' || status === 'failed') && state !== now.state;
      counts[isStale ? 'stale' : status] += edits;
    }
    if (now.commits === 0) return counts;
    // Of those with a check of this state, the ones that do not know of an edit that nothing was compared with yet.
    const overtaken = prepared<[number, number], { status: EditStatus; edits: number }>(
      store,
      `SELECT status, count(*) AS edits FROM edits WHERE status IN ('checked', 'failed') AND check_state = ? AND check_commits < ? GROUP BY status`,
    ).all(now.state, now.commits);
    for (const { status, edits } of overtaken) {
      counts[status] -= edits;
      counts.stale += edits;
    }
    return counts;
  });
}
