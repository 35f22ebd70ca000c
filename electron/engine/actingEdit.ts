/**
 * @file An edit as it acts: its signal, and what the scope compares. One block of bytes in the library.
 */
import type { EditSignal } from '../editors/editor.ts';
import type { Scope, ScopeInput } from '../editors/scope/scope.ts';
import { decodeSignal, encodeSignal } from '../editors/signalFile.ts';
import { EmendError } from '../errors.ts';

export interface ActingEdit {
  readonly id: number;
  readonly signal: EditSignal;
  readonly described: ScopeInput;
}

/** u32 length of the signal | signal | key | key as a picture edit | key as a thing edit | detail. */
export function encodeActing({ signal, described }: ActingEdit): Uint8Array {
  const bytes = encodeSignal(signal);
  const { key, editKeys, detail } = described;
  return Buffer.concat([
    Buffer.from(Uint32Array.of(bytes.length).buffer),
    bytes,
    ...[key, editKeys.picture, editKeys.thing].map((part) =>
      Buffer.from(part.buffer, part.byteOffset, part.byteLength),
    ),
    detail,
  ]);
}

/** Throws `damaged` when the bytes do not belong to this scope and a decoder of this width. */
export function decodeActing(id: number, bytes: Uint8Array, scope: Scope, width: number): ActingEdit {
  // A copy: slices of a Buffer would share its memory.
  const own = new Uint8Array(bytes);
  const length = own.length >= 4 ? new DataView(own.buffer).getUint32(0, true) : Number.NaN;
  const start = 4 + length;
  const end = start + 3 * scope.keyWidth;
  if (!(end < own.length))
    throw new EmendError('damaged', `What is stored of edit ${id} is incomplete. Check the edit again.`);
  const keys = [0, 1, 2].map((place) => {
    const at = start + place * scope.keyWidth;
    return new Int8Array(own.slice(at, at + scope.keyWidth).buffer);
  });
  return {
    id,
    signal: decodeSignal(own.slice(4, start), width),
    described: {
      key: keys[0]!,
      editKeys: { picture: keys[1]!, thing: keys[2]! },
      detail: own.slice(end),
    },
  };
}
