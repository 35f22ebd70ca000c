/** @file `emend trace`: everything a model computes on one prompt, as a safetensors file. */

import { Command } from 'commander';
import { EmendError } from '../errors.ts';
import { readPictureFile } from '../files/picture.ts';
import { openSafetensors, readTensor, writeSafetensors } from '../files/safetensors.ts';
import type { WeightForm } from '../models/packed/form.ts';
import type { GivenTensor } from '../models/picture.ts';
import type { PromptForm } from '../models/prompt.ts';
import { promptFromTensors, promptToTrace, type TracedPrompt, trace } from '../models/trace.ts';
import { VisionLanguageModel } from '../models/visionLanguageModel.ts';
import type { Provider } from '../tensor/session.ts';
import {
  inForm,
  maxNewTokensOption,
  modelOrDemo,
  pictureRowsOption,
  providerOption,
  suffixOption,
  templateOption,
  weightsOption,
} from './options.ts';

interface TraceOptions {
  weights: WeightForm;
  model?: string;
  image?: string;
  prompt?: string;
  suffix?: string;
  template: PromptForm;
  inputs?: string;
  out: string;
  maxNewTokens: number;
  pictureRows?: number;
  provider?: Provider;
}

export function traceCommand(): Command {
  return new Command('trace')
    .description('write what a model computes on one prompt, layer by layer')
    .option('--model <folder>', 'checkpoint folder; the demo model otherwise')
    .option('--image <file>', 'picture; none traces a prompt in text alone')
    .option('--prompt <text>', 'the question')
    .option(
      '--inputs <file>',
      'safetensors file with input_ids, pixel_values and what goes with them, in place of image and prompt',
    )
    .requiredOption('--out <file>', 'safetensors file to write')
    .addOption(suffixOption())
    .addOption(templateOption())
    .addOption(maxNewTokensOption(32))
    .addOption(pictureRowsOption())
    .addOption(weightsOption())
    .addOption(providerOption())
    .action(async (options: TraceOptions) => {
      const { prompt, inputs, image, out } = options;
      if ((prompt === undefined) === (inputs === undefined)) {
        throw new EmendError('invalid-input', 'Give either --prompt (and --image), or --inputs.');
      }
      if (inputs !== undefined && image !== undefined) {
        throw new EmendError('invalid-input', '--image cannot go with --inputs, which holds the picture.');
      }
      const model = await VisionLanguageModel.open(modelOrDemo(options.model), {
        providers: options.provider ? [options.provider] : [],
        ...inForm(options.weights),
        decoderLater: true,
        promptForm: options.template,
        pictureRows: options.pictureRows,
      });
      try {
        const traced = inputs ? await given(model, inputs) : await typed(model, options);
        const tensors = await trace(model, traced, options.maxNewTokens);
        await writeSafetensors(out, tensors, { provider: model.provider }).catch((cause) => {
          if (cause instanceof EmendError) throw cause;
          const { code } = cause as NodeJS.ErrnoException;
          throw new EmendError('invalid-input', `${out} cannot be written (${code}). Check the folder.`, {
            cause,
          });
        });
        const ids = Array.from(tensors.get('generated_ids')!.data, Number);
        console.log(`${tensors.size} tensors written to ${out} (${model.provider}).`);
        console.log(`Answer: ${model.tokenizer.decode(ids).trim()}`);
      } finally {
        await model.dispose();
      }
    });
}

async function typed(model: VisionLanguageModel, options: TraceOptions): Promise<TracedPrompt> {
  const { image, prompt = '', suffix } = options;
  const pixels = image === undefined ? [] : [await model.pixelsOf(await readPictureFile(image))];
  const encoded = model.prompts.encodePrompt({ prompt, suffix, image: pixels.length > 0 });
  return promptToTrace(model, encoded, pixels);
}

/** What `--inputs` may hold of pictures, as other programs name it. */
const PICTURE_TENSORS = ['pixel_values', 'image_grid_thw', 'pixel_attention_mask'];

/** input_ids [1, tokens] (or without the leading 1) and the pictures' tensors, as other programs write them. */
async function given(model: VisionLanguageModel, path: string): Promise<TracedPrompt> {
  const file = await openSafetensors(path);
  if (!file.tensors.has('input_ids')) {
    throw new EmendError(
      'invalid-input',
      `${path} has no tensor input_ids. It needs pixel_values and input_ids.`,
    );
  }
  const ids = await readTensor(file, 'input_ids');
  const oneRow = ids.shape.length === 1 || (ids.shape.length === 2 && ids.shape[0] === 1);
  if (!oneRow || !(ids.data instanceof BigInt64Array || ids.data instanceof Int32Array)) {
    throw new EmendError(
      'invalid-input',
      `${path}: input_ids is ${ids.dtype} [${ids.shape.join(', ')}]; one row of I64 or I32 is needed.`,
    );
  }
  const pictures = new Map<string, GivenTensor>();
  for (const name of PICTURE_TENSORS) {
    if (!file.tensors.has(name)) continue;
    const { dtype, shape, data } = await readTensor(file, name);
    if (data instanceof Float32Array || data instanceof BigInt64Array) pictures.set(name, { shape, data });
    else if (name !== 'pixel_values' && (data instanceof Int32Array || data instanceof Uint8Array))
      pictures.set(name, { shape, data: BigInt64Array.from(data, BigInt) });
    else
      throw new EmendError(
        'invalid-input',
        `${path}: ${name} is ${dtype}; ${name === 'pixel_values' ? 'floats' : 'integers'} are needed.`,
      );
  }
  if (pictures.get('pixel_values')?.data instanceof BigInt64Array)
    throw new EmendError('invalid-input', `${path}: pixel_values holds integers; floats are needed.`);
  return promptFromTensors(model, Array.from(ids.data, Number), pictures);
}
