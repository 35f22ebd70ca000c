/**
 * @file Changes of weights written out: a copy of the checkpoint that has them, or the changes alone.
 */
import { randomBytes } from 'node:crypto';
import {
  constants,
  copyFile,
  type FileHandle,
  link,
  mkdir,
  open,
  readdir,
  realpath,
  rename,
  rm,
  stat,
} from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { EmendError } from '../errors.ts';
import {
  floatsFromBytes,
  floatToBfloat,
  floatToHalf,
  type WritableTensor,
  writeSafetensors,
} from '../files/safetensors.ts';
import type { WeightDtype, WeightLocation } from './checkpoint.ts';
import type { Checkpoint } from './open.ts';
import { matrixOf, type WeightChanges } from './weightChanges.ts';

/** What is added to one tensor of the files. */
interface Delta {
  /** the tensor's name in its file */
  readonly name: string;
  readonly at: WeightLocation;
  /** row by row, as the tensor */
  readonly added: Float32Array;
}

export interface ExportOptions {
  readonly signal?: AbortSignal;
  /** files written of so many */
  readonly progress?: (done: number, total: number) => void;
}

/** @throws EmendError 'unsupported' for what a tensor of the checkpoint cannot hold */
function deltasOf({ weights, backbone }: Checkpoint, changes: WeightChanges): Delta[] {
  const places = new Map<string, string[]>();
  for (const name of backbone.tensors().keys()) {
    const at = weights.find(name);
    if (at) places.set(`${at.path} ${at.offset}`, [...(places.get(`${at.path} ${at.offset}`) ?? []), name]);
  }
  return [...changes].map(([changed, change]): Delta => {
    if ('values' in change)
      throw new EmendError(
        'unsupported',
        `These edits add neurons beside ${changed}, and the checkpoint’s form has no place for them.`,
      );
    const vector = 'added' in change;
    const name = vector ? changed : `${changed}.weight`;
    const [at, entry] = [weights.find(name), weights.entry(name)];
    if (!at || !entry) throw new EmendError('internal', `The checkpoint has no tensor ${name} to change.`);
    const sharing = places.get(`${at.path} ${at.offset}`)?.find((other) => other !== name);
    if (sharing)
      throw new EmendError(
        'unsupported',
        `${name} and ${sharing} are one tensor of the checkpoint, and these edits change only the first.`,
      );
    const added = vector ? change.added : matrixOf(change).matrix;
    if (added.length !== at.shape.reduce((a, b) => a * b, 1))
      throw new EmendError('internal', `The change of ${name} is not of its size.`);
    return { name: entry.name, at, added };
  });
}

/** The changes alone, as safetensors: what is added to each tensor, in F32, under the tensor's name in the checkpoint's files. */
export async function writeWeightDelta(
  checkpoint: Checkpoint,
  changes: WeightChanges,
  file: string,
  metadata: Readonly<Record<string, string>>,
): Promise<void> {
  const tensors = new Map<string, WritableTensor>();
  for (const { name, at, added } of deltasOf(checkpoint, changes))
    tensors.set(name, { dtype: 'F32', shape: [...at.shape], data: added });
  await mkdir(dirname(file), { recursive: true });
  await writeSafetensors(file, tensors, { ...metadata });
}

/**
 * Writes a checkpoint folder with the changes in it, in the dtype each tensor has: other programs open it as they open the original.
 * Files without a change are not written anew but linked to the original's, or copied where links are not to be had.
 * Whole or not at all: `folder` is there when everything in it is.
 * @throws EmendError 'conflict' where `folder` is there already, 'unsupported' for what the checkpoint cannot hold, 'cancelled'
 */
export async function writeEditedCheckpoint(
  checkpoint: Checkpoint,
  changes: WeightChanges,
  folder: string,
  { signal, progress }: ExportOptions = {},
): Promise<{ readonly written: readonly string[]; readonly linked: readonly string[] }> {
  if (await stat(folder).catch(() => null))
    throw new EmendError(
      'conflict',
      `${folder} is there already. Give the folder of a checkpoint that is to be made.`,
    );
  const deltas = deltasOf(checkpoint, changes);
  for (const [name, { path }] of checkpoint.files) {
    if (name.endsWith('.pth') && deltas.some(({ at }) => at.path === path))
      throw new EmendError(
        'unsupported',
        `These edits change ${name}, an archive that Emend reads and does not write. Export the changes alone.`,
      );
  }
  const part = `${folder}.${randomBytes(4).toString('hex')}.part`;
  const [written, linked]: [string[], string[]] = [[], []];
  try {
    const entries = await readdir(checkpoint.folder, { recursive: true, withFileTypes: true });
    const files: string[] = [];
    for (const entry of entries) {
      const path = join(entry.parentPath, entry.name);
      // Links of a snapshot lead to files, and are taken as these.
      if ((await stat(path)).isFile()) files.push(relative(checkpoint.folder, path));
    }
    for (const [place, name] of files.entries()) {
      if (signal?.aborted)
        throw new EmendError('cancelled', 'Writing the checkpoint was stopped; nothing of it is kept.');
      progress?.(place, files.length);
      const [from, to] = [await realpath(join(checkpoint.folder, name)), join(part, name)];
      await mkdir(dirname(to), { recursive: true });
      const own = deltas.filter(({ at }) => at.path === from);
      if (own.length > 0) {
        await copyFile(from, to, constants.COPYFILE_FICLONE);
        await add(to, own);
        written.push(name);
      } else {
        await link(from, to).catch(() => copyFile(from, to, constants.COPYFILE_FICLONE));
        linked.push(name);
      }
    }
    progress?.(files.length, files.length);
    await rename(part, folder);
    return { written, linked };
  } catch (cause) {
    await rm(part, { recursive: true, force: true });
    const { code } = cause as NodeJS.ErrnoException;
    if (code === 'ENOSPC' || code === 'EACCES' || code === 'EROFS' || code === 'EPERM')
      throw new EmendError('invalid-input', `${folder} cannot be written (${code}). Nothing of it is kept.`, {
        cause,
      });
    throw cause;
  }
}

/** Elements read and written at once. */
const AT_ONCE = 4 * 1024 * 1024;
const bytesOf: Readonly<Record<WeightDtype, number>> = { F32: 4, F16: 2, BF16: 2 };

async function add(path: string, deltas: readonly Delta[]): Promise<void> {
  const file = await open(path, 'r+');
  try {
    for (const delta of deltas) await addTensor(file, delta);
    await file.sync();
  } finally {
    await file.close();
  }
}

async function addTensor(file: FileHandle, { at, added }: Delta): Promise<void> {
  const size = bytesOf[at.dtype];
  for (let first = 0; first < added.length; first += AT_ONCE) {
    const count = Math.min(AT_ONCE, added.length - first);
    const bytes = new Uint8Array(count * size);
    await file.read(bytes, 0, bytes.length, at.offset + first * size);
    const values = floatsFromBytes(bytes, at.dtype);
    for (let i = 0; i < count; i++) values[i]! += added[first + i]!;
    const out =
      at.dtype === 'F32' ? values : at.dtype === 'F16' ? floatToHalf(values) : floatToBfloat(values);
    await file.write(
      new Uint8Array(out.buffer, out.byteOffset, out.byteLength),
      0,
      bytes.length,
      at.offset + first * size,
    );
  }
}
