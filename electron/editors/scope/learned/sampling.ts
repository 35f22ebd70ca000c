/**
 * @file Batches for a scope's training: edits, inputs in their scope, and inputs that look alike and are not.
 */
import type { Reach } from '../scope.ts';
import type { NumberedFamily, ScopeDataset } from './dataset.ts';
import type { NumberedAsk } from './examples.ts';

/** One ask of a picture in one wording. */
export interface Row {
  readonly ask: NumberedAsk;
  /** places in the data set */
  readonly picture: number;
  readonly question: number;
}

/** Reproducible uniform numbers (mulberry32), and what is made of them. */
export class Draws {
  #state: number;
  constructor(seed: number) {
    this.#state = seed >>> 0;
  }
  readonly uniform = (): number => {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  below(count: number): number {
    return Math.floor(this.uniform() * count);
  }
  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }
  /** Box and Muller's. */
  readonly normal = (): number =>
    Math.sqrt(-2 * Math.log(1 - this.uniform())) * Math.cos(2 * Math.PI * this.uniform());
  shuffle<T>(list: readonly T[]): T[] {
    const copy = [...list];
    for (let i = copy.length - 1; i > 0; i--) {
      const j = this.below(i + 1);
      [copy[i], copy[j]] = [copy[j]!, copy[i]!];
    }
    return copy;
  }
}

/** What a row is beside the edit of its group; for measuring. */
export type Kind =
  | 'edit'
  | 'rephrase'
  | 'shot'
  | 'elsewhere'
  | 'samePicture'
  | 'sameShot'
  | 'swapped'
  | 'gone'
  | 'sameQuestion'
  | 'unrelated';

export interface Group {
  readonly edit: Row;
  readonly inputs: ReadonlyArray<Row & { readonly kind: Kind }>;
}

/** Draws edits of some families with inputs about them. */
export class Sampler {
  readonly #dataset: ScopeDataset;
  readonly families: readonly NumberedFamily[];
  readonly #byThing = new Map<number, NumberedAsk[]>();
  /** questions for a thing's name, by the thing */
  readonly #byName = new Map<number, NumberedAsk[]>();
  readonly #draws: Draws;

  constructor(dataset: ScopeDataset, families: readonly NumberedFamily[], draws: Draws) {
    this.#dataset = dataset;
    this.families = families;
    this.#draws = draws;
    const put = (lists: Map<number, NumberedAsk[]>, key: number, ask: NumberedAsk) => {
      const list = lists.get(key);
      if (list) list.push(ask);
      else lists.set(key, [ask]);
    };
    for (const { asks } of families)
      for (const ask of asks) {
        if (ask.thing >= 0) put(this.#byThing, ask.thing, ask);
        if (ask.names && ask.about >= 0) put(this.#byName, ask.about, ask);
      }
  }

  #row(ask: NumberedAsk, which: 'any' | 'first' | 'others', apart?: number): Row {
    const draws = this.#draws;
    const shots = this.#dataset.families[ask.family]!.pictures.filter(({ scene }) => scene === ask.scene);
    const pool =
      which === 'first' ? shots.slice(0, 1) : which === 'others' && shots.length > 1 ? shots.slice(1) : shots;
    const others = ask.prompts.filter((prompt) => prompt !== apart);
    return {
      ask,
      picture: draws.pick(pool).place,
      question: draws.pick(others.length ? others : ask.prompts),
    };
  }

  /**
   * An edit of a family and inputs about it. `lead`: of edits whose answer names a thing, which is what most are about.
   * Undefined where nothing can be edited.
   */
  group(family: NumberedFamily, lead = 0.6): Group | undefined {
    const draws = this.#draws;
    const scene = draws.uniform() < 0.85 ? 0 : 1;
    const answered = family.asks.filter((ask) => ask.about >= 0 && ask.scene === scene);
    const naming = answered.filter(({ names }) => names);
    const pool = naming.length && draws.uniform() < lead ? naming : answered;
    if (pool.length === 0) return undefined;
    const ask = draws.pick(pool);
    const edit = this.#row(ask, draws.uniform() < 0.8 ? 'first' : 'any');
    const inputs: Array<Row & { kind: Kind }> = [];
    const add = (kind: Kind, row: Row | undefined) => row && inputs.push({ ...row, kind });
    add('rephrase', { ...this.#row(ask, 'any', edit.question), picture: edit.picture });
    add('shot', { ...this.#row(ask, 'others'), question: edit.question });
    add('shot', this.#row(ask, 'others'));
    for (const asks of [this.#byThing.get(ask.thing), ask.names ? this.#byName.get(ask.about) : undefined]) {
      const elsewhere = (asks ?? []).filter(({ family: other }) => other !== ask.family);
      if (elsewhere.length) add('elsewhere', this.#row(draws.pick(elsewhere), 'any'));
    }
    const others = family.asks.filter(
      (other) =>
        other.scene === scene && other.question !== ask.question && (other.about >= 0 || !other.doubtful),
    );
    if (others.length) {
      add('samePicture', { ...this.#row(draws.pick(others), 'any'), picture: edit.picture });
      add('sameShot', this.#row(draws.pick(others), 'others'));
    }
    const changed = family.asks.filter((other) => other.scene !== scene && other.question === ask.question);
    if (changed.length) {
      const other = draws.pick(changed);
      // Something else answers it there, or nothing does.
      if (other.about >= 0) add('swapped', { ...this.#row(other, 'any'), question: edit.question });
      else if (!other.doubtful) add('gone', { ...this.#row(other, 'any'), question: edit.question });
    }
    const stranger = draws.pick(this.families);
    const elsewhereFamily = stranger.asks[0]?.family;
    if (elsewhereFamily !== undefined && elsewhereFamily !== ask.family) {
      if (stranger.answers) {
        // The edit's own question on a stranger's picture: answered by what is shown there, or by nothing.
        const there = stranger.answers.find(
          ({ question, scene: shown }) => question === ask.question && shown === 0,
        );
        const nothing = { ...ask, family: elsewhereFamily, scene: 0, thing: -1, about: -1, names: false };
        const shots = stranger.pictures.filter(({ scene: shown }) => shown === 0);
        if (there || !ask.doubtful)
          add('sameQuestion', {
            ask: there ?? nothing,
            picture: draws.pick(shots).place,
            question: edit.question,
          });
      }
      const asked = stranger.asks.filter(({ about, doubtful }) => about >= 0 || !doubtful);
      if (asked.length) add('unrelated', this.#row(draws.pick(asked), 'any'));
    }
    return { edit, inputs };
  }

  /** Groups of `count` families drawn without repetition. */
  groups(count: number): Group[] {
    const found: Group[] = [];
    const used = new Set<NumberedFamily>();
    while (found.length < count && used.size < this.families.length) {
      const family = this.#draws.pick(this.families);
      if (used.has(family)) continue;
      used.add(family);
      const group = this.group(family);
      if (group) found.push(group);
    }
    return found;
  }
}

/** Edits drawn from families, one or more of each, with their reaches: a library to measure against. */
export function drawLibrary(
  sampler: Sampler,
  size: number,
  draws: Draws,
): Array<Group & { readonly reach: Reach }> {
  const found: Array<Group & { reach: Reach }> = [];
  const order = draws.shuffle(sampler.families);
  for (let i = 0; found.length < size && i < 20 * size; i++) {
    const group = sampler.group(order[i % order.length]!);
    if (group) found.push({ ...group, reach: draws.uniform() < 0.5 ? 'picture' : 'thing' });
  }
  return found;
}
