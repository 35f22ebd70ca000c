/**
 * @file Checks: planned on the state of the library, recorded with it, read back with their freshness.
 */
import type { z } from 'zod';
import type {
  Check as CheckShape,
  InfluenceMap,
  Probe,
  ProbeResult,
  Routing,
  StaleReason,
} from '../api/contract.ts';
import { now, parseStored, type Store } from './database.ts';
import { actingKey, refreshFreshness, signalState, stateFingerprint } from './freshness.ts';
import { remember } from './history.ts';
import { demandDraft, type PlannedProbe, probesOf } from './probes.ts';
import { type EditRow, editRow } from './rows.ts';
import { type CheckPolicy, readSettings } from './settings.ts';
import { bindToActors, keepSignal, signalOf } from './signals.ts';
import { type Group, judge } from './verdict.ts';

export type Check = z.infer<typeof CheckShape>;

/** What a check will ask and of which state, taken in one look at the library. */
export interface CheckPlan {
  readonly edit: EditRow;
  readonly probes: readonly PlannedProbe[];
  readonly policy: CheckPolicy;
  readonly fingerprint: string;
  readonly signalState: string;
  readonly signal: Uint8Array | null;
  /** names the committed edits the check is to run with */
  readonly actingKey: string;
}

export interface CheckOutcome {
  /** one for each probe of the plan */
  readonly results: readonly ProbeResult[];
  readonly seconds: number;
  /** the editor's name, as its adapter gives it */
  readonly editor: string;
  readonly signal: Uint8Array;
  readonly influence: InfluenceMap;
}

/** @throws EmendError 'not-found', 'conflict' for an edit that is committed or retired */
export function planCheck(store: Store, id: number): CheckPlan {
  return store.read(() => {
    const edit = editRow(store, id);
    demandDraft(edit, 'Its probes are replayed by every new check.');
    return {
      edit,
      probes: probesOf(store, edit),
      policy: readSettings(store).policy,
      fingerprint: stateFingerprint(store, edit),
      signalState: signalState(store, edit),
      signal: signalOf(store, edit),
      actingKey: actingKey(store),
    };
  });
}

/**
 * Keeps a finished check, with the edit signal and the influence map it computed. If the library changed while it ran,
 * the check is stale at once: its fingerprint is that of the plan.
 */
export function recordCheck(store: Store, plan: CheckPlan, outcome: CheckOutcome): Check {
  return store.write(() => {
    const { groups, verdict } = judge(outcome.results, plan.policy, outcome.editor);
    const { lastInsertRowid } = store.database
      .prepare(
        'INSERT INTO checks (edit, finished, seconds, verdict, fingerprint, groups) VALUES (?, ?, ?, ?, ?, ?)',
      )
      .run(plan.edit.id, now(), outcome.seconds, verdict, plan.fingerprint, JSON.stringify(groups));
    const insert = store.database.prepare(
      `INSERT INTO check_results ("check", position, probe, probe_edit, kind, picture, prompt, expected, owner, before, after, passes, routing)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    );
    for (const [position, { probe, owner, before, after, passes, routing }] of outcome.results.entries()) {
      const told = routing && JSON.stringify(routing);
      insert.run(
        ...[lastInsertRowid, position, probe.id, probe.edit, probe.kind, probe.picture, probe.prompt],
        ...[probe.expected, owner, before, after, passes ? 1 : 0, told],
      );
    }
    const edit = editRow(store, plan.edit.id);
    if (signalState(store, edit) === plan.signalState) {
      keepSignal(store, edit.id, plan.signalState, outcome.signal, outcome.influence);
      const itself = outcome.results.find((result) => result.probe.kind === 'reliability');
      store.database
        .prepare('UPDATE edits SET after = ?, updated = ? WHERE id = ?')
        .run(itself?.after ?? edit.after, now(), edit.id);
      bindToActors(store, edit);
    }
    const failing = groups.filter((group) => !group.passes).map((group) => group.kind);
    const passed = outcome.results.filter((result) => result.passes).length;
    const detail = `Check ${verdict}: ${passed} of ${outcome.results.length} probes passed${failing.length ? `; short in ${failing.join(', ')}` : ''}.`;
    remember(store, edit.id, 'checked', detail);
    refreshFreshness(store);
    return latestCheck(store, edit)!;
  });
}

interface CheckRow {
  readonly id: number;
  readonly finished: string;
  readonly seconds: number;
  readonly verdict: Check['verdict'];
  readonly staleBecause: string;
  readonly groups: string;
}

interface ResultRow {
  readonly probe: number;
  readonly probeEdit: number | null;
  readonly kind: Probe['kind'];
  readonly picture: string | null;
  readonly prompt: string;
  readonly expected: string | null;
  readonly owner: number | null;
  readonly before: string;
  readonly after: string;
  readonly passes: number;
  readonly routing: string | null;
}

/** The latest check of an edit, null before there is one. */
export function latestCheck(store: Store, edit: EditRow): Check | null {
  const row = store.database
    .prepare<[number], CheckRow>(
      `SELECT id, finished, seconds, verdict, stale_because AS staleBecause, groups
       FROM checks WHERE id = (SELECT last_check FROM edits WHERE id = ?)`,
    )
    .get(edit.id);
  if (!row) return null;
  const results = store.database
    .prepare<[number], ResultRow>(
      `SELECT probe, probe_edit AS probeEdit, kind, picture, prompt, expected, owner, before, after, passes, routing
       FROM check_results WHERE "check" = ? ORDER BY position`,
    )
    .all(row.id)
    .map(
      ({ kind, picture, prompt, expected, owner, before, after, ...result }): ProbeResult => ({
        probe: { id: result.probe, edit: result.probeEdit, kind, picture, prompt, expected },
        owner,
        before,
        after,
        passes: result.passes === 1,
        routing: result.routing === null ? null : parseStored<Routing>(result.routing, `check ${row.id}`),
      }),
    );
  const { groups, ...told } = row;
  const staleBecause = parseStored<StaleReason[]>(row.staleBecause, `check ${row.id}`);
  return {
    ...told,
    edit: edit.id,
    fresh: staleBecause.length === 0,
    staleBecause,
    groups: parseStored<Group[]>(groups, `check ${row.id}`),
    results,
  };
}
