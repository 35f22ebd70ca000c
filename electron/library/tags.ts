/**
 * @file Tags of edits.
 */
import { prepared, type Store } from './database.ts';
import { tagsOf } from './rows.ts';

/** Every tag in use, by name, with how many edits have it. */
export function listTags(store: Store): Array<{ name: string; edits: number }> {
  return prepared<[], { name: string; edits: number }>(
    store,
    'SELECT name, edits FROM tags WHERE edits > 0 ORDER BY name',
  ).all();
}

/** Gives an edit exactly these tags. Called inside a `write`. Returns what was added and what was removed. */
export function setTags(
  store: Store,
  edit: number,
  wanted: readonly string[],
): { added: string[]; removed: string[] } {
  const had = tagsOf(store, edit);
  const added = [...new Set(wanted)].filter((tag) => !had.includes(tag));
  const removed = had.filter((tag) => !wanted.includes(tag));
  for (const tag of added) {
    prepared(store, 'INSERT OR IGNORE INTO tags (name) VALUES (?)').run(tag);
    prepared(store, 'INSERT INTO edit_tags (edit, tag) SELECT ?, id FROM tags WHERE name = ?').run(edit, tag);
  }
  for (const tag of removed) {
    prepared(
      store,
      'DELETE FROM edit_tags WHERE edit = ? AND tag = (SELECT id FROM tags WHERE name = ?)',
    ).run(edit, tag);
  }
  return { added, removed };
}
