/**
 * @file A check decided from what the scope compared: which edit acts on each of its inputs, in the library and with the edit; and on
 * which probes of committed edits that differs. Nothing else can change, and is not asked.
 */
import { createHash } from 'node:crypto';
import type { ProbeResult, Routing } from '../api/contract.ts';
import type { Decision } from '../editors/scope/scope.ts';
import { EmendError } from '../errors.ts';
import { probePasses } from '../evaluation/exactMatch.ts';
import { readAnswer } from './answers.ts';
import { type CheckPlan, driftOf } from './checks.ts';
import { prepared, type Store } from './database.ts';
import { signalState } from './freshness.ts';
import { allCommittedProbes, committedProbesAt, countCommittedProbes, type PlannedProbe } from './probes.ts';
import { committedIds } from './reader.ts';
import { editRow } from './rows.ts';
import { decisionOf, findInput, type InputRow, inputRow, inputsNear, matchesOf } from './scopeInputs.ts';
import { committedCount, type KnownScope, scopeOf } from './scopes.ts';
import { type Comparison, crossing, matchesWith, type NewWatch, type Pair, sizeWith } from './watched.ts';

/** A probe of a check and the edits that act on it. */
export interface DecidedProbe extends PlannedProbe {
  readonly acting: ProbeResult['acting'];
  /** all that act, together */
  readonly actors: Readonly<Record<'before' | 'after', readonly number[]>>;
  /** the decision with the edit; null for inputs no edit can act on */
  readonly routing: Routing | null;
}

export interface DecidedCheck {
  readonly probes: readonly DecidedProbe[];
  /** probes of committed edits whose answers cannot change */
  readonly unchanged: number;
  readonly watched: readonly NewWatch[];
}

/** Matches told with a row of a check, so that a library of thousands stays small. */
const TOLD_MATCHES = 3;

/** What a check decides of one input. */
interface DecidedInput {
  readonly acting: ProbeResult['acting'];
  readonly routing: Routing;
  readonly watched: NewWatch;
}

/**
 * Decides a planned check. `comparison`: of its edit with every input of the plan and with all probes of committed edits.
 * @throws EmendError 'conflict' when the library changed meanwhile: plan again
 */
export function decideCheck(store: Store, plan: CheckPlan, comparison: Comparison): DecidedCheck {
  const { probes, ...decided } = decideRouted(store, plan, comparison);
  const actors = (acting: number | null) => (acting === null ? [] : [acting]);
  return {
    ...decided,
    probes: probes.map((probe) => {
      const { before, after } = probe.acting;
      return { ...probe, actors: { before: actors(before), after: actors(after) } };
    }),
  };
}

/**
 * A check where all committed edits act on every input: each of its probes, and every probe of every committed edit, may change, so all
 * are asked of the library as it is, and with the edit.
 */
export function decideEverywhere(store: Store, { edit, supersede, probes }: CheckPlan): DecidedCheck {
  const { ids } = committedIds(store);
  const kept = ids.filter((id) => id !== supersede && id !== edit.id);
  const actors = { before: ids, after: edit.stage === 'committed' ? ids : [...kept, edit.id] };
  const acting = { before: ids.length === 1 ? ids[0]! : null, after: edit.id };
  const committed = kept.flatMap((owner) => allCommittedProbes(store, edit, owner));
  return {
    probes: [...probes, ...committed].map((planned) => ({ ...planned, acting, actors, routing: null })),
    unchanged: 0,
    watched: [],
  };
}

interface RoutedCheck extends Omit<DecidedCheck, 'probes'> {
  readonly probes: ReadonlyArray<Omit<DecidedProbe, 'actors'>>;
}

function decideRouted(store: Store, plan: CheckPlan, comparison: Comparison): RoutedCheck {
  const scope = scopeOf(store);
  if (!scope) throw new EmendError('conflict', 'No adapter is open, so no edit can act.');
  const pairs = new Map(comparison.pairs.map((pair) => [pair.input, pair]));
  const decide = deciderOf(store, scope, plan, pairs);
  const asked = new Map<number, NewWatch>();
  const probes: Array<Omit<DecidedProbe, 'actors'>> = [];
  for (const planned of plan.probes) {
    const { picture, prompt } = planned.probe;
    const input = picture === null ? null : findInput(store, picture, prompt);
    if (!input) {
      probes.push({ ...planned, acting: { before: null, after: null }, routing: null });
      continue;
    }
    const { acting, routing, watched } = decide(input);
    probes.push({ ...planned, acting, routing });
    asked.set(input.id, { ...watched, asked: true });
  }

  const near: NewWatch[] = [];
  const committed: Array<Omit<DecidedProbe, 'actors'>> = [];
  const count = committedCount(store);
  const replaced = plan.supersede === null ? [] : inputsNear(store, plan.supersede);
  for (const id of new Set([...pairs.keys(), ...replaced, ...crossing(store, scope, count, count)])) {
    const input = inputRow(store, id);
    if (input.owned === 0) continue;
    const { acting, routing, watched } = decide(input);
    if (acting.before === acting.after) {
      near.push(watched);
      continue;
    }
    const rows = committedProbesAt(store, plan.edit, inputContent(store, id), plan.supersede);
    committed.push(...rows.map((row) => ({ ...row, acting, routing })));
    if (!asked.has(id)) asked.set(id, { ...watched, asked: true });
  }
  return {
    probes: [...probes, ...committed],
    unchanged: countCommittedProbes(store, plan.edit, plan.supersede) - committed.length,
    watched: [...asked.values(), ...near],
  };
}

function deciderOf(
  store: Store,
  scope: KnownScope,
  { edit, supersede }: CheckPlan,
  pairs: ReadonlyMap<number, Pair>,
): (input: InputRow) => DecidedInput {
  const count = committedCount(store);
  const then = sizeWith(store, count, supersede);
  return (input) => {
    const matches = matchesOf(store, input.id);
    const { product = null, score = null } = pairs.get(input.id) ?? {};
    const before = input.settled === 1 ? decisionOf(scope, count, matches) : null;
    const comer = { edit: edit.id, reach: edit.reach, product, score, supersede };
    const after = decisionOf(scope, then, matchesWith(matches, comer));
    if (!before || !after) {
      throw new EmendError('conflict', 'The library changed while the check was prepared.');
    }
    const acting = { before: before.acting?.edit ?? null, after: after.acting?.edit ?? null };
    return {
      acting,
      routing: routingOf(scope, then, after),
      watched: { input: input.id, asked: false, product, score, ...acting },
    };
  };
}

/** A decision as the contract tells it, in a library of so many committed edits. */
export function routingOf(
  scope: Pick<KnownScope, 'threshold'>,
  committed: number,
  { acting, matches }: Decision,
): Routing {
  const told = matches.slice(0, TOLD_MATCHES).map((match) => {
    const threshold = scope.threshold(committed, match.reach);
    return { ...match, threshold, margin: match.score - threshold };
  });
  const closest = told[0];
  return {
    edit: acting?.edit ?? null,
    closest: closest?.edit ?? null,
    score: closest?.score ?? null,
    threshold: closest?.threshold ?? null,
    margin: closest?.margin ?? null,
    matches: told,
  };
}

function inputContent(store: Store, id: number): { picture: string; prompt: string } {
  return prepared<[number], { picture: string; prompt: string }>(
    store,
    'SELECT picture, prompt FROM scope_inputs WHERE id = ?',
  ).get(id)!;
}

/** An answer that is not known yet, under edits that act together; none: of the unedited model. */
export interface WantedAnswer {
  readonly picture: string | null;
  readonly prompt: string;
  readonly edits: readonly number[];
}

/** The answers a decided check needs and the library does not know, each once. */
export function wantedAnswers(store: Store, probes: readonly DecidedProbe[]): WantedAnswer[] {
  const wanted = new Map<string, WantedAnswer>();
  for (const { probe, actors } of probes) {
    const { picture, prompt } = probe;
    for (const edits of [[], actors.before, actors.after]) {
      const key = JSON.stringify([picture, prompt, edits]);
      if (wanted.has(key) || knownAnswer(store, { picture, prompt, edits }) !== null) continue;
      wanted.set(key, { picture, prompt, edits });
    }
  }
  return [...wanted.values()];
}

/** Names the signals under which an answer was given; '' for the unedited model. */
export function signalName(store: Store, edits: readonly number[]): string {
  const states = edits.map((edit) => signalState(store, editRow(store, edit)));
  if (states.length < 2) return states[0] ?? '';
  return createHash('sha256').update(states.join()).digest('hex');
}

export function knownAnswer(store: Store, { picture, prompt, edits }: WantedAnswer): string | null {
  return readAnswer(store, picture ?? '', prompt, signalName(store, edits));
}

/**
 * A probe with its three answers. What must change passes with its target, what must stay with the library's answer of now.
 * @throws EmendError 'internal' while one is not known
 */
export function resultOf(store: Store, { probe, owner, acting, actors, routing }: DecidedProbe): ProbeResult {
  const answer = (edits: readonly number[]): string => {
    const known = knownAnswer(store, { picture: probe.picture, prompt: probe.prompt, edits });
    if (known === null) throw new EmendError('internal', `“${probe.prompt}” was not answered.`);
    return known;
  };
  const unedited = answer([]);
  const before = answer(actors.before);
  const after = answer(actors.after);
  return {
    ...{ probe, owner, unedited, before, after, acting },
    drift: driftOf({
      ...{ expected: probe.expected, kind: probe.kind, unedited, before, acting },
      together: actors.before.length > 1,
    }),
    passes: probePasses(probe.expected, before, after),
    routing,
  };
}
