/**
 * @file Calls that run checks.
 */
import type { EngineProbeResult } from '../../engine/protocol.ts';
import { EmendError } from '../../errors.ts';
import { type CheckPlan, planCheck, recordCheck } from '../../library/checks.ts';
import { readSettings } from '../../library/settings.ts';
import type { ProbeResult } from '../contract.ts';
import { unlessAborted } from '../jobs.ts';
import { type Parts, relay } from '../parts.ts';
import type { HandlersOf } from '../router.ts';

export function checkHandlers(parts: Parts): HandlersOf<'checks'> {
  const { library, engine, session, events } = parts;
  return {
    'checks.run': async ({ edit: id }, { job, signal }) => {
      planCheck(library, id); // an edit that cannot be checked is told before anything is waited for
      await parts.seeded;
      const adapter = await unlessAborted(session.demandAdapter(), signal);
      const plan = await planInStep(parts, id, signal);
      const started = performance.now();
      const bytes = session.pictureReader();
      const relayed = relay(events, job);
      let done = 0;
      const tellProgress = () => {
        const payload = { job, stage: 'Checking', done, total: plan.probes.length, unit: 'probes' };
        events.emit({ name: 'job.progress', payload });
      };
      tellProgress();
      const found = await engine.call(
        'check',
        {
          edit: session.engineEdit(plan, bytes),
          probes: plan.probes.map(({ probe: { kind, picture, prompt, expected } }, key) => {
            return { key, kind, picture: picture === null ? null : bytes(picture), prompt, expected };
          }),
          maxNewTokens: readSettings(library).maxNewTokens,
        },
        {
          signal,
          onStream: (message) => {
            // Probes done are the progress of a check; what the engine counts inside them is not.
            if (message.kind !== 'result') return message.kind === 'progress' ? undefined : relayed(message);
            done += 1;
            events.emit({ name: 'check.result', payload: { job, result: resultOf(plan, message.result) } });
            tellProgress();
          },
        },
      );
      const results = completeResults(plan, found.results);
      signal.throwIfAborted();
      return recordCheck(library, plan, {
        results,
        seconds: (performance.now() - started) / 1000,
        editor: adapter.editor,
        signal: found.signal,
        influence: found.influence,
      });
    },
  };
}

/** Plans a check when exactly the edits it is to run with act in the engine. */
async function planInStep({ library, session }: Parts, id: number, signal: AbortSignal): Promise<CheckPlan> {
  for (;;) {
    await unlessAborted(session.demandActing(), signal);
    const plan = planCheck(library, id);
    if (plan.actingKey === session.acting) return plan;
  }
}

function resultOf(plan: CheckPlan, { key, before, after, passes, routing }: EngineProbeResult): ProbeResult {
  const planned = plan.probes[key];
  if (!planned) throw new EmendError('internal', `The engine answered probe ${key}, which was not asked.`);
  return { ...planned, before, after, passes, routing };
}

/** The results in the order of the plan, one for each probe. */
function completeResults(plan: CheckPlan, results: readonly EngineProbeResult[]): ProbeResult[] {
  const byKey = new Map(results.map((result) => [result.key, result]));
  return plan.probes.map((_, key) => {
    const result = byKey.get(key);
    if (!result) throw new EmendError('internal', `The engine left probe ${key} of the check unanswered.`);
    return resultOf(plan, result);
  });
}
