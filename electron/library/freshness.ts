/**
 * @file The one state a check belongs to. A check is fresh while the fingerprint of that state, made anew, is its own.
 */
import { createHash } from 'node:crypto';
import type { EditStatus, Probe } from '../api/contract.ts';
import type { Store } from './database.ts';
import { actingRows, type EditRow, ownProbes, standingProbes } from './rows.ts';
import { readSettings } from './settings.ts';

/** Goes up when the probes a check runs are chosen in another way: older checks are stale then. */
const PLAN_VERSION = 1;

const digest = (value: unknown): string => createHash('sha256').update(JSON.stringify(value)).digest('hex');

const probeContent = ({ kind, picture, prompt }: Probe) => [kind, picture, prompt];

function editContent(store: Store, edit: EditRow): unknown[] {
  const { id, restored, picture, prompt, target } = edit;
  return [id, restored, picture, prompt, target, ownProbes(store, edit).map(probeContent)];
}

/**
 * What every edit's state has in common: model, adapter, template, length of answers, policy, the standing set, and
 * the edits that act, in order, with their contents. `except`: the edit that is looked at, should it act itself.
 */
export function sharedFingerprint(store: Store, except: number | null): string {
  const settings = readSettings(store);
  const acting = actingRows(store).filter((edit) => edit.id !== except);
  return digest([
    PLAN_VERSION,
    store.actors.model,
    store.actors.adapter,
    settings.promptTemplate,
    settings.maxNewTokens,
    Object.entries(settings.policy.required).sort(),
    standingProbes(store).map(probeContent),
    acting.map((edit) => editContent(store, edit)),
  ]);
}

/** The fingerprint of the state a check of `edit` would belong to now. */
export function stateFingerprint(
  store: Store,
  edit: EditRow,
  shared: string = sharedFingerprint(store, edit.id),
): string {
  return digest([shared, editContent(store, edit)]);
}

/** What an edit signal was computed from; the key under which the library keeps it. */
export function signalState(store: Store, { picture, prompt, target }: EditRow): string {
  const { model, adapter } = store.actors;
  return digest([model, adapter, readSettings(store).promptTemplate, picture, prompt, target]);
}

/** Names the edits that act now and their contents: it changes when they do. */
export function actingKey(store: Store): string {
  return store.read(() =>
    JSON.stringify(actingRows(store).map((edit) => [edit.id, signalState(store, edit)])),
  );
}

export interface LatestCheck {
  readonly id: number;
  readonly edit: number;
  readonly verdict: 'passes' | 'fails';
  readonly fingerprint: string;
}

/** The latest check of each edit that has one. */
export function latestChecks(store: Store): Map<number, LatestCheck> {
  const rows = store.database
    .prepare<[], LatestCheck>(
      'SELECT id, edit, verdict, fingerprint FROM checks WHERE id IN (SELECT max(id) FROM checks GROUP BY edit)',
    )
    .all();
  return new Map(rows.map((row) => [row.edit, row]));
}

/** The status people see: for a draft it follows from its latest check and whether that is fresh. */
export function statusOf(
  edit: EditRow,
  check: LatestCheck | undefined,
  fingerprint: () => string,
): EditStatus {
  if (edit.stage !== 'draft') return edit.stage;
  if (!check) return 'draft';
  if (check.fingerprint !== fingerprint()) return 'stale';
  return check.verdict === 'passes' ? 'checked' : 'failed';
}
