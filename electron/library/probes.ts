/**
 * @file The inputs a check asks: the edit's own probes, the standing set, and those of every committed edit.
 */
import type { Probe, ProbeKind } from '../api/contract.ts';
import { EmendError } from '../errors.ts';
import { normaliseAnswer } from '../evaluation/exactMatch.ts';
import { prepared, type Store } from './database.ts';
import { remember } from './history.ts';
import { recordOperation } from './operations.ts';
import { demandPicture } from './pictures.ts';
import { type EditRow, editRow, mustChange, ownProbes, standingProbes } from './rows.ts';

/** A probe of one check. */
export interface PlannedProbe {
  readonly probe: Probe;
  /** for kind `committed`: the edit whose probe it is */
  readonly owner: number | null;
}

/** On how many pictures of the standing set the edit's own prompt is asked. */
const SAME_QUESTION_PICTURES = 6;

const inputKey = (picture: string | null, prompt: string): string =>
  `${picture ?? ''} ${normaliseAnswer(prompt)}`;

/**
 * The probes a check of `edit` runs, in order: its own, the standing set, its picture with the standing questions
 * (where VisEdit leaks by construction), and its prompt on pictures of the standing set. Ids are those of the stored probes; the
 * edit's prompt on standing pictures, which is stored nowhere, counts down from -1. A standing input that the edit means to
 * change is left out.
 */
export function probesOf(store: Store, edit: EditRow): PlannedProbe[] {
  const own = ownProbes(store, edit);
  const taken = inputsOf(own);
  const standing = standingProbes(store);

  const unchanged = standing
    .map((probe) => (probe.kind === 'same-picture' ? { ...probe, picture: edit.picture } : probe))
    .filter((probe) => !taken.has(inputKey(probe.picture, probe.prompt)));

  const pictures = new Set(standing.flatMap((probe) => (probe.picture === null ? [] : [probe.picture])));
  const sameQuestion = [...pictures]
    .filter((picture) => picture !== edit.picture && !taken.has(inputKey(picture, edit.prompt)))
    .slice(0, SAME_QUESTION_PICTURES)
    .map((picture, index): Probe => {
      const kind = 'same-question';
      return { id: -1 - index, edit: null, kind, picture, prompt: edit.prompt, expected: null };
    });
  return [...own, ...unchanged, ...sameQuestion].map((probe) => ({ probe, owner: null }));
}

/**
 * Probes of other edits that act, of one input: they must still be answered as they are. Those that ask for no change where this
 * edit means to make one are left out, as are those of the edit it is to replace (`supersede`).
 */
export function committedProbesAt(
  store: Store,
  edit: EditRow,
  { picture, prompt }: { picture: string; prompt: string },
  supersede: number | null = null,
): PlannedProbe[] {
  const { model, adapter } = store.actors;
  const acts = `edits.stage = 'committed' AND edits.model = ? AND edits.adapter = ? AND edits.id NOT IN (?, ?)`;
  const acting = [model, adapter, edit.id, supersede ?? 0];
  const taken = inputsOf(ownProbes(store, edit)).has(inputKey(picture, prompt));
  return prepared<unknown[], { id: number; owner: number; kind: ProbeKind }>(
    store,
    `SELECT probes.id, edits.id AS owner, kind FROM edits JOIN probes ON probes.edit = edits.id AND kind = 'reliability'
         WHERE edits.picture = ? AND edits.prompt = ? AND ${acts}
       UNION SELECT probes.id, edits.id AS owner, kind FROM probes JOIN edits ON edits.id = probes.edit
         WHERE probes.picture = ? AND probes.prompt = ? AND kind <> 'reliability' AND ${acts} ORDER BY 2, 1`,
  )
    .all(picture, prompt, ...acting, picture, prompt, ...acting)
    .filter(({ kind }) => mustChange.has(kind) || !taken)
    .map(({ id, owner }) => ({
      probe: { id, edit: owner, kind: 'committed', picture, prompt, expected: null },
      owner,
    }));
}

/** As {@link committedProbesAt}, all probes of a committed edit. */
export function allCommittedProbes(store: Store, edit: EditRow, owner: number): PlannedProbe[] {
  const taken = inputsOf(ownProbes(store, edit));
  return ownProbes(store, editRow(store, owner))
    .filter(({ kind, picture, prompt }) => mustChange.has(kind) || !taken.has(inputKey(picture, prompt)))
    .map(({ id, picture, prompt }) => ({
      probe: { id, edit: owner, kind: 'committed', picture, prompt, expected: null },
      owner,
    }));
}

/** How many probes the other edits that act have, less those that ask for no change where this edit means to make one. */
export function countCommittedProbes(store: Store, edit: EditRow, supersede: number | null = null): number {
  const { model, adapter } = store.actors;
  const { count } = prepared<[string, string, number, number], { count: number }>(
    store,
    `SELECT count(*) AS count FROM edits JOIN probes ON probes.edit = edits.id
       WHERE stage = 'committed' AND model = ? AND adapter = ? AND edits.id NOT IN (?, ?)`,
  ).get(model, adapter, edit.id, supersede ?? 0)!;
  return count - leftOut(store, edit, supersede);
}

function leftOut(store: Store, edit: EditRow, supersede: number | null): number {
  const { model, adapter } = store.actors;
  const at = prepared<unknown[], { prompt: string; kind: ProbeKind }>(
    store,
    `SELECT probes.prompt, kind FROM probes JOIN edits ON edits.id = probes.edit
     WHERE probes.picture IS ? AND kind <> 'reliability' AND stage = 'committed' AND model = ? AND adapter = ? AND edits.id NOT IN (?, ?)`,
  );
  const own = ownProbes(store, edit);
  const taken = inputsOf(own);
  return [...new Set(own.map(({ picture }) => picture))].reduce((sum, picture) => {
    const rows = at.all(picture, model, adapter, edit.id, supersede ?? 0);
    const out = rows.filter(
      ({ kind, prompt }) => !mustChange.has(kind) && taken.has(inputKey(picture, prompt)),
    );
    return sum + out.length;
  }, 0);
}

const inputsOf = (probes: readonly Probe[]): Set<string> =>
  new Set(probes.map((probe) => inputKey(probe.picture, probe.prompt)));

type AddedKind = Exclude<ProbeKind, 'committed' | 'reliability'>;

/** A probe to be added to an edit. Kinds asked of the edit's own picture take `picture` null. */
export interface AddedProbe {
  readonly edit: number;
  readonly kind: AddedKind;
  readonly picture: string | null;
  readonly prompt: string;
}

/**
 * Adds a probe to an edit that is not committed; its check is stale from then on.
 * @throws EmendError 'not-found', 'conflict' for a committed or retired edit or a probe it already has,
 *   'invalid-input' where kind and picture do not go together
 */
export function addProbe(store: Store, added: AddedProbe): Probe {
  return store.write(() => {
    editRow(store, added.edit);
    const label = () => `Added a probe to edit ${added.edit}`;
    return recordOperation(store, label, [added.edit], () => {
      const id = insertProbe(store, added);
      remember(store, added.edit, 'probe-added', `Probe of ${added.kind} added: “${added.prompt}”.`);
      return ownProbes(store, editRow(store, added.edit)).find((probe) => probe.id === id)!;
    });
  });
}

/** Adds a probe, unrecorded, and returns its number. Called inside a `write`. @throws EmendError as {@link addProbe} */
export function insertProbe(store: Store, added: AddedProbe): number {
  const edit = editRow(store, added.edit);
  demandDraft(edit, 'Its probes belong to what was checked.');
  const picture = pictureFor(added.kind, added.picture, edit);
  if (picture !== null) demandPicture(store, picture);
  const key = inputKey(picture, added.prompt);
  if (ownProbes(store, edit).some((probe) => inputKey(probe.picture, probe.prompt) === key)) {
    throw new EmendError(
      'conflict',
      `Edit ${edit.id} already asks this prompt of this picture. Change the prompt.`,
    );
  }
  const { lastInsertRowid } = prepared(
    store,
    'INSERT INTO probes (edit, kind, picture, prompt) VALUES (?, ?, ?, ?)',
  ).run(edit.id, added.kind, picture, added.prompt);
  return Number(lastInsertRowid);
}

function pictureFor(kind: AddedKind, picture: string | null, edit: EditRow): string | null {
  switch (kind) {
    case 'text-generality':
    case 'same-picture':
      if (picture === null || picture === edit.picture) return edit.picture;
      throw new EmendError(
        'invalid-input',
        `A probe of ${kind} is asked of the edit's own picture. Leave out the picture.`,
      );
    case 'text-locality':
      if (picture === null) return null;
      throw new EmendError('invalid-input', 'A probe of text-locality has no picture. Leave it out.');
    default:
      if (picture !== null && picture !== edit.picture) return picture;
      throw new EmendError(
        'invalid-input',
        `A probe of ${kind} needs a picture other than the edit's. Choose one.`,
      );
  }
}

/**
 * Takes a probe from an edit that is not committed.
 * @throws EmendError 'not-found', 'conflict' for the reliability probe, the standing set and committed edits
 */
export function removeProbe(store: Store, id: number): void {
  store.write(() => {
    const row = prepared<[number], { edit: number | null; kind: ProbeKind; prompt: string }>(
      store,
      'SELECT edit, kind, prompt FROM probes WHERE id = ?',
    ).get(id);
    if (!row) throw new EmendError('not-found', `There is no probe ${id} in this library.`);
    if (row.edit === null) {
      throw new EmendError('conflict', `Probe ${id} is of the standing set, which every check runs.`);
    }
    if (row.kind === 'reliability') {
      throw new EmendError(
        'conflict',
        `Probe ${id} is edit ${row.edit} itself. Change or retire the edit instead.`,
      );
    }
    demandDraft(editRow(store, row.edit), 'Its probes belong to what was checked.');
    recordOperation(
      store,
      () => `Removed a probe of edit ${row.edit}`,
      [row.edit],
      () => {
        prepared(store, 'DELETE FROM probes WHERE id = ?').run(id);
      },
    );
    remember(store, row.edit, 'probe-removed', `Probe of ${row.kind} removed: “${row.prompt}”.`);
  });
}

/** @throws EmendError 'conflict' unless the edit is a draft in the wide sense: neither committed nor retired */
export function demandDraft(edit: EditRow, why: string): void {
  if (edit.stage === 'committed') {
    throw new EmendError('conflict', `Edit ${edit.id} is committed. ${why} Retire and restore it first.`);
  }
  if (edit.stage === 'retired')
    throw new EmendError('conflict', `Edit ${edit.id} is retired. Restore it first.`);
}

export interface StandingProbe {
  readonly kind: 'text-locality' | 'image-locality' | 'same-picture';
  /** null for text-locality, and for same-picture, which is asked of the edit's own picture */
  readonly picture: string | null;
  readonly prompt: string;
}

/** Gives a library that has no standing set one. Returns whether it did. */
export function seedStandingProbes(store: Store, probes: readonly StandingProbe[]): boolean {
  return store.write(() => {
    if (standingProbes(store).length > 0) return false;
    const insert = prepared(store, 'INSERT INTO probes (edit, kind, picture, prompt) VALUES (NULL, ?, ?, ?)');
    for (const { kind, picture, prompt } of probes) {
      if (picture !== null) demandPicture(store, picture);
      insert.run(kind, picture, prompt);
    }
    return probes.length > 0;
  });
}
