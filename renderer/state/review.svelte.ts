/**
 * @file Going through the library's list edit by edit on the workbench: what comes before and after the open edit.
 */
import { untrack } from 'svelte';
import type { CallOutput } from '../../electron/api/contract.ts';
import type { Connection } from '../backend.ts';
import type { EditLibrary } from './editLibrary.svelte.ts';
import type { Navigation } from './navigation.svelte.ts';
import type { Workbench } from './workbench.svelte.ts';

export class Review {
  readonly #connection: Connection;
  readonly #library: EditLibrary;
  readonly #workbench: Workbench;
  readonly #navigation: Navigation;
  /** where the open edit is in the list; null while that is not known */
  neighbours = $state.raw<CallOutput<'edits.neighbours'> | null>(null);

  constructor(connection: Connection, library: EditLibrary, workbench: Workbench, navigation: Navigation) {
    this.#connection = connection;
    this.#library = library;
    this.#workbench = workbench;
    this.#navigation = navigation;
    connection.on('library.changed', () => void this.#read());
    $effect.root(() => {
      $effect(() => {
        void [workbench.edit?.id, library.whole, library.sort];
        untrack(() => void this.#read());
      });
    });
  }

  /** Opens the edit after the open one in the list. Says whether there is one. */
  next(): boolean {
    return this.#go(this.neighbours?.next ?? null);
  }

  previous(): boolean {
    return this.#go(this.neighbours?.previous ?? null);
  }

  #go(edit: number | null): boolean {
    if (edit === null) return false;
    this.#navigation.go('workbench', edit);
    return true;
  }

  async #read(): Promise<void> {
    const id = this.#workbench.edit?.id;
    const { whole: filter, sort } = this.#library;
    if (id === undefined) {
      this.neighbours = null;
      return;
    }
    try {
      const neighbours = await this.#connection.call('edits.neighbours', { id, filter, sort });
      if (id !== this.#workbench.edit?.id) return;
      this.neighbours = neighbours;
      this.#library.comeTo(id, neighbours.place);
    } catch {
      if (id === this.#workbench.edit?.id) this.neighbours = null;
    }
  }
}
