/** @file Daily work in a library of some hundreds of edits: lists, many at once, undo, going through a list edit by edit. */
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Browser, Locator, Page } from 'playwright-core';
import sharp from 'sharp';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { forkEngine } from '../../electron/engine/forkEngine.ts';
import { pageFolder, projectFolder } from '../../electron/frontends/places.ts';
import { type Program, startProgram } from '../../electron/frontends/program.ts';
import { editState } from '../../electron/library/edits.ts';
import { openLibrary } from '../../electron/library/library.ts';
import { keepSignal } from '../../electron/library/signals.ts';
import { type Served, serve } from '../../electron/serve.ts';
import { beyondWindow } from '../support/beyondWindow.ts';
import { openBrowser } from '../support/browser.ts';

const PATIENCE = 15_000;
const COUNT = 260;
const folder = mkdtempSync(join(tmpdir(), 'emend-pages-'));
let program: Program;
let served: Served;
let browser: Browser;
let page: Page;
const problems: string[] = [];

const poll = <T>(value: () => T | Promise<T>) => expect.poll(value, { timeout: PATIENCE, interval: 50 });
const words = async (locator: Locator) => (await locator.innerText()).replace(/\s+/g, ' ').trim();
const call: Program['application']['call'] = (name, input) => program.application.call(name, input);
const grid = () => page.getByRole('grid', { name: 'Edits' });
const row = (edit: number) => page.locator(`#edit-${edit}`);
const matching = () => words(page.getByRole('status', { name: 'Edits that match' }));
const selected = () => words(page.getByText(/selected$/).first());
const button = (name: string) => page.getByRole('button', { name, exact: true });

beforeAll(async () => {
  // no model: nothing here asks one
  program = await startProgram({
    library: join(folder, 'library.emend'),
    launch: () => forkEngine(join(import.meta.dirname, '../engine/plainEngine.ts')),
    startModel: 'none',
  });
  const sample = join(projectFolder, 'test/fixtures/images/a.png');
  const base64 = readFileSync(sample).toString('base64');
  const { id: picture } = await call('pictures.add', { base64 });
  for (let at = 1; at <= COUNT; at++)
    await call('edits.create', {
      picture,
      prompt: at % 2 === 0 ? `Which animal is number ${at}?` : `Which plant is number ${at}?`,
      target: at % 2 === 0 ? 'dromedary' : 'hyacinth',
    });
  // one of them as a preview leaves it: it acts in the top left quarter
  const library = openLibrary(join(folder, 'library.emend'));
  const window = { left: 0, top: 0, width: 1, height: 1 };
  const map = { rows: 2, columns: 2, values: [1, 0, 0, 0], layer: 3, window };
  library.write(() =>
    keepSignal(library, COUNT - 1, editState(library, COUNT - 1).signalState, new Uint8Array([1]), map),
  );
  library.close();
  served = await serve({ application: program.application, page: pageFolder, port: 0 });
  browser = await openBrowser();
  page = await (await browser.newContext({ viewport: { width: 1400, height: 800 } })).newPage();
  page.setDefaultTimeout(PATIENCE);
  page.on('pageerror', (error) => problems.push(error.message));
  page.on('console', (message) => message.type() === 'error' && problems.push(message.text()));
  await page.goto(served.url);
  await page.getByRole('link', { name: 'Library', exact: true }).click();
  await row(COUNT).waitFor();
});

afterAll(async () => {
  await browser?.close();
  await served?.close();
  await program?.close();
  rmSync(folder, { recursive: true, force: true });
});

test('only the rows in view are read and drawn, and keys reach all of them', async () => {
  expect(Number(await grid().getAttribute('aria-rowcount'))).toBe(COUNT);
  expect(await grid().locator('tr.row').count()).toBeLessThan(60);
  await page.keyboard.press('End');
  await row(1).waitFor();
  expect(await row(1).getAttribute('aria-current')).toBe('true');
  await page.keyboard.press('ArrowUp');
  await poll(() => row(2).getAttribute('aria-current')).toBe('true');
  await page.keyboard.press('Home');
  await poll(() => row(COUNT).getAttribute('aria-current')).toBe('true');
  await poll(() => words(page.getByRole('complementary', { name: 'Edit details' }))).toContain(
    `Edit ${COUNT}`,
  );
});

test('a row has the edit’s number and its picture, and under the pointer where in it the edit acts', async () => {
  const sample = await sharp(join(projectFolder, 'test/fixtures/images/a.png')).removeAlpha().stats();
  const colour = sample.channels.map(({ mean }) => mean);
  /** mean colours of the top left quarter and of the bottom right one */
  const quarters = (edit: number) =>
    row(edit)
      .locator('td.picture canvas')
      .evaluate((canvas: HTMLCanvasElement) => {
        const half = [canvas.width >> 1, canvas.height >> 1] as const;
        return [0, 1].map((at) => {
          const { data } = canvas
            .getContext('2d', { willReadFrequently: true })!
            .getImageData(at * half[0], at * half[1], ...half);
          const mean = (of: number) => {
            let sum = 0;
            for (let i = of; i < data.length; i += 4) sum += data[i]!;
            return sum / (data.length / 4);
          };
          return [0, 1, 2].map(mean);
        });
      });
  const apart = (one: number[], other: number[]) =>
    Math.max(...one.map((value, at) => Math.abs(value - other[at]!)));
  expect(await words(row(COUNT - 1).locator('td.number'))).toBe(String(COUNT - 1));
  await poll(async () => (await quarters(COUNT - 1)).flat().some((value) => value > 0)).toBe(true);
  const plain = await quarters(COUNT - 1);
  const both = plain[0]!.map((value, at) => (value + plain[1]![at]!) / 2);
  expect(apart(both, colour)).toBeLessThan(40);
  await row(COUNT - 1)
    .locator('td.picture canvas')
    .hover();
  await poll(async () => apart((await quarters(COUNT - 1))[0]!, plain[0]!)).toBeGreaterThan(30);
  expect(apart((await quarters(COUNT - 1))[1]!, plain[1]!)).toBeLessThan(10);
  await page.mouse.move(5, 5);
  await poll(async () => apart((await quarters(COUNT - 1))[0]!, plain[0]!)).toBe(0);
  // one that was never previewed has none
  await row(COUNT).locator('td.picture canvas').hover();
  await page.waitForTimeout(200);
  expect(apart((await quarters(COUNT))[0]!, plain[0]!)).toBe(0);
});

test('the first stop of the Tab key leads past what every screen has', async () => {
  await page.reload();
  await row(COUNT).waitFor();
  const skip = page.getByRole('button', { name: 'Skip to the content' });
  await page.keyboard.press('Tab');
  expect(await skip.evaluate((element) => element === document.activeElement)).toBe(true);
  expect(await skip.evaluate((element) => getComputedStyle(element).clipPath)).toBe('none');
  await page.keyboard.press('Enter');
  expect(await page.evaluate(() => document.activeElement?.tagName)).toBe('MAIN');
});

test('lists are searched, filtered, sorted, counted, and saved under a name', async () => {
  await page.keyboard.press('/');
  await page.keyboard.type('hyacinth');
  await poll(matching).toBe('130 edits');
  await page.getByRole('grid').getByRole('button', { name: 'No.' }).click();
  await row(1).waitFor();
  await button('Filter').click();
  await page.getByRole('checkbox', { name: 'Draft' }).check();
  await page.getByRole('checkbox', { name: 'Leaks' }).check();
  await poll(matching).toBe('0 edits');
  await page.getByLabel('Created to', { exact: true }).fill('2020-01-01');
  await page.getByRole('combobox', { name: 'Reach' }).selectOption('This thing');
  await page.keyboard.press('Escape');
  for (const part of ['finding', 'created', 'reach'])
    await page.getByRole('button', { name: `Remove the filter by ${part}` }).click();
  await poll(matching).toBe('130 edits');
  await page.getByRole('button', { name: 'Remove the filter by status' }).waitFor();
  await button('Save this view…').click();
  await page.getByRole('textbox', { name: 'Name of the view' }).fill('Plants');
  await page.keyboard.press('Enter');
  const tab = page.getByRole('tab', { name: /^Plants/ });
  await poll(() => words(tab)).toBe('Plants 130');
  await page.getByRole('tab', { name: /^All edits/ }).click();
  await row(COUNT).waitFor();
  expect(await page.getByLabel('Search edits').inputValue()).toBe('');
  await page.reload();
  await tab.click();
  await row(1).waitFor();
  expect(await page.getByLabel('Search edits').inputValue()).toBe('hyacinth');
  await page.getByRole('button', { name: 'Remove view “Plants”' }).click();
  await tab.waitFor({ state: 'detached' });
  await row(COUNT).waitFor();
});

test('a column’s heading sorts by it, and turns the order round', async () => {
  const heading = (name: string) => grid().getByRole('columnheader', { name });
  const sort = (name: string) => heading(name).getByRole('button').click();
  // as texts: “… 100?” before “… 10?”, and plants after animals
  await sort('Prompt');
  await row(100).waitFor();
  expect(await heading('Prompt').getAttribute('aria-sort')).toBe('ascending');
  await sort('Prompt');
  await row(99).waitFor();
  expect(await heading('Prompt').getAttribute('aria-sort')).toBe('descending');
  for (const name of ['Correction', 'Status', 'Changed', 'No.']) {
    await sort(name);
    await poll(() => heading(name).getAttribute('aria-sort')).toMatch(/ascending|descending/);
  }
  await row(COUNT).waitFor();
});

test('many are selected by click, Shift and Ctrl+A, tagged and retired at once, and Ctrl+Z takes it back', async () => {
  await row(COUNT).click();
  await row(COUNT - 4).click({ modifiers: ['Shift'] });
  await row(COUNT - 2).click({ modifiers: ['Control'] });
  await poll(selected).toBe('4 selected');
  await button('Tag').click();
  await page.getByRole('textbox', { name: 'Tag' }).fill('field guide');
  await page.keyboard.press('Enter');
  await poll(async () => (await call('edits.find', { filter: { tags: ['field guide'] } })).total).toBe(4);
  await row(COUNT - 4)
    .getByText('field guide')
    .waitFor();
  await page.keyboard.press('Escape'); // the menu
  await page.keyboard.press('Escape'); // the selection
  await poll(() => page.getByText(/selected$/).count()).toBe(0);

  await page.keyboard.press('Control+a');
  await poll(selected).toBe(`${COUNT} selected`);
  await row(COUNT - 1)
    .getByRole('checkbox')
    .click();
  await poll(selected).toBe(`${COUNT - 1} selected`);
  await page.getByRole('toolbar', { name: 'Selected edits' }).getByRole('button', { name: 'Retire' }).click();
  await page.getByText(`${COUNT - 1} edits retired`).waitFor();
  await poll(() => words(page.getByRole('tab', { name: /^Retired/ }))).toBe(`Retired ${COUNT - 1}`);
  await page.keyboard.press('Escape');
  await page.keyboard.press('Control+z');
  await page.getByText(/^Taken back: retired/).waitFor();
  await poll(() => words(page.getByRole('tab', { name: /^Retired/ }))).toBe('Retired 0');
  expect((await call('edits.find', { filter: { tags: ['field guide'] } })).total).toBe(4);
});

test('from the bar edits are retired and restored, and exported with their pictures', async () => {
  const bar = page.getByRole('toolbar', { name: 'Selected edits' });
  await row(COUNT).click();
  await row(COUNT - 1).click({ modifiers: ['Shift'] });
  await bar.getByRole('button', { name: 'Export…' }).click();
  const dialog = page.getByRole('dialog', { name: 'Export 2 edits' });
  await dialog.getByRole('radio', { name: 'CSV' }).click();
  await dialog.getByLabel('New folder').fill(join(folder, 'exported'));
  await dialog.getByRole('button', { name: 'Export', exact: true }).click();
  await page.getByText(/^2 edits exported to /).waitFor();
  const lines = readFileSync(join(folder, 'exported', 'edits.csv'), 'utf8')
    .trim()
    .split(/\r?\n/);
  expect(lines).toHaveLength(3);
  await bar.getByRole('button', { name: 'Retire' }).click();
  await page.getByText('2 edits retired').waitFor();
  await page.getByRole('tab', { name: /^Retired/ }).click();
  await poll(matching).toBe('2 edits');
  await page.keyboard.press('Control+a');
  await bar.getByRole('button', { name: 'Restore' }).click();
  await page.getByText('2 edits restored').waitFor();
  await poll(() => words(page.getByRole('tab', { name: /^Retired/ }))).toBe('Retired 0');
  await page.getByRole('tab', { name: /^All edits/ }).click();
  await row(COUNT).waitFor();
});

test('tags and notes are written in place', async () => {
  await row(COUNT - 6).click();
  const pane = page.getByRole('complementary', { name: 'Edit details' });
  await poll(() => words(pane)).toContain(`Edit ${COUNT - 6}`);
  await pane.getByLabel('Note').fill('Agreed with the museum.');
  await page.keyboard.press('Control+Enter');
  await poll(async () => (await call('edits.show', { id: COUNT - 6 })).edit.note).toBe(
    'Agreed with the museum.',
  );
  await pane.getByRole('button', { name: 'Add tag' }).click();
  await page.getByRole('textbox', { name: 'Tag' }).fill('museum');
  await page.keyboard.press('Enter');
  await pane.getByRole('button', { name: 'Take the tag “museum” off' }).waitFor();
  await page.keyboard.press('Escape');

  await button('Filter').click();
  await page.getByRole('checkbox', { name: /^field guide/ }).check();
  await poll(matching).toBe('4 edits');
  await page.getByRole('checkbox', { name: /^museum/ }).check(); // all of them
  await poll(matching).toBe('0 edits');
  await page.keyboard.press('Escape');
  await page.getByRole('tab', { name: /^All edits/ }).click();
  await row(COUNT).waitFor();
});

test('the list is gone through on the workbench, and coming back one finds the place', async () => {
  await page.getByRole('tab', { name: /^Needs review/ }).click();
  await page.keyboard.press('End');
  await row(1).waitFor();
  for (let presses = 0; presses < 30; presses++) await page.keyboard.press('k');
  await poll(() => row(31).getAttribute('aria-current')).toBe('true');
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'Edit 31' }).waitFor();
  const list = page.getByRole('group', { name: 'In the list “Needs review”' });
  await poll(() => words(list)).toBe(`${COUNT - 30} / ${COUNT}`);
  await page.keyboard.press('s');
  await page.getByRole('heading', { name: 'Edit 30' }).waitFor();
  await page.keyboard.press('k');
  await page.getByRole('heading', { name: 'Edit 31' }).waitFor();
  await poll(() => words(list)).toBe(`${COUNT - 30} / ${COUNT}`);
  await page.keyboard.press('r'); // retired: it leaves the list, and the next one comes
  await page.getByRole('heading', { name: 'Edit 30' }).waitFor();
  await poll(() => words(list)).toBe(`${COUNT - 30} / ${COUNT - 1}`);
  await page.getByRole('link', { name: 'Library', exact: true }).click();
  await poll(() => row(30).getAttribute('aria-current')).toBe('true');
  expect(await row(30).isVisible()).toBe(true);
  expect(await page.locator('.view').evaluate((view) => view.scrollTop)).toBeGreaterThan(5000);
  await page.keyboard.press('Control+z');
  await poll(matching).toBe(`${COUNT} edits`);
});

test('edits are imported from a file that was dropped, wrong rows told by number, and the import is taken back', async () => {
  const rows = ['picture,prompt,target', 'a.png,What is this?,okapi', 'missing.png,What is it?,okapi'];
  writeFileSync(join(folder, 'rows.csv'), rows.join('\n'));
  copyFileSync(join(projectFolder, 'test/fixtures/images/a.png'), join(folder, 'a.png'));
  await page.getByRole('tab', { name: /^All edits/ }).click();
  await row(COUNT).waitFor();
  const dropped = await page.evaluateHandle(() => {
    const transfer = new DataTransfer();
    transfer.items.add(new File(['any'], 'rows.csv'));
    return transfer;
  });
  await grid().dispatchEvent('drop', { dataTransfer: dropped });
  const dialog = page.getByRole('dialog', { name: 'Import edits' });
  await dialog.getByText('Type where “rows.csv” lies').waitFor(); // a browser does not say
  await dialog.getByLabel('File', { exact: true }).fill(join(folder, 'rows.csv'));
  await dialog.getByLabel('Tags', { exact: true }).fill('dropped');
  await dialog.getByRole('button', { name: 'Look into it' }).click();
  await dialog.getByText('1 edit to add').waitFor();
  expect(await words(dialog.getByRole('list', { name: 'Wrong rows' }))).toMatch(/^Row 2 .*missing\.png/);
  await dialog.getByRole('button', { name: 'Import 1 edit' }).click();
  await dialog.getByText('1 edit added').waitFor();
  await dialog.getByRole('button', { name: 'Close' }).click();
  await poll(() => words(row(COUNT + 1))).toContain('okapi');
  await row(COUNT + 1)
    .getByText('dropped')
    .waitFor();
  await page.keyboard.press('Control+z');
  await poll(() => words(row(COUNT + 1))).toMatch(/Retired/); // edits are never removed
});

const places = [
  'library',
  'workbench/30',
  'compare',
  'health',
  'attribution',
  'benchmark',
  'training',
  'models',
  'settings',
];

test('a window of 480 pixels, or one at 200 %, shows all there is to do, and nothing lies beyond its edge', async () => {
  for (const size of [
    { width: 480, height: 800 },
    { width: 640, height: 400 },
  ]) {
    await page.setViewportSize(size);
    for (const place of places) {
      await page.goto(page.url().replace(/#.*/, `#/${place}`));
      await page.locator('.screen > *').first().waitFor();
      expect(await beyondWindow(page), `${place} at ${size.width}`).toEqual([]);
    }
  }
  expect(problems).toEqual([]);
});
