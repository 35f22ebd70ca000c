/** @file `emend attribute gate`: what a gate compares of edits and inputs, and how well that tells them apart (DualEdit Fig. 4). */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Command } from 'commander';
import { z } from 'zod';
import { measureGate } from '../engine/gating.ts';
import { EmendError } from '../errors.ts';
import { leftOut } from '../evaluation/editingSet.ts';
import { gateText, writeGateReport } from '../evaluation/gateReport.ts';
import type { SetFormatName } from '../evaluation/sets/registry.ts';
import { readJson } from '../files/json.ts';
import { version } from '../frontends/places.ts';
import type { WeightForm } from '../models/packed/form.ts';
import type { Provider } from '../tensor/session.ts';
import {
  formatOption,
  inForm,
  layerList,
  modelOrDemo,
  pictureRowsOption,
  providerOption,
  suffixOption,
  tellOpening,
  typedCommand,
  untilInterrupted,
  weightsOption,
  wholeNumber,
} from './options.ts';
import { print } from './session.ts';

interface GateCommandOptions {
  model?: string;
  data: string;
  format?: SetFormatName;
  images?: string;
  layers?: number[];
  adapter?: string;
  limit: number;
  suffix?: string;
  textSuffix: string;
  pictureRows?: number;
  weights: WeightForm;
  provider?: Provider;
  out?: string;
  json?: boolean;
}

export function gateCommand(): Command {
  return new Command('gate')
    .description(
      'similarity of edits with inputs they should act on and with others, by what of both is compared (DualEdit Fig. 4)',
    )
    .option('--model <folder>', 'checkpoint folder; the demo model otherwise')
    .requiredOption('--data <file>', 'editing set: E-VQA, E-IC, VLKEB, MMKE-Bench, Emend’s or CSV')
    .addOption(formatOption())
    .option('--images <folder>', 'folder that pictures are relative to; the set’s own otherwise')
    .option('--layers <list>', 'layers whose outputs are compared, as 3 or 3,5,7; all otherwise', layerList)
    .option('--adapter <folder>', 'a DualEdit adapter, to compare at the layer of its text rows')
    .option('--limit <number>', 'take only the first edits', wholeNumber(1, 100_000), 100)
    .addOption(suffixOption())
    .option('--text-suffix <text>', 'appended to prompts without a picture; "?" in the papers', '')
    .addOption(pictureRowsOption())
    .addOption(weightsOption())
    .addOption(providerOption())
    .option('--out <folder>', 'write gate.html with the figure, gate.csv and gate.json into this folder')
    .option('--json', 'print for programs')
    .action((options: GateCommandOptions) => untilInterrupted((signal) => gate(options, signal)));
}

async function gate(options: GateCommandOptions, signal: AbortSignal): Promise<void> {
  const { data, format, images, limit, suffix = '', textSuffix, pictureRows, out, provider } = options;
  const { weights, packed } = inForm(options.weights);
  if (options.layers && options.adapter !== undefined)
    throw new EmendError('invalid-input', 'Give either --layers or --adapter.');
  const layers = options.adapter === undefined ? options.layers : [await textLayerOf(options.adapter)];
  if (out !== undefined)
    await mkdir(out, { recursive: true }).catch((cause) => {
      throw new EmendError('invalid-input', `The folder ${out} cannot be made.`, { cause });
    });
  const report = await measureGate(
    {
      ...{ model: modelOrDemo(options.model), weights, pictureRows, providers: provider ? [provider] : [] },
      ...{ data, format, images, layers: layers ?? null, limit, suffix, textSuffix },
    },
    {
      ...{ emend: version(), packed, command: typedCommand('attribute') },
      onSet: (set) => {
        const told = leftOut(set);
        if (told) console.error(told);
      },
    },
    { signal, send: tellOpening },
  );
  if (out !== undefined) await writeGateReport(out, report);
  const written = out === undefined ? '' : `\nWritten to ${join(out, 'gate.html')}, gate.csv and gate.json.`;
  print(report, `${gateText(report)}${written}`, options.json);
}

/** @throws EmendError 'invalid-input' for an adapter without a text layer */
async function textLayerOf(adapter: string): Promise<number> {
  const Described = z.object({ textLayer: z.number().int().min(0) });
  const path = join(adapter, 'adapter.json');
  const described = Described.safeParse(await readJson(path));
  if (described.success) return described.data.textLayer;
  throw new EmendError(
    'invalid-input',
    `${path} has no layer of text rows. Say with --layers where to compare.`,
  );
}
