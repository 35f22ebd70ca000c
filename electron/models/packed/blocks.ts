/** @file Matrices in blocks of 4 or 8 bits: how numbers are rounded into them. */

/** A matrix [out, in] in blocks along its rows, as `PackedMatrix` in tensor/functions.ts has it. */
export interface Blocks {
  readonly bits: 4 | 8;
  /** elements of a block; divides `in` */
  readonly size: number;
}

/** Rows of a packed matrix. */
export interface PackedRows {
  readonly blocks: Uint8Array;
  readonly scales: Float32Array;
  readonly zeroPoints: Uint8Array;
}

/** Sizes of blocks to try, the first that divides a row is taken: large ones cost less, small ones round less. */
const SIZES = { 8: [64, 32, 16], 4: [32, 16] } as const;

/** Blocks for rows of `columns` elements; null where none divide them (zero points must fill whole bytes too). */
export function blocksFor(columns: number, bits: 4 | 8): Blocks | null {
  const size = SIZES[bits].find((each) => columns % each === 0 && ((columns / each) * bits) % 8 === 0);
  return size === undefined ? null : { bits, size };
}

/** Bytes that one row of `columns` elements takes in each part. */
export function rowBytes({ bits, size }: Blocks, columns: number) {
  const count = columns / size;
  return { blocks: (columns * bits) / 8, scales: count * 4, zeroPoints: (count * bits) / 8 };
}

/**
 * Rounds rows of whole blocks into them: each block's numbers lie evenly between its least and its largest, 0 among them.
 * Numbers that are not finite become 0.
 */
export function packRows(values: Float32Array, { bits, size }: Blocks): PackedRows {
  const count = values.length / size;
  const top = bits === 8 ? 255 : 15;
  const blocks = new Uint8Array((values.length * bits) / 8);
  const scales = new Float32Array(count);
  const zeroPoints = new Uint8Array((count * bits) / 8);
  for (let block = 0; block < count; block++) {
    const from = block * size;
    let low = 0;
    let high = 0;
    for (let i = from; i < from + size; i++) {
      const value = values[i]!;
      if (value < low) low = value;
      else if (value > high) high = value;
    }
    if (!Number.isFinite(high - low)) low = high = 0;
    // The runtime multiplies by the rounded scale, so the rounded one is divided by here.
    const scale = Math.fround((high - low) / top);
    scales[block] = scale;
    const inverse = scale > 0 ? 1 / scale : 0;
    const zero = Math.min(top, Math.max(0, Math.round(-low * inverse)));
    if (bits === 8) {
      zeroPoints[block] = zero;
      for (let i = from; i < from + size; i++) {
        const whole = Math.round(values[i]! * inverse) + zero;
        blocks[i] = whole < 0 ? 0 : whole > top ? top : whole;
      }
    } else {
      zeroPoints[block >> 1]! |= block & 1 ? zero << 4 : zero;
      for (let i = from; i < from + size; i += 2) {
        const first = Math.round(values[i]! * inverse) + zero;
        const second = Math.round(values[i + 1]! * inverse) + zero;
        const a = first < 0 ? 0 : first > top ? top : first;
        const b = second < 0 ? 0 : second > top ? top : second;
        blocks[i >> 1] = a | (b << 4);
      }
    }
  }
  return { blocks, scales, zeroPoints };
}
