/** @file The endpoint's bearer key: shown once, kept as a hash. */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';

/** What is kept of a key. */
export interface KeptKey {
  /** sha256 in hex: the key has 256 random bits, so nothing slower is needed */
  readonly hash: string;
  /** its last four characters, so that people can tell keys apart */
  readonly hint: string;
  /** ISO 8601, UTC */
  readonly created: string;
}

/** A new key, and what to keep of it. */
export function makeKey(): { key: string; kept: KeptKey } {
  const key = `emend-${randomBytes(32).toString('base64url')}`;
  return { key, kept: { hash: hashOf(key), hint: key.slice(-4), created: new Date().toISOString() } };
}

/** Whether a key is the one that was kept; how long it takes does not tell how much of it was right. */
export function isKey(given: string, { hash }: KeptKey): boolean {
  return timingSafeEqual(Buffer.from(hashOf(given), 'hex'), Buffer.from(hash, 'hex'));
}

const hashOf = (key: string): string => createHash('sha256').update(key).digest('hex');
