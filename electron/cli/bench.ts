/** @file `emend bench`: an adapter measured over an editing set, each metric told twice. */
import { writeFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { Command } from 'commander';
import { demoModel } from '../api/resources.ts';
import type { Reach } from '../editors/scope/scope.ts';
import { OpenModel } from '../engine/openModel.ts';
import { EmendError } from '../errors.ts';
import { type BenchmarkResult, benchmark, type Scores, type Told } from '../evaluation/benchmark.ts';
import type { Estimate } from '../evaluation/bootstrap.ts';
import { readEditingSet } from '../evaluation/editingSet.ts';
import { leakMetrics, type Metric, paperMetrics } from '../evaluation/metrics.ts';
import { resourcesFolder, version } from '../frontends/places.ts';
import type { PromptForm } from '../models/prompt.ts';
import type { Provider } from '../tensor/session.ts';
import {
  maxNewTokensOption,
  modelOrDemo,
  providerOption,
  reachOption,
  suffixOption,
  tellProgress,
  templateOption,
  untilInterrupted,
  wholeNumber,
} from './options.ts';

interface BenchOptions {
  model?: string;
  adapter?: string;
  data: string;
  images?: string;
  limit?: number;
  scoped?: boolean;
  reach: Reach;
  suffix?: string;
  textSuffix: string;
  template: PromptForm;
  maxNewTokens: number;
  seed: number;
  provider?: Provider;
  json?: string;
}

const labels: Readonly<Record<Metric, string>> = {
  reliability: 'reliability',
  textGenerality: 'text generality',
  imageGenerality: 'image generality',
  textLocality: 'text locality',
  imageLocality: 'image locality',
  samePicture: 'same picture, other question',
  sameQuestion: 'other picture, same question',
};

export function benchCommand(): Command {
  return new Command('bench')
    .description('measure an adapter on an editing set, one edit at a time')
    .option('--model <folder>', 'checkpoint folder; the demo model otherwise')
    .option('--adapter <folder>', 'adapter folder; the demo adapter with the demo model')
    .requiredOption('--data <file>', 'editing set in E-VQA’s JSON form')
    .option('--images <folder>', 'folder that pictures are relative to; the set’s own otherwise')
    .option('--limit <number>', 'take only the first edits', wholeNumber(1, 1_000_000))
    .option('--scoped', 'let the scope decide whether an edit acts; the papers have none')
    .addOption(reachOption())
    .addOption(suffixOption())
    .option('--text-suffix <text>', 'appended to prompts without a picture; "?" in the papers', '')
    .addOption(templateOption())
    .addOption(maxNewTokensOption(32))
    .option('--seed <number>', 'of the bootstrap intervals', wholeNumber(0, 2 ** 32 - 1), 1)
    .addOption(providerOption())
    .option('--json <file>', 'write everything, edit by edit, to this file')
    .action(async (options: BenchOptions) => {
      const result = await untilInterrupted((signal) => run(options, signal));
      console.log(table(result));
      if (options.json) {
        await writeFile(options.json, `${JSON.stringify(result, null, 1)}\n`).catch((cause) => {
          const { code } = cause as NodeJS.ErrnoException;
          throw new EmendError('invalid-input', `${options.json} cannot be written (${code}).`, { cause });
        });
      }
    });
}

type Report = BenchmarkResult & {
  emend: string;
  model: { name: string; fingerprint: string };
  adapter: { name: string; fingerprint: string };
};

async function run(options: BenchOptions, signal: AbortSignal): Promise<Report> {
  const { data, images, limit, provider, template } = options;
  const set = await readEditingSet(data, { images, limit });
  const path = modelOrDemo(options.model);
  const adapter = options.adapter ?? usualAdapter(path);
  const model = await OpenModel.open(
    { path, adapter, providers: provider ? [provider] : [], template },
    { signal, send: () => {} },
  );
  try {
    const result = await benchmark(model.edited, set, {
      scoped: options.scoped ?? false,
      reach: options.reach,
      suffix: options.suffix ?? '',
      textSuffix: options.textSuffix,
      maxNewTokens: options.maxNewTokens,
      seed: options.seed,
      signal,
      onProgress: (done, total) => tellProgress('Edits measured:', done, total),
    });
    const { summary } = model;
    return {
      emend: version(),
      model: { name: summary.name, fingerprint: summary.fingerprint },
      adapter: { name: summary.adapter!.name, fingerprint: summary.adapter!.fingerprint },
      ...result,
    };
  } finally {
    await model.dispose();
  }
}

function usualAdapter(path: string): string {
  const demo = demoModel(resourcesFolder());
  if (demo?.adapter && resolve(path) === resolve(demo.path)) return demo.adapter;
  throw new EmendError('invalid-input', 'Give the adapter to measure with --adapter.');
}

const WIDTH = [31, 23];

/** The result for people: metric × (teacher-forced, exact match) in per cent with 95 % intervals. */
function table(report: Report): string {
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
    ...kindTable(report.kinds),
    '',
    ...notes,
    `${data.taken} of ${data.total} edits of ${data.path}, each alone; 95 % intervals in brackets.`,
    `${setting.editor} after layer ${setting.layers.join(', ')}, scope ${scope ? `${scope.form}, reach ${scope.reach}` : 'off'}, ` +
      `${setting.promptTemplate} prompts${setting.suffix ? ` with "${setting.suffix}"` : ''}, ${setting.provider}, ${report.seconds.toFixed(0)} s.`,
    `model ${report.model.name} ${report.model.fingerprint.slice(0, 12)}, adapter ${report.adapter.name} ${report.adapter.fingerprint.slice(0, 12)}, data ${data.sha256.slice(0, 12)}`,
  ].join('\n');
}

function percent(found: Estimate | null, mark = ''): string {
  if (!found) return '–';
  const [mean, low, high] = [found.mean, found.low, found.high].map((value) => (100 * value).toFixed(1));
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
