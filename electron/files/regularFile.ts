/**
 * @file Opening and reading files from elsewhere: regular files only, as long as what was read of them says.
 *
 * Behind a name may be a pipe that never ends, a device that gives gigabytes, or a file that grows while it is read; a size that was asked
 * for beforehand holds for none of them.
 */
import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { EmendError } from '../errors.ts';

/** Bytes of the first read; each further one doubles it. */
const FIRST_READ = 64 * 1024;

/**
 * Opens a regular file for reading. Never waits: a pipe without a writer is refused like one with.
 * @throws EmendError 'not-found' if it is missing or may not be read, 'invalid-input' if it is a folder, a pipe or a device
 */
export async function openRegularFile(path: string): Promise<{ handle: FileHandle; size: number }> {
  let handle: FileHandle;
  try {
    handle = await open(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
  } catch (cause) {
    throw unreadable(path, cause);
  }
  try {
    const stats = await handle.stat();
    if (stats.isFile()) return { handle, size: stats.size };
    const what = stats.isDirectory() ? 'a folder' : 'a pipe or a device';
    throw new EmendError('invalid-input', `${path} is ${what}, not a file. Choose a file.`);
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/**
 * Reads a regular file to its end.
 * @param largest bytes; reading stops beyond them, whatever size the file gave
 * @throws EmendError as {@link openRegularFile}; 'invalid-input' for a file over `largest` bytes
 */
export async function readRegularFile(path: string, largest: number): Promise<Buffer<ArrayBuffer>> {
  const { handle, size } = await openRegularFile(path);
  try {
    if (size > largest) throw tooLarge(path, largest);
    let bytes = Buffer.alloc(Math.min(largest, size > 0 ? size : FIRST_READ) + 1);
    let length = 0;
    for (;;) {
      const { bytesRead } = await handle.read(bytes, length, bytes.length - length, length);
      if (bytesRead === 0) return bytes.subarray(0, length);
      length += bytesRead;
      if (length > largest) throw tooLarge(path, largest);
      if (length === bytes.length) {
        const longer = Buffer.alloc(Math.min(largest + 1, 2 * length));
        bytes.copy(longer);
        bytes = longer;
      }
    }
  } catch (cause) {
    if (cause instanceof EmendError) throw cause;
    throw unreadable(path, cause);
  } finally {
    await handle.close();
  }
}

function unreadable(path: string, cause: unknown): EmendError {
  const trouble = fileTrouble(cause);
  const message =
    trouble === TROUBLES['ENOENT'] ? `${path} is missing.` : `${path} cannot be read: ${trouble}.`;
  return new EmendError('not-found', message, { cause });
}

function tooLarge(path: string, largest: number): EmendError {
  const limit = largest >= 1024 * 1024 ? `${Math.floor(largest / 1024 / 1024)} MB` : `${largest} bytes`;
  return new EmendError('invalid-input', `${path} is larger than ${limit}, which is what Emend reads here.`);
}

const TROUBLES: Readonly<Record<string, string>> = {
  ENOENT: 'it is not there',
  ENOTDIR: 'a part of its path is a file, not a folder',
  EACCES: 'you may not read it',
  EPERM: 'you may not read it',
  EISDIR: 'it is a folder',
  ELOOP: 'its links lead round in a circle',
  ENAMETOOLONG: 'its name is too long',
  ENXIO: 'it is a pipe or a device',
  EMFILE: 'too many files are open',
  ENOSPC: 'no space is left',
  EROFS: 'its disk is read-only',
};

/** What the system said of a file, as the end of a sentence. */
export function fileTrouble(cause: unknown): string {
  const code = cause instanceof Error && 'code' in cause ? String(cause.code) : '';
  return TROUBLES[code] ?? 'the system refuses it';
}
