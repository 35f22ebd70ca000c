/**
 * @file Edits and probes as they lie in their tables, and how to find them.
 */
import type { Edit, Probe, ProbeKind, Reach } from '../api/contract.ts';
import { EmendError } from '../errors.ts';
import { normaliseAnswer } from '../evaluation/exactMatch.ts';
import { prepared, type Store } from './database.ts';

export interface EditRow {
  readonly id: number;
  readonly picture: string;
  readonly prompt: string;
  readonly target: string;
  readonly before: string | null;
  readonly after: string | null;
  readonly note: string;
  readonly stage: 'draft' | 'committed' | 'retired';
  readonly model: string;
  readonly adapter: string;
  readonly created: string;
  readonly updated: string;
  readonly committed: string | null;
  readonly overrideReason: string | null;
  readonly restored: number;
  readonly reach: Reach;
  /** of the latest check, kept by triggers */
  readonly verdict: Edit['verdict'];
}

/** The columns of an {@link EditRow}. */
export const EDIT_COLUMNS =
  'id, picture, prompt, target, before, after, note, stage, model, adapter, created, updated, committed, override_reason AS overrideReason, restored, reach, verdict';

/** The tags of an edit, by name. */
export function tagsOf(store: Store, edit: number): string[] {
  return prepared<[number], string>(
    store,
    'SELECT name FROM edit_tags JOIN tags ON tags.id = tag WHERE edit = ? ORDER BY name',
  )
    .pluck()
    .all(edit);
}

/** @throws EmendError 'not-found' */
export function editRow(store: Store, id: number): EditRow {
  const row = prepared<[number], EditRow>(store, `SELECT ${EDIT_COLUMNS} FROM edits WHERE id = ?`).get(id);
  if (!row) throw new EmendError('not-found', `There is no edit ${id} in this library.`);
  return row;
}

/** The committed edits made for the model and adapter that act now, in the order they were committed. */
export function actingRows(store: Store): EditRow[] {
  return prepared<[string, string], EditRow>(
    store,
    `SELECT ${EDIT_COLUMNS} FROM edits WHERE stage = 'committed' AND model = ? AND adapter = ? ORDER BY committed, id`,
  ).all(store.actors.model, store.actors.adapter);
}

/** The committed edit that answers the same prompt on the same picture with the same model and adapter, if there is one. */
export function committedInPlaceOf(store: Store, edit: EditRow): EditRow | undefined {
  const prompt = normaliseAnswer(edit.prompt);
  const found = prepared<[string, string, string, number], { id: number; prompt: string }>(
    store,
    // of hundreds of edits on one picture the committed ones alone
    `SELECT id, prompt FROM edits INDEXED BY one_committed_edit_per_prompt
       WHERE picture = ? AND stage = 'committed' AND model = ? AND adapter = ? AND id <> ?`,
  )
    .all(edit.picture, edit.model, edit.adapter, edit.id)
    .find((other) => normaliseAnswer(other.prompt) === prompt);
  return found && editRow(store, found.id);
}

interface ProbeRow {
  readonly id: number;
  readonly kind: ProbeKind;
  readonly picture: string | null;
  readonly prompt: string;
}

/** Kinds of probe that must answer the edit's target. */
export const mustChange: ReadonlySet<ProbeKind> = new Set([
  'reliability',
  'text-generality',
  'image-generality',
]);

/** An edit's own probes. What they must answer is the edit's target, so that a new target needs no new probes. */
export function ownProbes(store: Store, edit: EditRow): Probe[] {
  return prepared<[number], ProbeRow>(
    store,
    'SELECT id, kind, picture, prompt FROM probes WHERE edit = ? ORDER BY id',
  )
    .all(edit.id)
    .map((row) => {
      // The edit itself: stored once, as the edit.
      const input = row.kind === 'reliability' ? { picture: edit.picture, prompt: edit.prompt } : {};
      return { ...row, ...input, edit: edit.id, expected: mustChange.has(row.kind) ? edit.target : null };
    });
}

/** The standing set, which belongs to every edit. Kind `same-picture` has no picture: it is asked of the edit's own. */
export function standingProbes(store: Store): Probe[] {
  return prepared<[], ProbeRow>(
    store,
    'SELECT id, kind, picture, prompt FROM probes WHERE edit IS NULL ORDER BY id',
  )
    .all()
    .map((row) => ({ ...row, edit: null, expected: null }));
}
