/**
 * @file JSON files from elsewhere, read up to a size; what is wrong with them is told without repeating them.
 */
import { lstat } from 'node:fs/promises';
import { EmendError } from '../errors.ts';
import { readRegularFile } from './regularFile.ts';

const LARGEST = 16 * 1024 * 1024;

/**
 * Reads a JSON file.
 * @param largest bytes
 * @throws EmendError 'not-found' if it is missing or no regular file, 'invalid-input' if it is over `largest` bytes,
 *   'damaged' if it is not JSON
 */
export async function readJson(path: string, largest = LARGEST): Promise<unknown> {
  return parseJson((await readRegularFile(path, largest)).toString('utf8'), path);
}

/** {@link readJson}, or undefined where there is no such file. A link that leads nowhere is an error, not an absence. */
export async function readJsonIfThere(path: string, largest?: number): Promise<unknown> {
  try {
    await lstat(path);
  } catch {
    return undefined;
  }
  return readJson(path, largest);
}

/**
 * @param origin named in errors
 * @throws EmendError 'damaged' for a text that is not JSON
 */
export function parseJson(text: string, origin: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch (cause) {
    throw new EmendError('damaged', `${origin} is not JSON${jsonTrouble(text, cause)}.`, { cause });
  }
}

/** Where a text stops being JSON, for people; what stands there is not repeated. '' where the parser does not say. */
export function jsonTrouble(text: string, cause: unknown): string {
  const message = cause instanceof Error ? cause.message : '';
  if (/^Unexpected end/.test(message)) return ': it ends too early';
  const position = /at position (\d+)/.exec(message)?.[1];
  if (position === undefined) return '';
  const before = text.slice(0, Number(position));
  return `: it goes wrong in line ${before.split('\n').length}, character ${before.length - before.lastIndexOf('\n')}`;
}
