/**
 * @file Committed edits held in memory, as a scope needs them.
 */
import { EmendError } from '../../errors.ts';
import { KeyBank, similarityOf } from './keyBank.ts';
import type { EditBank, Reach, ScopeInput } from './scope.ts';

export class MemoryBank implements EditBank {
  readonly #keys: KeyBank;
  readonly #entries = new Map<number, { readonly reach: Reach; readonly detail: Uint8Array }>();

  constructor(keyWidth: number) {
    this.#keys = new KeyBank(keyWidth);
  }

  get size(): number {
    return this.#keys.size;
  }

  /** `described`: of the edit's own picture and prompt. */
  add(edit: number, reach: Reach, described: ScopeInput): void {
    this.#keys.add(edit, described.editKeys[reach]);
    this.#entries.set(edit, { reach, detail: described.detail });
  }

  remove(edit: number): void {
    this.#keys.remove(edit);
    this.#entries.delete(edit);
  }

  nearest(key: Int8Array, count: number) {
    return this.#keys.nearest(key, count).map(({ id, product }) => ({
      edit: id,
      similarity: similarityOf(product),
    }));
  }

  entry(edit: number) {
    const found = this.#entries.get(edit);
    if (!found) throw new EmendError('internal', `Edit ${edit} does not act.`);
    return found;
  }
}
