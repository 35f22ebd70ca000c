/**
 * @file The committed edits of a library as the engine holds them: a key, a reach and a number each. What acts or is scored is read
 * from the library when it does.
 */
import { KeyBank, similarityOf } from '../editors/scope/keyBank.ts';
import type { EditBank, Scope } from '../editors/scope/scope.ts';
import type { Store } from '../library/database.ts';
import { committedIds, editDetail, editKey, isPrepared } from '../library/reader.ts';
import { editRow } from '../library/rows.ts';
import { KEPT_PER_CANDIDATE, type KeptMatch } from '../library/scopeInputs.ts';
import { signalOf } from '../library/signals.ts';

export class CommittedBank implements EditBank {
  readonly #store: Store;
  readonly #keys: KeyBank;
  /** how often the committed set had changed when it was taken up */
  #changes = -1;
  readonly #compared: boolean;
  #ids: readonly number[] = [];

  /** `compared`: inputs are compared with edits; otherwise all act, and an edit is its signal alone. */
  constructor(store: Store, keyWidth: number, compared: boolean) {
    this.#store = store;
    this.#keys = new KeyBank(keyWidth);
    this.#compared = compared;
  }

  get size(): number {
    return this.#ids.length;
  }

  /** in the order in which they were committed */
  get ids(): readonly number[] {
    return this.#ids;
  }

  get changes(): number {
    return this.#changes;
  }

  /** Takes up what was committed and lets go what was retired, all or nothing; returns edits that lack a signal or a description. */
  bringInStep(): number[] {
    const { ids, changes } = committedIds(this.#store);
    if (!this.#compared) {
      const unsigned = ids.filter((id) => signalOf(this.#store, editRow(this.#store, id)) === null);
      if (unsigned.length > 0) return unsigned;
      this.#ids = ids;
      this.#changes = changes;
      return [];
    }
    const wanted = new Set(ids);
    const came = ids.filter((id) => !this.#keys.has(id));
    const missing = came.filter((id) => !isPrepared(this.#store, id, this.#keys.width));
    if (missing.length > 0) return missing;
    for (const id of came) this.#keys.add(id, editKey(this.#store, id, this.#keys.width)!.key);
    for (const id of [...this.#keys.ids()]) if (!wanted.has(id)) this.#keys.remove(id);
    this.#ids = ids;
    this.#changes = changes;
    return [];
  }

  nearest(key: Int8Array, count: number) {
    return this.#keys
      .nearest(key, count)
      .map(({ id, product }) => ({ edit: id, similarity: similarityOf(product) }));
  }

  entry(edit: number) {
    return editDetail(this.#store, edit);
  }

  /** The matches the library keeps of an input: the best by key, scored. */
  async matches(scope: Scope, key: Int8Array, detail: Uint8Array): Promise<KeptMatch[]> {
    const near = this.#keys.nearest(key, KEPT_PER_CANDIDATE * scope.candidates);
    if (near.length === 0) return [];
    const entries = near.map(({ id }) => this.entry(id));
    const scores = await scope.score(detail, entries);
    return near.map(({ id, product }, index) => {
      return { edit: id, reach: entries[index]!.reach, product, score: scores[index]! };
    });
  }
}
