/**
 * @file Long calls, as the application keeps them: whoever began them, before or after this page was loaded.
 */
import type {
  AnswerToken,
  CallInput,
  CallName,
  CallOutput,
  JobRecord,
  ProbeResult,
} from '../../electron/api/contract.ts';
import type { Connection } from '../backend.ts';

/** What a caller knows of its job, and may follow while it runs. */
export interface JobListeners {
  /** whether it has an engine of its own, until the application tells so; not when absent */
  readonly ownEngine?: boolean;
  /** `text`: what is certain of the answer's text by now and was not told before */
  token?(side: 'before' | 'after' | 'answer', token: AnswerToken, text: string): void;
  result?(result: ProbeResult): void;
}

/** Jobs that ended and are still listed. */
const mostEnded = 50;

export class Jobs {
  readonly #connection: Connection;
  readonly #listeners = new Map<string, JobListeners>();
  /** those that run, oldest first, then those that ended, latest first */
  all = $state.raw<readonly JobRecord[]>([]);
  /** jobs that were asked to stop */
  stopping = $state.raw<ReadonlySet<string>>(new Set());

  constructor(connection: Connection) {
    this.#connection = connection;
    connection.on('jobs.changed', ({ job }) => this.#put(job));
    connection.on('answer.token', ({ job, side, token, text }) =>
      this.#listeners.get(job)?.token?.(side, token, text),
    );
    connection.on('check.result', ({ job, result }) => this.#listeners.get(job)?.result?.(result));
  }

  readonly running = $derived.by(() => this.all.filter(isRunning));
  readonly ended = $derived.by(() => this.all.filter((job) => !isRunning(job)));

  async read(): Promise<void> {
    try {
      this.all = await this.#connection.call('jobs.list', {});
    } catch {
      // What runs is told when it goes on.
    }
  }

  find(id: string | null): JobRecord | null {
    return this.all.find((job) => job.id === id) ?? null;
  }

  /** Starts a call as a job. The job can be followed and stopped at once; the result rejects as the call does. */
  start<N extends CallName>(
    name: N,
    input: CallInput<N>,
    listeners: JobListeners = {},
  ): { id: string; result: Promise<CallOutput<N>> } {
    const id = crypto.randomUUID();
    const { edit, id: named } = input as { edit?: unknown; id?: unknown };
    const number = [edit, named].find((value) => typeof value === 'number');
    this.#listeners.set(id, listeners);
    this.#put({
      id,
      kind: name,
      subject: number === undefined ? '' : `edit ${number}`,
      edit: (number as number | undefined) ?? null,
      ownEngine: listeners.ownEngine ?? false,
      state: 'running',
      waitsFor: null,
      stage: '',
      done: 0,
      total: null,
      unit: '',
      secondsLeft: null,
      started: new Date().toISOString(),
      ended: null,
      outcome: null,
      log: [],
    });
    const result = this.#connection.call(name, input, { job: id }).finally(() => {
      this.#listeners.delete(id);
      const job = this.find(id);
      // told of already as a rule; where it was not, it ran too shortly to be worth listing
      if (job && isRunning(job)) this.all = this.all.filter((other) => other.id !== id);
    });
    return { id, result };
  }

  /** Asks for a job to be stopped; its result then rejects with code `cancelled`. */
  async cancel(id: string): Promise<void> {
    this.stopping = new Set(this.stopping).add(id);
    await this.#connection.call('jobs.cancel', { job: id }).catch(() => this.#forgetStopping(id));
  }

  #put(job: JobRecord): void {
    const others = this.all.filter(({ id }) => id !== job.id);
    const running = others.filter(isRunning);
    const ended = others.filter((other) => !isRunning(other));
    if (isRunning(job)) {
      const at = this.all.filter(isRunning).findIndex(({ id }) => id === job.id);
      this.all = [...running.toSpliced(at === -1 ? running.length : at, 0, job), ...ended];
    } else {
      this.all = [...running, ...[job, ...ended].slice(0, mostEnded)];
      this.#forgetStopping(job.id);
    }
  }

  #forgetStopping(id: string): void {
    const stopping = new Set(this.stopping);
    if (stopping.delete(id)) this.stopping = stopping;
  }
}

export function isRunning(job: JobRecord): boolean {
  return job.state === 'running' || job.state === 'waiting';
}
