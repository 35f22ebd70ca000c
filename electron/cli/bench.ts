/** @file `emend bench`: an adapter measured over an editing set, each metric told twice. */

import { writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { Command, InvalidArgumentError } from 'commander';
import { demoModel } from '../api/resources.ts';
import type { Reach } from '../editors/scope/scope.ts';
import { type ManyReport, type MeasuredActors, measure, type SingleReport } from '../engine/benchmarking.ts';
import { EmendError } from '../errors.ts';
import { editVerdicts, type Scores, type Told } from '../evaluation/benchmark.ts';
import type { Estimate } from '../evaluation/bootstrap.ts';
import { comparisonText } from '../evaluation/comparisonReport.ts';
import { leftOut } from '../evaluation/editingSet.ts';
import type { ProbeRole, SizeResult } from '../evaluation/manyEdits.ts';
import {
  knowledgeMetrics,
  leakMetrics,
  type Metric,
  metricNames,
  paperMetrics,
} from '../evaluation/metrics.ts';
import type { SetFormatName } from '../evaluation/sets/registry.ts';
import { resourcesFolder, version } from '../frontends/places.ts';
import type { WeightForm } from '../models/packed/form.ts';
import type { PromptForm } from '../models/prompt.ts';
import type { Provider } from '../tensor/session.ts';
import { compareEditors } from './compareEditors.ts';
import {
  type EditorOptions,
  editorChoice,
  editorOptions,
  formatOption,
  inForm,
  maxNewTokensOption,
  modelOrDemo,
  providerOption,
  reachOption,
  suffixOption,
  tellOpening,
  templateOption,
  typedCommand,
  untilInterrupted,
  weightsOption,
  wholeNumber,
} from './options.ts';

interface BenchOptions extends EditorOptions {
  weights: WeightForm;
  model?: string[];
  adapter?: string;
  data: string[];
  format?: SetFormatName;
  images?: string;
  limit?: number;
  seeds?: number;
  scoped?: boolean;
  reach: Reach;
  at?: number[];
  fresh?: string;
  limitProbes: number;
  suffix?: string;
  textSuffix: string;
  template: PromptForm;
  maxNewTokens: number;
  seed: number;
  provider?: Provider;
  json?: string;
  out: string;
  adapters?: string[];
}

const labels: Readonly<Record<Metric, string>> = {
  reliability: 'reliability',
  textGenerality: 'text generality',
  imageGenerality: 'image generality',
  textLocality: 'text locality',
  imageLocality: 'image locality',
  samePicture: 'same picture, other question',
  sameQuestion: 'other picture, same question',
  textReliability: 'text reliability',
  imageReliability: 'image reliability',
  portability: 'portability',
};

export function benchCommand(): Command {
  const command = new Command('bench')
    .description('measure an editor on an editing set, one edit at a time')
    .option(
      '--model <folder>',
      'checkpoint folder; the demo model otherwise. With several editors, several times: each in turn',
      oneMore,
    )
    .option('--adapter <folder>', 'adapter folder; the demo adapter with the demo model')
    .requiredOption(
      '--data <file>',
      'editing set: E-VQA, E-IC, VLKEB, MMKE-Bench, Emend’s or CSV. With several editors, several times',
      oneMore,
    )
    .addOption(formatOption())
    .option('--images <folder>', 'folder that pictures are relative to; the set’s own otherwise')
    .option('--at <numbers>', 'let the first so many edits act together, for each of these: 1,10,100', sizes)
    .option('--fresh <file>', 'with --at: another editing set, whose questions no edit is about')
    .option(
      '--limit-probes <number>',
      'with --at: edits whose probes are asked, from the first',
      wholeNumber(1, 1_000_000),
      150,
    )
    .option('--limit <number>', 'take only the first edits', wholeNumber(1, 1_000_000))
    .option(
      '--seeds <number>',
      'of edits alone: so many random draws of --limit edits, told as mean ± standard deviation',
      wholeNumber(2, 100),
    )
    .option('--scoped', 'let the scope decide whether an edit acts; the papers have none')
    .addOption(reachOption())
    .addOption(suffixOption())
    .option('--text-suffix <text>', 'appended to prompts without a picture; "?" in the papers', '')
    .addOption(templateOption())
    .addOption(maxNewTokensOption(32))
    .option('--seed <number>', 'of the bootstrap intervals', wholeNumber(0, 2 ** 32 - 1), 1)
    .addOption(weightsOption())
    .addOption(providerOption())
    .option('--json <file>', 'write everything, edit by edit, to this file')
    .option('--out <folder>', 'with several editors: where runs and report are kept', 'comparison')
    .option('--adapters <folders...>', 'with several editors: folders of adapters, or that hold such')
    .action(async (options: BenchOptions) => {
      if (options.editor === 'all' || options.editor?.includes(','))
        return untilInterrupted((signal) => compareAll(options, signal));
      const result = await untilInterrupted((signal) => run(options, signal));
      console.log('sizes' in result ? manyTable(result, options) : table(result));
      if (options.json) {
        await writeFile(options.json, `${JSON.stringify(result, null, 1)}\n`).catch((cause) => {
          const { code } = cause as NodeJS.ErrnoException;
          throw new EmendError('invalid-input', `${options.json} cannot be written (${code}).`, { cause });
        });
      }
    });
  for (const option of editorOptions()) command.addOption(option);
  return command;
}

/** Parser of an option that may be given several times. */
const oneMore = (text: string, before: string[] = []) => [...before, text];

/** Several editors, each in a process of its own; on every model with every data set. */
async function compareAll(options: BenchOptions, signal: AbortSignal): Promise<void> {
  const { editor, data, format, images, seeds, at = [1], limit = 300, limitProbes, out, json } = options;
  if (options.setting || options.adapter || json)
    throw new EmendError(
      'invalid-input',
      'Several editors take no --setting, --adapter or --json: see --adapters and --out.',
    );
  const models = options.model ?? [modelOrDemo(undefined)];
  const usual = models.flatMap((model) => usualAdapter(model) ?? []);
  const adapters = options.adapters ?? usual.map((folder) => dirname(folder));
  const own: ReadonlySet<string> = new Set([
    '--editor',
    '--at',
    '--data',
    '--limit',
    '--limit-probes',
    '--seeds',
    '--out',
    '--adapters',
    ...(models.length > 1 ? ['--model'] : []),
  ]);
  const typed = process.argv.slice(process.argv.indexOf('bench') + 1);
  const comparisons = await compareEditors({
    scopeFolderOf: (model) => options.scopeFolder ?? usualAdapter(model),
    onRefused: (model, reason) =>
      console.error(
        `${models.length > 1 ? `On ${model}, ` : ''}${reason} Its rows say so; the others are measured.`,
      ),
    ...{ models, data, format, images, seeds, at, limit, limitProbes, out, adapters, signal },
    editors: editor === 'all' ? undefined : editor!.split(',').filter((name) => name !== ''),
    common: withoutOptions(typed, own),
    command: typedCommand('bench'),
  });
  const several = comparisons.length > 1;
  for (const { folder, comparison } of comparisons) {
    if (several) console.log(`${comparison.model.name} on ${comparison.data.name}`);
    console.log(comparisonText(comparison));
    console.log(`Written to ${join(folder, 'report.html')}, .csv and .json.${several ? '\n' : ''}`);
  }
  if (several) console.log(`The mean of the five of all is in ${join(out, 'overview.csv')}.`);
}

/** Arguments less some options and their values. */
function withoutOptions(typed: readonly string[], options: ReadonlySet<string>): string[] {
  const kept: string[] = [];
  let dropping = false;
  for (const text of typed) {
    if (text.startsWith('--')) dropping = options.has(text.split('=')[0]!);
    if (!dropping) kept.push(text);
  }
  return kept;
}

async function run(options: BenchOptions, signal: AbortSignal): Promise<SingleReport | ManyReport> {
  if (options.data.length > 1 || (options.model?.length ?? 1) > 1)
    throw new EmendError(
      'invalid-input',
      'Several models or data sets go with several editors: name them with --editor, or all with --editor all.',
    );
  const model = modelOrDemo(options.model?.[0]);
  const { editor, scope } = editorChoice(options);
  const usual = usualAdapter(model);
  const adapter = editor ? null : (options.adapter ?? usual);
  if (adapter === null && !editor)
    throw new EmendError(
      'invalid-input',
      'Give the adapter to measure with --adapter, or an editor with --editor.',
    );
  const { format, images, limit, limitProbes, fresh, reach, weights, template, provider } = options;
  const data = options.data[0]!;
  const { textSuffix, maxNewTokens, seed, suffix = '', scoped = false, at = null } = options;
  if (options.seeds !== undefined && limit === undefined)
    throw new EmendError('invalid-input', 'Say with --limit how many edits each of the --seeds draws.');
  const report = await measure(
    {
      ...{ model, adapter, editor, scope: scope?.form, scopeFolder: scope?.folder ?? usual ?? undefined },
      ...{ weights, template, providers: provider ? [provider] : [] },
      ...{ data, format, images, limit, seeds: options.seeds, at, limitProbes, fresh },
      ...{ scoped, reach, suffix, textSuffix, maxNewTokens, seed },
    },
    {
      emend: version(),
      packed: inForm(weights).packed,
      onSet: (set) => {
        const told = leftOut(set);
        if (told) console.error(told);
      },
    },
    { signal, send: tellOpening },
  );
  return { ...report, peakBytes: process.resourceUsage().maxRSS * 1024 };
}

/** Numbers in rising order, as typed. */
function sizes(text: string): number[] {
  const list = text.split(',').map(Number);
  const rising = list.every((size, place) => Number.isInteger(size) && size > (list[place - 1] ?? 0));
  if (rising && list.length <= 20) return list;
  throw new InvalidArgumentError('Give whole numbers in rising order, such as 1,10,100.');
}

const roleLabels: Readonly<Record<ProbeRole, string>> = {
  edit: 'the edit itself',
  rephrase: 'rephrase',
  typed: 'typed otherwise',
  heldout: 'wording never trained',
  newCore: 'core never trained',
  imageRephrase: 'image rephrase',
  elsewhere: 'the thing elsewhere',
  samePicture: 'same picture, other question',
  sameQuestion: 'other picture, same question',
  imageLocality: 'unrelated picture',
  textLocality: 'no picture',
  swapped: 'look-alike swapped in',
  textReliability: 'text reliability',
  imageReliability: 'image reliability',
  portability: 'portability',
  fresh: 'pictures of another draw',
};

/** Metrics in both tellings at every size, then what came of every role's probes. */
function manyTable(report: ManyReport, { at }: BenchOptions): string {
  const share = (found: Estimate | null) => (found ? (100 * found.mean).toFixed(1) : '–');
  const cell = (text: string) => text.padStart(15);
  const heads = at!.map((size) => cell(`${size} ${size === 1 ? 'edit' : 'edits'}`)).join('');
  const row = (label: string, of: (size: SizeResult) => string) =>
    `${label.padEnd(31)}${report.sizes.map((size) => cell(of(size))).join('')}`;
  const told = (of: (size: SizeResult) => Told) => (size: SizeResult) =>
    `${share(of(size).teacherForced)} / ${share(of(size).exactMatch)}`;
  const roles = (Object.keys(roleLabels) as ProbeRole[]).filter((role) =>
    report.sizes.some(({ answered }) => answered[role] !== undefined),
  );
  const decided = roles.some((role) => report.sizes.some(({ outcomes }) => outcomes[role]));
  const counts = (role: ProbeRole) => (size: SizeResult) => {
    const found = size.outcomes[role];
    if (!found) return '–';
    const all = Object.values(found).reduce((a, b) => a + b, 0);
    const part = (count: number) => ((100 * count) / all).toFixed(1);
    return [found.right + found.sameTarget, found.conflict, found.harm].map(part).join(' ');
  };
  const { setting } = report;
  const measured = (metric: Metric) => report.sizes.some((size) => size.metrics[metric].exactMatch !== null);
  return [
    `teacher-forced / exact match, %${heads}`,
    ...metricNames.filter(measured).map((metric) =>
      row(
        labels[metric],
        told((size) => size.metrics[metric]),
      ),
    ),
    row(
      'mean of the five',
      told((size) => size.meanOfFive),
    ),
    '',
    ...(decided
      ? [
          `acts: right, conflict, harm, %  ${heads.slice(1)}`,
          ...roles.map((role) => row(roleLabels[role], counts(role))),
          '',
        ]
      : []),
    `answered as it should be, %     ${heads.slice(1)}`,
    ...roles.map((role) =>
      row(roleLabels[role], (size) => {
        const found = size.answered[role];
        return found === undefined ? '–' : (100 * found).toFixed(1);
      }),
    ),
    '',
    ...(decided
      ? [
          'Right: the edit itself or another with the same target acted. Conflict: one about the same thing with another target. Harm: any',
          'other, or one where none should. Wordings never trained: of those that the unedited model takes as it takes the edit’s own.',
        ]
      : ['Every edit acts on every input.']),
    `The first edits of ${setting.data.path} together, probes of ${setting.probes} of them; ${setting.scope.form} scope, reach ${setting.scope.reach}; ${setting.editor}, ${setting.promptTemplate} prompts, ${setting.provider}, weights ${setting.weights}, ${report.seconds.toFixed(0)} s.`,
    ...trainedOnOther(report, setting.weights),
    `model ${report.model.name} ${report.model.fingerprint.slice(0, 12)}, adapter ${report.adapter.name} ${report.adapter.fingerprint.slice(0, 12)}, scope ${setting.scope.fingerprint.slice(0, 12)}, data ${setting.data.sha256.slice(0, 12)}`,
  ].join('\n');
}

/** An adapter acts on hidden states: those of rounded weights are not quite those it was trained on. */
function trainedOnOther({ adapter }: MeasuredActors, weights: string): string[] {
  if (adapter.weights === weights) return [];
  return [`The adapter was trained on ${adapter.weights} weights and met ${weights} ones.`];
}

function usualAdapter(path: string): string | null {
  const demo = demoModel(resourcesFolder());
  if (demo?.adapter && resolve(path) === resolve(demo.path)) return demo.adapter;
  return null;
}

const WIDTH = [31, 23];

/** The result for people: metric × (teacher-forced, exact match) in per cent with 95 % intervals. */
function table(report: SingleReport): string {
  const { setting, metrics, byConstruction } = report;
  const row = (label: string, told: Told, mark = ''): string =>
    [
      label.padEnd(WIDTH[0]!),
      percent(told.teacherForced, mark).padEnd(WIDTH[1]!),
      percent(told.exactMatch, mark),
    ].join('');
  const metricRow = (metric: Metric) => row(labels[metric], metrics[metric], byConstruction[metric] && ' *');
  const notes = Object.values(byConstruction).map((why) => `* by construction: ${why}`);
  const { data, scope } = setting;
  return [
    `${''.padEnd(WIDTH[0]!)}${'teacher-forced'.padEnd(WIDTH[1]!)}exact match`,
    ...paperMetrics.map(metricRow),
    row('mean of the five', report.meanOfFive),
    row('the target, before the edit', { teacherForced: null, exactMatch: report.answeredBefore }),
    '',
    'beyond the papers',
    ...leakMetrics.map(metricRow),
    ...knowledgeMetrics.filter((metric) => metrics[metric].exactMatch).map(metricRow),
    ...kindTable(report.kinds),
    '',
    `edits that ${editVerdicts
      .filter((verdict) => verdict !== 'entangled')
      .toReversed()
      .map((verdict) => `${verdict.replace(/s$/u, '')} ${report.verdicts[verdict]}`)
      .join(', ')}`,
    `making one takes ${report.cost.seconds.toFixed(2)} s and ${(report.cost.bytes / 1024).toFixed(1)} KB in a library`,
    '',
    ...notes,
    report.draws
      ? `${report.draws.seeds} draws of ${report.draws.edits} of the ${data.total} edits of ${data.path}, each alone; mean ± standard deviation.`
      : `${data.taken} of ${data.total} edits of ${data.path}, each alone; 95 % intervals in brackets.`,
    `${setting.editor} after layer ${setting.layers.join(', ')}, scope ${scope ? `${scope.form}, reach ${scope.reach}` : 'off'}, ` +
      `${setting.promptTemplate} prompts${setting.suffix ? ` with "${setting.suffix}"` : ''}, ${setting.provider}, ${report.seconds.toFixed(0)} s.`,
    `model ${report.model.name} ${report.model.fingerprint.slice(0, 12)}, adapter ${report.adapter.name} ${report.adapter.fingerprint.slice(0, 12)}, data ${data.sha256.slice(0, 12)}`,
  ].join('\n');
}

function percent(found: Estimate | null, mark = ''): string {
  if (!found) return '–';
  const [mean, low, high] = [found.mean, found.low, found.high].map((value) => (100 * value).toFixed(1));
  if (found.deviation !== undefined)
    return `${mean!.padStart(5)}${mark} ± ${(100 * found.deviation).toFixed(1)}`;
  return `${mean!.padStart(5)}${mark} (${low}–${high})`;
}

/** Exact match of the five by kind of edit. */
function kindTable(kinds: Readonly<Record<string, Scores>>): string[] {
  const names = Object.keys(kinds);
  if (names.length < 2) return [];
  const columns = [...paperMetrics, ...leakMetrics];
  const heads = ['rel.', 'text g.', 'image g.', 'text l.', 'image l.', 'same p.', 'same q.'];
  const cell = (text: string) => text.padStart(9);
  return [
    '',
    `${'exact match by kind'.padEnd(22)}${heads.map(cell).join('')}${cell('edits')}`,
    ...names.map((name) => {
      const { metrics } = kinds[name]!;
      const means = columns.map((metric) => metrics[metric].exactMatch?.mean);
      const shown = means.map((mean) => cell(mean === undefined ? '–' : (100 * mean).toFixed(1)));
      const count = metrics.reliability.exactMatch?.count ?? 0;
      return `${name.slice(0, 20).padEnd(22)}${shown.join('')}${cell(String(count))}`;
    }),
  ];
}
