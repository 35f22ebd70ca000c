/**
 * @file Models opened with this library, latest first.
 */
import type { EditorChoice, ScopeChoice } from '../api/contract.ts';
import { now, parseStored, type Store } from './database.ts';

export interface RecentModel {
  readonly path: string;
  readonly name: string;
  /** the adapter it was last opened with, also where an editor without one came after */
  readonly adapterPath: string | null;
  /** the editor in place of the adapter, and the scope, where they were chosen */
  readonly chosen: Chosen;
  /** fingerprints; '' where there is no editor */
  readonly model: string;
  readonly adapter: string;
  /** the form of the weights, as `models.open` takes it */
  readonly weights: string;
  readonly opened: string;
}

export interface Chosen {
  readonly editor?: EditorChoice | undefined;
  readonly scope?: ScopeChoice | undefined;
}

const KEPT = 20;

/** The models opened lately, latest first. */
export function recentModels(store: Store): RecentModel[] {
  return store.read(() =>
    store.database
      .prepare<[], Omit<RecentModel, 'chosen'> & { editor: string | null }>(
        // Rows are numbered as they come; the clock may have been set back between them.
        'SELECT path, name, adapter_path AS adapterPath, editor, model, adapter, weights, opened FROM recent_models ORDER BY rowid DESC',
      )
      .all()
      .map(({ editor, ...row }) => ({
        ...row,
        chosen: editor === null ? {} : parseStored<Chosen>(editor, `the editor of ${row.path}`),
      })),
  );
}

/** Puts a model first in the list; the oldest beyond twenty are forgotten. A library that can only be read stays as it is. */
export function rememberModel(
  store: Store,
  model: Omit<RecentModel, 'opened' | 'weights' | 'chosen'> & {
    readonly weights?: string;
    readonly chosen?: Chosen;
    /** of the adapter or editor, for people */
    readonly editorName?: string;
  },
): void {
  if (store.readOnly) return;
  store.write(() => {
    store.database.prepare('DELETE FROM recent_models WHERE path = ?').run(model.path);
    store.database
      .prepare(
        'INSERT INTO recent_models (path, name, adapter_path, editor, model, adapter, weights, opened) VALUES (?, ?, ?, ?, ?, ?, ?, ?)',
      )
      .run(
        model.path,
        model.name,
        model.adapterPath,
        model.chosen ? JSON.stringify(model.chosen) : null,
        model.model,
        model.adapter,
        model.weights ?? 'dense',
        now(),
      );
    if (model.adapter !== '' && model.editorName !== undefined)
      store.database
        .prepare('INSERT OR REPLACE INTO known_editors (fingerprint, name) VALUES (?, ?)')
        .run(model.adapter, model.editorName);
    for (const old of recentModels(store).slice(KEPT)) {
      store.database.prepare('DELETE FROM recent_models WHERE path = ?').run(old.path);
    }
  });
}

/** What the adapter or editor of a fingerprint was called when it was last opened with this library; null where it never was. */
export function nameOfEditor(store: Store, fingerprint: string): string | null {
  return (
    store.database
      .prepare<[string], { name: string }>('SELECT name FROM known_editors WHERE fingerprint = ?')
      .get(fingerprint)?.name ?? null
  );
}
