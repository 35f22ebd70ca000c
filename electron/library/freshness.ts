/**
 * @file The one state a check belongs to. What of it is the edit's own is compared when the edit changes; what all checks have in common
 * is kept once, by number, and compared when they are read.
 */
import { createHash } from 'node:crypto';
import { type EditStatus, type Probe, StaleReason } from '../api/contract.ts';
import { parseStored, prepared, type Store } from './database.ts';
import { type EditRow, editRow, ownProbes, standingProbes } from './rows.ts';
import { scopeOf } from './scopes.ts';
import { readSettings } from './settings.ts';

/** Goes up when the probes a check runs are chosen in another way: older checks are stale then. */
const PLAN_VERSION = 3;

const digest = (value: unknown): string => createHash('sha256').update(JSON.stringify(value)).digest('hex');

const probeContent = ({ kind, picture, prompt }: Probe) => [kind, picture, prompt];

function editContent({ id, restored, picture, prompt, target, reach }: EditRow): unknown[] {
  return [id, restored, picture, prompt, target, reach];
}

const probesOfEdit = (store: Store, edit: EditRow) => ownProbes(store, edit).map(probeContent);

/** What of a state a fingerprint tells; what committed edits mean for a check is kept with its inputs. */
type Ingredient = Exclude<StaleReason, 'committed-edits'>;
type Own = Readonly<Record<'edit' | 'probes', string>>;
type Shared = Readonly<Record<Exclude<Ingredient, keyof Own>, string>>;

/** Digests tell ingredients apart; they guard nothing, and 64 bits are plenty. */
const short = (value: unknown): string => digest(value).slice(0, 16);

/** What every edit's state has in common: model, adapter, scope, template and length of answers, policy and the standing set. */
function sharedFingerprint(store: Store): Shared {
  const settings = readSettings(store);
  return {
    plan: short(PLAN_VERSION),
    model: short(store.actors.model),
    adapter: short(store.actors.adapter),
    scope: short(scopeOf(store)?.fingerprint ?? ''),
    prompts: short([store.template, settings.maxNewTokens]),
    policy: short(Object.entries(settings.policy.required).sort()),
    'standing-probes': short(standingProbes(store).map(probeContent)),
  };
}

const ownFingerprint = (store: Store, edit: EditRow): Own => ({
  edit: short(editContent(edit)),
  probes: short(probesOfEdit(store, edit)),
});

/** The fingerprint of the state a check of `edit` would belong to now: the digests of its ingredients, as JSON, its own at the end. */
export function stateFingerprint(store: Store, edit: EditRow): string {
  return JSON.stringify({ ...sharedFingerprint(store), ...ownFingerprint(store, edit) });
}

/** A fingerprint without what is the edit's own, which stands at its end: what {@link sharedFingerprint} says, as JSON. */
const sharedPart = (fingerprint: string): string =>
  fingerprint.replace(/,"edit":"[^"]*","probes":"[^"]*"\}$/u, '}');

/** The number of the state that a fingerprint shares with others. Called inside a `write`. */
export function keepState(store: Store, fingerprint: string): number {
  const shared = sharedPart(fingerprint);
  prepared(store, 'INSERT INTO check_states (shared) VALUES (?) ON CONFLICT DO NOTHING').run(shared);
  return stateNumber(store, shared)!;
}

const stateNumber = (store: Store, shared: string): number | undefined =>
  prepared<[string], number>(store, 'SELECT id FROM check_states WHERE shared = ?').pluck().get(shared);

/** What decides, beside an edit's own row, whether its latest check is stale for whoever asks. */
export interface PresentState {
  /** number of what checks of now have in common; 0 while there is no such check */
  readonly state: number;
  /** checks planned before the committed set had changed so often do not know of an edit that nothing was compared with */
  readonly commits: number;
}

/** As the model, adapter and form of prompts of this program have it, under the library's settings. */
export function presentState(store: Store): PresentState {
  return {
    state: stateNumber(store, JSON.stringify(sharedFingerprint(store))) ?? 0,
    commits: Math.max(0, ...unplacedActing(store).map(({ commits }) => commits)),
  };
}

/** Committed edits of the model and adapter that act, with which nothing was compared yet. */
export function unplacedActing(store: Store): Array<{ edit: number; commits: number }> {
  const { model, adapter } = store.actors;
  return prepared<[string, string], { edit: number; commits: number }>(
    store,
    // in this order: few are unplaced, and many may be committed
    `SELECT edit, commits FROM unplaced CROSS JOIN edits ON edits.id = edit
       WHERE stage = 'committed' AND model = ? AND adapter = ? ORDER BY edit`,
  ).all(model, adapter);
}

/** Whether the check behind a row of `edits` belongs to another state, or an edit is not known to it; as SQL. */
export const elsewhere = (state: number | '?', commits: number | '?'): string =>
  `(check_state <> ${state} OR check_commits < ${commits})`;

/** The status of a row of `edits` in a state, as SQL: what is stored is its status where that is the state of its check. */
export const statusIn = (state: number | '?', commits: number | '?'): string =>
  `iif(edits.status IN ('checked', 'failed') AND ${elsewhere(state, commits)}, 'stale', edits.status)`;

/** Whether there is a draft whose check counts in some state. */
export function hasChecks(store: Store): boolean {
  const sql = `SELECT 1 FROM edit_counts WHERE status IN ('checked', 'failed') AND edits > 0 LIMIT 1`;
  return prepared(store, sql).get() !== undefined;
}

/** How an edit stands now. */
export function statusOf(store: Store, edit: number): EditStatus {
  const { state, commits } = presentState(store);
  return prepared<[number, number, number], EditStatus>(
    store,
    `SELECT ${statusIn('?', '?')} FROM edits WHERE id = ?`,
  )
    .pluck()
    .get(state, commits, edit)!;
}

/** What an edit signal was computed from; the key under which the library keeps it. */
export function signalState(
  store: Store,
  { picture, prompt, target }: Pick<EditRow, 'picture' | 'prompt' | 'target'>,
): string {
  const { model, adapter } = store.actors;
  return digest([model, adapter, store.template, picture, prompt, target]);
}

export interface LatestCheck {
  readonly id: number;
  readonly edit: number;
  readonly verdict: 'passes' | 'fails';
  readonly staleBecause: readonly StaleReason[];
  /** the edits by which one of its inputs would be answered otherwise now */
  readonly staleBy: readonly number[];
}

/** The latest check of one edit, with all that makes it stale now. */
export function latestCheckOf(store: Store, edit: number): LatestCheck | null {
  const row = checkRow(store, edit);
  if (!row) return null;
  const { id, verdict, fingerprint, commits } = row;
  const where = `check ${id}`;
  const unknown = unplacedActing(store).filter((other) => other.commits > commits && other.edit !== edit);
  const reasons = new Set([
    ...sharedDifferences(sharedPart(fingerprint), sharedFingerprint(store)),
    ...parseStored<StaleReason[]>(row.staleBecause, where),
    ...(unknown.length > 0 ? (['committed-edits'] as const) : []),
  ]);
  const by = new Set([...parseStored<number[]>(row.staleBy, where), ...unknown.map((other) => other.edit)]);
  return {
    ...{ id, edit, verdict },
    staleBecause: StaleReason.options.filter((reason) => reasons.has(reason)),
    staleBy: [...by].toSorted((a, b) => a - b),
  };
}

/** In what of what checks have in common one differs from now. One that does not tell comes from another version. */
function sharedDifferences(was: string, now: Shared): StaleReason[] {
  let then: Partial<Shared>;
  try {
    then = JSON.parse(was) as Partial<Shared>;
  } catch {
    return ['plan'];
  }
  if (then.plan === undefined) return ['plan'];
  return (Object.keys(now) as Array<keyof Shared>).filter((name) => then[name] !== now[name]);
}

/**
 * Writes anew what makes the latest checks of the given edits stale, as far as it is theirs: the edit, its probes, and committed edits.
 * Called inside the `write` that changes something.
 */
export function reviewFreshness(store: Store, edits: readonly number[]): void {
  for (const edit of edits) {
    const check = checkRow(store, edit);
    if (!check) continue;
    const by = staleBy(store, edit);
    const because = ownDifferences(check.fingerprint, ownFingerprint(store, editRow(store, edit)));
    if (by.length > 0 || check.overtaken === 1) because.push('committed-edits');
    const [told, toldBy] = [JSON.stringify(because), JSON.stringify(by.filter((one) => one !== 0))];
    if (told === check.staleBecause && toldBy === check.staleBy) continue;
    prepared(store, 'UPDATE checks SET stale_because = ?, stale_by = ? WHERE id = ?').run(
      told,
      toldBy,
      check.id,
    );
  }
}

function ownDifferences(was: string, now: Own): StaleReason[] {
  let then: Partial<Own>;
  try {
    then = JSON.parse(was) as Partial<Own>;
  } catch {
    // The plan differs, and that is told.
    return [];
  }
  return (Object.keys(now) as Array<keyof Own>).filter((name) => then[name] !== now[name]);
}

interface CheckRow {
  readonly id: number;
  readonly verdict: 'passes' | 'fails';
  readonly fingerprint: string;
  /** JSON list of StaleReason */
  readonly staleBecause: string;
  /** JSON list of edits */
  readonly staleBy: string;
  readonly overtaken: number;
  readonly commits: number;
}

const checkRow = (store: Store, edit: number): CheckRow | undefined =>
  prepared<[number], CheckRow>(
    store,
    `SELECT id, verdict, fingerprint, stale_because AS staleBecause, stale_by AS staleBy, overtaken, commits
       FROM checks WHERE id = (SELECT last_check FROM edits WHERE id = ?)`,
  ).get(edit);

/** The edits by which one of the inputs of an edit's check would be answered otherwise now; 0 for one that is not known. */
const staleBy = (store: Store, edit: number): number[] =>
  prepared<[number], number>(
    store,
    'SELECT DISTINCT stale_by FROM watched WHERE edit = ? AND stale_by IS NOT NULL',
  )
    .pluck()
    .all(edit);
