/**
 * @file Checks: planned on the state of the library, decided by what the scope compared, recorded with it, read back with their freshness.
 */
import type { z } from 'zod';
import type { Check as CheckShape, Finding, Probe, ProbeResult, Routing } from '../api/contract.ts';
import { EmendError } from '../errors.ts';
import { sameAnswer } from '../evaluation/exactMatch.ts';
import { now, parseStored, prepared, type Store } from './database.ts';
import { keepState, latestCheckOf, reviewFreshness, signalState, stateFingerprint } from './freshness.ts';
import { remember } from './history.ts';
import { demandDraft, type PlannedProbe, probesOf } from './probes.ts';
import { type EditRow, editRow } from './rows.ts';
import { commitChanges } from './scopes.ts';
import { type CheckPolicy, readSettings } from './settings.ts';
import { bindToActors } from './signals.ts';
import { findingOf, type Group, judge } from './verdict.ts';
import { type NewWatch, watch } from './watched.ts';

export type Check = z.infer<typeof CheckShape>;

/** What a check will ask and of which state, taken in one look at the library. Probes of committed edits are added where it matters. */
export interface CheckPlan {
  readonly edit: EditRow;
  /** the committed edit it is to replace: neither it nor its probes count */
  readonly supersede: number | null;
  readonly probes: readonly PlannedProbe[];
  readonly policy: CheckPolicy;
  readonly maxNewTokens: number;
  readonly fingerprint: string;
  readonly signalState: string;
  /** how often the set of committed edits had changed */
  readonly commits: number;
}

export interface CheckOutcome {
  readonly results: readonly ProbeResult[];
  /** probes of committed edits that the edit cannot change */
  readonly unchanged: number;
  /** whether all committed edits act on every input, so that every probe was asked */
  readonly everywhere: boolean;
  /** the inputs it rests on */
  readonly watched: readonly NewWatch[];
  readonly seconds: number;
  /** the editor's name, as its adapter gives it */
  readonly editor: string;
}

/**
 * `supersede`: as the library would be without that committed edit, which is to be retired when this one is committed.
 * @throws EmendError 'not-found', 'conflict' for an edit that is committed or retired, and for one to replace that is not committed
 */
export function planCheck(store: Store, id: number, supersede: number | null = null): CheckPlan {
  return store.read(() => {
    const edit = editRow(store, id);
    demandDraft(edit, 'Its probes are watched by every new check.');
    if (supersede !== null) demandCommitted(store, supersede);
    return planOf(store, edit, supersede);
  });
}

/** @throws EmendError 'not-found', 'conflict' for an edit that is not committed, so that none can take its place */
export function demandCommitted(store: Store, id: number): void {
  if (editRow(store, id).stage === 'committed') return;
  throw new EmendError('conflict', `Edit ${id} is not committed, so it cannot be superseded.`);
}

/** As `planCheck`, for an edit of any stage. */
export function planOf(store: Store, edit: EditRow, supersede: number | null = null): CheckPlan {
  const { policy, maxNewTokens } = readSettings(store);
  return {
    edit,
    supersede,
    probes: probesOf(store, edit),
    policy,
    maxNewTokens,
    fingerprint: stateFingerprint(store, edit),
    signalState: signalState(store, edit),
    commits: commitChanges(store),
  };
}

/**
 * Keeps a finished check. If the library changed while it ran, the check is stale at once: its fingerprint and its count of commits
 * are those of the plan.
 */
export function recordCheck(store: Store, plan: CheckPlan, outcome: CheckOutcome): Check {
  return store.write(() => {
    const { results, unchanged } = outcome;
    const { groups, verdict } = judge(results, plan.policy, outcome.editor, unchanged);
    const finding = findingOf(plan.edit.id, results, groups);
    const id = insertCheck(store, plan, outcome, { groups, verdict, finding });
    insertResults(store, id, results);
    watch(store, plan.edit.id, outcome.watched);
    const edit = editRow(store, plan.edit.id);
    if (signalState(store, edit) === plan.signalState) keepAnswer(store, edit, results);
    reviewFreshness(store, [edit.id]);
    rememberCheck(store, edit.id, verdict, groups);
    return latestCheck(store, edit)!;
  });
}

interface Judged {
  readonly groups: readonly Group[];
  readonly verdict: Check['verdict'];
  readonly finding: Finding;
}

function insertCheck(
  store: Store,
  plan: CheckPlan,
  { seconds, unchanged, everywhere }: CheckOutcome,
  { groups, verdict, finding }: Judged,
): number {
  const overtaken = commitChanges(store) === plan.commits ? 0 : 1;
  const { lastInsertRowid } = prepared(
    store,
    `INSERT INTO checks (edit, finished, seconds, verdict, fingerprint, state, groups, commits, overtaken, unchanged, everywhere, finding,
       finding_edit, supersede)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
  ).run(
    ...[plan.edit.id, now(), seconds, verdict, plan.fingerprint, keepState(store, plan.fingerprint)],
    ...[JSON.stringify(groups), plan.commits, overtaken, unchanged, everywhere ? 1 : 0],
    ...[finding.kind, finding.edit, plan.supersede],
  );
  return Number(lastInsertRowid);
}

function insertResults(store: Store, check: number, results: readonly ProbeResult[]): void {
  const insert = prepared(
    store,
    `INSERT INTO check_results ("check", position, probe, probe_edit, kind, picture, prompt, expected, owner,
       unedited, before, after, acted_before, acted_after, passes, routing)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
  );
  for (const [position, result] of results.entries()) {
    const { probe, owner, unedited, before, after, acting, passes, routing } = result;
    insert.run(
      ...[check, position, probe.id, probe.edit, probe.kind, probe.picture, probe.prompt, probe.expected],
      ...[owner, unedited, before, after, acting.before, acting.after, passes ? 1 : 0],
      routing && JSON.stringify(routing),
    );
  }
}

/** The edit's own answer as the check found it, in the edit. */
function keepAnswer(store: Store, edit: EditRow, results: readonly ProbeResult[]): void {
  const itself = results.find((result) => result.probe.kind === 'reliability');
  prepared(store, 'UPDATE edits SET after = ?, updated = ? WHERE id = ?').run(
    itself?.after ?? edit.after,
    now(),
    edit.id,
  );
  bindToActors(store, edit);
}

function rememberCheck(
  store: Store,
  edit: number,
  verdict: Check['verdict'],
  groups: readonly Group[],
): void {
  const failing = groups.filter((group) => !group.passes).map((group) => group.kind);
  const sum = (of: 'passed' | 'total') => groups.reduce((count, group) => count + group[of], 0);
  const shortIn = failing.length ? `; short in ${failing.join(', ')}` : '';
  const detail = `Check ${verdict}: ${sum('passed')} of ${sum('total')} probes passed${shortIn}.`;
  remember(store, edit, 'checked', detail);
}

interface CheckRow {
  readonly id: number;
  readonly finished: string;
  readonly seconds: number;
  readonly verdict: Check['verdict'];
  readonly groups: string;
  readonly unchanged: number;
  readonly everywhere: number;
  readonly finding: Finding['kind'] | null;
  readonly findingEdit: number | null;
  readonly supersede: number | null;
}

interface ResultRow {
  readonly probe: number;
  readonly probeEdit: number | null;
  readonly kind: Probe['kind'];
  readonly picture: string | null;
  readonly prompt: string;
  readonly expected: string | null;
  readonly owner: number | null;
  readonly unedited: string | null;
  readonly before: string;
  readonly after: string;
  readonly actedBefore: number | null;
  readonly actedAfter: number | null;
  readonly passes: number;
  readonly routing: string | null;
}

/** The latest check of an edit, null before there is one. */
export function latestCheck(store: Store, edit: EditRow): Check | null {
  const latest = latestCheckOf(store, edit.id);
  if (!latest) return null;
  const row = prepared<[number], CheckRow>(
    store,
    'SELECT id, finished, seconds, verdict, groups, unchanged, everywhere, finding, finding_edit AS findingEdit, supersede FROM checks WHERE id = ?',
  ).get(latest.id)!;
  const { groups, everywhere, finding, findingEdit, ...told } = row;
  const where = `check ${row.id}`;
  const staleBecause = [...latest.staleBecause];
  return {
    ...told,
    edit: edit.id,
    everywhere: everywhere === 1,
    fresh: staleBecause.length === 0,
    staleBecause,
    staleBy: [...latest.staleBy],
    // Checks of before did not say.
    finding: { kind: finding ?? (row.verdict === 'passes' ? 'holds' : 'fails'), edit: findingEdit },
    groups: parseStored<Group[]>(groups, where),
    results: resultsOf(store, row.id, everywhere === 1),
  };
}

function resultsOf(store: Store, check: number, together: boolean): ProbeResult[] {
  return prepared<[number], ResultRow>(
    store,
    `SELECT probe, probe_edit AS probeEdit, kind, picture, prompt, expected, owner, unedited, before, after,
         acted_before AS actedBefore, acted_after AS actedAfter, passes, routing
       FROM check_results WHERE "check" = ? ORDER BY position`,
  )
    .all(check)
    .map(({ kind, picture, prompt, expected, owner, before, after, ...result }): ProbeResult => {
      const unedited = result.unedited ?? before;
      const acting = { before: result.actedBefore, after: result.actedAfter };
      return {
        probe: { id: result.probe, edit: result.probeEdit, kind, picture, prompt, expected },
        owner,
        unedited,
        before,
        after,
        acting,
        drift: driftOf({ kind, expected, unedited, before, acting, together }),
        passes: result.passes === 1,
        routing: result.routing === null ? null : parseStored<Routing>(result.routing, `check ${check}`),
      };
    });
}

/**
 * Where what must stay is not answered as by the unedited model, by an edit committed earlier; by which is not known where several act
 * `together`. Probes of committed edits are left out: that is what those edits are for.
 */
export function driftOf({
  kind,
  expected,
  unedited,
  before,
  acting,
  together,
}: Pick<ProbeResult, 'unedited' | 'before' | 'acting'> &
  Pick<Probe, 'kind' | 'expected'> & { readonly together: boolean }): ProbeResult['drift'] {
  const drifted = kind !== 'committed' && expected === null && !sameAnswer(unedited, before);
  return drifted && (together || acting.before !== null) ? { edit: acting.before } : null;
}
