/**
 * @file Files replaced whole: written beside their places, then moved there. What a writer that was killed left behind is cleared away by
 * the next one.
 */
import { randomUUID } from 'node:crypto';
import { type FileHandle, open, readdir, rename, rm } from 'node:fs/promises';
import { hostname } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { EmendError } from '../errors.ts';
import { isDiskFull } from './diskRoom.ts';

/** Writes the whole contents of a new, empty file. */
export type WriteContents = (handle: FileHandle) => Promise<void>;

/**
 * Replaces files, or makes them. A reader sees each as it was or as it becomes, never a part; nothing is replaced before all
 * of them are written out, so that between the first and the last lies no more than a rename. Where they must fit together, one of
 * them holds the digest of the others.
 * @throws EmendError 'conflict' where the disk is full; what else the system, or a writer, refuses with
 */
export async function replaceFiles(
  files: ReadonlyArray<readonly [path: string, WriteContents]>,
): Promise<void> {
  for (const [path] of files) await clearLeftovers(path);
  const drafts: Array<{ draft: string; path: string }> = [];
  try {
    for (const [path, write] of files) {
      const draft = join(dirname(path), `${draftPrefix(path)}${process.pid}-${randomUUID()}.part`);
      drafts.push({ draft, path });
      const handle = await open(draft, 'wx');
      try {
        await write(handle);
        await handle.sync();
      } finally {
        await handle.close();
      }
    }
    for (const { draft, path } of drafts) await rename(draft, path);
  } catch (error) {
    for (const { draft } of drafts) await rm(draft, { force: true });
    if (!isDiskFull(error)) throw error;
    const paths = files.map(([path]) => path).join(' and ');
    throw new EmendError(
      'conflict',
      `The disk is full: ${paths} cannot be written, and what was there is as it was. Make room, then try again.`,
      { cause: error },
    );
  }
}

/** {@link replaceFiles} of one. */
export function replaceFile(path: string, write: WriteContents): Promise<void> {
  return replaceFiles([[path, write]]);
}

/** Drafts say which process of which machine writes them. */
function draftPrefix(path: string): string {
  return `.${basename(path)}.${encodeURIComponent(hostname())}-`;
}

/** Removes drafts of this file whose writers, on this machine, are no more. */
async function clearLeftovers(path: string): Promise<void> {
  const folder = dirname(path);
  const prefix = draftPrefix(path);
  for (const name of await readdir(folder).catch(() => [])) {
    if (!name.startsWith(prefix)) continue;
    const pid = /^(\d+)-[0-9a-f-]{36}\.part$/.exec(name.slice(prefix.length))?.[1];
    if (pid !== undefined && !isRunning(Number(pid))) await rm(join(folder, name), { force: true });
  }
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // There and not ours.
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
