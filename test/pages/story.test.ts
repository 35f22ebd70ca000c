/** @file What a curator does, once, from an empty library to a committed edit that is there after a restart. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Browser, Locator, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { projectFolder } from '../../electron/frontends/places.ts';
import { openBrowser } from '../support/browser.ts';
import { type RunningApp, type StartApp, startDesktop, startServed } from '../support/storySurfaces.ts';

vi.mock('electron', async () => (await import('../support/fakeElectron.ts')).electron);

const resources = join(projectFolder, 'resources');
const screenshots = join(projectFolder, 'test-output');
/** an answer, a preview, a model loading: long on a busy machine, and bounded */
const PATIENCE = 60_000;

interface Sample {
  readonly title: string;
  readonly prompts: readonly string[];
  readonly correction: string | null;
}
/** the first demo picture whose true answer the model does not know */
const sample: { title: string; prompt: string; correction: string } = (() => {
  const samples = JSON.parse(readFileSync(join(resources, 'samples.json'), 'utf8')) as Sample[];
  const found = samples.find(({ correction }) => correction !== null)!;
  return { title: found.title, prompt: found.prompts[0]!, correction: found.correction! };
})();

const poll = <T>(value: () => T | Promise<T>) => expect.poll(value, { timeout: PATIENCE, interval: 100 });
const words = async (locator: Locator) => (await locator.innerText()).replace(/\s+/g, ' ').trim();
const button = (page: Page, name: string) => page.getByRole('button', { name, exact: true });

async function picture(page: Page, name: string): Promise<void> {
  mkdirSync(screenshots, { recursive: true });
  await page.screenshot({ path: join(screenshots, `${name}.png`), animations: 'disabled' });
}

/** Waits until the model can be asked and nothing runs, then gives the text of an answer. */
async function settled(page: Page, answer: string): Promise<string> {
  await poll(() => button(page, 'Ask').isEnabled()).toBe(true);
  return words(page.getByRole('group', { name: answer, exact: true }));
}

/** Takes back what a message tells of. */
async function takeBack(page: Page, message: string): Promise<void> {
  const messages = page.getByRole('status', { name: 'Messages' });
  const told = messages.locator('.toast').filter({ hasText: message }).last();
  await told.getByRole('button', { name: 'Undo' }).click();
}

async function openSample(page: Page): Promise<void> {
  await page
    .getByRole('region', { name: 'Demo pictures' })
    .getByRole('button', { name: sample.title })
    .click();
  await poll(() => page.getByLabel('Prompt', { exact: true }).inputValue()).toBe(sample.prompt);
}

async function ask(page: Page): Promise<string> {
  await poll(() => button(page, 'Ask').isEnabled()).toBe(true);
  await button(page, 'Ask').click();
  return settled(page, 'Answer text');
}

const home = () => mkdtempSync(join(tmpdir(), 'emend-story-'));
let browser: Browser;
beforeAll(async () => {
  browser = await openBrowser();
});
afterAll(() => browser?.close());

const surfaces: Array<[string, StartApp]> = [
  ['a browser, through serve', startServed],
  ['the window', startDesktop],
];

describe.each(surfaces)('in %s', (name, start) => {
  const place = home();
  const shot = (page: Page, step: string) =>
    picture(page, `${name === 'the window' ? 'window' : 'served'}-${step}`);
  let app: RunningApp;
  let page: Page;
  let wrong = '';
  beforeAll(async () => {
    app = await start(browser, place);
    page = app.page;
  });
  afterAll(async () => {
    await app.quit();
    rmSync(place, { recursive: true, force: true });
  });

  test('a new library is empty and says what to do', async () => {
    await page.getByRole('link', { name: 'Library', exact: true }).click();
    await page.getByText('No edits yet.').waitFor();
    await shot(page, '1-empty-library');
    await button(page, 'Go to the workbench').click();
    await page.getByText('Drop a picture here').waitFor();
  });

  test('a demo picture is asked about, and the answer is wrong', async () => {
    await openSample(page);
    wrong = await ask(page);
    expect(wrong).not.toBe('');
    expect(wrong.toLowerCase()).not.toBe(sample.correction.toLowerCase());
    // The words the model thought of instead, each with its probability.
    expect(await words(page.getByRole('region', { name: 'Answer', exact: true }))).toMatch(/[01]\.\d\d/);
    await shot(page, '2-wrong-answer');
  });

  test('the correction shows the answer before and after the edit', async () => {
    await page.getByLabel('Correction', { exact: true }).fill(sample.correction);
    await button(page, 'Preview edit').click();
    await poll(() => words(page.getByRole('group', { name: 'After text', exact: true }))).toBe(
      sample.correction,
    );
    await settled(page, 'After text');
    expect(await words(page.getByRole('group', { name: 'Before text' }))).toBe(wrong);
    await shot(page, '3-before-and-after');
  });

  test('the influence map lies on the picture, with its values under the pointer', async () => {
    const map = page.getByRole('img', { name: 'Influence map' });
    await map.waitFor();
    const box = (await map.boundingBox())!;
    const value = page.locator('#pointed-cell');
    const side = 10;
    const seen: number[] = [];
    for (let row = 0; row < side; row++) {
      for (let column = row % 2; column < side; column += 2) {
        await page.mouse.move(
          box.x + ((column + 0.5) / side) * box.width,
          box.y + ((row + 0.5) / side) * box.height,
        );
        const [, token, influence] =
          /visual token (\d+) · influence ([01]\.\d\d)/.exec(await words(value)) ?? [];
        expect(Number(token)).toBe(row * side + column);
        seen.push(Number(influence));
      }
    }
    // A map that is the same everywhere would say nothing of where the edit acts.
    expect(Math.max(...seen) - Math.min(...seen)).toBeGreaterThan(0.1);

    const alpha = (row: number, column: number) =>
      map.evaluate(
        (canvas: HTMLCanvasElement, [across, down]) =>
          canvas.getContext('2d')!.getImageData(canvas.width * across!, canvas.height * down!, 1, 1).data[3]!,
        [(column + 0.5) / side, (row + 0.5) / side],
      );
    const cells = Array.from({ length: 50 }, (_, i) => [
      Math.floor(i / 5),
      2 * (i % 5) + (Math.floor(i / 5) % 2),
    ]);
    const [most, least] = [Math.max(...seen), Math.min(...seen)].map((v) => cells[seen.indexOf(v)]!);
    expect(await alpha(most![0]!, most![1]!)).toBeGreaterThan(await alpha(least![0]!, least![1]!));

    await page.getByLabel('Opacity').fill('0.2');
    expect(await map.evaluate((canvas) => getComputedStyle(canvas).opacity)).toBe('0.2');
    await page.getByLabel('Opacity').fill('0.6');
  });

  test('an engine that is killed comes back, with the model; the library stays readable meanwhile', async () => {
    app.killEngine();
    const banner = page.getByRole('status', { name: 'Condition' });
    await poll(() => banner.isVisible()).toBe(true);
    expect(await words(banner)).toMatch(/engine/i);
    expect(await button(page, 'Run check').isEnabled()).toBe(false);
    await shot(page, '4-engine-killed');
    await page.getByRole('link', { name: 'Library', exact: true }).click();
    await page.getByRole('grid', { name: 'Edits' }).getByText(sample.prompt).waitFor();
    await poll(() => banner.isVisible()).toBe(false);
    await page.getByRole('link', { name: 'Workbench', exact: true }).click();
    await poll(() => button(page, 'Run check').isEnabled()).toBe(true);
  });

  test('the check answers every probe and passes', async () => {
    await button(page, 'Run check').click();
    const check = page.getByRole('region', { name: 'Check', exact: true });
    await poll(() => words(check)).toMatch(/^Check of \d\d:\d\d, .* passes/);
    const rows = await check.getByRole('table').locator('.row').allInnerTexts();
    const kinds = rows.map((row) => row.split('\n')[0]!.trim());
    expect(kinds).toEqual([
      'Reliability',
      'Text generality',
      'Image generality',
      'Text locality',
      'Image locality',
      'Same picture, other questions',
      'Same question, other pictures',
      'Committed edits, replayed',
    ]);
    const standing = JSON.parse(readFileSync(join(resources, 'standing-probes.json'), 'utf8')) as {
      probes: Array<{ kind: string }>;
    };
    const asked = (kind: string) => {
      const [, total] = /\d+ \/ (\d+)/.exec(rows[kinds.indexOf(kind)]!) ?? [];
      return Number(total);
    };
    expect(asked('Reliability')).toBe(1);
    for (const [kind, title] of [
      ['text-locality', 'Text locality'],
      ['image-locality', 'Image locality'],
    ] as const)
      expect(asked(title)).toBe(standing.probes.filter((probe) => probe.kind === kind).length);
    expect(asked('Same picture, other questions')).toBeGreaterThan(0);
    // the finding in words, and for each probe three answers and which edit acted
    expect(await words(check)).toMatch(/ Holds\. /);
    await check.getByRole('button', { name: 'Reliability' }).click();
    const answers = check.getByRole('cell', { name: 'Answers of Reliability' }).getByRole('row').last();
    expect(
      (await answers.getByRole('cell').allInnerTexts()).map((text) => text.replace(/\s+/g, ' ').trim()),
    ).toEqual([sample.prompt, wrong, wrong, `${sample.correction} this edit acted`]);
    await check.getByRole('button', { name: 'Reliability' }).click();
    await shot(page, '5-checked');
    if (process.env['EMEND_SCREENSHOT'] && start === startServed)
      await page.screenshot({ path: join(resources, 'screenshot.png'), animations: 'disabled' });
  });

  test('the edit is committed, and the library says so', async () => {
    await button(page, 'Commit').click();
    await page.getByRole('status', { name: 'Messages' }).getByText('Committed').waitFor();
    await page.getByRole('link', { name: 'Library', exact: true }).click();
    const row = page.getByRole('grid', { name: 'Edits' }).getByRole('row').filter({ hasText: sample.prompt });
    await poll(() => words(row)).toMatch(/Committed/i);
    expect(await words(row)).toContain(sample.correction);
    await shot(page, '6-library');
  });

  test('after a restart of everything the edit is there, and it acts', async () => {
    expect(app.problems).toEqual([]);
    await app.quit();
    app = await start(browser, place);
    page = app.page;
    await page.getByRole('link', { name: 'Library', exact: true }).click();
    const row = page.getByRole('grid', { name: 'Edits' }).getByRole('row').filter({ hasText: sample.prompt });
    await poll(() => words(row)).toMatch(/Committed/i);

    await button(page, 'New edit').click();
    await openSample(page);
    expect(await ask(page)).toBe(sample.correction);
    expect(await words(page.getByRole('region', { name: 'Answer', exact: true }))).toMatch(/edit 1 acted/);
    await shot(page, '7-after-restart');
    await page.getByLabel('Ask with committed edits').uncheck();
    expect(await ask(page)).toBe(wrong);
    expect(app.problems).toEqual([]);
  });
});

describe('on the workbench', () => {
  const place = home();
  let app: RunningApp;
  let page: Page;
  beforeAll(async () => {
    app = await startServed(browser, place);
    page = app.page;
  });
  afterAll(async () => {
    await app.quit();
    rmSync(place, { recursive: true, force: true });
  });

  /** Tabs on to what is called `name`; it must be seen to have the focus. */
  async function tabTo(name: string): Promise<void> {
    for (let presses = 0; presses < 80; presses++) {
      await page.keyboard.press('Tab');
      const focused = await page.evaluate(() => {
        const element = document.activeElement as HTMLElement | null;
        if (!element || element === document.body) return null;
        const labels = 'labels' in element ? [...((element.labels as NodeList | null) ?? [])] : [];
        const named =
          element.getAttribute('aria-label') ??
          labels[0]?.textContent ??
          [...element.childNodes]
            .filter((node) => node.nodeName !== 'KBD')
            .map((node) => node.textContent)
            .join('')
            .split('…')[0]!;
        const style = getComputedStyle(element);
        const row = element.closest('.row');
        const shown =
          style.outlineStyle !== 'none' ||
          style.boxShadow !== 'none' ||
          (row !== null && getComputedStyle(row).boxShadow !== 'none');
        return { named: named.trim(), shown };
      });
      if (focused?.named !== name) continue;
      expect(focused.shown, `the focus on ${name} is to be seen`).toBe(true);
      return;
    }
    throw new Error(`Tab does not lead to ${name}.`);
  }

  test('the whole story can be told by keyboard alone', async () => {
    await page.getByRole('region', { name: 'Demo pictures' }).getByRole('button').first().waitFor();
    await poll(async () => (await page.getByText('layers').count()) > 0).toBe(true);
    await tabTo(sample.title);
    await page.keyboard.press('Enter');
    await tabTo('Prompt');
    await poll(() => button(page, 'Ask').isEnabled()).toBe(true);
    await page.keyboard.press('Enter');
    const wrong = await settled(page, 'Answer text');
    expect(wrong).not.toBe(sample.correction);

    await tabTo('Correction');
    await page.keyboard.type(sample.correction);
    await page.keyboard.press('Enter');
    await poll(() => page.getByRole('group', { name: 'After text' }).isVisible()).toBe(true);
    await poll(() => words(page.getByRole('group', { name: 'After text', exact: true }))).toBe(
      sample.correction,
    );
    await settled(page, 'After text');

    await tabTo('Influence map');
    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('ArrowRight');
    expect(await words(page.locator('#pointed-cell'))).toMatch(/^visual token 66 · influence [01]\.\d\d$/);

    await page.keyboard.press('Control+Shift+Enter');
    const check = page.getByRole('region', { name: 'Check', exact: true });
    await poll(() => words(check)).toMatch(/^Check of /);
    await tabTo('Commit');
    await page.keyboard.press('Enter');
    await page.getByRole('status', { name: 'Messages' }).getByText('Committed').waitFor();

    await tabTo('Library');
    await page.keyboard.press('Enter');
    await page.getByRole('grid', { name: 'Edits' }).waitFor();
    await page.keyboard.press('n');
    await page.getByRole('heading', { name: 'New edit' }).waitFor();
    expect(await page.getByLabel('Prompt', { exact: true }).inputValue()).toBe('');
    await tabTo('Library');
    await page.keyboard.press('Enter');
    await page.getByRole('grid', { name: 'Edits' }).waitFor();
    await page.keyboard.press('j');
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { name: 'Edit 1' }).waitFor();
    expect(app.problems).toEqual([]);
  });

  test('a commit without a check takes a reason that stays on record, and can be undone', async () => {
    await page.keyboard.press('n');
    await openSample(page);
    await page.getByLabel('Prompt', { exact: true }).fill('What is to be seen here?');
    await page.getByLabel('Correction', { exact: true }).fill('something else');
    await button(page, 'Preview edit').click();
    await settled(page, 'After text');
    await button(page, 'Commit').click();
    const dialog = page.getByRole('dialog');
    const confirm = dialog.getByRole('button', { name: 'Commit with this reason' });
    expect(await confirm.isEnabled()).toBe(false);
    await dialog.getByLabel('Reason').fill('Agreed with the museum.');
    await confirm.click();
    await page.getByText('without a passing check: “Agreed with the museum.”').waitFor();
    await takeBack(page, 'Edit 2 committed');
    await page.getByText('Draft', { exact: true }).waitFor();
    await page.getByRole('link', { name: 'Library', exact: true }).click();
    await page.getByRole('grid', { name: 'Edits' }).getByText('What is to be seen here?').click();
    const details = page.getByRole('complementary', { name: 'Edit details' });
    await poll(() => words(details)).toMatch(/Agreed with the museum\./);
    expect(app.problems).toEqual([]);
  });

  test('what is next is the primary action; after a failed check nothing is, and Commit says “anyway”', async () => {
    const primary = () => page.getByRole('main').locator('.button.primary').allInnerTexts();
    const next = (name: RegExp) => poll(primary).toEqual([expect.stringMatching(name)]);
    await page.goto(page.url().replace(/#.*/, '#/workbench'));
    await page.keyboard.press('n');
    await openSample(page);
    await page.getByLabel('Prompt', { exact: true }).fill('Tell me about it');
    await next(/^Ask/);
    await ask(page);
    // no letter of it is in anything the model says
    await page
      .getByLabel('Correction', { exact: true })
      .fill('zzz qqq xxx jjj zzz qqq xxx jjj zzz qqq xxx jjj');
    await next(/^Preview edit/);
    await button(page, 'Preview edit').click();
    await settled(page, 'After text');
    await next(/^Run check/);
    await page.reload();
    await next(/^Run check/);
    await page.keyboard.press('c');
    await page.getByText('Failed its check', { exact: true }).waitFor();
    expect(await primary()).toEqual([]);
    await button(page, 'Commit anyway').waitFor();
    expect(app.problems).toEqual([]);
  });

  test('a check goes on through a reload and on other screens, is listed, and can be stopped from anywhere', async () => {
    await page.goto(page.url().replace(/#.*/, '#/workbench/2'));
    await page.getByRole('heading', { name: 'Edit 2' }).waitFor();
    await poll(() => button(page, 'Run check').isEnabled()).toBe(true);
    const release = app.holdEngine();
    await page.keyboard.press('c');
    await button(page, 'Cancel check').waitFor();
    await page.reload();
    await button(page, 'Cancel check').waitFor();
    await page.getByRole('link', { name: 'Library', exact: true }).click();
    const running = page.getByRole('status', { name: 'Running' });
    expect(await words(running)).toMatch(/^Check · edit 2 · /);
    await running.click();
    await button(page, 'Stop Check · edit 2').click();
    release();
    const jobs = page.getByRole('region', { name: 'Jobs' });
    await poll(() => words(jobs)).toMatch(/^Check · edit 2 Stopped/);
    await page.keyboard.press('Escape');
  });

  test('a reopened edit is complete, and the window says where one is', async () => {
    await page.goto(page.url().replace(/#.*/, '#/workbench/1'));
    await page.reload();
    await page.getByRole('heading', { name: 'Edit 1' }).waitFor();
    await page.getByRole('img', { name: 'Influence map' }).waitFor();
    for (const side of ['Before', 'After'])
      expect(await words(page.getByRole('region', { name: side, exact: true }))).toMatch(/[01]\.\d\d/);
    expect(await page.title()).toBe('Edit 1 – library – Emend');
    await page.keyboard.press('?');
    await page.getByRole('dialog', { name: 'Keyboard shortcuts' }).waitFor();
    await page.keyboard.press('Escape');
    await page.goto(page.url().replace(/#.*/, '#/library'));
    await poll(() => page.title()).toBe('Library – library – Emend');
    await page.goBack();
    await page.getByRole('heading', { name: 'Edit 1' }).waitFor();
    await page.goto(page.url().replace(/#.*/, '#/workbench/2'));
    await page.getByRole('heading', { name: 'Edit 2' }).waitFor();
    expect(app.problems).toEqual([]);
  });

  test('check and commit wait until what is typed was previewed, and nothing typed is lost', async () => {
    const correction = page.getByLabel('Correction', { exact: true });
    await poll(() => button(page, 'Commit').isEnabled()).toBe(true);
    await correction.fill('something new');
    expect(await button(page, 'Commit').isEnabled()).toBe(false);
    expect(await button(page, 'Run check').isEnabled()).toBe(false);
    await page.getByText(/preview it before its check/).waitFor();
    const edit = await words(page.getByRole('heading', { name: /^Library \/ Edit \d/ }));

    // what was typed outlives another edit and a reload, for an edit and for the next new one
    await button(page, 'New edit').click();
    await page.getByRole('heading', { name: 'New edit' }).waitFor();
    await openSample(page);
    await correction.fill('begun');
    await page.goBack();
    await page.getByRole('heading', { name: edit }).waitFor();
    await poll(() => correction.inputValue()).toBe('something new');
    await page.reload();
    await page.getByRole('heading', { name: edit }).waitFor();
    await poll(() => correction.inputValue()).toBe('something new');
    await page.keyboard.press('n');
    await poll(() => correction.inputValue()).toBe('begun');
    expect(await page.getByLabel('Prompt', { exact: true }).inputValue()).toBe(sample.prompt);
    await page.getByRole('img', { name: 'The edit’s subject' }).waitFor();
    await page.reload();
    await poll(() => correction.inputValue()).toBe('begun');

    // what is cleared can be called back
    await page.keyboard.press('n');
    await poll(() => correction.inputValue()).toBe('');
    await takeBack(page, 'Cleared');
    await poll(() => correction.inputValue()).toBe('begun');
    await page.goBack();
    await page.getByRole('heading', { name: edit }).waitFor();
    await button(page, 'Put back').click();
    await poll(() => correction.inputValue()).toBe('something else');
    await poll(() => button(page, 'Commit').isEnabled()).toBe(true);

    // an answer that was stopped leaves the one before it, and the way back to before and after
    await button(page, 'Ask').click();
    const answer = await settled(page, 'Answer text');
    await page.getByLabel('Prompt', { exact: true }).fill('Which fruit is that?');
    await page.getByText('to “What is to be seen here?”').waitFor();
    expect(await words(page.getByRole('group', { name: 'Answer text' }))).toBe(answer);
    await button(page, 'Before and after').click();
    await page.getByRole('group', { name: 'After text' }).waitFor();
    expect(app.problems).toEqual([]);
  });

  test('imported edits are previewed, checked and committed, from the workbench and from the table', async () => {
    const rows = [
      'picture,prompt,target',
      'tram.jpg,Name the vehicle in the picture.,tram',
      'bagel.jpg,What food is this?,bagel',
    ];
    writeFileSync(join(place, 'rows.csv'), rows.join('\n'));
    await page.getByRole('link', { name: 'Library', exact: true }).click();
    await button(page, 'Import…').click();
    const importing = page.getByRole('dialog', { name: 'Import edits' });
    await importing.getByLabel('File', { exact: true }).fill(join(place, 'rows.csv'));
    await importing.getByLabel('Pictures', { exact: true }).fill(join(resources, 'samples'));
    await importing.getByRole('button', { name: 'Look into it' }).click();
    await importing.getByRole('button', { name: 'Import 2 edits' }).click();
    await importing.getByText('2 edits added').waitFor();
    await importing.getByRole('button', { name: 'Close' }).click();
    const row = (text: string) =>
      page.getByRole('grid', { name: 'Edits' }).getByRole('row').filter({ hasText: text });

    // opened, it offers its preview, and is complete after that, also when it is opened again
    await row('tram').dblclick();
    await page.getByText('Preview it first, to see what the edit does.').waitFor();
    const primary = () => page.getByRole('main').locator('.button.primary').allInnerTexts();
    await poll(primary).toEqual(['Preview edit']);
    expect(await page.getByRole('img', { name: 'Influence map' }).count()).toBe(0);
    await poll(() => button(page, 'Preview edit').isEnabled()).toBe(true);
    await button(page, 'Preview edit').click();
    await settled(page, 'After text');
    await page.reload();
    await page.getByRole('img', { name: 'Influence map' }).waitFor();
    for (const side of ['Before', 'After'])
      await poll(() => words(page.getByRole('region', { name: side, exact: true }))).toMatch(/[01]\.\d\d/);
    await poll(primary).toEqual([expect.stringMatching(/^Run check/)]);

    // both are checked from the table, and those that pass committed from what that found
    await page.getByRole('link', { name: 'Library', exact: true }).click();
    await row('bagel').click();
    await row('tram').click({ modifiers: ['Shift'] });
    const bar = page.getByRole('toolbar', { name: 'Selected edits' });
    await poll(() => bar.getByRole('button', { name: 'Check' }).isEnabled()).toBe(true);
    await bar.getByRole('button', { name: 'Check' }).click();
    const report = page.getByRole('dialog', { name: '2 of 2 edits pass their check' });
    await report.waitFor({ timeout: PATIENCE });
    await report.getByRole('button', { name: 'Close' }).click();
    await poll(() => words(row('bagel'))).toContain('Checked');

    // one key commits, and the next of the list comes
    await row('bagel').dblclick();
    const heading = () => words(page.getByRole('heading', { name: /^Library \/ Edit \d/ }));
    await poll(() => button(page, 'Run check').isEnabled()).toBe(true);
    const first = await heading();
    await page.keyboard.press('m');
    await poll(heading).not.toBe(first);

    // and the bar those that are selected
    await page.getByRole('link', { name: 'Library', exact: true }).click();
    await poll(() => words(row('bagel'))).toContain('Committed');
    await page.keyboard.press('Escape'); // what was selected still is
    await row('tram').click({ modifiers: ['Control'] });
    await bar.getByRole('button', { name: 'Commit…' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Commit those that pass' }).click();
    await page.getByText('1 edit committed').waitFor();
    await poll(() => words(row('tram'))).toContain('Committed');
    expect(app.problems).toEqual([]);
  });
});
