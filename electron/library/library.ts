/**
 * @file A library: one SQLite file with pictures, edits, probes, checks, history and settings. All SQL is in this folder.
 */
import { basename, resolve } from 'node:path';
import { type Actors, openDatabase, type Store, telling } from './database.ts';
import { hasChecks, presentState } from './freshness.ts';
import { changedSince, lastChange } from './history.ts';
import { recentModels } from './recentModels.ts';
import { refreshFreshness } from './review.ts';
import { readSettings } from './settings.ts';

/** An open library. The functions of this folder read and change it. */
export interface Library extends Store {
  readonly name: string;
  /**
   * Called after every change, also those of other processes (within a second), with the edits that changed; null where they
   * are more than {@link MOST_TOLD}. Returns a function that stops it.
   */
  onChange(listener: (edits: number[] | null) => void): () => void;
  close(): void;
}

/** How often other processes' changes are looked for, in milliseconds. */
const POLL = 1000;

/**
 * Opens the library at `path`, or makes it. The model and adapter that act are at first those opened last with it.
 * @throws EmendError as `openDatabase`
 */
export function openLibrary(path: string): Library {
  const file = resolve(path);
  const { database, readOnly, close } = openDatabase(path);
  const listeners = new Set<(edits: number[] | null) => void>();

  let actors: Actors = { model: '', adapter: '' };
  let template: Store['template'] = 'plain';

  const library: Library = {
    file,
    name: basename(file).replace(/\.emend$/u, ''),
    database,
    readOnly,
    get actors() {
      return actors;
    },
    set actors(next) {
      actors = next;
    },
    get template() {
      return template;
    },
    set template(next) {
      template = next;
    },
    read: (work) => telling(file, () => database.transaction(work).deferred()),
    write: (work) => {
      const outermost = !database.inTransaction;
      const whole = () => {
        const result = work();
        if (outermost) refreshFreshness(library);
        return result;
      };
      const result = telling(file, () => database.transaction(whole).immediate());
      if (outermost) tellListeners();
      return result;
    },
    keep: (work) => {
      if (!readOnly || database.inTransaction) return library.write(work);
      database.pragma('query_only = OFF');
      try {
        return library.write(work);
      } finally {
        database.pragma('query_only = ON');
      }
    },
    onChange: (listener) => {
      if (listeners.size === 0) look();
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    close: () => {
      clearInterval(poll);
      listeners.clear();
      if (database.open) close();
    },
  };

  const last = recentModels(library)[0];
  if (last) actors = { model: last.model, adapter: last.adapter };
  template = readSettings(library).promptTemplate;

  let seen = lastChange(library);
  let stateSeen = presentState(library);
  function look(): void {
    seen = lastChange(library);
    stateSeen = presentState(library);
  }
  function tellListeners(): void {
    if (listeners.size === 0 || !database.open) return;
    const { edits, last } = changedSince(library, seen);
    const state = presentState(library);
    // In another state every check may count otherwise.
    const all =
      (state.state !== stateSeen.state || state.commits !== stateSeen.commits) && hasChecks(library);
    seen = last;
    stateSeen = state;
    for (const listener of [...listeners]) listener(all ? null : edits);
  }

  const version = () => database.pragma('data_version', { simple: true }) as number;
  let known = version();
  const poll = setInterval(() => {
    if (!database.open || database.inTransaction) return;
    try {
      const current = version();
      if (current === known) return;
      known = current;
      tellListeners();
    } catch {
      // Whoever reads the library next is told what is wrong with it.
    }
  }, POLL);
  poll.unref();

  return library;
}
