/**
 * @file GRACE's codebook (Hartvigsen et al. 2023, alg. 1): keys with a radius each, the values that answer inside them, and how a new
 * edit changes it. Keys are what an MLP's last projection reads at the last prompt token.
 */

/** One edit as the codebook takes it up. */
export interface CodebookEdit {
  /** [inner width] */
  readonly key: Float32Array;
  /** what the projection gives in place of its own output [hidden] */
  readonly value: Float32Array;
  /** token ids of the target */
  readonly label: readonly number[];
  /** rows of prompt and target, the picture's among them */
  readonly rows: number;
}

/** How labels are compared: as token ids; or as published, by the mean of the labels of all rows, of which those without one hold −100. */
export type LabelRule = 'target ids' | 'published mean';

export type Action = 'init' | 'new' | 'expand' | 'split';

interface Entry {
  readonly key: Float32Array;
  readonly label: readonly number[];
  readonly rows: number;
  value: Float32Array;
  radius: number;
}

/** Where a query lies in a codebook. */
export interface Nearest {
  readonly entry: number;
  readonly distance: number;
  readonly distances: readonly number[];
  /** whether it lies in the entry's radius, so that its value answers */
  readonly replaced: boolean;
}

/** A query on the border is inside it however its key was computed. */
const BORDER = 1e-4;

export class Codebook {
  readonly #radius: number;
  readonly #rule: LabelRule;
  readonly #entries: Entry[] = [];

  /** `radius`: of a new key (ε) */
  constructor(radius: number, rule: LabelRule) {
    this.#radius = radius;
    this.#rule = rule;
  }

  get radii(): number[] {
    return this.#entries.map(({ radius }) => radius);
  }

  get keys(): Float32Array[] {
    return this.#entries.map(({ key }) => key);
  }

  value(entry: number): Float32Array {
    return this.#entries[entry]!.value;
  }

  /** The entry nearest to a query [inner width]; null in an empty codebook. */
  nearest(query: Float32Array): Nearest | null {
    const distances = this.#entries.map(({ key }) => euclidean(key, query));
    if (distances.length === 0) return null;
    const entry = distances.indexOf(Math.min(...distances));
    const distance = distances[entry]!;
    return { entry, distance, distances, replaced: distance <= this.#entries[entry]!.radius + BORDER };
  }

  /** What taking up an edit would do, and to which entry. */
  plan({ key, label, rows }: Omit<CodebookEdit, 'value'>): { action: Action; entry: number } {
    const next = this.#entries.length;
    const found = this.nearest(key);
    if (!found) return { action: 'init', entry: 0 };
    const { entry, distance } = found;
    const near = this.#entries[entry]!;
    if (distance > near.radius + this.#radius) return { action: 'new', entry: next };
    if (this.#same(near, { label, rows })) return { action: 'expand', entry };
    return { action: 'split', entry: next };
  }

  /** Takes up an edit. */
  take(edit: CodebookEdit): { action: Action; entry: number } {
    const planned = this.plan(edit);
    const { action, entry } = planned;
    const { key, value, label, rows } = edit;
    if (action === 'expand') {
      const near = this.#entries[entry]!;
      near.radius = euclidean(near.key, key);
      near.value = value;
      return planned;
    }
    let radius = this.#radius;
    if (action === 'split') {
      const { entry: nearest, distance } = this.nearest(key)!;
      this.#entries[nearest]!.radius = distance / 2 - 1e-5;
      radius = distance / 2;
    }
    this.#entries.push({ key, value, label, rows, radius });
    return planned;
  }

  #same(one: Pick<Entry, 'label' | 'rows'>, other: Pick<Entry, 'label' | 'rows'>): boolean {
    if (this.#rule === 'target ids') return one.label.join() === other.label.join();
    return labelMean(one) === labelMean(other);
  }
}

/** Mean of the labels of all rows: the published code compares this. */
export function labelMean({ label, rows }: Pick<CodebookEdit, 'label' | 'rows'>): number {
  const sum = label.reduce((total, id) => total + id, -100 * (rows - label.length));
  return Math.fround(sum / rows);
}

function euclidean(a: Float32Array, b: Float32Array): number {
  let square = 0;
  for (let i = 0; i < a.length; i++) square += (a[i]! - b[i]!) ** 2;
  return Math.sqrt(square);
}
