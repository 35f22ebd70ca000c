/**
 * @file The scope that decides where committed edits act, as the library needs to know it: its thresholds, and which state inputs
 * were described in.
 */
import { createHash } from 'node:crypto';
import { actsEverywhere } from '../editors/scope/everywhere.ts';
import type { Reach, Scope } from '../editors/scope/scope.ts';
import { type Actors, parseStored, prepared, type Store } from './database.ts';

/** Thresholds that hold from a number of committed edits on, until the next step. */
export interface ThresholdStep {
  readonly from: number;
  readonly picture: number;
  readonly thing: number;
}

export interface ScopeFacts {
  readonly fingerprint: string;
  /** how many edits, the best by key, are scored for an input; 0: all act */
  readonly candidates: number;
  /** ascending, the first from 0 */
  readonly thresholds: readonly ThresholdStep[];
}

/** A scope as far as decisions on scored matches go. */
export interface KnownScope extends Pick<Scope, 'threshold' | 'candidates' | 'fingerprint'> {}

/** So many committed edits a step may begin at; larger libraries go by the last. */
const LARGEST = 1 << 20;

/** The steps of a scope's thresholds, found by halving: a threshold never falls as the library grows. */
export function thresholdSteps(scope: Pick<Scope, 'threshold'>): ThresholdStep[] {
  const at = (from: number): ThresholdStep => ({
    from,
    picture: scope.threshold(from, 'picture'),
    thing: scope.threshold(from, 'thing'),
  });
  const same = (a: ThresholdStep, b: ThresholdStep) => a.picture === b.picture && a.thing === b.thing;
  const steps = [at(0)];
  for (;;) {
    const last = steps.at(-1)!;
    let [inside, outside] = [last.from, LARGEST];
    if (same(at(outside), last)) return steps;
    while (outside - inside > 1) {
      const middle = (inside + outside) >> 1;
      if (same(at(middle), last)) inside = middle;
      else outside = middle;
    }
    steps.push(at(outside));
  }
}

/** JSON has no infinities, which are thresholds too. */
const told = (_name: string, value: unknown): unknown =>
  typeof value === 'number' && !Number.isFinite(value) ? String(value) : value;

/** Keeps what the scope of a model and adapter is. Called inside a `write`. */
export function keepScope(
  store: Store,
  { model, adapter }: Actors,
  { fingerprint, candidates, thresholds }: ScopeFacts,
): void {
  prepared(
    store,
    `INSERT INTO scopes (model, adapter, fingerprint, candidates, thresholds) VALUES (?, ?, ?, ?, ?)
       ON CONFLICT DO UPDATE SET fingerprint = excluded.fingerprint, candidates = excluded.candidates, thresholds = excluded.thresholds
       WHERE fingerprint <> excluded.fingerprint`,
  ).run(model, adapter, fingerprint, candidates, JSON.stringify(thresholds, told));
}

/** One parsed scope per open file: decisions ask for it often. */
const known = new WeakMap<Store['database'], { readonly key: string; readonly scope: KnownScope }>();

/** The scope of the model and adapter that act now; null before it was opened with this library. */
export function scopeOf(store: Store): KnownScope | null {
  const { model, adapter } = store.actors;
  const named = prepared<[string, string], { fingerprint: string }>(
    store,
    'SELECT fingerprint FROM scopes WHERE model = ? AND adapter = ?',
  ).get(model, adapter);
  if (!named) return null;
  const key = [model, adapter, named.fingerprint].join();
  const held = known.get(store.database);
  if (held?.key === key) return held.scope;
  const row = prepared<[string, string], { fingerprint: string; candidates: number; thresholds: string }>(
    store,
    'SELECT fingerprint, candidates, thresholds FROM scopes WHERE model = ? AND adapter = ?',
  ).get(model, adapter)!;
  const steps = parseStored<Array<Record<keyof ThresholdStep, number | string>>>(
    row.thresholds,
    'the scope of its adapter',
  ).map(({ from, picture, thing }): ThresholdStep => {
    return { from: Number(from), picture: Number(picture), thing: Number(thing) };
  });
  const scope: KnownScope = {
    fingerprint: row.fingerprint,
    candidates: row.candidates,
    threshold: (committed, reach) => stepAt(steps, committed)[reach],
  };
  known.set(store.database, { key, scope });
  return scope;
}

function stepAt(steps: readonly ThresholdStep[], committed: number): Record<Reach, number> {
  let [low, high] = [0, steps.length];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (steps[middle]!.from <= committed) low = middle;
    else high = middle;
  }
  return steps[low] ?? { picture: Number.POSITIVE_INFINITY, thing: Number.POSITIVE_INFINITY };
}

const short = (...parts: readonly unknown[]): string =>
  createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 16);

/** Names what descriptions of inputs and their matches depend on; null without a scope. */
export function inputState(store: Store): string | null {
  const scope = scopeOf(store);
  const { model, adapter } = store.actors;
  return scope && short(model, adapter, scope.fingerprint, store.template);
}

/** Names what an answer depends on beside input and signal. */
export function answerState(store: Store, maxNewTokens: number): string {
  return short(store.actors.model, store.template, maxNewTokens);
}

/** Whether all committed edits act on every input, so that nothing is compared. */
export function allAct(store: Store): boolean {
  const scope = scopeOf(store);
  return scope !== null && actsEverywhere(scope);
}

/** How many committed edits act. */
export function committedCount(store: Store): number {
  return prepared<[string, string], { count: number }>(
    store,
    `SELECT count(*) AS count FROM edits WHERE stage = 'committed' AND model = ? AND adapter = ?`,
  ).get(store.actors.model, store.actors.adapter)!.count;
}

/** Goes up whenever the set of committed edits changes. */
export function commitChanges(store: Store): number {
  return prepared<[], { changes: number }>(store, 'SELECT changes FROM commit_count').get()!.changes;
}
