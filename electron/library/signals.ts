/**
 * @file Edit signals and influence maps, kept by edit and by what they were computed from.
 */
import type { InfluenceMap } from '../api/contract.ts';
import { now, parseStored, prepared, type Store } from './database.ts';
import { signalState } from './freshness.ts';
import { remember } from './history.ts';
import { nameOfEditor } from './recentModels.ts';
import type { EditRow } from './rows.ts';

/**
 * Keeps an edit signal (bytes of its editor). `influence`: its map, null where the editor has none, undefined where it was not asked for
 * (then what is kept of it stays). Called inside a `write`.
 */
export function keepSignal(
  store: Store,
  edit: number,
  state: string,
  signal: Uint8Array,
  influence: InfluenceMap | null | undefined,
): void {
  prepared(
    store,
    `INSERT INTO edit_signals (edit, state, signal, influence) VALUES (?, ?, ?, ?)
       ON CONFLICT DO UPDATE SET signal = excluded.signal, influence = coalesce(excluded.influence, influence)`,
  ).run(edit, state, signal, influence === undefined ? null : JSON.stringify(influence));
}

/** The edit signal for the edit's content under the model and adapter that act now; null when it was not computed yet. */
export function signalOf(store: Store, edit: EditRow): Uint8Array | null {
  const row = prepared<[number, string], { signal: Buffer }>(
    store,
    'SELECT signal FROM edit_signals WHERE edit = ? AND state = ?',
  ).get(edit.id, signalState(store, edit));
  return row?.signal ?? null;
}

/** Where the edit acts, as last previewed or checked in its present content: null where its editor has no map, undefined before that. */
export function influenceOf(
  store: Store,
  edit: Pick<EditRow, 'id' | 'picture' | 'prompt' | 'target'>,
): InfluenceMap | null | undefined {
  const row = prepared<[number, string], { influence: string | null }>(
    store,
    'SELECT influence FROM edit_signals WHERE edit = ? AND state = ?',
  ).get(edit.id, signalState(store, edit));
  return row?.influence
    ? parseStored<InfluenceMap | null>(row.influence, `the influence map of edit ${edit.id}`)
    : undefined;
}

/** Makes a draft one of the model and adapter it was just run with. Called inside a `write`. */
export function bindToActors(store: Store, edit: EditRow): void {
  const { model, adapter } = store.actors;
  if (edit.stage !== 'draft' || (edit.model === model && edit.adapter === adapter)) return;
  prepared(store, 'UPDATE edits SET model = ?, adapter = ?, updated = ? WHERE id = ?').run(
    model,
    adapter,
    now(),
    edit.id,
  );
  const named = (fingerprint: string) =>
    nameOfEditor(store, fingerprint) ?? (fingerprint.slice(0, 8) || 'none');
  const told =
    edit.model === model
      ? `Now made with ${named(adapter)}; it was made with ${named(edit.adapter)}.`
      : `Now for model ${model.slice(0, 8)}; it was made for model ${edit.model.slice(0, 8) || 'none'}.`;
  remember(store, edit.id, 'changed', told);
}
