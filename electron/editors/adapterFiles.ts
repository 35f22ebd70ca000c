/**
 * @file An adapter folder: adapter.json, which says what it is, and adapter.safetensors, its weights.
 */
import { createHash } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { z } from 'zod';
import { EmendError } from '../errors.ts';
import { readJson } from '../files/json.ts';
import { readRegularFile } from '../files/regularFile.ts';
import { replaceFiles } from '../files/replaceFile.ts';
import { encodeSafetensors, openSafetensors, readTensor, type WritableTensor } from '../files/safetensors.ts';

/** Bytes of an adapter's files. */
const LARGEST_DESCRIPTION = 16 * 1024 * 1024;
const LARGEST_WEIGHTS = 2 * 1024 * 1024 * 1024 - 1;

export type AdapterWeights = ReadonlyMap<
  string,
  { readonly shape: readonly number[]; readonly data: Float32Array }
>;

/** What every editor's adapter.json may hold beside its own. */
export interface WrittenWith {
  /** of adapter.safetensors, which this file belongs to; older adapters do not say */
  readonly weightsSha256?: string | undefined;
}

/** Reads both files. @throws EmendError 'damaged' when they are not what they say, or were not written together */
export async function readAdapterFiles<T extends WrittenWith>(
  folder: string,
  schema: z.ZodType<T>,
): Promise<{
  description: T;
  weights: AdapterWeights;
  /** sha256 of both files */
  fingerprint: string;
  /** of the weights, for messages */
  path: string;
}> {
  const described = join(folder, 'adapter.json');
  const parsed = schema.safeParse(await readJson(described));
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    throw new EmendError('damaged', `${described}: ${issue.path.join('.')}: ${issue.message}.`);
  }
  const path = join(folder, 'adapter.safetensors');
  const file = await openSafetensors(path);
  const weights = new Map<string, { shape: readonly number[]; data: Float32Array }>();
  for (const name of file.tensors.keys()) {
    const { data, dtype, shape } = await readTensor(file, name);
    if (!(data instanceof Float32Array))
      throw new EmendError('unsupported', `${path}: ${name} is ${dtype}; adapters are floats.`);
    weights.set(name, { shape, data });
  }
  const stored = await readRegularFile(path, LARGEST_WEIGHTS);
  const { weightsSha256 } = parsed.data;
  if (weightsSha256 !== undefined && weightsSha256 !== sha256(stored)) {
    throw new EmendError(
      'damaged',
      `${path} is not the file that adapter.json beside it was written with. Copy the whole folder again, or train the adapter again.`,
    );
  }
  const hash = createHash('sha256');
  hash.update(await readRegularFile(described, LARGEST_DESCRIPTION));
  hash.update(stored);
  return { description: parsed.data, weights, fingerprint: hash.digest('hex'), path };
}

/** Writes an adapter folder, its files together: one that was written by halves is told when it is read. Weights in F16 keep it small; adapters are trained in F32. */
export async function writeAdapterFiles(
  folder: string,
  description: object,
  weights: AdapterWeights,
  dtype: 'F32' | 'F16' | ((name: string) => 'F32' | 'F16'),
): Promise<void> {
  await mkdir(folder, { recursive: true });
  const tensors = new Map<string, WritableTensor>();
  const dtypeOf = (name: string) => (typeof dtype === 'string' ? dtype : dtype(name));
  for (const [name, { shape, data }] of weights)
    tensors.set(name, { dtype: dtypeOf(name), shape: [...shape], data });
  const stored = encodeSafetensors(tensors, { format: 'pt' });
  const text = JSON.stringify({ ...description, weightsSha256: sha256(stored) }, null, 2);
  await replaceFiles([
    [join(folder, 'adapter.safetensors'), (handle) => handle.writeFile(stored)],
    [join(folder, 'adapter.json'), (handle) => handle.writeFile(`${text}\n`)],
  ]);
}

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/**
 * Decoder layers that an adapter's file, or the settings of an editor, name, for people: “layer 5”, “text layer 2, visual layer 0”,
 * “layers 5, 6, 7”, “the last layer”; '' where they name none.
 */
export function layersTold(described: Readonly<Record<string, unknown>>): string {
  const told = Object.entries(described).flatMap(([key, value]) => {
    if (!/^(?:layers?|\w+Layers?)$/.test(key)) return [];
    const name = key.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
    if (value === -1) return [`the last ${name}`];
    const layers = Array.isArray(value) ? value : [value];
    const named = layers.length > 0 && layers.every((layer) => Number.isInteger(layer));
    return named ? [`${name} ${layers.join(', ')}`] : [];
  });
  return told.join(', ');
}
