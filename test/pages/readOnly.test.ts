/** @file A library that can only be read: the page says so, and what would change it is off, with the reason. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Browser, Page } from 'playwright-core';
import sharp from 'sharp';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { forkEngine } from '../../electron/engine/forkEngine.ts';
import { pageFolder } from '../../electron/frontends/places.ts';
import { type Program, startProgram } from '../../electron/frontends/program.ts';
import { createEdit, editState } from '../../electron/library/edits.ts';
import { openLibrary } from '../../electron/library/library.ts';
import { examinePicture, storePicture } from '../../electron/library/pictures.ts';
import { keepSignal } from '../../electron/library/signals.ts';
import { type Served, serve } from '../../electron/serve.ts';
import { openBrowser } from '../support/browser.ts';

// Whoever runs the tests may be allowed everything: the system's answer is given here.
vi.mock('node:fs', async (original) => {
  const fs = await original<typeof import('node:fs')>();
  const accessSync: typeof fs.accessSync = (path, mode) => {
    if (String(path).includes('emend-locked-') && mode === fs.constants.W_OK) throw new Error('EACCES');
    fs.accessSync(path, mode);
  };
  return { ...fs, default: { ...fs, accessSync }, accessSync };
});

const PATIENCE = 30_000;
const folder = mkdtempSync(join(tmpdir(), 'emend-locked-'));
let program: Program;
let served: Served;
let browser: Browser;
let page: Page;
const problems: string[] = [];

beforeAll(async () => {
  const path = join(folder, 'museum.emend');
  const library = openLibrary(path);
  const png = await sharp({ create: { width: 60, height: 40, channels: 3, background: '#336699' } })
    .png()
    .toBuffer();
  const picture = storePicture(library, await examinePicture(png)).id;
  const { id } = createEdit(library, { picture, prompt: 'What is it?', target: 'okapi' });
  // As a model of the Q-Former kind leaves it: 32 rows, each of which sees the whole picture.
  const window = { left: 0, top: 0, width: 1, height: 1 };
  const values = Array.from({ length: 32 }, (_, at) => (at === 7 ? 0.93 : at / 64));
  library.write(() => {
    const map = { rows: 1, columns: 32, values, placed: false, layer: 3, window };
    keepSignal(library, id, editState(library, id).signalState, new Uint8Array([1]), map);
  });
  library.close();
  program = await startProgram({
    library: path,
    launch: () => forkEngine(join(import.meta.dirname, '../engine/plainEngine.ts')),
    startModel: 'none',
  });
  served = await serve({ application: program.application, page: pageFolder, port: 0 });
  browser = await openBrowser();
  page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
  page.setDefaultTimeout(PATIENCE);
  page.on('pageerror', (error) => problems.push(error.message));
  await page.goto(served.url);
}, PATIENCE);

afterAll(async () => {
  await browser?.close();
  await served?.close();
  await program?.close();
  rmSync(folder, { recursive: true, force: true });
});

test('says so, and what would change it is off, with the reason', async () => {
  const status = await program.application.call('app.status', {});
  expect(status.library.readOnly).toBe(true);
  await page.getByText('Read only', { exact: true }).waitFor();
  await page.getByRole('link', { name: 'Library', exact: true }).click();
  await page.locator('#edit-1').click({ modifiers: ['Control'] });
  const bar = page.getByRole('toolbar', { name: 'Selected edits' });
  const off = [
    bar.getByRole('button', { name: 'Retire' }),
    bar.getByRole('button', { name: 'Restore' }),
    bar.getByRole('button', { name: 'Tag' }),
    page.getByRole('button', { name: 'Import…' }),
    page.getByRole('complementary', { name: 'Edit details' }).getByRole('button', { name: 'Retire' }),
  ];
  for (const button of off) {
    expect(await button.isDisabled()).toBe(true);
    expect(await button.getAttribute('title')).toMatch(/can only be read/);
  }
  expect(await bar.getByRole('button', { name: 'Export…' }).isEnabled()).toBe(true);
  await page.getByRole('link', { name: 'Settings', exact: true }).click();
  await page.getByText(/Settings are kept with the library.*can only be read/).waitFor();
  expect(await page.getByLabel('Longest answer').isDisabled()).toBe(true);
});

test('a map whose cells have no place in the picture is shown as bars, and never laid on it', async () => {
  await page.goto(page.url().replace(/#.*/, '#/workbench/1'));
  const bars = page.getByRole('region', { name: 'Influence' });
  await bars.getByText('Influence on the 32 query tokens').waitFor();
  expect(await bars.getByRole('status').innerText()).toBe('strongest: token 7 · 0.93');
  await bars.getByRole('img').focus();
  await page.keyboard.press('ArrowRight');
  await expect.poll(() => bars.getByRole('status').innerText()).toBe('token 8 · 0.13');
  expect(await page.getByRole('img', { name: 'Influence map' }).count()).toBe(0);
  expect(await page.getByText('Influence map', { exact: true }).count()).toBe(0);
  expect(problems).toEqual([]);
});
