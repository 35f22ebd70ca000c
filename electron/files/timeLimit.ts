/**
 * @file A time limit on work that never yields: patterns and templates that come with a model may have no end.
 */
import { createContext, Script } from 'node:vm';

const context = createContext({ work: undefined as unknown });
const script = new Script('work()');

/** Processor time so far in milliseconds: of this thread; of the whole process, never less, where Node is too old to tell (before 23.9). */
function worked(): number {
  const { user, system } = (process.threadCpuUsage ?? process.cpuUsage).call(process);
  return (user + system) / 1000;
}

/**
 * Runs `work`, which is synchronous and may be run again, and stops it at the limit: loops and backtracking patterns included. For code
 * that is trusted and data that are not.
 * @param milliseconds of processor time, more than anything of good will takes: how busy the machine is does not count
 * @throws what `late` makes, at the limit
 */
export function withinTime<T>(milliseconds: number, late: () => Error, work: () => T): T {
  const began = worked();
  context['work'] = work;
  try {
    // Only a clock can interrupt it. What it stopped while others had the processor is done again, with more time.
    for (let timeout = milliseconds; ; timeout *= 2) {
      try {
        return script.runInContext(context, { timeout }) as T;
      } catch (error) {
        // Not always an Error of this realm.
        if ((error as { code?: unknown } | null)?.code !== 'ERR_SCRIPT_EXECUTION_TIMEOUT') throw error;
        if (worked() - began > 0.9 * milliseconds) throw late();
      }
    }
  } finally {
    context['work'] = undefined;
  }
}
