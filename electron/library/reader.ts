/**
 * @file A library as the engine reads it: a connection of its own that cannot write, and what it reads from there when an edit acts or
 * is scored.
 */
import Sqlite from 'better-sqlite3';
import { keyFromBytes } from '../editors/scope/keyBank.ts';
import type { Reach } from '../editors/scope/scope.ts';
import { EmendError } from '../errors.ts';
import { type Actors, type Store, telling } from './database.ts';
import { editRow } from './rows.ts';
import { commitChanges, inputState } from './scopes.ts';
import { signalOf } from './signals.ts';

export interface LibraryReader extends Store {
  close(): void;
}

function refuse(): never {
  throw new EmendError('internal', 'The engine does not write to the library.');
}

/** @throws EmendError as `telling` */
export function openReader(
  file: string,
  { actors, template }: { actors: Actors; template: Store['template'] },
): LibraryReader {
  return telling(file, () => {
    const database = new Sqlite(file, { readonly: true, fileMustExist: true, timeout: 10_000 });
    return {
      ...{ file, database, actors, template },
      read: (work) => telling(file, () => database.transaction(work).deferred()),
      readOnly: true,
      write: refuse,
      keep: refuse,
      close: () => database.close(),
    };
  });
}

/** A committed edit by which the scope recalls it. */
export interface CommittedKey {
  readonly edit: number;
  readonly reach: Reach;
  readonly key: Int8Array;
}

/** Ids of the committed edits that act, in the order they were committed, and how often that set had changed. */
export function committedIds(store: Store): { ids: number[]; changes: number } {
  const { model, adapter } = store.actors;
  return store.read(() => ({
    changes: commitChanges(store),
    ids: store.database
      .prepare<[string, string], { id: number }>(
        `SELECT id FROM edits WHERE stage = 'committed' AND model = ? AND adapter = ? ORDER BY committed, id`,
      )
      .all(model, adapter)
      .map(({ id }) => id),
  }));
}

/** The key of an edit's own input; null before it was described. `width`: of keys. */
export function editKey(store: Store, id: number, width: number): CommittedKey | null {
  const row = store.database
    .prepare<[string | null, number], { reach: Reach; key: Buffer }>(
      `SELECT reach, CASE reach WHEN 'picture' THEN picture_key ELSE thing_key END AS key
       FROM edits JOIN scope_inputs ON state = ? AND scope_inputs.picture = edits.picture AND scope_inputs.prompt = edits.prompt
       WHERE edits.id = ?`,
    )
    .get(inputState(store), id);
  return row ? { edit: id, reach: row.reach, key: keyFromBytes(row.key, width) } : null;
}

/** What the scorer reads of an edit. @throws EmendError 'not-found' before it was described */
export function editDetail(store: Store, id: number): { reach: Reach; detail: Uint8Array } {
  const row = store.database
    .prepare<[string | null, number], { reach: Reach; detail: Buffer }>(
      `SELECT reach, detail FROM edits
       JOIN scope_inputs ON state = ? AND scope_inputs.picture = edits.picture AND scope_inputs.prompt = edits.prompt
       JOIN scope_details ON scope_details.input = scope_inputs.id WHERE edits.id = ?`,
    )
    .get(inputState(store), id);
  if (!row) throw new EmendError('not-found', `What the scope compares of edit ${id} is not kept yet.`);
  return row;
}

/** Key and detail of a kept input. @throws EmendError 'not-found' */
export function inputDescription(
  store: Store,
  id: number,
  width: number,
): { key: Int8Array; detail: Uint8Array; floor: number | null } {
  const row = store.database
    .prepare<[number], { key: Buffer; detail: Buffer; floor: number | null }>(
      `SELECT "key" AS key, detail, floor FROM scope_inputs JOIN scope_details ON input = id WHERE id = ?`,
    )
    .get(id);
  if (!row) throw new EmendError('not-found', `Input ${id} is not kept.`);
  return { key: keyFromBytes(row.key, width), detail: row.detail, floor: row.floor };
}

/** Whether an edit has all it needs to act: its signal, and its description. */
export function isPrepared(store: Store, id: number, width: number): boolean {
  return editKey(store, id, width) !== null && signalOf(store, editRow(store, id)) !== null;
}

export interface KeptInput {
  readonly id: number;
  readonly key: Int8Array;
  readonly floor: number | null;
}

/** Inputs of the present state whose floor or owner changed after `seen`, and the number of the last change. */
export function inputsChangedSince(
  store: Store,
  seen: number,
  width: number,
): { inputs: Array<KeptInput & { owned: boolean }>; last: number } {
  const rows = store.database
    .prepare<
      [number, string | null],
      { id: number; key: Buffer; floor: number | null; owned: number; changed: number }
    >(`SELECT id, "key" AS key, floor, owned, changed FROM scope_inputs WHERE changed > ? AND state = ?`)
    .all(seen, inputState(store));
  return {
    inputs: rows.map(({ id, key, floor, owned }) => {
      return { id, key: keyFromBytes(key, width), floor, owned: owned === 1 };
    }),
    last: rows.reduce((last, { changed }) => Math.max(last, changed), seen),
  };
}

/** All settled inputs of the present state, one after the other. */
export function* keptInputs(store: Store, width: number): Generator<KeptInput> {
  const rows = store.database
    .prepare<[string | null], { id: number; key: Buffer; floor: number | null }>(
      `SELECT id, "key" AS key, floor FROM scope_inputs WHERE state = ? AND settled = 1`,
    )
    .iterate(inputState(store));
  for (const { id, key, floor } of rows) yield { id, key: keyFromBytes(key, width), floor };
}
