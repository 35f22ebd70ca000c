/** @file Two pages of one app: what runs, what is listed and what is changed in one is so in the other. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Browser, Locator, Page } from 'playwright-core';
import sharp from 'sharp';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { createEdit } from '../../electron/library/edits.ts';
import { openLibrary } from '../../electron/library/library.ts';
import { examinePicture, storePicture } from '../../electron/library/pictures.ts';
import { openBrowser } from '../support/browser.ts';
import { type RunningApp, startServed } from '../support/storySurfaces.ts';

vi.mock('electron', async () => (await import('../support/fakeElectron.ts')).electron);

/** the model loading on a busy machine */
const PATIENCE = 60_000;
const home = mkdtempSync(join(tmpdir(), 'emend-two-pages-'));
let browser: Browser;
let app: RunningApp;
let one: Page;
let other: Page;
const problems: string[] = [];

const poll = <T>(value: () => T | Promise<T>) => expect.poll(value, { timeout: PATIENCE, interval: 100 });
const words = async (locator: Locator) => (await locator.innerText()).replace(/\s+/g, ' ').trim();
const row = (page: Page, edit: number) => page.locator(`#edit-${edit}`);
const goTo = (page: Page, place: string) => page.goto(page.url().replace(/#.*|$/, `#/${place}`));

beforeAll(async () => {
  const library = openLibrary(join(home, 'library.emend'));
  const png = await sharp({ create: { width: 60, height: 40, channels: 3, background: '#336699' } })
    .png()
    .toBuffer();
  const picture = storePicture(library, await examinePicture(png)).id;
  for (let at = 1; at <= 6; at++) {
    createEdit(library, { picture, prompt: `What is number ${at}?`, target: 'okapi' });
  }
  library.close();
  browser = await openBrowser();
  app = await startServed(browser, home);
  one = app.page;
  other = await one.context().newPage();
  other.on('pageerror', (error) => problems.push(error.message));
  await other.goto(one.url());
  for (const page of [one, other]) page.setDefaultTimeout(PATIENCE);
}, PATIENCE);

afterAll(async () => {
  await app?.quit();
  await browser?.close();
  rmSync(home, { recursive: true, force: true });
});

test('a check begun in one page is listed in the other, and stopped there', async () => {
  await goTo(one, 'workbench/1');
  await goTo(other, 'library');
  const check = one.getByRole('button', { name: 'Run check', exact: true });
  await poll(() => check.isEnabled()).toBe(true);
  const release = app.holdEngine();
  await check.click();
  await one.getByRole('button', { name: 'Cancel check' }).waitFor();
  const running = other.getByRole('status', { name: 'Running' });
  await poll(() => words(running)).toMatch(/^Check · edit 1/);
  await running.click();
  await other.getByRole('button', { name: 'Stop Check · edit 1' }).click();
  release();
  await poll(() => check.isVisible()).toBe(true);
  await poll(() => running.count()).toBe(0);
  expect(await words(one.getByRole('region', { name: 'Check' }))).toMatch(/^Not checked yet/);
  // A page that comes later knows of it too.
  await other.reload();
  await other.getByRole('status', { name: 'Last result' }).click();
  await poll(() => words(other.getByRole('region', { name: 'Jobs' }))).not.toBe('');
  await other.keyboard.press('Escape');
});

test('what is tagged in one is seen in the other, which takes it back; each keeps its own selection', async () => {
  for (const page of [one, other]) {
    await goTo(page, 'library');
    await row(page, 6).waitFor();
  }
  await row(one, 6).click();
  await row(one, 4).click({ modifiers: ['Shift'] });
  await row(other, 2).click({ modifiers: ['Control'] });
  const selected = (page: Page) => words(page.getByText(/selected$/).first());
  await poll(() => selected(one)).toBe('3 selected');
  await poll(() => selected(other)).toBe('1 selected');
  await one.getByRole('button', { name: 'Tag', exact: true }).click();
  await one.getByRole('textbox', { name: 'Tag' }).fill('field guide');
  await one.keyboard.press('Enter');
  await row(other, 5).getByText('field guide').waitFor();
  await other.keyboard.press('Control+z');
  await other.getByText('Taken back: tagged 3 edits').waitFor();
  await poll(() => row(one, 5).getByText('field guide').count()).toBe(0);
  expect([await selected(one), await selected(other)]).toEqual(['3 selected', '1 selected']);
  await one.keyboard.press('Escape'); // the menu
  await one.keyboard.press('Control+y');
  await row(other, 5).getByText('field guide').waitFor();
  await one.keyboard.press('Control+z');
  await poll(() => row(other, 5).getByText('field guide').count()).toBe(0);
});

test('an edit that is changed in one page is as it is now in the other', async () => {
  await goTo(one, 'workbench/3');
  await goTo(other, 'workbench/3');
  await other.getByRole('button', { name: 'Retire', exact: true }).click();
  await one.getByRole('button', { name: 'Restore' }).click();
  await other.getByRole('button', { name: 'Retire', exact: true }).waitFor();
  expect([...problems, ...app.problems]).toEqual([]);
});
