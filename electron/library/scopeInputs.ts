/**
 * @file Inputs as the scope describes them, each with the committed edits most similar to it. More matches are kept than a decision
 * looks at, so that edits can be retired without asking the model.
 */

import { similarityOf } from '../editors/scope/keyBank.ts';
import { type Decision, judge, type Match, type Reach, type ScopeInput } from '../editors/scope/scope.ts';
import { prepared, type Store } from './database.ts';
import { editRow } from './rows.ts';
import { commitChanges, inputState, type KnownScope, scopeOf } from './scopes.ts';

/** So many times the matches a decision looks at are kept of an input. */
export const KEPT_PER_CANDIDATE = 2;

/** A committed edit near an input, as it is kept. */
export interface KeptMatch {
  readonly edit: number;
  readonly reach: Reach;
  /** dot product of both keys */
  readonly product: number;
  /** null while nobody scored it */
  readonly score: number | null;
}

/** An input as the engine found it, with its matches in the set of committed edits it held. */
export interface DescribedInput {
  readonly picture: string;
  readonly prompt: string;
  readonly described: ScopeInput;
  /** the best by key, as many as are kept; fewer only when there are no more */
  readonly matches: readonly KeptMatch[];
}

export interface InputRow {
  readonly id: number;
  readonly floor: number | null;
  readonly floorEdit: number | null;
  readonly settled: number;
  readonly owned: number;
}

const INPUT_COLUMNS = 'id, floor, floor_edit AS floorEdit, settled, owned';

/** Best first: the larger product, of equals the smaller id. */
export const byProduct = (
  a: { readonly product: number; readonly edit: number },
  b: { readonly product: number; readonly edit: number },
): number => b.product - a.product || a.edit - b.edit;

/** The input of this picture and prompt in the present state. */
export function findInput(store: Store, picture: string, prompt: string): InputRow | null {
  const state = inputState(store);
  if (state === null) return null;
  return (
    prepared<[string, string, string], InputRow>(
      store,
      `SELECT ${INPUT_COLUMNS} FROM scope_inputs WHERE state = ? AND picture = ? AND prompt = ?`,
    ).get(state, picture, prompt) ?? null
  );
}

export function inputRow(store: Store, id: number): InputRow {
  return prepared<[number], InputRow>(store, `SELECT ${INPUT_COLUMNS} FROM scope_inputs WHERE id = ?`).get(
    id,
  )!;
}

/** What is kept of an input's matches, best first. */
export function matchesOf(store: Store, input: number): KeptMatch[] {
  return prepared<[number], KeptMatch>(
    store,
    'SELECT edit, reach, product, score FROM scope_matches WHERE input = ? ORDER BY product DESC, edit',
  ).all(input);
}

/**
 * Keeps inputs the engine described. Their matches count as those of now unless the set of committed edits changed meanwhile
 * (`changes`: as counted when the engine took it up). Called inside a `write`.
 */
export function keepInputs(store: Store, inputs: readonly DescribedInput[], changes: number): void {
  const state = inputState(store);
  if (state === null) return;
  const settled = commitChanges(store) === changes;
  const insert = prepared(
    store,
    `INSERT INTO scope_inputs (state, picture, prompt, "key", picture_key, thing_key, settled, owned, changed)
     VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?) ON CONFLICT DO NOTHING`,
  );
  const insertDetail = prepared(store, 'INSERT INTO scope_details (input, detail) VALUES (?, ?)');
  for (const { picture, prompt, described, matches } of inputs) {
    const { key, editKeys, detail } = described;
    const { changes: inserted, lastInsertRowid } = insert.run(
      ...[state, picture, prompt, bytesOf(key), bytesOf(editKeys.picture), bytesOf(editKeys.thing)],
      ...[isOwned(store, picture, prompt) ? 1 : 0, nextChange(store)],
    );
    if (inserted === 1) insertDetail.run(lastInsertRowid, detail);
    const input = findInput(store, picture, prompt)!;
    if (settled && input.settled === 0) settleInput(store, input.id, matches);
  }
}

/** Replaces the matches of an input with the best of those that are committed now. Called inside a `write`. */
export function settleInput(store: Store, input: number, matches: readonly KeptMatch[]): void {
  prepared(store, 'DELETE FROM scope_matches WHERE input = ?').run(input);
  for (const match of matches) insertMatch(store, input, match);
  const scope = scopeCandidates(store);
  const last = matches.toSorted(byProduct)[KEPT_PER_CANDIDATE * scope - 1];
  prepared(
    store,
    'UPDATE scope_inputs SET settled = 1, floor = ?, floor_edit = ?, changed = ? WHERE id = ?',
  ).run(last?.product ?? null, last?.edit ?? null, nextChange(store), input);
  keepBestScores(store, input, matches.toSorted(byProduct));
}

/** The best score of each reach among the best few: what thresholds of other sizes are compared with. */
export function keepBestScores(store: Store, input: number, matches: readonly KeptMatch[]): void {
  const best = (reach: Reach) => {
    const scores = matches
      .slice(0, scopeCandidates(store))
      .flatMap((match) => (match.reach === reach && match.score !== null ? [match.score] : []));
    return scores.length > 0 ? Math.max(...scores) : null;
  };
  prepared(store, 'UPDATE scope_inputs SET picture_score = ?, thing_score = ? WHERE id = ?').run(
    best('picture'),
    best('thing'),
    input,
  );
}

/** Lets a newly committed edit in among the matches of a settled input. Returns whether it is one of the best. */
export function enterMatch(store: Store, input: number, match: KeptMatch): boolean {
  const { floor, floorEdit, settled } = inputRow(store, input);
  if (settled === 0) return false;
  if (floor !== null && byProduct(match, { product: floor, edit: floorEdit! }) > 0) return false;
  insertMatch(store, input, match);
  const kept = matchesOf(store, input);
  const most = KEPT_PER_CANDIDATE * scopeCandidates(store);
  for (const { edit } of kept.splice(most)) removeMatch(store, input, edit);
  if (kept.length === most) {
    const last = kept.at(-1)!;
    prepared(store, 'UPDATE scope_inputs SET floor = ?, floor_edit = ?, changed = ? WHERE id = ?').run(
      last.product,
      last.edit,
      nextChange(store),
      input,
    );
  }
  return kept.some(({ edit }) => edit === match.edit);
}

/** Inputs of the present state among whose kept matches an edit is. */
export function inputsNear(store: Store, edit: number): number[] {
  return prepared<[number, string | null], { input: number }>(
    store,
    `SELECT input FROM scope_matches JOIN scope_inputs ON scope_inputs.id = input WHERE edit = ? AND state = ?`,
  )
    .all(edit, inputState(store))
    .map(({ input }) => input);
}

/**
 * Has the matches found anew of inputs of which too few would be left for a decision without an edit, which is committed. Called inside
 * a `write`.
 */
export function unsettleWithout(store: Store, edit: number): void {
  const candidates = scopeCandidates(store);
  for (const input of inputsNear(store, edit)) {
    const { floor, settled } = inputRow(store, input);
    if (settled === 1 && floor !== null && matchesOf(store, input).length <= candidates)
      prepared(store, 'UPDATE scope_inputs SET settled = 0, changed = ? WHERE id = ?').run(
        nextChange(store),
        input,
      );
  }
}

/** Takes a retired edit from the matches of all inputs of the present state; returns those it was among. */
export function leaveMatches(store: Store, edit: number): number[] {
  const inputs = inputsNear(store, edit);
  const candidates = scopeCandidates(store);
  const unsettle = prepared(store, 'UPDATE scope_inputs SET settled = 0, changed = ? WHERE id = ?');
  for (const input of inputs) {
    removeMatch(store, input, edit);
    const { floor, settled } = inputRow(store, input);
    if (settled === 1 && floor !== null && matchesOf(store, input).length < candidates) {
      unsettle.run(nextChange(store), input);
    }
  }
  return inputs;
}

/** Matches of other states are not kept up to date: they are found anew when that state is back. */
export function unsettleOtherStates(store: Store): void {
  const state = inputState(store) ?? '';
  prepared(store, 'UPDATE scope_inputs SET settled = 0 WHERE settled = 1 AND (state < ? OR state > ?)').run(
    state,
    state,
  );
}

/** Inputs of the present state whose matches must be found anew, or scored. */
export function unsettledInputs(store: Store, limit: number): number[] {
  const state = inputState(store);
  return prepared<[string | null, string | null, number], { id: number }>(
    store,
    `SELECT id FROM scope_inputs WHERE state = ? AND settled = 0
       UNION SELECT input FROM scope_matches JOIN scope_inputs ON scope_inputs.id = input WHERE score IS NULL AND state = ? LIMIT ?`,
  )
    .all(state, state, limit)
    .map(({ id }) => id);
}

/** Whether the scope's description of an edit's own input is kept. */
export function isDescribed(store: Store, edit: number): boolean {
  const { picture, prompt } = editRow(store, edit);
  return findInput(store, picture, prompt) !== null;
}

/** The number of the last change of what is kept of inputs. */
export function lastChange(store: Store): number {
  return nextChange(store) - 1;
}

/** Notes which of an edit's own probes belong to a committed edit now. Called when it was committed or retired. */
export function reviewOwnership(
  store: Store,
  probes: readonly { picture: string | null; prompt: string }[],
): number[] {
  const inputs: number[] = [];
  for (const { picture, prompt } of probes) {
    const input = picture === null ? null : findInput(store, picture, prompt);
    if (!input || picture === null) continue;
    inputs.push(input.id);
    const owned = isOwned(store, picture, prompt) ? 1 : 0;
    if (owned === input.owned) continue;
    prepared(store, 'UPDATE scope_inputs SET owned = ?, changed = ? WHERE id = ?').run(
      owned,
      nextChange(store),
      input.id,
    );
  }
  return inputs;
}

/** Which edit acts, by scored matches of which only the best by key count; undefined when one of those was not scored. */
export function actorOf(
  scope: KnownScope,
  committed: number,
  matches: readonly KeptMatch[],
): number | null | undefined {
  return decisionOf(scope, committed, matches)?.acting?.edit ?? (isScored(scope, matches) ? null : undefined);
}

export function isScored({ candidates }: KnownScope, matches: readonly KeptMatch[]): boolean {
  return matches
    .toSorted(byProduct)
    .slice(0, candidates)
    .every(({ score }) => score !== null);
}

/** The decision on scored matches; null when one of the best was not scored. */
export function decisionOf(
  scope: KnownScope,
  committed: number,
  matches: readonly KeptMatch[],
): Decision | null {
  const best = matches.toSorted(byProduct).slice(0, scope.candidates);
  const scored: Match[] = [];
  for (const { edit, reach, product, score } of best) {
    if (score === null) return null;
    scored.push({ edit, reach, similarity: similarityOf(product), score });
  }
  return judge(scope, committed, scored);
}

/** A change of what the engine holds of inputs in memory gets the next number. */
export function nextChange(store: Store): number {
  return prepared<[], { next: number }>(
    store,
    'SELECT coalesce(max(changed), 0) + 1 AS next FROM scope_inputs',
  ).get()!.next;
}

function insertMatch(store: Store, input: number, { edit, reach, product, score }: KeptMatch): void {
  prepared(
    store,
    'INSERT OR REPLACE INTO scope_matches (input, edit, reach, product, score) VALUES (?, ?, ?, ?, ?)',
  ).run(input, edit, reach, product, score);
}

function removeMatch(store: Store, input: number, edit: number): void {
  prepared(store, 'DELETE FROM scope_matches WHERE input = ? AND edit = ?').run(input, edit);
}

/** Whether a committed edit has this input among its probes. */
function isOwned(store: Store, picture: string, prompt: string): boolean {
  const { model, adapter } = store.actors;
  const acts = `stage = 'committed' AND model = ? AND adapter = ?`;
  return (
    prepared(
      store,
      `SELECT 1 FROM edits WHERE picture = ? AND prompt = ? AND ${acts}
         UNION ALL SELECT 1 FROM probes JOIN edits ON edits.id = probes.edit
           WHERE probes.picture = ? AND probes.prompt = ? AND ${acts} LIMIT 1`,
    ).get(picture, prompt, model, adapter, picture, prompt, model, adapter) !== undefined
  );
}

const bytesOf = (key: Int8Array): Uint8Array => new Uint8Array(key.buffer, key.byteOffset, key.byteLength);

const scopeCandidates = (store: Store): number => scopeOf(store)?.candidates ?? 0;
