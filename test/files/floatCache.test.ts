/** @file Numbers kept on disk: given back to the bit or not at all, bounded, and never in the way of whoever computes them. */
import { existsSync } from 'node:fs';
import {
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { FloatCache } from '../../electron/files/floatCache.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'emend-floats-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

/** A name of 64 digits that begins with a number. */
const named = (number: number) => number.toString(16).padStart(2, '0').padEnd(64, 'a');
const pathOf = (name: string) => join(folder, name.slice(0, 2), name);
const values = Float32Array.of(1, -0, Number.NaN, 2 ** -149);
/** Bytes of an entry of `values`. */
const ENTRY = 4 * values.length + 32;
const open = (limitBytes = 1e6) => FloatCache.open({ folder, limitBytes });
const bits = (floats: Float32Array | null) => floats && Buffer.from(floats.slice().buffer).toString('hex');

test('what is kept is given back to the bit, to whoever opens the folder, and to nobody who expects another size', async () => {
  await (await open()).keep(named(1), [values.subarray(0, 1), values.subarray(1)]);
  const cache = await open();
  expect(bits(await cache.read(named(1), 4))).toBe(bits(values));
  expect(await cache.read(named(1), 3)).toBeNull();
  expect(await cache.read(named(1), 5)).toBeNull();
  expect(await cache.read(named(2), 4)).toBeNull();
});

const damage: Record<string, (path: string) => Promise<unknown>> = {
  'a bit is another': async (path) => {
    const bytes = await readFile(path);
    bytes[5]! ^= 1;
    await writeFile(path, bytes);
  },
  'it is cut short': (path) => truncate(path, ENTRY - 1),
  'it is empty': (path) => truncate(path, 0),
  'it is huge': (path) => truncate(path, 2 ** 40),
  'it is another entry': async (path) => {
    await (await open()).keep(named(9), [values.map((value) => value + 1)]);
    await writeFile(path, await readFile(pathOf(named(9))));
  },
  'it leads to an endless device': async (path) => {
    await rm(path);
    await symlink('/dev/zero', path);
  },
};
test.each(Object.keys(damage))('an entry is made anew where %s', async (which) => {
  const cache = await open();
  await cache.keep(named(1), [values]);
  await damage[which]!(pathOf(named(1)));
  expect(await cache.read(named(1), 4)).toBeNull();
  await cache.keep(named(1), [values]);
  expect(bits(await cache.read(named(1), 4))).toBe(bits(values));
});

test('what was used longest ago gives way to the limit, and what is in use does not', async () => {
  const before = await open();
  for (const [age, number] of [1, 2, 3, 4].entries()) {
    await before.keep(named(number), [values]);
    const then = new Date(Date.now() - 1e6 + 1000 * age);
    await utimes(pathOf(named(number)), then, then);
  }
  const held = async () => {
    const names: string[] = [];
    for (const part of await readdir(folder)) names.push(...(await readdir(join(folder, part))));
    for (const name of names) expect((await stat(pathOf(name))).size).toBe(ENTRY);
    return names.map((name) => Number.parseInt(name.slice(0, 2), 16)).sort((a, b) => a - b);
  };
  // A limit that was lowered takes away the oldest at once.
  const cache = await open(3 * ENTRY);
  expect(await held()).toEqual([2, 3, 4]);
  await cache.read(named(2), 4);
  await cache.keep(named(5), [values]);
  expect(await held()).toEqual([2, 4, 5]);
  // Several at once, as a batch's pictures are kept.
  await Promise.all([6, 7, 8].map((number) => cache.keep(named(number), [values])));
  const full = await held();
  expect(full.length).toBe(3);
  expect(full).toEqual(expect.arrayContaining([2, 5]));
  // For the next to open the folder, what was read counts as used later than what was only there.
  await open(2 * ENTRY);
  expect(await held()).not.toContain(4);
  // One that is larger than all may be is not kept, and takes nothing away.
  const small = await open(2 * ENTRY);
  await small.keep(named(10), [new Float32Array(100)]);
  expect(await held()).toHaveLength(2);
});

test('what a process that was ended left half-written is no entry, and goes', async () => {
  await (await open()).keep(named(1), [values]);
  const [old, young] = ['old', 'young'].map((which) => `${pathOf(named(1))}.${which}.part`);
  for (const path of [old!, young!]) await writeFile(path, 'half');
  const yesterday = new Date(Date.now() - 86_400_000);
  await utimes(old!, yesterday, yesterday);
  await open();
  expect([old, young, pathOf(named(1))].map((path) => existsSync(path!))).toEqual([false, true, true]);
});

test('where nothing can be written nothing is kept, and nobody is disturbed', async () => {
  await writeFile(join(folder, 'file'), '');
  for (const where of [join(folder, 'file'), join(folder, 'file', 'below')]) {
    const cache = await FloatCache.open({ folder: where, limitBytes: 1e6 });
    await cache.keep(named(1), [values]);
    expect(await cache.read(named(1), 4)).toBeNull();
  }
  // A folder where the entry should be.
  await mkdir(pathOf(named(1)), { recursive: true });
  const cache = await open();
  await cache.keep(named(1), [values]);
  expect(await cache.read(named(1), 4)).toBeNull();
  expect(await readdir(join(folder, '01'))).toEqual([named(1)]);
  await cache.keep(named(2), [values]);
  expect(await cache.read(named(2), 4)).not.toBeNull();
});
