/** @file Where things lie: what ships with the app, and what is the person's own. */
import { existsSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';

/** The folder of package.json: three up from here in the sources, one up from a bundle in dist/. */
export const projectFolder = import.meta.filename.endsWith('.ts')
  ? join(import.meta.dirname, '..', '..')
  : join(import.meta.dirname, '..');

/** The built page. */
export const pageFolder = join(projectFolder, 'dist', 'renderer');

/** Demo model, adapters and pictures: beside the program's archive once it is packaged, else in the project. */
export function resourcesFolder(): string {
  // Only Electron has `resourcesPath`, and only a packaged app has our folder there.
  const { resourcesPath } = process as { resourcesPath?: string };
  const packaged = resourcesPath ? join(resourcesPath, 'resources') : null;
  return packaged && existsSync(packaged) ? packaged : join(projectFolder, 'resources');
}

/** Version of this Emend, from package.json. */
export function version(): string {
  const manifest = JSON.parse(readFileSync(join(projectFolder, 'package.json'), 'utf8')) as {
    version: string;
  };
  return manifest.version;
}

/** The person's own folder for Emend, the same for every front end. */
export function dataFolder(
  env: NodeJS.ProcessEnv = process.env,
  platform: string = process.platform,
): string {
  if (platform === 'win32') return join(env.APPDATA ?? join(homedir(), 'AppData', 'Roaming'), 'Emend');
  if (platform === 'darwin') return join(homedir(), 'Library', 'Application Support', 'Emend');
  return join(env.XDG_DATA_HOME || join(homedir(), '.local', 'share'), 'emend');
}

/** Where packed weights are kept unless the settings say otherwise. */
export const packedFolder = (): string => join(dataFolder(), 'packed');

/** Where trainings keep what frozen models make of pictures. */
export const pictureCacheFolder = (): string => join(dataFolder(), 'picture-cache');

/** The library that is opened when nobody names another. */
export function defaultLibrary(): string {
  return join(dataFolder(), 'library.emend');
}
