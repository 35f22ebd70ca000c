/** @file `emend attribute …`: what contributes to an answer, by layer, modality and part of the picture; which layer to edit. */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Command, Option } from 'commander';
import type {
  CallInput,
  CallOutput,
  LayerProposal,
  ModalityReport,
  ModuleReport,
  VisualReport,
} from '../api/contract.ts';
import { codePerturbation, paperPerturbation } from '../attribution/visualContribution.ts';
import { forkEngine } from '../engine/forkEngine.ts';
import type { AttributedInputs, EngineOperations } from '../engine/protocol.ts';
import { startEngine } from '../engine/supervisor.ts';
import { EmendError } from '../errors.ts';
import { paintedPicture } from '../files/paintedPicture.ts';
import { readPictureFile } from '../files/picture.ts';
import type { Provider } from '../tensor/session.ts';
import { gateCommand } from './attributeGate.ts';
import { type BarChart, barChartsPng } from './barChart.ts';
import {
  type EditorOptions,
  editorOptions,
  layerList,
  modelOrDemo,
  number,
  pictureRowsOption,
  providerOption,
  suffixOption,
  tellProgress,
  untilInterrupted,
  wholeNumber,
} from './options.ts';
import { print, withSession } from './session.ts';

interface Options extends EditorOptions {
  model?: string;
  adapter?: string;
  library?: string;
  edit?: number;
  image?: string;
  prompt?: string;
  data?: string;
  images?: string;
  limit: number;
  suffix?: string;
  pictureRows?: number;
  provider?: Provider;
  json?: boolean;
  csv?: string;
}
interface ModulesOptions extends Options {
  token?: string;
  control?: string;
  png?: string;
  variant: 'code' | 'paper';
}
interface VisualOptions extends Options {
  layer?: number[];
  variant: 'code' | 'paper';
  level?: number;
  draws?: number;
  radius?: number;
  seed: number;
  png?: string;
}
interface ModalityOptions extends Options {
  noise: boolean;
  png?: string;
  level: number;
  draws: number;
  seed: number;
}
interface ProposeOptions extends Options {
  rows: 'visual' | 'text';
  layer?: number;
  seed: number;
}

export function attributeCommand(): Command {
  const command = new Command('attribute').description(
    'what contributes to an answer: layers, modalities, parts of the picture; which layer to edit',
  );
  command
    .command('modules')
    .description('contribution of each layer’s attention and MLP to the key token (VisEdit eqs. 1–5)')
    .option('--token <text>', 'key token: the first of this text; what the model says next otherwise')
    .option('--control <text>', 'wrong key token to compare with; one of the set otherwise')
    .addOption(variantOption('code'))
    .addOption(chartsOption())
    .action(modules);
  command
    .command('visual')
    .description('contribution of each part of the picture to a layer’s attention output (eqs. 6–8)')
    .option('--layer <list>', 'layers, as 3 or 3,5,7; all otherwise', layerList)
    .addOption(variantOption('paper'))
    .option(
      '--level <number>',
      'of the noise: of σ in the paper (3), as it is in the code (0.7)',
      number(1e-9, 1000),
    )
    .option('--draws <number>', 'draws to average over', wholeNumber(1, 1000))
    .option('--radius <number>', 'cells this far are perturbed together', wholeNumber(0, 100))
    .option('--seed <number>', 'of the noise', wholeNumber(0, 1_000_000), 0)
    .option('--png <folder>', 'write the picture with each layer’s map over it into this folder')
    .action(visual);
  command
    .command('modality')
    .description(
      'attention to text and to the picture by layer, and the effect of noise on either (DualEdit Figs. 1, 2)',
    )
    .option('--no-noise', 'attention alone')
    .option('--level <number>', 'of the noise, in standard deviations of the rows', number(1e-9, 1000), 1)
    .option('--draws <number>', 'draws to average over', wholeNumber(1, 100), 3)
    .option('--seed <number>', 'of the noise', wholeNumber(0, 1_000_000), 0)
    .addOption(chartsOption())
    .action(modality);
  command
    .command('propose')
    .description('a layer for an editor on this model, and why; better on a set than on one input')
    .addOption(
      new Option('--rows <which>', 'what the editor changes').choices(['visual', 'text']).default('visual'),
    )
    .option('--layer <number>', 'the layer you would take instead', wholeNumber(0, 1000))
    .option('--seed <number>', 'of the noise', wholeNumber(0, 1_000_000), 0)
    .action(propose);
  for (const below of command.commands) {
    below
      .option('--model <folder>', 'checkpoint folder; the demo model otherwise')
      .option('--image <file>', 'picture, with --prompt')
      .option('--prompt <text>', 'the question')
      .option(
        '--edit <number>',
        'an edit of the library: its picture and question, also as it acts',
        wholeNumber(1, 1e15),
      )
      .option('--library <file>', 'with --edit: the library')
      .option('--adapter <folder>', 'with --edit: adapter to open the model with')
      .addOption(suffixOption())
      .addOption(pictureRowsOption())
      .addOption(providerOption())
      .option('--json', 'print for programs')
      .option('--csv <file>', 'write the table, a line a layer, to this file');
    for (const option of editorOptions()) below.addOption(option);
    if (below.name() === 'visual') continue;
    below
      .option('--data <file>', 'the mean over an editing set')
      .option('--images <folder>', 'folder that its pictures are relative to; the set’s own otherwise')
      .option('--limit <number>', 'take only the first edits', wholeNumber(1, 1000), 100);
  }
  return command.addCommand(gateCommand());
}

const chartsOption = () => new Option('--png <file>', 'write the values as bars by layer to this file');

const variantOption = (usual: 'code' | 'paper') =>
  new Option('--variant <which>', 'as the paper prints it, or as the published code does it')
    .choices(['paper', 'code'])
    .default(usual);

/** What is attributed: exactly one of a picture with a question, a set, and an edit. */
function demandOne({ image, prompt, data, edit, library, adapter, editor, suffix }: Options): void {
  const one = image !== undefined && prompt !== undefined;
  if (
    [one, data !== undefined, edit !== undefined].filter(Boolean).length !== 1 ||
    (!one && (image ?? prompt) !== undefined)
  ) {
    throw new EmendError('invalid-input', 'Give either --image with --prompt, or --data, or --edit.');
  }
  if (edit === undefined && (library ?? adapter ?? editor) !== undefined)
    throw new EmendError('invalid-input', '--library, --adapter and --editor go with --edit. Add it.');
  if (edit !== undefined && suffix !== undefined)
    throw new EmendError(
      'invalid-input',
      '--suffix cannot go with --edit, whose question is asked as it is.',
    );
}

type Attribution = 'attributeModules' | 'attributeVisual' | 'attributeModality' | 'proposeLayer';

/** One operation in an engine of its own, on a model without adapter. */
async function inEngine<N extends Attribution>(
  options: Options,
  name: N,
  input: EngineOperations[N]['input'],
): Promise<EngineOperations[N]['output']> {
  const engine = startEngine({ launch: () => forkEngine() });
  try {
    return await untilInterrupted(async (signal) => {
      const { provider, pictureRows } = options;
      const opening = {
        path: modelOrDemo(options.model),
        adapter: null,
        providers: provider ? [provider] : [],
        ...{ template: 'plain' as const, pictureRows },
      };
      await engine.call('open', opening, { signal });
      return engine.call(name, input, {
        signal,
        onStream: (message) => {
          if (message.kind === 'progress') tellProgress(message.stage, message.done, message.total);
        },
      });
    });
  } finally {
    await engine.stop();
  }
}

/** One call on an edit of the library, and its picture. */
async function inLibrary<
  N extends 'attribution.modules' | 'attribution.visual' | 'attribution.modality' | 'attribution.propose',
>(
  { library, model, adapter, editor, setting, scope, scopeFolder, provider, edit }: Options,
  name: N,
  input: Omit<CallInput<N>, 'of'>,
): Promise<{ found: CallOutput<N>; picture: Uint8Array }> {
  const providers = provider && [provider];
  return withSession(
    { library, model, adapter, editor, setting, scope, scopeFolder, providers, needsModel: true },
    async ({ call }) => {
      const shown = await call('edits.show', { id: edit! });
      const found = await call(name, { ...input, of: { edit: edit! } } as CallInput<N>);
      const { base64 } = await call('pictures.read', { id: shown.edit.picture });
      return { found, picture: Buffer.from(base64, 'base64') };
    },
  );
}

async function inputsOf({
  data,
  images,
  limit,
  image,
  prompt,
  suffix = '',
}: Options): Promise<AttributedInputs> {
  if (data !== undefined) return { file: data, images, limit, suffix };
  return { inputs: [{ picture: await readPictureFile(image!), prompt: prompt! + suffix }] };
}

async function modules(options: ModulesOptions): Promise<void> {
  demandOne(options);
  const { token, control, variant } = options;
  const found =
    options.edit === undefined
      ? await inEngine(options, 'attributeModules', {
          of: await inputsOf(options),
          ...{ token: token ?? null, control: control ?? null, variant, edit: null },
        })
      : (await inLibrary(options, 'attribution.modules', { token, control, variant })).found;
  if (options.png !== undefined) await written(options.png, await barChartsPng(moduleCharts(found)));
  await tell(options, found, moduleTable(found), moduleColumns(found));
}

async function visual(options: VisualOptions): Promise<void> {
  demandOne(options);
  const { variant, level, draws, radius, seed, layer } = options;
  const usual = variant === 'paper' ? paperPerturbation : codePerturbation;
  const given = { level: level ?? usual.level, draws: draws ?? usual.draws, radius: radius ?? usual.radius };
  let found: VisualReport;
  let picture: Uint8Array;
  if (options.edit === undefined) {
    picture = await readPictureFile(options.image!);
    found = await inEngine(options, 'attributeVisual', {
      ...{ picture, prompt: options.prompt! + (options.suffix ?? ''), layers: layer ?? null },
      ...{ perturbation: { variant, ...given }, seed, edit: null },
    });
  } else {
    ({ found, picture } = await inLibrary(options, 'attribution.visual', {
      ...{ layers: layer, variant, ...given, seed },
    }));
  }
  if (options.png !== undefined) await writeOverlays(options.png, picture, found);
  await tell(options, found, visualTable(found, options), visualColumns(found));
}

async function modality(options: ModalityOptions): Promise<void> {
  demandOne(options);
  const { level, draws, seed } = options;
  const noise = options.noise ? { level, draws, seed } : null;
  const found =
    options.edit === undefined
      ? await inEngine(options, 'attributeModality', { of: await inputsOf(options), noise })
      : (await inLibrary(options, 'attribution.modality', { noise })).found;
  if (options.png !== undefined) await written(options.png, await barChartsPng(modalityCharts(found)));
  await tell(options, found, modalityTable(found), modalityColumns(found));
}

async function propose(options: ProposeOptions): Promise<void> {
  demandOne(options);
  const { rows, seed, layer } = options;
  const found =
    options.edit === undefined
      ? await inEngine(options, 'proposeLayer', { of: await inputsOf(options), rows, seed })
      : (await inLibrary(options, 'attribution.propose', { rows, seed })).found;
  if (layer !== undefined && layer >= found.readAbove.length - 1) {
    throw new EmendError(
      'invalid-input',
      `Layer ${layer} cannot be edited: this model takes layers 0 to ${found.readAbove.length - 2}.`,
    );
  }
  await tell(options, found, proposalText(found, layer), proposalColumns(found));
}

/** Columns of a table, each with a value a line. */
type Columns = ReadonlyArray<readonly [name: string, values: readonly number[]]>;

async function tell(options: Options, found: unknown, text: string, columns: Columns): Promise<void> {
  if (options.csv !== undefined) {
    const lines = Array.from({ length: columns[0]![1].length }, (_, at) =>
      columns.map(([, values]) => String(values[at] ?? '')).join(','),
    );
    const csv = `${[columns.map(([name]) => name).join(','), ...lines].join('\n')}\n`;
    await written(options.csv, csv);
  }
  print(found, text, options.json);
}

async function written(path: string, content: string | Uint8Array): Promise<void> {
  await writeFile(path, content).catch((cause) => {
    const { code } = cause as NodeJS.ErrnoException;
    throw new EmendError('invalid-input', `${path} cannot be written (${code}).`, { cause });
  });
}

/** The picture with each map over it, each map's hottest cell in the full colour; influence as it is. */
async function writeOverlays(folder: string, picture: Uint8Array, found: VisualReport): Promise<void> {
  const { rows, columns, window } = found;
  await mkdir(folder, { recursive: true }).catch((cause) => {
    throw new EmendError('invalid-input', `The folder ${folder} cannot be made.`, { cause });
  });
  const paint = async (name: string, values: readonly number[]) =>
    written(join(folder, name), await paintedPicture(picture, { rows, columns, window, values }));
  for (const { layer, before, after } of found.layers) {
    const at = `layer-${String(layer).padStart(2, '0')}`;
    await paint(`${at}.png`, toFullColour(before));
    if (after) await paint(`${at}-edited.png`, toFullColour(after));
  }
  if (found.influence) await paint('influence.png', found.influence.values);
}

function toFullColour(values: readonly number[]): number[] {
  const hottest = Math.max(...values) || 1;
  return values.map((value) => value / hottest);
}

const every = (values: readonly unknown[]) => values.map((_, layer) => layer);
const table = (columns: Columns, digits = 4): string => {
  const cell = (text: string, name: string) => text.padStart(Math.max(name.length, 9) + 2);
  const head = columns.map(([name]) => cell(name, name)).join('');
  const lines = columns[0]![1].map((_, at) =>
    columns
      .map(([name, values]) =>
        cell(name === 'layer' ? String(values[at]) : (values[at] ?? 0).toFixed(digits), name),
      )
      .join(''),
  );
  return [head, ...lines].join('\n');
};

function moduleColumns({ contribution, control, edited }: ModuleReport): Columns {
  return [
    ['layer', every(contribution.attention)],
    ['attention', contribution.attention],
    ['mlp', contribution.mlp],
    ...(control
      ? ([
          ['wrong_attention', control.attention],
          ['wrong_mlp', control.mlp],
        ] as const)
      : []),
    ...(edited
      ? ([
          ['edited_attention', edited.attention],
          ['edited_mlp', edited.mlp],
        ] as const)
      : []),
  ];
}

function moduleTable(report: ModuleReport): string {
  const { inputs, count, control, edited, variant } = report;
  const keys = count === 1 ? `to “${inputs[0]!.key}”` : `each to its own key token, mean of ${count} inputs`;
  const wrong = control && (count === 1 ? `“${inputs[0]!.wrong}”` : `${control.count} wrong key tokens`);
  return [
    table(moduleColumns(report)),
    `Contribution ${keys}; final norm ${variant === 'code' ? 'before the head, as in the published code' : 'left out, as the paper prints it'}.`,
    ...(wrong ? [`wrong: the same on ${wrong}.`] : []),
    ...(edited ? [`edited: with the edit acting, to “${edited.keys[0]}”.`] : []),
  ].join('\n');
}

/** The charts that the page draws. */
function moduleCharts({ inputs, count, contribution, control, edited, variant }: ModuleReport): BarChart[] {
  const axis = variant === 'code' ? 'contribution, final norm before the head' : 'contribution';
  const chart = (title: string, { attention, mlp }: ModuleReport['contribution']): BarChart => ({
    ...{ title, axis },
    series: [
      { name: 'attention', values: attention },
      { name: 'MLP', values: mlp },
    ],
  });
  const [one] = inputs;
  return [
    chart(
      count === 1
        ? `Contribution to “${one!.key}”`
        : `Contribution, each to its own key token, mean of ${count} inputs`,
      contribution,
    ),
    ...(edited ? [chart(`With the edit, to “${edited.keys[0]}”`, edited)] : []),
    ...(control
      ? [
          chart(
            count === 1 ? `To a wrong token, “${one!.wrong}”` : `To ${control.count} wrong tokens, mean`,
            control,
          ),
        ]
      : []),
  ];
}

function visualColumns({ layers, columns }: VisualReport): Columns {
  const cells = layers.flatMap(({ layer, before, after }) =>
    before.map((value, at) => ({ layer, at, value, after: after?.[at] })),
  );
  return [
    ['layer', cells.map(({ layer }) => layer)],
    ['row', cells.map(({ at }) => Math.floor(at / columns))],
    ['column', cells.map(({ at }) => at % columns)],
    ['contribution', cells.map(({ value }) => value)],
    ...(cells[0]?.after === undefined ? [] : ([['edited', cells.map(({ after }) => after!)]] as const)),
  ];
}

function visualTable(
  { layers, rows, columns, placed, keys }: VisualReport,
  { png, variant }: VisualOptions,
): string {
  const hottest = (values: readonly number[]) => {
    const at = values.indexOf(Math.max(...values));
    return placed === false ? `query ${at}` : `row ${Math.floor(at / columns)}, column ${at % columns}`;
  };
  const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;
  const side = (values: readonly number[]) =>
    `${mean(values).toExponential(2).padStart(10)}${Math.max(...values)
      .toExponential(2)
      .padStart(11)}   ${hottest(values)}`;
  return [
    'layer      mean    hottest',
    ...layers.flatMap(({ layer, before, after }) => [
      `${String(layer).padStart(5)}${side(before)}`,
      ...(after ? [`     ${side(after)}   with the edit`] : []),
    ]),
    `${placed === false ? `${columns} queries that each see all of the picture` : `${rows} × ${columns} cells`}; noise as ${variant === 'paper' ? 'the paper' : 'the published code'} has it.`,
    `The model says “${keys.before}”${keys.after === null ? '' : `, with the edit “${keys.after}”`}.`,
    ...(png === undefined ? [] : [`Overlays are in ${png}.`]),
  ].join('\n');
}

function modalityColumns({ attention, noise }: ModalityReport): Columns {
  return [
    ['layer', every(attention.text)],
    ['text', attention.text],
    ['visual', attention.visual],
    ['top_3_visual', attention.topVisual],
    ['visual_share', attention.visualShare],
    ...(noise
      ? ([
          ['noise_visual', noise.visual],
          ['noise_text', noise.text],
          ['noise_both', noise.both],
        ] as const)
      : []),
  ];
}

function modalityTable(report: ModalityReport): string {
  const { count, noise } = report;
  return [
    table(modalityColumns(report)),
    `Attention of the last prompt token, per row of text, per visual row, the three that get most, and the picture’s sum; ${count} input${count === 1 ? '' : 's'}.`,
    ...(noise
      ? [
          `noise: KL divergence in nats of the next token when noise of ${noise.level} standard deviations is put on rows at the layer’s output, ${noise.draws} draws.`,
        ]
      : []),
  ].join('\n');
}

/** The charts that the page draws. */
function modalityCharts({ attention, noise }: ModalityReport): BarChart[] {
  const { text, visual, topVisual, visualShare } = attention;
  return [
    {
      title: 'Attention of the last prompt token, per row',
      axis: 'attention weight',
      series: [
        { name: 'text', values: text },
        { name: 'picture', values: visual },
        { name: 'the picture’s top three', values: topVisual },
      ],
    },
    {
      title: 'Attention of the last prompt token to all of the picture',
      axis: 'attention weight',
      series: [{ name: 'picture', values: visualShare }],
    },
    ...(noise
      ? [
          {
            title: `The next token under noise of ${noise.level} σ at the layer’s output`,
            axis: 'KL divergence, nats',
            series: [
              { name: 'on text', values: noise.text },
              { name: 'on the picture', values: noise.visual },
              { name: 'on both', values: noise.both },
            ],
          },
        ]
      : []),
  ];
}

function proposalColumns({ readAbove, measures }: LayerProposal): Columns {
  return [
    ['layer', every(readAbove)],
    ['attention', measures.attention],
    ['mlp', measures.mlp],
    ['visual', measures.visual],
    ['question', measures.text],
    ['read_above', readAbove],
  ];
}

function proposalText(found: LayerProposal, wanted: number | undefined): string {
  const share = (layer: number) => `${(100 * found.readAbove[layer]!).toFixed(0)} %`;
  const what = found.rows === 'visual' ? 'the picture’s rows' : 'the question’s rows';
  return [
    table(proposalColumns(found)),
    `Proposed for an editor of ${what}: layer ${found.layer}. ${found.why}`,
    `Layers that contribute most: ${found.highContributionLayers.join(', ')}.`,
    ...(wanted === undefined
      ? []
      : [
          `Layer ${wanted}, which you would take, has ${share(wanted)} of the reading above it; layer ${found.layer} has ${share(found.layer)}.`,
        ]),
    `Train there with: emend train --layer ${wanted ?? found.layer} …`,
  ].join('\n');
}
