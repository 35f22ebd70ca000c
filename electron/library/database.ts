/**
 * @file The SQLite file of a library: opened with care, written in whole transactions, its errors told to people.
 */
import { closeSync, existsSync, fstatSync, mkdirSync, openSync, readSync, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import Sqlite, { type Database } from 'better-sqlite3';
import { EmendError } from '../errors.ts';
import { APPLICATION_ID, LIBRARY_VERSION, upgrade } from './schema.ts';

/** How long a call waits for another process to finish its transaction, in milliseconds. */
const BUSY_TIMEOUT = 10_000;
/** Up to this size, in bytes, every page of the file is looked at when it is opened. */
const FULL_CHECK_UP_TO = 64 * 1024 * 1024;

/**
 * Opens the library at `path`, making it (and its folder) if there is none, and brings it to the current version.
 * A file that is no library, is damaged or was written by a newer Emend is left as it is.
 * @throws EmendError 'invalid-input' for a path that cannot name a library, 'damaged', 'unsupported' for a newer
 *   version, 'not-found' where the file cannot be read or made, 'conflict' while another process keeps it locked.
 */
export function openDatabase(path: string): Database {
  if (path.trim() === '' || path !== path.trim() || path.includes('\0')) {
    throw new EmendError('invalid-input', `"${path}" cannot be the name of a library file. Choose another.`);
  }
  const file = resolve(path);
  return telling(file, () => {
    const size = existsSync(file) ? examine(file) : 0;
    mkdirSync(dirname(file), { recursive: true });
    const database = new Sqlite(file, { timeout: BUSY_TIMEOUT });
    try {
      database.pragma('foreign_keys = ON');
      refuseForeign(file, database);
      // A first version is written before the journal becomes a log of its own, so that the head of the file always says whose it is.
      refuseNewer(file, database.pragma('user_version', { simple: true }) as number);
      upgrade(database);
      database.pragma('journal_mode = WAL');
      // With a log, FULL is what makes a commit outlive a power cut.
      database.pragma('synchronous = FULL');
      if (size > 0 && size <= FULL_CHECK_UP_TO) {
        const found = database.pragma('quick_check(1)', { simple: true });
        if (found !== 'ok') throw damaged(file, String(found).split('\n')[0]!);
      }
      return database;
    } catch (error) {
      database.close();
      throw error;
    }
  });
}

/** Refuses what the head of the file already tells, without letting SQLite touch it. Returns the size in bytes. */
function examine(file: string): number {
  if (!statSync(file).isFile()) {
    throw new EmendError('invalid-input', `${file} is not a file. Choose a library file (*.emend).`);
  }
  // A journal was left by a process that ended while it made the library: SQLite undoes that first, then we look.
  if (existsSync(`${file}-journal`)) return statSync(file).size;
  const descriptor = openSync(file, 'r');
  try {
    const { size } = fstatSync(descriptor);
    if (size === 0) return 0;
    const head = Buffer.alloc(100);
    const read = readSync(descriptor, head, 0, 100, 0);
    if (read < 100 || head.toString('latin1', 0, 16) !== 'SQLite format 3\0') {
      throw damaged(file, 'it is not a SQLite file');
    }
    if (head.readUInt32BE(68) !== APPLICATION_ID) throw damaged(file, FOREIGN);
    refuseNewer(file, head.readUInt32BE(60));
    const pageSize = head.readUInt16BE(16) === 1 ? 65_536 : head.readUInt16BE(16);
    const pages = head.readUInt32BE(28);
    // While a log is there, a part of the file may still be in it.
    const hasLog = (statSync(`${file}-wal`, { throwIfNoEntry: false })?.size ?? 0) > 0;
    if (!hasLog && size < pages * pageSize) {
      throw damaged(file, `it ends after ${size} of ${pages * pageSize} bytes`);
    }
    return size;
  } finally {
    closeSync(descriptor);
  }
}

const FOREIGN = 'it is a SQLite file of another program';

function refuseForeign(file: string, database: Database): void {
  if (database.pragma('application_id', { simple: true }) === APPLICATION_ID) return;
  if (database.prepare('SELECT 1 FROM sqlite_schema LIMIT 1').get() !== undefined)
    throw damaged(file, FOREIGN);
}

function refuseNewer(file: string, version: number): void {
  if (version > LIBRARY_VERSION) {
    throw new EmendError(
      'unsupported',
      `${file} was written by a newer Emend (library version ${version}; this one reads up to ${LIBRARY_VERSION}). Update Emend, or choose another library. The file was not changed.`,
    );
  }
}

function damaged(file: string, what: string): EmendError {
  return new EmendError(
    'damaged',
    `${file} is not a library Emend can open: ${what}. Choose another file, or restore it from a copy. It was not changed.`,
  );
}

/** Runs `work`; what SQLite and the file system throw becomes an error a person can act on. */
export function telling<T>(file: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof EmendError || !(error instanceof Error)) throw error;
    const code = 'code' in error ? String(error.code) : '';
    const say = (kind: EmendError['code'], message: string) =>
      new EmendError(kind, message, { cause: error });
    if (code.startsWith('SQLITE_BUSY') || code.startsWith('SQLITE_LOCKED')) {
      throw say(
        'conflict',
        `The library ${file} is being written by another program. Try again in a moment.`,
      );
    }
    if (code.startsWith('SQLITE_CORRUPT') || code.startsWith('SQLITE_NOTADB')) {
      throw say('damaged', `The library ${file} is damaged (${error.message}). Restore it from a copy.`);
    }
    if (code.startsWith('SQLITE_FULL') || code === 'ENOSPC') {
      throw say('not-found', `There is no space left to write the library ${file}. Nothing was changed.`);
    }
    if (/^SQLITE_(READONLY|CANTOPEN|IOERR|PERM|AUTH)|^E[A-Z]+$/.test(code)) {
      throw say('not-found', `The library ${file} cannot be read or written (${error.message}).`);
    }
    throw error;
  }
}

/** What the parts of the library share: the file, and how to read and write it. */
export interface Store {
  readonly file: string;
  readonly database: Database;
  /** Fingerprints of the model and adapter that act now; '' where none does. Statuses and commits go by them. */
  actors: Actors;
  /** The form of prompts the open model was opened with, which the setting may be ahead of. Signals and checks go by it. */
  template: 'plain' | 'chat';
  /** Runs `work` on one unchanging view of the library. */
  read<T>(work: () => T): T;
  /** Runs `work` as one transaction: all of it is kept, with its history, or none. Listeners hear of it afterwards. */
  write<T>(work: () => T): T;
}

export interface Actors {
  readonly model: string;
  readonly adapter: string;
}

/** Now, as the library writes moments: ISO 8601, UTC. */
export const now = (): string => new Date().toISOString();

/** JSON that this program wrote; in a file from elsewhere it may be anything. @throws EmendError 'damaged' */
export function parseStored<T>(text: string, where: string): T {
  try {
    return JSON.parse(text) as T;
  } catch (cause) {
    throw new EmendError('damaged', `The library is damaged: ${where} is not readable.`, { cause });
  }
}
