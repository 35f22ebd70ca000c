/**
 * @file The one state a check belongs to. A check is fresh while the fingerprint of that state, made anew, is its own.
 */
import { createHash } from 'node:crypto';
import { type Probe, StaleReason } from '../api/contract.ts';
import type { Store } from './database.ts';
import { actingRows, type EditRow, editRow, ownProbes, standingProbes } from './rows.ts';
import { readSettings } from './settings.ts';

/** Goes up when the probes a check runs are chosen in another way: older checks are stale then. */
const PLAN_VERSION = 2;

const digest = (value: unknown): string => createHash('sha256').update(JSON.stringify(value)).digest('hex');

const probeContent = ({ kind, picture, prompt }: Probe) => [kind, picture, prompt];

function editContent({ id, restored, picture, prompt, target }: EditRow): unknown[] {
  return [id, restored, picture, prompt, target];
}

const probesOfEdit = (store: Store, edit: EditRow) => ownProbes(store, edit).map(probeContent);

type Ingredient = StaleReason;
type Shared = Readonly<Record<Exclude<Ingredient, 'edit' | 'probes'>, string>>;

/** Digests tell ingredients apart; they guard nothing, and 64 bits are plenty. */
const short = (value: unknown): string => digest(value).slice(0, 16);

/**
 * What every edit's state has in common: model, adapter, template and length of answers, policy, the standing set, and
 * the edits that act, in order, with their contents. `except`: the edit that is looked at, should it act itself.
 */
export function sharedFingerprint(store: Store, except: number | null): Shared {
  const settings = readSettings(store);
  const acting = actingRows(store).filter((edit) => edit.id !== except);
  return {
    plan: short(PLAN_VERSION),
    model: short(store.actors.model),
    adapter: short(store.actors.adapter),
    prompts: short([store.template, settings.maxNewTokens]),
    policy: short(Object.entries(settings.policy.required).sort()),
    'standing-probes': short(standingProbes(store).map(probeContent)),
    'committed-edits': short(acting.map((edit) => [editContent(edit), probesOfEdit(store, edit)])),
  };
}

/** The fingerprint of the state a check of `edit` would belong to now: the digests of its ingredients, as JSON. */
export function stateFingerprint(
  store: Store,
  edit: EditRow,
  shared: Shared = sharedFingerprint(store, edit.id),
): string {
  const whole: Readonly<Record<Ingredient, string>> = {
    ...shared,
    edit: short(editContent(edit)),
    probes: short(probesOfEdit(store, edit)),
  };
  return JSON.stringify(whole);
}

/** In what two fingerprints differ. One that is no list of ingredients comes from another version. */
export function differences(was: string, is: string): StaleReason[] {
  if (was === is) return [];
  const now = JSON.parse(is) as Record<Ingredient, string>;
  let then: Partial<typeof now>;
  try {
    then = JSON.parse(was) as Partial<typeof now>;
  } catch {
    return ['plan'];
  }
  return StaleReason.options.filter((name) => then[name] !== now[name]);
}

/** What an edit signal was computed from; the key under which the library keeps it. */
export function signalState(store: Store, { picture, prompt, target }: EditRow): string {
  const { model, adapter } = store.actors;
  return digest([model, adapter, store.template, picture, prompt, target]);
}

/** Names the edits that act now and their contents: it changes when they do. */
export function actingKey(store: Store): string {
  return store.read(() =>
    JSON.stringify(actingRows(store).map((edit) => [edit.id, signalState(store, edit)])),
  );
}

/**
 * Writes to each check that decides the status of a draft why it is stale, if that changed. Called inside the transaction
 * of what may have changed it.
 */
export function refreshFreshness(store: Store): void {
  const checks = store.database
    .prepare<[], { id: number; edit: number; fingerprint: string; staleBecause: string }>(
      `SELECT checks.id, edit, fingerprint, stale_because AS staleBecause FROM edits JOIN checks ON checks.id = last_check`,
    )
    .all();
  if (checks.length === 0) return;
  const update = store.database.prepare('UPDATE checks SET stale_because = ? WHERE id = ?');
  const shared = sharedFingerprint(store, null);
  for (const { id, edit, fingerprint, staleBecause } of checks) {
    const row = editRow(store, edit);
    const common = row.stage === 'committed' ? sharedFingerprint(store, edit) : shared;
    const because = JSON.stringify(differences(fingerprint, stateFingerprint(store, row, common)));
    if (because !== staleBecause) update.run(because, id);
  }
}
