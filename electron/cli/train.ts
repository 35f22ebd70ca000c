/** @file `emend train`: an editor's adapters trained for a checkpoint, saved with their calibrated router. */

import { basename, join, resolve } from 'node:path';
import { Command, Option } from 'commander';
import { z } from 'zod';
import { editorKinds } from '../editors/registry.ts';
import type { AdapterOptions } from '../editors/trainAdapters.ts';
import type { RaisedPictures } from '../editors/visedit/batch.ts';
import type { AdapterStart } from '../editors/visedit/initialAdapter.ts';
import { publishedWeights } from '../editors/visedit/losses.ts';
import {
  runTraining,
  type TrainingHooks,
  type TrainingRequest,
  usualOptimizer,
} from '../evaluation/trainingRun.ts';
import { readJson } from '../files/json.ts';
import type { WeightForm } from '../models/packed/form.ts';
import {
  inForm,
  layerList,
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
  textLayer?: number;
  influenceMapper: boolean;
  weights: WeightForm;
  model?: string;
  data: string;
  images?: string;
  out: string;
  work?: string;
  name?: string;
  layer: number;
  steps: number;
  batch: number;
  rate: number;
  warmUp: number;
  middle: number;
  influenceMiddle: number;
  heads: number;
  attention: 'published' | 'row-kinds';
  influenceWeight: number;
  influenceUpWeight?: number;
  influenceDownWeight?: number;
  attributionWeight: number;
  attributionLayers?: readonly number[];
  imageGeneralityWeight: number;
  localityWeight: number;
  scale: number;
  start: AdapterStart;
  from?: string;
  rows: number;
  sampled: number;
  influencePictures: RaisedPictures;
  endToken: boolean;
  extended?: boolean;
  scopeData?: string;
  suffix?: string;
  seed: number;
  validate?: number;
  validateEvery: number;
  validationData?: string;
  layerwise?: boolean;
  pictureRows?: number;
  provider?: 'cuda' | 'dml' | 'coreml' | 'webgpu' | 'cpu';
}

export function trainCommand(): Command {
  return new Command('train')
    .enablePositionalOptions()
    .addCommand(trainScopeCommand())
    .description('train an editor’s adapters; stopped and started again, it goes on where it was')
    .addOption(
      new Option('--editor <name>', 'what is trained')
        .choices(editorKinds.filter(({ training }) => training).map(({ name }) => name))
        .default(editorKinds[0]!.name),
    )
    .option('--model <folder>', 'checkpoint folder; the demo model otherwise')
    .option('--data <file>', 'editing set in E-VQA’s JSON form, or a module that exports openEditSource')
    .option('--images <folder>', 'folder that pictures are relative to; the set’s own otherwise')
    .option('--out <folder>', 'where the adapter is written')
    .option('--work <folder>', 'where the training state is kept; <out>/training otherwise')
    .option('--name <text>', 'name of the adapter; the folder’s otherwise')
    .option(
      '--layer <number>',
      'decoder layer whose output is changed, from 0; of visual rows where an editor also changes text rows',
      wholeNumber(0, 1000),
    )
    .option('--text-layer <number>', 'the same for text rows; --layer otherwise', wholeNumber(0, 1000))
    .option(
      '--no-influence-mapper',
      'visual rows are changed everywhere alike, and there is no influence map',
    )
    .option('--steps <number>', 'steps of the optimiser', wholeNumber(1, 10_000_000), 50_000)
    .option('--batch <number>', 'edits a step', wholeNumber(1, 1024), 4)
    .option('--rate <number>', 'peak learning rate', number(0, 1), 1e-4)
    .option('--warm-up <number>', 'steps of warm-up', wholeNumber(0, 100_000), 100)
    .option('--middle <number>', 'width of the cross-attention', wholeNumber(1, 16_384), 1024)
    .option('--influence-middle <number>', 'width inside the influence mapper', wholeNumber(1, 16_384), 1024)
    .option('--heads <number>', 'attention heads', wholeNumber(1, 256), 8)
    .addOption(
      new Option(
        '--attention <form>',
        'published: by content alone; row-kinds: helped by what kind of row each is',
      )
        .choices(['published', 'row-kinds'])
        .default('published'),
    )
    .option(
      '--influence-weight <number>',
      'weight of the influence losses up and down',
      number(0, 100),
      publishedWeights.influenceUp,
    )
    .option('--influence-up-weight <number>', 'of the loss up alone', number(0, 100))
    .option('--influence-down-weight <number>', 'of the loss down alone', number(0, 100))
    .option(
      '--attribution-weight <number>',
      'weight of the influence attribution loss',
      number(0, 100),
      publishedWeights.influenceAttribution,
    )
    .option(
      '--attribution-layers <numbers>',
      'decoder layers whose attention teaches the influence mapper, as 3,4; all above --layer but the last otherwise',
      layerList,
    )
    .option(
      '--image-generality-weight <number>',
      'weight of image generality',
      number(0, 100),
      publishedWeights.imageGenerality,
    )
    .option(
      '--locality-weight <number>',
      'weight of image locality',
      number(0, 100),
      publishedWeights.imageLocality,
    )
    .option(
      '--scale <number>',
      'change in units of the rows’ norm at the layer; 0 as published',
      number(0, 1000),
      0,
    )
    .addOption(
      new Option(
        '--start <form>',
        'weights to start from: published, at random; similarity, target for what matches the edit’s picture (needs row-kinds)',
      )
        .choices(['published', 'similarity'])
        .default('published'),
    )
    .option(
      '--from <folder>',
      'adapter whose weights to start from, of this model or of an earlier state of it',
    )
    .option('--rows <number>', 'rows set aside for picture and texts', wholeNumber(8, 100_000), 160)
    .option('--sampled <number>', 'visual tokens drawn for the influence losses', wholeNumber(1, 10_000), 24)
    .addOption(
      new Option(
        '--influence-pictures <which>',
        'where influence is to rise: both of an edit’s pictures, a term for each (VisEdit’s eq. 16), or one that each step draws',
      )
        .choices(['both', 'one'])
        .default('both'),
    )
    .option('--no-end-token', 'targets end without the end token in the loss, as published')
    .option(
      '--extended',
      'also train other questions about the edit’s picture, and its question elsewhere, to stay',
    )
    .option(
      '--layerwise',
      'run the decoder one layer at a time: slower, in the memory of one layer; always so with packed weights',
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
    .addOption(weightsOption())
    .addOption(providerOption())
    .action((options: TrainOptions, command: Command) => {
      // Not required of `train scope`, which commander would ask them of too.
      for (const name of ['data', 'out', 'layer'] as const)
        if (options[name] === undefined) command.error(`error: required option '--${name}' not specified`);
      return untilInterrupted((signal) => train(options, signal));
    });
}

async function train(options: TrainOptions, signal: AbortSignal): Promise<void> {
  const work = options.work ?? join(options.out, 'training');
  const settings: AdapterOptions = {
    layer: options.layer,
    ...(options.textLayer !== undefined && { textLayer: options.textLayer }),
    shape: {
      middle: options.middle,
      influenceMiddle: options.influenceMiddle,
      heads: options.heads,
      influenceMapper: options.influenceMapper,
      attention: options.attention,
    },
    edits: options.batch,
    rows: options.rows,
    sampled: options.sampled,
    raised: options.influencePictures,
    weights: {
      ...publishedWeights,
      imageGenerality: options.imageGeneralityWeight,
      imageLocality: options.localityWeight,
      influenceUp: options.influenceUpWeight ?? options.influenceWeight,
      influenceDown: options.influenceDownWeight ?? options.influenceWeight,
      influenceAttribution: options.attributionWeight,
    },
    endToken: options.endToken,
    scale: options.scale,
    start: options.start,
    ...(options.attributionLayers && { attributionLayers: options.attributionLayers }),
    optimizer: usualOptimizer(options.rate, options.warmUp, options.steps),
    steps: options.steps,
    seed: options.seed,
  };
  const request: TrainingRequest = {
    editor: options.editor,
    name: options.name ?? basename(resolve(options.out)),
    model: modelOrDemo(options.model),
    data: options.data,
    ...(options.images !== undefined && { images: options.images }),
    suffix: options.suffix ?? '',
    extended: options.extended ?? false,
    ...(options.from !== undefined && { from: options.from }),
    weights: options.weights,
    ...(options.pictureRows !== undefined && { pictureRows: options.pictureRows }),
    providers: options.provider ? [options.provider] : [],
    layerwise: options.layerwise ?? false,
    validation:
      options.validate === undefined
        ? null
        : { edits: options.validate, every: options.validateEvery, file: options.validationData },
    options: settings,
  };

  const smooth = new Map<string, number>();
  const started = performance.now();
  let told = started;
  const hooks: TrainingHooks = {
    signal,
    packed: inForm(options.weights).packed,
    progress: tellProgress,
    onPoint({ step, loss, terms, gradientNorm }) {
      for (const [name, value] of Object.entries({ loss, ...terms, gradientNorm }))
        smooth.set(name, (smooth.get(name) ?? value) * 0.97 + value * 0.03);
      if (step !== options.steps && performance.now() - told < 10_000) return;
      told = performance.now();
      const values = [...smooth].map(([name, value]) => `${name} ${value.toFixed(3)}`).join('  ');
      console.log(`${step}/${options.steps}  ${((told - started) / 60_000).toFixed(1)} min  ${values}`);
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
