/** @file Pictures as the open model saw them last: asking about one again does not run the vision tower again. */
import { createHash } from 'node:crypto';
import type { Visual } from '../models/picture.ts';

/** Bytes held for pictures seen earlier. The last one is held whatever it takes: it was needed a moment ago. */
const MOST_BYTES = 64 * 1024 * 1024;

function bytesOf({ rows, pixels, added }: Visual): number {
  const extra = (pixels?.values.byteLength ?? 0) + (pixels?.mask?.byteLength ?? 0);
  return added.reduce((sum, features) => sum + features.byteLength, rows.byteLength + extra);
}

export class SeenPictures {
  readonly #see: (file: Uint8Array) => Promise<Visual>;
  /** by what the file holds; those seen longest ago first */
  readonly #held = new Map<string, Visual>();
  #bytes = 0;

  constructor(see: (file: Uint8Array) => Promise<Visual>) {
    this.#see = see;
  }

  /** A picture file's visual embeddings. */
  async see(file: Uint8Array): Promise<Visual> {
    const key = createHash('sha256').update(file).digest('base64');
    const known = this.#held.get(key);
    const visual = known ?? (await this.#see(file));
    if (!this.#held.delete(key)) this.#bytes += bytesOf(visual);
    this.#held.set(key, visual);
    for (const [oldest, other] of this.#held) {
      if (this.#bytes <= MOST_BYTES || oldest === key) break;
      this.#held.delete(oldest);
      this.#bytes -= bytesOf(other);
    }
    return visual;
  }
}
