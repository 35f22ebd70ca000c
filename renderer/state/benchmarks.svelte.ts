/**
 * @file Benchmarks: those that are kept, the comparison in view with its table, and what a new one is asked for.
 */
import type {
  Benchmark,
  BenchmarkModel,
  BenchmarkOverview,
  CallInput,
  CallOutput,
  Comparison,
  MeasuredAt,
  WireError,
} from '../../electron/api/contract.ts';
import { type Connection, toWireError } from '../backend.ts';
import { DataSetChoice } from './dataSet.svelte.ts';
import type { Jobs } from './jobs.svelte.ts';
import { SampleRows } from './sampleRows.svelte.ts';
import type { Toasts } from './toasts.svelte.ts';

/** What can be measured on a model; `error`: why it is none. */
type Candidates = CallOutput<'benchmarks.candidates'> | { readonly error: WireError };

/** An editor over the models that are chosen. */
export interface ChoosableEditor {
  readonly editor: string;
  readonly acts: string;
  /** on how many of them it can be measured, and with how many adapters at most */
  readonly models: number;
  readonly adapters: number;
  /** names of those on which it cannot be measured */
  readonly refusedOn: readonly string[];
  /** those on which it cannot be measured, or not by an adapter of it, each with the reason */
  readonly lacks: ReadonlyArray<{ readonly model: string; readonly reason: string }>;
}

export class Benchmarks {
  readonly #connection: Connection;
  readonly #jobs: Jobs;
  readonly #toasts: Toasts;
  readonly samples: SampleRows;
  /** models of this machine, the open one first */
  models = $state.raw<readonly BenchmarkModel[]>([]);
  #candidates = $state.raw<ReadonlyMap<string, Candidates>>(new Map());
  /** data sets of a new one */
  sets = $state.raw<readonly DataSetChoice[]>([]);
  all = $state.raw<readonly Benchmark[]>([]);
  /** the one in view, and which of its comparisons */
  shown = $state<string | null>(null);
  part = $state(0);
  comparison = $state.raw<Comparison | null>(null);
  /** of all its comparisons; empty where there is one */
  overview = $state.raw<BenchmarkOverview>([]);
  error = $state.raw<WireError | null>(null);
  /** what a new one is asked for; editors, models: null as long as nobody chose */
  asked = $state({
    editors: null as string[] | null,
    models: null as string[] | null,
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
    this.addSet();
    connection.on('benchmark.changed', ({ benchmark }) => {
      void this.read();
      if (benchmark === this.shown) void this.#readShown();
    });
  }

  readonly benchmark = $derived.by(() => this.all.find(({ id }) => id === this.shown) ?? null);
  readonly job = $derived.by(() => this.#jobs.find(this.benchmark?.job ?? null));
  /** the models that are chosen: the open one unless somebody chose */
  readonly chosenModels = $derived.by(() =>
    this.models.filter(({ path, open }) => this.asked.models?.includes(path) ?? open),
  );
  /** whether it is known of all of them what can be measured */
  readonly looked = $derived.by(() => this.chosenModels.every(({ path }) => this.#candidates.has(path)));
  /** what is wrong with a chosen model, or may be */
  readonly modelProblems = $derived.by(() =>
    this.chosenModels.flatMap(({ path, name }) => {
      const found = this.#candidates.get(path);
      if (!found) return [];
      const said = 'error' in found ? found.error.message : found.warning;
      return said === null ? [] : [{ path, name, reason: said, refused: 'error' in found }];
    }),
  );
  readonly editors = $derived.by((): ChoosableEditor[] => {
    const found = this.chosenModels.flatMap(({ path, name }) => {
      const of = this.#candidates.get(path);
      return of && !('error' in of) ? [{ name, editors: of.editors }] : [];
    });
    return (found[0]?.editors ?? []).map(({ editor, acts }) => {
      const each = found.map(({ name, editors }) => ({
        ...{ model: name, ...editors.find((one) => one.editor === editor)! },
      }));
      return {
        ...{ editor, acts, models: each.filter(({ refused }) => refused === null).length },
        refusedOn: each.filter(({ refused }) => refused !== null).map(({ model }) => model),
        adapters: Math.max(...each.map(({ adapters }) => adapters.length)),
        lacks: each.flatMap(({ model, refused, unusable }) =>
          [...(refused === null ? [] : [refused]), ...unusable].map((reason) => ({ model, reason })),
        ),
      };
    });
  });
  /** the editors that are chosen: all that can be measured unless somebody chose */
  readonly chosen = $derived.by(() =>
    this.editors
      .filter(({ editor, models }) => models > 0 && (this.asked.editors?.includes(editor) ?? true))
      .map(({ editor }) => editor),
  );

  addSet(): void {
    this.sets = [...this.sets, new DataSetChoice(this.#connection, 'measuring')];
  }

  removeSet(set: DataSetChoice): void {
    this.sets = this.sets.filter((other) => other !== set);
  }

  async read(): Promise<void> {
    try {
      this.all = await this.#connection.call('benchmarks.list', {});
      if (this.benchmark === null) this.show(this.all[0]?.id ?? null);
    } catch (error) {
      this.error = toWireError(error);
    }
  }

  /** Reads which models there are, and what can be measured on those that are chosen. */
  async readModels(): Promise<void> {
    const models = await this.#connection.call('benchmarks.models', {}).catch(() => this.models);
    this.models = models.map((model) => ({ ...model, name: nameAmong(model, models) }));
    await this.#readCandidates(() => true);
  }

  /** Reads what can be measured on those of the chosen models. */
  async #readCandidates(of: (path: string) => boolean): Promise<void> {
    for (const { path } of this.chosenModels.filter((model) => of(model.path))) {
      const found = await this.#connection
        .call('benchmarks.candidates', { model: path })
        .catch((error: unknown) => ({ error: toWireError(error) }));
      this.#candidates = new Map(this.#candidates).set(path, found);
    }
  }

  toggleModel(path: string): void {
    const chosen = this.chosenModels.map((model) => model.path);
    this.asked.models = chosen.includes(path) ? chosen.filter((other) => other !== path) : [...chosen, path];
    void this.#readCandidates((other) => !this.#candidates.has(other));
  }

  show(id: string | null, part = 0): void {
    if (this.shown === id && this.part === part) return;
    if (this.shown !== id) this.overview = [];
    this.shown = id;
    this.part = part;
    this.comparison = null;
    this.samples.show(null);
    if (id !== null) void this.#readShown();
  }

  /** Turns to the next comparison of the benchmark in view, or to the one before. */
  turn(by: 1 | -1): void {
    const { length } = this.benchmark?.parts ?? [];
    if (length > 1) this.show(this.shown, (this.part + by + length) % length);
  }

  async #readShown(): Promise<void> {
    const turn = ++this.#turn;
    const { shown: id, part } = this;
    if (id === null) return;
    try {
      const { comparison, overview } = await this.#connection.call('benchmarks.read', {
        benchmark: id,
        part,
      });
      if (turn !== this.#turn || id !== this.shown) return;
      this.comparison = comparison;
      this.overview = overview;
      const first = comparison && this.firstMeasured(comparison);
      if (first && this.samples.choice === null) this.samples.show({ benchmark: id, part, of: first });
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
    this.show(null);
    await this.#follow('benchmarks.start', {
      ...{ editors: [...this.chosen], models: this.chosenModels.map(({ path }) => path) },
      sets: this.sets.map(({ data, images }) => ({ data, ...(images.trim() && { images }) })),
      ...{ at: at.toSorted((a, b) => a - b), limit, limitProbes },
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

  /** Writes the table, the samples that are in view, or the overview, to a file. */
  async export(what: 'table' | 'samples' | 'overview', format: 'csv' | 'json', file: string): Promise<void> {
    const { choice, filter, sort } = this.samples;
    if (this.shown === null) return;
    this.error = null;
    const input = {
      ...{ benchmark: this.shown, part: what === 'overview' ? null : this.part, format, file },
      ...(what === 'samples' &&
        choice && { samples: { of: choice.of, against: choice.against, filter, sort } as never }),
    };
    try {
      const { lines } = await this.#jobs.start('benchmarks.export', input).result;
      this.#toasts.tell(`${lines.toLocaleString()} lines are written to ${file}.`);
    } catch (error) {
      this.error = toWireError(error);
    }
  }
}

/** A model's name, with its folder's where another has the same. */
function nameAmong({ path, name }: BenchmarkModel, models: readonly BenchmarkModel[]): string {
  const alike = models.filter((other) => other.name === name).length > 1;
  const parent = path.split(/[\\/]/).at(-2);
  return alike && parent ? `${name} in ${parent}` : name;
}
