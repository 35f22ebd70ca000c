/** @file Values of a grid painted over a picture, as a PNG: maps of attribution and influence outside a page. */
import sharp from 'sharp';
import { EmendError } from '../errors.ts';
import { decodePicture } from './picture.ts';

/** Values over the part `window` of a picture, in fractions of it. */
export interface PaintedGrid {
  readonly rows: number;
  readonly columns: number;
  /** row by row; 0 lets the picture through, 1 and above is the full colour */
  readonly values: readonly number[];
  readonly window: {
    readonly left: number;
    readonly top: number;
    readonly width: number;
    readonly height: number;
  };
}

/** Small pictures are enlarged to so many pixels along their longer side, so that cells can be told apart. */
const LEAST_SIDE = 480;
/** How opaque the full colour is. */
const OPACITY = 0.65;

/**
 * PNG of a picture with the grid over it, cells as they are: blue where values are low, red where they are high (Turbo), the more
 * opaque the higher.
 * @throws EmendError as `decodePicture`, 'internal' for values that are no grid
 */
export async function paintedPicture(bytes: Uint8Array, grid: PaintedGrid): Promise<Buffer> {
  const { rows, columns, values, window } = grid;
  if (values.length !== rows * columns)
    throw new EmendError('internal', `${values.length} values are no grid of ${rows} × ${columns}.`);
  const picture = await decodePicture(bytes);
  const scale = Math.max(1, Math.round(LEAST_SIDE / Math.max(picture.width, picture.height)));
  const [width, height] = [picture.width * scale, picture.height * scale];
  const raw = { width: picture.width, height: picture.height, channels: 3 } as const;
  const { data } = await sharp(picture.rgb, { raw })
    .resize(width, height, { kernel: 'cubic' })
    .raw()
    .toBuffer({ resolveWithObject: true });
  const colours = values.map((value) => turbo(Math.min(1, Math.max(0, value))));
  for (let y = 0; y < height; y++) {
    const row = Math.floor((((y + 0.5) / height - window.top) / window.height) * rows);
    if (row < 0 || row >= rows) continue;
    for (let x = 0; x < width; x++) {
      const column = Math.floor((((x + 0.5) / width - window.left) / window.width) * columns);
      if (column < 0 || column >= columns) continue;
      const cell = row * columns + column;
      const opacity = OPACITY * Math.min(1, Math.max(0, values[cell]!));
      for (let channel = 0; channel < 3; channel++) {
        const at = (y * width + x) * 3 + channel;
        data[at] = Math.round(data[at]! * (1 - opacity) + colours[cell]![channel]! * opacity);
      }
    }
  }
  return sharp(data, { raw: { width, height, channels: 3 } })
    .png()
    .toBuffer();
}

/** Turbo by its published polynomial (Mikhailov 2019); x and the colour's parts 0..1 and 0..255. */
function turbo(x: number): readonly number[] {
  const polynomial = (...coefficients: number[]) =>
    255 *
    Math.min(
      1,
      Math.max(
        0,
        coefficients.reduceRight((sum, c) => sum * x + c, 0),
      ),
    );
  return [
    polynomial(0.13572138, 4.6153926, -42.66032258, 132.13108234, -152.94239396, 59.28637943),
    polynomial(0.09140261, 2.19418839, 4.84296658, -14.18503333, 4.27729857, 2.82956604),
    polynomial(0.1066733, 12.64194608, -60.58204836, 110.36276771, -89.90310912, 27.34824973),
  ];
}
