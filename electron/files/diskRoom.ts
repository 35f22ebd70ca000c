/**
 * @file Room on a disk: looked for before something long begins, and told of where it ran out.
 */
import { statfs } from 'node:fs/promises';
import { EmendError } from '../errors.ts';

/** Bytes left free on a disk, for others. */
const SPARE = 64 * 1024 * 1024;

/** Whether writing failed because the disk, or what a person may have of it, is full. */
export function isDiskFull(error: unknown): boolean {
  const { code } = (error ?? {}) as { code?: unknown };
  return code === 'ENOSPC' || code === 'EDQUOT';
}

/** Bytes that could be written into a folder with something left free. */
export async function roomIn(folder: string): Promise<number> {
  const { bavail, bsize } = await statfs(folder);
  return bavail * bsize - SPARE;
}

/** @throws EmendError 'conflict' where `bytes` do not fit into a folder; `what` is told to take them, such as “The training” */
export async function demandRoom(folder: string, bytes: number, what: string): Promise<void> {
  const room = await roomIn(folder);
  if (bytes <= room) return;
  throw new EmendError(
    'conflict',
    `${what} takes up to ${sizeOf(bytes)} in ${folder}, and its disk has ${sizeOf(Math.max(0, room))} to spare. Make room on it, then begin again.`,
  );
}

const sizeOf = (bytes: number) =>
  bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : `${Math.ceil(bytes / 1e6)} MB`;
