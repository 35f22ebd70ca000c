/** @file The folder of packed weights: what is in it, how much it may hold, what makes room when it is full. */
import { mkdir, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { EmendError } from '../../errors.ts';
import { openSafetensors } from '../../files/safetensors.ts';
import { fingerprint, type WeightSource } from '../checkpoint.ts';
import type { Checkpoint } from '../open.ts';
import { openPacked, type PackingWork, packedBytes, writePacked } from './file.ts';
import { type PackedForm, weightForms } from './form.ts';

/** Where packed weights are kept, and how many bytes they may take together. */
export interface PackedCache {
  readonly folder: string;
  readonly limitBytes: number;
}

export interface PackedEntry {
  /** of the file in the folder */
  readonly name: string;
  readonly bytes: number;
  /** name of the checkpoint's folder it was made of; '' where the file does not say */
  readonly model: string;
  /** fingerprint of that checkpoint; '' for a file that is damaged */
  readonly source: string;
  readonly form: PackedForm;
  /** ISO 8601 */
  readonly used: string;
}

/** Name of the file of a checkpoint, by its fingerprint. */
export const packedName = (source: string, form: PackedForm) => `${source.slice(0, 32)}-${form}.safetensors`;
const NAME = /^[0-9a-f]{32}-(8bit|4bit)\.safetensors$/;

/** What the folder holds, used last first. Other files in it are not looked at. */
export async function listPacked(folder: string): Promise<PackedEntry[]> {
  const entries: PackedEntry[] = [];
  for (const name of await readdir(folder).catch(() => [])) {
    const form = weightForms.find((each) => each === NAME.exec(name)?.[1]);
    if (!form || form === 'dense') continue;
    const found = await stat(join(folder, name)).catch(() => null);
    if (!found) continue;
    const said = await openSafetensors(join(folder, name)).then(
      ({ metadata }) => metadata,
      () => new Map<string, string>(),
    );
    entries.push({
      name,
      bytes: found.size,
      model: said.get('model') ?? '',
      source: said.get('source') ?? '',
      form,
      used: found.mtime.toISOString(),
    });
  }
  return entries.toSorted((a, b) => (a.used < b.used ? 1 : -1));
}

/** Removes one of them. @throws EmendError 'not-found' */
export async function removePacked(folder: string, name: string): Promise<void> {
  if (!NAME.test(name) || !(await stat(join(folder, name)).catch(() => null)))
    throw new EmendError('not-found', `There are no packed weights ${name} in ${folder}.`);
  await rm(join(folder, name));
}

/** Whether the packed weights of a checkpoint are there. They may turn out damaged as they are opened. */
export async function isPacked(source: string, form: PackedForm, { folder }: PackedCache): Promise<boolean> {
  return stat(join(folder, packedName(source, form))).then(
    () => true,
    () => false,
  );
}

/**
 * The packed weights of a checkpoint, made where they are not there yet.
 * @throws EmendError 'damaged' for bad ones, 'conflict' where cache or disk have no room, 'cancelled'
 */
export async function packedWeights(
  checkpoint: Checkpoint,
  form: PackedForm,
  cache: PackedCache,
  work: PackingWork = {},
): Promise<WeightSource> {
  const source = await fingerprint(checkpoint);
  const path = join(cache.folder, packedName(source, form));
  const there = await openPacked(path, checkpoint, source, form);
  if (there) return there;
  await mkdir(cache.folder, { recursive: true });
  await makeRoom(cache, packedBytes(checkpoint, form), packedName(source, form));
  await writePacked(path, checkpoint, source, form, work);
  const made = await openPacked(path, checkpoint, source, form);
  if (!made)
    throw new EmendError('internal', `The packed weights ${path} are gone as soon as they were made.`);
  return made;
}

/** Removes what was used longest ago until `bytes` more fit. A file that is open stays readable until it is closed. */
async function makeRoom({ folder, limitBytes }: PackedCache, bytes: number, name: string): Promise<void> {
  const gigabytes = (count: number) => `${(count / 1e9).toFixed(1)} GB`;
  if (bytes > limitBytes) {
    throw new EmendError(
      'conflict',
      `The packed weights take ${gigabytes(bytes)}, and ${folder} may hold ${gigabytes(limitBytes)}. Raise that limit in the settings.`,
    );
  }
  const entries = (await listPacked(folder)).filter((entry) => entry.name !== name);
  let held = entries.reduce((sum, entry) => sum + entry.bytes, 0);
  for (const entry of entries.toReversed()) {
    if (held + bytes <= limitBytes) return;
    await rm(join(folder, entry.name), { force: true });
    held -= entry.bytes;
  }
}
