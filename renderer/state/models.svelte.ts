/**
 * @file Opening models: the folder asked for, the ones opened before, and what went wrong.
 */
import type { CallInput, CallOutput, WeightForm, WireError } from '../../electron/api/contract.ts';
import { type Connection, toWireError } from '../backend.ts';
import type { Condition } from './condition.svelte.ts';
import type { Jobs } from './jobs.svelte.ts';

export class Models {
  readonly #connection: Connection;
  readonly #jobs: Jobs;
  readonly #condition: Condition;
  recent = $state.raw<CallOutput<'models.recent'>>([]);
  path = $state('');
  adapter = $state('');
  /** id of the job that opens a model for this page */
  opening = $state<string | null>(null);
  error = $state.raw<WireError | null>(null);

  /** models of the Hugging Face cache; null until they were looked for */
  discovered = $state.raw<CallOutput<'models.discover'> | null>(null);
  discoverError = $state.raw<WireError | null>(null);
  /** adapters on this machine, for the open model */
  adapters = $state.raw<CallOutput<'models.adapters'>>([]);
  /** the editors of the workbench */
  editors = $state.raw<CallOutput<'models.editors'>>([]);

  /** the ways of opening the folder that is typed; null until it is a model's */
  ways = $state.raw<CallOutput<'models.ways'> | null>(null);
  /** the form chosen among them; null: the proposed one */
  weights = $state<WeightForm | null>(null);
  /** packed weights in the cache */
  packed = $state.raw<CallOutput<'models.packed'> | null>(null);
  #waysOf = '';

  constructor(connection: Connection, jobs: Jobs, condition: Condition) {
    this.#connection = connection;
    this.#jobs = jobs;
    this.#condition = condition;
  }

  async readRecent(): Promise<void> {
    this.recent = await this.#connection.call('models.recent', {}).catch(() => this.recent);
  }

  /** Looks through the Hugging Face cache. */
  async discover(): Promise<void> {
    try {
      this.discovered = await this.#connection.call('models.discover', {});
      this.discoverError = null;
    } catch (thrown) {
      this.discoverError = toWireError(thrown);
    }
  }

  async readAdapters(): Promise<void> {
    this.adapters = await this.#connection.call('models.adapters', {}).catch(() => []);
  }

  async readEditors(): Promise<void> {
    this.editors = await this.#connection.call('models.editors', {}).catch(() => this.editors);
  }

  /** Reads what each way of opening a folder needs. What is no model is told when it is opened. */
  async readWays(path: string): Promise<void> {
    if (this.#waysOf !== path) this.weights = null;
    this.#waysOf = path;
    if (path === '') {
      this.ways = null;
      return;
    }
    const found = await this.#connection.call('models.ways', { path }).catch(() => null);
    if (this.#waysOf === path) this.ways = found;
  }

  /** The form to open a folder in: chosen, or proposed; undefined where its ways are not known (yet). */
  formFor(path: string): WeightForm | undefined {
    return this.ways && this.#waysOf === path.trim()
      ? (this.weights ?? this.ways.proposed ?? undefined)
      : undefined;
  }

  async readPacked(): Promise<void> {
    this.packed = await this.#connection.call('models.packed', {}).catch(() => this.packed);
  }

  async removePacked(name: string): Promise<void> {
    try {
      await this.#connection.call('models.removePacked', { name });
    } catch (thrown) {
      this.error = toWireError(thrown);
    }
    await this.readPacked();
  }

  /** How many rows a picture of the library takes in the open model. */
  async rowsOf(picture: string): Promise<number> {
    return (await this.#connection.call('models.rows', { picture })).rows;
  }

  /** Where what was dropped lies; '' where a page cannot know that. */
  pathOf(file: File): string {
    return this.#connection.pathOf?.(file) ?? '';
  }

  /** Opens a checkpoint folder, with the adapter named or the one found beside it. */
  async open(path: string, adapter = '', weights?: WeightForm): Promise<void> {
    await this.openWith(path, {
      ...(adapter.trim() !== '' && { adapter: adapter.trim() }),
      ...(weights && { weights }),
    });
  }

  /** Opens a checkpoint folder with what was chosen to edit it by. Returns whether that came about. */
  async openWith(
    path: string,
    chosen: Pick<CallInput<'models.open'>, 'adapter' | 'editor' | 'scope' | 'weights'>,
  ): Promise<boolean> {
    if (this.opening) return false;
    this.error = null;
    const started = performance.now();
    const { id, result } = this.#jobs.start('models.open', { path: path.trim(), ...chosen });
    this.opening = id;
    try {
      const model = await result;
      this.#condition.lastResult = `${model.name} opened in ${((performance.now() - started) / 1000).toFixed(1)} s`;
      this.path = '';
      this.adapter = '';
      await Promise.all([this.#condition.read(), this.readRecent(), this.readPacked()]);
      return true;
    } catch (thrown) {
      const error = toWireError(thrown);
      if (error.code !== 'cancelled') this.error = error;
      return false;
    } finally {
      this.opening = null;
    }
  }

  /** Asks for a folder with the system's dialog, where there is one. */
  get askFolder(): (() => Promise<string | null>) | null {
    return this.#connection.chooseFolder?.bind(this.#connection) ?? null;
  }

  /** Asks for the folder of a model. */
  get chooseFolder(): (() => Promise<void>) | null {
    const choose = this.askFolder;
    if (!choose) return null;
    return async () => {
      const path = await choose();
      if (path) this.path = path;
    };
  }

  cancel(): void {
    if (this.opening) void this.#jobs.cancel(this.opening);
  }
}
