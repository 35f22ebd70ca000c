/**
 * @file Edits and what may happen to them: draft → checked → committed → retired, and back to draft.
 */
import type { Edit, HistoryEntry, InfluenceMap, PreviewAnswers, Probe, Reach } from '../api/contract.ts';
import { EmendError } from '../errors.ts';
import { sameAnswer } from '../evaluation/exactMatch.ts';
import { type Check, demandCommitted, latestCheck } from './checks.ts';
import { now, prepared, type Store } from './database.ts';
import { signalState } from './freshness.ts';
import { historyOf, remember } from './history.ts';
import { asEdit } from './listedEdits.ts';
import { recordCreation, recordOperation } from './operations.ts';
import { demandPicture } from './pictures.ts';
import { answersOf, keepAnswers } from './previews.ts';
import { type AddedProbe, demandDraft, insertProbe } from './probes.ts';
import { refreshFreshness } from './review.ts';
import { committedInPlaceOf, type EditRow, editRow, ownProbes } from './rows.ts';
import { type DescribedInput, keepInputs, lastChange } from './scopeInputs.ts';
import { commitChanges } from './scopes.ts';
import { readSettings } from './settings.ts';
import { bindToActors, influenceOf, keepSignal, signalOf } from './signals.ts';
import { judge } from './verdict.ts';
import type { Comparison } from './watched.ts';

/** @throws EmendError 'not-found' */
export function findEdit(store: Store, id: number): Edit {
  return store.read(() => asEdit(store, editRow(store, id)));
}

/** An edit after it was changed. Called inside a `write`. */
function changed(store: Store, id: number): Edit {
  refreshFreshness(store);
  return findEdit(store, id);
}

export interface EditDetails {
  readonly edit: Edit;
  readonly probes: Probe[];
  readonly check: Check | null;
  readonly history: HistoryEntry[];
  readonly influence: InfluenceMap | null;
  readonly answers: PreviewAnswers | null;
}

/** Everything the library holds on one edit. @throws EmendError 'not-found' */
export function showEdit(store: Store, id: number): EditDetails {
  return store.read(() => {
    const row = editRow(store, id);
    return {
      edit: asEdit(store, row),
      probes: ownProbes(store, row),
      check: latestCheck(store, row),
      history: historyOf(store, id),
      influence: influenceOf(store, row) ?? null,
      answers: answersOf(store, row),
    };
  });
}

export interface NewEdit {
  readonly picture: string;
  readonly prompt: string;
  readonly target: string;
  readonly before?: string;
  readonly note?: string;
  readonly reach?: Reach;
  readonly probes?: ReadonlyArray<Omit<AddedProbe, 'edit'>>;
}

/**
 * A draft for the model and adapter that act now, with its probes.
 * @throws EmendError 'not-found' for the picture, or as `insertProbe`; nothing is kept then
 */
export function createEdit(store: Store, edit: NewEdit): Edit {
  return store.write(() => {
    const id = writeDraft(store, edit);
    recordCreation(store, `Wrote edit ${id}`, [id]);
    return changed(store, id);
  });
}

/** Writes a draft, unrecorded, and returns its number. Called inside a `write`. @throws EmendError as {@link createEdit} */
export function writeDraft(
  store: Store,
  { picture, prompt, target, before, note, reach, probes = [] }: NewEdit,
): number {
  demandPicture(store, picture);
  const at = now();
  const { model, adapter } = store.actors;
  const { lastInsertRowid } = prepared(
    store,
    `INSERT INTO edits (picture, prompt, target, before, note, reach, stage, model, adapter, created, updated)
       VALUES (?, ?, ?, ?, ?, ?, 'draft', ?, ?, ?, ?)`,
  ).run(
    picture,
    prompt,
    target,
    before ?? null,
    note ?? '',
    reach ?? readSettings(store).reach,
    model,
    adapter,
    at,
    at,
  );
  const id = Number(lastInsertRowid);
  prepared(store, `INSERT INTO probes (edit, kind, prompt) VALUES (?, 'reliability', '')`).run(id);
  const was = before === undefined ? '' : `, which was answered “${before}”`;
  remember(store, id, 'created', `“${prompt}”${was}, shall be answered “${target}”.`);
  for (const probe of probes) insertProbe(store, { edit: id, ...probe });
  return id;
}

/** Changes a draft. A new prompt or target leaves its answers and its check behind. @throws EmendError 'conflict' */
export function updateEdit(
  store: Store,
  { id, ...changes }: { id: number; prompt?: string; target?: string; note?: string; reach?: Reach },
): Edit {
  return store.write(() => {
    const old = editRow(store, id);
    demandDraft(old, 'What was committed does not change.');
    const edit = {
      prompt: changes.prompt ?? old.prompt,
      target: changes.target ?? old.target,
      note: changes.note ?? old.note,
      reach: changes.reach ?? old.reach,
    };
    const said = (['prompt', 'target', 'note', 'reach'] as const)
      .filter((field) => edit[field] !== old[field])
      .map((field) => `${field} was “${old[field]}”, is “${edit[field]}”`);
    if (said.length === 0) return changed(store, id);
    const samePrompt = edit.prompt === old.prompt;
    const sameEdit = samePrompt && edit.target === old.target;
    recordOperation(
      store,
      () => `Changed edit ${id}`,
      [id],
      () => {
        prepared(
          store,
          'UPDATE edits SET prompt = ?, target = ?, note = ?, reach = ?, before = ?, after = ?, updated = ? WHERE id = ?',
        ).run(
          edit.prompt,
          edit.target,
          edit.note,
          edit.reach,
          samePrompt ? old.before : null,
          sameEdit ? old.after : null,
          now(),
          id,
        );
      },
    );
    // The signal of what it was stays, for when the change is taken back.
    if (!sameEdit) {
      prepared(store, 'DELETE FROM edit_signals WHERE edit = ? AND state <> ?').run(
        id,
        signalState(store, old),
      );
    }
    const detail = said.join('; ');
    remember(store, id, 'changed', `${detail[0]!.toUpperCase()}${detail.slice(1)}.`);
    return changed(store, id);
  });
}

/** Replaces the note of an edit, whatever its stage: nothing that acts depends on it. @throws EmendError 'not-found' */
export function noteEdit(store: Store, id: number, note: string): Edit {
  return store.write(() => {
    const old = editRow(store, id);
    if (old.note === note) return findEdit(store, id);
    recordOperation(
      store,
      () => `Changed the note of edit ${id}`,
      [id],
      () => {
        prepared(store, 'UPDATE edits SET note = ?, updated = ? WHERE id = ?').run(note, now(), id);
      },
    );
    remember(store, id, 'changed', `Note was “${old.note}”, is “${note}”.`);
    return findEdit(store, id);
  });
}

/** An edit, and what a preview of it starts from. */
export interface EditState {
  readonly edit: EditRow;
  readonly signalState: string;
  readonly signal: Uint8Array | null;
  /** null: the editor has none; undefined: not asked for yet */
  readonly influence: InfluenceMap | null | undefined;
}

/** @throws EmendError 'not-found' */
export function editState(store: Store, id: number): EditState {
  return store.read(() => {
    const edit = editRow(store, id);
    return {
      edit,
      signalState: signalState(store, edit),
      signal: signalOf(store, edit),
      influence: influenceOf(store, edit),
    };
  });
}

/** Keeps what a preview found, unless the edit was changed while it ran. */
export function recordPreview(
  store: Store,
  state: EditState,
  found: {
    answers: PreviewAnswers;
    influence: InfluenceMap | null;
    signal: Uint8Array;
    /** the edit's own input, where the scope described it; `changes` as for `keepInputs` */
    input?: DescribedInput;
    changes?: number;
  },
): Edit {
  return store.write(() => {
    const edit = editRow(store, state.edit.id);
    if (signalState(store, edit) !== state.signalState) {
      throw new EmendError(
        'conflict',
        `Edit ${edit.id} was changed while it was previewed. Preview it again.`,
      );
    }
    keepSignal(store, edit.id, state.signalState, found.signal, found.influence);
    keepAnswers(store, edit.id, state.signalState, found.answers);
    if (found.input) keepInputs(store, [found.input], found.changes ?? -1);
    const { before, after } = found.answers;
    prepared(store, 'UPDATE edits SET before = ?, after = ?, updated = ? WHERE id = ?').run(
      before.text,
      after.text,
      now(),
      edit.id,
    );
    remember(store, edit.id, 'previewed', `Answers “${before.text}” before, “${after.text}” with the edit.`);
    bindToActors(store, edit);
    return changed(store, edit.id);
  });
}

export interface CommitOptions {
  /** why it is committed although its check does not allow it */
  readonly reason?: string;
  /** a committed edit that is retired with it; probes of that edit do not count against it */
  readonly supersede?: number;
  /** of the edit with what the library keeps, in the state it is in */
  readonly comparison?: Comparison | null;
}

/**
 * Commits an edit: it acts from now on. In one transaction its latest check must be fresh and pass, or `reason` says
 * why it need not; the reason stays on record.
 * @throws EmendError 'conflict' without either, for an edit of another model or adapter, and when another committed
 *   edit already answers the same prompt on the same picture
 */
export function commitEdit(store: Store, id: number, options: CommitOptions = {}): Edit {
  return store.write(() => {
    const comparison = options.comparison && isOfNow(store, options.comparison) ? options.comparison : null;
    const touched = options.supersede === undefined ? [id] : [id, options.supersede];
    recordOperation(
      store,
      () => `Committed edit ${id}`,
      touched,
      () => {
        commitOne(store, id, options);
      },
    );
    refreshFreshness(store, comparison);
    return changed(store, id);
  });
}

/** What came of committing several edits. */
export interface CommittedSet {
  readonly committed: number[];
  readonly refused: Array<{ edit: number; code: string; message: string }>;
  /** edits that were not looked at: what was compared no longer holds for them */
  readonly left: number[];
}

/**
 * Commits edits one after the other, in one transaction; what is wrong with one leaves the others alone. Where one of those that
 * were compared is refused, what follows it is left, for a new comparison.
 */
export function commitEdits(
  store: Store,
  ids: readonly number[],
  { reason, comparison }: Pick<CommitOptions, 'reason' | 'comparison'>,
): CommittedSet {
  return store.write(() => {
    const holds = comparison && isOfNow(store, comparison) ? comparison : null;
    const committed: number[] = [];
    const refused: CommittedSet['refused'] = [];
    let left: number[] = [];
    recordOperation(
      store,
      (edits) => `Committed ${edits} edits`,
      ids,
      () => {
        for (const [place, id] of ids.entries()) {
          try {
            store.write(() => {
              commitOne(store, id, { reason });
              refreshFreshness(store, holds);
            });
            committed.push(id);
          } catch (error) {
            if (!(error instanceof EmendError)) throw error;
            refused.push({ edit: id, code: error.code, message: error.message });
            if (!holds?.edits.includes(id)) continue;
            left = ids.slice(place + 1);
            break;
          }
        }
      },
    );
    return { committed, refused, left };
  });
}

/** Whether a comparison was made in the state the library is in. */
function isOfNow(store: Store, { commits, inputs }: Comparison): boolean {
  return commits === commitChanges(store) && inputs === lastChange(store);
}

/** Commits an edit, unrecorded. Called inside a `write`. @throws EmendError as {@link commitEdit} */
function commitOne(store: Store, id: number, { reason, supersede }: CommitOptions): void {
  const edit = editRow(store, id);
  demandDraft(edit, '');
  demandActors(store, edit);
  const unmet = whyNot(store, edit, supersede);
  if (supersede !== undefined) retireSuperseded(store, edit, supersede);
  const older = committedInPlaceOf(store, edit);
  if (older) {
    throw new EmendError(
      'conflict',
      `Edit ${older.id} is committed for the same prompt on the same picture (“${older.target}”). Retire edit ${older.id} first, or commit this one in its place.`,
    );
  }
  if (unmet !== null && reason === undefined) {
    throw new EmendError(
      'conflict',
      `Edit ${id} ${unmet}. Run its check, or give a written reason to commit it anyway.`,
    );
  }
  const at = now();
  prepared(
    store,
    `UPDATE edits SET stage = 'committed', committed = ?, override_reason = ?, updated = ? WHERE id = ?`,
  ).run(at, unmet === null ? null : reason, at, id);
  const inPlace = supersede === undefined ? '' : ` in place of edit ${supersede}`;
  const how =
    unmet === null
      ? `Committed${inPlace} with a passing check.`
      : `Committed${inPlace} although it ${unmet}: ${reason}`;
  remember(store, id, 'committed', reason !== undefined && unmet === null ? `${how} ${reason}` : how);
}

/** @throws EmendError 'conflict' unless the edit was made for the model and adapter that are open */
function demandActors(store: Store, edit: EditRow): void {
  if (store.actors.adapter === '') {
    throw new EmendError(
      'conflict',
      `No adapter is open, so edit ${edit.id} could not act. Open a model with its adapter.`,
    );
  }
  if (edit.model !== store.actors.model || edit.adapter !== store.actors.adapter) {
    throw new EmendError(
      'conflict',
      `Edit ${edit.id} was made for another model or adapter than the one open. Open that one, or check the edit with this one first.`,
    );
  }
}

function retireSuperseded(store: Store, edit: EditRow, superseded: number): void {
  demandCommitted(store, superseded);
  retireOne(store, superseded, `superseded by edit ${edit.id}`);
}

/** What stands against committing on the latest check; null when nothing does. */
function whyNot(store: Store, edit: EditRow, supersede: number | undefined): string | null {
  const check = latestCheck(store, edit);
  if (!check) return 'was not checked';
  if (!check.fresh) {
    const by = check.staleBy.length > 0 ? `, by edit ${check.staleBy.join(', ')}` : '';
    return `has a stale check (${check.staleBecause.join(', ')} changed since${by})`;
  }
  if (check.supersede !== null && check.supersede !== supersede)
    return `was checked to be committed in place of edit ${check.supersede}`;
  const counted = supersede === undefined || check.supersede === supersede;
  const groups = counted ? check.groups : groupsWithout(store, check, supersede);
  const short = groups.filter((group) => !group.passes).map((group) => group.kind);
  return short.length > 0 ? `has a failing check (${short.join(', ')})` : null;
}

/** A check's groups without the probes of an edit that is to be retired. */
function groupsWithout(store: Store, check: Check, superseded: number): Check['groups'] {
  const results = check.results.filter(({ owner }) => owner !== superseded);
  // Of an editor that holds by construction nothing more need be said here.
  return judge(results, readSettings(store).policy, '', check.unchanged).groups;
}

/** The committed edit that stands against another: it acts on the other's input, or has the same, and answers otherwise. */
export function conflictWith(
  store: Store,
  edit: { id: number; target: string },
  acting: number | null,
): { edit: number; target: string } | null {
  return store.read(() => {
    const found =
      acting === null ? committedInPlaceOf(store, editRow(store, edit.id)) : editRow(store, acting);
    if (!found || found.id === edit.id || sameAnswer(found.target, edit.target)) return null;
    return { edit: found.id, target: found.target };
  });
}

/** A retired edit does not act; its history stays. @throws EmendError 'conflict' when it is retired already */
export function retireEdit(store: Store, id: number, reason?: string): Edit {
  return store.write(() => {
    recordOperation(
      store,
      () => `Retired edit ${id}`,
      [id],
      () => retireOne(store, id, reason),
    );
    return changed(store, id);
  });
}

/** Retires an edit, unrecorded. Called inside a `write`. @throws EmendError as {@link retireEdit} */
export function retireOne(store: Store, id: number, reason?: string): void {
  const edit = editRow(store, id);
  if (edit.stage === 'retired') throw new EmendError('conflict', `Edit ${id} is retired already.`);
  prepared(store, `UPDATE edits SET stage = 'retired', updated = ? WHERE id = ?`).run(now(), id);
  remember(store, id, 'retired', reason?.trim() ? `Retired: ${reason.trim()}` : 'Retired.');
}

/**
 * Makes a retired edit a draft again. One that was committed needs a new check; a draft keeps the one it had.
 * @throws EmendError 'conflict' when it is not retired
 */
export function restoreEdit(store: Store, id: number): Edit {
  return store.write(() => {
    recordOperation(
      store,
      () => `Restored edit ${id}`,
      [id],
      () => restoreOne(store, id),
    );
    return changed(store, id);
  });
}

/** Restores an edit, unrecorded. Called inside a `write`. @throws EmendError as {@link restoreEdit} */
export function restoreOne(store: Store, id: number): void {
  const edit = editRow(store, id);
  if (edit.stage !== 'retired') throw new EmendError('conflict', `Edit ${id} is not retired.`);
  const acted = edit.committed !== null;
  prepared(
    store,
    `UPDATE edits SET stage = 'draft', committed = NULL, override_reason = NULL, restored = restored + ?, updated = ? WHERE id = ?`,
  ).run(acted ? 1 : 0, now(), id);
  const detail = acted ? 'Restored as a draft; it needs a new check.' : 'Restored as a draft.';
  remember(store, id, 'restored', detail);
}

/** Keeps a signal the engine computed; for `influence` see `keepSignal`. */
export function recordSignal(
  store: Store,
  { edit, signalState: state }: EditState,
  signal: Uint8Array,
  influence?: InfluenceMap | null,
): void {
  store.keep(() => keepSignal(store, edit.id, state, signal, influence));
}
