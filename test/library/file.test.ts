/** @file The library as a file: made, reopened, and left alone when it is not one. */
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { describe, expect, test } from 'vitest';
import { editState, recordSignal, showEdit } from '../../electron/library/edits.ts';
import { openLibrary } from '../../electron/library/library.ts';
import { recentModels, rememberModel } from '../../electron/library/recentModels.ts';
import { LIBRARY_VERSION, upgrade, upgradeSteps } from '../../electron/library/schema.ts';
import { readSettings, writeSettings } from '../../electron/library/settings.ts';
import { addEdit, check, influence, makeLibrary, temporaryFolder } from './support.ts';

function refusal(path: string): { code: string; message: string } {
  try {
    openLibrary(path).close();
  } catch (error) {
    return error as { code: string; message: string };
  }
  throw new Error(`${path} was opened`);
}

test('reopening brings everything back', async () => {
  const path = join(temporaryFolder(), 'deep', 'er', 'mine.emend');
  const first = makeLibrary(path);
  const { id } = await addEdit(first);
  recordSignal(first, editState(first, id), new Uint8Array([1]), influence);
  check(first, id);
  writeSettings(first, { theme: 'dark' });
  rememberModel(first, { path: '/m', name: 'tiny', adapterPath: null, model: 'm', adapter: 'a' });
  const before = showEdit(first, id);
  first.close();

  const second = openLibrary(path);
  try {
    expect(second.name).toBe('mine');
    expect(second.actors).toEqual({ model: 'm', adapter: 'a' });
    expect(showEdit(second, id)).toEqual(before);
    expect(before).toMatchObject({
      edit: { status: 'checked' },
      check: { fresh: true },
      influence: { rows: 1 },
    });
    expect(readSettings(second).theme).toBe('dark');
    expect(recentModels(second).map((model) => model.name)).toEqual(['tiny']);
  } finally {
    second.close();
  }
});

describe('a file that is no library is refused and left as it is', () => {
  async function fileOf(change: (bytes: Buffer) => Buffer): Promise<string> {
    const path = join(temporaryFolder(), 'file.emend');
    const library = makeLibrary(path);
    for (let shade = 0; shade < 20; shade += 1) await addEdit(library, { shade });
    library.close();
    writeFileSync(path, change(readFileSync(path)));
    return path;
  }

  test.each<[string, (bytes: Buffer) => Buffer, string, RegExp]>([
    [
      'text',
      () => Buffer.from('hello, this is no database at all '.repeat(9)),
      'damaged',
      /not a SQLite file/,
    ],
    ['a short file', (bytes) => bytes.subarray(0, 60), 'damaged', /not a SQLite file/],
    ['a truncated library', (bytes) => bytes.subarray(0, bytes.length - 5000), 'damaged', /ends after/],
    [
      'a library with overwritten pages',
      (bytes) => Buffer.concat([bytes.subarray(0, 4096), Buffer.alloc(bytes.length - 4096, 0xa5)]),
      'damaged',
      /damaged|not a library/,
    ],
    [
      'a library of a newer version',
      (bytes) => {
        bytes.writeUInt32BE(LIBRARY_VERSION + 1, 60);
        return bytes;
      },
      'unsupported',
      /newer Emend/,
    ],
  ])('%s', async (_name, change, code, message) => {
    const path = await fileOf(change);
    const bytes = readFileSync(path);
    const error = refusal(path);
    expect(error).toMatchObject({ code });
    expect(error.message).toMatch(message);
    expect(error.message).toContain(path);
    expect(readFileSync(path).equals(bytes)).toBe(true);
  });

  test('a database of another program', () => {
    const path = join(temporaryFolder(), 'other.db');
    const other = new Sqlite(path);
    other.exec('CREATE TABLE edits (id)');
    other.close();
    const bytes = readFileSync(path);
    expect(refusal(path)).toMatchObject({ code: 'damaged' });
    expect(readFileSync(path).equals(bytes)).toBe(true);
  });

  test('a folder, and names that cannot be one', () => {
    expect(refusal(temporaryFolder()).code).toBe('invalid-input');
    expect(refusal(' ').code).toBe('invalid-input');
    expect(refusal(join(temporaryFolder(), 'a\0b')).code).toBe('invalid-input');
  });
});

test('an empty file becomes a library', () => {
  const path = join(temporaryFolder(), 'empty.emend');
  writeFileSync(path, '');
  makeLibrary(path).close();
  expect(statSync(path).size).toBeGreaterThan(0);
});

test('upgrades run the missing steps only, all or none', () => {
  const database = new Sqlite(':memory:');
  upgrade(database, upgradeSteps);
  const next = [...upgradeSteps, 'CREATE TABLE packs (id TEXT) STRICT'];
  upgrade(database, next);
  expect(database.pragma('user_version', { simple: true })).toBe(next.length);
  expect(() => upgrade(database, [...next, 'CREATE TABLE half (id TEXT)', 'nonsense'])).toThrow();
  expect(database.pragma('user_version', { simple: true })).toBe(next.length);
  expect(database.prepare(`SELECT name FROM sqlite_schema WHERE name = 'half'`).get()).toBeUndefined();
  database.close();
});

test('settings that a file from elsewhere got wrong become the defaults', () => {
  const library = makeLibrary();
  const put = library.database.prepare('INSERT INTO settings (key, value) VALUES (?, ?)');
  put.run('maxNewTokens', '1e9');
  put.run('theme', '{not json');
  put.run('policy', '{"required":{"reliability":7}}');
  expect(readSettings(library)).toMatchObject({
    maxNewTokens: 64,
    theme: 'system',
    policy: { required: { committed: 1 } },
  });
});
