/**
 * @file The one state a check belongs to. A check is fresh while the fingerprint of that state, made anew, is its own.
 */
import { createHash } from 'node:crypto';
import { type EditStatus, type Probe, StaleReason } from '../api/contract.ts';
import type { Store } from './database.ts';
import { actingRows, type EditRow, ownProbes, standingProbes } from './rows.ts';
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
