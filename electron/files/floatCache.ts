/**
 * @file Numbers that take long to compute, kept on disk by name up to a size. An entry is there whole or not at all, and one that is not what
 * was written counts as none: whatever happens to the folder, its owner computes again and goes on.
 */
import { createHash, randomUUID } from 'node:crypto';
import { lstat, mkdir, readdir, rename, rm, utimes, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { EmendError } from '../errors.ts';
import { roomIn } from './diskRoom.ts';
import { readRegularFile } from './regularFile.ts';

/** Where numbers are kept, and how many bytes they may take together. */
export interface FloatCacheLimits {
  readonly folder: string;
  readonly limitBytes: number;
}

/** An entry is its values in F32, little-endian, and a SHA-256 of its name and them. */
const DIGEST_BYTES = 32;
/** Names are digests in hex; the first two digits name a folder, so that none holds all entries. */
const NAME = /^[0-9a-f]{64}$/;
const DRAFT = /^[0-9a-f]{64}\..+\.part$/;
/** Milliseconds after which a draft that is still there was left behind. */
const DRAFT_LASTS = 3_600_000;
/** Bytes left free on the disk: a cache gives way to what must be written. */
const LEFT_FREE = 1e9;

export class FloatCache {
  readonly #folder: string;
  readonly #limit: number;
  /** bytes of entries by name, used longest ago first */
  #held = new Map<string, number>();
  #bytes = 0;
  /** what was read or kept through this object */
  readonly #used = new Set<string>();
  /** bytes written since all entries were counted */
  #uncounted = 0;
  #keeping: Promise<void> = Promise.resolve();

  private constructor({ folder, limitBytes }: FloatCacheLimits) {
    this.#folder = folder;
    this.#limit = limitBytes;
  }

  static async open(limits: FloatCacheLimits): Promise<FloatCache> {
    const cache = new FloatCache(limits);
    await cache.#count();
    await cache.#makeRoom(0);
    return cache;
  }

  /** The values kept under a name, a SHA-256 in hex; null where there are none, or not so many, or not those that were written. */
  async read(name: string, length: number): Promise<Float32Array | null> {
    const size = 4 * length + DIGEST_BYTES;
    const bytes = await readRegularFile(this.#path(name), size).catch(() => null);
    if (bytes?.length !== size) return null;
    const values = new Float32Array(bytes.buffer, bytes.byteOffset, length);
    if (!digestOf(name, [values]).equals(bytes.subarray(-DIGEST_BYTES))) return null;
    if (!this.#used.has(name)) {
      const now = new Date();
      await utimes(this.#path(name), now, now).catch(() => undefined);
    }
    this.#use(name, size);
    return values;
  }

  /**
   * Keeps values under a name. What was used longest ago gives way, but nothing that was used through this object: where that fills the cache, or
   * where the disk cannot take it, nothing is kept.
   */
  keep(name: string, values: readonly Float32Array[]): Promise<void> {
    // One after the other: each knows what there is.
    this.#keeping = this.#keeping.then(() => this.#keep(name, values));
    return this.#keeping;
  }

  async #keep(name: string, values: readonly Float32Array[]): Promise<void> {
    const path = this.#path(name);
    const draft = `${path}.${randomUUID()}.part`;
    const bytes = Buffer.concat([...values.map(bytesOf), digestOf(name, values)]);
    try {
      // Others may write into the same folder.
      if (this.#uncounted > this.#limit / 20) await this.#count();
      if (this.#held.has(name)) await this.#remove(name);
      if (bytes.length > this.#limit) return;
      await this.#makeRoom(bytes.length);
      if (this.#bytes + bytes.length > this.#limit) return;
      await mkdir(dirname(path), { recursive: true });
      if ((await roomIn(this.#folder)) < bytes.length + LEFT_FREE) return;
      // Not forced to the disk: what is lost with the power is found to be damaged.
      await writeFile(draft, bytes, { flag: 'wx' });
      await rename(draft, path);
      this.#use(name, bytes.length);
      this.#uncounted += bytes.length;
    } catch {
      await rm(draft, { force: true }).catch(() => undefined);
    }
  }

  #path(name: string): string {
    if (!NAME.test(name)) throw new EmendError('internal', `“${name}” is no name of kept values.`);
    return join(this.#folder, name.slice(0, 2), name);
  }

  #use(name: string, size: number): void {
    this.#forget(name);
    this.#held.set(name, size);
    this.#bytes += size;
    this.#used.add(name);
  }

  #forget(name: string): void {
    this.#bytes -= this.#held.get(name) ?? 0;
    this.#held.delete(name);
  }

  async #remove(name: string): Promise<void> {
    this.#forget(name);
    await rm(this.#path(name), { force: true }).catch(() => undefined);
  }

  /** Removes what may go until so many more bytes fit. */
  async #makeRoom(bytes: number): Promise<void> {
    for (const name of this.#held.keys()) {
      if (this.#bytes + bytes <= this.#limit || this.#used.has(name)) return;
      await this.#remove(name);
    }
  }

  /** Looks at what there is, and removes drafts that were left behind. Other files are not looked at. */
  async #count(): Promise<void> {
    const found: Array<{ name: string; size: number; used: number }> = [];
    for (const part of await readdir(this.#folder).catch(() => [])) {
      if (!/^[0-9a-f]{2}$/.test(part)) continue;
      const names = await readdir(join(this.#folder, part)).catch(() => []);
      const look = async (name: string) => {
        if (!NAME.test(name) && !DRAFT.test(name)) return;
        const path = join(this.#folder, part, name);
        const stats = await lstat(path).catch(() => null);
        if (!stats?.isFile()) return;
        if (NAME.test(name)) found.push({ name, size: stats.size, used: stats.mtimeMs });
        else if (Date.now() - stats.mtimeMs > DRAFT_LASTS)
          await rm(path, { force: true }).catch(() => undefined);
      };
      await Promise.all(names.map(look));
    }
    found.sort((a, b) => a.used - b.used);
    this.#held = new Map(found.map(({ name, size }) => [name, size]));
    this.#bytes = found.reduce((sum, { size }) => sum + size, 0);
    this.#uncounted = 0;
  }
}

const bytesOf = ({ buffer, byteOffset, byteLength }: Float32Array) =>
  new Uint8Array(buffer, byteOffset, byteLength);

function digestOf(name: string, values: readonly Float32Array[]): Buffer {
  const hash = createHash('sha256').update(name);
  for (const part of values) hash.update(bytesOf(part));
  return hash.digest();
}
