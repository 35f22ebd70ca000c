/**
 * @file Which edits of a list are selected: some by number, or all that the list's filter lets through but a few.
 */
import type { EditFilter, EditSelection } from '../../electron/api/contract.ts';

export class Selection {
  /** whether everything that matches is selected, but for `numbers`; else only `numbers` are */
  #all = $state(false);
  #numbers = $state.raw<ReadonlySet<number>>(new Set());
  /** the place a range begins at; null before anything was selected */
  anchor: number | null = null;

  has(edit: number): boolean {
    return this.#all !== this.#numbers.has(edit);
  }

  /** How many are selected of a list of `total`. */
  count(total: number): number {
    return this.#all ? Math.max(0, total - this.#numbers.size) : this.#numbers.size;
  }

  /** Whether all of a list were selected at once, whatever it holds. */
  get isAll(): boolean {
    return this.#all && this.#numbers.size === 0;
  }

  toggle(edit: number): void {
    const numbers = new Set(this.#numbers);
    if (!numbers.delete(edit)) numbers.add(edit);
    this.#numbers = numbers;
  }

  /** Selects edits beside those that are selected. */
  add(edits: readonly number[]): void {
    const numbers = new Set(this.#numbers);
    for (const edit of edits) {
      if (this.#all) numbers.delete(edit);
      else numbers.add(edit);
    }
    this.#numbers = numbers;
  }

  /** Selects all that the list holds, and all that come into it. */
  selectAll(): void {
    this.#all = true;
    this.#numbers = new Set();
  }

  clear(): void {
    this.#all = false;
    this.#numbers = new Set();
    this.anchor = null;
  }

  /** What the contract calls this selection in a list with this filter; null when nothing is selected. */
  inList(filter: EditFilter): EditSelection | null {
    if (this.#all) return { filter, ...(this.#numbers.size > 0 && { except: [...this.#numbers] }) };
    return this.#numbers.size > 0 ? { edits: [...this.#numbers] } : null;
  }
}
