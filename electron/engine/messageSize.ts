/** @file How large a message between processes is, so that an absurd one is refused before it is copied. */
import { EmendError } from '../errors.ts';

/** Bytes one message may hold: room for a hundred edits with their pictures and signals. */
export const MESSAGE_LIMIT = 512 * 1024 * 1024;

/**
 * Counts the bytes of strings and binary data in `value`, 8 for every other leaf.
 * @throws EmendError `invalid-input` as soon as the count passes `limit`
 */
export function checkMessageSize(value: unknown, limit: number = MESSAGE_LIMIT): void {
  let bytes = 0;
  const seen = new Set<object>();
  const pending: unknown[] = [value];
  while (pending.length > 0) {
    const next = pending.pop();
    if (typeof next === 'string') bytes += 2 * next.length;
    else if (ArrayBuffer.isView(next) || next instanceof ArrayBuffer) bytes += next.byteLength;
    else if (typeof next === 'object' && next !== null) {
      if (seen.has(next)) continue;
      seen.add(next);
      for (const [key, item] of Object.entries(next)) {
        bytes += key.length;
        pending.push(item);
      }
    } else bytes += 8;
    if (bytes > limit) {
      const megabytes = Math.floor(limit / 1024 / 1024);
      throw new EmendError(
        'invalid-input',
        `The request is larger than ${megabytes} MB. Send fewer or smaller pictures at once.`,
      );
    }
  }
}
