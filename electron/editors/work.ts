/**
 * @file Steps of work that may take minutes: told as they are done, and stopped between two of them.
 */
import { EmendError } from '../errors.ts';
import type { Work } from './editor.ts';

/**
 * Tells that `done` of `total` steps are done, and lets messages in: a session blocks the thread while it runs.
 * @throws EmendError 'cancelled' when the work was stopped
 */
export async function betweenSteps({ signal, progress }: Work, done: number, total: number): Promise<void> {
  progress?.(done, total);
  await new Promise((resolve) => setImmediate(resolve));
  if (signal?.aborted) throw new EmendError('cancelled', 'Making the edit was stopped.');
}
