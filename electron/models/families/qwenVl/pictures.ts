/**
 * @file Pictures of any size as Qwen2-VL's image processor takes them: resized to a multiple of merged cells within limits of
 * area, and cut into patches in blocks of those that are merged.
 */
import { z } from 'zod';
import { EmendError } from '../../../errors.ts';
import type { Picture } from '../../../files/picture.ts';
import { parseWith } from '../../config.ts';
import { resizeWindow } from '../../imageProcessor.ts';
import {
  CLIP_MEAN,
  CLIP_STD,
  filterOf,
  readPictureSettings,
  scaleInto,
  scalingFields,
  scalingOf,
} from '../../parts/pictureSettings.ts';
import {
  checkMostRows,
  gridLayout,
  type PictureReader,
  type Pixels,
  type VisualGrid,
} from '../../picture.ts';
import type { QwenVisionConfig } from './config.ts';

const area = z.int().min(1).max(1e12);

const settingsSchema = z.looseObject({
  ...scalingFields,
  min_pixels: area.nullish(),
  max_pixels: area.nullish(),
  size: z.looseObject({ shortest_edge: area.nullish(), longest_edge: area.nullish() }).nullish(),
  patch_size: z.int().nullish(),
  temporal_patch_size: z.int().nullish(),
  merge_size: z.int().nullish(),
});

/** Python's round: halves to the even number. */
function roundHalfEven(value: number): number {
  const below = Math.floor(value);
  if (value - below !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}

/**
 * A size whose sides are multiples of `factor`, with an area within the limits, of about the picture's proportions.
 * Throws `invalid-input` for pictures 200 times longer than wide.
 */
export function smartSize(
  { width, height }: { readonly width: number; readonly height: number },
  factor: number,
  limits: { readonly least: number; readonly most: number },
): { width: number; height: number } {
  if (Math.max(width, height) / Math.min(width, height) > 200) {
    throw new EmendError(
      'invalid-input',
      `The picture has ${width} x ${height} pixels; this model takes pictures up to 200 times longer than wide. Crop it.`,
    );
  }
  const rounded = {
    width: roundHalfEven(width / factor) * factor,
    height: roundHalfEven(height / factor) * factor,
  };
  const scaled = (scale: number, round: (value: number) => number) => ({
    width: Math.max(factor, round((width * scale) / factor) * factor),
    height: Math.max(factor, round((height * scale) / factor) * factor),
  });
  if (rounded.width * rounded.height > limits.most) {
    const beta = Math.sqrt((height * width) / limits.most);
    return {
      width: Math.max(factor, Math.floor(width / beta / factor) * factor),
      height: Math.max(factor, Math.floor(height / beta / factor) * factor),
    };
  }
  return rounded.width * rounded.height < limits.least
    ? scaled(Math.sqrt(limits.least / (height * width)), Math.ceil)
    : rounded;
}

/** Rows and columns of a picture's patches in the order the processor writes them: block by block, row by row inside. */
export function patchPlaces(
  { height, width }: VisualGrid,
  merge: number,
): { rows: Int32Array; columns: Int32Array } {
  const count = height * width;
  const [rows, columns] = [new Int32Array(count), new Int32Array(count)];
  let at = 0;
  for (let top = 0; top < height; top += merge) {
    for (let left = 0; left < width; left += merge) {
      for (let y = 0; y < merge; y++) {
        for (let x = 0; x < merge; x++, at++) {
          rows[at] = top + y;
          columns[at] = left + x;
        }
      }
    }
  }
  return { rows, columns };
}

export async function openQwenPictures(
  folder: string,
  vision: QwenVisionConfig,
  mostRows?: number,
): Promise<PictureReader> {
  checkMostRows(1, mostRows);
  const { json, path } = await readPictureSettings(folder);
  const settings = parseWith(settingsSchema, json, path);
  const type = settings.image_processor_type ?? 'Qwen2VLImageProcessor';
  if (!/^Qwen2VLImageProcessor(Fast)?$/.test(type)) {
    throw new EmendError(
      'unsupported',
      `${path}: "${type}" is not supported. Emend runs Qwen2VLImageProcessor.`,
    );
  }
  const { patchSize, merge, frames } = vision;
  const said = {
    patch_size: [settings.patch_size, patchSize],
    merge_size: [settings.merge_size, merge],
    temporal_patch_size: [settings.temporal_patch_size, frames],
  };
  for (const [name, [found, wanted]] of Object.entries(said)) {
    if (found != null && found !== wanted) {
      throw new EmendError(
        'damaged',
        `${path}: ${name} is ${found}, and the vision tower of config.json has ${wanted}. Take both from the same model.`,
      );
    }
  }
  const filter = filterOf(settings.resample, 'bicubic', path);
  const scaling = scalingOf(settings, CLIP_MEAN, CLIP_STD, path);
  const factor = patchSize * merge;
  const own = {
    least: settings.min_pixels ?? settings.size?.shortest_edge ?? 56 * 56,
    most: settings.max_pixels ?? settings.size?.longest_edge ?? 28 * 28 * 1280,
  };
  if (own.most < factor * factor || own.least > own.most) {
    throw new EmendError(
      'damaged',
      `${path}: pictures of ${own.least} to ${own.most} pixels cannot be cut into cells of ${factor} x ${factor}.`,
    );
  }
  const most = Math.min(own.most, (mostRows ?? Number.POSITIVE_INFINITY) * factor * factor);
  const limits = { least: Math.min(own.least, most), most };
  const resizes = settings.do_resize ?? true;
  const sizeOf = (picture: { readonly width: number; readonly height: number }) => {
    if (resizes) return smartSize(picture, factor, limits);
    if (picture.width % factor === 0 && picture.height % factor === 0) return picture;
    throw new EmendError(
      'invalid-input',
      `${path} does not resize, so this model takes sides that are multiples of ${factor} pixels; this picture has ${picture.width} x ${picture.height}.`,
    );
  };
  const layoutOf = ({ width, height }: { width: number; height: number }) =>
    gridLayout({ height: height / factor, width: width / factor });
  const features = 3 * frames * patchSize * patchSize;

  const preprocess = (picture: Picture): Pixels => {
    const { width, height } = sizeOf(picture);
    const rgb = resizeWindow(picture, { width, height }, { left: 0, top: 0, width, height }, filter);
    const plane = width * height;
    const scaled = new Float32Array(3 * plane);
    scaleInto(scaled, 0, rgb, scaling);
    const grid = { height: height / patchSize, width: width / patchSize };
    const { rows, columns } = patchPlaces(grid, merge);
    const values = new Float32Array(rows.length * features);
    let to = 0;
    for (let patch = 0; patch < rows.length; patch++) {
      const corner = rows[patch]! * patchSize * width + columns[patch]! * patchSize;
      for (let channel = 0; channel < 3; channel++) {
        for (let frame = 0; frame < frames; frame++) {
          for (let y = 0; y < patchSize; y++, to += patchSize) {
            const from = channel * plane + corner + y * width;
            values.set(scaled.subarray(from, from + patchSize), to);
          }
        }
      }
    }
    return { values, shape: [rows.length, features], layout: layoutOf({ width, height }) };
  };

  return {
    rows: {
      least: Math.max(1, Math.ceil(limits.least / (factor * factor))),
      most: Math.max(1, Math.floor(limits.most / (factor * factor))),
    },
    layout: (picture) => layoutOf(sizeOf(picture)),
    preprocess,
    fromTensors(tensors) {
      const given = tensors.get('pixel_values');
      const grids = tensors.get('image_grid_thw');
      if (!given && !grids) return [];
      if (
        !given ||
        !(given.data instanceof Float32Array) ||
        !grids ||
        !(grids.data instanceof BigInt64Array)
      ) {
        throw new EmendError(
          'invalid-input',
          'Pictures of this model need both pixel_values and image_grid_thw.',
        );
      }
      const thw = Array.from(grids.data, Number);
      const count = thw.length / 3;
      const patches = given.shape.at(-2) ?? 0;
      const wrongShape =
        given.shape.length < 2 || given.shape.at(-1) !== features || given.data.length !== patches * features;
      if (wrongShape || !Number.isInteger(count) || grids.shape.at(-1) !== 3) {
        throw new EmendError(
          'invalid-input',
          `pixel_values is [${given.shape.join(', ')}] and image_grid_thw [${grids.shape.join(', ')}]; the model takes [patches, ${features}] and [pictures, 3].`,
        );
      }
      let taken = 0;
      const pictures = Array.from({ length: count }, (_, index): Pixels => {
        const [time, height, width] = thw.slice(3 * index, 3 * index + 3) as [number, number, number];
        const fits = time === 1 && height > 0 && width > 0 && height % merge === 0 && width % merge === 0;
        const rows = height * width;
        if (!fits || taken + rows > patches) {
          throw new EmendError(
            'invalid-input',
            `image_grid_thw holds [${time}, ${height}, ${width}] for ${patches} patches; a picture has [1, height, width] patches, sides multiples of ${merge}.`,
          );
        }
        taken += rows;
        const values = (given.data as Float32Array).subarray((taken - rows) * features, taken * features);
        return {
          values,
          shape: [rows, features],
          layout: gridLayout({ height: height / merge, width: width / merge }),
        };
      });
      if (taken !== patches) {
        throw new EmendError(
          'invalid-input',
          `image_grid_thw accounts for ${taken} patches, and pixel_values holds ${patches}.`,
        );
      }
      return pictures;
    },
    toTensors(pictures) {
      const count = pictures.reduce((sum, { shape }) => sum + shape[0]!, 0);
      const data = new Float32Array(count * features);
      let at = 0;
      for (const { values } of pictures) {
        data.set(values, at);
        at += values.length;
      }
      const grids = pictures.flatMap(({ layout }) => {
        const { height, width } = layout.grid!;
        return [1, height * merge, width * merge];
      });
      return new Map([
        ['pixel_values', { shape: [count, features], data }],
        ['image_grid_thw', { shape: [pictures.length, 3], data: BigInt64Array.from(grids, BigInt) }],
      ]);
    },
  };
}
