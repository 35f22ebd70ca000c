/**
 * @file Files that are one flat JSON list, read element by element: a list of any length takes the memory of one element, and a
 * broken element leaves the others readable.
 */
import { EmendError } from '../errors.ts';
import { openRegularFile } from './regularFile.ts';

/** An element, or why it cannot be read; `row` counts from 1. */
export type ListedRecord =
  | { readonly row: number; readonly value: unknown }
  | { readonly row: number; readonly problem: string };

/** Larger elements are passed over, in bytes. */
const LARGEST = 1024 * 1024;

const [QUOTE, BACKSLASH, COMMA] = [0x22, 0x5c, 0x2c];
const OPENING = new Set([0x5b, 0x7b]); // [ {
const CLOSING = new Set([0x5d, 0x7d]); // ] }
const SPACE = new Set([0x20, 0x09, 0x0a, 0x0d]);
const BYTE_ORDER_MARK = [0xef, 0xbb, 0xbf];

/**
 * The elements of a JSON list, in order.
 * @param heard is told of every piece of the file as it is read
 * @throws EmendError as `openRegularFile`; 'damaged' for what does not begin as a list
 */
export async function* readJsonList(
  path: string,
  heard?: (bytes: Buffer) => void,
): AsyncGenerator<ListedRecord> {
  const { handle } = await openRegularFile(path);
  let row = 0;
  /** brackets open around the byte; 0: the list has not begun */
  let depth = 0;
  let inText = false;
  let escaped = false;
  let ended = false;
  /** pieces of the element that is being read, their size, and whether anything of it is there */
  let pieces: Buffer[] = [];
  let size = 0;
  let begun = false;

  const finish = (): ListedRecord => {
    row += 1;
    const bytes = Buffer.concat(pieces);
    const tooLarge = size > LARGEST;
    [pieces, size, begun] = [[], 0, false];
    if (tooLarge) return { row, problem: `it is larger than ${LARGEST / 1024 / 1024} MB` };
    try {
      return { row, value: JSON.parse(bytes.toString('utf8')) };
    } catch {
      return { row, problem: 'it is not JSON' };
    }
  };

  let first = true;
  for await (const whole of handle.createReadStream({ highWaterMark: 256 * 1024 })) {
    let chunk = whole as Buffer;
    heard?.(chunk);
    if (first && BYTE_ORDER_MARK.every((byte, i) => chunk[i] === byte)) chunk = chunk.subarray(3);
    first = false;
    let start = 0;
    const keep = (end: number) => {
      size += end - start;
      if (size <= LARGEST) pieces.push(chunk.subarray(start, end));
    };
    for (let at = 0; at < chunk.length; at += 1) {
      const byte = chunk[at]!;
      if (inText) {
        if (escaped) escaped = false;
        else if (byte === BACKSLASH) escaped = true;
        else if (byte === QUOTE) inText = false;
        continue;
      }
      if (SPACE.has(byte)) continue;
      if (depth === 0) {
        if (ended || byte !== 0x5b) throw noList(path);
        depth = 1;
        start = at + 1;
        continue;
      }
      if (depth === 1 && (byte === COMMA || CLOSING.has(byte))) {
        keep(at);
        start = at + 1;
        if (begun || byte === COMMA || row > 0) yield finish();
        if (CLOSING.has(byte)) [depth, ended] = [0, true];
        [pieces, size, begun] = [[], 0, false];
        continue;
      }
      begun = true;
      if (byte === QUOTE) inText = true;
      else if (OPENING.has(byte)) depth += 1;
      else if (CLOSING.has(byte)) depth -= 1;
    }
    if (depth > 0) keep(chunk.length);
  }
  if (row === 0 && !begun && !ended) throw noList(path);
  if (!ended) yield { row: row + 1, problem: 'the file ends before its list does' };
}

const noList = (path: string): EmendError =>
  new EmendError(
    'damaged',
    `${path} is not one flat JSON list of edits. Give a data set’s file (E-VQA, E-IC, VLKEB, MMKE-Bench, Emend’s own), or CSV.`,
  );
