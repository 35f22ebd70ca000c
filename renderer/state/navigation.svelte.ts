/**
 * @file Where the reader is: a screen, and on the workbench an edit, kept in the address's hash.
 */

import { hashOf, placeOf, type Screen } from './places.ts';

export class Navigation {
  screen = $state<Screen>('workbench');
  /** the edit the address names */
  edit = $state<number | null>(null);

  constructor() {
    this.#read();
    addEventListener('hashchange', () => this.#read());
  }

  go(screen: Screen, edit: number | null = null): void {
    if (location.hash !== hashOf(screen, edit)) location.hash = hashOf(screen, edit);
    this.#read();
  }

  /** Renames the present place, without a step back: a new edit got its number. */
  rename(edit: number | null): void {
    history.replaceState(null, '', hashOf(this.screen, edit));
    this.#read();
  }

  #read(): void {
    const place = placeOf(location.hash);
    this.screen = place.screen;
    this.edit = place.edit;
  }
}
