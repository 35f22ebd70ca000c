/**
 * @file What a change of the committed edits means for checks: a check is stale when one of its inputs would be answered otherwise
 * now, with the edit that caused it.
 */

import { KeyBank, keyFromBytes } from '../editors/scope/keyBank.ts';
import type { Reach } from '../editors/scope/scope.ts';
import { EmendError } from '../errors.ts';
import { readAnswer } from './answers.ts';
import { prepared, type Store } from './database.ts';
import { reviewFreshness, signalState } from './freshness.ts';
import { type EditRow, editRow, ownProbes } from './rows.ts';
import {
  actorOf,
  byProduct,
  enterMatch,
  findInput,
  inputRow,
  type KeptMatch,
  keepBestScores,
  leaveMatches,
  matchesOf,
  reviewOwnership,
  settleInput,
  unsettleOtherStates,
} from './scopeInputs.ts';
import { allAct, commitChanges, committedCount, inputState, type KnownScope, scopeOf } from './scopes.ts';

/** An edit near an input, as compared outside of a transaction; score null where nobody scored it. */
export interface Pair {
  readonly input: number;
  readonly edit: number;
  readonly product: number;
  readonly score: number | null;
}

/** What came of comparing edits that are to be committed with what the library keeps. */
export interface Comparison {
  /** the state of the library it was made in: how often the committed set, and what is kept of inputs, had changed */
  readonly commits: number;
  readonly inputs: number;
  /** the edits that were compared, in the order they are to be committed */
  readonly edits: readonly number[];
  /** inputs near which they come */
  readonly pairs: readonly Pair[];
  /** checked drafts that come near their own inputs */
  readonly drafts: readonly Pair[];
}

interface WatchRow {
  readonly edit: number;
  readonly input: number;
  readonly asked: number;
  readonly product: number | null;
  readonly score: number | null;
  readonly before: number | null;
  readonly after: number | null;
  readonly staleBy: number | null;
  readonly stage: EditRow['stage'];
  readonly reach: Reach;
  /** the edit that the check's edit is to replace */
  readonly supersede: number | null;
}

/** What a check rests on, one for each input with a picture. */
export type NewWatch = Pick<WatchRow, 'input' | 'product' | 'score' | 'before' | 'after'> & {
  asked: boolean;
};

/** Replaces the inputs on which an edit's latest check rests. Called inside a `write`. */
export function watch(store: Store, edit: number, inputs: Iterable<NewWatch>): void {
  prepared(store, 'DELETE FROM watched WHERE edit = ?').run(edit);
  for (const input of inputs) insertWatch(store, edit, input);
}

function insertWatch(
  store: Store,
  edit: number,
  { input, asked, product, score, before, after }: NewWatch,
): void {
  prepared(
    store,
    `INSERT OR IGNORE INTO watched (edit, input, asked, product, score, acted_before, acted_after) VALUES (?, ?, ?, ?, ?, ?, ?)`,
  ).run(edit, input, asked ? 1 : 0, product, score, before, after);
}

/**
 * What follows from a commit, in its transaction: the edit becomes a match of the inputs it comes near, and checks whose inputs are
 * answered otherwise now become stale by it. Without a comparison edits are compared by key alone, and where the new edit might act
 * a check is stale until that was scored.
 */
export function afterCommit(store: Store, edit: EditRow, comparison: Comparison | null): void {
  unsettleOtherStates(store);
  const scope = scopeOf(store);
  const acts = edit.model === store.actors.model && edit.adapter === store.actors.adapter;
  const own = acts && scope && findInput(store, edit.picture, edit.prompt);
  if (!scope || !own) {
    prepared(store, 'INSERT OR REPLACE INTO unplaced (edit, commits) VALUES (?, ?)').run(
      edit.id,
      commitChanges(store),
    );
    return;
  }
  const compared = comparison?.edits.includes(edit.id) ? comparison : compareByKey(store, edit);
  place(store, scope, edit, compared);
}

/** Where all committed edits act on every input, what every check but an edit's own found may be otherwise without it. */
function overtakeOthers(store: Store, edit: number): void {
  const { model, adapter } = store.actors;
  const others = prepared<[string, string, number], { id: number; check: number }>(
    store,
    `SELECT id, last_check AS "check" FROM edits
       WHERE last_check IS NOT NULL AND stage <> 'retired' AND model = ? AND adapter = ? AND id <> ?`,
  ).all(model, adapter, edit);
  const overtake = prepared(store, 'UPDATE checks SET overtaken = 1 WHERE id = ?');
  for (const { check } of others) overtake.run(check);
  reviewFreshness(
    store,
    others.map(({ id }) => id),
  );
}

/** As after a commit, for an edit that was committed before it could be compared. */
export function placeEdit(store: Store, id: number, comparison: Comparison): void {
  const scope = scopeOf(store);
  if (!scope) throw new EmendError('internal', 'There is no scope to place an edit by.');
  prepared(store, 'DELETE FROM unplaced WHERE edit = ?').run(id);
  place(store, scope, editRow(store, id), comparison);
}

/** Keeps matches of inputs as the engine found them anew, unless the committed set changed meanwhile. Called inside a `write`. */
export function settleInputs(
  store: Store,
  inputs: readonly number[],
  matches: ReadonlyArray<readonly KeptMatch[]>,
  changes: number,
): void {
  if (commitChanges(store) !== changes) return;
  for (const [index, input] of inputs.entries()) settleInput(store, input, matches[index]!);
  reviewInputs(store, inputs, 0);
}

function place(store: Store, scope: KnownScope, edit: EditRow, comparison: Comparison): void {
  const touched = new Set<number>();
  const scored = scoresOf(store, edit.id);
  for (const { input, edit: id, product, score } of comparison.pairs) {
    if (id !== edit.id) continue;
    const match = { edit: id, reach: edit.reach, product, score: score ?? scored.get(input) ?? null };
    if (enterMatch(store, input, match)) touched.add(input);
  }
  const probes = ownProbes(store, edit);
  const owned = new Set(reviewOwnership(store, probes));
  for (const { edit: draft, input, product, score } of comparison.drafts) {
    const last = owned.has(input) ? matchesOf(store, input)[scope.candidates - 1] : undefined;
    if (!owned.has(input) || (last && byProduct({ product, edit: draft }, last) > 0)) continue;
    insertWatch(store, draft, { input, asked: false, product, score, before: null, after: null });
    touched.add(input);
  }
  // Among its own matches now: what it did not change is no longer to be compared with.
  prepared(store, 'DELETE FROM watched WHERE edit = ? AND asked = 0').run(edit.id);
  for (const input of inputsOf(store, edit.id)) touched.add(input);
  reviewInputs(store, touched, edit.id);
}

/** What it means for checks that so many edits acted and now others do, as far as thresholds differ between the two sizes. */
export function afterGrowth(store: Store, was: number, cause: number): void {
  const scope = scopeOf(store);
  if (scope) reviewInputs(store, crossing(store, scope, was, committedCount(store)), cause);
}

/** What follows from a retirement, in its transaction. */
export function afterRetirement(store: Store, edit: EditRow): void {
  unsettleOtherStates(store);
  prepared(store, 'DELETE FROM unplaced WHERE edit = ?').run(edit.id);
  prepared(store, 'DELETE FROM watched WHERE edit = ?').run(edit.id);
  if (allAct(store)) overtakeOthers(store, edit.id);
  const scope = scopeOf(store);
  if (!scope) return;
  const left = leaveMatches(store, edit.id);
  const owned = reviewOwnership(store, ownProbes(store, edit));
  for (const input of owned) {
    if (inputRow(store, input).owned === 0) {
      prepared(store, 'DELETE FROM watched WHERE input = ? AND asked = 0').run(input);
    }
  }
  watchComers(store, scope, left);
  reviewInputs(store, new Set([...left, ...owned]), edit.id);
}

/** Drafts that come among the best of a committed edit's input where another left, not scored there yet. */
function watchComers(store: Store, scope: KnownScope, left: readonly number[]): void {
  const owned = left.filter((input) => inputRow(store, input).owned === 1);
  if (owned.length === 0) return;
  const drafts = draftKeys(store);
  if (!drafts) return;
  const read = prepared<[number], { key: Buffer }>(
    store,
    'SELECT "key" AS key FROM scope_inputs WHERE id = ?',
  );
  for (const input of owned) {
    const last = matchesOf(store, input)[scope.candidates - 1];
    drafts.each(keyFromBytes(read.get(input)!.key, drafts.width), (draft, product) => {
      if (last && byProduct({ product, edit: draft }, last) > 0) return;
      insertWatch(store, draft, { input, asked: false, product, score: null, before: null, after: null });
    });
  }
}

/** Inputs whose decision may differ between two sizes of the library, because thresholds do. */
export function crossing(store: Store, scope: KnownScope, was: number, is: number): number[] {
  const sizes = [was, was + 1, is, is + 1];
  const range = (reach: Reach) => {
    const thresholds = sizes.map((size) => scope.threshold(size, reach));
    return [Math.min(...thresholds), Math.max(...thresholds)] as const;
  };
  const [picture, thing] = [range('picture'), range('thing')];
  if (picture[0] === picture[1] && thing[0] === thing[1]) return [];
  // Where edits of both reaches could act, which of them does depends on both thresholds.
  return prepared<unknown[], { id: number }>(
    store,
    `SELECT id FROM scope_inputs WHERE state = ? AND ((picture_score >= ? AND picture_score < ?) OR (thing_score >= ? AND thing_score < ?)
         OR (picture_score >= ? AND thing_score >= ?))
       UNION SELECT watched.input FROM watched JOIN edits ON edits.id = watched.edit JOIN scope_inputs ON scope_inputs.id = watched.input
         WHERE score >= CASE edits.reach WHEN 'picture' THEN ? ELSE ? END AND edits.stage = 'draft' AND state = ?`,
  )
    .all(
      inputState(store),
      ...picture,
      ...thing,
      picture[0],
      thing[0],
      picture[0],
      thing[0],
      inputState(store),
    )
    .map(({ id }) => id);
}

/** Decides anew on inputs, and writes which checks that rest on them are stale, by which edit. */
export function reviewInputs(store: Store, inputs: Iterable<number>, cause: number): void {
  const scope = scopeOf(store);
  if (!scope) return;
  const count = committedCount(store);
  const checks = new Set<number>();
  const rows = prepared<[number], WatchRow>(
    store,
    `SELECT watched.edit, input, asked, product, score, acted_before AS before, acted_after AS after, watched.stale_by AS staleBy, stage, reach,
       supersede
     FROM watched JOIN edits ON edits.id = watched.edit LEFT JOIN checks ON checks.id = last_check WHERE input = ?`,
  );
  const keep = prepared(store, 'UPDATE watched SET stale_by = ? WHERE edit = ? AND input = ?');
  for (const input of inputs) {
    const settled = inputRow(store, input).settled === 1;
    const matches = matchesOf(store, input);
    const now = settled ? actorOf(scope, count, matches) : undefined;
    keepBestScores(store, input, matches);
    for (const row of rows.all(input)) {
      if (row.stage === 'retired') continue;
      const withEdit =
        row.stage === 'draft' && settled
          ? actorOf(scope, sizeWith(store, count, row.supersede), matchesWith(matches, row))
          : now;
      const stale = isStale(store, row, now, withEdit);
      if (stale === (row.staleBy !== null)) continue;
      keep.run(stale ? cause : null, row.edit, input);
      checks.add(row.edit);
    }
  }
  if (checks.size > 0) reviewFreshness(store, [...checks]);
}

/** How many edits act when one more is committed, in the place of `supersede` if that acts now. */
export function sizeWith(store: Store, count: number, supersede: number | null): number {
  if (supersede === null) return count + 1;
  return editRow(store, supersede).stage === 'committed' ? count : count + 1;
}

/**
 * The matches of an input when an edit is committed too, in the place of `supersede` where that is given; product null: it was not
 * compared, for it is not near.
 */
export function matchesWith(
  matches: readonly KeptMatch[],
  {
    edit,
    reach,
    product,
    score,
    supersede = null,
  }: Omit<KeptMatch, 'product'> & { product: number | null; supersede?: number | null },
): KeptMatch[] {
  const others = matches.filter((match) => match.edit !== edit && match.edit !== supersede);
  return product === null ? others : [...others, { edit, reach, product, score }];
}

/** An actor that is not known (undefined) may be any. */
function isStale(
  store: Store,
  row: WatchRow,
  now: number | null | undefined,
  withEdit: number | null | undefined,
): boolean {
  const differ = (was: number | null | undefined, is: number | null | undefined) =>
    is === undefined || was === undefined || (was !== is && !sameAnswer(store, row.input, was, is));
  if (row.asked === 0) return differ(now, withEdit);
  if (differ(row.after, withEdit)) return true;
  return row.stage === 'draft' && differ(row.before, now);
}

/** Whether both edits' answers to an input are known, and the same. */
function sameAnswer(store: Store, input: number, one: number | null, other: number | null): boolean {
  const { picture, prompt } = prepared<[number], { picture: string; prompt: string }>(
    store,
    'SELECT picture, prompt FROM scope_inputs WHERE id = ?',
  ).get(input)!;
  const answer = (edit: number | null) =>
    readAnswer(store, picture, prompt, edit === null ? '' : signalState(store, editRow(store, edit)));
  const first = answer(one);
  return first !== null && first === answer(other);
}

/** Scores of an edit on the inputs its check rests on. */
function scoresOf(store: Store, edit: number): Map<number, number | null> {
  const rows = prepared<[number], { input: number; score: number | null }>(
    store,
    'SELECT input, score FROM watched WHERE edit = ?',
  ).all(edit);
  return new Map(rows.map(({ input, score }) => [input, score]));
}

const inputsOf = (store: Store, edit: number): number[] =>
  prepared<[number], { input: number }>(store, 'SELECT input FROM watched WHERE edit = ?')
    .all(edit)
    .map(({ input }) => input);

/** Edit keys of the drafts whose checks rest on inputs of the present state, by edit; null without any. */
export function draftKeys(store: Store): KeyBank | null {
  const rows = prepared<[string | null], { edit: number; key: Buffer }>(
    store,
    `SELECT edits.id AS edit, CASE reach WHEN 'picture' THEN picture_key ELSE thing_key END AS key
       FROM edits JOIN scope_inputs ON scope_inputs.picture = edits.picture AND scope_inputs.prompt = edits.prompt
       WHERE stage = 'draft' AND state = ? AND edits.id IN (SELECT edit FROM watched)`,
  ).all(inputState(store));
  if (rows.length === 0) return null;
  const bank = new KeyBank(rows[0]!.key.length);
  for (const { edit, key } of rows) bank.add(edit, keyFromBytes(key, bank.width));
  return bank;
}

/** Compares an edit that is to be committed with everything that is kept, by key: nothing is scored. */
export function compareByKey(store: Store, edit: EditRow): Comparison {
  const state = inputState(store);
  const keys = prepared<[string | null, string, string], { key: Buffer }>(
    store,
    `SELECT ${edit.reach === 'picture' ? 'picture_key' : 'thing_key'} AS key FROM scope_inputs WHERE state = ? AND picture = ? AND prompt = ?`,
  ).get(state, edit.picture, edit.prompt)!;
  const bank = new KeyBank(keys.key.length);
  bank.add(edit.id, keyFromBytes(keys.key, bank.width));
  const pairs: Pair[] = [];
  const all = prepared<[string | null], { id: number; key: Buffer; floor: number | null }>(
    store,
    'SELECT id, "key" AS key, floor FROM scope_inputs WHERE state = ? AND settled = 1',
  );
  for (const { id, key, floor } of all.iterate(state)) {
    bank.each(keyFromBytes(key, bank.width), (_edit, product) => {
      if (floor === null || product >= floor) pairs.push({ input: id, edit: edit.id, product, score: null });
    });
  }
  const drafts: Pair[] = [];
  const bankOfDrafts = draftKeys(store);
  for (const { picture, prompt } of ownProbes(store, edit)) {
    const input = picture === null ? null : findInput(store, picture, prompt);
    if (!input || !bankOfDrafts) continue;
    const { key } = prepared<[number], { key: Buffer }>(
      store,
      'SELECT "key" AS key FROM scope_inputs WHERE id = ?',
    ).get(input.id)!;
    bankOfDrafts.each(keyFromBytes(key, bankOfDrafts.width), (draft, product) => {
      if (draft !== edit.id) drafts.push({ input: input.id, edit: draft, product, score: null });
    });
  }
  return { commits: 0, inputs: 0, edits: [edit.id], pairs, drafts };
}
