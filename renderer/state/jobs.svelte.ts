/**
 * @file Long calls: each under an id of its own, with its progress and a way to stop it.
 */
import type {
  AnswerToken,
  CallInput,
  CallName,
  CallOutput,
  EventPayload,
  ProbeResult,
} from '../../electron/api/contract.ts';
import type { Connection } from '../backend.ts';

export type JobProgress = EventPayload<'job.progress'>;

/** What a caller may follow while its job runs. */
export interface JobListeners {
  token?(side: 'before' | 'after' | 'answer', token: AnswerToken): void;
  result?(result: ProbeResult): void;
}

/** One running call. */
export class Job {
  readonly id = crypto.randomUUID();
  readonly call: CallName;
  readonly listeners: JobListeners;
  progress = $state.raw<JobProgress | null>(null);
  cancelling = $state(false);

  constructor(call: CallName, listeners: JobListeners) {
    this.call = call;
    this.listeners = listeners;
  }
}

export class Jobs {
  readonly #connection: Connection;
  running = $state.raw<readonly Job[]>([]);

  constructor(connection: Connection) {
    this.#connection = connection;
    connection.on('job.progress', (progress) => {
      const job = this.#find(progress.job);
      if (job) job.progress = progress;
    });
    connection.on('answer.token', ({ job, side, token }) => this.#find(job)?.listeners.token?.(side, token));
    connection.on('check.result', ({ job, result }) => this.#find(job)?.listeners.result?.(result));
  }

  /** Starts a call as a job. The job can be followed and cancelled at once; the result rejects as the call does. */
  start<N extends CallName>(
    name: N,
    input: CallInput<N>,
    listeners: JobListeners = {},
  ): { job: Job; result: Promise<CallOutput<N>> } {
    const job = new Job(name, listeners);
    this.running = [...this.running, job];
    const result = this.#connection.call(name, input, { job: job.id }).finally(() => {
      this.running = this.running.filter((other) => other !== job);
    });
    return { job, result };
  }

  /** Asks for a job to be stopped; its result then rejects with code `cancelled`. */
  async cancel(job: Job): Promise<void> {
    job.cancelling = true;
    await this.#connection.call('jobs.cancel', { job: job.id }).catch(() => {
      job.cancelling = false;
    });
  }

  #find(id: string): Job | undefined {
    return this.running.find((job) => job.id === id);
  }
}
