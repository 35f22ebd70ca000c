/** @file The benchmark page: an empty state, a form that says what it lacks, a table as it is made, answers side by side, reload, stop. */
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import type { Backend } from '../../electron/api/contract.ts';
import { projectFolder } from '../../electron/frontends/places.ts';
import { writeTinyAdapter } from '../evaluation/tinyAdapter.ts';
import { openBrowser } from '../support/browser.ts';
import { writeTinyCheckpoint } from '../support/checkpointFixtures.ts';
import { type Desktop, launchDesktop } from '../support/electronHarness.ts';
import { fixture } from '../support/fixtures.ts';

vi.mock('electron', async () => (await import('../support/fakeElectron.ts')).electron);

const home = mkdtempSync(join(tmpdir(), 'emend-benchmark-page-'));
const poll = <T>(value: () => T | Promise<T>) => expect.poll(value, { timeout: 150_000, interval: 100 });
let browser: Browser;
let desktop: Desktop;
let page: Page;

beforeAll(async () => {
  const model = join(home, 'models', 'tiny');
  const other = join(home, 'models', 'other');
  await writeTinyCheckpoint(model);
  await writeTinyCheckpoint(other, { seed: 9 });
  await writeTinyAdapter(join(home, 'models', 'a tiny adapter'), model, 0.9999);
  mkdirSync(join(home, 'edits'));
  for (const name of ['a.png', 'b.png', 'c.png'])
    cpSync(fixture(`images/${name}`), join(home, 'edits', name));
  const record = {
    ...{ src: 'What is the animal?', rephrase: 'Which animal is it?', pred: '', alt: 'the cat' },
    ...{ image: 'a.png', image_rephrase: 'b.png', loc: 'Is there a tree?', loc_ans: 'yes' },
    ...{ m_loc: 'c.png', m_loc_q: 'What is the fruit?', m_loc_a: 'an apple' },
  };
  const rows = [record, { ...record, alt: '' }, { ...record, image: 'b.png', alt: 'the train' }];
  writeFileSync(join(home, 'edits', 'data.json'), JSON.stringify(rows));
  writeFileSync(join(home, 'edits', 'more.json'), JSON.stringify(rows.toReversed()));
  browser = await openBrowser();
  desktop = await launchDesktop({ browser, home, size: { width: 1280, height: 900 } });
  page = desktop.page;
  // Short answers: the untrained model never ends one by itself.
  await page.evaluate(() =>
    (window as unknown as { emend: Backend }).emend.call('settings.set', { maxNewTokens: 2 }),
  );
  await page.getByRole('link', { name: 'Models' }).click();
  for (const folder of [other, model]) {
    await page.getByLabel('Folder', { exact: true }).fill(folder);
    await page.getByRole('button', { name: 'Open', exact: true }).click();
    await page
      .getByRole('region', { name: 'Open model', exact: true })
      .getByText(basename(folder), { exact: true })
      .first()
      .waitFor({ timeout: 60_000 });
  }
}, 120_000);
afterAll(async () => {
  await desktop?.quit();
  await browser?.close();
  rmSync(home, { recursive: true, force: true });
});

test('editors are chosen, a set is looked at, and every answer is there beside another’s, after a reload too', async () => {
  await page.getByRole('link', { name: 'Benchmark' }).click();
  const form = page.getByRole('form', { name: 'New benchmark' });
  const start = form.getByRole('button', { name: 'Measure' });
  await poll(() => form.getByText('Name a data set.').isVisible()).toBe(true);
  // what must be trained first cannot be chosen; the adapter beside the model can
  expect(await form.getByLabel('MEND', { exact: false }).isDisabled()).toBe(true);
  expect(await form.getByLabel('VisEdit').isChecked()).toBe(true);
  for (const box of await form.getByRole('list', { name: 'Editors' }).getByRole('checkbox').all())
    if ((await box.isChecked()) && !(await box.isDisabled())) await box.uncheck();
  await poll(() => form.getByText('Choose an editor.').isVisible()).toBe(true);
  await form.getByLabel('VisEdit').check();
  await form.getByLabel('Data set').fill(join(home, 'edits', 'none.json'));
  await form.getByLabel('Data set').blur();
  await poll(() => form.getByRole('alert').textContent()).toContain('none.json is missing');
  await form.getByLabel('Data set').fill(join(home, 'edits', 'data.json'));
  await form.getByLabel('Data set').blur();
  await poll(() => form.getByText('E-VQA, 2 edits.').isVisible()).toBe(true);
  expect(await form.getByRole('list', { name: 'Rows left out' }).textContent()).toContain('Row 2');
  await form.getByRole('button', { name: '10', exact: true }).click();
  await poll(() => form.getByText('10 cannot act together').isVisible()).toBe(true);
  await form.getByRole('button', { name: '10', exact: true }).click();
  await form.getByLabel('Measured').fill('1');
  expect(await start.isDisabled()).toBe(false);
  await start.click();

  const run = page.getByRole('region', { name: 'Comparison on data.json' });
  await poll(() => run.locator('tbody tr').count()).toBe(2);
  await poll(() => run.getByRole('button', { name: 'Export…' }).isVisible()).toBe(true);
  await page.reload();
  await poll(() => run.locator('tbody tr').count()).toBe(2);

  const answers = page.getByRole('region', { name: 'Answers' });
  const rows = answers.locator('tbody tr.row');
  await poll(() => rows.count()).toBe(6);
  await poll(() => answers.locator('tbody img').count()).toBe(5);
  expect(await rows.first().textContent()).toContain('What is the animal?');
  await answers.getByLabel('Kind of probe').selectOption({ label: 'Text locality' });
  await poll(() => rows.count()).toBe(1);
  await answers.getByLabel('Kind of probe').selectOption({ label: 'Every kind' });
  await answers.getByLabel('Search prompts and answers').fill('TREE?');
  await poll(() => rows.count()).toBe(1);
  await answers.getByLabel('Search prompts and answers').fill('');
  await answers.getByLabel('Beside the answers of').selectOption({ index: 1 });
  await answers.getByLabel('Only what differs').check();
  await poll(() => answers.getByRole('status').textContent()).toMatch(/^\s*[1-5] of 6\s*$/);
  await rows.first().click();
  const dialog = page.getByRole('dialog');
  await poll(() => dialog.getByText('behind the router, each alone').isVisible()).toBe(true);
  await page.screenshot({ path: join(projectFolder, 'test-output', 'benchmark.png') });
  await dialog.getByRole('button', { name: 'Close' }).click();

  await answers.getByRole('button', { name: 'Export…' }).click();
  const file = join(home, 'samples.csv');
  await page.getByRole('dialog').getByLabel('New file').fill(file);
  await page.getByRole('dialog').getByRole('button', { name: 'Export', exact: true }).click();
  await poll(() => page.getByText('lines are written to').count()).toBeGreaterThan(0);
  expect(readFileSync(file, 'utf8')).toContain('What is the animal?');

  expect(desktop.problems).toEqual([]);
}, 400_000);

test('a benchmark that waits says for what; one whose process is killed says so and is tried again', async () => {
  const form = page.getByRole('form', { name: 'New benchmark' });
  const run = page.getByRole('region', { name: 'Comparison on data.json' });
  const measure = async () => {
    await page.getByRole('button', { name: 'New benchmark' }).click();
    await poll(() => form.getByText('E-VQA, 2 edits.').isVisible()).toBe(true);
    await form.getByRole('button', { name: 'Measure' }).click();
  };
  await page.getByRole('button', { name: 'New benchmark' }).click();
  await form.getByLabel('Data set').fill(join(home, 'edits', 'data.json'));
  await form.getByLabel('Data set').blur();
  for (const box of await form.getByRole('list', { name: 'Editors' }).getByRole('checkbox').all())
    if ((await box.isChecked()) && !(await box.isDisabled())) await box.uncheck();
  await form.getByLabel('VisEdit').check();
  await form.getByLabel('Measured').fill('1');
  await form.getByRole('button', { name: 'Cancel' }).click();

  // What measures is suspended as long as this is looked at.
  const { suspended } = desktop.run;
  suspended.operation = 'measure';
  await measure();
  await poll(() => run.getByRole('button', { name: 'Stop' }).isVisible()).toBe(true);
  await poll(() => page.getByRole('list', { name: 'Comparisons' }).getByText('running').count()).toBe(1);
  await measure();
  await poll(() => run.getByText('Waits for the benchmark on data.json').isVisible()).toBe(true);
  await poll(() => page.getByRole('list', { name: 'Comparisons' }).getByText('waiting').count()).toBe(1);
  await page.getByRole('list', { name: 'Comparisons' }).getByRole('button', { name: 'running' }).click();
  await poll(() => run.getByRole('button', { name: 'Stop' }).isVisible()).toBe(true);
  await poll(() => suspended.process).not.toBeNull();
  suspended.process!.kill('SIGKILL');
  const again = run.getByRole('button', { name: 'Try what failed again' });
  await poll(() => again.isVisible()).toBe(true);
  await poll(() => run.getByText(/ended unexpectedly.*What was recorded/).count()).toBe(1);
  await poll(() => run.getByText('1 of 2 rows could not be measured').count()).toBe(1);
  await again.click();
  await poll(() => run.getByRole('button', { name: 'Export…' }).isVisible()).toBe(true);
  await poll(() => run.getByText('ended unexpectedly').count()).toBe(0);
  await poll(() => run.locator('tbody tr').count()).toBe(2);
  await poll(() => page.getByRole('list', { name: 'Comparisons' }).getByText('done').count()).toBe(3);
  expect(desktop.problems).toEqual([]);
}, 400_000);

test('several models and sets: what cannot act is told before, one table tells of all, and any is looked at', async () => {
  await page.getByRole('button', { name: 'New benchmark' }).click();
  const form = page.getByRole('form', { name: 'New benchmark' });
  const models = form.getByRole('list', { name: 'Models' });
  await poll(() => models.getByLabel('tiny').isChecked()).toBe(true);
  await models.getByLabel('tiny').uncheck();
  await poll(() => form.getByText('Choose a model.').isVisible()).toBe(true);
  await models.getByLabel('other').check();
  // VisEdit has an adapter for the other model alone.
  await poll(() => form.getByLabel('VisEdit').isDisabled()).toBe(true);
  await poll(() => form.getByRole('list', { name: 'Left out', exact: true }).textContent()).toMatch(
    /VisEdit: No adapter fits: train one first/,
  );
  await models.getByLabel('tiny').check();
  await poll(() => form.getByLabel('VisEdit').isDisabled()).toBe(false);
  await poll(() => form.getByRole('list', { name: 'Left out', exact: true }).textContent()).toMatch(
    /VisEdit on other: No adapter fits: train one first.*DualEdit, KE, MEND on tiny, other: /,
  );
  await form.getByLabel('VisEdit').check();
  await form.getByLabel('IKE').check();
  await form.getByRole('button', { name: 'Add a data set' }).click();
  await poll(() => form.getByText('Name a data set.').isVisible()).toBe(true);
  await form.getByLabel('Data set 2', { exact: true }).fill(join(home, 'edits', 'more.json'));
  await form.getByLabel('Data set 2', { exact: true }).blur();
  await poll(() => form.getByText('4 comparisons, one after the other').isVisible()).toBe(true);
  await page.screenshot({ path: join(projectFolder, 'test-output', 'benchmark-form.png') });
  await form.getByRole('button', { name: 'Measure' }).click();

  const all = page.getByRole('region', { name: 'All comparisons' });
  await poll(() => all.getByRole('heading').textContent()).toBe('2 models on 2 data sets');
  await poll(() => all.getByRole('button', { name: 'Export…' }).isVisible()).toBe(true);
  await poll(() => all.locator('tbody tr').count()).toBe(4);
  const figures = async (line: string) => {
    const cells = await all.locator('tbody tr', { hasText: line }).locator('td').allTextContents();
    return cells.map((text) => /^[\d.]+$/.test(text.trim()));
  };
  expect(await figures('IKE no scope')).toEqual([true, true, true, true]);
  expect(await figures('VisEdit no scope')).toEqual([true, true, false, false]);

  await page.getByRole('region', { name: 'Comparison on data.json' }).waitFor();
  const choice = page.getByRole('combobox', { name: 'Comparison in view' });
  await page.keyboard.press(']');
  const second = page.getByRole('region', { name: 'Comparison on more.json' });
  await poll(() => second.locator('tbody tr').count()).toBe(4);
  await all.getByRole('button', { name: 'other more.json' }).click();
  await poll(() => choice.inputValue()).toBe('3');
  await poll(() => second.locator('tbody tr').count()).toBe(2);
  await poll(() => second.getByText('VisEdit was left out').isVisible()).toBe(true);
  const answers = page.getByRole('region', { name: 'Answers' });
  await poll(() => answers.locator('tbody tr.row').first().textContent()).toContain('What is the animal?');
  await poll(() => answers.locator('tbody img').count()).toBeGreaterThan(0);
  await page.screenshot({ path: join(projectFolder, 'test-output', 'benchmark-several.png') });

  await all.getByRole('button', { name: 'Export…' }).click();
  const file = join(home, 'overview.csv');
  await page.getByRole('dialog').getByLabel('New file').fill(file);
  await page.getByRole('dialog').getByRole('button', { name: 'Export', exact: true }).click();
  await poll(() => page.getByText(`written to ${file}`).count()).toBeGreaterThan(0);
  expect(readFileSync(file, 'utf8')).toMatch(/^other,more\.json,IKE,no scope,,1,exactMatch,/m);
  expect(desktop.problems).toEqual([]);
}, 400_000);

test('what is removed is gone; without any the page is as it began', async () => {
  const remove = page.getByRole('button', { name: 'Remove…' });
  const asked = page.getByRole('dialog', { name: /^Remove the benchmark on / });
  const form = page.getByRole('form', { name: 'New benchmark' });
  const listed = page.getByRole('list', { name: 'Comparisons' }).getByRole('listitem');
  const kept = () =>
    page.evaluate(async () => {
      const { emend } = window as unknown as { emend: Backend };
      return ((await emend.call('benchmarks.list', {})) as readonly unknown[]).length;
    });
  const all = await kept();
  expect(all).toBe(4);
  // a second click in a hurry removes nothing
  await remove.dblclick();
  expect((await asked.boundingBox())!.width).toBe(480);
  await asked.getByRole('button', { name: 'Cancel' }).click();
  await poll(() => asked.count()).toBe(0);
  expect(await kept()).toBe(all);
  for (let left = all - 1; left >= 0; left--) {
    await remove.click();
    await asked.getByRole('button', { name: 'Remove' }).click();
    await poll(kept).toBe(left);
    await poll(() => asked.count()).toBe(0);
    // the page has heard of it: what it shows next is another, and of one alone there is no list
    await poll(() => listed.count()).toBe(left > 1 ? left : 0);
  }
  await poll(() => form.isVisible()).toBe(true);
}, 400_000);
