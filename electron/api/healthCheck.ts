/**
 * @file A committed edit checked again, against the open model and adapter, be they its own or others.
 */
import { planOf } from '../library/checks.ts';
import { recordHealth } from '../library/health.ts';
import { type DecidedProbe, resultOf, wantedAnswers } from '../library/localCheck.ts';
import { editRow } from '../library/rows.ts';
import { allAct } from '../library/scopes.ts';
import { ask, type CheckListener, decide, isCurrent } from './checking.ts';
import type { Health } from './contract.ts';
import type { Parts } from './parts.ts';

/** Asks an edit's own probes of the unedited model and with the edit, and keeps what that comes to. */
export async function checkHealth(parts: Parts, id: number, listener: CheckListener): Promise<Health> {
  const { library, session } = parts;
  for (;;) {
    await session.demandSettled(listener.signal);
    const whole = planOf(library, editRow(library, id));
    const plan = { ...whole, probes: whole.probes.filter(({ probe }) => probe.edit === id) };
    const decided = await decide(parts, plan, listener);
    if (!decided) continue;
    const { stage, model, adapter } = plan.edit;
    const actsNow =
      stage === 'committed' && model === library.actors.model && adapter === library.actors.adapter;
    const own = decided.probes
      .filter(({ probe, owner }) => owner === null && probe.edit === id)
      // One that acts is asked as the library acts now.
      .map((row) => (actsNow && !allAct(library) ? asItActs(row) : row));
    await ask(parts, wantedAnswers(library, own), plan.maxNewTokens, listener);
    if (!isCurrent(parts, plan)) continue;
    const rows = own.map((probe) => resultOf(library, probe));
    return recordHealth(library, id, rows, plan.policy);
  }
}

/** A probe of an edit that acts, as the library answers it. */
function asItActs({ acting: { before }, actors, ...row }: DecidedProbe): DecidedProbe {
  return {
    ...row,
    acting: { before, after: before },
    actors: { before: actors.before, after: actors.before },
  };
}
