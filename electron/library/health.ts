/**
 * @file Committed edits checked again, against whatever model and adapter are open: kept, and listed by outcome.
 */
import type { Health, HealthOutcome, ProbeResult } from '../api/contract.ts';
import { EmendError } from '../errors.ts';
import { sameAnswer } from '../evaluation/exactMatch.ts';
import { now, type Store } from './database.ts';
import { editRow, mustChange } from './rows.ts';
import type { CheckPolicy } from './settings.ts';

/** Answers of one of a committed edit's own probes. */
export type HealthRow = Pick<ProbeResult, 'probe' | 'unedited' | 'after' | 'acting'>;

/**
 * The given edits, which must be committed, or all that are, for whatever model they were made.
 * @throws EmendError 'not-found', 'conflict'
 */
export function demandCommitted(store: Store, edits?: readonly number[]): number[] {
  if (!edits) {
    return store.database
      .prepare<[], { id: number }>(`SELECT id FROM edits WHERE stage = 'committed' ORDER BY id`)
      .all()
      .map(({ id }) => id);
  }
  for (const id of edits) {
    if (editRow(store, id).stage !== 'committed')
      throw new EmendError('conflict', `Edit ${id} is not committed. Check it as a draft.`);
  }
  return [...new Set(edits)];
}

/**
 * What a committed edit's own probes come to: not needed where the unedited model answers all that must change as the edit wants it;
 * it holds where what must change is answered so as the policy asks, and the edit changes nothing that must stay.
 */
export function healthOf(
  edit: number,
  rows: readonly HealthRow[],
  policy: CheckPolicy,
): { outcome: HealthOutcome; passed: number } {
  const change = rows.filter(({ probe }) => mustChange.has(probe.kind));
  if (change.every(({ probe, unedited }) => sameAnswer(unedited, probe.expected!))) {
    return { outcome: 'not-needed', passed: rows.filter((row) => passes(edit, row)).length };
  }
  const kinds = new Set(rows.map(({ probe }) => probe.kind));
  const holds = [...kinds].every((kind) => {
    const ofKind = rows.filter(({ probe }) => probe.kind === kind);
    const passed = ofKind.filter((row) => passes(edit, row)).length;
    return passed >= ofKind.length * policy.required[kind] - 1e-9;
  });
  return {
    outcome: holds ? 'holds' : 'needs-work',
    passed: rows.filter((row) => passes(edit, row)).length,
  };
}

/** What another edit does to a probe that must stay is that edit's matter. */
function passes(edit: number, { probe, unedited, after, acting }: HealthRow): boolean {
  if (probe.expected !== null) return sameAnswer(after, probe.expected);
  return acting.after !== edit || sameAnswer(after, unedited);
}

/** Keeps what was found of an edit under the open model and adapter; what was found before goes. */
export function recordHealth(
  store: Store,
  edit: number,
  rows: readonly HealthRow[],
  policy: CheckPolicy,
): Health {
  const { model, adapter } = store.actors;
  const itself = rows.find(({ probe }) => probe.kind === 'reliability')!;
  const { outcome, passed } = healthOf(edit, rows, policy);
  const health: Health = {
    ...{ edit, model, adapter, finished: now(), outcome, passed, total: rows.length },
    ...{ unedited: itself.unedited, answer: itself.after },
  };
  store.write(() =>
    store.database
      .prepare(
        `INSERT OR REPLACE INTO health (edit, model, adapter, finished, outcome, unedited, answer, passed, total)
         VALUES (@edit, @model, @adapter, @finished, @outcome, @unedited, @answer, @passed, @total)`,
      )
      .run(health),
  );
  return health;
}

/** What was found last of committed edits under the open model and adapter, by edit; and how many of each outcome. */
export function listHealth(
  store: Store,
  { outcome, offset = 0, limit = 1000 }: { outcome?: HealthOutcome[]; offset?: number; limit?: number },
): { results: Health[]; counts: Record<HealthOutcome, number> } {
  const { model, adapter } = store.actors;
  const of = `FROM health JOIN edits ON edits.id = health.edit
    WHERE stage = 'committed' AND health.model = ? AND health.adapter = ?`;
  return store.read(() => {
    const counts = { holds: 0, 'not-needed': 0, 'needs-work': 0 };
    const counted = store.database
      .prepare<[string, string], { outcome: HealthOutcome; count: number }>(
        `SELECT outcome, count(*) AS count ${of} GROUP BY outcome`,
      )
      .all(model, adapter);
    for (const { outcome: kind, count } of counted) counts[kind] = count;
    const wanted = JSON.stringify(outcome ?? Object.keys(counts));
    const results = store.database
      .prepare<unknown[], Health>(
        `SELECT edit, health.model, health.adapter, finished, outcome, unedited, answer, passed, total ${of}
         AND outcome IN (SELECT value FROM json_each(?)) ORDER BY edit LIMIT ? OFFSET ?`,
      )
      .all(model, adapter, wanted, limit, offset);
    return { results, counts };
  });
}
