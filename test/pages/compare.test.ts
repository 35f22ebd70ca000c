/** @file Compare as a person uses it, and the switch for other programs: in a browser, on the demo model with a committed edit. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import OpenAI from 'openai';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { projectFolder } from '../../electron/frontends/places.ts';
import { startProgram } from '../../electron/frontends/program.ts';
import { beyondWindow } from '../support/beyondWindow.ts';
import { openBrowser } from '../support/browser.ts';
import { type RunningApp, startServed } from '../support/storySurfaces.ts';

vi.mock('electron', async () => (await import('../support/fakeElectron.ts')).electron);

const home = mkdtempSync(join(tmpdir(), 'emend-compare-'));
const lime = join(projectFolder, 'resources', 'samples', 'lime.jpg');
const QUESTION = 'Which fruit do you see?';
const screenshots = join(projectFolder, 'test-output');
const poll = <T>(value: () => T | Promise<T>) => expect.poll(value, { timeout: 40_000, interval: 100 });

let browser: Browser;
let app: RunningApp;
let page: Page;
const data = process.env.XDG_DATA_HOME;

async function picture(name: string): Promise<void> {
  mkdirSync(screenshots, { recursive: true });
  await page.screenshot({ path: join(screenshots, `${name}.png`), animations: 'disabled' });
}

beforeAll(async () => {
  process.env.XDG_DATA_HOME = join(home, 'data');
  // A committed edit, as someone made it before.
  const program = await startProgram({ library: join(home, 'library.emend') });
  const { call } = program.application;
  const { id } = await call('pictures.add', { base64: readFileSync(lime).toString('base64') });
  await call('answers.ask', { picture: id, prompt: QUESTION, edits: 'none' });
  const edit = await call('edits.create', { picture: id, prompt: QUESTION, target: 'lime' });
  await call('edits.commit', { id: edit.id, reason: 'for the test' });
  await program.close();

  browser = await openBrowser();
  app = await startServed(browser, home);
  page = app.page;
  await page.getByRole('link', { name: 'Compare' }).click();
});
afterAll(async () => {
  await app?.quit();
  await browser?.close();
  if (data === undefined) delete process.env.XDG_DATA_HOME;
  else process.env.XDG_DATA_HOME = data;
  rmSync(home, { recursive: true, force: true });
});

const question = () => page.getByRole('textbox', { name: 'Question' });
const ask = () => page.getByRole('button', { name: 'Ask', exact: true });
const turn = (text: string) => page.getByRole('article', { name: `Question: ${text}` });
const reply = (text: string, side: 'Original' | 'Corrected') =>
  turn(text).getByRole('region', { name: `${side} answer`, exact: true });
const replyText = (text: string, side: 'Original' | 'Corrected') =>
  turn(text).getByRole('group', { name: `${side} answer text` });

async function dropLime(): Promise<void> {
  const transfer = await page.evaluateHandle((base64) => {
    const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], 'lime.jpg', { type: 'image/jpeg' }));
    return transfer;
  }, readFileSync(lime).toString('base64'));
  await page.getByRole('group', { name: 'Compare' }).dispatchEvent('drop', { dataTransfer: transfer });
}

describe('compare', () => {
  test('says what to do, takes a dropped picture, and shows both answers and which edit acted', async () => {
    await page.getByText('Ask both at once').waitFor();
    await poll(() => page.getByText('Drop a picture here, type a question').isVisible()).toBe(true);
    await picture('compare-empty-light');
    await dropLime();
    await page.getByRole('list', { name: 'Pictures of the question' }).getByRole('img').waitFor();
    await question().fill('Which fruit');
    await question().press('Shift+Enter');
    expect(await question().inputValue()).toBe('Which fruit\n');
    await question().fill(QUESTION);
    await question().press('Enter');
    await poll(() => replyText(QUESTION, 'Corrected').innerText()).toBe('lime');
    await poll(() => reply(QUESTION, 'Corrected').getByText('differs').isVisible()).toBe(true);
    const original = await replyText(QUESTION, 'Original').innerText();
    expect(original).not.toBe('lime');
    expect(await reply(QUESTION, 'Corrected').innerText()).toMatch(/edit 1 acted · score/);
    expect(await reply(QUESTION, 'Original').innerText()).toContain('without any edit');
    const colour = (side: 'Original' | 'Corrected') =>
      replyText(QUESTION, side)
        .locator('[data-token]')
        .first()
        .evaluate((word) => getComputedStyle(word).color);
    expect(await colour('Original')).not.toBe(await colour('Corrected'));
  });

  test('tells under the pointer, and by the arrow keys, how likely each token was', async () => {
    const text = replyText(QUESTION, 'Corrected');
    await text.locator('[data-token="0"]').hover();
    const likely = text.getByRole('list', { name: 'Alternatives' });
    await poll(() => likely.getByRole('listitem').count()).toBe(5);
    expect(await likely.innerText()).toMatch(/\d\.\d\d/);
    await picture('compare-tokens');
    await page.mouse.move(5, 5);
    await poll(() => likely.count()).toBe(0);
    await text.focus();
    await text.press('ArrowRight');
    expect(await text.innerText()).toContain('Token 1 of');
    await question().focus();
    await poll(() => likely.count()).toBe(0);
  });

  test('goes on with the conversation about the same picture, and says where both agree', async () => {
    await page.getByText('Asked about the picture above.').waitFor();
    await question().fill('Which color does the background have?');
    await ask().click();
    const next = 'Which color does the background have?';
    await poll(() =>
      reply(next, 'Corrected')
        .getByText(/acted|no edit/)
        .count(),
    ).toBeGreaterThan(0);
    await poll(() => ask().isVisible()).toBe(true);
    await page.getByRole('radio', { name: 'Single questions' }).check();
    await question().fill('Do you see a bicycle?');
    await question().press('Enter');
    const alone = reply('Do you see a bicycle?', 'Corrected');
    await poll(() => alone.getByText('same answer').isVisible()).toBe(true);
    expect(await alone.innerText()).toContain('no edit acted');
    await page.getByRole('radio', { name: 'Conversation' }).check();
  });

  test('can be stopped while it runs', async () => {
    const release = app.holdEngine();
    await question().fill('What else is there?');
    await question().press('Enter');
    await page.getByRole('button', { name: 'Stop', exact: true }).waitFor();
    expect(await reply('What else is there?', 'Original').innerText()).toContain('Thinking');
    await question().press('Escape');
    release();
    const stopped = () =>
      reply('What else is there?', 'Corrected').getByText('Stopped before the first word.');
    await poll(() => stopped().isVisible()).toBe(true);
    await ask().waitFor();
  });

  test('copies, and clears with a way back, and is there after a look at another screen', async () => {
    await page.context().grantPermissions(['clipboard-read', 'clipboard-write']);
    await reply(QUESTION, 'Corrected').getByRole('button', { name: 'Copy the corrected answer' }).click();
    await poll(() => page.evaluate(() => navigator.clipboard.readText())).toBe('lime');
    await page.getByRole('link', { name: 'Library' }).click();
    await page.getByRole('link', { name: 'Compare' }).click();
    await poll(() => page.getByRole('article').count()).toBe(4);
    await page.getByRole('button', { name: 'Clear' }).click();
    await page.getByText('Ask both at once').waitFor();
    await page.getByRole('button', { name: 'Put back' }).click();
    await poll(() => page.getByRole('article').count()).toBe(4);
  });

  test('fits a narrow window, light and dark', async () => {
    for (const scheme of ['light', 'dark'] as const) {
      await page.emulateMedia({ colorScheme: scheme });
      // the second is a window at 200 %
      for (const [width, height] of [
        [480, 800],
        [640, 400],
        [1280, 800],
      ] as const) {
        await page.setViewportSize({ width, height });
        await page.getByRole('log').evaluate((log) => log.scrollTo({ top: 0 }));
        expect(await beyondWindow(page), `${width} wide`).toEqual([]);
        expect(await ask().isVisible()).toBe(true);
        await picture(`compare-${scheme}-${width}`);
      }
    }
    await page.emulateMedia({ colorScheme: 'light' });
  });
});

test('other programs are switched on in the settings, with a key shown once', async () => {
  await page.getByRole('link', { name: 'Settings' }).click();
  const section = page.getByRole('region', { name: 'Other programs' });
  await section.getByLabel('Port').fill('0');
  await section.getByLabel('Port').blur();
  await section.getByRole('radio', { name: 'On' }).check();
  const shown = section.getByLabel('New key');
  await shown.waitFor();
  const apiKey = await shown.innerText();
  const baseURL = await section.getByLabel('Base URL').first().innerText();
  await section.scrollIntoViewIfNeeded();
  await picture('settings-endpoint');
  const client = new OpenAI({ apiKey, baseURL, maxRetries: 0 });
  expect((await client.models.list()).data).toHaveLength(2);
  await section.getByLabel('Folders of pictures').fill('/no/such/folder');
  await section.getByRole('button', { name: 'Add', exact: true }).click();
  await section.getByText('There is no folder /no/such/folder.').waitFor();

  await page.getByRole('link', { name: 'Library' }).click();
  await page.getByRole('link', { name: 'Settings' }).click();
  await section.getByText(`Ends in ${apiKey.slice(-4)}`).waitFor();
  expect(await shown.count()).toBe(0);
  await section.getByRole('radio', { name: 'Off' }).check();
  await poll(() =>
    client.models.list().then(
      () => 'answers',
      () => 'gone',
    ),
  ).toBe('gone');
  expect(app.problems).toEqual([]);
});
