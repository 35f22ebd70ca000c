/**
 * @file Zip archives of uncompressed files, as PyTorch writes them: where each file lies. Everything is taken from the central directory,
 * and only where the local headers and the archive's size agree with it.
 */
import type { FileHandle } from 'node:fs/promises';
import { crc32 } from 'node:zlib';
import { EmendError } from '../errors.ts';
import { openRegularFile } from './regularFile.ts';

const MOST_FILES = 20_000;
const LONGEST_DIRECTORY = 8 * 1024 * 1024;
/** The end record and its comment, which is empty in archives of PyTorch. */
const END_BYTES = 22;
/** Where a size or a place is only told in the form for large archives. */
const LARGE = 0xffff_ffff;

interface StoredFile {
  /** where its bytes begin in the archive */
  readonly offset: number;
  readonly bytes: number;
  readonly crc: number;
}

export interface StoredZip {
  readonly path: string;
  /** of the whole archive, in bytes */
  readonly size: number;
  /** by name in the archive; `offset`: where its bytes begin there */
  readonly files: ReadonlyMap<string, { readonly offset: number; readonly bytes: number }>;
  /** A file's bytes. @throws EmendError 'not-found', 'damaged' where they are not those that were written */
  read(name: string): Promise<Buffer>;
  close(): Promise<void>;
}

/**
 * @throws EmendError 'not-found', 'invalid-input' for what is no file, 'unsupported' for compressed, encrypted or split archives and
 *   those beyond 4 GB, 'damaged' for places and sizes that contradict one another
 */
export async function openStoredZip(path: string): Promise<StoredZip> {
  const { handle, size } = await openRegularFile(path);
  try {
    const files = await directory(handle, size, path);
    return {
      path,
      size,
      files,
      async read(name) {
        const file = files.get(name);
        if (!file) throw new EmendError('not-found', `${path} has no ${name}.`);
        const bytes = await readAt(handle, file.offset, file.bytes, path);
        if (crc32(bytes) !== file.crc) throw damaged(path, `${name} is not what was written`);
        return bytes;
      },
      close: () => handle.close(),
    };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

async function directory(handle: FileHandle, size: number, path: string): Promise<Map<string, StoredFile>> {
  if (size < END_BYTES) throw damaged(path, 'it ends too early');
  const end = await readAt(handle, size - END_BYTES, END_BYTES, path);
  if (end.readUInt32LE(0) !== 0x06054b50 || end.readUInt16LE(20) !== 0)
    throw new EmendError('unsupported', `${path} is no archive of PyTorch, or was cut short.`);
  const disks = [4, 6].map((at) => end.readUInt16LE(at));
  const [here, count] = [8, 10].map((at) => end.readUInt16LE(at)) as [number, number];
  const [bytes, start] = [12, 16].map((at) => end.readUInt32LE(at)) as [number, number];
  if (disks.some((disk) => disk !== 0) || here !== count)
    throw unsupported(path, 'is split into several files');
  if (count === 0xffff || bytes === LARGE || start === LARGE) throw unsupported(path, 'is larger than 4 GB');
  if (count > MOST_FILES || bytes > LONGEST_DIRECTORY)
    throw unsupported(path, `holds more than ${MOST_FILES} files`);
  if (start + bytes > size - END_BYTES) throw damaged(path, 'its directory lies beyond its end');
  await checkLargeForm(handle, size, { count, bytes, start }, path);

  const entries = await readAt(handle, start, bytes, path);
  const files = new Map<string, StoredFile>();
  let at = 0;
  for (let index = 0; index < count; index++) {
    if (at + 46 > bytes || entries.readUInt32LE(at) !== 0x02014b50)
      throw damaged(path, 'its directory is cut short');
    const [flags, method] = [entries.readUInt16LE(at + 8), entries.readUInt16LE(at + 10)];
    const crc = entries.readUInt32LE(at + 16);
    const [packed, length, local] = [20, 24, 42].map((field) => entries.readUInt32LE(at + field)) as [
      number,
      number,
      number,
    ];
    const [nameBytes, extra, comment] = [28, 30, 32].map((field) => entries.readUInt16LE(at + field)) as [
      number,
      number,
      number,
    ];
    if (at + 46 + nameBytes + extra + comment > bytes) throw damaged(path, 'its directory is cut short');
    const name = entries.toString('utf8', at + 46, at + 46 + nameBytes);
    if (method !== 0) throw unsupported(path, 'is compressed');
    if (flags & 0x2041) throw unsupported(path, 'is encrypted');
    if ([packed, length, local].includes(LARGE)) throw unsupported(path, 'holds files of more than 4 GB');
    if (packed !== length) throw damaged(path, 'a file in it is not as long as it says');
    if (files.has(name)) throw damaged(path, 'two files in it have one name');
    files.set(name, { offset: await dataOffset(handle, local, name, start, path), bytes: length, crc });
    at += 46 + nameBytes + extra + comment;
  }
  if (at !== bytes) throw damaged(path, 'its directory is longer than its files');
  checkPlaces([...files.values()], start, path);
  return files;
}

/** PyTorch writes the records for large archives too: where they are, they say the same. */
async function checkLargeForm(
  handle: FileHandle,
  size: number,
  told: { count: number; bytes: number; start: number },
  path: string,
): Promise<void> {
  const at = size - END_BYTES - 20;
  if (at < 0) return;
  const locator = await readAt(handle, at, 20, path);
  if (locator.readUInt32LE(0) !== 0x07064b50) return;
  const place = Number(locator.readBigUInt64LE(8));
  if (place !== told.start + told.bytes || place + 56 > at)
    throw damaged(path, 'its end records contradict each other');
  const record = await readAt(handle, place, 56, path);
  const [count, bytes, start] = [32, 40, 48].map((field) => Number(record.readBigUInt64LE(field)));
  if (
    record.readUInt32LE(0) !== 0x06064b50 ||
    count !== told.count ||
    bytes !== told.bytes ||
    start !== told.start
  )
    throw damaged(path, 'its end records contradict each other');
}

/** Where a file's bytes begin: behind its local header, which must name it. Sizes may stand behind the bytes, as PyTorch has them. */
async function dataOffset(
  handle: FileHandle,
  local: number,
  name: string,
  directoryStart: number,
  path: string,
): Promise<number> {
  if (local + 30 > directoryStart) throw damaged(path, 'a file in it lies beyond its end');
  const header = await readAt(handle, local, 30, path);
  if (header.readUInt32LE(0) !== 0x04034b50 || header.readUInt16LE(8) !== 0)
    throw damaged(path, 'a file in it does not lie where it says');
  const [nameBytes, extra] = [header.readUInt16LE(26), header.readUInt16LE(28)];
  const named = await readAt(handle, local + 30, nameBytes, path);
  if (named.toString('utf8') !== name) throw damaged(path, 'a file in it has two names');
  return local + 30 + nameBytes + extra;
}

/** No two files share bytes, and none reaches into the directory. */
function checkPlaces(files: readonly StoredFile[], directoryStart: number, path: string): void {
  let free = 0;
  for (const { offset, bytes } of files.toSorted((one, other) => one.offset - other.offset)) {
    if (offset < free) throw damaged(path, 'files in it overlap');
    free = offset + bytes;
  }
  if (free > directoryStart) throw damaged(path, 'a file in it reaches beyond its end');
}

async function readAt(handle: FileHandle, offset: number, bytes: number, path: string): Promise<Buffer> {
  const buffer = Buffer.alloc(bytes);
  let length = 0;
  while (length < bytes) {
    const { bytesRead } = await handle.read(buffer, length, bytes - length, offset + length);
    if (bytesRead === 0) throw damaged(path, 'it ends too early');
    length += bytesRead;
  }
  return buffer;
}

const damaged = (path: string, why: string) => new EmendError('damaged', `${path}: ${why}. Copy it again.`);
const unsupported = (path: string, why: string) =>
  new EmendError('unsupported', `${path} ${why}, which no state dict of PyTorch is.`);
