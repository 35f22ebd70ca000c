/** @file `emend train scope`: what decides where an adapter's edits act, learnt from examples and saved beside the adapter. */
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { Command } from 'commander';
import { readAdapter } from '../editors/registry.ts';
import type { ScopeSource } from '../editors/scope/learned/examples.ts';
import {
  type ScopeTraining,
  scopeCuts,
  trainScope,
  usualTraining,
  workFolder,
} from '../editors/scope/learned/trainScope.ts';
import { EmendError } from '../errors.ts';
import { scopeSourceFromFile } from '../evaluation/scopeSource.ts';
import { fingerprint } from '../models/checkpoint.ts';
import { openCheckpoint } from '../models/open.ts';
import { VisionLanguageModel } from '../models/visionLanguageModel.ts';
import { modelOrDemo, suffixOption, tellProgress, untilInterrupted, wholeNumber } from './options.ts';

export interface ScopeOptions {
  model?: string;
  adapter: string;
  data: string;
  images?: string;
  work?: string;
  from?: string;
  families: number;
  keySteps: number;
  scorerSteps: number;
  withheld?: number;
  suffix?: string;
  seed: number;
}

/** What the command does when it is told nothing else. */
export const usualScopeOptions = {
  families: 3000,
  keySteps: usualTraining.key.steps,
  scorerSteps: usualTraining.scorer.steps,
} as const;

export function trainScopeCommand(): Command {
  return new Command('scope')
    .description('train what decides where an adapter’s edits act, and save it beside the adapter')
    .option('--model <folder>', 'checkpoint folder; the demo model otherwise')
    .requiredOption('--adapter <folder>', 'adapter folder, where the scope is written')
    .requiredOption('--data <file>', 'editing set, or a module that exports openScopeSource')
    .option('--images <folder>', 'folder that pictures are relative to; the set’s own otherwise')
    .option(
      '--work <folder>',
      'where what the model holds of the examples is kept; <adapter>/training otherwise',
    )
    .option('--from <folder>', 'adapter whose scope, of the same model, is trained on, at half the rates')
    .option(
      '--families <number>',
      'families of pictures that a module makes',
      wholeNumber(20, 1_000_000),
      usualScopeOptions.families,
    )
    .option('--key-steps <number>', 'steps for the key', wholeNumber(1, 1_000_000), usualTraining.key.steps)
    .option(
      '--scorer-steps <number>',
      'steps for the scorer',
      wholeNumber(1, 1_000_000),
      usualTraining.scorer.steps,
    )
    .option(
      '--withheld <number>',
      'a module leaves out every so many things, to measure on things never seen',
      wholeNumber(2, 1000),
    )
    .addOption(suffixOption())
    .option('--seed <number>', 'of weights and draws', wholeNumber(0, 2 ** 31 - 1), 1)
    .action((options: ScopeOptions) => untilInterrupted((signal) => trainScopeBeside(options, signal)));
}

/** Trains a scope for an adapter folder and writes it there. */
export async function trainScopeBeside(options: ScopeOptions, signal: AbortSignal): Promise<void> {
  const path = modelOrDemo(options.model);
  const checkpoint = await openCheckpoint(path);
  const own = await fingerprint(checkpoint);
  const adapter = await readAdapter(options.adapter, checkpoint, own);
  if (adapter.model !== own)
    throw new EmendError(
      'invalid-input',
      `The adapter ${options.adapter} was trained for another model than ${path}. Train one for this model first.`,
    );
  const model = await VisionLanguageModel.open(path, {
    providers: ['cpu'],
    threads: 1,
    cuts: scopeCuts(checkpoint.backbone.decoder.layers),
    signal,
  });
  try {
    const source = await openSource(options, model);
    try {
      const settings: ScopeTraining = {
        ...usualTraining,
        key: { ...usualTraining.key, steps: options.keySteps },
        scorer: { ...usualTraining.scorer, steps: options.scorerSteps },
        seed: options.seed,
      };
      let told = performance.now();
      const started = told;
      const curve = await trainScope(model, own, source, settings, {
        out: options.adapter,
        work: options.work ?? workFolder(options.adapter),
        from: options.from,
        signal,
        progress(stage, done, total, values = '') {
          tellProgress(`${stage}:`, done, total);
          if (done !== total && performance.now() - told < 10_000) return;
          told = performance.now();
          console.log(`${stage} ${done}/${total}  ${((told - started) / 60_000).toFixed(1)} min  ${values}`);
        },
      });
      console.log('edits   reach    threshold   right %   harm %');
      for (const { edits, reach, threshold, right, harm } of curve) {
        const cells = [threshold.toFixed(2), (100 * right).toFixed(1), (100 * harm).toFixed(2)];
        console.log(
          `${String(edits).padEnd(8)}${reach.padEnd(8)}${cells.map((cell) => cell.padStart(10)).join('')}`,
        );
      }
      console.log(`Written to ${options.adapter}.`);
    } finally {
      await source.close();
    }
  } finally {
    await model.dispose();
  }
}

/** A module's own source where --data names one; else the editing set. */
async function openSource(options: ScopeOptions, model: VisionLanguageModel): Promise<ScopeSource> {
  const { data, images, families, seed, suffix = '', withheld = 0 } = options;
  if (!/\.[cm]?[jt]s$/.test(data)) return scopeSourceFromFile(data, model, { images, suffix });
  const module = (await import(pathToFileURL(resolve(data)).href)) as {
    openScopeSource?: (options: { seed: number; families: number; withheld: number }) => ScopeSource;
  };
  if (!module.openScopeSource)
    throw new EmendError(
      'invalid-input',
      `${data} exports no openScopeSource. Give a module that does, or an editing set.`,
    );
  return module.openScopeSource({ seed, families, withheld });
}
