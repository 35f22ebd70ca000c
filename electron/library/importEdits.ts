/**
 * @file Drafts from a file: rows are read one after the other, their pictures a few at a time, and written a batch at a time.
 */
import { createHash } from 'node:crypto';
import { realpath } from 'node:fs/promises';
import { dirname, isAbsolute } from 'node:path';
import type { ProbeKind } from '../api/contract.ts';
import { EmendError } from '../errors.ts';
import { findPicture } from '../evaluation/editingSet.ts';
import type { EditingRecord, ReadRow, RecordProbe } from '../evaluation/sets/record.ts';
import {
  countRows,
  demandFormat,
  formatOf,
  readRecords,
  type SetFormatName,
} from '../evaluation/sets/registry.ts';
import { readPictureFile } from '../files/picture.ts';
import { prepared, type Store } from './database.ts';
import { writeDraft } from './edits.ts';
import { countedEdits, recordCreation } from './operations.ts';
import { type ExaminedPicture, examinePicture, hasPicture, storePicture } from './pictures.ts';
import { setTags } from './tags.ts';

export interface ImportOptions {
  /** folder the pictures are in; the file's own otherwise */
  readonly images?: string;
  /** told from the file otherwise */
  readonly format?: SetFormatName | undefined;
  /** put on every edit */
  readonly tags: readonly string[];
  /** reads everything and writes nothing */
  readonly dryRun: boolean;
  /** aborted: what was added stays, the rest is left */
  readonly signal: AbortSignal;
  readonly onProgress: (done: number, total: number) => void;
}

export interface ImportReport {
  rows: number;
  added: number;
  known: number;
  wrong: number;
  readonly problems: Array<{ row: number; reason: string }>;
  stopped: boolean;
}

/** Rows written in one transaction, and bytes of pictures after which it is written earlier. */
const BATCH_ROWS = 100;
const BATCH_BYTES = 32 * 1024 * 1024;
/** Rows whose pictures are looked at together. */
const AT_ONCE = 4;
const MOST_PROBLEMS = 1000;

/** Longer texts are no answers that an edit of the library may have, in characters. */
const LONGEST_TARGET = 1000;

type DraftProbe = RecordProbe & { readonly kind: Exclude<ProbeKind, 'committed' | 'reliability'> };

/** A record as the library keeps it: its own kinds of probes, without a picture where they are asked of the edit's. */
type DraftRecord = Omit<EditingRecord, 'probes'> & { readonly probes: readonly DraftProbe[] };

const kept: ReadonlySet<string> = new Set<ProbeKind>([
  ...(['text-generality', 'image-generality', 'text-locality', 'image-locality'] as const),
  ...(['same-picture', 'same-question'] as const),
]);
const ofOwnPicture: ReadonlySet<string> = new Set<ProbeKind>(['text-generality', 'same-picture']);

/** The draft of a row, or what is wrong with it. */
function draftOf(read: ReadRow): { row: number; draft: DraftRecord } | { row: number; problem: string } {
  if ('problem' in read) return read;
  const { row, record } = read;
  if (record.target.length > LONGEST_TARGET)
    return { row, problem: `its answer is longer than ${LONGEST_TARGET.toLocaleString('en')} characters` };
  const probes = record.probes.flatMap((probe) => {
    // What a set judges by an answer of its own, the library has no kind for.
    const answered = probe.kind === 'image-generality' && probe.answer !== null;
    if (!kept.has(probe.kind) || answered) return [];
    const own = ofOwnPicture.has(probe.kind) && probe.picture === record.picture;
    return [{ ...probe, prompt: probe.prompt.trim(), ...(own && { picture: null }) } as DraftProbe];
  });
  const { prompt, target } = record;
  return { row, draft: { ...record, prompt: prompt.trim(), target: target.trim(), probes } };
}

/** A row whose pictures are known. */
interface ReadyRow {
  readonly row: number;
  readonly draft: DraftRecord;
  /** by file name: its id, and its bytes unless the library has them */
  readonly pictures: ReadonlyMap<string, { id: string; examined: ExaminedPicture | null }>;
}

/**
 * Adds an edit for each row of a file. A row that is wrong, or that the library has as an edit that is not retired, is told and
 * left out. Taking the import back retires all of it.
 * @throws EmendError 'not-found', 'invalid-input' or 'damaged' for a file that cannot be read as edits at all
 */
export async function importEdits(store: Store, file: string, options: ImportOptions): Promise<ImportReport> {
  const { signal, tags, dryRun, onProgress } = options;
  for (const path of [file, options.images ?? file]) {
    if (!isAbsolute(path)) {
      throw new EmendError('invalid-input', `${path} is not a whole path. Give one that begins at the root.`);
    }
  }
  const format = options.format === undefined ? await formatOf(file) : demandFormat(options.format);
  const folder = options.images ?? dirname(file);
  const root = await realpath(folder).catch((cause) => {
    throw new EmendError('not-found', `There is no folder ${folder} with the pictures of ${file}.`, {
      cause,
    });
  });
  const total = await countRows(file, format);
  const report: ImportReport = { rows: 0, added: 0, known: 0, wrong: 0, problems: [], stopped: false };
  const isWrong = (row: number, reason: string): void => {
    report.wrong += 1;
    if (report.problems.length < MOST_PROBLEMS) report.problems.push({ row, reason });
  };
  const pictures = new PictureFiles(store, root);
  let operation: number | null = null;
  let batch: ReadyRow[] = [];
  const write = (): void => {
    const rows = batch;
    batch = [];
    // Counted when the transaction is through: what a batch that failed did is not told.
    const told: Array<() => void> = [];
    const work = (): void => {
      const made: number[] = [];
      for (const ready of rows) {
        try {
          if (isKnown(store, ready)) {
            told.push(() => (report.known += 1));
            continue;
          }
          made.push(writeRow(store, ready, tags));
          told.push(() => (report.added += 1));
        } catch (error) {
          if (!(error instanceof EmendError)) throw error;
          told.push(() => isWrong(ready.row, error.message));
        }
      }
      if (dryRun) throw new DryRun();
      if (made.length === 0) return;
      const label = `Imported ${countedEdits(report.added + made.length)}`;
      operation = recordCreation(store, label, made, operation ?? undefined);
    };
    try {
      store.write(work);
    } catch (error) {
      if (!(error instanceof DryRun)) throw error;
    }
    for (const tell of told) tell();
    pictures.written();
  };

  const finishWaiting = async (waiting: readonly ReadRow[]): Promise<void> => {
    const ready = await Promise.all(
      waiting.map(async (read): Promise<ReadyRow | { row: number; problem: string }> => {
        const given = draftOf(read);
        if ('problem' in given) return given;
        try {
          return { ...given, pictures: await pictures.of(given.draft) };
        } catch (error) {
          if (!(error instanceof EmendError)) throw error;
          return { row: given.row, problem: error.message };
        }
      }),
    );
    for (const row of ready) {
      report.rows += 1;
      if ('problem' in row) isWrong(row.row, row.problem);
      else batch.push(row);
    }
    if (batch.length >= BATCH_ROWS || pictures.bytes >= BATCH_BYTES) write();
    onProgress(report.rows, Math.max(total, report.rows));
  };

  onProgress(0, total);
  let waiting: ReadRow[] = [];
  for await (const given of readRecords(file, format)) {
    if (signal.aborted) break;
    waiting.push(given);
    if (waiting.length < AT_ONCE) continue;
    await finishWaiting(waiting);
    waiting = [];
  }
  if (!signal.aborted) await finishWaiting(waiting);
  report.stopped = signal.aborted;
  write();
  return report;
}

/** Ends a transaction of which nothing is to be kept. */
class DryRun extends Error {}

/** Whether an edit that is not retired already asks the same of the same picture for the same answer. */
function isKnown(store: Store, { draft, pictures }: ReadyRow): boolean {
  const found = prepared(
    store,
    `SELECT 1 FROM edits WHERE picture = ? AND prompt = ? AND target = ? AND stage <> 'retired' LIMIT 1`,
  ).get(pictures.get(draft.picture)!.id, draft.prompt, draft.target);
  return found !== undefined;
}

/** Writes a row with its pictures and probes, all of it or nothing. */
function writeRow(store: Store, { draft, pictures }: ReadyRow, tags: readonly string[]): number {
  // A transaction inside the batch's: a row that turns out wrong leaves the others.
  return store.write(() => {
    for (const { examined } of pictures.values()) if (examined) storePicture(store, examined);
    const idOf = (name: string | null) => (name === null ? null : pictures.get(name)!.id);
    const { note, before, prompt, target } = draft;
    const id = writeDraft(store, {
      ...{ picture: idOf(draft.picture)!, prompt, target, note, before },
      probes: draft.probes.map(({ kind, picture, prompt: asked }) => ({
        ...{ kind, picture: idOf(picture), prompt: asked },
      })),
    });
    const all = [...draft.tags, ...tags];
    if (all.length > 0) setTags(store, id, all);
    return id;
  });
}

/** Picture files of a folder, each read and decoded once while it is needed. */
class PictureFiles {
  readonly #store: Store;
  readonly #root: string;
  /** ids of files that are stored, by name */
  readonly #stored = new Map<string, string>();
  /** what is being read, or was and is not written yet */
  #pending = new Map<string, Promise<{ id: string; examined: ExaminedPicture | null }>>();
  /** bytes waiting to be written */
  bytes = 0;

  constructor(store: Store, root: string) {
    this.#store = store;
    this.#root = root;
  }

  /** The pictures of a draft, by name. @throws EmendError for the first that is missing, outside the folder or no picture */
  async of(draft: DraftRecord): Promise<ReadyRow['pictures']> {
    const names = new Set([draft.picture, ...draft.probes.flatMap(({ picture }) => picture ?? [])]);
    const found = await Promise.all([...names].map(async (name) => [name, await this.#find(name)] as const));
    return new Map(found);
  }

  #find(name: string): Promise<{ id: string; examined: ExaminedPicture | null }> {
    const stored = this.#stored.get(name);
    if (stored !== undefined) return Promise.resolve({ id: stored, examined: null });
    const pending = this.#pending.get(name) ?? this.#read(name);
    this.#pending.set(name, pending);
    return pending;
  }

  async #read(name: string): Promise<{ id: string; examined: ExaminedPicture | null }> {
    const data = await readPictureFile(await findPicture(this.#root, name, `"${name}"`));
    const id = createHash('sha256').update(data).digest('hex');
    if (hasPicture(this.#store, id)) return { id, examined: null };
    try {
      const examined = await examinePicture(data);
      this.bytes += data.length;
      return { id, examined };
    } catch (error) {
      if (!(error instanceof EmendError)) throw error;
      throw new EmendError(error.code, `${name}: ${error.message}`, { cause: error });
    }
  }

  /** What was waiting is in the library now, or its row was wrong. */
  written(): void {
    for (const [name, pending] of this.#pending) {
      pending.then(
        ({ id }) => hasPicture(this.#store, id) && this.#stored.set(name, id),
        () => undefined,
      );
    }
    this.#pending = new Map();
    this.bytes = 0;
  }
}
