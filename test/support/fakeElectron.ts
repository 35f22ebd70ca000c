/**
 * @file What stands in for the `electron` module in tests: just what main.ts uses, with a real engine process behind
 * `utilityProcess` and a real Chromium page behind `BrowserWindow`. Everything else of the program is the real thing.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { EventEmitter } from 'node:events';
import { readFileSync } from 'node:fs';
import type { BrowserContext, Page } from 'playwright-core';
import type { OperationName, ToEngine } from '../../electron/engine/protocol.ts';

/** Chromium has no `emend:` scheme of ours, so the page lives here, a secure context too; the main side never sees it. */
const ORIGIN = 'http://emend.localhost';
const SCHEME = 'emend://app';

type Handler = (event: unknown, ...args: unknown[]) => unknown;

/** What the tests look at and decide: one run of the app at a time. */
export interface FakeElectronRun {
  readonly context: BrowserContext;
  /** engine entry in place of the real one */
  readonly engineEntry: string | null;
  readonly engines: ChildProcess[];
  /** the operation that is not to be begun: the process that is asked for it first is suspended, and is here then */
  readonly suspended: { operation: OperationName | null; process: ChildProcess | null };
  readonly handlers: Map<string, Handler>;
  readonly windows: FakeBrowserWindow[];
  readonly opened: string[];
  readonly errors: string[];
  readonly preferences: Array<Record<string, unknown>>;
  permission: { request: PermissionRequest | null; check: PermissionCheck | null };
  chosenFolder: string | null;
  sendFile: ((request: Request) => Promise<Response>) | null;
  quit: () => void;
  /** set by the fake when the app has quit */
  ended: boolean;
}
type PermissionRequest = (contents: unknown, permission: string, answer: (allowed: boolean) => void) => void;
type PermissionCheck = (contents: unknown, permission: string) => boolean;

let run: FakeElectronRun;

/** Begins a run: the next import of main.ts belongs to it. */
export function beginRun(begun: FakeElectronRun): void {
  run = begun;
  app.removeAllListeners();
}

class FakeApp extends EventEmitter {
  setName(): void {}
  setPath(): void {}
  enableSandbox(): void {}
  requestSingleInstanceLock(): boolean {
    return true;
  }
  whenReady(): Promise<void> {
    return Promise.resolve();
  }
  quit(): void {
    const event = new Event('before-quit', { cancelable: true });
    this.emit('before-quit', event);
    if (event.defaultPrevented) return;
    run.ended = true;
    run.quit();
  }
  exit(): void {
    run.ended = true;
    run.quit();
  }
}

export class FakeWebContents extends EventEmitter {
  page: Page | null = null;
  openHandler: ((details: { url: string }) => { action: string }) | null = null;

  send(channel: string, message: unknown): void {
    const deliver = ([name, value]: [string, unknown]): void => {
      (globalThis as unknown as { emendDeliver?: (name: string, value: unknown) => void }).emendDeliver?.(
        name,
        value,
      );
    };
    // A page that is just loading or closing misses the message, as in Electron.
    this.page?.evaluate(deliver, [channel, message] as [string, unknown]).catch(() => {});
  }

  setWindowOpenHandler(handler: (details: { url: string }) => { action: string }): void {
    this.openHandler = handler;
  }
}

export class FakeBrowserWindow extends EventEmitter {
  readonly webContents = new FakeWebContents();
  readonly loaded: Promise<Page>;
  #loaded = Promise.withResolvers<Page>();
  readonly #preload: string;

  constructor(options: { webPreferences: { preload: string } }) {
    super();
    this.loaded = this.#loaded.promise;
    this.#preload = readFileSync(options.webPreferences.preload, 'utf8');
    run.preferences.push(options.webPreferences);
    run.windows.push(this);
    app.emit('web-contents-created', {}, this.webContents);
  }

  async loadURL(url: string): Promise<void> {
    const page = await run.context.newPage();
    this.webContents.page = page;
    await page.route(`${ORIGIN}/**`, async (route) => {
      const asked = route.request();
      const request = new Request(asked.url().replace(ORIGIN, SCHEME), { method: asked.method() });
      const response = await run.sendFile?.(request);
      if (!response) return route.abort();
      await route.fulfill({
        status: response.status,
        headers: Object.fromEntries(response.headers),
        body: Buffer.from(await response.arrayBuffer()),
      });
    });
    await page.exposeBinding('emendInvoke', ({ frame }, channel: string, args: unknown[]) => {
      const handler = run.handlers.get(channel);
      if (!handler) throw new Error(`No handler registered for '${channel}'`);
      const senderFrame = { url: frame.url().replace(ORIGIN, SCHEME), parent: frame.parentFrame() };
      return handler({ senderFrame }, ...args);
    });
    await page.addInitScript({
      content: `(${withElectronInPage.toString()})((require) => {${this.#preload}\n});`,
    });
    await page.goto(url.replace(SCHEME, ORIGIN));
    this.#loaded.resolve(page);
    this.emit('ready-to-show');
  }

  async close(): Promise<void> {
    this.emit('close');
    await this.webContents.page?.close();
    this.emit('closed');
    app.emit('window-all-closed');
  }

  show(): void {}
  focus(): void {}
  restore(): void {}
  maximize(): void {}
  isMinimized(): boolean {
    return false;
  }
  isMaximized(): boolean {
    return false;
  }
  isDestroyed(): boolean {
    return this.webContents.page?.isClosed() ?? false;
  }
  getNormalBounds() {
    return { x: 10, y: 20, width: 1200, height: 700 };
  }
}

/** Runs in the page before anything else: the two modules a preload has, over the test's line to the main side. */
function withElectronInPage(preload: (require: (name: string) => unknown) => void): void {
  const page = globalThis as unknown as Record<string, unknown> & {
    emendInvoke: (channel: string, args: unknown[]) => Promise<unknown>;
  };
  const listeners = new Map<string, Set<(event: unknown, message: unknown) => void>>();
  page.emendDeliver = (channel: string, message: unknown): void => {
    for (const listener of listeners.get(channel) ?? []) listener({}, message);
  };
  preload((name) => {
    if (name !== 'electron') throw new Error(`A sandboxed preload cannot load ${name}`);
    return {
      contextBridge: {
        exposeInMainWorld: (key: string, api: unknown) =>
          Object.defineProperty(page, key, { value: Object.freeze(api) }),
      },
      // a page in a browser cannot know: tests say where the files lie that they drop
      webUtils: {
        getPathForFile: ({ name }: File) => (page.emendPaths as Record<string, string>)?.[name] ?? '',
      },
      ipcRenderer: {
        invoke: (channel: string, ...args: unknown[]) => page.emendInvoke(channel, args),
        on: (channel: string, listener: (event: unknown, message: unknown) => void) => {
          listeners.set(channel, (listeners.get(channel) ?? new Set()).add(listener));
        },
        off: (channel: string, listener: (event: unknown, message: unknown) => void) => {
          listeners.get(channel)?.delete(listener);
        },
      },
    };
  });
}

const app = new FakeApp();

export const electron = {
  app,
  BrowserWindow: FakeBrowserWindow,
  Menu: { buildFromTemplate: (template: unknown) => template, setApplicationMenu: () => {} },
  dialog: {
    showErrorBox: (title: string, text: string) => void run.errors.push(`${title}: ${text}`),
    showOpenDialog: async () => ({ filePaths: run.chosenFolder === null ? [] : [run.chosenFolder] }),
  },
  ipcMain: { handle: (channel: string, handler: Handler) => void run.handlers.set(channel, handler) },
  protocol: {
    registerSchemesAsPrivileged: () => {},
    handle: (_scheme: string, handler: (request: Request) => Promise<Response>) => {
      run.sendFile = handler;
    },
  },
  screen: { getAllDisplays: () => [{ workArea: { x: 0, y: 0, width: 1920, height: 1080 } }] },
  session: {
    defaultSession: {
      setPermissionRequestHandler: (handler: PermissionRequest) => {
        run.permission.request = handler;
      },
      setPermissionCheckHandler: (handler: PermissionCheck) => {
        run.permission.check = handler;
      },
    },
  },
  shell: { openExternal: async (url: string) => void run.opened.push(url) },
  utilityProcess: {
    fork: (entry: string) => {
      const isEngine = entry.includes('engineProcess');
      const child = fork((isEngine && run.engineEntry) || entry, [], {
        serialization: 'advanced',
        execArgv: [],
        stdio: ['ignore', 2, 2, 'ipc'],
      });
      if (isEngine) run.engines.push(child);
      return Object.assign(child, {
        postMessage: (message: ToEngine) => {
          const { suspended } = run;
          if (message.kind === 'call' && message.name === suspended.operation) {
            child.kill('SIGSTOP');
            Object.assign(suspended, { operation: null, process: child });
          }
          if (child.connected) child.send(message, () => {});
        },
      });
    },
  },
};
