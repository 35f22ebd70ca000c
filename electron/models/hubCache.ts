/**
 * @file The Hugging Face cache of this machine: which models lie in it, and what Emend can do with each. Reads names, links and headers;
 * changes nothing.
 *
 * A cache holds `models--org--name/snapshots/<commit>/…`, whose files are links into `models--org--name/blobs`.
 */
import { type Dirent, opendirSync } from 'node:fs';
import { lstat, readFile, realpath, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { basename, dirname, isAbsolute, join, relative } from 'node:path';
import { EmendError } from '../errors.ts';
import { openCheckpoint } from './open.ts';

/** Of a cache, so many repositories are looked at, and so many files of each. */
const MOST_REPOSITORIES = 300;
const MOST_FILES = 2_000;
/** A commit's name in `refs`. */
const LONGEST_REF = 200;

export interface FoundModel {
  /** the folder to open */
  readonly path: string;
  /** as on the hub, `org/name` */
  readonly name: string;
  /**
   * `opens`: Emend runs it; `unsupported`: another family or form of weights; `incomplete`: files are missing; `gguf`: another thing;
   * `damaged`: what is there contradicts itself, or leads out of the cache
   */
  readonly state: 'opens' | 'unsupported' | 'incomplete' | 'gguf' | 'damaged';
  /** why it does not open; '' where it does */
  readonly reason: string;
  /** the family's name; null where it does not open */
  readonly family: string | null;
  readonly parameters: number | null;
  readonly dtype: string | null;
  /** of its files */
  readonly bytes: number;
}

export interface FoundModels {
  /** the caches that were looked into, whether or not there is anything */
  readonly caches: readonly string[];
  /** those that open first, then by name */
  readonly models: readonly FoundModel[];
  /** repositories that were not looked at, as there are too many */
  readonly more: number;
}

/** Where the hub's programs keep models here: HF_HUB_CACHE, else HF_HOME/hub, else the usual place. */
export function hubCaches(env: NodeJS.ProcessEnv = process.env, home = homedir()): string[] {
  const named = env['HF_HUB_CACHE'] || env['HUGGINGFACE_HUB_CACHE'];
  const cache = env['XDG_CACHE_HOME'] || join(home, '.cache');
  const usual = join(env['HF_HOME'] || join(cache, 'huggingface'), 'hub');
  return [...new Set([...(named ? [named] : []), usual].map((path) => expandHome(path, home)))];
}

const expandHome = (path: string, home: string): string => path.replace(/^~(?=$|[\\/])/, home);

/** The name people know a model by: `org/name` in a cache, else the folder's own. */
export function nameOfModel(folder: string): string {
  const snapshots = dirname(folder);
  const repository = basename(dirname(snapshots));
  if (basename(snapshots) !== 'snapshots' || !repository.startsWith('models--')) return basename(folder);
  return repository.slice('models--'.length).replace('--', '/');
}

/** Looks through caches. Nothing in them is trusted: what leads out of a cache is told and not followed, and counts are bounded. */
export async function findModels(caches: readonly string[]): Promise<FoundModels> {
  const models: FoundModel[] = [];
  let more = 0;
  for (const cache of caches) {
    const root = await realpath(cache).catch(() => null);
    if (root === null) continue;
    const names = namesIn(root, 10 * MOST_REPOSITORIES).filter((name) => name.startsWith('models--'));
    more += Math.max(0, names.length - MOST_REPOSITORIES);
    for (const name of names.toSorted().slice(0, MOST_REPOSITORIES)) {
      const found = await lookInto(root, join(root, name));
      if (found) models.push(found);
    }
  }
  const order = ({ state }: FoundModel) => (state === 'opens' ? 0 : 1);
  models.sort((one, other) => order(one) - order(other) || one.name.localeCompare(other.name));
  return { caches, models, more };
}

/** Null where nothing was fetched of a repository. */
async function lookInto(root: string, repository: string): Promise<FoundModel | null> {
  const path = await snapshotOf(root, repository);
  if (path === null) return null;
  const about = { path, name: nameOfModel(path), family: null, parameters: null, dtype: null };
  const names = namesIn(path, MOST_FILES + 1);
  if (names.length > MOST_FILES)
    return { ...about, state: 'damaged', reason: `It holds more than ${MOST_FILES} files.`, bytes: 0 };
  let bytes = 0;
  for (const name of names) {
    const file = join(path, name);
    const leads = await realpath(file).catch(() => null);
    if (leads === null) {
      const reason = `${name} leads to a file that is not there: it was not fetched to the end.`;
      return { ...about, state: 'incomplete', reason, bytes };
    }
    if (!isInside(root, leads))
      return {
        ...about,
        state: 'damaged',
        reason: `${name} leads out of the cache and is not followed.`,
        bytes,
      };
    bytes += (await stat(leads)).size;
  }
  if (!names.includes('config.json') && names.some((name) => name.toLowerCase().endsWith('.gguf'))) {
    const reason =
      'GGUF files, which llama.cpp runs and nothing can edit in place. Fetch the same model as safetensors.';
    return { ...about, state: 'gguf', reason, bytes };
  }
  const missing = ['config.json', 'tokenizer.json'].filter((name) => !names.includes(name));
  try {
    if (missing.length > 0) throw new EmendError('not-found', `It lacks ${missing.join(' and ')}.`);
    const { family, backbone, weights } = await openCheckpoint(path);
    const shapes = backbone.tensors();
    const dtypes = new Set([...shapes.keys()].map((name) => weights.find(name)?.dtype ?? '?'));
    const parameters = [...shapes.values()].reduce((sum, shape) => sum + shape.reduce((a, b) => a * b, 1), 0);
    return {
      ...about,
      state: 'opens',
      reason: '',
      family,
      parameters,
      dtype: [...dtypes].sort().join(' and '),
      bytes,
    };
  } catch (error) {
    const { code, message } = error instanceof EmendError ? error : new EmendError('damaged', String(error));
    const state = code === 'unsupported' ? 'unsupported' : code === 'not-found' ? 'incomplete' : 'damaged';
    return { ...about, state, reason: message.replaceAll(`${path}/`, '').replaceAll(path, 'It'), bytes };
  }
}

/** The snapshot that `refs/main` names, else the one fetched last; null without any. */
async function snapshotOf(root: string, repository: string): Promise<string | null> {
  const snapshots = await realpath(join(repository, 'snapshots')).catch(() => null);
  if (snapshots === null || !isInside(root, snapshots)) return null;
  const commits: Array<{ path: string; changed: number }> = [];
  for (const name of namesIn(snapshots, 100)) {
    const path = join(snapshots, name);
    // A snapshot is a folder of its own, never a link to one.
    const stats = await lstat(path).catch(() => null);
    if (stats?.isDirectory()) commits.push({ path, changed: stats.mtimeMs });
  }
  const main = await readRef(root, join(repository, 'refs', 'main'));
  const named = commits.find(({ path }) => basename(path) === main);
  return (named ?? commits.toSorted((one, other) => other.changed - one.changed)[0])?.path ?? null;
}

async function readRef(root: string, path: string): Promise<string | null> {
  try {
    const real = await realpath(path);
    const stats = await stat(real);
    if (!isInside(root, real) || !stats.isFile() || stats.size > LONGEST_REF) return null;
    return (await readFile(real, 'utf8')).trim();
  } catch {
    return null;
  }
}

/** Names in a folder, `most` at most; none where it cannot be read. */
function namesIn(folder: string, most: number): string[] {
  const names: string[] = [];
  try {
    const entries = opendirSync(folder);
    try {
      for (
        let entry: Dirent | null = entries.readSync();
        entry && names.length < most;
        entry = entries.readSync()
      )
        names.push(entry.name);
    } finally {
      entries.closeSync();
    }
  } catch {
    // What cannot be read has nothing for us.
  }
  return names;
}

function isInside(root: string, path: string): boolean {
  const way = relative(root, path);
  return way !== '' && !way.startsWith('..') && !isAbsolute(way);
}
