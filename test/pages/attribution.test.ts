/** @file The attribution screen on the demo model: maps before and with an edit, bars, a proposed layer, files, stopping, what is kept, narrow windows. */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { forkEngine } from '../../electron/engine/forkEngine.ts';
import { pageFolder } from '../../electron/frontends/places.ts';
import { type Program, startProgram } from '../../electron/frontends/program.ts';
import { type Served, serve } from '../../electron/serve.ts';
import { beyondWindow } from '../support/beyondWindow.ts';
import { openBrowser } from '../support/browser.ts';
import { fixture } from '../support/fixtures.ts';

const PATIENCE = 60_000;
const folder = mkdtempSync(join(tmpdir(), 'emend-pages-'));
const problems: string[] = [];
let program: Program;
let served: Served;
let browser: Browser;
let page: Page;
/** messages kept from the engine while it is held; null: it is not */
let held: Array<() => void> | null = null;

const poll = <T>(value: () => T | Promise<T>) => expect.poll(value, { timeout: PATIENCE, interval: 50 });
const call: Program['application']['call'] = (name, input) => program.application.call(name, input);
const found = () => page.getByRole('region', { name: 'What was found' });
const attribute = () => page.getByRole('button', { name: 'Attribute', exact: true }).click();
const show = (view: string) => page.getByRole('radio', { name: view, exact: true }).check();
const at = (place: string) => page.goto(page.url().replace(/#.*/, `#/${place}`));
/** a file that a button of the page saves */
const saved = async (button: string) => {
  const [download] = await Promise.all([
    page.waitForEvent('download'),
    page.getByRole('button', { name: button, exact: true }).click(),
  ]);
  const path = await download.path();
  return { name: download.suggestedFilename(), content: readFileSync(path) };
};
/** the numbers of a chart, as whoever cannot see it reads them: by layer, one for each of its names */
const chart = (title: RegExp) =>
  page
    .getByRole('table', { name: title })
    .getByRole('row')
    .evaluateAll((rows) =>
      rows.slice(1).map((row) => [...row.querySelectorAll('td')].map((cell) => cell.innerText)),
    );

beforeAll(async () => {
  process.env.XDG_DATA_HOME = join(folder, 'data');
  program = await startProgram({
    library: join(folder, 'library.emend'),
    launch: () => {
      const forked = forkEngine();
      const send: typeof forked.send = (message) => {
        if (held) held.push(() => forked.send(message));
        else forked.send(message);
      };
      return { ...forked, send };
    },
    providers: ['cpu'],
  });
  served = await serve({ application: program.application, page: pageFolder, port: 0 });
  browser = await openBrowser();
  page = await (await browser.newContext({ viewport: { width: 1280, height: 900 } })).newPage();
  page.setDefaultTimeout(PATIENCE);
  page.on('pageerror', (error) => problems.push(error.message));
  page.on('console', (message) => message.type() === 'error' && problems.push(message.text()));
  await page.goto(served.url);
});

afterAll(async () => {
  await browser?.close();
  await served?.close();
  await program?.close();
  rmSync(folder, { recursive: true, force: true });
});

test('a picture and a question are looked into by key, layer by layer, and saved', async () => {
  await poll(async () => (await call('app.status', {})).model?.name).toBeTruthy();
  await page.getByRole('link', { name: 'Attribution', exact: true }).click();
  await found().getByText('Choose a picture and ask something').waitFor();
  const samples = await call('pictures.samples', {});
  await page.getByRole('list', { name: 'Demo pictures' }).getByRole('button').first().click();
  expect(await page.getByLabel('Question').inputValue()).toBe(samples[0]!.prompts[0]);
  await page.getByLabel('Question').focus();
  await page.keyboard.press('Enter');
  const map = found().getByRole('img', { name: /^Layer \d, hottest at row \d+, column \d+$/ });
  await map.waitFor();

  const report = await call('attribution.visual', {
    of: { picture: samples[0]!.picture.id, prompt: samples[0]!.prompts[0]! },
  });
  await found().getByText(`The model says “${report.keys.before}”`).waitFor();
  const hottest = (values: readonly number[]) => values.indexOf(Math.max(...values));
  await page.getByRole('slider', { name: 'Layer' }).fill('3');
  const cell = hottest(report.layers[3]!.before);
  const place = `row ${Math.floor(cell / report.columns) + 1}, column ${(cell % report.columns) + 1}`;
  await found()
    .getByRole('img', { name: `Layer 3, hottest at ${place}` })
    .waitFor();
  // the painted cell is where it should be, and not where nothing is
  const red = await map.evaluate(
    (canvas: HTMLCanvasElement, [token, columns, rows]) => {
      const context = canvas.getContext('2d')!;
      const alpha = (cell: number) => {
        const x = (((cell % columns!) + 0.5) / columns!) * canvas.width;
        const y = ((Math.floor(cell / columns!) + 0.5) / rows!) * canvas.height;
        return context.getImageData(x, y, 1, 1).data[3]!;
      };
      return { hot: alpha(token!), all: Array.from({ length: columns! * rows! }, (_, at) => alpha(at)) };
    },
    [cell, report.columns, report.rows] as const,
  );
  expect(red.hot).toBe(255);
  expect(Math.min(...red.all)).toBe(0);
  await map.focus();
  await page.keyboard.press('ArrowDown');
  await found()
    .getByRole('status')
    .getByText(/^row \d+, column \d+ · /)
    .first()
    .waitFor();

  const csv = (await saved('Save CSV')).content.toString().trim().split('\n');
  expect(csv[0]).toBe('layer,row,column,before,after');
  expect(csv).toHaveLength(1 + report.layers.length * report.columns * report.rows);
  expect(csv[1 + 3 * report.columns * report.rows + cell]).toBe(
    `3,${Math.floor(cell / report.columns)},${cell % report.columns},${report.layers[3]!.before[cell]},`,
  );
  const json = await saved('Save JSON');
  expect(json.name).toBe('attribution-visual.json');
  expect(JSON.parse(json.content.toString()).result.layers).toEqual(report.layers);
  const png = await saved('Save PNG');
  expect(png.content.subarray(1, 4).toString()).toBe('PNG');
});

test('bars of layers for a key token typed and a wrong one, and of modalities', async () => {
  await show('Layers');
  await page.getByLabel('Wrong token to compare with').fill('piano');
  await attribute();
  const own = page.getByRole('table', { name: /^Contribution to “/ });
  await own.waitFor({ state: 'attached' });
  const [bars, wrong] = [await chart(/^Contribution to “/), await chart(/^To a wrong token, “p/)];
  expect(bars).toHaveLength(8);
  const most = (rows: string[][]) => Math.max(...rows.flat().map(Number));
  expect(most(bars)).toBeGreaterThan(5 * most(wrong));
  expect((await saved('Save PNG')).content.length).toBeGreaterThan(2000);

  await show('Modalities');
  await attribute();
  await page.getByRole('table', { name: /^Noise of 1/ }).waitFor({ state: 'attached' });
  expect(await chart(/^Attention of the last/)).toHaveLength(8);
});

test('what a gate compares of a data set is measured beside the app, seen by layer, and saved', async () => {
  for (const name of ['a.png', 'b.png', 'c.png']) cpSync(fixture(`images/${name}`), join(folder, name));
  const record = {
    ...{ src: 'What is the animal?', rephrase: 'Which animal is it?', pred: '', alt: 'the cat' },
    ...{ image: 'a.png', image_rephrase: 'b.png', loc: 'Is there a tree?', loc_ans: 'yes' },
    ...{ m_loc: 'c.png', m_loc_q: 'What is the fruit?', m_loc_a: 'an apple' },
  };
  writeFileSync(
    join(folder, 'gate.json'),
    JSON.stringify([record, { ...record, image: 'b.png', alt: 'the train' }, { ...record, alt: '' }]),
  );
  await show('Gate');
  await page.getByLabel('Data set').fill(join(folder, 'gate.json'));
  await page.getByLabel('Data set').blur();
  await page.getByText('E-VQA, 2 edits.').waitFor();
  await page.getByRole('textbox', { name: 'Layers' }).fill('1,99');
  await page.getByText('Give layers from 0 to 6').waitFor();
  await page.getByRole('textbox', { name: 'Layers' }).fill('5, 1');
  const compare = page.getByRole('button', { name: 'Compare', exact: true });
  // stopped while its engine is held
  held = [];
  await compare.click();
  await poll(async () => (await call('jobs.list', {}))[0]).toMatchObject({
    ...{ kind: 'attribution.gate', ended: null },
  });
  await found().getByRole('button', { name: 'Stop' }).click();
  const waiting = held;
  held = null;
  for (const send of waiting) send();
  await poll(() => compare.isEnabled()).toBe(true);
  expect(await found().getByRole('alert').count()).toBe(0);

  await compare.click();
  const table = found().getByRole('table', { name: /^At layer \d, what the threshold lets through$/ });
  await table.waitFor();
  const { report } = await call('attribution.gate', { data: join(folder, 'gate.json'), layers: [1, 5] });
  expect(report.findings.map(({ layer }) => layer)).toEqual([...Array(5).fill(1), ...Array(5).fill(5)]);
  const bars = await chart(/^How well one threshold/);
  expect(bars).toHaveLength(2);
  await page.getByRole('slider', { name: 'Layer' }).fill('1');
  const row = table.getByRole('row', { name: /^Mean visual row/ });
  const visual = report.findings.find(
    ({ layer, representation }) => layer === 5 && representation === 'visual',
  )!;
  await poll(() => row.getByRole('cell').allTextContents()).toEqual(
    expect.arrayContaining([
      visual.separation!.threshold.toFixed(3),
      (100 * visual.separation!.balancedAccuracy).toFixed(1),
    ]),
  );
  // text locality has no picture to compare
  expect(await row.getByRole('cell').allTextContents()).toContain('–');
  // two edits' inputs of two kinds, in shares
  const shares = (await chart(/^Mean visual row/)).map(([act]) => Number.parseFloat(act!));
  expect(shares.reduce((a, b) => a + b)).toBeCloseTo(100, -1);
  const csv = (await saved('Save CSV')).content.toString().trim().split('\n');
  expect(csv[0]).toMatch(/^layer,representation,threshold,/);
  expect(csv).toHaveLength(
    1 + report.findings.reduce((sum, { kinds }) => sum + Object.keys(kinds).length, 0),
  );
  const json = await saved('Save JSON');
  expect(json.name).toBe('attribution-gate.json');
  expect(JSON.parse(json.content.toString()).findings).toEqual(report.findings);
  const png = await saved('Save PNG');
  expect(png.content.length).toBeGreaterThan(5000);
});

test('an edit’s maps lie beside one another before, with it, and its influence', async () => {
  const [sample] = (await call('pictures.samples', {})).filter(({ correction }) => correction !== null);
  const { id } = await call('edits.create', {
    picture: sample!.picture.id,
    prompt: sample!.prompts[0]!,
    target: sample!.correction!,
  });
  await at(`attribution/${id}`);
  await found().getByText('Press Attribute').waitFor();
  await poll(() => page.getByRole('link', { name: `Edit ${id}` }).count()).toBe(1);
  await show('Picture');
  await attribute();
  for (const title of ['Before the edit', 'With the edit', 'Influence, layer 0'])
    await found()
      .getByRole('img', { name: new RegExp(`^${title}, hottest`) })
      .waitFor();
  await found()
    .getByText(/with the edit “/)
    .waitFor();
  const { result } = JSON.parse((await saved('Save JSON')).content.toString());
  expect(result.keys.after).not.toBe(result.keys.before);
  expect(sample!.correction!.startsWith(result.keys.after)).toBe(true);
  expect(result.layers[4].after).not.toEqual(result.layers[4].before);
  // the same edit on another picture, under the same question
  await page.getByRole('list', { name: 'Demo pictures' }).getByRole('button').nth(4).click();
  await found().getByText('Press Attribute').waitFor();
  await attribute();
  await found()
    .getByRole('img', { name: /^With the edit, hottest/ })
    .waitFor();
  const other = JSON.parse((await saved('Save JSON')).content.toString());
  expect(other.of).toMatchObject({ edit: id, prompt: sample!.prompts[0] });
  expect(other.of.picture).not.toBe(sample!.picture.id);
  expect(other.result.influence).not.toEqual(result.influence);
  await page.getByRole('button', { name: 'Leave it out' }).click();
  await found().getByText('Press Attribute').waitFor();
  expect(page.url()).toMatch(/#\/attribution$/);
});

test('a layer is proposed over the library’s edits with its reason, and another can be taken', async () => {
  await show('Which layer to edit');
  await page.getByRole('radio', { name: '1 edit', exact: true }).check();
  await attribute();
  const proposed = await call('attribution.propose', { of: { select: { filter: {} } } });
  await found().getByText(`Layer ${proposed.layer}`, { exact: true }).waitFor();
  await found().getByText(proposed.why).waitFor();
  // it stays while one input is looked at
  await page.getByRole('radio', { name: 'One input' }).check();
  await page.getByRole('textbox', { name: 'Question' }).fill('Which fruit is it?');
  await poll(() => found().getByText(proposed.why).count()).toBe(0);
  await page.getByRole('radio', { name: '1 edit', exact: true }).check();
  await found().getByText(proposed.why).waitFor();
  await page.getByLabel('Layer to take').selectOption('5');
  const json = JSON.parse((await saved('Save JSON')).content.toString());
  expect(json).toMatchObject({ chosenLayer: 5, result: { layer: proposed.layer } });
  expect(json.of).toEqual({ set: 'the library’s edits', count: 1 });
  await page.getByRole('button', { name: 'Train an adapter there…' }).click();
  const form = page.getByRole('form', { name: 'New training' });
  await poll(() => form.getByLabel('Layer', { exact: true }).inputValue()).toBe('5');
  await page.getByRole('link', { name: 'Attribution' }).click();
  await found().getByText(proposed.why).waitFor();
});

test('what was found over sets is there after a reload: opened, saved, and removed', async () => {
  const [kept] = await call('attribution.runs', {});
  expect(kept).toMatchObject({ kind: 'propose', set: 'the library’s edits', count: 1 });
  await page.reload();
  await show('Which layer to edit');
  const earlier = page.getByRole('region', { name: 'Earlier' });
  const open = earlier.getByRole('button', { name: /^Open the library’s edits/ });
  await open.first().click();
  const { found: of } = await call('attribution.read', { run: kept!.id });
  if (of.kind !== 'propose') throw new Error('not the proposal');
  await found().getByText(of.report.why).waitFor();
  await found()
    .getByText(/^Over 1 inputs? of the library’s edits, /)
    .waitFor();
  expect(await open.first().getAttribute('aria-current')).toBe('true');
  expect(JSON.parse((await saved('Save JSON')).content.toString()).result).toEqual(of.report);
  await show('Gate');
  await earlier
    .getByRole('button', { name: /^Open gate\.json/ })
    .first()
    .click();
  await found()
    .getByRole('table', { name: /^At layer \d, what the threshold lets through$/ })
    .waitFor();
  const runs = () =>
    call('attribution.runs', {}).then((all) => all.filter(({ kind }) => kind === 'gate').length);
  const before = await runs();
  await earlier
    .getByRole('button', { name: /^Remove gate\.json/ })
    .first()
    .click();
  await poll(runs).toBe(before - 1);
  await found().getByText('Name a data set and press Compare.').waitFor();
  await show('Which layer to edit');
  await found().getByText(of.report.why).waitFor();
});

test('it runs as a job that is listed and can be stopped', async () => {
  held = [];
  await attribute();
  await found().getByRole('button', { name: 'Stop' }).waitFor();
  const running = async () => (await call('jobs.list', {})).find(({ ended }) => ended === null)?.kind;
  await poll(running).toBe('attribution.propose');
  await found().getByRole('button', { name: 'Stop' }).click();
  const waiting = held;
  held = null;
  for (const send of waiting) send();
  await poll(() => found().getByRole('button', { name: 'Stop' }).count()).toBe(0);
  await poll(async () => (await call('jobs.list', {})).some(({ ended }) => ended === null)).toBe(false);
  expect(await found().getByRole('alert').count()).toBe(0);
});

test('one input is looked into while a set is: neither waits for the other, and each is stopped alone', async () => {
  await page.getByRole('radio', { name: '1 edit', exact: true }).check();
  held = [];
  const send = page.getByRole('button', { name: 'Attribute', exact: true });
  await send.click();
  await poll(() => send.isDisabled()).toBe(true);
  await poll(async () => (await call('jobs.list', {})).some(({ ended }) => ended === null)).toBe(true);
  await page.getByRole('radio', { name: 'One input', exact: true }).check();
  await page.getByRole('list', { name: 'Demo pictures' }).getByRole('button').first().click();
  await poll(() => send.isEnabled()).toBe(true);
  expect(await found().getByRole('button', { name: 'Stop' }).count()).toBe(0);
  await send.click();
  const running = async () =>
    (await call('jobs.list', {})).filter(({ ended }) => ended === null).map(({ ownEngine }) => ownEngine);
  await poll(running).toEqual([true, false]);
  await found().getByRole('button', { name: 'Stop' }).click();
  const waiting = held;
  held = null;
  for (const message of waiting) message();
  await poll(running).toEqual([]);
  // what was stopped so soon is not listed; the set went on to its end
  expect((await call('jobs.list', {}))[0]).toMatchObject({ ownEngine: true, state: 'done' });
  await found().getByText('Press Attribute, or Ctrl+Enter.').waitFor();
});

test('a window of 480 pixels, dark or light, shows all of it, and nothing lies beyond its edge', async () => {
  await page.setViewportSize({ width: 480, height: 800 });
  for (const view of ['Picture', 'Layers', 'Modalities', 'Gate', 'Which layer to edit']) {
    await show(view);
    expect(await beyondWindow(page), view).toEqual([]);
  }
  await page.emulateMedia({ colorScheme: 'dark' });
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  await poll(ground).toBe('rgb(22, 22, 23)');
  expect(problems).toEqual([]);
});
