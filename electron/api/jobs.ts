/**
 * @file Long calls that are running, by the id their caller gave them.
 */
import { EmendError } from '../errors.ts';

/**
 * What `work` gives, or the signal's reason as soon as it is aborted. For waiting on what others need too: the work goes on.
 */
export function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const stop = () => reject(signal.reason);
    if (signal.aborted) stop();
    signal.addEventListener('abort', stop, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', stop));
  });
}

export class Jobs {
  readonly #running = new Map<
    string,
    { readonly controller: AbortController; readonly done: Promise<unknown> }
  >();

  /**
   * Runs `work` under an id, with a signal that `cancel` aborts.
   * @throws EmendError 'conflict' while another job has that id; 'cancelled' when it was cancelled and did not finish
   */
  async run<T>(id: string, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    if (this.#running.has(id)) {
      throw new EmendError(
        'conflict',
        `A job with the id "${id}" is running already. Wait for it, or take another id.`,
      );
    }
    const controller = new AbortController();
    // Begun in a later turn, so that the job is known before it can end.
    const done = Promise.resolve().then(() => work(controller.signal));
    this.#running.set(id, { controller, done });
    try {
      return await done;
    } catch (error) {
      if (!controller.signal.aborted) throw error;
      throw new EmendError('cancelled', 'Stopped. The library is as it was.', { cause: error });
    } finally {
      this.#running.delete(id);
    }
  }

  /** Asks a job to stop. One that has just ended is none of anybody's concern: nothing happens. */
  cancel(id: string): void {
    this.#running.get(id)?.controller.abort();
  }

  /** Stops all jobs and waits for them, `patience` milliseconds at most. */
  async stop(patience: number): Promise<void> {
    const jobs = [...this.#running.values()];
    for (const job of jobs) job.controller.abort();
    const timeout = new Promise<void>((resolve) => setTimeout(resolve, patience).unref());
    await Promise.race([Promise.allSettled(jobs.map((job) => job.done)), timeout]);
  }
}
