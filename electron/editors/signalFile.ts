/**
 * @file Edit signals as bytes, for the library.
 */
import { EmendError } from '../errors.ts';
import { decodeSafetensors, encodeSafetensors } from '../files/safetensors.ts';
import type { EditSignal } from './editor.ts';

export function encodeSignal(signal: EditSignal): Uint8Array {
  const width = signal.hidden.length / signal.rows;
  return encodeSafetensors(
    new Map([
      ['hidden', { dtype: 'F32', shape: [signal.rows, width], data: signal.hidden }],
      [
        'visual_rows',
        { dtype: 'I32', shape: [signal.imageRows.length], data: Int32Array.from(signal.imageRows) },
      ],
      ['last_prompt_row', { dtype: 'I32', shape: [1], data: Int32Array.of(signal.lastPromptRow) }],
    ] as const),
  );
}

/** Throws `damaged` when the bytes are no edit signal of a decoder of this width. */
export function decodeSignal(bytes: Uint8Array, width: number): EditSignal {
  const { tensors } = decodeSafetensors(bytes);
  const hidden = tensors.get('hidden');
  const integers = (name: string) => {
    const data = tensors.get(name)?.data;
    return data instanceof Int32Array ? data : undefined;
  };
  // The first form: where the picture begins and ends, and the last prompt token.
  const first = integers('rows');
  const visual = first
    ? Array.from({ length: Math.max(0, first[1]! - first[0]!) }, (_, row) => first[0]! + row)
    : [...(integers('visual_rows') ?? [])];
  const lastPromptRow = first ? first[2] : integers('last_prompt_row')?.[0];
  const rows = hidden?.shape[0] ?? 0;
  const fits =
    hidden?.data instanceof Float32Array &&
    hidden.shape.length === 2 &&
    hidden.shape[1] === width &&
    visual.length > 0 &&
    lastPromptRow !== undefined &&
    visual.every((row) => row >= 0 && row < lastPromptRow) &&
    lastPromptRow < rows;
  if (!fits)
    throw new EmendError(
      'damaged',
      'The stored edit signal does not belong to this model. Check the edit again.',
    );
  return {
    hidden: hidden.data as Float32Array,
    rows,
    imageRows: visual,
    lastPromptRow,
  };
}
