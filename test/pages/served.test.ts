import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { forkEngine } from '../../electron/engine/forkEngine.ts';
import { pageFolder } from '../../electron/frontends/places.ts';
import { startProgram } from '../../electron/frontends/program.ts';
import { serve } from '../../electron/serve.ts';
import { openBrowser } from '../support/browser.ts';

test('the page opens from the printed address, once, works after a reload, and hears events', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'emend-served-'));
  const program = await startProgram({
    library: join(folder, 'library.emend'),
    launch: () => forkEngine(join(import.meta.dirname, '../engine/plainEngine.ts')),
    startModel: 'none',
  });
  const served = await serve({ application: program.application, page: pageFolder, port: 0 });
  const browser = await openBrowser();
  try {
    const page = await browser.newPage();
    const problems: string[] = [];
    page.on('pageerror', (error) => problems.push(error.message));
    page.on('console', (message) => message.type() === 'error' && problems.push(message.text()));
    await page.goto(served.url);
    expect(page.url()).toBe(`http://127.0.0.1:${served.port}/`);
    await page.getByRole('button').first().waitFor();
    await page.reload();
    await page.getByRole('button').first().waitFor();
    await program.application.call('settings.set', { theme: 'dark' });
    expect(await page.evaluate(() => document.cookie)).toBe('');
    expect(problems).toEqual([]);

    const other = await (await browser.newContext()).newPage();
    expect((await other.goto(served.url))?.status()).toBe(403);
  } finally {
    await browser.close();
    await served.close();
    await program.close();
    rmSync(folder, { recursive: true, force: true });
  }
});
