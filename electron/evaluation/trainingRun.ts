/**
 * @file The training of an editor's adapters as people run it: recorded in a folder with all that repeats it, taken up where it was,
 * validated on edits held out, its best weights kept.
 *
 * The folder holds run.json (request and progress), curve.jsonl (a line for every point and validation), state.safetensors (the
 * optimiser's), and best/, an adapter folder of the best weights so far, in F32 and without a calibrated router.
 */
import { mkdir, rm } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { z } from 'zod';
import { type AdapterWeights, readAdapterFiles, writeAdapterFiles } from '../editors/adapterFiles.ts';
import { EditedModel } from '../editors/editedModel.ts';
import type { EditorNeeds } from '../editors/editor.ts';
import { demandEditor } from '../editors/registry.ts';
import { optionsOf, parseSettings, settingFields } from '../editors/settings.ts';
import { visionFor } from '../editors/training/cachedVision.ts';
import type {
  EditorTraining,
  TrainingOptions,
  TrainingProgress,
} from '../editors/training/editorTraining.ts';
import type { EditSource } from '../editors/training/edits.ts';
import { trainEditor } from '../editors/training/trainEditor.ts';
import { EmendError } from '../errors.ts';
import { demandRoom } from '../files/diskRoom.ts';
import type { FloatCacheLimits } from '../files/floatCache.ts';
import { readJson } from '../files/json.ts';
import { replaceFile } from '../files/replaceFile.ts';
import { fingerprint } from '../models/checkpoint.ts';
import { type Checkpoint, openCheckpoint } from '../models/open.ts';
import type { PackedCache } from '../models/packed/cache.ts';
import type { WeightForm } from '../models/packed/form.ts';
import { VisionLanguageModel } from '../models/visionLanguageModel.ts';
import { availableProviders, type Provider } from '../tensor/session.ts';
import { benchmark } from './benchmark.ts';
import { type EditingSet, readEditingSet } from './editingSet.ts';
import { editSourceFromFile, neededForTraining } from './editSource.ts';
import { calibrateRouter } from './routerCalibration.ts';
import type { SetFormatName } from './sets/registry.ts';
import {
  readTrainingCurve,
  TrainingCurve,
  type TrainingPoint,
  type TrainingValidation,
} from './trainingCurve.ts';

/** A training as it was asked for: all that repeats it. */
export interface TrainingRequest {
  readonly editor: string;
  /** of the adapter that comes of it */
  readonly name: string;
  /** checkpoint folder */
  readonly model: string;
  /** editing set, or a module that exports openEditSource */
  readonly data: string;
  /** of the set; told from it when absent */
  readonly format?: SetFormatName | undefined;
  readonly images?: string | undefined;
  /** appended to prompts that go with a picture */
  readonly suffix: string;
  /** other questions about the edit's picture, and its question elsewhere, are trained to stay */
  readonly extended: boolean;
  /** adapter folder whose weights to start from */
  readonly from?: string | undefined;
  readonly weights: WeightForm;
  readonly pictureRows?: number | undefined;
  readonly providers: readonly Provider[];
  /** the decoder one layer at a time */
  readonly layerwise: boolean;
  /** disk that what the frozen model makes of a set's pictures may take, for all trainings; as usual when absent, 0: nothing is kept */
  readonly pictureCacheGb?: number | undefined;
  /**
   * After every so many steps so many edits are measured that are not trained on: the first of `file`, or of `data`, which then gives them
   * up. Null: the last weights count as the best.
   */
  readonly validation: {
    readonly edits: number;
    readonly every: number;
    readonly file?: string | undefined;
  } | null;
  /** of the editor's training; those that are not there are as by default */
  readonly settings: Readonly<Record<string, unknown>>;
  readonly options: TrainingOptions;
}

/** GB that visual embeddings may take where a training says nothing of it. */
export const USUAL_PICTURE_CACHE_GB = 10;

const Progress = z.object({
  step: z.number().int().min(0),
  seconds: z.number().min(0),
  best: z.object({ step: z.number(), exactMatch: z.number(), teacherForced: z.number() }).nullable(),
  /** whether an adapter was made of it */
  finished: z.boolean(),
  /** why it ended before its last step, where nobody stopped it; older records do not say */
  failed: z.string().nullable().default(null),
});
export type TrainingProgressRecord = z.infer<typeof Progress>;

const Recorded = z.object({
  request: z.looseObject({
    ...{ editor: z.string(), name: z.string(), model: z.string(), data: z.string() },
    settings: z.record(z.string(), z.unknown()),
    options: z.looseObject({ steps: z.number().int().min(1) }),
  }),
  created: z.string(),
  progress: Progress,
});

/** What run.json says. @throws EmendError 'damaged', 'not-found' */
export async function readTrainingRun(
  folder: string,
): Promise<{ request: TrainingRequest; created: string; progress: TrainingProgressRecord }> {
  const path = join(folder, 'run.json');
  const parsed = Recorded.safeParse(await readJson(path));
  if (!parsed.success)
    throw new EmendError(
      'damaged',
      `${path} does not describe a training. Remove the folder, or train anew.`,
    );
  // It was written by this program from a request that was checked.
  return parsed.data as unknown as {
    request: TrainingRequest;
    created: string;
    progress: TrainingProgressRecord;
  };
}

/** Records why a training ended before its last step; null: it goes on. One that was refused before it began has no record, and gets none. */
export async function recordFailure(folder: string, failed: string | null): Promise<void> {
  const found = await readTrainingRun(folder).catch(() => null);
  if (!found) return;
  const text = `${JSON.stringify({ ...found, progress: { ...found.progress, failed } }, null, 1)}\n`;
  await replaceFile(join(folder, 'run.json'), (handle) => handle.writeFile(text));
}

export interface TrainingHooks {
  readonly signal: AbortSignal;
  readonly packed: PackedCache;
  /** where visual embeddings are kept for all trainings; absent: nowhere */
  readonly pictureCache?: string;
  readonly progress?: (stage: string, done: number, total: number, unit: string) => void;
  /** told of the set it trains on, with the rows that are left out; a module that makes its edits has none */
  readonly onSet?: (set: EditingSet) => void;
  readonly onPoint?: (point: TrainingPoint) => void;
  readonly onValidation?: (validation: TrainingValidation) => void;
}

/** Adam as the demo's adapters were trained with it: the rate rises over the first steps and falls along a cosine. */
export function usualOptimizer(rate: number, warmUp: number, steps: number): TrainingOptions['optimizer'] {
  return {
    schedule: { peak: rate, warmUp, decay: 'cosine', steps, floor: 0.02 },
    ...{ beta1: 0.9, beta2: 0.98, epsilon: 1e-8, weightDecay: 0, clipNorm: 1 },
  };
}

/**
 * Bytes a parameter may take in a training's folder: the optimiser's state (the parameter and two moments, F32) and its next writing, the
 * best adapter, its next, and the one that is measured.
 */
const BYTES_KEPT = 2 * 12 + 3 * 4;

/**
 * Trains, or goes on where the folder's training was left, to the last step, and makes the adapter folder `out` of it. Nothing but the number of steps may be another than before.
 * @throws EmendError 'cancelled' when stopped, with everything kept; 'conflict' where the folder holds another training, and without room
 *   on its disk
 */
export async function runTraining(
  request: TrainingRequest,
  folder: string,
  out: string,
  hooks: TrainingHooks,
): Promise<void> {
  const training = trainingOf(request.editor);
  const { options, validation } = request;
  if (request.layerwise && !training.layerwise)
    throw new EmendError('unsupported', `${request.editor} is not trained one layer at a time.`);
  const layerwise = request.layerwise || (request.weights !== 'dense' && training.layerwise === true);
  const settings = parseSettings(request.editor, training.settings, request.settings);
  const needs = training.needs(settings, await openCheckpoint(request.model));
  const known = await readTrainingRun(folder).catch(() => null);
  const created = known?.created ?? new Date().toISOString();
  let progress: TrainingProgressRecord = {
    ...(known?.progress ?? { step: 0, seconds: 0, best: null, finished: false }),
    failed: null,
  };
  const record = (changed: Partial<TrainingProgressRecord>) => {
    progress = { ...progress, ...changed };
    const asked = { ...request, settings };
    const text = `${JSON.stringify({ request: asked, created, progress }, null, 1)}\n`;
    return replaceFile(join(folder, 'run.json'), (handle) => handle.writeFile(text));
  };
  const from = request.from === undefined ? null : await readAdapterFiles(request.from, z.looseObject({}));
  const began = progress.seconds;
  const curve = new TrainingCurve(folder, options.steps, options.edits * (options.accumulate ?? 1));
  const pictureCache = pictureCacheOf(request, hooks);
  await withModel(request, needs, hooks, async (model) => {
    const source = await openTrainingSource(request, model, options.seed, request.extended, hooks.onSet);
    const own = await fingerprint(model.checkpoint);
    try {
      await mkdir(folder, { recursive: true });
      // Whether it goes on with what is there is not known yet: that record stays, but for why it ended.
      await (known ? recordFailure(folder, null) : record({}));
      const run = {
        statePath: join(folder, 'state.safetensors'),
        ...(layerwise && { keptBelow: join(folder, 'below') }),
        ...(from && { from }),
        ...(pictureCache && { pictureCache }),
        signal: hooks.signal,
        ...(validation && { saveEvery: Math.min(validation.every, 250) }),
        onStep(step: TrainingProgress) {
          hooks.progress?.('Training', step.step, step.steps, 'steps');
          progress = { ...progress, step: step.step, seconds: began + step.seconds };
          const point = curve.add(step);
          if (point) hooks.onPoint?.(point);
        },
        async onSaved(step: number, weights: () => AdapterWeights) {
          // The curve is as far as the state: after a crash both go on from the same step.
          await curve.save();
          await record({ step });
          const due = validation && (step % validation.every === 0 || step === options.steps);
          if (due) await validate(model, own, step, weights());
        },
      };
      const trained = await trainEditor(model, source, options, run, async (start) => {
        const editor = await training.begin(settings, start);
        const size = [...editor.parameters.values()].reduce((sum, { data }) => sum + data.length, 0);
        await demandRoom(folder, BYTES_KEPT * size, 'The training').catch(async (error: unknown) => {
          await editor.dispose();
          throw error;
        });
        return editor;
      });
      // A crash may have come between the last step and what follows it.
      const { validations } = await readTrainingCurve(folder);
      if (!validation) await writeWeights(join(folder, 'best'), model.checkpoint, own, trained.weights);
      else if (validations.at(-1)?.step !== options.steps)
        await validate(model, own, options.steps, trained.weights);
    } finally {
      await source.close();
    }
  });
  await record({ step: options.steps });
  await finishTraining(folder, out, hooks);

  async function validate(
    model: VisionLanguageModel,
    own: string,
    step: number,
    weights: AdapterWeights,
  ): Promise<void> {
    const latest = join(folder, 'latest');
    await writeWeights(latest, model.checkpoint, own, weights);
    const read = await demandEditor(request.editor).read!(latest, model.checkpoint);
    // Without a scope a routed editor's edits always act, as in the papers; one that has its own decides by it.
    const editor = await read.open(model, read.scope);
    try {
      const set = await readEditingSet(validation!.file ?? request.data, {
        ...{ format: request.format, images: request.images, limit: validation!.edits },
        needs: neededForTraining,
      });
      const found = await benchmark(new EditedModel(model, editor, null), set, {
        ...{
          scoped: false,
          reach: 'picture',
          suffix: request.suffix,
          textSuffix: '',
          maxNewTokens: 32,
          seed: 1,
        },
        signal: hooks.signal,
        onProgress: (done, total) => hooks.progress?.('Validating', done, total, 'edits'),
      });
      const { exactMatch, teacherForced } = found.meanOfFive;
      const made = { step, exactMatch: exactMatch?.mean ?? 0, teacherForced: teacherForced?.mean ?? 0 };
      await curve.validated(made);
      hooks.onValidation?.(made);
      if (progress.best && made.exactMatch <= progress.best.exactMatch) return;
      await writeWeights(join(folder, 'best'), model.checkpoint, own, weights);
      await record({ best: made });
    } finally {
      await editor.dispose();
      await rm(latest, { recursive: true, force: true });
    }
  }

  async function writeWeights(
    into: string,
    checkpoint: Checkpoint,
    own: string,
    weights: AdapterWeights,
  ): Promise<void> {
    const router = { layer: needs.cuts[0] ?? 0, threshold: 1 };
    await writeAdapterFiles(into, descriptionOf(request, checkpoint, own, router), weights, 'F32');
  }
}

/**
 * Makes an adapter folder of a training's best weights so far, its router calibrated; what it was trained with stands in adapter.json.
 * @throws EmendError 'conflict' where there are none yet
 */
export async function finishTraining(folder: string, out: string, hooks: TrainingHooks): Promise<void> {
  const { request, created, progress } = await readTrainingRun(folder);
  const { options } = request;
  const best = await readAdapterFiles(join(folder, 'best'), Written).catch((cause: unknown) => {
    throw new EmendError(
      'conflict',
      'Nothing was kept of this training yet. Let it run to its first validation, or to its end.',
      { cause },
    );
  });
  hooks.progress?.('Calibrating the router', 0, 1, 'steps');
  const training = trainingOf(request.editor);
  const checkpoint = await openCheckpoint(request.model);
  const settings = parseSettings(request.editor, training.settings, request.settings);
  const lowest = training.needs(settings, checkpoint).cuts[0] ?? 0;
  const own = await fingerprint(checkpoint);
  const router = await withModel(request, { from: lowest }, hooks, async (model) => {
    const source = await openTrainingSource(request, model, options.seed + 1, true);
    try {
      const vision = await visionFor(source, model, own, pictureCacheOf(request, hooks));
      return await calibrateRouter(model, vision, await source.batch(0, CALIBRATED));
    } finally {
      await source.close();
    }
  });
  const { points } = await readTrainingCurve(folder);
  await writeAdapterFiles(
    out,
    {
      ...descriptionOf(request, checkpoint, best.description.model, {
        layer: router.layer,
        threshold: router.threshold,
      }),
      training: {
        request: withoutFolders(request),
        created,
        ...progress,
        router,
        last: points.at(-1),
      },
    },
    best.weights,
    (name) => (training.exact?.(name) ? 'F32' : 'F16'),
  );
  const path = join(folder, 'run.json');
  const text = `${JSON.stringify({ request, created, progress: { ...progress, finished: true } }, null, 1)}\n`;
  await replaceFile(path, (handle) => handle.writeFile(text));
}

/** A request as an adapter tells it: files by their names, not where they lay. */
function withoutFolders({ model, data, images, from, validation, ...request }: TrainingRequest): object {
  const named = (path: string | undefined) => (path === undefined ? undefined : basename(resolve(path)));
  return {
    ...request,
    ...{ model: named(model), data: named(data), images: named(images), from: named(from) },
    validation: validation && { ...validation, file: named(validation.file) },
  };
}

const Written = z.looseObject({ model: z.string(), weightsSha256: z.string().optional() });

function pictureCacheOf(
  { pictureCacheGb = USUAL_PICTURE_CACHE_GB }: TrainingRequest,
  { pictureCache: folder }: TrainingHooks,
): FloatCacheLimits | null {
  return folder !== undefined && pictureCacheGb > 0 ? { folder, limitBytes: pictureCacheGb * 1e9 } : null;
}

/** The command that trains the same again, into the folder `out`. */
export function commandOf(
  { options, validation, settings, ...request }: TrainingRequest,
  out: string,
): string {
  const { schedule } = options.optimizer;
  const quoted = (text: string) => (/^[\w./:-]+$/u.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
  const values: Record<string, string | number | undefined> = {
    '--editor': request.editor,
    '--model': request.model,
    '--data': request.data,
    '--format': request.format,
    '--images': request.images,
    '--out': out,
    '--name': request.name,
    '--from': request.from,
    '--steps': options.steps,
    '--batch': options.edits,
    '--accumulate': options.accumulate === 1 ? undefined : options.accumulate,
    '--rate': schedule.peak,
    '--warm-up': schedule.warmUp,
    '--seed': options.seed,
    '--weights': request.weights,
    '--picture-rows': request.pictureRows,
    '--picture-cache': request.pictureCacheGb,
    '--suffix': request.suffix || undefined,
    '--validate': validation?.edits,
    '--validate-every': validation?.every,
    '--validation-data': validation?.file,
    '--provider': request.providers[0],
  };
  const own = optionsOf(settingFields(trainingOf(request.editor).settings), settings);
  const named = [...Object.entries(values), ...own].flatMap(([name, value]) => {
    if (value === undefined) return [];
    return [value === null ? name : `${name} ${quoted(String(value))}`];
  });
  const flags = [request.extended && '--extended', request.layerwise && '--layerwise'];
  return ['npx emend train', ...named, ...flags.filter((flag) => flag !== false)].join(' ');
}

/** Edits that a router is calibrated on. */
const CALIBRATED = 200;

/** @throws EmendError 'unsupported' for an editor that is not trained here */
function trainingOf(editor: string): EditorTraining {
  const { training } = demandEditor(editor);
  if (training) return training;
  throw new EmendError('unsupported', `${editor} is not trained here. "emend editors" says which are.`);
}

function descriptionOf(
  { editor, name, settings, weights }: TrainingRequest,
  checkpoint: Checkpoint,
  model: string,
  router: { readonly layer: number; readonly threshold: number },
): object {
  const training = trainingOf(editor);
  const own = training.describe(parseSettings(editor, training.settings, settings), checkpoint);
  return { editor, name, ...own, model, weights, router };
}

/** What trains where nothing was asked for: webgpu and its like compile anew for the shapes of a step, which takes longer than the step on a processor. */
export function usualProviders(available: readonly Provider[] = availableProviders()): Provider[] {
  return (['cuda', 'cpu'] as const).filter((name) => available.includes(name));
}

/** Opens the model for a training, cut after some layers, or after every one from a layer on, and closes it again. */
async function withModel<T>(
  request: TrainingRequest,
  at: EditorNeeds | { readonly from: number },
  { packed }: TrainingHooks,
  work: (model: VisionLanguageModel) => Promise<T>,
): Promise<T> {
  const every = async (from: number) => {
    const { layers } = (await openCheckpoint(request.model)).backbone.decoder;
    return Array.from({ length: layers - 1 - from }, (_, place) => from + place);
  };
  const model = await VisionLanguageModel.open(request.model, {
    providers: request.providers.length > 0 ? request.providers : usualProviders(),
    // A wish to stop while it opens is heard before the first step, with the state saved.
    ...{ weights: request.weights, packed },
    decoderLater: true,
    pictureRows: request.pictureRows,
    ...('from' in at ? { cuts: await every(at.from) } : { cuts: at.cuts, changeable: at.changeable }),
  });
  try {
    return await work(model);
  } finally {
    await model.dispose();
  }
}

/** A module's own source where `data` names one; else the editing set, less what is held out for validation. */
async function openTrainingSource(
  { data, format, images, suffix, validation }: TrainingRequest,
  model: VisionLanguageModel,
  seed: number,
  extended: boolean,
  onSet?: TrainingHooks['onSet'],
): Promise<EditSource> {
  const own = validation?.file === undefined;
  if (/\.[cm]?[jt]s$/.test(data)) {
    if (validation && own)
      throw new EmendError('invalid-input', `${data} makes its edits: name a set of others to validate on.`);
    const module = (await import(pathToFileURL(resolve(data)).href)) as {
      openEditSource?: (options: { seed: number; extended: boolean }) => EditSource;
    };
    if (!module.openEditSource)
      throw new EmendError(
        'invalid-input',
        `${data} exports no openEditSource. Give a module that does, or an editing set.`,
      );
    return module.openEditSource({ seed, extended });
  }
  return editSourceFromFile(data, model, {
    ...{ format, images, onSet },
    seed,
    extended,
    suffix,
    without: validation && own ? validation.edits : 0,
  });
}
