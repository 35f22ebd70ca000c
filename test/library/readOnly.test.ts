/** @file Libraries that may not be written are looked at; those with something strange in them are not opened. */
import { fork } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { openLibrary } from '../../electron/library/library.ts';
import { recentModels, rememberModel } from '../../electron/library/recentModels.ts';
import { addEdit, makeLibrary, temporaryFolder } from './support.ts';

const reader = join(import.meta.dirname, 'reader.ts');

describe.runIf(process.platform !== 'win32')('a library whose folder may not be written', () => {
  test.each([
    ['closed', true],
    ['as a killed process left it, with its log', false],
  ])('%s: can be read, says so, and refuses changes', async (_name, closed) => {
    const path = join(temporaryFolder(), 'shared.emend');
    const library = makeLibrary(path);
    await addEdit(library);
    if (closed) library.close();
    const folder = dirname(path);
    for (const name of readdirSync(folder)) chmodSync(join(folder, name), 0o444);
    // SQLite's index of the log is no content: whoever has the library open keeps its place in it.
    const contents = () =>
      readdirSync(folder)
        .filter((name) => !name.endsWith('-shm'))
        .map((name) => [
          name,
          createHash('sha256')
            .update(readFileSync(join(folder, name)))
            .digest('hex'),
        ]);
    const before = contents();
    chmodSync(folder, 0o555);
    try {
      const child = fork(reader, [path], { execArgv: [], stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
      const [told] = await once(child, 'message');
      expect(told).toEqual({
        readOnly: true,
        prompt: 'what animal is it?',
        models: 0,
        refused: { code: 'conflict', message: expect.stringMatching(`${path} can only be read.*Copy it`) },
      });
      expect(contents()).toEqual(before);
    } finally {
      chmodSync(folder, 0o755);
    }
  });
});

describe('a library with something strange in it is refused and left as it is', () => {
  test.each<[string, string, RegExp]>([
    [
      'a trigger',
      "CREATE TRIGGER t AFTER INSERT ON edits BEGIN UPDATE settings SET value = '1'; END",
      /trigger "t" is none/,
    ],
    ['a view', 'CREATE VIEW v AS SELECT 1', /view "v" is none/],
    ['another table', 'CREATE TABLE more (id)', /table "more" is none/],
    [
      'a rule taken away',
      'DROP TRIGGER history_is_not_removed',
      /lacks the trigger "history_is_not_removed"/,
    ],
    ['version 0 and tables', 'PRAGMA user_version = 0', /says that nothing was written yet/],
  ])('%s', async (_name, sql, message) => {
    const path = join(temporaryFolder(), 'file.emend');
    makeLibrary(path).close();
    const other = new Sqlite(path);
    other.pragma('journal_mode = DELETE');
    other.exec(sql);
    other.close();
    const bytes = readFileSync(path);
    expect(() => openLibrary(path)).toThrow(
      expect.objectContaining({ code: 'damaged', message: expect.stringMatching(message) }),
    );
    expect(readFileSync(path).equals(bytes)).toBe(true);
  });

  test('its tables run no functions that could do harm', () => {
    expect(makeLibrary().database.pragma('trusted_schema', { simple: true })).toBe(0);
  });
});

describe('models opened lately', () => {
  afterEach(() => vi.useRealTimers());

  test('come in the order they were opened, also when the clock was set back between them', () => {
    const library = makeLibrary();
    const remember = (name: string) =>
      rememberModel(library, { path: `/${name}`, name, adapterPath: null, model: name, adapter: '' });
    vi.useFakeTimers({ toFake: ['Date'], now: new Date('2030-01-01') });
    for (let number = 0; number < 20; number++) remember(`model ${number}`);
    vi.setSystemTime(new Date('2020-01-01'));
    remember('after');
    const names = recentModels(library).map(({ name }) => name);
    expect(names).toHaveLength(20);
    expect(names.slice(0, 2)).toEqual(['after', 'model 19']);
  });
});
