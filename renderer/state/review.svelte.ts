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
  /** the edit they are the neighbours of */
  #of: number | null = null;
  /** moves are made one after the other, each from where the last one led, however fast one presses */
  #moves = Promise.resolve();

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

  /** Opens the edit after the open one in the list, if there is one. */
  next(): void {
    this.#move('next');
  }

  previous(): void {
    this.#move('previous');
  }

  #move(to: 'next' | 'previous'): void {
    this.#moves = this.#moves.then(async () => {
      const { screen, edit } = this.#navigation;
      if (screen !== 'workbench' || edit === null) return;
      const neighbours = this.#of === edit ? this.neighbours : await this.#find(edit);
      const target = neighbours?.[to] ?? null;
      if (target !== null && this.#navigation.edit === edit) this.#navigation.go('workbench', target);
    });
  }

  async #read(): Promise<void> {
    const id = this.#workbench.edit?.id ?? null;
    const neighbours = id === null ? null : await this.#find(id);
    if (id !== (this.#workbench.edit?.id ?? null)) return;
    this.#of = id;
    this.neighbours = neighbours;
    // the library's table goes where one goes on the workbench, not the other way round
    if (id !== null && neighbours && this.#navigation.screen === 'workbench')
      this.#library.comeTo(id, neighbours.place);
  }

  async #find(id: number): Promise<CallOutput<'edits.neighbours'> | null> {
    const { whole: filter, sort } = this.#library;
    return this.#connection.call('edits.neighbours', { id, filter, sort }).catch(() => null);
  }
}
