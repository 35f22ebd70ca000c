/**
 * @file Editing sets as they are evaluated and trained on: any format there is, row by row; what is wrong with a row is told and the rest
 * kept. Only texts are held: pictures are looked for, and read when they are needed.
 */
import { createHash } from 'node:crypto';
import { realpath, stat } from 'node:fs/promises';
import { dirname, isAbsolute, join, relative, sep } from 'node:path';
import { EmendError } from '../errors.ts';
import {
  type EditingRecord,
  picturesOf,
  type ReadRow,
  type RecordContent,
  type RecordProbeKind,
} from './sets/record.ts';
import { demandFormat, formatOf, readRecords, type SetFormatName } from './sets/registry.ts';

export type { EditingRecord } from './sets/record.ts';

const MAX_FILE_BYTES = 512 * 1024 * 1024;
const MAX_RECORDS = 1_000_000;
/** Wrong rows that are told one by one. */
const MOST_PROBLEMS = 1000;
/** Rows whose pictures are looked for together. */
const AT_ONCE = 64;

export interface EditingSet {
  /** as given */
  readonly path: string;
  readonly format: SetFormatName;
  /** of the file's bytes, in hex */
  readonly sha256: string;
  /** rows in the file */
  readonly total: number;
  /** the first that can be used, as many as were asked for */
  readonly records: readonly EditingRecord[];
  /** rows that were left out before the last record, the first thousand with what is wrong with them */
  readonly wrong: {
    readonly count: number;
    readonly problems: ReadonlyArray<{ readonly row: number; readonly reason: string }>;
  };
  /** real path of the folder of its pictures */
  readonly images: string;
  /** Real path of a picture of a record. @throws EmendError 'not-found', 'invalid-input' for one outside the folder */
  picturePath(record: EditingRecord, name: string): Promise<string>;
}

export interface EditingSetOptions {
  /** told from the file when absent */
  readonly format?: SetFormatName | undefined;
  /** folder that pictures are relative to; the file's own when absent */
  readonly images?: string | undefined;
  /** how many records to take, from the first; all when absent */
  readonly limit?: number | undefined;
  /** kinds of probes that every record must have */
  readonly needs?: readonly RecordProbeKind[];
}

/**
 * Reads an editing set and looks whether every picture of the records taken is there.
 * @throws EmendError 'not-found' or 'damaged' for a file that is no set, 'invalid-input' for one that is too large, and what is wrong with
 *   its first row where no row can be used
 */
export async function readEditingSet(path: string, options: EditingSetOptions = {}): Promise<EditingSet> {
  const { limit = Number.POSITIVE_INFINITY, needs = [] } = options;
  const format = options.format === undefined ? await formatOf(path) : demandFormat(options.format);
  const folder = options.images ?? dirname(path);
  const images = await realpath(folder).catch((cause) => {
    throw new EmendError('not-found', `There is no folder ${folder} with the pictures of ${path}.`, {
      cause,
    });
  });
  const hash = createHash('sha256');
  let bytes = 0;
  const records: EditingRecord[] = [];
  const problems: Array<{ row: number; reason: string }> = [];
  let [total, wrong] = [0, 0];
  const found = new Set<string>();
  /** What is wrong with a record that its format does not know. */
  const troubleOf = async (record: RecordContent): Promise<string | null> => {
    const lacking = needs.find((kind) => !record.probes.some((probe) => probe.kind === kind));
    if (lacking !== undefined) return `it has no probe of ${lacking.replace('-', ' ')}`;
    for (const name of picturesOf(record)) {
      if (found.has(name)) continue;
      try {
        const file = await findPicture(images, name, `"${name}"`);
        if (!(await stat(file)).isFile()) return `"${name}" is no file`;
        found.add(name);
      } catch (error) {
        if (error instanceof EmendError) return error.message;
        throw error;
      }
    }
    return null;
  };
  const take = async (rows: readonly ReadRow[]) => {
    const troubles = await Promise.all(
      rows.map((read) => ('problem' in read ? read.problem : troubleOf(read.record))),
    );
    for (const [place, read] of rows.entries()) {
      if (records.length >= limit) return;
      const reason = troubles[place]!;
      if (reason === null && 'record' in read) records.push(read.record);
      else {
        wrong += 1;
        if (problems.length < MOST_PROBLEMS) problems.push({ row: read.row, reason: reason ?? '' });
      }
    }
  };

  let waiting: ReadRow[] = [];
  const heard = (piece: Buffer) => {
    bytes += piece.length;
    hash.update(piece);
  };
  for await (const read of readRecords(path, format, heard)) {
    total += 1;
    if (bytes > MAX_FILE_BYTES || total > MAX_RECORDS)
      throw new EmendError(
        'invalid-input',
        `${path} is larger than ${MAX_FILE_BYTES / 1024 / 1024} MB or has more than ${MAX_RECORDS.toLocaleString('en')} rows. Split it.`,
      );
    if (records.length >= limit) continue;
    waiting.push(read);
    if (waiting.length < Math.min(AT_ONCE, limit - records.length)) continue;
    await take(waiting);
    waiting = [];
  }
  await take(waiting);
  if (records.length === 0) throw nothingUsable(path, problems[0]);
  return {
    ...{ path, format: format.name, sha256: hash.digest('hex'), total, records, images },
    wrong: { count: wrong, problems },
    picturePath: (record, name) => findPicture(images, name, `${path}: row ${record.row}`),
  };
}

function nothingUsable(path: string, first: { row: number; reason: string } | undefined): EmendError {
  return first
    ? new EmendError('damaged', `${path} has no row that can be used. Row ${first.row}: ${first.reason}.`)
    : new EmendError('damaged', `${path} is no list of edits: it holds none.`);
}

/** The rows that were left out, for people: the first few of them; null where none was. */
export function leftOut({ path, wrong, total }: EditingSet, most = 5): string | null {
  if (wrong.count === 0) return null;
  const told = wrong.problems.slice(0, most).map(({ row, reason }) => `  row ${row}: ${reason}`);
  const more =
    wrong.count > told.length ? [`  and ${(wrong.count - told.length).toLocaleString('en')} more`] : [];
  return [`${wrong.count} of the ${total} rows of ${path} are left out:`, ...told, ...more].join('\n');
}

/**
 * The real path of a picture that lies below `root`, itself a real path. `where`: what names it, for errors.
 * @throws EmendError 'not-found', or 'invalid-input' for one outside
 */
export async function findPicture(root: string, named: string, where: string): Promise<string> {
  const outside = (path: string): boolean => {
    const way = relative(root, path);
    return way === '' || way === '..' || way.startsWith(`..${sep}`) || isAbsolute(way);
  };
  const refuse = () =>
    new EmendError(
      'invalid-input',
      `${where}: ${named} is outside ${root}. Pictures lie in the folder of the set, or in the one given with --images.`,
    );
  const path = join(root, named);
  if (isAbsolute(named) || outside(path)) throw refuse();
  const real = await realpath(path).catch((cause) => {
    throw new EmendError('not-found', `${where}: there is no picture ${path}.`, { cause });
  });
  if (outside(real)) throw refuse();
  return real;
}
