/**
 * @file The inputs of a measurement with their answers, read page by page as they come into view, and the pictures they are about.
 */
import type {
  BenchmarkSample,
  CallOutput,
  MeasuredAt,
  SampleFilter,
  SampleSort,
  WireError,
} from '../../electron/api/contract.ts';
import { type Connection, toWireError } from '../backend.ts';

/** Rows read at once. */
const pageSize = 100;
/** Thumbnails kept. */
const mostPictures = 600;

/** Which answers: of an editor at a size, and beside them those of another. */
export interface SampleColumns {
  readonly benchmark: string;
  readonly part: number;
  readonly of: MeasuredAt;
  readonly against?: MeasuredAt | undefined;
}
export interface SampleRow {
  readonly sample: BenchmarkSample;
  readonly other: BenchmarkSample | null;
}

export class SampleRows {
  readonly #connection: Connection;
  choice = $state.raw<SampleColumns | null>(null);
  filter = $state.raw<SampleFilter>({});
  sort = $state.raw<SampleSort>({ by: 'row', descending: false });
  /** how many match, of how many; null until that is known */
  total = $state<number | null>(null);
  all = $state(0);
  /** whether nothing was recorded of this measurement */
  missing = $state(false);
  error = $state.raw<WireError | null>(null);
  #pages = $state.raw<ReadonlyMap<number, readonly SampleRow[]>>(new Map());
  /** by name, as addresses; '' for those that are gone */
  #pictures = $state.raw<ReadonlyMap<string, string>>(new Map());
  readonly #reading = new Set<number>();
  /** grows with every other list: what was asked for an earlier one is not shown */
  #turn = 0;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /** Turns to other columns of answers. */
  show(choice: SampleColumns | null): void {
    if (choice?.benchmark !== this.choice?.benchmark || choice?.part !== this.choice?.part) {
      this.#pictures = new Map();
      this.filter = {};
    }
    this.choice = choice;
    // Without another column nothing can differ from it.
    if (!choice?.against && this.filter.differs) this.filter = { ...this.filter, differs: undefined };
    this.#anew();
  }

  restrict(change: Partial<SampleFilter>): void {
    this.filter = { ...this.filter, ...change };
    this.#anew();
  }

  sortBy(by: SampleSort['by']): void {
    this.sort = { by, descending: this.sort.by === by && !this.sort.descending };
    this.#anew();
  }

  at(place: number): SampleRow | null {
    return this.#pages.get(Math.floor(place / pageSize))?.[place % pageSize] ?? null;
  }

  /** The address of a picture; null while it is not read, '' where it is gone. */
  picture(name: string): string | null {
    return this.#pictures.get(name) ?? null;
  }

  /** Says which places are in view. */
  want(first: number, end: number): void {
    for (
      let page = Math.floor(first / pageSize);
      page <= Math.floor(Math.max(first, end - 1) / pageSize);
      page++
    )
      if (!this.#pages.has(page)) void this.#read(page);
  }

  #anew(): void {
    this.#turn++;
    this.#reading.clear();
    this.#pages = new Map();
    this.error = null;
    this.missing = false;
    if (this.choice) void this.#read(0);
    else this.total = null;
  }

  async #read(page: number): Promise<void> {
    if (this.#reading.has(page) || !this.choice) return;
    this.#reading.add(page);
    const turn = this.#turn;
    const { choice, filter, sort } = this;
    try {
      const found = await this.#connection.call('benchmarks.samples', {
        ...{ ...choice, filter: plain(filter), sort },
        ...{ offset: page * pageSize, limit: pageSize },
      });
      if (turn !== this.#turn) return;
      this.#take(page, found);
      void this.#readPictures(choice, found.samples);
    } catch (error) {
      if (turn === this.#turn) this.error = toWireError(error);
    }
  }

  #take(page: number, { total, all, samples }: CallOutput<'benchmarks.samples'>): void {
    this.missing = total === null;
    this.total = total ?? 0;
    this.all = all;
    this.#pages = new Map(this.#pages).set(page, samples);
  }

  async #readPictures({ benchmark, part }: SampleColumns, rows: readonly SampleRow[]): Promise<void> {
    const names = [...new Set(rows.flatMap(({ sample }) => sample.picture ?? []))];
    const unread = names.filter((name) => !this.#pictures.has(name));
    for (let at = 0; at < unread.length; at += 50) {
      const wanted = unread.slice(at, at + 50);
      const read = await this.#connection
        .call('benchmarks.thumbnails', { benchmark, part, pictures: wanted })
        .catch(() => []);
      if (this.choice?.benchmark !== benchmark || this.choice.part !== part) return;
      const pictures = new Map(this.#pictures);
      for (const name of wanted) pictures.set(name, '');
      for (const { picture, mime, base64 } of read) pictures.set(picture, `data:${mime};base64,${base64}`);
      for (const name of pictures.keys()) {
        if (pictures.size <= mostPictures) break;
        pictures.delete(name);
      }
      this.#pictures = pictures;
    }
  }
}

/** A filter without what does not restrict. */
const plain = (filter: SampleFilter): SampleFilter =>
  Object.fromEntries(
    Object.entries(filter).filter(([, value]) => value !== undefined && value !== ''),
  ) as SampleFilter;
