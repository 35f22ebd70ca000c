/** @file What image processors' settings share: where they are, filters, and how bytes become numbers. */
import { join } from 'node:path';
import { z } from 'zod';
import { EmendError } from '../../errors.ts';
import { readJsonIfThere } from '../../files/json.ts';
import { FILTER_NAMES, type ResampleFilter } from '../imageProcessor.ts';

export const side = z.int().min(1).max(16_384);
const triple = z.array(z.number()).length(3);

export const scalingFields = {
  image_processor_type: z.string().nullish(),
  feature_extractor_type: z.string().nullish(),
  do_resize: z.boolean().nullish(),
  resample: z.int().nullish(),
  do_rescale: z.boolean().nullish(),
  rescale_factor: z.number().nullish(),
  do_normalize: z.boolean().nullish(),
  image_mean: triple.nullish(),
  image_std: triple.nullish(),
};

export const CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073];
export const CLIP_STD = [0.26862954, 0.26130258, 0.27577711];
export const HALF = [0.5, 0.5, 0.5];

/** preprocessor_config.json of a model folder, or the `image_processor` part of its processor_config.json; {} without either. */
export async function readPictureSettings(folder: string): Promise<{ json: unknown; path: string }> {
  const path = join(folder, 'preprocessor_config.json');
  const json = await readJsonIfThere(path);
  if (json !== undefined) return { json, path };
  const processorPath = join(folder, 'processor_config.json');
  const processor = z
    .looseObject({ image_processor: z.unknown() })
    .safeParse(await readJsonIfThere(processorPath));
  return processor.success && processor.data.image_processor
    ? { json: processor.data.image_processor, path: processorPath }
    : { json: {}, path };
}

/** Throws `unsupported` for a number that is no filter of Pillow. */
export function filterOf(
  resample: number | null | undefined,
  otherwise: ResampleFilter,
  path: string,
): ResampleFilter {
  if (resample == null) return otherwise;
  const filter = FILTER_NAMES[resample];
  if (filter) return filter;
  throw new EmendError(
    'unsupported',
    `${path}: resample ${resample} is no filter of Pillow, which are 0 to 5.`,
  );
}

/** How bytes become numbers: (byte·factor − mean)/std for each colour. */
export interface Scaling {
  readonly factor: number;
  readonly mean: readonly number[];
  readonly std: readonly number[];
}

/** Throws `damaged` for a standard deviation of zero. */
export function scalingOf(
  settings: z.infer<z.ZodObject<typeof scalingFields>>,
  mean: readonly number[],
  std: readonly number[],
  path: string,
): Scaling {
  const normalize = settings.do_normalize ?? true;
  const scaling = {
    factor: (settings.do_rescale ?? true) ? (settings.rescale_factor ?? 1 / 255) : 1,
    mean: normalize ? (settings.image_mean ?? mean) : [0, 0, 0],
    std: normalize ? (settings.image_std ?? std) : [1, 1, 1],
  };
  if (scaling.std.includes(0)) throw new EmendError('damaged', `${path}: image_std holds a zero.`);
  return scaling;
}

/** Bytes [pixels, 3] as numbers, colour after colour, into `into` from `at`: [3, pixels]. */
export function scaleInto(
  into: Float32Array,
  at: number,
  rgb: Uint8Array,
  { factor, mean, std }: Scaling,
): void {
  const pixels = rgb.length / 3;
  for (let channel = 0; channel < 3; channel++) {
    for (let i = 0; i < pixels; i++) {
      into[at + channel * pixels + i] = (rgb[3 * i + channel]! * factor - mean[channel]!) / std[channel]!;
    }
  }
}
