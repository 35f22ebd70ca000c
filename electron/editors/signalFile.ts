/**
 * @file Edit signals as bytes, for the library.
 */
import { EmendError } from '../errors.ts';
import { decodeSafetensors, encodeSafetensors } from '../files/safetensors.ts';
import type { EditSignal } from './editor.ts';

export function encodeSignal(signal: EditSignal): Uint8Array {
  const width = signal.hidden.length / signal.rows;
  const rows = [signal.imageRows[0], signal.imageRows[1], signal.lastPromptRow];
  return encodeSafetensors(
    new Map([
      ['hidden', { dtype: 'F32', shape: [signal.rows, width], data: signal.hidden }],
      ['rows', { dtype: 'I32', shape: [3], data: Int32Array.from(rows) }],
    ] as const),
  );
}

/** Throws `damaged` when the bytes are no edit signal of a decoder of this width. */
export function decodeSignal(bytes: Uint8Array, width: number): EditSignal {
  const { tensors } = decodeSafetensors(bytes);
  const hidden = tensors.get('hidden');
  const marks = tensors.get('rows')?.data;
  const [start, end, lastPromptRow] = marks instanceof Int32Array ? marks : [];
  const rows = hidden?.shape[0] ?? 0;
  const fits =
    hidden?.data instanceof Float32Array &&
    hidden.shape.length === 2 &&
    hidden.shape[1] === width &&
    start !== undefined &&
    end !== undefined &&
    lastPromptRow !== undefined &&
    0 <= start &&
    start < end &&
    end <= lastPromptRow &&
    lastPromptRow < rows;
  if (!fits)
    throw new EmendError(
      'damaged',
      'The stored edit signal does not belong to this model. Check the edit again.',
    );
  return {
    hidden: hidden.data as Float32Array,
    rows,
    imageRows: [start, end],
    lastPromptRow,
  };
}
