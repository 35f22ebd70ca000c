/** @file `npm start`: builds what is stale, opens the desktop app, and serves the page instead where that cannot be. */
import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { buildStale } from './build.ts';
import { EmendError } from './errors.ts';
import { projectFolder } from './frontends/places.ts';
import { parsePort, serveUntilStopped } from './frontends/serveProgram.ts';

const electronFolder = join(projectFolder, 'node_modules', 'electron');
/** Milliseconds to find out whether the place Electron is downloaded from answers. */
const REACH = 4_000;
const DOWNLOAD = 10 * 60_000;
/** An Electron that fails sooner than this never showed a window: a library is missing, or the sandbox is refused. */
const EARLY = 5_000;

/** Why there is no window, as a sentence; null when it was opened and closed again. */
async function openWindow(library: string | undefined): Promise<string | null> {
  const { platform, env } = process;
  if (platform === 'linux' && !env.DISPLAY && !env.WAYLAND_DISPLAY) return 'There is no display here.';
  const binary = electronBinary() ?? (await downloadElectron());
  if (!binary) return 'Electron is not installed and cannot be downloaded here.';
  await buildStale(['page', 'main', 'preload']);

  const started = Date.now();
  const child = spawn(binary, [projectFolder, ...(library ? [`--library=${library}`] : [])], {
    stdio: 'inherit',
  });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => child.kill(signal));
  const failure = await new Promise<string | null>((done) => {
    child.on('error', (error) => done(error.message));
    child.on('exit', (code, signal) => done(code ? `exit code ${code}` : signal && `signal ${signal}`));
  });
  if (failure && Date.now() - started < EARLY) return `Electron does not start here (${failure}).`;
  process.exitCode = failure ? 1 : 0;
  return null;
}

/** The binary Electron's npm package fetched at an earlier start. */
function electronBinary(): string | null {
  const name = join(electronFolder, 'path.txt');
  if (!existsSync(name)) return null;
  const binary = join(electronFolder, 'dist', readFileSync(name, 'utf8').trim());
  return existsSync(binary) ? binary : null;
}

/** Runs Electron's own download where its source answers within seconds. */
async function downloadElectron(): Promise<string | null> {
  const script = join(electronFolder, 'install.js');
  if (!existsSync(script)) return null;
  const source =
    process.env.ELECTRON_MIRROR ?? process.env.npm_config_electron_mirror ?? 'https://github.com';
  try {
    await fetch(source, { method: 'HEAD', redirect: 'manual', signal: AbortSignal.timeout(REACH) });
  } catch {
    return null;
  }
  console.log('Downloading Electron, this once (some 120 MB) …');
  const child = spawn(process.execPath, [script], {
    stdio: ['ignore', 'inherit', 'ignore'],
    timeout: DOWNLOAD,
  });
  await new Promise((done) => child.on('close', done).on('error', done));
  return electronBinary();
}

try {
  const { values } = parseArgs({
    options: { serve: { type: 'boolean' }, library: { type: 'string' }, port: { type: 'string' } },
  });
  const library = values.library === undefined ? undefined : resolve(values.library);
  const port = parsePort(values.port ?? '0');
  const reason = values.serve ? 'Emend is served.' : await openWindow(library);
  if (reason !== null) {
    await buildStale(['page']);
    await serveUntilStopped({
      library,
      port,
      because: values.serve ? reason : `${reason} Emend is served instead.`,
    });
  }
} catch (error) {
  const known = error instanceof EmendError || (error instanceof Error && 'code' in error);
  console.error(known ? `emend: ${error.message}` : error);
  process.exitCode = 1;
}
