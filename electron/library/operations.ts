/**
 * @file Changes to edits, recorded with what is needed to take them back. Taking back is a change of its own: the history
 * grows by it and loses nothing.
 */
import type { Operation, ProbeKind } from '../api/contract.ts';
import { EmendError } from '../errors.ts';
import { now, parseStored, prepared, type Store } from './database.ts';
import { statusOf } from './freshness.ts';
import { remember } from './history.ts';
import { GROUP, inGroups, type Parts, untilTimeIsUp, wholly } from './inParts.ts';
import { committedInPlaceOf, type EditRow, editRow, tagsOf } from './rows.ts';
import { setTags } from './tags.ts';

/** So many edits are taken back in one transaction. */
const FEW = 200;
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
  const probes = prepared<[number], StoredProbe>(
    store,
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

/** An operation that is recorded part by part; its number is null until something changed. */
export interface OpenOperation {
  id: number | null;
  edits: number;
}

/**
 * Does `work`, which changes edits of the given numbers, and records what it changed of them. Called inside a `write`.
 * Nothing is recorded where nothing changed.
 * @param label what was done, for people, when so many edits were changed by it
 * @param whole what this is a further part of
 */
export function recordOperation<T>(
  store: Store,
  label: (edits: number) => string,
  ids: readonly number[],
  work: () => T,
  whole: OpenOperation = { id: null, edits: 0 },
): T {
  const before = ids.map((id) => snapshot(store, id));
  const result = work();
  const changes = ids.flatMap((id, place) => {
    const [then, is] = [before[place]!, snapshot(store, id)];
    const was = differing(then, is);
    return Object.keys(was).length > 0 ? [{ edit: id, before: was, after: differing(is, then) }] : [];
  });
  if (changes.length === 0) return result;
  // What was taken back while it was still going on is over; the rest is an operation of its own.
  if (whole.id === null || isUndone(store, whole.id))
    Object.assign(whole, { id: addOperation(store, '', null), edits: 0 });
  whole.edits += changes.length;
  prepared(store, 'UPDATE operations SET label = ? WHERE id = ?').run(label(whole.edits), whole.id);
  for (const { edit, before: was, after } of changes) addChange(store, whole.id!, edit, was, after);
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
  prepared(store, 'UPDATE operations SET label = ? WHERE id = ?').run(label, operation);
  for (const id of ids) addChange(store, operation, id, null, {});
  return operation;
}

function addOperation(store: Store, label: string, undoes: number | null): number {
  const { lastInsertRowid } = prepared(
    store,
    'INSERT INTO operations (at, label, undoes) VALUES (?, ?, ?)',
  ).run(now(), label, undoes);
  prepared(
    store,
    `DELETE FROM operation_edits WHERE operation <=
         (SELECT id FROM operations WHERE undoes IS NULL ORDER BY id DESC LIMIT 1 OFFSET ?)`,
  ).run(KEPT);
  return Number(lastInsertRowid);
}

function addChange(store: Store, operation: number, edit: number, before: unknown, after: unknown): void {
  prepared(store, 'INSERT INTO operation_edits (operation, edit, before, after) VALUES (?, ?, ?, ?)').run(
    operation,
    edit,
    before && JSON.stringify(before),
    JSON.stringify(after),
  );
}

/** Operations that were taken back and not done again since, as SQL. */
const UNDONE = `SELECT undoes FROM operations WHERE undoes IS NOT NULL
  AND id NOT IN (SELECT undoes FROM operations WHERE undoes IS NOT NULL)`;

const isUndone = (store: Store, operation: number): boolean =>
  prepared(store, `SELECT 1 WHERE ? IN (${UNDONE})`).get(operation) !== undefined;

const COUNTED = `SELECT id, at, label, (SELECT count(*) FROM operation_edits WHERE operation = operations.id) AS edits
  FROM operations WHERE undoes IS NULL AND id IN (SELECT operation FROM operation_edits)`;

/** The last change that was not taken back and still can be; null where there is none. */
export function undoableOperation(store: Store): Operation | null {
  return (
    prepared<[], Operation>(store, `${COUNTED} AND id NOT IN (${UNDONE}) ORDER BY id DESC LIMIT 1`).get() ??
    null
  );
}

/** The change that was taken back last, while nothing else was changed since; null where there is none. */
export function redoableOperation(store: Store): Operation | null {
  return (
    prepared<[], Operation>(
      store,
      `${COUNTED} AND id = (
         SELECT undoes FROM operations AS last WHERE undoes IN (SELECT id FROM operations WHERE undoes IS NULL)
           AND id NOT IN (SELECT undoes FROM operations WHERE undoes IS NOT NULL)
           AND NOT EXISTS (SELECT 1 FROM operations AS later WHERE later.id > last.id AND later.undoes IS NULL)
         ORDER BY id DESC LIMIT 1)`,
    ).get() ?? null
  );
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
export const undo = (store: Store, expected?: number): Operation =>
  wholly(undoing(store, expected)).operation;

/** Does again what was taken back last. @throws EmendError 'conflict' as {@link undo} */
export const redo = (store: Store): Operation => wholly(redoing(store)).operation;

/** What came of taking a change back, or of doing it again. Stopped, it can be gone on with by the same call. */
export interface Moved {
  readonly operation: Operation;
  readonly stopped: boolean;
}

/** As {@link undo}, part by part. */
export function* undoing(store: Store, expected?: number): Parts<Moved> {
  const operation = undoableOperation(store);
  if (!operation) throw new EmendError('conflict', 'There is no change left that could be taken back.');
  if (expected !== undefined && expected !== operation.id) {
    throw new EmendError(
      'conflict',
      `The library was changed since: the last change is now “${operation.label}”. Look at it, then undo again.`,
    );
  }
  const finish = () => addOperation(store, `Took back “${operation.label}”`, operation.id);
  return { operation, stopped: yield* moveAll(store, operation, 'back', finish) };
}

/** As {@link redo}, part by part. */
export function* redoing(store: Store): Parts<Moved> {
  const operation = redoableOperation(store);
  if (!operation) throw new EmendError('conflict', 'There is no change left that could be done again.');
  const finish = () => {
    const undone = prepared<[number], number>(store, 'SELECT max(id) FROM operations WHERE undoes = ?')
      .pluck()
      .get(operation.id)!;
    addOperation(store, `Did “${operation.label}” again`, undone);
  };
  return { operation, stopped: yield* moveAll(store, operation, 'again', finish) };
}

type Direction = 'back' | 'again';

/**
 * Moves every edit of an operation: a few in one transaction; of many first all are looked at, then they are moved part by part.
 * Returns whether it was stopped.
 */
function* moveAll(
  store: Store,
  operation: Operation,
  direction: Direction,
  finish: () => void,
): Parts<boolean> {
  const edits = prepared<[number], number>(
    store,
    'SELECT edit FROM operation_edits WHERE operation = ? ORDER BY edit',
  )
    .pluck()
    .all(operation.id);
  const total = edits.length;
  const each = (edit: number, work: (change: StoredChange) => void) =>
    work(
      prepared<[number, number], StoredChange>(
        store,
        'SELECT edit, before, after FROM operation_edits WHERE operation = ? AND edit = ?',
      ).get(operation.id, edit)!,
    );
  const move = (edit: number) => each(edit, (change) => moveOne(store, operation, change, direction));
  if (total <= FEW) {
    store.write(() => {
      edits.forEach(move);
      finish();
    });
    return false;
  }
  const look = (edit: number) => each(edit, (change) => void movement(store, operation, change, direction));
  for (let looked = 0; looked < total; ) {
    looked = store.read(() => untilTimeIsUp(edits, looked, look));
    if (!(yield { done: looked, total, stage: 'Looking whether it can be done' })) return true;
  }
  const stage = direction === 'back' ? 'Taking back' : 'Doing again';
  const groups = inGroups(edits);
  let at = 0;
  while (at < groups.length) {
    store.write(() => {
      at = untilTimeIsUp(groups, at, (group) => group.forEach(move));
    });
    const done = Math.min(total, at * GROUP);
    if (!(yield { done, total, stage }) && done < total) return true;
  }
  store.write(finish);
  return false;
}

/** What an edit is to become; null where it is that already. @throws EmendError 'conflict' where it cannot */
function movement(
  store: Store,
  operation: Operation,
  { edit, before, after }: StoredChange,
  direction: Direction,
): Partial<Snapshot> | null {
  const where = `operation ${operation.id}`;
  const row = editRow(store, edit);
  const is = snapshot(store, edit);
  if (before === null) {
    if (is.stage === 'committed') throw changedSinceThen(operation, edit);
    const stage = direction === 'back' ? 'retired' : 'draft';
    return is.stage === stage ? null : { stage };
  }
  const [was, left] = [before, after].map((text) => parseStored<Partial<Snapshot>>(text, where));
  const [from, to] = direction === 'back' ? [left!, was!] : [was!, left!];
  const holds = (values: Partial<Snapshot>) =>
    Object.entries(values).every(
      ([name, value]) => JSON.stringify(is[name as keyof Snapshot]) === JSON.stringify(value),
    );
  if (holds(to)) return null;
  if (!holds(from)) throw changedSinceThen(operation, edit);
  if (to.stage !== 'committed') return to;
  const other = committedInPlaceOf(store, row);
  if (other) {
    throw new EmendError(
      'conflict',
      `Edit ${edit} cannot act again: edit ${other.id} is committed for the same prompt on the same picture. Retire edit ${other.id} first.`,
    );
  }
  if (direction === 'again' && statusOf(store, edit) !== 'checked' && !to.overrideReason) {
    throw new EmendError(
      'conflict',
      `Edit ${edit} has no fresh passing check any more. Check it, then commit it.`,
    );
  }
  return to;
}

function moveOne(store: Store, operation: Operation, change: StoredChange, direction: Direction): void {
  const to = movement(store, operation, change, direction);
  if (!to) return;
  apply(store, change.edit, to);
  if (direction === 'back') remember(store, change.edit, 'undone', `Taken back: ${operation.label}.`);
  else remember(store, change.edit, 'redone', `Done again: ${operation.label}.`);
}

const changedSinceThen = (operation: Operation, edit: number): EmendError =>
  new EmendError(
    'conflict',
    `“${operation.label}” cannot be taken back or done again: edit ${edit} was changed since.`,
  );

/** Puts the given parts of an edit in the place of what it has. */
function apply(store: Store, edit: number, values: Partial<Snapshot>): void {
  const changed = columnNames.filter((name) => name in values);
  const set = [...changed.map((name) => `${columns[name]} = ?`), 'updated = ?'].join(', ');
  prepared(store, `UPDATE edits SET ${set} WHERE id = ?`).run(
    ...changed.map((name) => values[name]),
    now(),
    edit,
  );
  if (values.tags) setTags(store, edit, values.tags);
  if (values.probes) setProbes(store, edit, values.probes);
}

function setProbes(store: Store, edit: number, probes: readonly StoredProbe[]): void {
  const kept = JSON.stringify(probes.map(([id]) => id));
  prepared(
    store,
    `DELETE FROM probes WHERE edit = ? AND kind <> 'reliability' AND id NOT IN (SELECT value FROM json_each(?))`,
  ).run(edit, kept);
  const insert = prepared(
    store,
    'INSERT OR IGNORE INTO probes (id, edit, kind, picture, prompt) VALUES (?, ?, ?, ?, ?)',
  );
  for (const [id, ...probe] of probes) insert.run(id, edit, ...probe);
}
