/** @file Many edits from the command line: in from a file, filtered, tagged, retired, taken back, and out to a folder. */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, expect, test } from 'vitest';

const cli = join(import.meta.dirname, '../../electron/cli.ts');
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

function emend(...args: string[]): Promise<{ code: number | null; out: string; said: string }> {
  const child = spawn(process.execPath, [cli, 'edit', ...args, '--library', at('many.emend')]);
  let [out, said] = ['', ''];
  child.stdout.on('data', (data) => (out += data));
  child.stderr.on('data', (data) => (said += data));
  return new Promise((resolve) => child.on('close', (code) => resolve({ code, out, said })));
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
  expect(await list('--search', 'what two')).toEqual(['lime']);
  expect(await list('--limit', '1', '--sort', '-target')).toEqual(['lime']);
  expect(await list('--since', '2100-01-01')).toEqual([]);

  expect((await emend('tag', '--tag', 'night', '--add', 'dark', '--remove', 'spring')).out).toMatch(
    /2 edits tagged/,
  );
  expect(await list('--tag', 'dark')).toEqual(['apple', 'fox']);
  expect(await list('--tag', 'spring')).toEqual(['lime']);

  for (const wrong of [['retire'], ['retire', '1', '--tag', 'dark']]) {
    const { said, code } = await emend(...wrong);
    expect(said).toMatch(/^emend: [^\n]*filter[^\n]*\n$/);
    expect(code).toBe(1);
  }
  expect((await emend('list', '--sort', 'colour')).code).toBe(2);
  const retired = await emend('retire', '--tag', 'dark', '--status', 'draft', '--reason', 'too dark');
  expect(retired.out).toMatch(/2 edits retired/);
  expect(await list('--status', 'draft')).toEqual(['lime']);
  expect((await emend('undo')).out).toMatch(/Taken back: Retired 2 edits/);
  expect(await list('--status', 'draft')).toHaveLength(3);

  expect((await emend('export', at('out'), '--tag', 'dark', '--format', 'csv')).out).toMatch(
    /2 edits and 1 pictures? written/,
  );
  expect(readFileSync(at('out/edits.csv'), 'utf8').split('\n')).toHaveLength(4);
  const again = await emend('import', at('out/edits.csv'));
  expect(again).toMatchObject({ code: 0, out: '0 of 2 rows added, 2 were there already.\n' });
});
