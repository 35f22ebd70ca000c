/**
 * @file Where the reference tensors are, and how far numbers lie from them.
 */
import { fileURLToPath } from 'node:url';

/** Folder of reference tensors; tests that need it are left out where it is missing. */
export const fixtures =
  process.env['EMEND_FIXTURES'] ?? fileURLToPath(new URL('../../../shared/fixtures', import.meta.url));

/** Largest absolute difference; infinite when the lengths differ. */
export function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Number.POSITIVE_INFINITY;
  let largest = 0;
  for (let i = 0; i < a.length; i++) largest = Math.max(largest, Math.abs(a[i]! - b[i]!));
  return largest;
}
