/**
 * @file Pictures to pixel values as preprocessor_config.json says: CLIP's resize, centre crop, rescale, normalise.
 *
 * Resizing follows Pillow to the bit (src/libImaging/Resample.c): two passes of a filter widened when
 * shrinking, with coefficients in 22-bit fixed point and a rounding to 8 bits after each pass. Models were
 * trained on what it gives.
 */

import { join } from 'node:path';
import { z } from 'zod';
import { EmendError } from '../errors.ts';
import { readJsonIfThere } from '../files/json.ts';
import type { Picture } from '../files/picture.ts';
import type { VisionLanguageConfig } from './config.ts';

/** A rectangle in pixels of a picture; may reach over its edges, and need not begin at whole pixels. */
export interface View {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

export interface ImageProcessor {
  /** Side of the square the model sees, in pixels. */
  readonly imageSize: number;
  /** The part of a picture that ends up in the square: where visual representations lie. */
  viewOf(picture: { readonly width: number; readonly height: number }): View;
  /** The square the model sees, before it becomes numbers. */
  resize(picture: Picture): Picture;
  /** Pixel values F32 [3, imageSize, imageSize]. */
  preprocess(picture: Picture): Float32Array;
}

/** Pillow's filters, by their numbers: 0 to 5. */
const FILTER_NAMES = ['nearest', 'lanczos', 'bilinear', 'bicubic', 'box', 'hamming'] as const;
export type ResampleFilter = (typeof FILTER_NAMES)[number];

// ---------------------------------------------------------------- settings

const side = z.int().min(1).max(16_384);
const triple = z.array(z.number()).length(3);
const sizeSchema = z.union([
  side,
  z.looseObject({ shortest_edge: side }),
  z.looseObject({ height: side, width: side }),
]);

/** Defaults are `CLIPImageProcessor`'s, but sizes: without them, the vision tower's. */
const settingsSchema = z.looseObject({
  image_processor_type: z.string().nullish(),
  feature_extractor_type: z.string().nullish(),
  do_resize: z.boolean().nullish(),
  size: sizeSchema.nullish(),
  resample: z.int().nullish(),
  do_center_crop: z.boolean().nullish(),
  crop_size: z.union([side, z.looseObject({ height: side, width: side })]).nullish(),
  do_rescale: z.boolean().nullish(),
  rescale_factor: z.number().nullish(),
  do_normalize: z.boolean().nullish(),
  image_mean: triple.nullish(),
  image_std: triple.nullish(),
  do_pad: z.boolean().nullish(),
});

const CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073];
const CLIP_STD = [0.26862954, 0.26130258, 0.27577711];
const PROCESSOR_TYPES = ['CLIPImageProcessor', 'CLIPImageProcessorFast', 'CLIPFeatureExtractor'];

/**
 * Opens preprocessor_config.json (or the `image_processor` part of processor_config.json) of a model folder;
 * with neither, CLIP's settings at the vision tower's size.
 * @throws EmendError 'damaged' for settings that are malformed or do not give the tower's size, 'unsupported'
 *   for other processors and filters.
 */
export async function loadImageProcessor(
  folder: string,
  config: VisionLanguageConfig,
): Promise<ImageProcessor> {
  const { imageSize } = config.vision;
  const { json, path } = await readSettings(folder);
  const parsed = settingsSchema.safeParse(json);
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    throw new EmendError('damaged', `${path}: ${issue.path.join('.')}: ${issue.message}.`);
  }
  const settings = parsed.data;
  const type = settings.image_processor_type ?? settings.feature_extractor_type ?? PROCESSOR_TYPES[0]!;
  if (!PROCESSOR_TYPES.includes(type) || settings.do_pad) {
    const what = settings.do_pad ? 'padding (do_pad)' : `"${type}"`;
    throw new EmendError('unsupported', `${path}: ${what} is not supported. Emend runs CLIPImageProcessor.`);
  }
  const filter: ResampleFilter | undefined = FILTER_NAMES[settings.resample ?? 3];
  if (!filter) {
    throw new EmendError(
      'unsupported',
      `${path}: resample ${settings.resample} is no filter of Pillow, which are 0 to 5.`,
    );
  }
  const target = (settings.do_resize ?? true) ? resizeTarget(settings.size, imageSize) : undefined;
  const crop = settings.crop_size ?? imageSize;
  const cropSize = typeof crop === 'number' ? { width: crop, height: crop } : crop;
  const crops = settings.do_center_crop ?? true;
  // Without a crop, scaling by the short edge gives the tower's size for square pictures only: that is seen picture by picture.
  const squaresOnly = !crops && target?.short === imageSize;
  const final = crops ? cropSize : target?.fixed;
  if (!squaresOnly && (final?.width !== imageSize || final.height !== imageSize)) {
    const found = final ? `${final.width} x ${final.height}` : 'pictures of no fixed size';
    throw new EmendError(
      'damaged',
      `${path} gives ${found}, and the vision tower of config.json reads ${imageSize} x ${imageSize} pixels.`,
    );
  }

  const factor = (settings.do_rescale ?? true) ? (settings.rescale_factor ?? 1 / 255) : 1;
  const normalize = settings.do_normalize ?? true;
  const mean = normalize ? (settings.image_mean ?? CLIP_MEAN) : [0, 0, 0];
  const std = normalize ? (settings.image_std ?? CLIP_STD) : [1, 1, 1];
  if (std.some((value) => value === 0)) throw new EmendError('damaged', `${path}: image_std holds a zero.`);

  /** The whole picture's size after resizing, and the square's place in it. */
  const layout = ({ width, height }: { width: number; height: number }) => {
    const scaled = target ? target.of(width, height) : { width, height };
    if (squaresOnly && scaled.width !== scaled.height) {
      throw new EmendError(
        'invalid-input',
        `${path} does not crop, so this model takes square pictures only; this one has ${width} x ${height} pixels. Crop it.`,
      );
    }
    return {
      scaled,
      left: Math.floor((scaled.width - imageSize) / 2),
      top: Math.floor((scaled.height - imageSize) / 2),
    };
  };
  const resize = (picture: Picture): Picture => {
    const { scaled, left, top } = layout(picture);
    const rgb = resizeWindow(picture, scaled, { left, top, width: imageSize, height: imageSize }, filter);
    return { width: imageSize, height: imageSize, rgb };
  };
  return {
    imageSize,
    resize,
    viewOf(picture) {
      const { scaled, left, top } = layout(picture);
      const across = picture.width / scaled.width;
      const down = picture.height / scaled.height;
      return { left: left * across, top: top * down, width: imageSize * across, height: imageSize * down };
    },
    preprocess(picture) {
      const { rgb } = resize(picture);
      const plane = imageSize * imageSize;
      const values = new Float32Array(3 * plane);
      for (let channel = 0; channel < 3; channel++) {
        for (let i = 0; i < plane; i++) {
          values[channel * plane + i] = (rgb[3 * i + channel]! * factor - mean[channel]!) / std[channel]!;
        }
      }
      return values;
    },
  };
}

async function readSettings(folder: string): Promise<{ json: unknown; path: string }> {
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

/** How large a picture becomes, and if that is the same for all pictures, how large. */
interface ResizeTarget {
  readonly fixed: { readonly width: number; readonly height: number } | undefined;
  /** The short edge, where the long one follows from the picture. */
  readonly short: number | undefined;
  of(width: number, height: number): { width: number; height: number };
}

function resizeTarget(size: z.infer<typeof sizeSchema> | null | undefined, imageSize: number): ResizeTarget {
  if (typeof size === 'object' && size !== null && 'height' in size) {
    const fixed = { width: size.width as number, height: size.height as number };
    return { fixed, short: undefined, of: () => ({ ...fixed }) };
  }
  const shortest = typeof size === 'object' && size !== null ? (size.shortest_edge as number) : size;
  const short = shortest ?? imageSize;
  return {
    fixed: undefined,
    short,
    // transformers' get_resize_output_image_size: the long edge is cut down to a whole number.
    of: (width, height) =>
      width <= height
        ? { width: short, height: Math.trunc((short * height) / width) }
        : { width: Math.trunc((short * width) / height), height: short },
  };
}

// ---------------------------------------------------------------- Pillow's resize

/** Fixed-point bits of a coefficient: 32 less 8 for the pixel and 2 for overshoot. */
const PRECISION = 32 - 8 - 2;

const sinc = (x: number): number => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));

const FILTERS: Record<Exclude<ResampleFilter, 'nearest'>, { support: number; at(x: number): number }> = {
  box: { support: 0.5, at: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) },
  hamming: {
    support: 1,
    at: (x) => (Math.abs(x) < 1 ? sinc(x) * (0.54 + 0.46 * Math.cos(Math.PI * x)) : 0),
  },
  lanczos: { support: 3, at: (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0) },
  bilinear: {
    support: 1,
    at: (x) => Math.max(0, 1 - Math.abs(x)),
  },
  bicubic: {
    support: 2,
    at(x) {
      const a = -0.5;
      const d = Math.abs(x);
      if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
      if (d < 2) return (((d - 5) * d + 8) * d - 4) * a;
      return 0;
    },
  },
};

/**
 * Resizes a picture as Pillow does and cuts a window out of the result, computing only what the window shows.
 * Where the window reaches beyond the result it is black.
 * @param scaled size of the whole picture after resizing
 * @param window whole pixels of the resized picture
 * @returns rgb [window.height, window.width, 3]
 */
export function resizeWindow(
  picture: Picture,
  scaled: { readonly width: number; readonly height: number },
  window: View,
  filter: ResampleFilter,
): Uint8Array {
  const columns = coefficients(picture.width, scaled.width, window.left, window.width, filter);
  const rows = coefficients(picture.height, scaled.height, window.top, window.height, filter);
  const out = new Uint8Array(window.width * window.height * 3);
  if (columns.length === 0 || rows.length === 0) return out;

  // Across first, only the rows that the second pass will read.
  const firstRow = Math.min(...rows.map((row) => row.from));
  const lastRow = Math.max(...rows.map((row) => row.from + row.weights.length));
  const half = 1 << (PRECISION - 1);
  const stride = columns.length * 3;
  const across = new Uint8Array((lastRow - firstRow) * stride);
  for (let y = firstRow; y < lastRow; y++) {
    let at = (y - firstRow) * stride;
    for (const { from, weights } of columns) {
      let red = half;
      let green = half;
      let blue = half;
      let source = (y * picture.width + from) * 3;
      for (let k = 0; k < weights.length; k++, source += 3) {
        const weight = weights[k]!;
        red += picture.rgb[source]! * weight;
        green += picture.rgb[source + 1]! * weight;
        blue += picture.rgb[source + 2]! * weight;
      }
      across[at++] = clip(red);
      across[at++] = clip(green);
      across[at++] = clip(blue);
    }
  }

  for (const { index, from, weights } of rows) {
    const outRow = (index - window.top) * window.width * 3 + (columns[0]!.index - window.left) * 3;
    for (let x = 0; x < stride; x++) {
      let sum = half;
      let source = (from - firstRow) * stride + x;
      for (let k = 0; k < weights.length; k++, source += stride) sum += across[source]! * weights[k]!;
      out[outRow + x] = clip(sum);
    }
  }
  return out;
}

function clip(fixedPoint: number): number {
  return Math.max(0, Math.min(255, fixedPoint >> PRECISION));
}

/** One output pixel along an axis: its index in the resized picture, and weights of the pixels from `from`. */
interface Taps {
  readonly index: number;
  readonly from: number;
  readonly weights: Int32Array;
}

/** Pillow's precompute_coeffs and normalize_coeffs_8bpc, for output pixels `begin` to `begin + count`. */
function coefficients(
  inSize: number,
  outSize: number,
  begin: number,
  count: number,
  filter: ResampleFilter,
): Taps[] {
  const scale = inSize / outSize;
  if (filter === 'nearest') {
    const weights = Int32Array.of(1 << PRECISION);
    return Array.from(
      { length: Math.max(0, Math.min(outSize, begin + count) - Math.max(0, begin)) },
      (_, i) => {
        const index = Math.max(0, begin) + i;
        return { index, from: Math.floor((index + 0.5) * scale), weights };
      },
    );
  }
  const { support: radius, at } = FILTERS[filter];
  const widening = Math.max(scale, 1);
  const support = radius * widening;
  const taps: Taps[] = [];
  for (let index = Math.max(0, begin); index < Math.min(outSize, begin + count); index++) {
    const center = (index + 0.5) * scale;
    const from = Math.max(0, Math.trunc(center - support + 0.5));
    const to = Math.min(inSize, Math.trunc(center + support + 0.5));
    const weights = new Float64Array(to - from);
    let sum = 0;
    for (let k = 0; k < weights.length; k++) {
      weights[k] = at((k + from - center + 0.5) * (1 / widening));
      sum += weights[k]!;
    }
    const fixed = Int32Array.from(weights, (weight) => {
      const value = (sum === 0 ? weight : weight / sum) * (1 << PRECISION);
      return Math.trunc(value < 0 ? value - 0.5 : value + 0.5);
    });
    taps.push({ index, from, weights: fixed });
  }
  return taps;
}
