/**
 * @file Trainings of this machine: folders that record them, and the second engine that runs them, one at a time.
 */
import { randomBytes } from 'node:crypto';
import { readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { demandEditor } from '../editors/registry.ts';
import { publishedWeights } from '../editors/visedit/losses.ts';
import { EmendError } from '../errors.ts';
import {
  commandOf,
  type TrainingRequest as RecordedRequest,
  readTrainingCurve,
  readTrainingRun,
  usualOptimizer,
} from '../evaluation/trainingRun.ts';
import type { Training, TrainingPoint, TrainingRequest, TrainingValidation } from './contract.ts';
import type { EngineClient } from './engineClient.ts';
import type { Events } from './events.ts';
import type { ModelSession } from './modelSession.ts';
import type { CallContext } from './router.ts';

/** Rows of a sequence beside its picture's: for the texts about it. */
const TEXT_ROWS = 128;
/** Visual tokens drawn for the influence losses. */
const SAMPLED = 24;
/** Steps over which the rate rises. */
const WARM_UP = 100;

export interface TrainingsOptions {
  /** the engine that trains; not the one that answers */
  readonly engine: EngineClient;
  readonly session: ModelSession;
  readonly events: Events;
  /** of the records */
  readonly folder: string;
  /** of the adapters that come of them */
  readonly adapters: string;
}

interface Running {
  readonly id: string;
  readonly job: string;
}

export class Trainings {
  readonly #options: TrainingsOptions;
  /** those that run or wait for the one that does */
  readonly #running = new Map<string, Running>();

  constructor(options: TrainingsOptions) {
    this.#options = options;
  }

  /** Latest first; folders that hold no training are passed over. */
  async list(): Promise<Training[]> {
    const names = await readdir(this.#options.folder).catch(() => []);
    const found = await Promise.all(names.map((id) => this.read(id).catch(() => null)));
    return found.filter((one) => one !== null).toSorted((a, b) => b.created.localeCompare(a.created));
  }

  /** @throws EmendError 'not-found', 'damaged' */
  async read(id: string): Promise<Training> {
    const { request, created, progress } = await readTrainingRun(this.#folderOf(id));
    const { options } = request;
    const out = this.#adapterOf(id);
    const running = this.#running.get(id);
    const made = (await stat(join(out, 'adapter.json')).catch(() => null)) !== null;
    return {
      ...{ id, name: request.name, editor: request.editor, model: request.model, data: request.data },
      layer: options.layer,
      textLayer: options.textLayer ?? null,
      created,
      ...{ step: progress.step, steps: options.steps, seconds: progress.seconds, best: progress.best },
      state: running ? 'running' : progress.finished && progress.step >= options.steps ? 'done' : 'paused',
      job: running?.job ?? null,
      adapter: made ? out : null,
      memoryBytes: running ? this.#options.engine.state.memoryBytes : null,
      command: commandOf(request, out),
    };
  }

  curve(id: string): Promise<{ points: TrainingPoint[]; validations: TrainingValidation[] }> {
    return readTrainingCurve(this.#folderOf(id));
  }

  /** Begins a training of the open model and runs it to its end. @throws EmendError what it ended with; 'cancelled' paused it */
  async start(asked: TrainingRequest, context: CallContext): Promise<Training> {
    const request = await this.#requestOf(asked);
    const id = `${new Date().toISOString().slice(0, 19).replaceAll(/[:T]/g, '-')}-${randomBytes(2).toString('hex')}`;
    return this.#run(id, request, context);
  }

  /** @throws EmendError 'conflict' for one that runs or has ended, and what it ended with */
  async resume(id: string, context: CallContext): Promise<Training> {
    const { state } = await this.read(id);
    if (state !== 'paused')
      throw new EmendError(
        'conflict',
        state === 'done' ? 'This training has ended.' : 'This training runs already.',
      );
    const { request } = await readTrainingRun(this.#folderOf(id));
    return this.#run(id, request, context);
  }

  /** @throws EmendError 'conflict' while it runs, and where nothing was kept yet */
  async keep(id: string, context: CallContext): Promise<Training> {
    this.#demandStill(id);
    const { engine, session } = this.#options;
    const input = { folder: this.#folderOf(id), out: this.#adapterOf(id), packed: session.packedCache };
    await engine.call('keepTrained', input, this.#callOptions(id, context));
    context.report.outcome(`The adapter lies in ${this.#adapterOf(id)}.`);
    this.#changed(id);
    return this.read(id);
  }

  /** @throws EmendError 'conflict' while it runs */
  async remove(id: string): Promise<void> {
    this.#demandStill(id);
    await rm(this.#folderOf(id), { recursive: true, force: true });
    this.#changed(id);
  }

  async #run(id: string, request: RecordedRequest, context: CallContext): Promise<Training> {
    const { engine, session } = this.#options;
    this.#running.set(id, { id, job: context.job });
    this.#changed(id);
    try {
      const [folder, out] = [this.#folderOf(id), this.#adapterOf(id)];
      await engine.call(
        'train',
        { request, folder, out, packed: session.packedCache },
        this.#callOptions(id, context),
      );
      context.report.outcome(`The adapter lies in ${out}.`);
    } finally {
      this.#running.delete(id);
      // What was refused before it began leaves nothing.
      if (!(await readTrainingRun(this.#folderOf(id)).catch(() => null)))
        await rm(this.#folderOf(id), { recursive: true, force: true });
      this.#changed(id);
    }
    return this.read(id);
  }

  #callOptions(id: string, { job, signal }: CallContext) {
    const { events } = this.#options;
    return {
      signal,
      onStream: (
        message: Parameters<NonNullable<Parameters<EngineClient['call']>[2]>['onStream'] & {}>[0],
      ) => {
        if (message.kind === 'progress') {
          const { stage, done, total, unit } = message;
          events.emit({ name: 'job.progress', payload: { job, stage, done, total, unit } });
        } else if (message.kind === 'training')
          events.emit({ name: 'training.point', payload: { training: id, point: message.point } });
        else if (message.kind === 'validation') this.#changed(id);
      },
    };
  }

  #changed(id: string): void {
    this.#options.events.emit({ name: 'training.changed', payload: { training: id } });
  }

  #demandStill(id: string): void {
    if (this.#running.has(id)) throw new EmendError('conflict', 'This training runs. Pause it first.');
  }

  #folderOf(id: string): string {
    return join(this.#options.folder, id);
  }

  #adapterOf(id: string): string {
    return join(this.#options.adapters, id);
  }

  /** What was asked for, with what follows from the open model. @throws EmendError 'invalid-input', 'unsupported', 'conflict' */
  async #requestOf({
    layer,
    textLayer,
    form,
    middle,
    heads,
    ...asked
  }: TrainingRequest): Promise<RecordedRequest> {
    const model = await this.#options.session.demandModel();
    const { training } = demandEditor(asked.editor);
    if (!training) throw new EmendError('unsupported', `${asked.editor} is not trained here.`);
    for (const [at, name] of [
      [layer, 'The layer'],
      [textLayer ?? 0, 'The layer of text rows'],
    ] as const)
      if (at > model.layers - 2)
        throw new EmendError(
          'invalid-input',
          `${name} is ${at}; this model has layers 0 to ${model.layers - 2} to edit after.`,
        );
    if (middle % heads !== 0)
      throw new EmendError('invalid-input', `A width of ${middle} does not split into ${heads} heads.`);
    const similar = form === 'similarity';
    if (similar && middle < 2 * model.hidden)
      throw new EmendError(
        'invalid-input',
        `To start from similarity the width must be ${2 * model.hidden} or more for this model. Raise it, or take the published form.`,
      );
    const influence = training.textRows ? 0 : publishedWeights.influenceUp;
    return {
      ...{
        editor: asked.editor,
        name: asked.name,
        model: model.path,
        data: asked.data,
        images: asked.images,
      },
      ...{ suffix: '', extended: asked.extended, from: asked.from, weights: model.weights },
      pictureRows: model.pictureRows.limit ?? undefined,
      providers: this.#options.session.providers,
      layerwise: false,
      validation: asked.validation,
      options: {
        layer,
        ...(textLayer !== undefined && { textLayer }),
        shape: {
          ...{ middle, heads, influenceMiddle: middle },
          influenceMapper: !training.textRows,
          attention: similar ? 'row-kinds' : 'published',
        },
        edits: asked.batch,
        rows: model.pictureRows.most + TEXT_ROWS,
        sampled: SAMPLED,
        raised: 'one',
        weights: {
          ...publishedWeights,
          ...{ influenceUp: influence, influenceDown: influence, influenceAttribution: influence },
        },
        endToken: true,
        scale: similar ? 1 : 0,
        start: form,
        optimizer: usualOptimizer(asked.rate, Math.min(WARM_UP, asked.steps), asked.steps),
        ...{ steps: asked.steps, seed: asked.seed },
      },
    };
  }
}
