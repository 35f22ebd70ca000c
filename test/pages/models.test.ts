/** @file The models page: what lies on this machine, adding by drag, dialog and path, adapters that fit, and a limit of a picture's rows. */
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { projectFolder } from '../../electron/frontends/places.ts';
import { openBrowser } from '../support/browser.ts';
import { type Desktop, launchDesktop } from '../support/electronHarness.ts';
import { fixture } from '../support/fixtures.ts';

vi.mock('electron', async () => (await import('../support/fakeElectron.ts')).electron);

const home = mkdtempSync(join(tmpdir(), 'emend-models-'));
const hub = join(home, '.cache', 'huggingface', 'hub');
const screenshots = join(projectFolder, 'test-output');
const poll = <T>(value: () => T | Promise<T>) => expect.poll(value, { timeout: 40_000, interval: 100 });
const kept = new Map(
  ['HOME', 'XDG_CACHE_HOME', 'HF_HOME', 'HF_HUB_CACHE', 'XDG_DATA_HOME'].map((name) => [
    name,
    process.env[name],
  ]),
);

let browser: Browser;
let desktop: Desktop;
let page: Page;

function lay(name: string, checkpoint: string): void {
  const blobs = join(hub, name, 'blobs');
  const snapshot = join(hub, name, 'snapshots', 'c'.repeat(40));
  mkdirSync(snapshot, { recursive: true });
  cpSync(fixture(`checkpoints/${checkpoint}`), blobs, { recursive: true });
  for (const file of readdirSync(blobs)) symlinkSync(join('..', '..', 'blobs', file), join(snapshot, file));
}

beforeAll(async () => {
  for (const name of ['XDG_CACHE_HOME', 'HF_HOME', 'HF_HUB_CACHE']) delete process.env[name];
  lay('models--tiny-lab--qwen', 'qwen2_5_vl_tiny');
  const gguf = join(hub, 'models--tiny-lab--llama-gguf', 'snapshots', 'd'.repeat(40));
  mkdirSync(gguf, { recursive: true });
  writeFileSync(join(gguf, 'model.Q4_K_M.gguf'), 'GGUF');
  cpSync(fixture('checkpoints/llava_tiny'), join(home, 'a folder', 'llava tiny'), { recursive: true });
  browser = await openBrowser();
  desktop = await launchDesktop({ browser, home, size: { width: 1280, height: 900 } });
  page = desktop.page;
  await page.getByRole('link', { name: 'Models' }).click();
});
afterAll(async () => {
  await desktop?.quit();
  await browser?.close();
  for (const [name, value] of kept) {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }
  rmSync(home, { recursive: true, force: true });
});

const found = () => page.getByRole('region', { name: 'Models on this machine' }).getByRole('listitem');
const card = () => page.getByRole('region', { name: 'Open model', exact: true });
const adapters = () => page.getByRole('region', { name: 'Adapters' }).getByRole('listitem');

test('what decides where edits of an adapter act is chosen beside it', async () => {
  const select = adapters().filter({ hasText: 'visedit-demo' }).getByLabel('Where edits act');
  const chosen = await select.inputValue();
  await select.selectOption('everywhere');
  await poll(() => card().innerText()).toMatch(/Edits act\s+everywhere, all together/);
  await poll(() => select.inputValue()).toBe('everywhere');
  await select.selectOption(chosen);
  await poll(() => card().innerText()).not.toContain('everywhere, all together');
});

test('models of the hub’s cache are listed with what can be done with each, and open from there', async () => {
  await poll(() => found().count()).toBe(2);
  expect(await found().nth(0).innerText()).toMatch(
    /tiny-lab\/qwen\s+Qwen2.5-VL · [\d,.]+ (M )?parameters · F32 · \d+ [KM]B/,
  );
  expect(await found().nth(1).innerText()).toMatch(/llama-gguf\s+GGUF files, which llama\.cpp runs/);
  await poll(() => adapters().filter({ hasText: 'visedit-demo' }).innerText()).toContain('open');
  mkdirSync(screenshots, { recursive: true });
  await page.screenshot({ path: join(screenshots, 'models-found.png'), animations: 'disabled' });
  await found().nth(0).getByRole('button', { name: 'Open tiny-lab/qwen' }).click();
  await poll(() => card().getByRole('heading').innerText()).toBe('tiny-lab/qwen');
  expect(await card().innerText()).toMatch(/Rows a picture\s+\d+ to [\d,]+/);
  expect(await card().innerText()).toContain('several turns, several pictures');
  await poll(() => adapters().filter({ hasText: 'visedit-demo' }).innerText()).toMatch(
    /Trained for another model[\s\S]*does not fit/,
  );
});

test('a limit of a picture’s rows is kept in the settings and shown before asking', async () => {
  await page.getByRole('link', { name: 'Compare' }).click();
  await page.getByLabel('Picture file').setInputFiles(fixture('images/a.png'));
  await page.getByText('30 rows').waitFor();
  await page.getByRole('link', { name: 'Settings' }).click();
  await page.getByLabel('Rows a picture may take').fill('20');
  await page.getByLabel('Rows a picture may take').blur();
  await page.getByRole('link', { name: 'Models' }).click();
  await poll(() => card().innerText()).toMatch(/14 to 20, as the settings limit it/);
  await page.getByRole('link', { name: 'Compare' }).click();
  await page.getByText(/\b(1\d|20) rows/).waitFor();
  await page.getByRole('link', { name: 'Settings' }).click();
  await page.getByLabel('Rows a picture may take').fill('');
  await page.getByLabel('Rows a picture may take').blur();
  await page.getByRole('link', { name: 'Models' }).click();
  await poll(() => card().innerText()).not.toContain('as the settings limit it');
});

test('a folder is added by drag, by the dialog, and by a path in quotes or with ~', async () => {
  await page.getByRole('link', { name: 'Models' }).click();
  const llava = join(home, 'a folder', 'llava tiny');
  const field = page.getByLabel('Folder', { exact: true });
  await page.evaluate((path) => Object.assign(window, { emendPaths: { 'llava tiny': path } }), llava);
  const drop = async (name: string) => {
    const transfer = await page.evaluateHandle((file) => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([''], file));
      return transfer;
    }, name);
    await page.getByRole('group', { name: 'Models' }).dispatchEvent('drop', { dataTransfer: transfer });
  };
  await drop('elsewhere');
  await page.getByText('A browser does not tell where “elsewhere” lies.').waitFor();
  await drop('llava tiny');
  expect(await field.inputValue()).toBe(llava);
  desktop.run.chosenFolder = '/chosen';
  await page.getByRole('button', { name: 'Choose…' }).click();
  await poll(() => field.inputValue()).toBe('/chosen');

  await field.fill("'~/a folder/llava tiny' ");
  await field.press('Enter');
  await poll(() => card().getByRole('heading').innerText()).toBe('llava tiny');
  await field.fill('"~/nowhere"');
  await field.press('Enter');
  await page.getByText(`There is no model at ${join(home, 'nowhere')}.`).waitFor();
  expect(desktop.problems).toEqual([]);
});

test('what each way of opening needs is shown; packed weights are made, listed and removed', async () => {
  await page.getByRole('link', { name: 'Models' }).click();
  const field = page.getByLabel('Folder', { exact: true });
  const open = page.getByRole('region', { name: 'Open a model' });
  const packed = page.getByRole('region', { name: 'Packed weights' });
  await field.fill(join(home, 'a folder', 'llava tiny'));
  const ways = open.getByRole('radiogroup', { name: 'Weights' });
  await poll(() => ways.getByRole('radio').count()).toBe(3);
  expect(await ways.innerText()).toMatch(/as it is, \d+ MB\s+in 8 bits, \d+ MB\s+in 4 bits, \d+ MB/);
  await ways.getByText('in 8 bits').click();
  await open.getByText('It is packed once').waitFor();
  await page.screenshot({ path: join(screenshots, 'models-ways.png'), animations: 'disabled' });
  await open.getByRole('button', { name: 'Open', exact: true }).click();
  await poll(() => card().innerText()).toMatch(/Weights\s+in 8 bits/);
  await poll(() => packed.getByRole('listitem').innerText()).toMatch(
    /llava tiny\s+in 8 bits · \d+ KB[\s\S]*open/,
  );
  await field.fill(join(home, 'a folder', 'llava tiny'));
  await poll(() => ways.getByRole('radio').count()).toBe(3);
  await ways.getByText('as it is').click();
  await open.getByRole('button', { name: 'Open', exact: true }).click();
  await poll(() => card().innerText()).toMatch(/Weights\s+as it is/);
  await packed.getByRole('button', { name: /Remove llava tiny/ }).click();
  await poll(() => packed.count()).toBe(0);
});

test('an editor that needs no training is opened from its form, with settings of its own, and shows them again', async () => {
  await page.getByRole('link', { name: 'Models' }).click();
  const editors = page.getByRole('region', { name: 'Editors without training' });
  await editors.getByRole('button', { name: 'Open with GRACE' }).click();
  const form = editors.getByRole('form', { name: 'Settings of GRACE' });
  expect(await form.getByLabel('Steps').inputValue()).toBe('100');
  await form.getByLabel('Steps').fill('');
  await poll(() => form.getByText('Give a value for “Steps”.').isVisible()).toBe(true);
  expect(await form.getByRole('button', { name: 'Open' }).isDisabled()).toBe(true);
  await form.getByLabel('Steps').fill('3');
  // Half a number is not taken away from who types it.
  await form.getByLabel('Learning rate').fill('');
  await form.getByLabel('Learning rate').pressSequentially('1e-1');
  await poll(() => form.getByLabel('Learning rate').inputValue()).toBe('1e-1');
  await form.getByLabel('Where edits act').selectOption({ label: 'everywhere, all together' });
  await form.getByRole('button', { name: 'Open' }).click();
  await poll(() => card().innerText()).toMatch(/Editor\s+GRACE[\s\S]*Edits act\s+everywhere, all together/);
  await editors.getByRole('button', { name: 'Settings of GRACE' }).click();
  expect(await form.getByLabel('Steps').inputValue()).toBe('3');
  expect(await form.getByLabel('Learning rate').inputValue()).toBe('0.1');
  await form.getByLabel('Layer').fill('1000');
  await form.getByRole('button', { name: 'Open' }).click();
  await page.getByText('The decoder has no layer 1000').waitFor();
});
