import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { dataFolder } from '../../electron/frontends/places.ts';
import { parsePort } from '../../electron/frontends/serveProgram.ts';
import { loadWindowState, saveWindowState } from '../../electron/frontends/windowState.ts';

const folder = mkdtempSync(join(tmpdir(), 'emend-window-'));
const file = join(folder, 'deeper', 'window.json');
const display = { x: 0, y: 0, width: 1920, height: 1080 };
const fresh = { bounds: null, maximized: false };

afterAll(() => rmSync(folder, { recursive: true, force: true }));

test('a window comes back where it was', () => {
  const state = { bounds: { x: 100, y: 50, width: 1400, height: 900 }, maximized: true };
  saveWindowState(file, state);
  expect(loadWindowState(file, [display])).toEqual(state);
});

test.each([
  ['on a display that is gone', { x: 4000, y: 0, width: 1400, height: 900 }],
  ['nearly out of sight', { x: 1900, y: 0, width: 1400, height: 900 }],
  ['too small to use', { x: 0, y: 0, width: 200, height: 100 }],
])('a window %s opens in its first place', (_what, bounds) => {
  saveWindowState(file, { bounds, maximized: false });
  expect(loadWindowState(file, [display])).toEqual(fresh);
});

test('a damaged or missing state is as if there were none', () => {
  for (const text of ['', '{', '{"bounds":{"x":"a"}}', 'null']) {
    writeFileSync(file, text);
    expect(loadWindowState(file, [display])).toEqual(fresh);
  }
  expect(loadWindowState(join(folder, 'none.json'), [display])).toEqual(fresh);
});

test('the data folder is the one each system has for it', () => {
  expect(dataFolder({ XDG_DATA_HOME: '/x' }, 'linux')).toBe(join('/x', 'emend'));
  expect(dataFolder({}, 'linux')).toMatch(/\.local.share.emend$/);
  expect(dataFolder({ APPDATA: 'C:/A' }, 'win32')).toBe(join('C:/A', 'Emend'));
  expect(dataFolder({}, 'darwin')).toMatch(/Library.Application Support.Emend$/);
});

test('a port is a number a port can be', () => {
  expect([parsePort('0'), parsePort('65535')]).toEqual([0, 65535]);
  for (const text of ['', '-1', '65536', '80a', '1e3'])
    expect(() => parsePort(text)).toThrow(/is not a port/);
});
