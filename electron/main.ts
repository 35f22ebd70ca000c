/** @file The desktop shell: one window, its menu, its own protocol, and the line between the page and the application. */
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import {
  app,
  BrowserWindow,
  dialog,
  type IpcMainInvokeEvent,
  ipcMain,
  Menu,
  type MenuItemConstructorOptions,
  protocol,
  screen,
  session,
  shell,
} from 'electron';
import { wireError } from './api/router.ts';
import { pictureDecoder } from './files/pictureDecoder.ts';
import { readPageFile } from './frontends/pageFiles.ts';
import { dataFolder, defaultLibrary, pageFolder, projectFolder } from './frontends/places.ts';
import { type Program, startProgram } from './frontends/program.ts';
import { loadWindowState, MINIMUM, saveWindowState } from './frontends/windowState.ts';
import { utilityEngine, utilityPictureProcess } from './utilityEngine.ts';

const PAGE = 'emend://app/';
const windowStateFile = join(dataFolder(), 'window.json');

let window: BrowserWindow | null = null;
let program: Program | null = null;
let closing = false;

app.setName('Emend');
// Chromium's own files beside the libraries, not among them.
app.setPath('userData', join(dataFolder(), 'window'));
app.enableSandbox();
protocol.registerSchemesAsPrivileged([
  { scheme: 'emend', privileges: { standard: true, secure: true, supportFetchAPI: true, codeCache: true } },
]);

// One window for all libraries; what a second start asks for, the first one hears.
if (app.requestSingleInstanceLock({ library: libraryAsked() })) void start();
else app.quit();

async function start(): Promise<void> {
  app.on('second-instance', (_event, _arguments, _folder, asked) => {
    if (window?.isMinimized()) window.restore();
    window?.focus();
    const library = (asked as { library?: unknown } | null)?.library;
    if (!window || typeof library !== 'string' || library === libraryAsked()) return;
    void dialog.showMessageBox(window, {
      type: 'info',
      message: 'Another library is open in this window.',
      detail: `Open here: ${libraryAsked()}\nAsked for: ${library}\n\nClose this window, then open the other one.`,
    });
  });
  app.on('web-contents-created', (_event, contents) => confine(contents));
  app.on('window-all-closed', () => app.quit());
  app.on('before-quit', (event) => {
    if (!program) return;
    event.preventDefault();
    if (closing) return;
    closing = true;
    void program.close().finally(() => {
      program = null;
      app.quit();
    });
  });

  await app.whenReady();
  session.defaultSession.setPermissionRequestHandler((_contents, permission, answer) =>
    answer(isAllowed(permission)),
  );
  session.defaultSession.setPermissionCheckHandler((_contents, permission) => isAllowed(permission));
  protocol.handle('emend', sendPageFile);
  Menu.setApplicationMenu(Menu.buildFromTemplate(menu()));

  pictureDecoder.launchWith(utilityPictureProcess);
  try {
    program = await startProgram({ library: libraryArgument(), launch: utilityEngine });
  } catch (error) {
    dialog.showErrorBox('Emend cannot start', wireError(error).message);
    app.exit(1);
    return;
  }
  const { application } = program;
  ipcMain.handle('emend:call', async (event, name: unknown, input: unknown, job: unknown) => {
    demandOwnPage(event);
    try {
      const options = typeof job === 'string' ? { job } : {};
      return { output: await application.dispatch(String(name), input, options) };
    } catch (error) {
      return { error: wireError(error) };
    }
  });
  ipcMain.handle('emend:choose-folder', async (event) => {
    demandOwnPage(event);
    if (!window) return null;
    const chosen = await dialog.showOpenDialog(window, { properties: ['openDirectory'] });
    return chosen.filePaths[0] ?? null;
  });
  application.onAny((event) => {
    if (window && !window.isDestroyed()) window.webContents.send('emend:event', event);
  });
  void application.endpoint.startAsSet();
  openWindow();
}

function openWindow(): void {
  const { bounds, maximized } = loadWindowState(
    windowStateFile,
    screen.getAllDisplays().map((display) => display.workArea),
  );
  const opened = new BrowserWindow({
    ...(bounds ?? { width: 1280, height: 800 }),
    minWidth: MINIMUM.width,
    minHeight: MINIMUM.height,
    show: false,
    title: 'Emend',
    webPreferences: {
      preload: join(projectFolder, 'dist', 'preload.cjs'),
      sandbox: true,
      contextIsolation: true,
      nodeIntegration: false,
      webviewTag: false,
      spellcheck: false,
    },
  });
  window = opened;
  if (maximized) opened.maximize();
  opened.once('ready-to-show', () => opened.show());
  opened.on('close', () => {
    saveWindowState(windowStateFile, { bounds: opened.getNormalBounds(), maximized: opened.isMaximized() });
  });
  opened.on('closed', () => {
    window = null;
  });
  void opened.loadURL(PAGE);
}

/** A page stays where it is; links to the web open in the person's browser. */
function confine(contents: Electron.WebContents): void {
  contents.on('will-navigate', (event) => event.preventDefault());
  contents.on('will-redirect', (event) => event.preventDefault());
  contents.on('will-attach-webview', (event) => event.preventDefault());
  contents.setWindowOpenHandler(({ url }) => {
    if (URL.parse(url)?.protocol === 'https:') void shell.openExternal(url);
    return { action: 'deny' };
  });
}

/** Of all a page may ask for, ours copies text. */
function isAllowed(permission: string): boolean {
  return permission === 'clipboard-sanitized-write';
}

async function sendPageFile(request: Request): Promise<Response> {
  const { host, pathname } = new URL(request.url);
  const file = host === 'app' && request.method === 'GET' ? await readPageFile(pageFolder, pathname) : null;
  return file
    ? new Response(file.body, { headers: file.headers })
    : new Response('Not here', { status: 404 });
}

/** Only the page itself is answered, never a frame that something smuggled into it. */
function demandOwnPage(event: IpcMainInvokeEvent): void {
  const own = event.senderFrame?.url.startsWith(PAGE) && event.senderFrame.parent === null;
  if (!own) throw new Error('Only the page of Emend is answered.');
}

/** The library this start is for. */
function libraryAsked(): string {
  return resolve(libraryArgument() ?? defaultLibrary());
}

function libraryArgument(): string | undefined {
  const { values } = parseArgs({
    args: process.argv.slice(1),
    options: { library: { type: 'string' } },
    strict: false,
  });
  return typeof values.library === 'string' ? values.library : undefined;
}

function menu(): MenuItemConstructorOptions[] {
  const mac = process.platform === 'darwin';
  return [
    ...(mac ? [{ role: 'appMenu' as const }] : []),
    { label: 'File', submenu: [{ role: mac ? 'close' : 'quit' }] },
    { role: 'editMenu' },
    {
      label: 'View',
      submenu: [
        { role: 'reload' },
        { role: 'toggleDevTools' },
        { type: 'separator' },
        { role: 'resetZoom' },
        { role: 'zoomIn' },
        { role: 'zoomOut' },
        { type: 'separator' },
        { role: 'togglefullscreen' },
      ],
    },
    { role: 'windowMenu' },
  ];
}
