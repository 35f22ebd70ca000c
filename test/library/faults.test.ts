/** @file Nothing acknowledged is lost and nothing is left half done, whatever ends a process; two may write at once. */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { showEdit } from '../../electron/library/edits.ts';
import { addPicture, listEdits, makeLibrary, temporaryFolder } from './support.ts';

const writer = fileURLToPath(new URL('writer.ts', import.meta.url));

/** Starts a writer; `told` grows by a line for each finished transaction. */
function startWriter(path: string, picture: string, count: number, name: string) {
  const child = spawn(process.execPath, [writer, path, picture, String(count), name], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let told = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    told += text;
  });
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve));
  return { child, ended, lines: () => told.split('\n').slice(0, -1) };
}

test('kill -9 at any moment loses no acknowledged edit and leaves no half one', async () => {
  const path = join(temporaryFolder(), 'killed.emend');
  const first = makeLibrary(path);
  const picture = await addPicture(first, 1);
  first.close();
  const acknowledged: string[] = [];

  for (const [round, lines] of [1, 6, 17, 30].entries()) {
    const { child, ended, lines: told } = startWriter(path, picture, 100_000, `round ${round}`);
    while (told().length < lines) await new Promise((resolve) => setTimeout(resolve, 2));
    child.kill('SIGKILL');
    await ended;
    acknowledged.push(...told());

    const library = makeLibrary(path);
    expect(library.database.pragma('integrity_check', { simple: true })).toBe('ok');
    expect(library.database.pragma('foreign_key_check')).toEqual([]);
    const edits = new Map(listEdits(library, {}).map((edit) => [edit.id, edit]));
    for (const line of acknowledged) {
      const [what, id] = line.split(' ');
      expect(edits.get(Number(id)), line).toBeDefined();
      if (what === 'committed') expect(edits.get(Number(id))!.status, line).toBe('committed');
    }
    for (const { id, status } of edits.values()) {
      const { probes, history } = showEdit(library, id);
      expect(probes.map((probe) => probe.kind)).toEqual(['reliability']);
      const whats = history.map((entry) => entry.what);
      expect(whats).toEqual(status === 'committed' ? ['created', 'committed'] : ['created']);
    }
    library.close();
  }
  expect(acknowledged.length).toBeGreaterThan(50);
}, 60_000);

test('a process killed while it makes the library leaves one that opens', async () => {
  for (const wait of [0, 1, 3, 9, 20]) {
    const path = join(temporaryFolder(), 'new.emend');
    const { child, ended } = startWriter(path, 'none', 0, 'x');
    while (!existsSync(path)) await new Promise((resolve) => setImmediate(resolve));
    await new Promise((resolve) => setTimeout(resolve, wait));
    child.kill('SIGKILL');
    await ended;
    const library = makeLibrary(path);
    expect(listEdits(library, {})).toEqual([]);
    library.close();
  }
}, 30_000);

test('processes that write at once, and one that watches, all see everything', async () => {
  const path = join(temporaryFolder(), 'shared.emend');
  const library = makeLibrary(path);
  const picture = await addPicture(library, 1);
  const seen = new Set<number>();
  library.onChange((edits) => {
    for (const edit of edits ?? []) seen.add(edit);
  });
  const writers = ['one', 'two'].map((name) => startWriter(path, picture, 25, name));
  for (const { ended } of writers) expect(await ended).toBe(0);
  const edits = listEdits(library, { status: ['committed'] });
  expect(edits).toHaveLength(50);
  expect(new Set(edits.map((edit) => edit.prompt)).size).toBe(50);
  await expect.poll(() => seen.size, { timeout: 5000 }).toBe(50);
}, 60_000);

test('processes may make the same library at once', async () => {
  const path = join(temporaryFolder(), 'raced.emend');
  const writers = ['a', 'b', 'c'].map((name) => startWriter(path, 'none', 0, name));
  for (const { ended } of writers) expect(await ended).toBe(0);
  expect(listEdits(makeLibrary(path), {})).toEqual([]);
}, 30_000);
