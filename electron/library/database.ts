/**
 * @file The SQLite file of a library: opened with care, written in whole transactions, its errors told to people.
 */
import {
  accessSync,
  chmodSync,
  closeSync,
  constants,
  copyFileSync,
  existsSync,
  fstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readSync,
  rmSync,
  statSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import Sqlite, { type Database, type Statement } from 'better-sqlite3';
import { EmendError } from '../errors.ts';
import { fileTrouble } from '../files/regularFile.ts';
import { APPLICATION_ID, LIBRARY_VERSION, upgrade, upgradeSteps } from './schema.ts';

/** How long a call waits for another process to finish its transaction, in milliseconds. */
const BUSY_TIMEOUT = 10_000;
/** Up to this size, in bytes, every page of the file is looked at when it is opened. */
const FULL_CHECK_UP_TO = 64 * 1024 * 1024;

/** An open library file. */
export interface OpenDatabase {
  readonly database: Database;
  /** The file or its folder may not be written: what is open is a copy as it was, and refuses every change. */
  readonly readOnly: boolean;
  close(): void;
}

/**
 * Opens the library at `path`, making it (and its folder) if there is none, and brings it to the current version.
 * A file that is no library, is damaged or was written by a newer Emend is left as it is. One that may not be written is opened for
 * reading.
 * @throws EmendError 'invalid-input' for a path that cannot name a library, 'damaged', 'unsupported' for a newer
 *   version, 'not-found' where the file cannot be read or made, 'conflict' while another process keeps it locked.
 */
export function openDatabase(path: string): OpenDatabase {
  if (path.trim() === '' || path !== path.trim() || path.includes('\0')) {
    throw new EmendError('invalid-input', `"${path}" cannot be the name of a library file. Choose another.`);
  }
  const file = resolve(path);
  return telling(file, () => {
    const size = existsSync(file) ? examine(file) : 0;
    if (size > 0 && !(mayWrite(file) && mayWrite(dirname(file)))) return openCopy(file, size);
    mkdirSync(dirname(file), { recursive: true });
    const database = openFile(file, file, size);
    return { database, readOnly: false, close: () => database.close() };
  });
}

/** Opens a copy of a library that may not be written; SQLite's log needs to write beside the file even for reading. */
function openCopy(file: string, size: number): OpenDatabase {
  const folder = mkdtempSync(join(tmpdir(), 'emend-read-only-'));
  const remove = () => rmSync(folder, { recursive: true, force: true });
  try {
    const copy = join(folder, 'library.emend');
    for (const part of ['', '-wal', '-journal']) {
      if (!existsSync(file + part)) continue;
      copyFileSync(file + part, copy + part, constants.COPYFILE_FICLONE);
      chmodSync(copy + part, 0o600);
    }
    const database = openFile(copy, file, size);
    database.pragma('query_only = ON');
    return {
      database,
      readOnly: true,
      close: () => {
        database.close();
        remove();
      },
    };
  } catch (error) {
    remove();
    throw error;
  }
}

/** @param named the file errors are about */
function openFile(file: string, named: string, size: number): Database {
  const database = new Sqlite(file, { timeout: BUSY_TIMEOUT });
  try {
    database.pragma('foreign_keys = ON');
    // KiB: the indexes of a hundred thousand edits, so that a change of many does not read them again and again.
    database.pragma('cache_size = -65536');
    // What a file from elsewhere brings along must not run functions of ours.
    database.pragma('trusted_schema = OFF');
    refuseForeign(named, database);
    // A first version is written before the journal becomes a log of its own, so that the head of the file always says whose it is.
    refuseNewer(named, database.pragma('user_version', { simple: true }) as number);
    refuseStrangeSchema(named, database);
    upgrade(database);
    database.pragma('journal_mode = WAL');
    // With a log, FULL is what makes a commit outlive a power cut.
    database.pragma('synchronous = FULL');
    if (size > 0 && size <= FULL_CHECK_UP_TO) {
      const found = database.pragma('quick_check(1)', { simple: true });
      if (found !== 'ok') throw damaged(named, 'its pages contradict each other');
    }
    return database;
  } catch (error) {
    database.close();
    throw error;
  }
}

function mayWrite(path: string): boolean {
  try {
    accessSync(path, constants.W_OK);
    return true;
  } catch {
    return false;
  }
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

interface SchemaObject {
  readonly type: string;
  readonly name: string;
  readonly sql: string | null;
}

/** What lies in the schema, but for what SQLite keeps for itself. */
function schemaOf(database: Database): SchemaObject[] {
  return database
    .prepare<[], SchemaObject>(
      `SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'`,
    )
    .all();
}

/**
 * Refuses a library whose tables, indexes, views and triggers are not exactly those that Emend gave to its version: a trigger or a view
 * from elsewhere would change what reading and writing do.
 */
function refuseStrangeSchema(file: string, database: Database): void {
  const version = database.pragma('user_version', { simple: true }) as number;
  const model = new Sqlite(':memory:');
  try {
    upgrade(model, upgradeSteps.slice(0, version));
    const written = ({ type, name, sql }: SchemaObject) => JSON.stringify([type, name, sql]);
    const found = schemaOf(database);
    const expected = schemaOf(model);
    const own = new Set(expected.map(written));
    const strange = found.find((object) => !own.has(written(object)));
    if (strange && version === 0)
      throw damaged(file, 'it holds tables and says that nothing was written yet');
    if (strange) throw damaged(file, `its ${strange.type} "${strange.name.slice(0, 60)}" is none of Emend's`);
    const there = new Set(found.map(written));
    const missing = expected.find((object) => !there.has(written(object)));
    if (missing) throw damaged(file, `it lacks the ${missing.type} "${missing.name}"`);
  } finally {
    model.close();
  }
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
      throw say('damaged', `The library ${file} is damaged. Restore it from a copy.`);
    }
    if (code.startsWith('SQLITE_FULL') || code === 'ENOSPC') {
      throw say('not-found', `There is no space left to write the library ${file}. Nothing was changed.`);
    }
    if (code.startsWith('SQLITE_READONLY')) {
      throw say(
        'conflict',
        `The library ${file} can only be read: you may not write its file or its folder. Copy it to a folder of yours to change it.`,
      );
    }
    if (/^SQLITE_(CANTOPEN|IOERR|PERM|AUTH)|^E[A-Z]+$/.test(code)) {
      const trouble = code.startsWith('E') ? fileTrouble(error) : 'the system refuses it';
      throw say('not-found', `The library ${file} cannot be read or written: ${trouble}.`);
    }
    throw error;
  }
}

/** What the parts of the library share: the file, and how to read and write it. */
export interface Store {
  readonly file: string;
  readonly database: Database;
  /** What is open may not be changed: {@link OpenDatabase}. */
  readonly readOnly: boolean;
  /** Fingerprints of the model and adapter that act now; '' where none does. Statuses and commits go by them. */
  actors: Actors;
  /** The form of prompts the open model was opened with, which the setting may be ahead of. Signals and checks go by it. */
  template: 'plain' | 'chat';
  /** Runs `work` on one unchanging view of the library. */
  read<T>(work: () => T): T;
  /** Runs `work` as one transaction: all of it is kept, with its history, or none. Listeners hear of it afterwards. */
  write<T>(work: () => T): T;
  /** As `write`, for what follows from what is there and can be computed anew: in a library that can only be read, in its copy. */
  keep<T>(work: () => T): T;
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

const statements = new WeakMap<Database, Map<string, Statement>>();

/** A statement, prepared once per open file: for those that run thousands of times. */
export function prepared<Parameters extends unknown[] = unknown[], Row = unknown>(
  { database }: Pick<Store, 'database'>,
  sql: string,
): Statement<Parameters, Row> {
  const known = statements.get(database) ?? new Map<string, Statement>();
  statements.set(database, known);
  const statement = known.get(sql) ?? database.prepare(sql);
  known.set(sql, statement);
  return statement as unknown as Statement<Parameters, Row>;
}
