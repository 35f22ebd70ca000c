/** @file `emend trace`: everything a model computes on one prompt, as a safetensors file. */
import { Command } from 'commander';
import { EmendError } from '../errors.ts';
import { readPictureFile } from '../files/picture.ts';
import { openSafetensors, readTensor, writeSafetensors } from '../files/safetensors.ts';
import type { EncodedPrompt, PromptForm } from '../models/prompt.ts';
import { pixelsFromTensor, promptFromIds, trace } from '../models/trace.ts';
import { VisionLanguageModel } from '../models/visionLanguageModel.ts';
import type { Provider } from '../tensor/session.ts';
import { maxNewTokensOption, modelOrDemo, providerOption, suffixOption, templateOption } from './options.ts';

interface TraceOptions {
  model?: string;
  image?: string;
  prompt?: string;
  suffix?: string;
  template: PromptForm;
  inputs?: string;
  out: string;
  maxNewTokens: number;
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
      'safetensors file with pixel_values and input_ids, in place of image and prompt',
    )
    .requiredOption('--out <file>', 'safetensors file to write')
    .addOption(suffixOption())
    .addOption(templateOption())
    .addOption(maxNewTokensOption(32))
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
        promptForm: options.template,
      });
      try {
        const { encoded, pixels } = inputs ? await given(model, inputs) : await typed(model, options);
        const tensors = await trace(model, encoded, pixels, options.maxNewTokens);
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

interface TraceInput {
  readonly encoded: EncodedPrompt;
  /** [3, side, side] */
  readonly pixels: Float32Array | null;
}

async function typed(model: VisionLanguageModel, options: TraceOptions): Promise<TraceInput> {
  const { image, prompt = '', suffix } = options;
  const pixels = image === undefined ? null : await model.pixelsOf(await readPictureFile(image));
  return { encoded: model.prompts.encodePrompt({ prompt, suffix, image: pixels !== null }), pixels };
}

/** pixel_values [1, 3, side, side] and input_ids [1, tokens] (or without the leading 1), as other programs write them. */
async function given(model: VisionLanguageModel, path: string): Promise<TraceInput> {
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
  const pixels = file.tensors.has('pixel_values') ? await readTensor(file, 'pixel_values') : null;
  if (pixels && !(pixels.data instanceof Float32Array)) {
    throw new EmendError('invalid-input', `${path}: pixel_values is ${pixels.dtype}; floats are needed.`);
  }
  return {
    encoded: promptFromIds(model, Array.from(ids.data, Number), pixels !== null),
    pixels: pixels && pixelsFromTensor(model, pixels.shape, pixels.data as Float32Array),
  };
}
