/**
 * @file Trainings of adapters: those that are kept, the one in view with its curve, and what a new one is asked for.
 */
import type {
  CallInput,
  EditorSummary,
  SettingValue,
  Training,
  TrainingPoint,
  TrainingValidation,
  WireError,
} from '../../electron/api/contract.ts';
import { type Connection, toWireError } from '../backend.ts';
import type { Condition } from './condition.svelte.ts';
import { DataSetChoice } from './dataSet.svelte.ts';
import type { Jobs } from './jobs.svelte.ts';
import type { Models } from './models.svelte.ts';
import type { Toasts } from './toasts.svelte.ts';

type Asked = CallInput<'training.start'>;

/** So many points are held; beyond it the curve is read again, which the recorder keeps short. */
const MOST_POINTS = 4000;

export class Trainings {
  readonly #connection: Connection;
  readonly #jobs: Jobs;
  readonly #condition: Condition;
  readonly #models: Models;
  readonly #toasts: Toasts;
  readonly dataSet: DataSetChoice;
  all = $state.raw<readonly Training[]>([]);
  editors = $state.raw<readonly EditorSummary[]>([]);
  /** the one in view */
  shown = $state<string | null>(null);
  points = $state.raw<readonly TrainingPoint[]>([]);
  validations = $state.raw<readonly TrainingValidation[]>([]);
  error = $state.raw<WireError | null>(null);
  /** whether the form of a new one is in view */
  asking = $state(false);
  /** what a new one is asked for */
  asked = $state<Required<Omit<Asked, 'settings' | 'data' | 'images' | 'format'>>>({
    ...{ editor: '', name: '', steps: 5000, batch: 4, accumulate: 1, rate: 1e-4 },
    ...{ extended: true, seed: 1, from: '', pictureCacheGb: 10 },
    validation: { edits: 20, every: 500 },
  });
  /** settings of the editor that is asked for, by key; what nobody gave yet is null */
  settings = $state<Record<string, SettingValue>>({});
  #read = 0;

  constructor(connection: Connection, jobs: Jobs, condition: Condition, models: Models, toasts: Toasts) {
    this.#connection = connection;
    this.#jobs = jobs;
    this.#condition = condition;
    this.#models = models;
    this.#toasts = toasts;
    this.dataSet = new DataSetChoice(connection, 'training');
    connection.on('training.changed', ({ training }) => {
      void this.read();
      if (training === this.shown) void this.#readCurve();
    });
    connection.on('training.point', ({ training, point }) => {
      if (training !== this.shown) return;
      this.points = [...this.points, point];
      if (this.points.length > MOST_POINTS) void this.#readCurve();
    });
  }

  readonly training = $derived.by(() => this.all.find(({ id }) => id === this.shown) ?? null);
  readonly trainable = $derived.by(() => this.editors.filter(({ training }) => training !== null));
  readonly editor = $derived.by(() => this.trainable.find(({ name }) => name === this.asked.editor) ?? null);
  readonly job = $derived.by(() => this.#jobs.find(this.training?.job ?? null));

  async read(): Promise<void> {
    try {
      this.all = await this.#connection.call('training.list', {});
      if (this.editors.length === 0) {
        this.editors = await this.#connection.call('models.editors', {});
        if (this.asked.editor === '' && this.trainable[0]) this.choose(this.trainable[0].name);
      }
      if (this.shown === null && this.all.length > 0) this.show(this.all[0]!.id);
    } catch (error) {
      this.error = toWireError(error);
    }
  }

  /** Another editor is to be trained: its settings begin as it proposes. A layer that was chosen stays, where it has one. */
  choose(name: string): void {
    const training = this.trainable.find((one) => one.name === name)?.training;
    if (!training || name === this.asked.editor) return;
    const layer = this.settings['layer'];
    this.settings = Object.fromEntries(
      training.settings.map(({ key, default: published }) => [key, training.proposed[key] ?? published]),
    );
    if (layer != null && 'layer' in this.settings) this.settings['layer'] = layer;
    this.asked.editor = name;
    this.asked.rate = training.rate;
  }

  /** Asks for a new one at a layer, of the first editor that acts at one. */
  async askAt(layer: number): Promise<void> {
    await this.read();
    const takes = ({ training }: EditorSummary) => training!.settings.some(({ key }) => key === 'layer');
    if (!('layer' in this.settings)) this.choose(this.trainable.find(takes)?.name ?? '');
    this.settings['layer'] = layer;
    this.asking = true;
  }

  show(id: string | null): void {
    if (this.shown === id) return;
    this.shown = id;
    this.points = [];
    this.validations = [];
    if (id !== null) void this.#readCurve();
  }

  async #readCurve(): Promise<void> {
    const turn = ++this.#read;
    const id = this.shown;
    if (id === null) return;
    try {
      const { points, validations } = await this.#connection.call('training.curve', { training: id });
      if (turn !== this.#read || id !== this.shown) return;
      const last = points.at(-1)?.step ?? 0;
      // Points are written when the state is saved; those told since then are newer.
      this.points = [...points, ...this.points.filter(({ step }) => step > last)];
      this.validations = validations;
    } catch (error) {
      this.error = toWireError(error);
    }
  }

  /** Begins the training that is asked for; it shows itself when it is known. */
  async start(): Promise<void> {
    const { from, ...asked } = this.asked;
    const { data, images } = this.dataSet;
    this.error = null;
    this.shown = null;
    await this.#follow('training.start', {
      ...{ ...asked, data },
      settings: { ...this.settings },
      ...(images.trim() && { images }),
      ...(from?.trim() && { from }),
    });
  }

  resume(id: string): Promise<void> {
    return this.#follow('training.resume', { training: id });
  }

  keep(id: string): Promise<void> {
    return this.#follow('training.keep', { training: id });
  }

  async #follow<N extends 'training.start' | 'training.resume' | 'training.keep'>(
    name: N,
    input: CallInput<N>,
  ): Promise<void> {
    this.error = null;
    let failed: WireError | null = null;
    try {
      const { result } = this.#jobs.start(name, input);
      const done = (await result) as Training;
      this.#toasts.tell(`“${done.name}” is made. It is listed with the model’s adapters.`);
    } catch (error) {
      failed = toWireError(error);
    }
    await this.read();
    // What is kept with a training is shown there.
    if (failed && failed.code !== 'cancelled' && !this.all.some((one) => one.failed === failed.message))
      this.error = failed;
  }

  pause(): void {
    const { job } = this.training ?? {};
    if (job) void this.#jobs.cancel(job);
  }

  async remove(id: string): Promise<void> {
    try {
      await this.#connection.call('training.remove', { training: id });
      if (this.shown === id) this.show(null);
    } catch (error) {
      this.error = toWireError(error);
    }
    await this.read();
  }

  /** Opens the open model with the adapter that was made. */
  async open(adapter: string): Promise<void> {
    const { model } = this.#condition;
    if (model) await this.#models.open(model.path, adapter);
  }
}
