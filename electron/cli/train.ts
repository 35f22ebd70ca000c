/** @file `emend train`: an editor's adapters trained for a checkpoint, saved with their calibrated router. */

import { basename, join, resolve } from 'node:path';
import { Command, Option } from 'commander';
import { z } from 'zod';
import type { SettingField, SettingValue } from '../api/contract.ts';
import { secondsLeft } from '../api/jobs.ts';
import { editorKinds } from '../editors/registry.ts';
import { optionOf, parsedValue, settingFields } from '../editors/settings.ts';
import { USUAL_RATE } from '../editors/training/editorTraining.ts';
import { EmendError } from '../errors.ts';
import { leftOut } from '../evaluation/editingSet.ts';
import type { SetFormatName } from '../evaluation/sets/registry.ts';
import {
  runTraining,
  type TrainingHooks,
  type TrainingRequest,
  USUAL_PICTURE_CACHE_GB,
  usualOptimizer,
} from '../evaluation/trainingRun.ts';
import { readJson } from '../files/json.ts';
import { pictureCacheFolder } from '../frontends/places.ts';
import type { WeightForm } from '../models/packed/form.ts';
import {
  formatOption,
  inForm,
  modelOrDemo,
  number,
  pictureRowsOption,
  providerOption,
  suffixOption,
  tellProgress,
  untilInterrupted,
  weightsOption,
  wholeNumber,
} from './options.ts';
import { trainScopeBeside, trainScopeCommand, usualScopeOptions } from './trainScope.ts';

interface TrainOptions {
  editor: string;
  weights: WeightForm;
  model?: string;
  data: string;
  format?: SetFormatName;
  images?: string;
  out: string;
  work?: string;
  name?: string;
  steps: number;
  batch: number;
  accumulate: number;
  rate?: number;
  warmUp: number;
  from?: string;
  extended?: boolean;
  scopeData?: string;
  suffix?: string;
  seed: number;
  validate?: number;
  validateEvery: number;
  validationData?: string;
  layerwise?: boolean;
  pictureRows?: number;
  pictureCache: number;
  provider?: 'cuda' | 'dml' | 'coreml' | 'webgpu' | 'cpu';
}

const trainable = editorKinds.flatMap(({ name, training }) =>
  training ? [{ name, training, fields: settingFields(training.settings) }] : [],
);

/** An option for every setting of every training; of those that several editors have, one. */
function settingOptions(): Option[] {
  const keys = new Map<string, Array<{ editor: string; field: SettingField }>>();
  for (const { name, fields } of trainable)
    for (const field of fields)
      keys.set(field.key, [...(keys.get(field.key) ?? []), { editor: name, field }]);
  return [...keys].map(([key, all]) => {
    const { field } = all[0]!;
    const { kind, label, help, options } = field;
    const names = all.length === trainable.length ? '' : `${all.map(({ editor }) => editor).join(', ')}: `;
    const choices = options.length > 0 ? ` (${options.join(', ')})` : '';
    const defaults = new Set(all.map(({ field: { default: value } }) => value));
    const [usual] = defaults;
    const otherwise =
      defaults.size > 1 || usual === null || kind === 'boolean' ? '' : `; ${usual} when not given`;
    const about = `${names}${label}${choices}${otherwise}.${help && ` ${help}.`}`;
    if (kind !== 'boolean') return new Option(`${optionOf(key)} <value>`, about);
    return new Option(field.default === true ? optionOf(key).replace(/^--/, '--no-') : optionOf(key), about);
  });
}

export function trainCommand(): Command {
  const command = new Command('train')
    .enablePositionalOptions()
    .addCommand(trainScopeCommand())
    .description('train an editor for a model; stopped and started again, it goes on where it was')
    .addOption(
      new Option('--editor <name>', 'what is trained')
        .choices(trainable.map(({ name }) => name))
        .default(trainable[0]!.name),
    )
    .option('--model <folder>', 'checkpoint folder; the demo model otherwise')
    .option(
      '--data <file>',
      'editing set (E-VQA, E-IC, VLKEB, MMKE-Bench, Emend’s, CSV), or a module that exports openEditSource',
    )
    .addOption(formatOption())
    .option('--images <folder>', 'folder that pictures are relative to; the set’s own otherwise')
    .option('--out <folder>', 'where the adapter is written')
    .option('--work <folder>', 'where the training state is kept; <out>/training otherwise')
    .option('--name <text>', 'name of the adapter; the folder’s otherwise')
    .option('--steps <number>', 'steps of the optimiser', wholeNumber(1, 10_000_000), 50_000)
    .option('--batch <number>', 'edits a batch', wholeNumber(1, 1024), 4)
    .option(
      '--accumulate <number>',
      'batches a step: the optimiser follows the mean of their gradients, in the memory of one',
      wholeNumber(1, 1024),
      1,
    )
    .option('--rate <number>', 'peak learning rate; the editor’s own otherwise', number(0, 1))
    .option('--warm-up <number>', 'steps of warm-up', wholeNumber(0, 100_000), 100)
    .option(
      '--from <folder>',
      'adapter whose weights to start from, of this model or of an earlier state of it',
    )
    .option(
      '--extended',
      'also train other questions about the edit’s picture, and its question elsewhere, to stay',
    )
    .option(
      '--layerwise',
      'VisEdit: run the decoder one layer at a time: slower, in the memory of one layer; always so with packed weights',
    )
    .option(
      '--validate <edits>',
      'measure so many edits that are not trained on, and keep the weights that were best on them',
      wholeNumber(1, 10_000),
    )
    .option('--validate-every <steps>', 'how often', wholeNumber(1, 1_000_000), 1000)
    .option(
      '--validation-data <file>',
      'the set they are of; the first of --data otherwise, which are then not trained on',
    )
    .option('--scope-data <file>', 'then train a scope too, as `train scope` does, on this --data of its own')
    .addOption(suffixOption())
    .option('--seed <number>', 'of weights, order and draws', wholeNumber(0, 2 ** 31 - 1), 1)
    .addOption(pictureRowsOption())
    .option(
      '--picture-cache <GB>',
      'disk that what the frozen model makes of a set’s pictures may take, for all trainings: each is computed once; 0: nothing is kept',
      number(0, 100_000),
      USUAL_PICTURE_CACHE_GB,
    )
    .addOption(weightsOption())
    .addOption(providerOption('cuda where it loads, else cpu, when not given'))
    .action((options: TrainOptions, self: Command) => {
      const request = trainingRequest(options, self);
      return untilInterrupted((signal) => train(options, request, signal));
    });
  for (const option of settingOptions()) command.addOption(option);
  return command;
}

/** Settings from options. @throws EmendError 'invalid-input' for one that another editor has, and for what is no value of it */
function settingsGiven(
  { name, fields }: (typeof trainable)[number],
  command: Command,
): Record<string, SettingValue> {
  const given: Record<string, SettingValue> = {};
  for (const key of new Set(trainable.flatMap((one) => one.fields.map((field) => field.key)))) {
    if (command.getOptionValueSource(key) !== 'cli') continue;
    const field = fields.find((one) => one.key === key);
    if (!field)
      throw new EmendError(
        'invalid-input',
        `${optionOf(key)} is no option of ${name}’s training. See --help.`,
      );
    const value = command.getOptionValue(key) as string | boolean;
    given[key] = typeof value === 'boolean' ? value : parsedValue(name, field, value);
  }
  return given;
}

/** What is trained by the options given to `emend train`. @throws EmendError 'invalid-input'; CommanderError for an option that lacks */
export function trainingRequest(options: TrainOptions, self: Command): TrainingRequest {
  const { name, training, fields } = trainable.find((one) => one.name === options.editor)!;
  const settings = settingsGiven({ name, training, fields }, self);
  // Not required of `train scope`, which commander would ask them of too.
  const lacking = (['data', 'out'] as const).filter((option) => options[option] === undefined);
  const unset = fields.filter(
    ({ key, default: otherwise, optional }) => otherwise === null && !optional && settings[key] === undefined,
  );
  for (const option of [...lacking, ...unset.map(({ key }) => key)].map(optionOf))
    self.error(`error: required option '${option}' not specified`);
  const { rate = training.rate ?? USUAL_RATE } = options;
  return {
    editor: options.editor,
    name: options.name ?? basename(resolve(options.out)),
    model: modelOrDemo(options.model),
    data: options.data,
    ...(options.format !== undefined && { format: options.format }),
    ...(options.images !== undefined && { images: options.images }),
    suffix: options.suffix ?? '',
    extended: options.extended ?? false,
    ...(options.from !== undefined && { from: options.from }),
    weights: options.weights,
    ...(options.pictureRows !== undefined && { pictureRows: options.pictureRows }),
    providers: options.provider ? [options.provider] : [],
    layerwise: options.layerwise ?? false,
    pictureCacheGb: options.pictureCache,
    validation:
      options.validate === undefined
        ? null
        : { edits: options.validate, every: options.validateEvery, file: options.validationData },
    settings,
    options: {
      edits: options.batch,
      accumulate: options.accumulate,
      optimizer: usualOptimizer(rate, options.warmUp, options.steps),
      steps: options.steps,
      seed: options.seed,
    },
  };
}

async function train(options: TrainOptions, request: TrainingRequest, signal: AbortSignal): Promise<void> {
  const work = options.work ?? join(options.out, 'training');
  const smooth = new Map<string, number>();
  const started = performance.now();
  let first: { readonly step: number; readonly at: number } | undefined;
  let told = Number.NEGATIVE_INFINITY;
  const hooks: TrainingHooks = {
    signal,
    packed: inForm(options.weights).packed,
    pictureCache: pictureCacheFolder(),
    progress: tellProgress,
    onSet(set) {
      const told = leftOut(set);
      if (told) console.error(told);
    },
    onPoint({ step, loss, terms, gradientNorm, editsPerSecond }) {
      for (const [name, value] of Object.entries({ loss, ...terms, gradientNorm }))
        smooth.set(name, (smooth.get(name) ?? value) * 0.97 + value * 0.03);
      const now = performance.now();
      first ??= { step, at: now };
      // The first point knows no speed; the one after it is told at once.
      if (step !== options.steps && (editsPerSecond === 0 || now - told < 10_000)) return;
      told = now;
      // null at the end alone
      const left = secondsLeft((now - first.at) / 1000, first.step, step, options.steps) ?? 0;
      const minutes = (seconds: number) => (seconds / 60).toFixed(1).padStart(5);
      const cells = [
        `${String(step).padStart(String(options.steps).length)}/${options.steps}`,
        `${minutes((now - started) / 1000)} min`,
        `${minutes(left)} min left`,
        `${editsPerSecond === 0 ? '    –' : editsPerSecond.toFixed(1).padStart(5)} edits/s`,
        `${(process.memoryUsage.rss() / 1e9).toFixed(1).padStart(4)} GB`,
        ...[...smooth].map(([name, value]) => `${name} ${value.toFixed(3)}`),
      ];
      console.log(cells.join('  '));
    },
    onValidation({ step, exactMatch, teacherForced }) {
      const [exact, forced] = [exactMatch, teacherForced].map((share) => (100 * share).toFixed(1));
      console.log(
        `${step}: mean of the five ${forced} teacher-forced, ${exact} exact match, on edits held out`,
      );
    },
  };
  await runTraining(request, work, options.out, hooks);
  const { training } = z
    .object({ training: z.object({ router: Calibrated }) })
    .parse(await readJson(join(options.out, 'adapter.json')));
  const { layer, threshold, acts, staysOut } = training.router;
  console.log(
    `Router at layer ${layer}, threshold ${threshold.toFixed(3)}: acts on ${(100 * acts).toFixed(1)} % of rephrases, stays out of ${(100 * staysOut).toFixed(1)} % of other inputs.`,
  );
  console.log(`Written to ${options.out}.`);
  if (options.scopeData === undefined) return;
  const { model, out, images, suffix, seed } = options;
  await trainScopeBeside(
    { ...usualScopeOptions, model, adapter: out, data: options.scopeData, images, suffix, seed },
    signal,
  );
}

const Calibrated = z.object({
  layer: z.number(),
  threshold: z.number(),
  acts: z.number(),
  staysOut: z.number(),
});
