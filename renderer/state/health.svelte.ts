/**
 * @file How the committed edits stand against the open model and adapter, as last checked.
 */
import type {
  CallOutput,
  HealthOutcome,
  Health as HealthResult,
  WireError,
} from '../../electron/api/contract.ts';
import { type Connection, toWireError } from '../backend.ts';
import type { EditLibrary } from './editLibrary.svelte.ts';
import type { Jobs } from './jobs.svelte.ts';
import type { Toasts } from './toasts.svelte.ts';

/** Results read at once. */
const pageSize = 200;

export class Health {
  readonly #connection: Connection;
  readonly #jobs: Jobs;
  readonly #library: EditLibrary;
  readonly #toasts: Toasts;
  /** the outcome that is listed; null: every one */
  outcome = $state<HealthOutcome | null>(null);
  results = $state.raw<readonly HealthResult[]>([]);
  /** null until they were read */
  counts = $state.raw<CallOutput<'checks.healthList'>['counts'] | null>(null);
  error = $state.raw<WireError | null>(null);
  #turn = 0;

  constructor(connection: Connection, jobs: Jobs, library: EditLibrary, toasts: Toasts) {
    this.#connection = connection;
    this.#jobs = jobs;
    this.#library = library;
    this.#toasts = toasts;
  }

  /** the health check that runs, wherever it was begun */
  readonly job = $derived.by(() => this.#jobs.running.find(({ kind }) => kind === 'checks.health') ?? null);
  readonly total = $derived.by(() => {
    const { counts, outcome } = this;
    if (!counts) return 0;
    return outcome ? counts[outcome] : counts.holds + counts['not-needed'] + counts['needs-work'];
  });

  show(outcome: HealthOutcome | null): void {
    this.outcome = outcome;
    void this.read();
  }

  /** Reads the list anew. */
  async read(): Promise<void> {
    const turn = ++this.#turn;
    await this.#readFrom(0, turn);
  }

  /** Reads the results after those listed. */
  async readMore(): Promise<void> {
    await this.#readFrom(this.results.length, this.#turn);
  }

  /** Checks all committed edits again. */
  async run(): Promise<void> {
    if (this.job) return;
    this.error = null;
    try {
      await this.#jobs.start('checks.health', {}).result;
    } catch (thrown) {
      const error = toWireError(thrown);
      if (error.code !== 'cancelled') this.error = error;
    }
    void this.read();
  }

  stop(): void {
    if (this.job) void this.#jobs.cancel(this.job.id);
  }

  /** Retires the corrections that the model no longer needs. */
  async retireNotNeeded(): Promise<void> {
    try {
      const { results } = await this.#connection.call('checks.healthList', {
        outcome: ['not-needed'],
        limit: 10_000,
      });
      if (results.length > 0) await this.#library.retire({ edits: results.map(({ edit }) => edit) });
      await this.read();
    } catch (thrown) {
      this.#toasts.complain(toWireError(thrown).message);
    }
  }

  async #readFrom(offset: number, turn: number): Promise<void> {
    try {
      const { results, counts } = await this.#connection.call('checks.healthList', {
        ...(this.outcome && { outcome: [this.outcome] }),
        offset,
        limit: pageSize,
      });
      if (turn !== this.#turn) return;
      this.results = offset === 0 ? results : [...this.results, ...results];
      this.counts = counts;
      this.error = null;
    } catch (thrown) {
      if (turn === this.#turn) this.error = toWireError(thrown);
    }
  }
}
