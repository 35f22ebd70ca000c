/**
 * @file Keys of many edits or inputs, compared with one at once. Products of whole numbers: the same on every machine, in any order.
 */
import { EmendError } from '../../errors.ts';
import { Int8Vectors } from './dotProducts.ts';

/** Length to which unit keys are scaled before they are rounded. */
const SCALE = 127;

/** A vector as a unit key, times 127 [width]; zeros for a vector of zeros. */
export function quantiseKey(vector: ArrayLike<number>): Int8Array {
  let square = 0;
  for (let i = 0; i < vector.length; i++) square += vector[i]! * vector[i]!;
  const scale = square > 0 ? SCALE / Math.sqrt(square) : 0;
  return Int8Array.from(vector, (value) => Math.round(value * scale));
}

/** A key that is near another. */
export interface Near {
  readonly id: number;
  /** dot product of both keys; see {@link similarityOf} */
  readonly product: number;
}

/** Cosine similarity of two unit keys from their product; the rounding of the keys may carry it a little beyond 1. */
export function similarityOf(product: number): number {
  return product / SCALE ** 2;
}

/** Keys by id. */
export class KeyBank {
  readonly #keys: Int8Vectors;
  readonly #ids: number[] = [];
  readonly #places = new Map<number, number>();

  constructor(width: number) {
    this.#keys = new Int8Vectors(width);
  }

  get width(): number {
    return this.#keys.width;
  }

  get size(): number {
    return this.#ids.length;
  }

  /** Bytes of memory the keys take. */
  get bytes(): number {
    return this.#keys.bytes;
  }

  has(id: number): boolean {
    return this.#places.has(id);
  }

  ids(): IterableIterator<number> {
    return this.#places.keys();
  }

  /** The key of an id, or undefined. */
  get(id: number): Int8Array | undefined {
    const place = this.#places.get(id);
    return place === undefined ? undefined : this.#keys.get(place);
  }

  /** Adds a key, or replaces the one of that id. */
  add(id: number, key: Int8Array): void {
    const place = this.#places.get(id) ?? this.#ids.length;
    this.#keys.set(place, key);
    this.#places.set(id, place);
    this.#ids[place] = id;
  }

  /** Whether there was such a key. */
  remove(id: number): boolean {
    const place = this.#places.get(id);
    if (place === undefined) return false;
    const last = this.#ids.length - 1;
    const moved = this.#ids[last]!;
    if (place !== last) {
      this.#keys.set(place, this.#keys.get(last));
      this.#ids[place] = moved;
      this.#places.set(moved, place);
    }
    this.#ids.pop();
    this.#places.delete(id);
    return true;
  }

  /** The `count` keys with the largest products with a key, best first; of equals the smaller id first. */
  nearest(key: Int8Array, count: number): Near[] {
    const found: Near[] = [];
    if (count < 1) return found;
    const before = (a: Near, b: Near) => a.product > b.product || (a.product === b.product && a.id < b.id);
    this.#keys.dots(key, this.size, (products, first) => {
      let least = found.length < count ? Number.NEGATIVE_INFINITY : found[count - 1]!.product;
      for (let i = 0; i < products.length; i++) {
        if (products[i]! < least) continue;
        const near = { id: this.#ids[first + i]!, product: products[i]! };
        let at = found.length;
        while (at > 0 && before(near, found[at - 1]!)) at--;
        found.splice(at, 0, near);
        if (found.length > count) found.pop();
        if (found.length === count) least = found[count - 1]!.product;
      }
    });
    return found;
  }

  /** Products with every key, by id: for comparing one edit with all inputs that are kept. */
  each(key: Int8Array, take: (id: number, product: number) => void): void {
    this.#keys.dots(key, this.size, (products, first) => {
      for (let i = 0; i < products.length; i++) take(this.#ids[first + i]!, products[i]!);
    });
  }
}

/** Throws `damaged` unless bytes are a key of this width. */
export function keyFromBytes(bytes: Uint8Array, width: number): Int8Array {
  if (bytes.byteLength !== width)
    throw new EmendError('damaged', `A stored key takes ${bytes.byteLength} bytes and should take ${width}.`);
  return new Int8Array(new Uint8Array(bytes).buffer);
}
