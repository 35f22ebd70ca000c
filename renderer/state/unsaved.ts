/**
 * @file What was typed on the workbench and not saved yet, kept for each edit and for the next new one, so that it
 * outlives a reload and the opening of another edit.
 */
import type { Reach } from '../../electron/api/contract.ts';

/** The fields of the workbench. `picture`: of a new edit only; an edit keeps its own. */
export interface TypedFields {
  readonly picture: string | null;
  readonly prompt: string;
  readonly target: string;
  readonly reach: Reach;
}

const prefix = 'emend.unsaved.';
/** Of this many edits; those typed in longest ago go first. */
const most = 50;

export class UnsavedFields {
  readonly #storage: Storage;

  constructor(storage: Storage) {
    this.#storage = storage;
  }

  /** What was typed for an edit (null: for a new one) of the library at `library`; null when nothing was. */
  read(library: string, edit: number | null): TypedFields | null {
    const kept = this.#storage.getItem(this.#key(library, edit));
    if (kept === null) return null;
    try {
      const { picture, prompt, target, reach } = JSON.parse(kept) as Record<string, unknown>;
      if (typeof prompt !== 'string' || typeof target !== 'string') return null;
      return {
        picture: typeof picture === 'string' ? picture : null,
        prompt,
        target,
        reach: reach === 'thing' ? 'thing' : 'picture',
      };
    } catch {
      return null;
    }
  }

  keep(library: string, edit: number | null, fields: TypedFields): void {
    const key = this.#key(library, edit);
    this.#storage.removeItem(key);
    this.#storage.setItem(key, JSON.stringify({ ...fields, at: Date.now() }));
    this.#forgetOldest();
  }

  forget(library: string, edit: number | null): void {
    this.#storage.removeItem(this.#key(library, edit));
  }

  #key(library: string, edit: number | null): string {
    return `${prefix}${library}#${edit ?? 'new'}`;
  }

  #forgetOldest(): void {
    const keys = Array.from({ length: this.#storage.length }, (_, at) => this.#storage.key(at) ?? '').filter(
      (key) => key.startsWith(prefix),
    );
    if (keys.length <= most) return;
    const age = (key: string) => Number(/"at":(\d+)/.exec(this.#storage.getItem(key) ?? '')?.[1] ?? 0);
    for (const key of keys.toSorted((one, other) => age(one) - age(other)).slice(0, keys.length - most))
      this.#storage.removeItem(key);
  }
}
