/**
 * @file The safetensors format: headers checked against the real file, tensors read and written.
 *
 * A file is `u64 header length | JSON header | data`; the header names each tensor's dtype, shape and byte
 * range in the data. The ranges must cover the data without hole or overlap, as the format demands.
 * Numbers are little-endian, and so is every platform Emend runs on: bytes are reinterpreted, not swapped.
 */

import { type FileHandle, realpath } from 'node:fs/promises';
import { EmendError } from '../errors.ts';
import { jsonTrouble } from './json.ts';
import { openRegularFile } from './regularFile.ts';
import { replaceFile } from './replaceFile.ts';

/** Bytes of one element, for every dtype the format knows in whole bytes. */
const ELEMENT_BYTES = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E5M2: 1,
  F8_E4M3: 1,
  F8_E8M0: 1,
  I16: 2,
  U16: 2,
  F16: 2,
  BF16: 2,
  I32: 4,
  U32: 4,
  F32: 4,
  I64: 8,
  U64: 8,
  F64: 8,
  C64: 8,
} as const;

export type SafetensorsDtype = keyof typeof ELEMENT_BYTES;

/** The format's own limit on the header. */
const MAX_HEADER_BYTES = 100_000_000;
/** One read or write call moves less than 2 GiB on every platform. */
const CHUNK_BYTES = 256 * 1024 * 1024;

/** Where one tensor lies: `offset` counts from the beginning of the file, `bytes` long. */
export interface TensorEntry {
  readonly name: string;
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
  readonly offset: number;
  readonly bytes: number;
}

/** What a header says. `dataOffset` is where the data begin in the file. */
interface SafetensorsHeader {
  readonly metadata: ReadonlyMap<string, string>;
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  readonly dataOffset: number;
}

/** An opened file: its header only, no weights in memory. */
export interface SafetensorsFile extends SafetensorsHeader {
  /** The real path, symbolic links resolved. */
  readonly path: string;
  /** Size of the whole file in bytes. */
  readonly size: number;
}

export type TensorValues = Float32Array | BigInt64Array | Int32Array | Uint8Array;

/** A tensor in memory. `dtype` is the stored one; F16, BF16 and F64 values come as `Float32Array`. */
export interface StoredTensor {
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
  readonly data: TensorValues;
}

/** A tensor to be written; `dtype` says how, so F32 values can be stored as F16 or BF16. */
export type WritableTensor =
  | { readonly dtype: 'F32' | 'F16' | 'BF16'; readonly shape: readonly number[]; readonly data: Float32Array }
  | { readonly dtype: 'I64'; readonly shape: readonly number[]; readonly data: BigInt64Array }
  | { readonly dtype: 'I32'; readonly shape: readonly number[]; readonly data: Int32Array }
  | { readonly dtype: 'U8'; readonly shape: readonly number[]; readonly data: Uint8Array };

/**
 * Opens a safetensors file and checks its header against the file's real size.
 * @throws EmendError 'not-found' if it cannot be read, 'damaged' if header, shapes, ranges or size disagree.
 */
export async function openSafetensors(path: string): Promise<SafetensorsFile> {
  const { handle, size } = await openRegularFile(path);
  try {
    const prefix = new Uint8Array(8);
    if (size < 8) throw damaged(path, `it is ${size} bytes long, too short for a header`);
    await readFully(handle, prefix, 0, path);
    const headerBytes = headerLength(prefix, size, path);
    const header = new Uint8Array(headerBytes);
    await readFully(handle, header, 8, path);
    return { path: await realpath(path), size, ...parseHeader(header, size, path) };
  } finally {
    await handle.close();
  }
}

/**
 * Reads one tensor. F16, BF16 and F64 are converted to F32.
 * @throws EmendError 'not-found' for an unknown name, 'unsupported' for a dtype Emend does not read,
 *   'damaged' if the file became shorter since it was opened.
 */
export async function readTensor(file: SafetensorsFile, name: string): Promise<StoredTensor> {
  const entry = file.tensors.get(name);
  if (!entry) throw new EmendError('not-found', `${file.path} has no tensor named "${name}".`);
  refuseUnreadable(entry, file.path);
  const { handle } = await openRegularFile(file.path);
  try {
    const raw = new Uint8Array(entry.bytes);
    await readFully(handle, raw, entry.offset, file.path);
    return { dtype: entry.dtype, shape: entry.shape, data: decodeValues(entry, raw, file.path) };
  } finally {
    await handle.close();
  }
}

/**
 * Reads a whole safetensors file held in memory, with the checks of {@link openSafetensors}.
 * @param origin named in errors
 */
export function decodeSafetensors(
  bytes: Uint8Array,
  origin = 'The tensor data',
): { metadata: ReadonlyMap<string, string>; tensors: Map<string, StoredTensor> } {
  if (bytes.length < 8) throw damaged(origin, `it is ${bytes.length} bytes long, too short for a header`);
  const headerBytes = headerLength(bytes, bytes.length, origin);
  const header = parseHeader(bytes.subarray(8, 8 + headerBytes), bytes.length, origin);
  const tensors = new Map<string, StoredTensor>();
  for (const entry of header.tensors.values()) {
    refuseUnreadable(entry, origin);
    // A copy: the values must not change with the caller's buffer, and must begin at an aligned address.
    const raw = new Uint8Array(bytes.subarray(entry.offset, entry.offset + entry.bytes));
    tensors.set(entry.name, {
      dtype: entry.dtype,
      shape: entry.shape,
      data: decodeValues(entry, raw, origin),
    });
  }
  return { metadata: header.metadata, tensors };
}

/**
 * Writes a safetensors file atomically: a reader sees the old file or the whole new one. The same tensors
 * give the same bytes. Data begin on a multiple of 8 and wide elements come first, so every tensor is aligned
 * to its element.
 * @throws EmendError 'invalid-input' if a shape and its data disagree.
 */
export async function writeSafetensors(
  path: string,
  tensors: ReadonlyMap<string, WritableTensor>,
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  const { header, ordered } = layOut(tensors, metadata);
  await replaceFile(path, async (handle) => {
    await writeFully(handle, header);
    for (const [, tensor] of ordered) await writeFully(handle, encodeValues(tensor));
  });
}

/** The bytes {@link writeSafetensors} would write. */
export function encodeSafetensors(
  tensors: ReadonlyMap<string, WritableTensor>,
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array<ArrayBuffer> {
  const { header, ordered, dataBytes } = layOut(tensors, metadata);
  const out = new Uint8Array(header.length + dataBytes);
  out.set(header, 0);
  let at = header.length;
  for (const [, tensor] of ordered) {
    const values = encodeValues(tensor);
    out.set(values, at);
    at += values.length;
  }
  return out;
}

/** Number of elements of a shape; 1 for a scalar's `[]`. */
export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

// ---------------------------------------------------------------- header

function damaged(origin: string, what: string): EmendError {
  return new EmendError('damaged', `${origin} is not a sound safetensors file: ${what}. Get the file again.`);
}

function headerLength(prefix: Uint8Array, size: number, origin: string): number {
  const length = new DataView(prefix.buffer, prefix.byteOffset, 8).getBigUint64(0, true);
  if (length > BigInt(MAX_HEADER_BYTES)) {
    throw damaged(origin, `its header claims ${length} bytes, more than the format's ${MAX_HEADER_BYTES}`);
  }
  if (Number(length) > size - 8) {
    throw damaged(origin, `its header claims ${length} bytes and the file has ${size}`);
  }
  return Number(length);
}

function parseHeader(header: Uint8Array, fileSize: number, origin: string): SafetensorsHeader {
  let text = '';
  let json: unknown;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(header);
    json = JSON.parse(text);
  } catch (cause) {
    throw damaged(origin, `its header is not JSON${jsonTrouble(text, cause)}`);
  }
  if (!isRecord(json)) throw damaged(origin, 'its header is not a JSON object');
  const duplicate = duplicateKey(text);
  if (duplicate !== undefined) throw damaged(origin, `it names the tensor "${duplicate}" twice`);

  const dataOffset = 8 + header.length;
  const metadata = new Map<string, string>();
  const entries: TensorEntry[] = [];
  for (const [name, value] of Object.entries(json)) {
    if (name === '__metadata__') {
      if (!isRecord(value)) throw damaged(origin, 'its __metadata__ is not an object');
      for (const [key, text] of Object.entries(value)) {
        if (typeof text !== 'string') throw damaged(origin, `its metadata "${key}" is not text`);
        metadata.set(key, text);
      }
    } else {
      entries.push(parseEntry(name, value, dataOffset, fileSize, origin));
    }
  }

  const inFileOrder = entries.toSorted((a, b) => a.offset - b.offset || a.bytes - b.bytes);
  let end = dataOffset;
  for (const entry of inFileOrder) {
    if (entry.offset < end) throw damaged(origin, `tensor "${entry.name}" overlaps the one before it`);
    if (entry.offset > end) {
      throw damaged(origin, `there is a hole of ${entry.offset - end} bytes before tensor "${entry.name}"`);
    }
    end = entry.offset + entry.bytes;
  }
  if (end !== fileSize) {
    throw damaged(origin, `its tensors end at byte ${end} and the file at byte ${fileSize}`);
  }
  return { metadata, tensors: new Map(entries.map((entry) => [entry.name, entry])), dataOffset };
}

function parseEntry(
  name: string,
  value: unknown,
  dataOffset: number,
  fileSize: number,
  origin: string,
): TensorEntry {
  if (!isRecord(value)) throw damaged(origin, `the entry of tensor "${name}" is not an object`);
  const { dtype, shape, data_offsets: offsets } = value;
  if (typeof dtype !== 'string' || !Object.hasOwn(ELEMENT_BYTES, dtype)) {
    throw damaged(origin, `tensor "${name}" has the unknown dtype ${JSON.stringify(dtype)}`);
  }
  if (!Array.isArray(shape) || !shape.every(isSize)) {
    throw damaged(origin, `tensor "${name}" has no valid shape`);
  }
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isSize)) {
    throw damaged(origin, `tensor "${name}" has no valid data_offsets`);
  }
  const [begin, end] = offsets as [number, number];
  if (begin > end || end > fileSize - dataOffset) {
    throw damaged(
      origin,
      `tensor "${name}" lies at bytes ${begin} to ${end} of ${fileSize - dataOffset} bytes of data`,
    );
  }
  let bytes: number = ELEMENT_BYTES[dtype as SafetensorsDtype];
  for (const size of shape as number[]) {
    bytes *= size;
    if (!Number.isSafeInteger(bytes)) throw damaged(origin, `tensor "${name}" has an impossibly large shape`);
  }
  if (bytes !== end - begin) {
    throw damaged(
      origin,
      `tensor "${name}" (${dtype} [${shape}]) needs ${bytes} bytes and is given ${end - begin}`,
    );
  }
  return {
    name,
    dtype: dtype as SafetensorsDtype,
    shape: shape as number[],
    offset: dataOffset + begin,
    bytes,
  };
}

/**
 * The first key that the outermost object of a valid JSON text holds twice. `JSON.parse` would silently keep
 * the last, and two readers of one file could then see different weights.
 */
function duplicateKey(json: string): string | undefined {
  const seen = new Set<string>();
  let depth = 0;
  for (let at = 0; at < json.length; at++) {
    const char = json[at];
    if (char === '{' || char === '[') depth += 1;
    else if (char === '}' || char === ']') depth -= 1;
    if (char !== '"') continue;
    const begin = at;
    for (at += 1; json[at] !== '"'; at++) if (json[at] === '\\') at += 1;
    if (depth !== 1) continue;
    let next = at + 1;
    while (next < json.length && ' \t\n\r'.includes(json[next]!)) next += 1;
    if (json[next] !== ':') continue;
    const key = JSON.parse(json.slice(begin, at + 1)) as string;
    if (seen.has(key)) return key;
    seen.add(key);
  }
  return undefined;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isSize(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

/** A tensor of a file that is laid out before its values are known. */
export interface TensorLayout {
  readonly name: string;
  readonly dtype: WritableTensor['dtype'];
  readonly shape: readonly number[];
}

/** The header of a new file, where each tensor's bytes begin in it, and its size. */
export function layOutSafetensors(
  tensors: readonly TensorLayout[],
  metadata: Readonly<Record<string, string>>,
): { header: Uint8Array; offsets: ReadonlyMap<string, number>; size: number } {
  const sized = tensors.map(({ name, dtype, shape }): [string, SizedTensor] => {
    return [name, { dtype, shape, data: { length: elementCount(shape) } }];
  });
  const { header, ordered, dataBytes } = layOut(new Map(sized), metadata);
  const offsets = new Map<string, number>();
  let at = header.length;
  for (const [name, { dtype, shape }] of ordered) {
    offsets.set(name, at);
    at += elementCount(shape) * ELEMENT_BYTES[dtype];
  }
  return { header, offsets, size: header.length + dataBytes };
}

/** The values of F32, F16 or BF16 bytes. `bytes` begins at offset 0 of its buffer. */
export function floatsFromBytes(bytes: Uint8Array<ArrayBuffer>, dtype: 'F32' | 'F16' | 'BF16'): Float32Array {
  if (dtype === 'F32') return new Float32Array(bytes.buffer);
  const halves = new Uint16Array(bytes.buffer);
  return dtype === 'F16' ? halfToFloat(halves) : bfloatToFloat(halves);
}

interface SizedTensor extends Omit<TensorLayout, 'name'> {
  readonly data: { readonly length: number };
}

/** Order and header of a new file. */
function layOut<T extends SizedTensor>(
  tensors: ReadonlyMap<string, T>,
  metadata: Readonly<Record<string, string>>,
) {
  const ordered = [...tensors].toSorted(
    ([a, x], [b, y]) => ELEMENT_BYTES[y.dtype] - ELEMENT_BYTES[x.dtype] || (a < b ? -1 : 1),
  );
  const parts: string[] = [];
  const keys = Object.keys(metadata).toSorted();
  if (keys.length > 0) {
    const pairs = keys.map((key) => `${JSON.stringify(key)}:${JSON.stringify(metadata[key])}`);
    parts.push(`"__metadata__":{${pairs.join(',')}}`);
  }
  let at = 0;
  for (const [name, { dtype, shape, data }] of ordered) {
    if (name === '__metadata__')
      throw new EmendError('invalid-input', 'No tensor may be named __metadata__.');
    if (!shape.every(isSize) || elementCount(shape) !== data.length) {
      throw new EmendError(
        'invalid-input',
        `Tensor "${name}" has ${data.length} values, and its shape [${shape}] says otherwise.`,
      );
    }
    const end = at + data.length * ELEMENT_BYTES[dtype];
    parts.push(
      `${JSON.stringify(name)}:${JSON.stringify({ dtype, shape: [...shape], data_offsets: [at, end] })}`,
    );
    at = end;
  }
  const json = new TextEncoder().encode(`{${parts.join(',')}}`);
  const padded = Math.ceil(json.length / 8) * 8;
  const header = new Uint8Array(8 + padded).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(padded), true);
  header.set(json, 8);
  return { header, ordered, dataBytes: at };
}

// ---------------------------------------------------------------- values

function refuseUnreadable(entry: TensorEntry, origin: string): void {
  if (['F32', 'F16', 'BF16', 'F64', 'I64', 'I32', 'U8', 'BOOL'].includes(entry.dtype)) return;
  throw new EmendError(
    'unsupported',
    `Tensor "${entry.name}" of ${origin} is stored as ${entry.dtype}. Emend reads F32, F16, BF16 and F64 ` +
      'numbers, and I64, I32, U8 and BOOL.',
  );
}

/** `raw` begins at offset 0 of its buffer, so views of any width are aligned. */
function decodeValues(entry: TensorEntry, raw: Uint8Array<ArrayBuffer>, origin: string): TensorValues {
  switch (entry.dtype) {
    case 'F32':
      return new Float32Array(raw.buffer);
    case 'F64':
      return Float32Array.from(new Float64Array(raw.buffer));
    case 'F16':
      return halfToFloat(new Uint16Array(raw.buffer));
    case 'BF16':
      return bfloatToFloat(new Uint16Array(raw.buffer));
    case 'I64':
      return new BigInt64Array(raw.buffer);
    case 'I32':
      return new Int32Array(raw.buffer);
    case 'U8':
    case 'BOOL':
      return raw;
    default:
      throw new EmendError('unsupported', `Tensor "${entry.name}" of ${origin} is stored as ${entry.dtype}.`);
  }
}

function encodeValues(tensor: WritableTensor): Uint8Array {
  const { data } = tensor;
  if (tensor.dtype === 'F16') return new Uint8Array(floatToHalf(tensor.data).buffer);
  if (tensor.dtype === 'BF16') return new Uint8Array(floatToBfloat(tensor.data).buffer);
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

let halfTable: Float32Array | undefined;

/** IEEE half-precision bit patterns to F32, exactly. */
export function halfToFloat(halves: Uint16Array): Float32Array {
  halfTable ??= buildHalfTable();
  const out = new Float32Array(halves.length);
  for (let i = 0; i < halves.length; i++) out[i] = halfTable[halves[i]!]!;
  return out;
}

function buildHalfTable(): Float32Array {
  const table = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 0x1f;
    const mantissa = bits & 0x3ff;
    if (exponent === 0x1f) table[bits] = mantissa ? Number.NaN : sign * Number.POSITIVE_INFINITY;
    else if (exponent === 0) table[bits] = sign * mantissa * 2 ** -24;
    else table[bits] = sign * (1024 + mantissa) * 2 ** (exponent - 25);
  }
  return table;
}

/** bfloat16 bit patterns to F32, exactly. */
export function bfloatToFloat(bits: Uint16Array): Float32Array {
  const out = new Uint32Array(bits.length);
  for (let i = 0; i < bits.length; i++) out[i] = bits[i]! << 16;
  return new Float32Array(out.buffer);
}

/** F32 to half-precision bit patterns, rounding to nearest, ties to even; too large becomes infinity. */
export function floatToHalf(values: Float32Array): Uint16Array<ArrayBuffer> {
  const bits = new Uint32Array(Float32Array.from(values).buffer);
  const out = new Uint16Array(bits.length);
  for (let i = 0; i < bits.length; i++) {
    const sign = (bits[i]! >>> 16) & 0x8000;
    const exponent = ((bits[i]! >>> 23) & 0xff) - 112;
    const mantissa = bits[i]! & 0x7fffff;
    if (exponent === 143) out[i] = sign | 0x7c00 | (mantissa ? 0x200 : 0);
    else if (exponent >= 31) out[i] = sign | 0x7c00;
    else if (exponent > 0) out[i] = sign + roundShift((exponent << 23) | mantissa, 13);
    else if (exponent >= -10) out[i] = sign + roundShift(mantissa | 0x800000, 14 - exponent);
    else out[i] = sign;
  }
  return out;
}

/** F32 to bfloat16 bit patterns, rounding to nearest, ties to even. */
export function floatToBfloat(values: Float32Array): Uint16Array<ArrayBuffer> {
  const bits = new Uint32Array(Float32Array.from(values).buffer);
  const out = new Uint16Array(bits.length);
  for (let i = 0; i < bits.length; i++) {
    const notANumber = (bits[i]! & 0x7fffffff) > 0x7f800000;
    out[i] = notANumber ? (bits[i]! >>> 16) | 0x40 : roundShift(bits[i]!, 16);
  }
  return out;
}

/** `value / 2^shift` rounded to nearest, ties to even; `value` unsigned, `shift` at most 24. */
function roundShift(value: number, shift: number): number {
  const quotient = value >>> shift;
  const rest = value & ((1 << shift) - 1);
  const half = 1 << (shift - 1);
  return rest > half || (rest === half && quotient & 1) ? quotient + 1 : quotient;
}

// ---------------------------------------------------------------- files

async function readFully(
  handle: FileHandle,
  into: Uint8Array,
  position: number,
  path: string,
): Promise<void> {
  let done = 0;
  while (done < into.length) {
    const wanted = Math.min(CHUNK_BYTES, into.length - done);
    const { bytesRead } = await handle.read(into, done, wanted, position + done);
    if (bytesRead === 0) throw damaged(path, 'it ends in the middle of its data');
    done += bytesRead;
  }
}

async function writeFully(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  let done = 0;
  while (done < bytes.length) {
    const { bytesWritten } = await handle.write(bytes, done, Math.min(CHUNK_BYTES, bytes.length - done));
    done += bytesWritten;
  }
}
