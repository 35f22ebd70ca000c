/**
 * @file Edits that are to be committed, compared with what the library keeps of inputs: all keys at once, and scores only where an edit
 * comes among the best few.
 */
import { KeyBank } from '../editors/scope/keyBank.ts';
import type { Reach, Scope } from '../editors/scope/scope.ts';
import { EmendError } from '../errors.ts';
import type { Store } from '../library/database.ts';
import { editDetail, editKey, inputDescription, inputsChangedSince, keptInputs } from '../library/reader.ts';
import { editRow, ownProbes } from '../library/rows.ts';
import { byProduct, findInput, KEPT_PER_CANDIDATE, matchesOf } from '../library/scopeInputs.ts';
import { commitChanges } from '../library/scopes.ts';
import { type Comparison, draftKeys, type Pair } from '../library/watched.ts';

/** What to compare edits with. */
export interface ComparisonRequest {
  /** in the order in which they are to be committed */
  readonly edits: readonly number[];
  /**
   * `probes`: probes of committed edits and `inputs`, for a check; `all`: everything that is kept, and checked drafts with the edits'
   * own inputs, for a commit; `each other`: the edits with each other's own inputs, those of the edits from place `from` to `to`
   */
  readonly with: 'probes' | 'all' | 'each other';
  /** further inputs, whose products are told however far they are */
  readonly inputs: readonly number[];
  readonly from?: number;
  readonly to?: number;
}

type Candidate = {
  readonly edit: number;
  readonly key: Int8Array;
  readonly reach: Reach;
  readonly detail: Uint8Array;
};

/** Keys of the inputs that are probes of committed edits, held in memory and brought in step before each use. */
export class CommittedInputs {
  readonly #store: Store;
  readonly #keys: KeyBank;
  readonly #floors = new Map<number, number | null>();
  #seen = 0;

  constructor(store: Store, keyWidth: number) {
    this.#store = store;
    this.#keys = new KeyBank(keyWidth);
  }

  /** The number of the last change that is known now. */
  bringInStep(): number {
    const { inputs, last } = inputsChangedSince(this.#store, this.#seen, this.#keys.width);
    for (const { id, key, floor, owned } of inputs) {
      if (owned) {
        this.#keys.add(id, key);
        this.#floors.set(id, floor);
      } else if (this.#keys.remove(id)) this.#floors.delete(id);
    }
    this.#seen = last;
    return last;
  }

  /** Inputs among whose kept matches an edit with this key would be, with the product of both keys. */
  near(key: Int8Array): Array<{ input: number; product: number }> {
    const found: Array<{ input: number; product: number }> = [];
    this.#keys.each(key, (input, product) => {
      const floor = this.#floors.get(input)!;
      if (floor === null || product >= floor) found.push({ input, product });
    });
    return found;
  }
}

export async function compare(
  store: Store,
  scope: Scope,
  committed: CommittedInputs,
  request: ComparisonRequest,
  pause: () => Promise<void>,
): Promise<Comparison> {
  const candidates = request.edits.map((id) => candidateOf(store, id, scope.keyWidth));
  const commits = commitChanges(store);
  const inputs = committed.bringInStep();
  const pairs: Pair[] = [];
  let drafts: Pair[] = [];
  let { edits } = request;
  if (request.with === 'probes') {
    for (const candidate of candidates) {
      pairs.push(...(await nearProbes(store, scope, committed, candidate, request.inputs, pause)));
    }
  } else if (request.with === 'all') {
    pairs.push(...(await nearAll(store, scope, candidates, pause)));
    drafts = await draftsNear(store, scope, request.edits, draftKeys(store), pause);
  } else {
    const bank = new KeyBank(scope.keyWidth);
    for (const { edit, key } of candidates) bank.add(edit, key);
    edits = request.edits.slice(request.from, request.to);
    drafts = await draftsNear(store, scope, edits, bank, pause);
  }
  return { commits, inputs, edits, pairs, drafts };
}

function candidateOf(store: Store, id: number, width: number): Candidate {
  const key = editKey(store, id, width);
  if (!key) throw new EmendError('internal', `Edit ${id} was not described.`);
  return { ...key, detail: editDetail(store, id).detail };
}

async function nearProbes(
  store: Store,
  scope: Scope,
  committed: CommittedInputs,
  candidate: Candidate,
  further: readonly number[],
  pause: () => Promise<void>,
): Promise<Pair[]> {
  const { edit, key } = candidate;
  const pairs: Pair[] = [];
  const near = new Map(committed.near(key).map(({ input, product }) => [input, product]));
  const bank = new KeyBank(scope.keyWidth);
  bank.add(edit, key);
  for (const input of new Set([...further, ...near.keys()])) {
    const { key: inputKey, detail, floor } = inputDescription(store, input, scope.keyWidth);
    const product = near.get(input) ?? bank.nearest(inputKey, 1)[0]!.product;
    const scored = floor === null || product >= floor;
    const score = scored ? (await scope.score(detail, [candidate]))[0]! : null;
    pairs.push({ input, edit, product, score });
    await pause();
  }
  return pairs;
}

/** Every input that is kept, with those of the edits that would be among its matches when they are committed one after the other. */
async function nearAll(
  store: Store,
  scope: Scope,
  candidates: readonly Candidate[],
  pause: () => Promise<void>,
): Promise<Pair[]> {
  const bank = new KeyBank(scope.keyWidth);
  for (const [place, { key }] of candidates.entries()) bank.add(place, key);
  const most = KEPT_PER_CANDIDATE * scope.candidates;
  const entering: Array<{ input: number; places: number[]; products: number[] }> = [];
  const products = new Array<number>(candidates.length);
  const inputs = [...keptInputs(store, scope.keyWidth)];
  for (const { id, key, floor } of inputs) {
    bank.each(key, (place, product) => {
      products[place] = product;
    });
    const above = candidates.flatMap((_, place) =>
      floor === null || products[place]! >= floor ? [place] : [],
    );
    if (above.length === 0) continue;
    const kept = matchesOf(store, id).map(({ edit, product }) => ({ edit, product }));
    const places = above.filter((place) => {
      const comer = { edit: candidates[place]!.edit, product: products[place]! };
      const last = kept[most - 1];
      if (last && byProduct(comer, last) > 0) return false;
      kept.push(comer);
      kept.sort(byProduct);
      return true;
    });
    entering.push({ input: id, places, products: places.map((place) => products[place]!) });
  }
  const pairs: Pair[] = [];
  for (const { input, places, products: ofInput } of entering) {
    if (places.length === 0) continue;
    const { detail } = inputDescription(store, input, scope.keyWidth);
    const scores = await scope.score(
      detail,
      places.map((place) => candidates[place]!),
    );
    for (const [index, place] of places.entries()) {
      const { edit } = candidates[place]!;
      pairs.push({ input, edit, product: ofInput[index]!, score: scores[index]! });
    }
    await pause();
  }
  return pairs;
}

/** Which of the drafts in a bank of edit keys come among the best of the edits' own inputs. */
async function draftsNear(
  store: Store,
  scope: Scope,
  edits: readonly number[],
  bank: KeyBank | null,
  pause: () => Promise<void>,
): Promise<Pair[]> {
  const pairs: Pair[] = [];
  for (const id of edits) {
    for (const { picture, prompt } of ownProbes(store, editRow(store, id))) {
      const input = picture === null ? null : findInput(store, picture, prompt);
      if (!input || !bank) continue;
      const { key, detail } = inputDescription(store, input.id, scope.keyWidth);
      const last = matchesOf(store, input.id)[scope.candidates - 1];
      const near: Array<{ edit: number; product: number }> = [];
      bank.each(key, (edit, product) => {
        if (edit !== id && (!last || byProduct({ edit, product }, last) < 0)) near.push({ edit, product });
      });
      if (near.length === 0) continue;
      const scores = await scope.score(
        detail,
        near.map(({ edit }) => editDetail(store, edit)),
      );
      pairs.push(...near.map((pair, index) => ({ ...pair, input: input.id, score: scores[index]! })));
      await pause();
    }
  }
  return pairs;
}
