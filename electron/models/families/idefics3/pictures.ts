/**
 * @file Pictures as Idefics3's and SmolVLM's image processors cut them: resized with Lanczos up to three times, 8 bits in between,
 * into tiles row by row, and the whole picture squeezed into one tile behind them.
 */
import { z } from 'zod';
import { EmendError } from '../../../errors.ts';
import type { Picture } from '../../../files/picture.ts';
import { parseWith } from '../../config.ts';
import { type ResampleFilter, resizeWindow } from '../../imageProcessor.ts';
import {
  filterOf,
  HALF,
  readPictureSettings,
  scaleInto,
  scalingFields,
  scalingOf,
  side,
} from '../../parts/pictureSettings.ts';
import {
  cellWindow,
  checkMostRows,
  gridLayout,
  type PictureLayout,
  type PictureReader,
  type Pixels,
  placelessLayout,
  type VisualGrid,
  whole,
} from '../../picture.ts';
import type { Idefics3Config } from './config.ts';

const longest = z.looseObject({ longest_edge: side });

const settingsSchema = z.looseObject({
  ...scalingFields,
  size: longest.nullish(),
  max_image_size: longest.nullish(),
  do_image_splitting: z.boolean().nullish(),
});

/** Neither processor makes a picture larger than this along a side. */
const LARGEST_SIDE = 4096;

interface Size {
  readonly width: number;
  readonly height: number;
}

/** The size after the first resize: the longer side as asked, the other whole and even. */
function scaledToLongest({ width, height }: Size, most: number): Size {
  const aspect = width / height;
  const even = (value: number) => Math.max(value + (value % 2), 1);
  const scaled =
    width >= height
      ? { width: most, height: even(Math.trunc(most / aspect)) }
      : { width: even(Math.trunc(most * aspect)), height: most };
  if (Math.max(scaled.width, scaled.height) <= LARGEST_SIDE) return scaled;
  const of = scaled.width / scaled.height;
  return scaled.width >= scaled.height
    ? { width: LARGEST_SIDE, height: Math.max(1, Math.trunc(LARGEST_SIDE / of)) }
    : { width: Math.max(1, Math.trunc(LARGEST_SIDE * of)), height: LARGEST_SIDE };
}

/** The size after the second: both sides up to whole tiles, the shorter from the longer one already rounded up. */
function roundedToTiles({ width, height }: Size, tile: number): Size {
  const aspect = width / height;
  const up = (value: number) => Math.ceil(value / tile) * tile;
  if (width >= height) {
    const wide = up(width);
    return { width: wide, height: up(Math.trunc(wide / aspect)) };
  }
  const high = up(height);
  return { width: up(Math.trunc(high * aspect)), height: high };
}

export async function openIdefics3Pictures(
  folder: string,
  config: Idefics3Config,
  mostRows?: number,
): Promise<PictureReader> {
  const { imageSize, patchSize } = config.vision;
  const { json, path } = await readPictureSettings(folder);
  const settings = parseWith(settingsSchema, json, path);
  const type = settings.image_processor_type ?? 'Idefics3ImageProcessor';
  if (!/^(Idefics3|SmolVLM)ImageProcessor(Fast)?$/.test(type)) {
    throw new EmendError(
      'unsupported',
      `${path}: "${type}" is not supported. Emend runs Idefics3ImageProcessor and SmolVLMImageProcessor.`,
    );
  }
  const tile = settings.max_image_size?.longest_edge ?? imageSize;
  if (tile !== imageSize) {
    throw new EmendError(
      'damaged',
      `${path} cuts tiles of ${tile} pixels, and the vision tower of config.json reads ${imageSize}. Take both from the same model.`,
    );
  }
  const filter = filterOf(settings.resample, 'lanczos', path);
  const scaling = scalingOf(settings, HALF, HALF, path);
  const splits = settings.do_image_splitting ?? true;
  const cells = Math.floor(imageSize / patchSize) / config.shuffle;
  const rowsOfTile = cells * cells;
  const area = 3 * tile * tile;
  checkMostRows(rowsOfTile, mostRows);
  // So many tiles along the longer side, and the whole picture behind them, take no more rows than wished for.
  const tilesAlong = Math.max(
    1,
    Math.floor(Math.sqrt((mostRows ?? Number.POSITIVE_INFINITY) / rowsOfTile - 1)) || 1,
  );
  const longestSide = Math.min(settings.size?.longest_edge ?? 4 * tile, tilesAlong * tile);
  const most = Math.min(longestSide, LARGEST_SIDE);

  const sizesOf = (picture: Size): { first: Size; second: Size; tiles: VisualGrid | null } => {
    const first = (settings.do_resize ?? true) ? scaledToLongest(picture, longestSide) : picture;
    const second = splits ? roundedToTiles(first, tile) : { width: tile, height: tile };
    const tiles = { height: second.height / tile, width: second.width / tile };
    return { first, second, tiles: tiles.height * tiles.width > 1 ? tiles : null };
  };
  const layout = (picture: Size): PictureLayout => tiledLayout(sizesOf(picture).tiles, cells);

  const preprocess = (picture: Picture): Pixels => {
    const { first, second, tiles } = sizesOf(picture);
    const large = resized(resized(picture, first, filter), second, filter);
    const small = resized(large, { width: tile, height: tile }, filter);
    const count = (tiles ? tiles.height * tiles.width : 0) + 1;
    const values = new Float32Array(count * area);
    const opaque = onWhite(large);
    for (let index = 0; index < count - 1; index++) {
      const [row, column] = [Math.floor(index / tiles!.width), index % tiles!.width];
      const rgb = new Uint8Array(area);
      for (let y = 0; y < tile; y++) {
        const from = ((row * tile + y) * second.width + column * tile) * 3;
        rgb.set(opaque.subarray(from, from + 3 * tile), y * tile * 3);
      }
      scaleInto(values, index * area, rgb, scaling);
    }
    scaleInto(values, (count - 1) * area, onWhite(small), scaling);
    return { values, shape: [count, 3, tile, tile], layout: tiledLayout(tiles, cells) };
  };

  return {
    rows: {
      least: rowsOfTile,
      most: splits ? (Math.ceil(most / tile) ** 2 + 1) * rowsOfTile : rowsOfTile,
    },
    layout,
    preprocess,
    fromTensors(tensors) {
      const given = tensors.get('pixel_values');
      if (!given) return [];
      const shape = given.shape.length === 5 && given.shape[0] === 1 ? given.shape.slice(1) : given.shape;
      const count = shape[0] ?? 0;
      if (
        shape.join() !== [count, 3, tile, tile].join() ||
        count < 1 ||
        !(given.data instanceof Float32Array)
      ) {
        throw new EmendError(
          'invalid-input',
          `pixel_values is [${given.shape.join(', ')}]; the model takes [tiles, 3, ${tile}, ${tile}].`,
        );
      }
      const mask = tensors.get('pixel_attention_mask');
      if (mask && mask.data.length !== count * tile * tile) {
        throw new EmendError(
          'invalid-input',
          `pixel_attention_mask is [${mask.shape.join(', ')}]; ${count} tiles need [${count}, ${tile}, ${tile}].`,
        );
      }
      const used =
        mask &&
        Uint8Array.from(Array.from(mask.data as ArrayLike<number | bigint>), (value) =>
          Number(value) === 0 ? 0 : 1,
        );
      const partly = used?.includes(0) ?? false;
      // How the tiles lie is in the prompt's ids, not here.
      return [
        {
          values: given.data,
          shape,
          layout: placelessLayout(count * rowsOfTile),
          ...(partly && { mask: used! }),
        },
      ];
    },
    toTensors(pictures) {
      const count = pictures.reduce((sum, { shape }) => sum + shape[0]!, 0);
      const data = new Float32Array(count * area);
      let at = 0;
      for (const { values } of pictures) {
        data.set(values, at);
        at += values.length;
      }
      return new Map([['pixel_values', { shape: [count, 3, tile, tile], data }]]);
    },
  };
}

/** Tiles row by row, each a grid of cells, then the whole picture as one. */
function tiledLayout(tiles: VisualGrid | null, cells: number): PictureLayout {
  const grid = { height: cells, width: cells };
  const last = gridLayout(grid, whole);
  if (!tiles) return last;
  const count = tiles.height * tiles.width;
  const windows = Array.from(
    { length: count },
    (_, tile) => gridLayout(grid, cellWindow(tiles, whole, tile)).windows,
  );
  const fine = { height: tiles.height * cells, width: tiles.width * cells };
  const map = Array.from({ length: fine.height * fine.width }, (_, cell) => {
    const [row, column] = [Math.floor(cell / fine.width), cell % fine.width];
    const tile = Math.floor(row / cells) * tiles.width + Math.floor(column / cells);
    return tile * cells * cells + (row % cells) * cells + (column % cells);
  });
  return {
    rows: (count + 1) * cells * cells,
    grid: null,
    windows: [...windows.flat(), ...last.windows],
    map: { grid: fine, window: whole, cells: map },
    tiles,
  };
}

// ---------------------------------------------------------------- transparency, as Pillow has it

/** x·y/255, rounded, in whole numbers. */
function times(x: number, y: number): number {
  const product = x * y + 128;
  return ((product >> 8) + product) >> 8;
}

/** Resizes colours multiplied by their opacity, and the opacity; nothing is done where the size is the same. */
function resized(picture: Picture, { width, height }: Size, filter: ResampleFilter): Picture {
  if (picture.width === width && picture.height === height) return picture;
  const window = { left: 0, top: 0, width, height };
  const { alpha } = picture;
  if (!alpha) return { width, height, rgb: resizeWindow(picture, { width, height }, window, filter) };
  const size = { width: picture.width, height: picture.height };
  const multiplied = picture.rgb.map((value, i) => times(value, alpha[Math.floor(i / 3)]!));
  const rgb = resizeWindow({ ...size, rgb: multiplied }, { width, height }, window, filter);
  const thrice = Uint8Array.from({ length: 3 * alpha.length }, (_, i) => alpha[Math.floor(i / 3)]!);
  const opacity = resizeWindow({ ...size, rgb: thrice }, { width, height }, window, filter).filter(
    (_, i) => i % 3 === 0,
  );
  return {
    width,
    height,
    rgb: rgb.map((value, i) => {
      const over = opacity[Math.floor(i / 3)]!;
      return over === 0 || over === 255 ? value : Math.min(255, Math.floor((255 * value) / over));
    }),
    alpha: opacity,
  };
}

/** A picture laid on white (Pillow's alpha_composite) [height, width, 3]. */
function onWhite({ rgb, alpha }: Picture): Uint8Array {
  if (!alpha) return rgb;
  const precision = 7;
  return rgb.map((value, i) => {
    const over = alpha[Math.floor(i / 3)]!;
    if (over === 0) return 255;
    const outer = over * 255 + 255 * (255 - over);
    const share = Math.floor((over * 255 * 255 * (1 << precision)) / outer);
    const mixed = value * share + 255 * (255 * (1 << precision) - share) + (0x80 << precision);
    return (((mixed >> 8) + mixed) >> 8) >> precision;
  });
}
