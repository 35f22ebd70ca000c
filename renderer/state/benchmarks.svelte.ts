/**
 * @file Comparisons of editors: those that are kept, the one in view with its table, and what a new one is asked for.
 */
import type {
  Benchmark,
  BenchmarkCandidate,
  CallInput,
  Comparison,
  MeasuredAt,
  WireError,
} from '../../electron/api/contract.ts';
import { type Connection, toWireError } from '../backend.ts';
import { DataSetChoice } from './dataSet.svelte.ts';
import type { Jobs } from './jobs.svelte.ts';
import { SampleRows } from './sampleRows.svelte.ts';
import type { Toasts } from './toasts.svelte.ts';

export class Benchmarks {
  readonly #connection: Connection;
  readonly #jobs: Jobs;
  readonly #toasts: Toasts;
  readonly samples: SampleRows;
  readonly dataSet: DataSetChoice;
  all = $state.raw<readonly Benchmark[]>([]);
  /** editors that may be measured; null until they are read, as while no model is open */
  candidates = $state.raw<readonly BenchmarkCandidate[] | null>(null);
  /** the one in view */
  shown = $state<string | null>(null);
  comparison = $state.raw<Comparison | null>(null);
  error = $state.raw<WireError | null>(null);
  /** what a new one is asked for; editors: null as long as nobody chose */
  asked = $state({
    editors: null as string[] | null,
    at: [1] as number[],
    limit: 100,
    limitProbes: 50,
    seeds: 1,
  });
  #turn = 0;

  constructor(connection: Connection, jobs: Jobs, toasts: Toasts) {
    this.#connection = connection;
    this.#jobs = jobs;
    this.#toasts = toasts;
    this.samples = new SampleRows(connection);
    this.dataSet = new DataSetChoice(connection, 'measuring');
    connection.on('benchmark.changed', ({ benchmark }) => {
      void this.read();
      if (benchmark === this.shown) void this.#readShown();
    });
  }

  readonly benchmark = $derived.by(() => this.all.find(({ id }) => id === this.shown) ?? null);
  readonly job = $derived.by(() => this.#jobs.find(this.benchmark?.job ?? null));
  /** those that can be measured now */
  readonly measurable = $derived.by(() =>
    (this.candidates ?? []).filter(({ trains, adapters }) => !trains || adapters.length > 0),
  );
  /** the editors that are chosen: all that can be measured unless somebody chose */
  readonly chosen = $derived.by(() =>
    this.measurable.map(({ editor }) => editor).filter((name) => this.asked.editors?.includes(name) ?? true),
  );

  async read(): Promise<void> {
    try {
      this.all = await this.#connection.call('benchmarks.list', {});
      if (this.benchmark === null) this.show(this.all[0]?.id ?? null);
    } catch (error) {
      this.error = toWireError(error);
    }
  }

  /** Reads what can be measured on the model that is open. */
  async readCandidates(): Promise<void> {
    this.candidates = await this.#connection.call('benchmarks.candidates', {}).catch(() => null);
  }

  show(id: string | null): void {
    if (this.shown === id) return;
    this.shown = id;
    this.comparison = null;
    this.samples.show(null);
    if (id !== null) void this.#readShown();
  }

  async #readShown(): Promise<void> {
    const turn = ++this.#turn;
    const id = this.shown;
    if (id === null) return;
    try {
      const { comparison } = await this.#connection.call('benchmarks.read', { benchmark: id });
      if (turn !== this.#turn || id !== this.shown) return;
      this.comparison = comparison;
      const first = comparison && this.firstMeasured(comparison);
      if (first && this.samples.choice?.benchmark !== id) this.samples.show({ benchmark: id, of: first });
    } catch (error) {
      if (turn === this.#turn) this.error = toWireError(error);
    }
  }

  /** The first column of answers that was recorded. */
  firstMeasured({ editors }: Comparison): MeasuredAt | null {
    for (const [editor, { sizes, runs }] of editors.entries()) {
      const size = sizes.find(({ edits }) => (edits === 1 ? runs?.single : runs?.many));
      if (size) return { editor, edits: size.edits };
    }
    return null;
  }

  /** Begins what is asked for; it shows itself when it is known. */
  async start(): Promise<void> {
    const { at, limit, limitProbes, seeds } = this.asked;
    const { data, images } = this.dataSet;
    this.shown = null;
    await this.#follow('benchmarks.start', {
      ...{ editors: [...this.chosen], data, at: at.toSorted((a, b) => a - b), limit, limitProbes },
      ...(images.trim() && { images }),
      ...(seeds > 1 && { seeds }),
    });
  }

  resume(id: string): Promise<void> {
    return this.#follow('benchmarks.resume', { benchmark: id });
  }

  async #follow<N extends 'benchmarks.start' | 'benchmarks.resume'>(
    name: N,
    input: CallInput<N>,
  ): Promise<void> {
    this.error = null;
    let failed: WireError | null = null;
    try {
      const { result } = this.#jobs.start(name, input);
      const { failedRows, total } = (await result) as Benchmark;
      if (failedRows === 0) this.#toasts.tell('The editors are measured.');
      else this.#toasts.complain(`${failedRows} of ${total} rows could not be measured. The table says why.`);
    } catch (error) {
      failed = toWireError(error);
    }
    await this.read();
    // What is kept with a comparison is shown there.
    if (failed && failed.code !== 'cancelled' && !this.all.some((one) => one.failed === failed.message))
      this.error = failed;
  }

  stop(): void {
    const { job } = this.benchmark ?? {};
    if (job) void this.#jobs.cancel(job);
  }

  async open(path: string): Promise<void> {
    this.error = null;
    try {
      const { id } = await this.#connection.call('benchmarks.open', { path });
      await this.read();
      this.show(id);
    } catch (error) {
      this.error = toWireError(error);
    }
  }

  async remove(id: string): Promise<void> {
    try {
      await this.#connection.call('benchmarks.remove', { benchmark: id });
      if (this.shown === id) this.show(null);
    } catch (error) {
      this.error = toWireError(error);
    }
    await this.read();
  }

  /** Writes the table, or the samples that are in view, to a file. */
  async export(what: 'table' | 'samples', format: 'csv' | 'json', file: string): Promise<void> {
    const { choice, filter, sort } = this.samples;
    if (this.shown === null) return;
    this.error = null;
    const { benchmark: _, ...columns } = choice ?? { benchmark: '' };
    const input = {
      ...{ benchmark: this.shown, format, file },
      ...(what === 'samples' && choice && { samples: { ...columns, filter, sort } as never }),
    };
    try {
      const { lines } = await this.#jobs.start('benchmarks.export', input).result;
      this.#toasts.tell(`${lines.toLocaleString()} lines are written to ${file}.`);
    } catch (error) {
      this.error = toWireError(error);
    }
  }
}
