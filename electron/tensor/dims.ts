/**
 * @file Sizes of tensor axes: numbers, or names of sizes that are known only when a graph runs.
 */
import { EmendError } from '../errors.ts';

/** A size: a number, or a symbol such as `batch`, `rows` or the derived `past+rows`. */
export type Dim = number | string;
export type Shape = readonly Dim[];

export function shapeText(shape: Shape): string {
  return `[${shape.join(', ')}]`;
}

function combine(
  dims: readonly Dim[],
  sign: '+' | '*',
  fold: (a: number, b: number) => number,
  unit: number,
): Dim {
  let number = unit;
  const names: string[] = [];
  for (const dim of dims) {
    if (typeof dim === 'number') number = fold(number, dim);
    else {
      for (const part of dim.split(sign)) {
        if (/^\d+$/.test(part)) number = fold(number, Number(part));
        else names.push(part);
      }
    }
  }
  if (names.length === 0) return number;
  names.sort();
  if (number !== unit) names.push(String(number));
  return names.join(sign);
}

/** Size of an axis made by laying axes of these sizes end to end. */
export function sumOfDims(dims: readonly Dim[]): Dim {
  return combine(dims, '+', (a, b) => a + b, 0);
}

/** Size of an axis made by merging axes of these sizes. */
export function productOfDims(dims: readonly Dim[]): Dim {
  if (dims.some((dim) => typeof dim === 'string' && dim.includes('+'))) {
    const symbolic = dims.filter((dim) => dim !== 1);
    if (symbolic.length === 1) return symbolic[0]!;
    return symbolic.map((dim) => (typeof dim === 'string' && dim.includes('+') ? `(${dim})` : dim)).join('*');
  }
  return combine(dims, '*', (a, b) => a * b, 1);
}

/** NumPy broadcasting of two shapes. Throws when two sizes differ and neither is 1. */
export function broadcast(a: Shape, b: Shape, what: string): Dim[] {
  const rank = Math.max(a.length, b.length);
  const result: Dim[] = [];
  for (let axis = 0; axis < rank; axis++) {
    const x = a[axis - rank + a.length] ?? 1;
    const y = b[axis - rank + b.length] ?? 1;
    if (x === y || y === 1) result.push(x);
    else if (x === 1) result.push(y);
    else
      throw new EmendError(
        'internal',
        `${what}: shapes ${shapeText(a)} and ${shapeText(b)} do not broadcast.`,
      );
  }
  return result;
}

/** Axis counted from the front, whichever way it was given. */
export function axisOf(axis: number, rank: number, what: string): number {
  const result = axis < 0 ? axis + rank : axis;
  if (!Number.isInteger(result) || result < 0 || result >= rank) {
    throw new EmendError('internal', `${what}: axis ${axis} does not exist in a tensor of rank ${rank}.`);
  }
  return result;
}
