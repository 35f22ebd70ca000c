/** @file `emend layers`: at which layers a change of the visual rows can make a model say something else. */

import { Command } from 'commander';
import { type FreeChangeCase, freelyChange } from '../attribution/freeChange.ts';
import { decoderOf } from '../attribution/layerInputs.ts';
import { EmendError } from '../errors.ts';
import { readEditingSet } from '../evaluation/editingSet.ts';
import { readPictureFile } from '../files/picture.ts';
import type { WeightForm } from '../models/packed/form.ts';
import { VisionLanguageModel } from '../models/visionLanguageModel.ts';
import type { Provider } from '../tensor/session.ts';
import {
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

interface LayersOptions {
  weights: WeightForm;
  model?: string;
  data: string;
  images?: string;
  limit: number;
  layers?: string;
  steps: number;
  rate: number;
  suffix?: string;
  pictureRows?: number;
  provider?: Provider;
}

export function layersCommand(): Command {
  return new Command('layers')
    .description(
      'measure where an adapter could act: a freely optimised change of the visual rows, layer by layer',
    )
    .option('--model <folder>', 'checkpoint folder; the demo model otherwise')
    .requiredOption('--data <file>', 'editing set')
    .option('--images <folder>', 'folder that pictures are relative to; the set’s own otherwise')
    .option('--limit <number>', 'take only the first edits', wholeNumber(1, 100_000), 20)
    .option('--layers <list>', 'layers to try, as 0,4,8; all but the last otherwise')
    .option('--steps <number>', 'steps of the optimiser for each change', wholeNumber(1, 100_000), 60)
    .option('--rate <number>', 'its rate, in units of the rows’ root mean square', number(0, 10), 0.05)
    .addOption(suffixOption())
    .addOption(pictureRowsOption())
    .addOption(weightsOption())
    .addOption(providerOption())
    .action((options: LayersOptions) => untilInterrupted((signal) => measure(options, signal)));
}

async function measure(options: LayersOptions, signal: AbortSignal): Promise<void> {
  const set = await readEditingSet(options.data, { images: options.images, limit: options.limit });
  const model = await VisionLanguageModel.open(modelOrDemo(options.model), {
    providers: options.provider ? [options.provider] : [],
    ...inForm(options.weights),
    decoderLater: true,
    pictureRows: options.pictureRows,
  });
  try {
    const { text } = model.checkpoint.config;
    const last = text.layers - 1;
    const layers =
      options.layers?.split(',').map(Number) ?? Array.from({ length: last }, (_, layer) => layer);
    if (!layers.every((layer, i) => Number.isInteger(layer) && layer > (layers[i - 1] ?? -1) && layer < last))
      throw new EmendError('invalid-input', `--layers takes layers from 0 to ${last - 1}, ascending.`);
    const endToken = text.eosTokenIds.slice(0, 1);
    const cases: FreeChangeCase[] = [];
    for (const record of set.records) {
      const file = await readPictureFile(await set.picturePath(record, record.picture));
      const visual = await model.visualEmbeddings(await model.pixelsOf(file));
      const asked = { prompt: record.prompt + (options.suffix ?? ''), image: true };
      const encoded = model.prompts.encodeTarget(asked, record.target);
      cases.push({
        input: await model.lay(encoded, visual),
        labels: [...encoded.targetIds, ...endToken],
      });
    }
    const results = await freelyChange(decoderOf(model), layers, cases, {
      steps: options.steps,
      rate: options.rate,
      signal,
      onProgress: (done, total) => tellProgress('Changes optimised:', done, total),
    });
    console.log('layer   target said   loss before   loss after   length of the change');
    for (const layer of layers) {
      const of = results.filter((result) => result.layer === layer);
      const mean = (value: (result: (typeof of)[number]) => number) =>
        of.reduce((sum, result) => sum + value(result), 0) / of.length;
      console.log(
        [
          String(layer).padStart(5),
          `${(100 * mean(({ reached }) => Number(reached))).toFixed(1)} %`.padStart(14),
          mean(({ before }) => before)
            .toFixed(3)
            .padStart(14),
          mean(({ after }) => after)
            .toFixed(3)
            .padStart(13),
          `${mean(({ length }) => length).toFixed(2)} of the rows’`.padStart(23),
        ].join(''),
      );
    }
    console.log(
      `${cases.length} of ${set.total} edits of ${set.path}, ${options.steps} steps each, on ${model.provider}.`,
    );
  } finally {
    await model.dispose();
  }
}
