/**
 * @file Pictures resized as Pillow does.
 *
 * Resizing follows Pillow to the bit (src/libImaging/Resample.c): two passes of a filter widened when
 * shrinking, with coefficients in 22-bit fixed point and a rounding to 8 bits after each pass. Models were
 * trained on what it gives.
 */

import type { Picture } from '../files/picture.ts';

/** A rectangle in pixels of a picture; may reach over its edges, and need not begin at whole pixels. */
export interface View {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

/** Pillow's filters, by their numbers: 0 to 5. */
export const FILTER_NAMES = ['nearest', 'lanczos', 'bilinear', 'bicubic', 'box', 'hamming'] as const;
export type ResampleFilter = (typeof FILTER_NAMES)[number];

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
