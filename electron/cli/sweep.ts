/** @file `emend sweep`: the same training at several layers, or with parts of it left out, each measured on the same edits; one table. */
import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { Command, InvalidArgumentError } from 'commander';
import { EmendError } from '../errors.ts';
import { writeReports } from '../evaluation/comparing.ts';
import { type ComparedEditor, type Comparison, comparisonText } from '../evaluation/comparisonReport.ts';
import { readEditingSet } from '../evaluation/editingSet.ts';
import { version } from '../frontends/places.ts';
import { layerList, tellProgress, typedCommand, untilInterrupted, wholeNumber } from './options.ts';
import { measured, runOnce, type SingleReport } from './ownProcess.ts';

/** One training of the sweep: its name in the table, and what it is told beside what all are told. */
interface Variant {
  readonly name: string;
  readonly args: readonly string[];
}

interface SweepOptions {
  layers?: readonly number[];
  variant: readonly Variant[];
  test: string;
  limit: number;
  out: string;
}

/** Options of `emend train` that the sweep gives itself. */
const OWN = ['--out', '--work', '--name'];

export function sweepCommand(): Command {
  return new Command('sweep')
    .description(
      'train the same with one thing changed at a time, and measure each; what stands behind -- goes to every `emend train`',
    )
    .option('--layers <numbers>', 'a training at each of these layers, as 0,3,5', layerList)
    .option(
      '--variant <name: options>',
      'a training with these options of `emend train`; may be given often: "no mapper: --no-influence-mapper"',
      (text: string, before: readonly Variant[]) => [...before, variantOf(text)],
      [] as readonly Variant[],
    )
    .requiredOption(
      '--test <file>',
      'editing set whose edits each is measured on, one at a time, without a scope',
    )
    .option('--limit <number>', 'take only the first edits of it', wholeNumber(1, 1_000_000), 100)
    .requiredOption('--out <folder>', 'where trainings and report are kept; what is done is not done again')
    .argument('<training...>', 'options of `emend train`, behind --')
    .action((training: string[], options: SweepOptions) =>
      untilInterrupted((signal) => sweep(training, options, signal)),
    );
}

/** @throws InvalidArgumentError unless it is a name, a colon and options */
function variantOf(text: string): Variant {
  const found = /^([^:]{1,60}):(.*)$/s.exec(text);
  const args = (found?.[2] ?? '').trim().split(/\s+/).filter(Boolean);
  if (found && args.every((arg) => !OWN.includes(arg.split('=')[0]!)))
    return { name: found[1]!.trim(), args };
  throw new InvalidArgumentError(
    'Give a name, a colon and options, such as "no mapper: --no-influence-mapper".',
  );
}

async function sweep(training: readonly string[], options: SweepOptions, signal: AbortSignal): Promise<void> {
  const { test, limit, out } = options;
  const given = training.find((arg) => OWN.includes(arg.split('=')[0]!));
  if (given)
    throw new EmendError(
      'invalid-input',
      `${given} is the sweep's own: it gives each training a folder in --out.`,
    );
  const variants = [
    ...(options.layers ?? []).map((layer) => ({ name: `layer ${layer}`, args: ['--layer', String(layer)] })),
    ...options.variant,
  ];
  if (variants.length === 0)
    throw new EmendError('invalid-input', 'Nothing differs. Give --layers, or --variant once or more.');
  const twice = variants.find(({ name }, place) =>
    variants.some((other, at) => at < place && other.name === name),
  );
  if (twice)
    throw new EmendError('invalid-input', `"${twice.name}" is there twice. Give each a name of its own.`);

  const set = await readEditingSet(test, {});
  const model = lastGiven(training, '--model');
  const shared = ['--provider', '--weights', '--suffix'].flatMap((option) => {
    const value = lastGiven(training, option);
    return value === undefined ? [] : [option, value];
  });
  const rows: ComparedEditor[] = [];
  let opened: Comparison['model'] = { name: 'no model', fingerprint: '' };
  for (const [place, { name, args }] of variants.entries()) {
    tellProgress(`${name}:`, place, variants.length);
    const folder = join(out, name.replaceAll(/[^\p{L}\p{N}]+/gu, '-'));
    await mkdir(folder, { recursive: true });
    const [adapter, work] = [join(folder, 'adapter'), join(folder, 'training')];
    const row = { editor: name, acts: '', scope: 'no scope', settings: args.join(' ') };
    try {
      const all = ['train', ...training, ...args, '--out', adapter, '--work', work, '--name', name];
      if (!existsSync(join(adapter, 'adapter.json'))) await runOnce(all, join(folder, 'train'), [], signal);
      const report = await measured<SingleReport>(
        [
          ...['bench', '--data', test, '--limit', String(limit), '--adapter', adapter, ...shared],
          ...(model === undefined ? [] : ['--model', model]),
        ],
        join(folder, 'bench'),
        [set.sha256, version(), JSON.stringify(all)],
        signal,
      );
      opened = report.model;
      const { metrics, meanOfFive, verdicts, cost, peakBytes } = report;
      rows.push({
        ...row,
        sizes: [{ edits: 1, metrics, meanOfFive }],
        verdicts,
        cost,
        peak: peakBytes,
        failed: null,
      });
    } catch (error) {
      if (!(error instanceof EmendError) || error.code === 'cancelled') throw error;
      rows.push({ ...row, sizes: [], verdicts: null, cost: null, peak: null, failed: error.message });
    }
    await writeReports(out, comparison());
  }
  console.log(comparisonText(comparison()));
  console.log(`Written to ${join(out, 'report.html')}, .csv and .json.`);

  function comparison(): Comparison {
    const single = Math.min(limit, set.records.length);
    return {
      ...{ emend: version(), title: 'Trainings compared', model: opened, sizes: [1], editors: rows },
      data: { name: basename(test), sha256: set.sha256, single, probes: 0 },
      command: typedCommand('sweep'),
    };
  }
}

/** What an option is given among arguments; the last counts. */
function lastGiven(args: readonly string[], option: string): string | undefined {
  const at = args.lastIndexOf(option);
  return at < 0 ? undefined : args[at + 1];
}
