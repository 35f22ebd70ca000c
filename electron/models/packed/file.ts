/**
 * @file The packed form of a checkpoint's decoder in one safetensors file: made once, used where it lies. A matrix `name` is there as
 * `name.blocks`, `name.scales` and `name.zero_points`; what stays dense as the checkpoint has it.
 */
import { open, stat, utimes } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { EmendError } from '../../errors.ts';
import { isDiskFull, roomIn } from '../../files/diskRoom.ts';
import { replaceFile } from '../../files/replaceFile.ts';
import {
  floatsFromBytes,
  layOutSafetensors,
  openSafetensors,
  type SafetensorsFile,
  type TensorLayout,
} from '../../files/safetensors.ts';
import type { PackedLocation, WeightLocation, WeightSource } from '../checkpoint.ts';
import type { Checkpoint } from '../open.ts';
import { packRows, rowBytes } from './blocks.ts';
import { type FinePart, finePart, type PackedForm, type PackedTensor, packedTensors } from './form.ts';

/** Raised when the same form is written otherwise. */
const VERSION = '2';
/** Bytes of a matrix that are read and packed at a time. */
const PIECE = 16 * 1024 * 1024;

export interface PackingWork {
  readonly signal?: AbortSignal | undefined;
  /** bytes written of so many */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

/** What a packed file is of, as its metadata says. */
function identity(fingerprint: string, form: PackedForm, fine: FinePart): Record<string, string> {
  return { source: fingerprint, form, fine: JSON.stringify(fine), version: VERSION };
}

function layout(checkpoint: Checkpoint, tensors: readonly PackedTensor[]): TensorLayout[] {
  return tensors.flatMap(({ name, shape, blocks }): TensorLayout[] => {
    if (!blocks) return [{ name, dtype: checkpoint.weights.find(name)!.dtype, shape }];
    const [out, columns] = shape as [number, number];
    const bytes = rowBytes(blocks, columns);
    const count = columns / blocks.size;
    return [
      { name: `${name}.blocks`, dtype: 'U8', shape: [out, count, bytes.blocks / count] },
      { name: `${name}.scales`, dtype: 'F32', shape: [out, count] },
      { name: `${name}.zero_points`, dtype: 'U8', shape: [out, bytes.zeroPoints] },
    ];
  });
}

/** Bytes of the packed file of a checkpoint. */
export function packedBytes(checkpoint: Checkpoint, form: PackedForm, fine = finePart[form]): number {
  return layOutSafetensors(layout(checkpoint, packedTensors(checkpoint, form, fine)), {}).size;
}

/** The header of a checkpoint's packed file, and where everything in it begins. */
export function packedLayout(
  checkpoint: Checkpoint,
  fingerprint: string,
  form: PackedForm,
  fine: FinePart = finePart[form],
) {
  const tensors = packedTensors(checkpoint, form, fine);
  const metadata = { ...identity(fingerprint, form, fine), model: basename(checkpoint.folder) };
  return { tensors, ...layOutSafetensors(layout(checkpoint, tensors), metadata) };
}

/**
 * Packs a checkpoint's decoder into a file, whole or not at all.
 * @throws EmendError 'conflict' when the disk has no room, 'cancelled' when the signal is aborted
 */
export async function writePacked(
  path: string,
  checkpoint: Checkpoint,
  fingerprint: string,
  form: PackedForm,
  { signal, onProgress }: PackingWork = {},
  fine: FinePart = finePart[form],
): Promise<void> {
  const { tensors, header, offsets, size } = packedLayout(checkpoint, fingerprint, form, fine);
  const free = await roomIn(dirname(path));
  if (free < size) throw noRoom(path, size, Math.max(0, free));
  let done = 0;
  try {
    await replaceFile(path, async (file) => {
      const write = async (bytes: Uint8Array, at: number) => {
        for (let from = 0; from < bytes.length; ) {
          const { bytesWritten } = await file.write(bytes, from, bytes.length - from, at + from);
          from += bytesWritten;
        }
        done += bytes.length;
        onProgress?.(done, size);
        if (signal?.aborted) throw new EmendError('cancelled', 'Packing the weights was stopped.');
      };
      await write(header, 0);
      for (const { name, shape, blocks } of tensors) {
        const location = checkpoint.weights.find(name)!;
        const source = await open(location.path, 'r');
        const into = (part: string) => offsets.get(`${name}${part}`)!;
        try {
          const [out, columns] = blocks ? (shape as [number, number]) : [1, location.bytes];
          const rowLength = location.bytes / out;
          const rows = blocks ? Math.max(1, Math.floor(PIECE / rowLength)) : 1;
          for (let row = 0; row < out; row += rows) {
            const count = Math.min(rows, out - row);
            if (!blocks) {
              for (let at = 0; at < location.bytes; at += PIECE) {
                const length = Math.min(PIECE, location.bytes - at);
                await write(await readExactly(source, location, at, length), into('') + at);
              }
              continue;
            }
            const raw = await readExactly(source, location, row * rowLength, count * rowLength);
            const packed = packRows(floatsFromBytes(raw, location.dtype), blocks);
            const each = rowBytes(blocks, columns);
            const { buffer } = packed.scales;
            await write(packed.blocks, into('.blocks') + row * each.blocks);
            await write(new Uint8Array(buffer), into('.scales') + row * each.scales);
            await write(packed.zeroPoints, into('.zero_points') + row * each.zeroPoints);
          }
        } finally {
          await source.close();
        }
      }
    });
  } catch (cause) {
    if (isDiskFull((cause as Error).cause)) throw noRoom(path, size, null, cause);
    throw cause;
  }
}

const gigabytes = (bytes: number) => `${(bytes / 1e9).toFixed(1)} GB`;

function noRoom(path: string, size: number, free: number | null, cause?: unknown): EmendError {
  const there = free === null ? 'and the disk is full' : `and the disk has ${gigabytes(free)} to spare`;
  return new EmendError(
    'conflict',
    `The packed weights take ${gigabytes(size)} in ${dirname(path)}, ${there}. Make room, or choose another folder in the settings.`,
    { cause },
  );
}

async function readExactly(
  handle: {
    read(into: Uint8Array, at: number, length: number, from: number): Promise<{ bytesRead: number }>;
  },
  { path, offset }: WeightLocation,
  at: number,
  length: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(length);
  for (let done = 0; done < length; ) {
    const { bytesRead } = await handle.read(bytes, done, length - done, offset + at + done);
    if (bytesRead === 0) throw new EmendError('damaged', `${path} ends in the middle of its data.`);
    done += bytesRead;
  }
  return bytes;
}

/**
 * Opens the packed file of a checkpoint; null where there is none.
 * @throws EmendError 'damaged' for a file that is cut short, of another checkpoint or form, or lacks a tensor
 */
export async function openPacked(
  path: string,
  checkpoint: Checkpoint,
  fingerprint: string,
  form: PackedForm,
  fine: FinePart = finePart[form],
): Promise<WeightSource | null> {
  if (!(await stat(path).catch(() => null))) return null;
  const bad = (why: string, cause?: unknown) =>
    new EmendError(
      'damaged',
      `The packed weights ${path} cannot be used: ${why}. Remove them (emend packed --remove ${basename(path)}); they are made again from ${checkpoint.folder}.`,
      { cause },
    );
  let file: SafetensorsFile;
  try {
    file = await openSafetensors(path);
  } catch (cause) {
    throw bad(cause instanceof Error ? cause.message.replace(/\.$/, '') : 'they are unreadable', cause);
  }
  const wanted = identity(fingerprint, form, fine);
  if (file.metadata.get('source') !== fingerprint) throw bad('they were made of another checkpoint');
  // Made by an Emend that packs otherwise: not there, for this one.
  if (Object.entries(wanted).some(([key, value]) => file.metadata.get(key) !== value)) return null;
  const tensors = packedTensors(checkpoint, form, fine);
  for (const { name, dtype, shape } of layout(checkpoint, tensors)) {
    const entry = file.tensors.get(name);
    if (entry?.dtype !== dtype || entry.shape.join() !== shape.join()) throw bad(`they lack ${name}`);
  }
  const now = new Date();
  // When it was used last decides what goes first where the cache is full.
  await utimes(path, now, now).catch(() => undefined);
  return packedSource(file, tensors, checkpoint.weights);
}

function packedSource(
  file: SafetensorsFile,
  tensors: readonly PackedTensor[],
  base: WeightSource,
): WeightSource {
  const blocks = new Map(tensors.map((tensor) => [tensor.name, tensor.blocks]));
  const slice = (name: string) => {
    const { offset, bytes, shape } = file.tensors.get(name)!;
    return { path: file.path, offset, bytes, shape };
  };
  return {
    ...base,
    find(name) {
      if (blocks.get(name) !== null) return base.find(name);
      const { dtype } = base.find(name)!;
      return { ...slice(name), dtype };
    },
    table: (name) => base.find(name),
    packed(name): PackedLocation | undefined {
      const found = blocks.get(name);
      if (!found) return undefined;
      return {
        bits: found.bits,
        blocks: slice(`${name}.blocks`),
        scales: slice(`${name}.scales`),
        zeroPoints: slice(`${name}.zero_points`),
      };
    },
  };
}
