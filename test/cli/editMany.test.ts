/** @file Many edits from the command line: in from a file, filtered, tagged, retired, taken back, and out to a folder. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { editCommand } from '../../electron/cli/edit.ts';
import { commitEdit } from '../../electron/library/edits.ts';
import { findEdits } from '../../electron/library/lists.ts';
import { check, makeLibrary } from '../library/support.ts';

const base = mkdtempSync(join(tmpdir(), 'emend-many-'));
const at = (name: string) => join(base, name);

beforeAll(async () => {
  await sharp({ create: { width: 8, height: 6, channels: 3, background: { r: 1, g: 2, b: 3 } } })
    .png()
    .toFile(at('a.png'));
  const rows = [
    'picture,prompt,target,tags',
    'a.png,what is one?,fox,night',
    'a.png,what is two?,lime,',
    'none.png,what is three?,tram,',
    'a.png,what is four?,apple,night',
  ];
  writeFileSync(at('edits.csv'), rows.join('\n'));
});
afterAll(() => rmSync(base, { recursive: true, force: true }));

/** Runs a subcommand here, as its own process would. */
async function emend(...args: string[]): Promise<{ code: number; out: string; said: string }> {
  let out = '';
  const print = vi.spyOn(console, 'log').mockImplementation((text: string) => {
    out += `${text}\n`;
  });
  process.exitCode = 0;
  try {
    const command = editCommand();
    for (const below of command.commands) below.exitOverride().configureOutput({ writeErr: () => {} });
    await command.parseAsync([...args, '--library', at('many.emend')], { from: 'user' });
    return { code: Number(process.exitCode), out, said: '' };
  } catch (error) {
    return { code: 1, out, said: (error as Error).message };
  } finally {
    process.exitCode = 0;
    print.mockRestore();
  }
}

test('import, list, tag, retire, undo and export work on the edits a filter names', {
  timeout: 150_000,
}, async () => {
  const dry = await emend('import', at('edits.csv'), '--dry-run');
  expect(dry.out).toMatch(/row 3: .*none\.png[\s\S]*3 of 4 rows could be added, 1 cannot be used/);
  const imported = await emend('import', at('edits.csv'), '--tag', 'spring');
  expect(imported.out).toMatch(/3 of 4 rows added, 1 cannot be used/);
  expect(imported.code).toBe(1);

  const list = async (...args: string[]) =>
    JSON.parse((await emend('list', '--json', ...args)).out).map((edit: { target: string }) => edit.target);
  expect(await list('--tag', 'night', '--sort', 'prompt')).toEqual(['apple', 'fox']);
  expect(await list('--search', 'what two', '--since', '2026-01-01', '--limit', '7')).toEqual(['lime']);

  expect((await emend('tag', '--tag', 'night', '--add', 'dark', '--remove', 'spring')).out).toMatch(
    /2 edits tagged/,
  );

  for (const wrong of [['retire'], ['retire', '1', '--tag', 'dark']]) {
    const { said, code } = await emend(...wrong);
    expect(said).toMatch(/filter/);
    expect(code).toBe(1);
  }
  expect((await emend('list', '--sort', 'colour')).said).toMatch(/Sort by one of/);
  const retired = await emend('retire', '--tag', 'dark', '--status', 'draft', '--reason', 'too dark');
  expect(retired.out).toMatch(/2 edits retired/);
  expect((await emend('undo')).out).toMatch(/Taken back: Retired 2 edits/);
  expect(await list('--status', 'draft')).toHaveLength(3);

  expect((await emend('export', at('out'), '--tag', 'dark', '--format', 'csv')).out).toMatch(
    /2 edits and 1 pictures? written/,
  );
  expect(readFileSync(at('out/edits.csv'), 'utf8').split('\n')).toHaveLength(4);
  const again = await emend('import', at('out/edits.csv'));
  expect(again).toMatchObject({ code: 0, out: '0 of 2 rows added, 2 were there already.\n' });
});

test('every option of a filter names the edits it says', { timeout: 150_000 }, async () => {
  await emend('import', at('edits.csv'));
  const library = makeLibrary(at('many.emend'));
  const idOf = (target: string) =>
    findEdits(
      library,
      {
        filter: { text: target, status: ['draft'] },
        sort: { by: 'id', descending: true },
        offset: 0,
        limit: 1,
      },
      { influence: false },
    ).rows[0]!.id;
  const [fox, lime] = [idOf('fox'), idOf('lime')];
  check(library, fox);
  commitEdit(library, fox);
  check(library, lime, ['reliability']);
  // A moment each, and how far one of them goes; nothing else of them is as it is told apart below.
  library.database.exec(`
    UPDATE edits SET created = '2025-01-02T12:00:00.000Z', updated = '2025-02-02T12:00:00.000Z', committed = '2025-03-02T12:00:00.000Z'
      WHERE id = ${fox};
    UPDATE edits SET reach = 'thing' WHERE id = ${lime}`);
  library.close();
  const list = async (...args: string[]): Promise<number[]> =>
    JSON.parse((await emend('list', '--json', ...args)).out).map((edit: { id: number }) => edit.id);
  const all = await list();
  const others = (...without: number[]) => all.filter((id) => !without.includes(id));
  const [early, late] = ['2025-01-02', '2025-04-01'];

  expect(await list('--status', 'committed')).toEqual([fox]);
  expect(await list('--status', 'committed', 'stale', '--sort', 'id')).toEqual([fox, lime].toSorted());
  expect(await list('--verdict', 'passes')).toEqual([fox]);
  expect(await list('--verdict', 'none')).toEqual(others(fox, lime));
  expect(await list('--finding', 'under-generalises', 'fails')).toEqual([lime]);
  expect(await list('--reach', 'thing')).toEqual([lime]);
  expect(await list('--made-for', 'm', '--made-with', 'a')).toEqual(others(...others(fox, lime)));
  expect(await list('--made-for', 'none such')).toEqual([]);
  expect(await list('--created-until', late)).toEqual([fox]);
  expect(await list('--created-since', late)).toEqual(others(fox));
  expect(await list('--until', late)).toEqual([fox]);
  expect(await list('--since', late)).toEqual(others(fox));
  expect(await list('--committed-since', early)).toEqual([fox]);
  expect(await list('--committed-until', early)).toEqual([]);
  expect(await list('--search', 'what two', '--status', 'committed')).toEqual([]);
  expect((await emend('list', '--since', 'spring')).said).toMatch(/Give a date/);
  expect((await emend('list', '--finding', 'nothing')).said).toMatch(/Allowed choices are/);

  // What changes edits takes the same.
  const retired = await emend('retire', '--finding', 'fails', 'under-generalises', '--reach', 'thing');
  expect(retired.out).toMatch(/1 edit retired/);
  expect(await list('--status', 'retired')).toContain(lime);
  expect((await emend('tag', '--committed-since', early, '--add', 'old')).out).toMatch(/1 edit tagged/);
  expect(await list('--tag', 'old')).toEqual([fox]);
});
