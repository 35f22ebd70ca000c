import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import type { Backend, EngineState } from '../../electron/api/contract.ts';
import { openBrowser } from '../support/browser.ts';
import { type Desktop, launchDesktop } from '../support/electronHarness.ts';

vi.mock('electron', async () => (await import('../support/fakeElectron.ts')).electron);

/** What the preload puts on the page. */
type Page = { emend: Backend & { chooseFolder(): Promise<string | null> }; seen: EngineState[] };

const home = mkdtempSync(join(tmpdir(), 'emend-home-'));
const engine = join(import.meta.dirname, '../engine/plainEngine.ts');
let browser: Browser;
let desktop: Desktop;

beforeAll(async () => {
  browser = await openBrowser();
  desktop = await launchDesktop({ browser, home, engine });
});

afterAll(async () => {
  if (!desktop.run.ended) await desktop.quit();
  await browser.close();
  rmSync(home, { recursive: true, force: true });
});

const status = () =>
  desktop.page.evaluate(() => (globalThis as unknown as Page).emend.call('app.status', {}));

describe('the window', () => {
  test('is sandboxed and isolated, and shows the page with nothing refused', async () => {
    expect(desktop.run.preferences).toMatchObject([
      { sandbox: true, contextIsolation: true, nodeIntegration: false },
    ]);
    await desktop.page.getByRole('button').first().waitFor();
    expect(desktop.problems).toEqual([]);
  });

  test('gets its files from the own protocol, with a content security policy, and nothing beside them', async () => {
    const ask = (path: string, init?: RequestInit) =>
      desktop.run.sendFile!(new Request(`emend://${path}`, init));
    const page = await ask('app/');
    expect(page.headers.get('content-security-policy')).toContain("default-src 'none'");
    for (const path of ['app/..%2f..%2fpackage.json', 'app/%2e%2e/main.js', 'other/', 'app/missing.js']) {
      expect((await ask(path)).status).toBe(404);
    }
    expect((await ask('app/', { method: 'POST' })).status).toBe(404);
  });

  test('stays where it is: only https links open, and outside', () => {
    const contents = desktop.window.webContents;
    for (const url of [
      'https://example.org/',
      'http://example.org/',
      'file:///etc/passwd',
      'emend://app/',
      'nonsense',
    ]) {
      expect(contents.openHandler?.({ url })).toEqual({ action: 'deny' });
    }
    expect(desktop.run.opened).toEqual(['https://example.org/']);
    for (const name of ['will-navigate', 'will-redirect', 'will-attach-webview']) {
      const event = new Event(name, { cancelable: true });
      contents.emit(name, event);
      expect(event.defaultPrevented).toBe(true);
    }
  });

  test('is refused every permission but copying text', () => {
    const asked = [
      'media',
      'geolocation',
      'notifications',
      'clipboard-read',
      'clipboard-sanitized-write',
      'usb',
    ];
    const { request, check } = desktop.run.permission;
    expect(asked.filter((permission) => check?.(null, permission))).toEqual(['clipboard-sanitized-write']);
    const allowed = asked.filter((permission) => {
      let answer = false;
      request?.(null, permission, (given) => {
        answer = given;
      });
      return answer;
    });
    expect(allowed).toEqual(['clipboard-sanitized-write']);
  });
});

describe('the preload', () => {
  test('exposes the contract, the folder dialog and where files lie, and nothing else', async () => {
    const names = await desktop.page.evaluate(() =>
      Object.keys((globalThis as unknown as Page).emend).sort(),
    );
    expect(names).toEqual(['call', 'chooseFolder', 'on', 'pathOf']);
    desktop.run.chosenFolder = '/models/mine';
    expect(await desktop.page.evaluate(() => (globalThis as unknown as Page).emend.chooseFolder())).toBe(
      '/models/mine',
    );
  });

  test('carries results, and errors with their code', async () => {
    expect(await status()).toMatchObject({ library: { name: 'library' } });
    const error = await desktop.page.evaluate(() =>
      (globalThis as unknown as Page).emend.call('edits.show', { id: 77 }).catch((thrown: unknown) => thrown),
    );
    expect(error).toEqual({
      code: expect.stringMatching(/^[a-z-]+$/),
      message: expect.stringContaining('77'),
    });
    const unknown = await desktop.page.evaluate(() =>
      (globalThis as unknown as Page).emend
        .call('app.quit' as 'app.status', {})
        .catch((thrown: unknown) => thrown),
    );
    expect(unknown).toMatchObject({ code: 'invalid-input' });
  });

  test('is answered for the page alone', async () => {
    const call = desktop.run.handlers.get('emend:call')!;
    const frames = [
      { url: 'https://evil.example/', parent: null },
      { url: 'emend://app.evil.example/', parent: null },
      { url: 'emend://app/', parent: {} },
    ];
    for (const senderFrame of frames)
      await expect(call({ senderFrame }, 'app.status', {})).rejects.toThrow(/Only the page/);
  });
});

test('an engine that is killed is replaced, and the page stays usable and hears of it', async () => {
  const { page } = desktop;
  await vi.waitFor(async () => expect((await status()).engine.state).toBe('ready'), 20_000);
  await page.evaluate(() => {
    const self = globalThis as unknown as Page;
    self.seen = [];
    self.emend.on('app.status', ({ engine }) => self.seen.push(engine));
  });
  const before = desktop.engine().pid!;
  process.kill(before, 'SIGKILL');
  await page.waitForFunction(() =>
    (globalThis as unknown as Page).seen.some(({ state }) => state === 'restarting'),
  );
  expect(
    await page.evaluate(() => (globalThis as unknown as Page).emend.call('edits.find', {})),
  ).toMatchObject({
    total: 0,
  });
  await page.waitForFunction(() => (globalThis as unknown as Page).seen.at(-1)?.state === 'ready');
  const told = await page.evaluate(() =>
    (globalThis as unknown as Page).seen.find(({ state }) => state === 'restarting'),
  );
  expect(told?.message).toMatch(/ended unexpectedly/);
  expect(desktop.engine().pid).not.toBe(before);
});

test('closing the window ends the engine, and the library and the window come back as they were', async () => {
  await desktop.page.evaluate(() =>
    (globalThis as unknown as Page).emend.call('settings.set', { theme: 'dark' }),
  );
  const child = desktop.engine();
  await desktop.quit();
  expect(desktop.run.ended).toBe(true);
  expect(child.exitCode ?? child.signalCode).not.toBeNull();
  const state = join(process.env.XDG_DATA_HOME!, 'emend', 'window.json');
  if (process.platform === 'linux') {
    expect(existsSync(state)).toBe(true);
    expect(JSON.parse(readFileSync(state, 'utf8'))).toMatchObject({ bounds: { width: 1200 } });
  }
  desktop = await launchDesktop({ browser, home, engine });
  const settings = await desktop.page.evaluate(() =>
    (globalThis as unknown as Page).emend.call('settings.get', {}),
  );
  expect(settings.theme).toBe('dark');
});
