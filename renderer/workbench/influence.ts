/**
 * @file The influence map on a picture: where its cells lie, which one is under a point, and painting them.
 */
import type { InfluenceMap } from '../../electron/api/contract.ts';
import { type ColourScale, colourAt } from './colourScales.ts';

/** A rectangle in canvas pixels. */
export interface Rectangle {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

/** One visual token of the map. */
export interface Cell {
  readonly row: number;
  readonly column: number;
  /** index of the visual token, row by row */
  readonly token: number;
  /** 0..1 */
  readonly influence: number;
}

/** Where a picture of the given size lies when it is shown whole and centred in a box (`object-fit: contain`). */
export function containedIn(picture: { width: number; height: number }, box: Rectangle): Rectangle {
  const scale = Math.min(box.width / picture.width, box.height / picture.height);
  const width = picture.width * scale;
  const height = picture.height * scale;
  return {
    left: box.left + (box.width - width) / 2,
    top: box.top + (box.height - height) / 2,
    width,
    height,
  };
}

/** Where a picture of the given size lies when it fills a box and is cropped at its edges (`object-fit: cover`). */
export function covering(picture: { width: number; height: number }, box: Rectangle): Rectangle {
  const scale = Math.max(box.width / picture.width, box.height / picture.height);
  const width = picture.width * scale;
  const height = picture.height * scale;
  return {
    left: box.left + (box.width - width) / 2,
    top: box.top + (box.height - height) / 2,
    width,
    height,
  };
}

/** The part of a shown picture that the model sees, in the same pixels as the picture's rectangle. */
export function windowOn(picture: Rectangle, map: InfluenceMap): Rectangle {
  return {
    left: picture.left + map.window.left * picture.width,
    top: picture.top + map.window.top * picture.height,
    width: map.window.width * picture.width,
    height: map.window.height * picture.height,
  };
}

/** The cell under a point of a picture shown in `picture`; null outside what the model sees. */
export function cellAt(map: InfluenceMap, picture: Rectangle, x: number, y: number): Cell | null {
  const seen = windowOn(picture, map);
  const column = Math.floor(((x - seen.left) / seen.width) * map.columns);
  const row = Math.floor(((y - seen.top) / seen.height) * map.rows);
  return cell(map, row, column);
}

/** The cell of a row and column; null where the grid has none. */
export function cell(map: InfluenceMap, row: number, column: number): Cell | null {
  if (!(row >= 0 && row < map.rows && column >= 0 && column < map.columns)) return null;
  const token = row * map.columns + column;
  const influence = map.values[token];
  return influence === undefined ? null : { row, column, token, influence };
}

/** The rectangle of a cell on a picture shown in `picture`. */
export function cellRectangle(map: InfluenceMap, picture: Rectangle, at: Cell): Rectangle {
  const seen = windowOn(picture, map);
  const width = seen.width / map.columns;
  const height = seen.height / map.rows;
  return { left: seen.left + at.column * width, top: seen.top + at.row * height, width, height };
}

/**
 * The influence at a fractional row and column, linearly between cell centres (0 is the centre of the first cell);
 * beyond the outermost centres it stays what it is there.
 */
export function interpolated(map: InfluenceMap, row: number, column: number): number {
  const clampRow = (r: number) => Math.min(map.rows - 1, Math.max(0, r));
  const clampColumn = (c: number) => Math.min(map.columns - 1, Math.max(0, c));
  const value = (r: number, c: number) => map.values[clampRow(r) * map.columns + clampColumn(c)] ?? 0;
  const top = Math.floor(row);
  const left = Math.floor(column);
  const down = row - top;
  const right = column - left;
  const upper = value(top, left) * (1 - right) + value(top, left + 1) * right;
  const lower = value(top + 1, left) * (1 - right) + value(top + 1, left + 1) * right;
  return upper * (1 - down) + lower * down;
}

/** Up to this influence the picture is clear: the Influence Mapper's sigmoid seldom comes nearer to 0. */
const clearUpTo = 0.2;
/** From this influence on the colour is full. */
const fullFrom = 0.75;

/** How opaque a value is painted at full opacity: little influence lets the picture through (smoothstep). */
export function veil(influence: number): number {
  const x = Math.min(1, Math.max(0, (influence - clearUpTo) / (fullFrom - clearUpTo)));
  return x * x * (3 - 2 * x);
}

/**
 * Paints a map over a picture shown in `picture` (canvas pixels). `opacity` is 0..1. Cells are painted as they are;
 * with `smooth` the values, not the colours, are interpolated between cell centres.
 */
export function paintInfluence(
  context: CanvasRenderingContext2D,
  map: InfluenceMap,
  picture: Rectangle,
  look: { opacity: number; scale: ColourScale; smooth: boolean },
): void {
  const seen = windowOn(picture, map);
  // painted patches a cell, each way: fine enough to look smooth, few enough to paint at once
  const steps = look.smooth ? Math.min(12, Math.max(1, Math.ceil(seen.width / map.columns / 3))) : 1;
  const rows = map.rows * steps;
  const columns = map.columns * steps;
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const influence = look.smooth
        ? interpolated(map, (row + 0.5) / steps - 0.5, (column + 0.5) / steps - 0.5)
        : (map.values[row * map.columns + column] ?? 0);
      // whole pixels, so that neighbours meet without seams or overlap
      const left = Math.round(seen.left + (column / columns) * seen.width);
      const top = Math.round(seen.top + (row / rows) * seen.height);
      const right = Math.round(seen.left + ((column + 1) / columns) * seen.width);
      const bottom = Math.round(seen.top + ((row + 1) / rows) * seen.height);
      const [red, green, blue] = colourAt(look.scale, influence);
      context.fillStyle = `rgb(${red} ${green} ${blue} / ${look.opacity * veil(influence)})`;
      context.fillRect(left, top, right - left, bottom - top);
    }
  }
}
