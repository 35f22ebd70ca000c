/**
 * @file Saved views: a filter and an order under a name.
 */
import { SavedView } from '../api/contract.ts';
import type { Store } from './database.ts';

/** The views by name. One that this version cannot read, in a file from elsewhere, is left out. */
export function listViews(store: Store): SavedView[] {
  return store.database
    .prepare<[], { name: string; filter: string; sort: string }>(
      'SELECT name, filter, sort FROM views ORDER BY name',
    )
    .all()
    .flatMap(({ name, filter, sort }) => {
      try {
        const view = SavedView.safeParse({ name, filter: JSON.parse(filter), sort: JSON.parse(sort) });
        return view.success ? [view.data] : [];
      } catch {
        return [];
      }
    });
}

/** Keeps a view, in the place of one with the same name. */
export function saveView(store: Store, { name, filter, sort }: SavedView): SavedView[] {
  return store.write(() => {
    store.database
      .prepare(
        'INSERT INTO views (name, filter, sort) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET filter = excluded.filter, sort = excluded.sort',
      )
      .run(name, JSON.stringify(filter), JSON.stringify(sort));
    return listViews(store);
  });
}

/** Forgets a view, if there is one of that name. */
export function removeView(store: Store, name: string): SavedView[] {
  return store.write(() => {
    store.database.prepare('DELETE FROM views WHERE name = ?').run(name);
    return listViews(store);
  });
}
