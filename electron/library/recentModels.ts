/**
 * @file Models opened with this library, latest first.
 */
import { now, type Store } from './database.ts';

export interface RecentModel {
  readonly path: string;
  readonly name: string;
  readonly adapterPath: string | null;
  /** fingerprints; '' where there is no adapter */
  readonly model: string;
  readonly adapter: string;
  /** the form of the weights, as `models.open` takes it */
  readonly weights: string;
  readonly opened: string;
}

const KEPT = 20;

/** The models opened lately, latest first. */
export function recentModels(store: Store): RecentModel[] {
  return store.read(() =>
    store.database
      .prepare<[], RecentModel>(
        // Rows are numbered as they come; the clock may have been set back between them.
        'SELECT path, name, adapter_path AS adapterPath, model, adapter, weights, opened FROM recent_models ORDER BY rowid DESC',
      )
      .all(),
  );
}

/** Puts a model first in the list; the oldest beyond twenty are forgotten. A library that can only be read stays as it is. */
export function rememberModel(
  store: Store,
  model: Omit<RecentModel, 'opened' | 'weights'> & { readonly weights?: string },
): void {
  if (store.readOnly) return;
  store.write(() => {
    store.database.prepare('DELETE FROM recent_models WHERE path = ?').run(model.path);
    store.database
      .prepare(
        'INSERT INTO recent_models (path, name, adapter_path, model, adapter, weights, opened) VALUES (?, ?, ?, ?, ?, ?, ?)',
      )
      .run(
        model.path,
        model.name,
        model.adapterPath,
        model.model,
        model.adapter,
        model.weights ?? 'dense',
        now(),
      );
    for (const old of recentModels(store).slice(KEPT)) {
      store.database.prepare('DELETE FROM recent_models WHERE path = ?').run(old.path);
    }
  });
}
