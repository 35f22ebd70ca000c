/**
 * @file A time limit on work that never yields: patterns and templates that come with a model may have no end.
 */
import { createContext, Script } from 'node:vm';

const context = createContext({ work: undefined as unknown });
const script = new Script('work()');

/**
 * Runs `work`, which is synchronous, and stops it at the limit: loops and backtracking patterns included. For code that is trusted
 * and data that are not.
 * @param milliseconds more than anything of good will takes
 * @throws what `late` makes, at the limit
 */
export function withinTime<T>(milliseconds: number, late: () => Error, work: () => T): T {
  context['work'] = work;
  try {
    return script.runInContext(context, { timeout: milliseconds }) as T;
  } catch (error) {
    // Not always an Error of this realm.
    if ((error as { code?: unknown } | null)?.code === 'ERR_SCRIPT_EXECUTION_TIMEOUT') throw late();
    throw error;
  } finally {
    context['work'] = undefined;
  }
}
