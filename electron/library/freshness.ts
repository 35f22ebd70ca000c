/**
 * @file The one state a check belongs to. A check is fresh while the fingerprint of that state, made anew, is its own.
 */
import { createHash } from 'node:crypto';
import { type Probe, StaleReason } from '../api/contract.ts';
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
type Shared = Readonly<Record<Exclude<Ingredient, 'edit' | 'probes'>, string>>;

/** Digests tell ingredients apart; they guard nothing, and 64 bits are plenty. */
const short = (value: unknown): string => digest(value).slice(0, 16);

/** What every edit's state has in common: model, adapter, scope, template and length of answers, policy and the standing set. */
export function sharedFingerprint(store: Store): Shared {
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

/** The fingerprint of the state a check of `edit` would belong to now: the digests of its ingredients, as JSON. */
export function stateFingerprint(
  store: Store,
  edit: EditRow,
  shared: Shared = sharedFingerprint(store),
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
  return StaleReason.options.filter((name) => name !== 'committed-edits' && then[name] !== now[name]);
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
  readonly fingerprint: string;
  /** JSON list of StaleReason */
  readonly staleBecause: string;
  /** JSON list of edits */
  readonly staleBy: string;
}

/** The latest check of one edit. */
export function latestCheckOf(store: Store, edit: number): LatestCheck | null {
  return checksOf(store, [edit])[0] ?? null;
}

/**
 * Writes anew why the latest checks of the given edits are stale. Called inside the `write` that changes something.
 */
export function reviewFreshness(store: Store, edits: readonly number[]): void {
  const shared = sharedFingerprint(store);
  for (const check of checksOf(store, edits)) {
    const because = differences(
      check.fingerprint,
      stateFingerprint(store, editRow(store, check.edit), shared),
    );
    keepReview(store, check, because, staleBy(store, check));
  }
}

/** Latest checks looked at together. */
const AT_ONCE = 2000;

/**
 * Writes anew why every latest check is stale, for what they all depend on. What of an edit itself differs was written when it was changed,
 * and is taken from there: in a library of a hundred thousand this is read, not computed. Called inside a `write`.
 */
export function reviewAll(store: Store): void {
  const shared = sharedFingerprint(store);
  const common = new Map<string, StaleReason[]>();
  const inDoubt = new Set(
    prepared<[], number>(store, 'SELECT DISTINCT edit FROM watched WHERE stale_by IS NOT NULL').pluck().all(),
  );
  const unplaced = prepared(store, 'SELECT 1 FROM unplaced LIMIT 1').get() !== undefined;
  const next = prepared<[number, number], ReviewedCheck>(
    store,
    `SELECT ${REVIEWED.replaceAll(/(^|, )/g, '$1checks.')} FROM edits JOIN checks ON checks.id = last_check
     WHERE edits.id > ? ORDER BY edits.id LIMIT ?`,
  );
  let last = 0;
  for (;;) {
    const checks = next.all(last, AT_ONCE);
    if (checks.length === 0) break;
    last = checks.at(-1)!.edit;
    for (const check of checks) {
      const state = sharedPart(check.fingerprint);
      const because = common.get(state) ?? differences(state, JSON.stringify(shared));
      common.set(state, because);
      const own = because.includes('plan') ? [] : ownReasons(check);
      const by = unplaced || inDoubt.has(check.edit) ? staleBy(store, check) : [];
      keepReview(store, check, [...because, ...own], by);
    }
  }
  prepared(store, 'UPDATE reviewed SET shared = ?').run(JSON.stringify(shared));
}

/** As {@link reviewAll}, unless what all checks depend on is what it was when that was last done. */
export function reviewShared(store: Store): void {
  const was = prepared<[], { shared: string }>(store, 'SELECT shared FROM reviewed').get()!.shared;
  if (was !== JSON.stringify(sharedFingerprint(store))) reviewAll(store);
}

/** A fingerprint without what is the edit's own, which stands at its end. */
const sharedPart = (fingerprint: string): string =>
  fingerprint.replace(/,"edit":"[^"]*","probes":"[^"]*"\}$/u, '}');

/** Why it was stale when it was last written, as far as that is about the edit itself. */
const ownReasons = ({ staleBecause, id }: ReviewedCheck): StaleReason[] =>
  staleBecause === '[]'
    ? []
    : parseStored<StaleReason[]>(staleBecause, `check ${id}`).filter((reason) =>
        ['edit', 'probes'].includes(reason),
      );

function keepReview(
  store: Store,
  check: ReviewedCheck,
  because: readonly StaleReason[],
  by: readonly number[],
): void {
  const all = by.length > 0 || check.overtaken === 1 ? [...because, 'committed-edits'] : because;
  const [told, toldBy] = [JSON.stringify(all), JSON.stringify(by.filter((edit) => edit !== 0))];
  if (told === check.staleBecause && toldBy === check.staleBy) return;
  prepared(store, 'UPDATE checks SET stale_because = ?, stale_by = ? WHERE id = ?').run(
    told,
    toldBy,
    check.id,
  );
}

interface ReviewedCheck extends LatestCheck {
  readonly overtaken: number;
  readonly commits: number;
}

const REVIEWED =
  'id, edit, verdict, fingerprint, stale_because AS staleBecause, stale_by AS staleBy, overtaken, commits';

function checksOf(store: Store, edits: readonly number[]): ReviewedCheck[] {
  const one = prepared<[number], ReviewedCheck>(
    store,
    `SELECT ${REVIEWED} FROM checks WHERE id = (SELECT last_check FROM edits WHERE id = ?)`,
  );
  return edits.flatMap((edit) => one.get(edit) ?? []);
}

/** The edits by which one of the check's inputs would be answered otherwise now; 0 for one that is not known. */
function staleBy(store: Store, { edit, commits }: ReviewedCheck): number[] {
  return prepared<[number, number, number], { by: number }>(
    store,
    `SELECT stale_by AS by FROM watched WHERE edit = ? AND stale_by IS NOT NULL
       UNION SELECT edit FROM unplaced WHERE commits > ? AND edit <> ?`,
  )
    .all(edit, commits, edit)
    .map(({ by }) => by);
}
