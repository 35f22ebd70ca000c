/**
 * @file What a picture is to a model: pixel values for its vision tower, and rows for its decoder with their place in the picture.
 */
import { EmendError } from '../errors.ts';
import type { Picture } from '../files/picture.ts';
import type { View } from './imageProcessor.ts';

/** A rectangle in fractions of a picture, 0..1 along either side; may reach over its edges. */
export type Window = View;

/** Visual rows as cells of a picture, row by row. */
export interface VisualGrid {
  readonly height: number;
  readonly width: number;
}

/** The rows a picture takes in the decoder, and what each of them sees. */
export interface PictureLayout {
  /** number of visual rows */
  readonly rows: number;
  /** the visual rows as one grid, row by row; null where they are none (tiles, queries that each see everything) */
  readonly grid: VisualGrid | null;
  /** the part of the picture that each row sees [rows] */
  readonly windows: readonly Window[];
  /**
   * What a map of the picture shows: a grid over the part `window` of it, and for each cell the visual row that sees it most
   * closely. Null where rows have no place in the picture.
   */
  readonly map: {
    readonly grid: VisualGrid;
    readonly window: Window;
    readonly cells: readonly number[];
  } | null;
  /** tiles the picture is cut into, without the whole picture that follows them; absent in families without tiles */
  readonly tiles?: VisualGrid;
}

/** A picture as a vision tower takes it. */
export interface Pixels {
  /** in the family's own form, such as [3, side, side], [tiles, 3, side, side] or [patches, features] */
  readonly values: Float32Array;
  readonly shape: readonly number[];
  readonly layout: PictureLayout;
  /** which pixels of tiles hold picture, 1 or 0 [tiles, side, side]; absent: all of them */
  readonly mask?: Uint8Array;
}

/** A picture as the decoder takes it. */
export interface Visual {
  /** visual embeddings [visual rows, hidden] */
  readonly rows: Float32Array;
  readonly layout: PictureLayout;
  /** what the vision tower saw; absent where it is not at hand, and then no change of the tower can act on it */
  readonly pixels?: Pixels;
  /** features added to the visual rows after the output of decoder layer 0, 1, … (DeepStack) [visual rows, hidden] each */
  readonly added: readonly Float32Array[];
}

/** Turns decoded pictures into pixel values. */
export interface PictureReader {
  /** How a picture of this size is laid out. Throws `invalid-input` for sizes the model cannot take. */
  layout(picture: { readonly width: number; readonly height: number }): PictureLayout;
  preprocess(picture: Picture): Pixels;
  /**
   * Tensors written by another program, such as `pixel_values`, as the pictures they hold, in order.
   * Throws `invalid-input` when they do not fit the model.
   */
  fromTensors(tensors: PictureTensors): Pixels[];
  /** The same pictures as tensors to write, with the names other programs know. */
  toTensors(pictures: readonly Pixels[]): ReadonlyMap<string, GivenTensor>;
  /** fewest and most rows a picture takes */
  readonly rows: { readonly least: number; readonly most: number };
}

export interface GivenTensor {
  readonly shape: readonly number[];
  readonly data: Float32Array | BigInt64Array;
}

/** What `trace --inputs` may hold of pictures. */
export type PictureTensors = ReadonlyMap<string, GivenTensor>;

/** Rows laid into a grid over `window` of a picture, each seeing its cell. */
export function gridLayout(grid: VisualGrid, window: Window = whole): PictureLayout {
  const cells = Array.from({ length: grid.height * grid.width }, (_, cell) => cell);
  const windows = cells.map((cell) => cellWindow(grid, window, cell));
  return { rows: cells.length, grid, windows, map: { grid, window, cells } };
}

/** Rows that each see the whole picture and have no place in it. */
export function placelessLayout(rows: number): PictureLayout {
  return { rows, grid: null, windows: Array.from({ length: rows }, () => whole), map: null };
}

/** Throws `invalid-input` when the fewest rows a picture takes are more than wished for. */
export function checkMostRows(fewest: number, mostRows: number | undefined): void {
  if (mostRows === undefined || fewest <= mostRows) return;
  throw new EmendError(
    'invalid-input',
    `A picture takes at least ${fewest} rows in this model, and the limit is ${mostRows}. Raise it.`,
  );
}

/** The part of the picture that a cell of a grid over `window` covers. */
export function cellWindow({ height, width }: VisualGrid, window: Window, cell: number): Window {
  const [row, column] = [Math.floor(cell / width), cell % width];
  return {
    left: window.left + (column / width) * window.width,
    top: window.top + (row / height) * window.height,
    width: window.width / width,
    height: window.height / height,
  };
}

export const whole: Window = { left: 0, top: 0, width: 1, height: 1 };
