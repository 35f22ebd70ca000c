/**
 * @file Trainings of this machine: folders that record them, each run in a process of its own, one at a time.
 */
import { rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { demandEditor } from '../editors/registry.ts';
import { parseSettings, settingFields } from '../editors/settings.ts';
import type { TrainingFolders } from '../engine/protocol.ts';
import { EmendError } from '../errors.ts';
import { readTrainingCurve } from '../evaluation/trainingCurve.ts';
import {
  commandOf,
  type TrainingRequest as RecordedRequest,
  readTrainingRun,
  recordFailure,
  usualOptimizer,
} from '../evaluation/trainingRun.ts';
import type {
  SettingValue,
  Training,
  TrainingPoint,
  TrainingRequest,
  TrainingValidation,
} from './contract.ts';
import type { EnginePool, PoolCallOptions } from './enginePool.ts';
import type { Events } from './events.ts';
import { unlessAborted } from './jobs.ts';
import type { ModelSession } from './modelSession.ts';
import { type CallContext, wireError } from './router.ts';
import { latestFirst, newRunId, recordedRuns } from './runFolders.ts';

/** Steps over which the rate rises. */
const WARM_UP = 100;

export interface TrainingsOptions {
  /** the engines that train; not the one that answers */
  readonly engines: EnginePool;
  readonly session: ModelSession;
  readonly events: Events;
  /** of the records */
  readonly folder: string;
  /** of the adapters that come of them */
  readonly adapters: string;
  /** where visual embeddings are kept for all of them */
  readonly pictureCache: string;
}

const noProgress = { step: 0, seconds: 0, best: null, finished: false, failed: null };

interface Running {
  readonly job: string;
  readonly request: RecordedRequest;
  /** when it was asked for; its record, once it has begun, says when that was */
  readonly asked: string;
  /** what its process holds; null as long as it waits for one */
  memoryBytes: number | null;
}

export class Trainings {
  readonly #options: TrainingsOptions;
  /** those that run or wait for the one that does */
  readonly #running = new Map<string, Running>();
  /** those whose best so far is being made an adapter; settles when it is, or has failed */
  readonly #keeping = new Map<string, Promise<unknown>>();

  constructor(options: TrainingsOptions) {
    this.#options = options;
  }

  /** Latest first, those that wait for their turn too; folders that hold no training are passed over. */
  async list(): Promise<Training[]> {
    const recorded = await recordedRuns(this.#options.folder);
    return latestFirst([...recorded, ...this.#running.keys()], (id) => this.read(id));
  }

  /** @throws EmendError 'not-found', 'damaged' */
  async read(id: string): Promise<Training> {
    const running = this.#running.get(id);
    const { request, created, progress } = await readTrainingRun(this.#folderOf(id)).catch((error) => {
      // One that waits for its turn has no record yet.
      if (running) return { request: running.request, created: running.asked, progress: noProgress };
      throw error;
    });
    const { options } = request;
    const out = this.#adapterOf(id);
    const made = (await stat(join(out, 'adapter.json')).catch(() => null)) !== null;
    return {
      ...{ id, name: request.name, editor: request.editor, model: request.model, data: request.data },
      settings: toldSettings(request),
      created,
      ...{ step: progress.step, steps: options.steps, seconds: progress.seconds, best: progress.best },
      state: running ? 'running' : progress.finished && progress.step >= options.steps ? 'done' : 'paused',
      job: running?.job ?? null,
      failed: running ? null : progress.failed,
      adapter: made ? out : null,
      memoryBytes: running?.memoryBytes ?? null,
      command: commandOf(request, out),
    };
  }

  curve(id: string): Promise<{ points: TrainingPoint[]; validations: TrainingValidation[] }> {
    return readTrainingCurve(this.#folderOf(id));
  }

  /** Begins a training of the open model and runs it to its end. @throws EmendError what it ended with; 'cancelled' paused it */
  async start(asked: TrainingRequest, context: CallContext): Promise<Training> {
    const request = await this.#requestOf(asked);
    return this.#run(newRunId(), request, context);
  }

  /** @throws EmendError 'conflict' for one that runs or has ended, and what it ended with */
  async resume(id: string, context: CallContext): Promise<Training> {
    // Both read and write its folder.
    await unlessAborted(this.#keeping.get(id) ?? Promise.resolve(), context.signal);
    const { state } = await this.read(id);
    if (state !== 'paused')
      throw new EmendError(
        'conflict',
        state === 'done' ? 'This training has ended.' : 'This training runs already.',
      );
    const { request } = await readTrainingRun(this.#folderOf(id));
    return this.#run(id, request, context);
  }

  /** @throws EmendError 'conflict' while it runs or is kept already, and where nothing was recorded yet */
  keep(id: string, context: CallContext): Promise<Training> {
    this.#demandStill(id);
    const kept = this.#keep(id, context).finally(() => this.#keeping.delete(id));
    this.#keeping.set(
      id,
      kept.catch(() => undefined),
    );
    return kept;
  }

  async #keep(id: string, context: CallContext): Promise<Training> {
    context.report.subject(`“${(await this.read(id)).name}”`);
    await this.#options.engines.call('keepTrained', this.#foldersOf(id), this.#callOptions(id, context));
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
    this.#running.set(id, { job: context.job, request, asked: new Date().toISOString(), memoryBytes: null });
    context.report.subject(`“${request.name}”`);
    this.#changed(id);
    try {
      const folders = this.#foldersOf(id);
      await this.#options.engines.call('train', { request, ...folders }, this.#callOptions(id, context));
      context.report.outcome(`The adapter lies in ${folders.out}.`);
    } catch (error) {
      // A disk that is full may refuse this too; the caller is told in any case.
      if (!context.signal.aborted)
        await recordFailure(this.#folderOf(id), wireError(error).message).catch(() => undefined);
      throw error;
    } finally {
      this.#running.delete(id);
      // What was refused before it began leaves nothing.
      if (!(await readTrainingRun(this.#folderOf(id)).catch(() => null)))
        await rm(this.#folderOf(id), { recursive: true, force: true });
      this.#changed(id);
    }
    return this.read(id);
  }

  #callOptions(id: string, { job, signal }: CallContext): PoolCallOptions {
    const { events } = this.#options;
    let told = false;
    return {
      signal,
      onMemory: (bytes) => {
        const running = this.#running.get(id);
        if (running) running.memoryBytes = bytes;
      },
      onStream: (message) => {
        if (message.kind === 'progress') {
          const { stage, done, total, unit } = message;
          events.emit({ name: 'job.progress', payload: { job, stage, done, total, unit } });
          // Its record is there now: it can be listed.
          if (!told) this.#changed(id);
          told = true;
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
    if (this.#keeping.has(id))
      throw new EmendError('conflict', 'Its adapter is being made. Wait for that, or stop it.');
  }

  #folderOf(id: string): string {
    return join(this.#options.folder, id);
  }

  #foldersOf(id: string): TrainingFolders {
    const { session, pictureCache } = this.#options;
    return {
      ...{ folder: this.#folderOf(id), out: this.#adapterOf(id) },
      ...{ packed: session.packedCache, pictureCache },
    };
  }

  #adapterOf(id: string): string {
    return join(this.#options.adapters, id);
  }

  /** What was asked for, with what follows from the open model. @throws EmendError 'invalid-input', 'unsupported', 'conflict' */
  async #requestOf(asked: TrainingRequest): Promise<RecordedRequest> {
    const { editor, name, data, format, images, extended, from, validation, pictureCacheGb } = asked;
    const { steps, seed, batch, accumulate } = asked;
    const model = await this.#options.session.demandModel();
    const { training } = demandEditor(editor);
    if (!training) throw new EmendError('unsupported', `${editor} is not trained here.`);
    return {
      ...{ editor, name, data, format, images, extended, from, validation, suffix: '', layerwise: false },
      pictureCacheGb,
      ...{ model: model.path, weights: model.weights },
      pictureRows: model.pictureRows.limit ?? undefined,
      providers: this.#options.session.providers,
      settings: { ...parseSettings(editor, training.settings, asked.settings) },
      options: {
        ...{ edits: batch, accumulate, steps, seed },
        optimizer: usualOptimizer(asked.rate, Math.min(WARM_UP, steps), steps),
      },
    };
  }
}

/** What was set that is not as published. */
function toldSettings({ editor, settings }: RecordedRequest): Training['settings'] {
  const { training } = demandEditor(editor);
  const fields = training ? settingFields(training.settings) : [];
  return fields.flatMap(({ key, label, default: otherwise }) => {
    const value = settings[key] as SettingValue | undefined;
    if (value === undefined || value === null || value === otherwise) return [];
    return [{ label, value: value === true ? 'yes' : value === false ? 'no' : String(value) }];
  });
}
