/**
 * @file Adding edits from files: the file asked about, the job, and what came of it.
 */
import type { CallOutput, WireError } from '../../electron/api/contract.ts';
import { type Connection, toWireError } from '../backend.ts';
import type { Changes } from './changes.ts';
import type { Jobs } from './jobs.svelte.ts';

export class Imports {
  readonly #jobs: Jobs;
  readonly #changes: Changes;
  /** Where a file lies that was dropped or chosen; null where a page cannot know that. */
  readonly pathOf: ((file: File) => string) | null;
  /** the file the dialog is open for; null while it is closed */
  asked = $state.raw<{ readonly name: string; readonly path: string } | null>(null);
  /** id of the running job */
  job = $state<string | null>(null);
  outcome = $state.raw<(CallOutput<'edits.import'> & { readonly dryRun: boolean }) | null>(null);
  error = $state.raw<WireError | null>(null);

  constructor(connection: Connection, jobs: Jobs, changes: Changes) {
    this.#jobs = jobs;
    this.#changes = changes;
    this.pathOf = connection.pathOf?.bind(connection) ?? null;
  }

  /** Opens the dialog; with a file that was dropped, for that. */
  open(file?: File): void {
    this.forget();
    this.asked = { name: file?.name ?? '', path: file ? (this.pathOf?.(file) ?? '') : '' };
  }

  /** Closes the dialog; a job goes on and is listed with the others. */
  close(): void {
    this.asked = null;
  }

  forget(): void {
    this.outcome = null;
    this.error = null;
  }

  /** Reads a file of edits and, unless it is a dry run, adds them. */
  async run(input: {
    file: string;
    images: string;
    tags: readonly string[];
    dryRun: boolean;
  }): Promise<void> {
    if (this.job) return;
    this.forget();
    const { file, images, tags, dryRun } = input;
    const { id, result } = this.#jobs.start('edits.import', {
      file,
      tags: [...tags],
      dryRun,
      ...(images && { images }),
    });
    this.job = id;
    try {
      this.outcome = { ...(await result), dryRun };
      if (!dryRun && this.outcome.added > 0)
        await this.#changes.tell(
          `${this.outcome.added.toLocaleString()} ${this.outcome.added === 1 ? 'edit' : 'edits'} imported`,
        );
    } catch (thrown) {
      const error = toWireError(thrown);
      if (error.code !== 'cancelled') this.error = error;
    } finally {
      this.job = null;
    }
  }
}
