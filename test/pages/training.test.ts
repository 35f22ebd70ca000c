/** @file The training page: an empty state, a form that says what it lacks, curves as they are made, pause, keep, open, reload. */
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { projectFolder } from '../../electron/frontends/places.ts';
import { openBrowser } from '../support/browser.ts';
import { type Desktop, launchDesktop } from '../support/electronHarness.ts';
import { fixture } from '../support/fixtures.ts';

vi.mock('electron', async () => (await import('../support/fakeElectron.ts')).electron);

const home = mkdtempSync(join(tmpdir(), 'emend-training-page-'));
const poll = <T>(value: () => T | Promise<T>) => expect.poll(value, { timeout: 150_000, interval: 100 });
let browser: Browser;
let desktop: Desktop;
let page: Page;

beforeAll(async () => {
  cpSync(fixture('checkpoints/llava_tiny'), join(home, 'llava tiny'), { recursive: true });
  mkdirSync(join(home, 'edits'));
  for (const name of ['a.png', 'b.png', 'c.png'])
    cpSync(fixture(`images/${name}`), join(home, 'edits', name));
  const record = {
    ...{ src: 'What is the animal?', rephrase: 'Which animal is it?', pred: '', alt: 'the cat' },
    ...{ image: 'a.png', image_rephrase: 'b.png', loc: 'Is there a tree?', loc_ans: 'yes' },
    ...{ m_loc: 'c.png', m_loc_q: 'What is the fruit?', m_loc_a: 'an apple' },
  };
  const { image_rephrase: _, ...alone } = record;
  writeFileSync(join(home, 'edits', 'data.json'), JSON.stringify([...new Array(4).fill(record), alone]));
  browser = await openBrowser();
  desktop = await launchDesktop({ browser, home, size: { width: 1280, height: 900 } });
  page = desktop.page;
  await page.getByRole('link', { name: 'Models' }).click();
  await page.getByLabel('Folder', { exact: true }).fill(join(home, 'llava tiny'));
  await page.getByRole('button', { name: 'Open', exact: true }).click();
  await page
    .getByRole('region', { name: 'Open model', exact: true })
    .getByText('llava tiny')
    .first()
    .waitFor({ timeout: 60_000 });
}, 120_000);
afterAll(async () => {
  await desktop?.quit();
  await browser?.close();
  rmSync(home, { recursive: true, force: true });
});

test('a training is asked for, seen as it goes, paused, kept, opened, and found again after a reload', async () => {
  await page.getByRole('link', { name: 'Training' }).click();
  const form = page.getByRole('form', { name: 'New training' });
  const train = form.getByRole('button', { name: 'Train', exact: true });
  await poll(() => form.getByText('Give the adapter a name.').isVisible()).toBe(true);
  expect(await train.isDisabled()).toBe(true);
  await form.getByLabel('Adapter’s name').fill('page adapter');
  await form.getByLabel('Data set').fill(join(home, 'edits', 'data.json'));
  await form.getByLabel('Data set').blur();
  // What can be trained on is told before anything begins.
  await poll(() => form.getByText('E-VQA, 4 edits.').isVisible()).toBe(true);
  expect(await form.getByRole('list', { name: 'Rows left out' }).textContent()).toMatch(/Row 5/);
  await poll(() => form.getByText('4 edits that can be trained on: fewer must be held out').isVisible()).toBe(
    true,
  );
  await form.getByLabel('Edits held out').fill('1');
  await poll(() => form.getByText('Choose the layer to edit after.').isVisible()).toBe(true);
  await form.getByLabel('Layer', { exact: true }).fill('2');
  await form.getByLabel('Steps', { exact: true }).fill('3000');
  await form.getByLabel('Steps between measurements').fill('2');
  await form.getByRole('button', { name: 'More settings' }).click();
  await form.getByLabel('Edits a batch').fill('1');
  await form.getByLabel('Pictures on disk').fill('1.5');
  // Its fields are made of what may be set of the editor.
  await form.getByLabel('Width', { exact: true }).fill('');
  await poll(() => form.getByText('Give a value for “Width”.').isVisible()).toBe(true);
  await form.getByLabel('Width', { exact: true }).fill('64');
  await form.getByLabel('Starts', { exact: true }).selectOption('published');
  await train.click();

  const run = page.getByRole('region', { name: 'Training page adapter' });
  await poll(() => run.getByRole('figure').count()).toBeGreaterThan(5);
  await poll(() => run.getByText('Mean of the five, edits held out').first().isVisible()).toBe(true);
  expect(await run.locator('code').textContent()).toContain('--picture-cache 1.5');
  await run.getByRole('button', { name: 'Pause' }).click();
  await poll(() => run.getByText(/Paused at step \d+ of 3,000/).isVisible()).toBe(true);
  await page.screenshot({ path: join(projectFolder, 'test-output', 'training.png') });
  await run.getByRole('button', { name: 'Keep the best so far' }).click();
  // The process that trains is killed: its training says so, also to a page that did not see it, and goes on.
  const goOn = run.getByRole('button', { name: 'Go on' });
  await poll(() => goOn.isVisible()).toBe(true);
  await goOn.click();
  await poll(() => run.getByRole('status').textContent()).toMatch(/Training|Validating/);
  desktop.run.engines.at(-1)!.kill('SIGKILL');
  const ended = run.getByRole('alert').getByText(/It ended at step [1-9]\d* of 3,000\. .*What was recorded/);
  await poll(() => ended.isVisible()).toBe(true);
  await page.reload();
  await poll(() => ended.isVisible()).toBe(true);
  await goOn.click();
  await poll(() => run.getByRole('status').textContent()).toMatch(/Training|Validating/);
  expect(await ended.count()).toBe(0);
  await run.getByRole('button', { name: 'Pause' }).click();
  await poll(() => run.getByText(/Paused at step \d+ of 3,000/).isVisible()).toBe(true);

  const open = run.getByRole('button', { name: 'Open with it' });
  await poll(() => open.isVisible()).toBe(true);
  await open.click();

  await page.reload();
  await poll(() => run.getByText(/Paused at step \d+ of 3,000/).isVisible()).toBe(true);
  await poll(() => run.getByRole('figure').count()).toBeGreaterThan(5);
  await page.getByRole('link', { name: 'Models' }).click();
  await poll(() =>
    page.getByRole('region', { name: 'Open model', exact: true }).getByText('page adapter').count(),
  ).toBeGreaterThan(0);
  await page.getByRole('link', { name: 'Training' }).click();
  await run.getByRole('button', { name: 'Remove…' }).click();
  const asked = page.getByRole('dialog', { name: 'Remove the training of “page adapter”?' });
  await asked.getByText('The adapter that was made of it stays.').waitFor();
  await page.keyboard.press('Escape');
  await poll(() => asked.count()).toBe(0);
  await run.getByRole('button', { name: 'Remove…' }).click();
  await asked.getByRole('button', { name: 'Remove' }).click();
  await poll(() => form.isVisible()).toBe(true);
}, 400_000);
