/**
 * @file Changes to edits, recorded with what is needed to take them back. Taking back is a change of its own: the history
 * grows by it and loses nothing.
 */
import type { Operation, ProbeKind } from '../api/contract.ts';
import { EmendError } from '../errors.ts';
import { now, parseStored, type Store } from './database.ts';
import { remember } from './history.ts';
import { refreshFreshness } from './review.ts';
import { committedInPlaceOf, type EditRow, editRow, tagsOf } from './rows.ts';
import { setTags } from './tags.ts';

/** So many of the last operations can be taken back. */
const KEPT = 50;

type StoredProbe = readonly [id: number, kind: ProbeKind, picture: string | null, prompt: string];

/** What of an edit an operation may change. */
interface Snapshot
  extends Pick<
    EditRow,
    | 'prompt'
    | 'target'
    | 'before'
    | 'after'
    | 'note'
    | 'reach'
    | 'stage'
    | 'committed'
    | 'overrideReason'
    | 'restored'
  > {
  readonly tags: readonly string[];
  /** all but the edit itself */
  readonly probes: readonly StoredProbe[];
}

const columns = {
  prompt: 'prompt',
  target: 'target',
  before: 'before',
  after: 'after',
  note: 'note',
  reach: 'reach',
  stage: 'stage',
  committed: 'committed',
  overrideReason: 'override_reason',
  restored: 'restored',
} as const satisfies Partial<Record<keyof Snapshot, string>>;

const columnNames = Object.keys(columns) as Array<keyof typeof columns>;

function snapshot(store: Store, id: number): Snapshot {
  const row = editRow(store, id);
  const probes = store.database
    .prepare<[number], StoredProbe>(
      `SELECT id, kind, picture, prompt FROM probes WHERE edit = ? AND kind <> 'reliability' ORDER BY id`,
    )
    .raw()
    .all(id);
  const texts = Object.fromEntries(columnNames.map((name) => [name, row[name]])) as Pick<
    Snapshot,
    keyof typeof columns
  >;
  return { ...texts, tags: tagsOf(store, id), probes };
}

/** The parts of `one` that are not the same in `other`. */
function differing(one: Snapshot, other: Snapshot): Partial<Snapshot> {
  const names = (Object.keys(one) as Array<keyof Snapshot>).filter(
    (name) => JSON.stringify(one[name]) !== JSON.stringify(other[name]),
  );
  return Object.fromEntries(names.map((name) => [name, one[name]]));
}

/**
 * Does `work`, which changes edits of the given numbers, and records what it changed of them. Called inside a `write`.
 * Nothing is recorded where nothing changed.
 * @param label what was done, for people, when so many edits were changed by it
 */
export function recordOperation<T>(
  store: Store,
  label: (edits: number) => string,
  ids: readonly number[],
  work: () => T,
): T {
  const before = ids.map((id) => snapshot(store, id));
  const result = work();
  const changes = ids.flatMap((id, place) => {
    const [then, is] = [before[place]!, snapshot(store, id)];
    const was = differing(then, is);
    return Object.keys(was).length > 0 ? [{ edit: id, before: was, after: differing(is, then) }] : [];
  });
  if (changes.length > 0) {
    const operation = addOperation(store, label(changes.length), null);
    for (const { edit, before: was, after } of changes) addChange(store, operation, edit, was, after);
  }
  return result;
}

/** A number of edits in words. */
export const countedEdits = (edits: number): string =>
  `${edits.toLocaleString('en')} edit${edits === 1 ? '' : 's'}`;

/** Records that edits were made. Called inside a `write`; `operation` adds them to one that is there already. */
export function recordCreation(
  store: Store,
  label: string,
  ids: readonly number[],
  operation = addOperation(store, label, null),
): number {
  store.database.prepare('UPDATE operations SET label = ? WHERE id = ?').run(label, operation);
  for (const id of ids) addChange(store, operation, id, null, {});
  return operation;
}

function addOperation(store: Store, label: string, undoes: number | null): number {
  const { lastInsertRowid } = store.database
    .prepare('INSERT INTO operations (at, label, undoes) VALUES (?, ?, ?)')
    .run(now(), label, undoes);
  store.database
    .prepare(
      `DELETE FROM operation_edits WHERE operation <=
         (SELECT id FROM operations WHERE undoes IS NULL ORDER BY id DESC LIMIT 1 OFFSET ?)`,
    )
    .run(KEPT);
  return Number(lastInsertRowid);
}

function addChange(store: Store, operation: number, edit: number, before: unknown, after: unknown): void {
  store.database
    .prepare('INSERT INTO operation_edits (operation, edit, before, after) VALUES (?, ?, ?, ?)')
    .run(operation, edit, before && JSON.stringify(before), JSON.stringify(after));
}

/** The last change that was not taken back and still can be; null where there is none. */
export function undoableOperation(store: Store): Operation | null {
  const found = store.database
    .prepare<[], Operation>(
      `SELECT id, at, label, (SELECT count(*) FROM operation_edits WHERE operation = operations.id) AS edits
       FROM operations
       WHERE undoes IS NULL AND id NOT IN (SELECT undoes FROM operations WHERE undoes IS NOT NULL)
         AND id IN (SELECT operation FROM operation_edits)
       ORDER BY id DESC LIMIT 1`,
    )
    .get();
  return found ?? null;
}

interface StoredChange {
  readonly edit: number;
  readonly before: string | null;
  readonly after: string;
}

/**
 * Takes back the last change that was not taken back yet. Edits that were made by it are retired, as edits are never removed.
 * @throws EmendError 'conflict' where there is none, where `expected` is not it, or where an edit was changed since or
 *   cannot act again; nothing is changed then
 */
export function undo(store: Store, expected?: number): Operation {
  return store.write(() => {
    const operation = undoableOperation(store);
    if (!operation) throw new EmendError('conflict', 'There is no change left that could be taken back.');
    if (expected !== undefined && expected !== operation.id) {
      throw new EmendError(
        'conflict',
        `The library was changed since: the last change is now “${operation.label}”. Look at it, then undo again.`,
      );
    }
    const changes = store.database
      .prepare<[number], StoredChange>(
        'SELECT edit, before, after FROM operation_edits WHERE operation = ? ORDER BY edit',
      )
      .all(operation.id);
    for (const change of changes) takeBack(store, operation, change);
    addOperation(store, `Took back “${operation.label}”`, operation.id);
    refreshFreshness(store);
    return operation;
  });
}

function takeBack(store: Store, operation: Operation, { edit, before, after }: StoredChange): void {
  const where = `operation ${operation.id}`;
  const is = snapshot(store, edit);
  if (before === null) {
    if (is.stage === 'retired') return;
    if (is.stage === 'committed') throw changedSinceThen(operation, edit);
    apply(store, edit, { stage: 'retired' });
  } else {
    const left = parseStored<Partial<Snapshot>>(after, where);
    for (const [name, value] of Object.entries(left)) {
      if (JSON.stringify(is[name as keyof Snapshot]) !== JSON.stringify(value)) {
        throw changedSinceThen(operation, edit);
      }
    }
    const was = parseStored<Partial<Snapshot>>(before, where);
    if (was.stage === 'committed') {
      const other = committedInPlaceOf(store, editRow(store, edit));
      if (other) {
        throw new EmendError(
          'conflict',
          `Edit ${edit} cannot act again: edit ${other.id} is committed for the same prompt on the same picture. Retire edit ${other.id} first.`,
        );
      }
    }
    apply(store, edit, was);
  }
  remember(store, edit, 'undone', `Taken back: ${operation.label}.`);
}

const changedSinceThen = (operation: Operation, edit: number): EmendError =>
  new EmendError('conflict', `“${operation.label}” cannot be taken back: edit ${edit} was changed since.`);

/** Puts the given parts of an edit in the place of what it has. */
function apply(store: Store, edit: number, values: Partial<Snapshot>): void {
  const changed = columnNames.filter((name) => name in values);
  const set = [...changed.map((name) => `${columns[name]} = ?`), 'updated = ?'].join(', ');
  store.database
    .prepare(`UPDATE edits SET ${set} WHERE id = ?`)
    .run(...changed.map((name) => values[name]), now(), edit);
  if (values.tags) setTags(store, edit, values.tags);
  if (values.probes) setProbes(store, edit, values.probes);
}

function setProbes(store: Store, edit: number, probes: readonly StoredProbe[]): void {
  const { database } = store;
  const kept = JSON.stringify(probes.map(([id]) => id));
  database
    .prepare(
      `DELETE FROM probes WHERE edit = ? AND kind <> 'reliability' AND id NOT IN (SELECT value FROM json_each(?))`,
    )
    .run(edit, kept);
  const insert = database.prepare(
    'INSERT OR IGNORE INTO probes (id, edit, kind, picture, prompt) VALUES (?, ?, ?, ?, ?)',
  );
  for (const [id, ...probe] of probes) insert.run(id, edit, ...probe);
}
