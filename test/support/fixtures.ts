/**
 * @file Where the reference fixtures are, and how far numbers lie from them.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';

const folder = process.env['EMEND_FIXTURES'] ?? join(import.meta.dirname, '..', 'fixtures');

/**
 * The path of a reference fixture, such as `llava_tiny/forward.json`.
 * @throws where there is none: a reference test without its numbers fails, it is never left out
 */
export function fixture(name: string): string {
  const path = join(folder, name);
  if (!existsSync(path)) {
    throw new Error(
      `no reference fixture ${name} in ${folder}; EMEND_FIXTURES, where set, names a folder of the form of test/fixtures`,
    );
  }
  return path;
}

/** Largest absolute difference; infinite when the lengths differ. */
export function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Number.POSITIVE_INFINITY;
  let largest = 0;
  for (let i = 0; i < a.length; i++) largest = Math.max(largest, Math.abs(a[i]! - b[i]!));
  return largest;
}
