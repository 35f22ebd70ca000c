/**
 * @file Pictures for towers that take one square: CLIP's, BLIP's and SigLIP's image processors as preprocessor_config.json says.
 * Resize, centre crop, rescale, normalise.
 */
import { z } from 'zod';
import { EmendError } from '../../errors.ts';
import type { Picture } from '../../files/picture.ts';
import { parseWith } from '../config.ts';
import { resizeWindow, type View } from '../imageProcessor.ts';
import {
  checkMostRows,
  gridLayout,
  type PictureLayout,
  type PictureReader,
  type Pixels,
  placelessLayout,
  type VisualGrid,
} from '../picture.ts';
import {
  CLIP_MEAN,
  CLIP_STD,
  filterOf,
  HALF,
  readPictureSettings,
  scaleInto,
  scalingFields,
  scalingOf,
  side,
} from './pictureSettings.ts';

/** Resizes, crops and scales pictures to one square. */
export interface SquareProcessor {
  /** Side of the square the model sees, in pixels. */
  readonly imageSize: number;
  /** The part of a picture that ends up in the square, in its pixels. */
  viewOf(picture: { readonly width: number; readonly height: number }): View;
  /** The square the model sees, before it becomes numbers. */
  resize(picture: Picture): Picture;
  /** Pixel values F32 [3, imageSize, imageSize]. */
  preprocess(picture: Picture): Float32Array;
}

const sizeSchema = z.union([
  side,
  z.looseObject({ shortest_edge: side }),
  z.looseObject({ height: side, width: side }),
]);

const settingsSchema = z.looseObject({
  ...scalingFields,
  size: sizeSchema.nullish(),
  do_center_crop: z.boolean().nullish(),
  crop_size: z.union([side, z.looseObject({ height: side, width: side })]).nullish(),
  do_pad: z.boolean().nullish(),
});

/** The processors' class defaults, but for sizes: without them, the vision tower's. */
const PROCESSORS: Record<string, { crops: boolean; mean: readonly number[]; std: readonly number[] }> = {
  CLIPImageProcessor: { crops: true, mean: CLIP_MEAN, std: CLIP_STD },
  CLIPFeatureExtractor: { crops: true, mean: CLIP_MEAN, std: CLIP_STD },
  BlipImageProcessor: { crops: false, mean: CLIP_MEAN, std: CLIP_STD },
  SiglipImageProcessor: { crops: false, mean: HALF, std: HALF },
};

/**
 * Opens the picture settings of a model folder; with none, those of the processor named `otherwise` at the tower's size.
 * @throws EmendError 'damaged' for settings that are malformed or do not give the tower's size, 'unsupported'
 *   for other processors and filters.
 */
export async function loadSquareProcessor(
  folder: string,
  imageSize: number,
  otherwise = 'CLIPImageProcessor',
): Promise<SquareProcessor> {
  const { json, path } = await readPictureSettings(folder);
  const settings = parseWith(settingsSchema, json, path);
  const type = settings.image_processor_type ?? settings.feature_extractor_type ?? otherwise;
  const name = type.replace(/Fast$/, '');
  const processor = Object.hasOwn(PROCESSORS, name) ? PROCESSORS[name] : undefined;
  if (!processor || settings.do_pad) {
    const what = settings.do_pad ? 'padding (do_pad)' : `"${type}"`;
    throw new EmendError(
      'unsupported',
      `${path}: ${what} is not supported. Emend runs CLIPImageProcessor, SiglipImageProcessor and BlipImageProcessor.`,
    );
  }
  const filter = filterOf(settings.resample, 'bicubic', path);
  const crops = settings.do_center_crop ?? processor.crops;
  // Without a crop these processors squeeze; CLIP's scales by the short edge.
  const size = settings.size ?? (processor.crops ? imageSize : { height: imageSize, width: imageSize });
  const squeezed = !processor.crops && typeof size === 'number' ? { height: size, width: size } : size;
  const target = (settings.do_resize ?? true) ? resizeTarget(squeezed, imageSize) : undefined;
  const crop = settings.crop_size ?? imageSize;
  const cropSize = typeof crop === 'number' ? { width: crop, height: crop } : crop;
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
  const scaling = scalingOf(settings, processor.mean, processor.std, path);

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
      const values = new Float32Array(3 * imageSize * imageSize);
      scaleInto(values, 0, resize(picture).rgb, scaling);
      return values;
    },
  };
}

/** What a tower of square pictures makes of them. */
export interface SquareRows {
  /** rows one picture takes */
  readonly rows: number;
  /** the patches the rows stand for; null where each row sees the whole picture */
  readonly grid: VisualGrid | null;
  /** pixels along a side that the patches cover */
  readonly covered: number;
}

/** Pictures of one size, each of the same rows. */
export async function openSquarePictures(
  folder: string,
  imageSize: number,
  rows: SquareRows,
  otherwise?: string,
  mostRows?: number,
): Promise<PictureReader> {
  checkMostRows(rows.rows, mostRows);
  const processor = await loadSquareProcessor(folder, imageSize, otherwise);
  const shape = [3, imageSize, imageSize];
  const layoutIn = (window: View) => squareLayout(rows, window, imageSize);
  const layout: PictureReader['layout'] = (picture) => {
    const view = processor.viewOf(picture);
    return layoutIn({
      left: view.left / picture.width,
      top: view.top / picture.height,
      width: view.width / picture.width,
      height: view.height / picture.height,
    });
  };
  return {
    rows: { least: rows.rows, most: rows.rows },
    layout,
    preprocess: (picture) => ({ values: processor.preprocess(picture), shape, layout: layout(picture) }),
    fromTensors(tensors) {
      const given = tensors.get('pixel_values');
      if (!given) return [];
      const [count, ...rest] = given.shape.length === 3 ? [1, ...given.shape] : given.shape;
      if (rest.join() !== shape.join() || !(given.data instanceof Float32Array)) {
        throw new EmendError(
          'invalid-input',
          `pixel_values is [${given.shape.join(', ')}]; the model takes [pictures, ${shape.join(', ')}].`,
        );
      }
      const area = 3 * imageSize * imageSize;
      const { data } = given;
      return Array.from({ length: count! }, (_, index): Pixels => {
        const values = data.subarray(index * area, (index + 1) * area);
        return { values, shape, layout: layoutIn({ left: 0, top: 0, width: 1, height: 1 }) };
      });
    },
    toTensors(pictures) {
      const area = 3 * imageSize * imageSize;
      const data = new Float32Array(pictures.length * area);
      for (const [index, { values }] of pictures.entries()) data.set(values, index * area);
      return new Map([['pixel_values', { shape: [pictures.length, ...shape], data }]]);
    },
  };
}

function squareLayout({ rows, grid, covered }: SquareRows, window: View, imageSize: number): PictureLayout {
  if (!grid) return placelessLayout(rows);
  const share = covered / imageSize;
  const seen = { ...window, width: window.width * share, height: window.height * share };
  const cells = gridLayout(grid, seen);
  if (rows === cells.rows) return cells;
  // A class token comes first and sees everything; or, where the first patch is taken for one, it is missing.
  const windows = rows > cells.rows ? [seen, ...cells.windows] : cells.windows.slice(1);
  const shift = rows - cells.rows;
  const map = { ...cells.map!, cells: cells.map!.cells.map((cell) => Math.max(cell + shift, 0)) };
  return { rows, grid: null, windows, map };
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
