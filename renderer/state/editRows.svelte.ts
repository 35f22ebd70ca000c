/**
 * @file The rows of one list of edits, read page by page as they come into view: never the whole list.
 */
import type { EditFilter, EditRow, EditSort, WireError } from '../../electron/api/contract.ts';
import { type Connection, toWireError } from '../backend.ts';
import type { Pictures } from './pictures.svelte.ts';

/** Rows read at once. */
const pageSize = 100;
/** Pages kept; those looked at longest ago go first. */
const mostPages = 20;
/** Changes that come closer together than this are read at once, in milliseconds. */
const settleTime = 250;

export class EditRows {
  readonly #connection: Connection;
  readonly #pictures: Pictures;
  /** how many edits match; null until that is known */
  total = $state<number | null>(null);
  error = $state.raw<WireError | null>(null);
  #filter: EditFilter = {};
  #sort: EditSort = { by: 'id', descending: true };
  /** by number of the page; replaced when a page comes */
  #pages = $state.raw<ReadonlyMap<number, readonly EditRow[]>>(new Map());
  readonly #reading = new Set<number>();
  /** pages in view */
  #wanted: { first: number; last: number } = { first: 0, last: 0 };
  /** grows with every other list: what was asked for an earlier one is not shown */
  #turn = 0;
  #settling: ReturnType<typeof setTimeout> | null = null;

  constructor(connection: Connection, pictures: Pictures) {
    this.#connection = connection;
    this.#pictures = pictures;
  }

  /** Turns to another list. Its rows come as they are wanted; the old ones stay until then. */
  show(filter: EditFilter, sort: EditSort): Promise<void> {
    this.#filter = filter;
    this.#sort = sort;
    this.#wanted = { first: 0, last: 0 };
    return this.#readWanted();
  }

  /** The row at a place of the list, from 0; null while it was not read. */
  at(place: number): EditRow | null {
    return this.#pages.get(Math.floor(place / pageSize))?.[place % pageSize] ?? null;
  }

  /** The place of an edit among the rows that were read; −1 where it is none of them. */
  placeOf(edit: number): number {
    for (const [page, rows] of this.#pages) {
      const at = rows.findIndex((row) => row.id === edit);
      if (at !== -1) return page * pageSize + at;
    }
    return -1;
  }

  /** Says which places are in view: their rows are read, those missing now and all of them after a change. */
  want(first: number, end: number): void {
    this.#wanted = {
      first: Math.floor(first / pageSize),
      last: Math.floor(Math.max(first, end - 1) / pageSize),
    };
    for (let page = this.#wanted.first; page <= this.#wanted.last; page++)
      if (!this.#pages.has(page)) void this.#readPage(page);
  }

  /** Reads what is in view again, soon: something changed. */
  changed(): void {
    this.#settling ??= setTimeout(() => {
      this.#settling = null;
      void this.#readWanted();
    }, settleTime);
  }

  /** Reads the pages in view; the others are forgotten. */
  async #readWanted(): Promise<void> {
    const turn = ++this.#turn;
    this.#reading.clear();
    const { first, last } = this.#wanted;
    const pages = Array.from({ length: last - first + 1 }, (_, at) => first + at);
    try {
      const read = await Promise.all(pages.map((page) => this.#find(page)));
      if (turn !== this.#turn) return;
      this.#pages = new Map(pages.map((page, at) => [page, read[at]!.rows]));
      this.total = read[0]!.total;
      this.error = null;
    } catch (thrown) {
      if (turn === this.#turn) this.error = toWireError(thrown);
    }
  }

  async #readPage(page: number): Promise<void> {
    if (this.#reading.has(page)) return;
    this.#reading.add(page);
    const turn = this.#turn;
    try {
      const { rows, total } = await this.#find(page);
      if (turn !== this.#turn) return;
      const pages = new Map(this.#pages).set(page, rows);
      for (const other of pages.keys()) {
        if (pages.size <= mostPages) break;
        if (other < this.#wanted.first || other > this.#wanted.last) pages.delete(other);
      }
      this.#pages = pages;
      this.total = total;
    } catch (thrown) {
      if (turn === this.#turn) this.error = toWireError(thrown);
    } finally {
      if (turn === this.#turn) this.#reading.delete(page);
    }
  }

  async #find(page: number) {
    const found = await this.#connection.call('edits.find', {
      filter: this.#filter,
      sort: this.#sort,
      offset: page * pageSize,
      limit: pageSize,
      thumbnails: true,
    });
    this.#pictures.takeThumbnails(found.thumbnails);
    return found;
  }
}
