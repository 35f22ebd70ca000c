/**
 * @file The desktop app in a test: the real main.ts, preload and page, in a real Chromium, with only `electron` replaced.
 * A test file that uses it begins with `vi.mock('electron', async () => (await import('../support/fakeElectron.ts')).electron)`.
 */
import type { ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import type { Browser, Page } from 'playwright-core';
import { beginRun, type FakeBrowserWindow, type FakeElectronRun } from './fakeElectron.ts';

export interface Desktop {
  readonly page: Page;
  readonly window: FakeBrowserWindow;
  readonly run: FakeElectronRun;
  /** errors of the page: uncaught ones, and what its content security policy refused */
  readonly problems: string[];
  /** the engine process that was started last */
  engine(): ChildProcess;
  /** Closes the window as a person would, and waits until everything has ended. */
  quit(): Promise<void>;
}

export interface DesktopOptions {
  readonly browser: Browser;
  /** stands for the person's home: libraries and window state are in it */
  readonly home: string;
  /** engine entry in place of the real one */
  readonly engine?: string;
  readonly size?: { width: number; height: number };
}

let launches = 0;

/** Starts the app and waits for its page. One at a time. */
export async function launchDesktop(options: DesktopOptions): Promise<Desktop> {
  process.env.HOME = options.home;
  process.env.XDG_DATA_HOME = join(options.home, 'data');
  process.env.APPDATA = join(options.home, 'data');
  const context = await options.browser.newContext({
    viewport: options.size ?? { width: 1280, height: 800 },
  });
  const problems: string[] = [];
  context.on('weberror', (error) => problems.push(error.error().message));
  context.on('console', (message) => {
    if (message.type() === 'error') problems.push(message.text());
  });
  const quit = Promise.withResolvers<void>();
  const run: FakeElectronRun = {
    context,
    engineEntry: options.engine ?? null,
    engines: [],
    suspended: { operation: null, process: null },
    handlers: new Map(),
    windows: [],
    opened: [],
    errors: [],
    preferences: [],
    permission: { request: null, check: null },
    chosenFolder: null,
    sendFile: null,
    quit: quit.resolve,
    ended: false,
  };
  beginRun(run);
  // Its own copy each time, as a new process would have; the modules below it keep no state.
  await import(
    /* @vite-ignore */ `${join(import.meta.dirname, '../../electron/main.ts')}?launch=${++launches}`
  );
  const window = await appeared(run);
  const page = await window.loaded;
  return {
    page,
    window,
    run,
    problems,
    engine: () => run.engines.at(-1)!,
    quit: async () => {
      await window.close();
      await quit.promise;
      await context.close();
    },
  };
}

async function appeared(run: FakeElectronRun): Promise<FakeBrowserWindow> {
  for (let tries = 0; tries < 600; tries++) {
    if (run.errors.length > 0) throw new Error(run.errors.join('\n'));
    const [window] = run.windows;
    if (window) return window;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error('The app opened no window.');
}
