/**
 * @file Calls that run checks: of one draft, of a set of drafts, and of committed edits again.
 */
import { EmendError } from '../../errors.ts';
import { planCheck } from '../../library/checks.ts';
import { demandCommitted, listHealth } from '../../library/health.ts';
import { selectedEdits } from '../../library/lists.ts';
import { type CheckListener, runCheck } from '../checking.ts';
import type { Health, SetResult } from '../contract.ts';
import { checkHealth } from '../healthCheck.ts';
import { unlessAborted } from '../jobs.ts';
import type { Parts } from '../parts.ts';
import { type HandlersOf, wireError } from '../router.ts';
import { disturbingPairs } from '../setCheck.ts';

export function checkHandlers(parts: Parts): HandlersOf<'checks'> {
  const { library, session, events } = parts;
  return {
    'checks.run': async ({ edit, supersede = null }, { job, signal, report }) => {
      planCheck(library, edit, supersede); // an edit that cannot be checked is told before anything is waited for
      await parts.seeded;
      await unlessAborted(session.demandAdapter(), signal);
      const progress = progressOf(events, job);
      const listener: CheckListener = {
        signal,
        progress: (done, total) => progress('Checking', done, total, 'inputs'),
        making: (done, total) => progress('Making the edit', done, total, 'steps'),
        result: (result) => events.emit({ name: 'check.result', payload: { job, result } }),
      };
      const check = await runCheck(parts, edit, listener, supersede);
      report.outcome(`The check of edit ${edit} ${check.verdict}.`);
      return check;
    },

    'checks.runSet': async ({ select }, { job, signal, report }) => {
      const ids = library.read(() => selectedEdits(library, select));
      await parts.seeded;
      await unlessAborted(session.demandAdapter(), signal);
      const started = performance.now();
      const progress = progressOf(events, job);
      const results: SetResult[] = [];
      for (const [done, edit] of ids.entries()) {
        progress('Checking', done, ids.length, 'edits');
        const result = await checkOne(parts, edit, { signal, progress: () => undefined });
        results.push(result);
        events.emit({ name: 'check.finished', payload: { job, result } });
      }
      const checked = results.filter(({ verdict }) => verdict !== null).map(({ edit }) => edit);
      progress('Comparing the edits with each other', ids.length, ids.length, 'edits');
      const pairs = await disturbingPairs(parts, checked, { signal, progress: () => undefined });
      const passed = results.filter(({ verdict }) => verdict === 'passes').length;
      report.outcome(`${passed} of ${ids.length} checks pass; ${pairs.length} pairs disturb each other.`);
      return { results, pairs, seconds: (performance.now() - started) / 1000 };
    },

    'checks.health': async ({ select }, { job, signal, report }) => {
      const ids = library.read(() => demandCommitted(library, select && selectedEdits(library, select)));
      await unlessAborted(session.demandAdapter(), signal);
      const started = performance.now();
      const progress = progressOf(events, job);
      const results: Health[] = [];
      for (const [done, edit] of ids.entries()) {
        progress('Checking again', done, ids.length, 'edits');
        const result = await checkHealth(parts, edit, { signal, progress: () => undefined });
        results.push(result);
        events.emit({ name: 'health.result', payload: { job, result } });
      }
      const count = (outcome: Health['outcome']) => results.filter((one) => one.outcome === outcome).length;
      report.outcome(
        `${count('holds')} hold, ${count('not-needed')} are no longer needed, ${count('needs-work')} need work.`,
      );
      return { results, seconds: (performance.now() - started) / 1000 };
    },

    'checks.healthList': (filter) => listHealth(library, filter),
  };
}

const progressOf =
  (events: Parts['events'], job: string) =>
  (stage: string, done: number, total: number, unit: string): void =>
    events.emit({ name: 'job.progress', payload: { job, stage, done, total, unit } });

/** One edit of a set: what is wrong with it does not stop the others, but for what stops them all. */
async function checkOne(parts: Parts, edit: number, listener: CheckListener): Promise<SetResult> {
  try {
    const { verdict, finding } = await runCheck(parts, edit, listener);
    return { edit, verdict, finding, error: null };
  } catch (error) {
    const stopsAll =
      !(error instanceof EmendError) || !['not-found', 'conflict', 'damaged'].includes(error.code);
    if (listener.signal.aborted || stopsAll) throw error;
    return { edit, verdict: null, finding: null, error: wireError(error).message };
  }
}
