/**
 * @file The app as a person has it, to be started, broken and started again in a test: in a browser through `serve`, and in
 * the window through the Electron harness. Everything in it is real: engine process, model, library, page.
 * A test file that uses it begins with `vi.mock('electron', async () => (await import('../support/fakeElectron.ts')).electron)`.
 */
import { join } from 'node:path';
import type { Browser, BrowserContextOptions, Page } from 'playwright-core';
import { forkEngine } from '../../electron/engine/forkEngine.ts';
import type { EngineProcess } from '../../electron/engine/supervisor.ts';
import { pageFolder } from '../../electron/frontends/places.ts';
import { startProgram } from '../../electron/frontends/program.ts';
import { serve } from '../../electron/serve.ts';
import { launchDesktop } from './electronHarness.ts';

export interface RunningApp {
  readonly page: Page;
  /** what the page complained of: uncaught errors, console errors, refusals of its content security policy */
  readonly problems: string[];
  /** Ends the engine process as a crash does. */
  killEngine(): void;
  /** Lets nothing reach the engine until what it gives back is called, so that what runs goes on running. */
  holdEngine(): () => void;
  quit(): Promise<void>;
}

/** Starts the app on the library kept in `home`. */
export type StartApp = (browser: Browser, home: string, look?: BrowserContextOptions) => Promise<RunningApp>;

const size = { width: 1280, height: 800 };
/** The longest a page is waited for, in milliseconds: it may be waiting for a model that is loading on a busy machine. */
const PATIENCE = 60_000;

export const startServed: StartApp = async (browser, home, look = {}) => {
  let engine: EngineProcess | null = null;
  let held: Array<() => void> | null = null;
  const program = await startProgram({
    library: join(home, 'library.emend'),
    launch: () => {
      const forked = forkEngine();
      engine = forked;
      return {
        ...forked,
        send: (message) => {
          if (held) held.push(() => forked.send(message));
          else forked.send(message);
        },
      };
    },
  });
  const served = await serve({ application: program.application, page: pageFolder, port: 0 });
  const context = await browser.newContext({ viewport: size, ...look });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  const problems: string[] = [];
  page.on('pageerror', (error) => problems.push(error.message));
  page.on('console', (message) => message.type() === 'error' && problems.push(message.text()));
  await page.goto(served.url);
  return {
    page,
    problems,
    killEngine: () => engine?.kill(),
    holdEngine: () => {
      held = [];
      return () => {
        const waiting = held ?? [];
        held = null;
        for (const send of waiting) send();
      };
    },
    quit: async () => {
      await context.close();
      await served.close();
      await program.close();
    },
  };
};

export const startDesktop: StartApp = async (browser, home) => {
  const desktop = await launchDesktop({ browser, home, size });
  desktop.page.setDefaultTimeout(PATIENCE);
  return {
    page: desktop.page,
    problems: desktop.problems,
    killEngine: () => void desktop.engine().kill('SIGKILL'),
    holdEngine: () => {
      const engine = desktop.engine();
      engine.kill('SIGSTOP');
      return () => void engine.kill('SIGCONT');
    },
    quit: () => desktop.quit(),
  };
};
