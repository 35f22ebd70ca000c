/**
 * @file Editing sets in E-VQA's JSON form, read and checked: a flat list of edits with the probes that judge them.
 */
import { createHash } from 'node:crypto';
import { realpath } from 'node:fs/promises';
import { dirname, isAbsolute, join, relative, sep } from 'node:path';
import { z } from 'zod';
import { EmendError } from '../errors.ts';
import { parseJson } from '../files/json.ts';
import { readRegularFile } from '../files/regularFile.ts';

const MAX_FILE_BYTES = 256 * 1024 * 1024;
const MAX_RECORDS = 1_000_000;
const MAX_TEXT = 4000;

const text = z.string().max(MAX_TEXT).regex(/\S/u, 'is empty');
/** Some sets give several right answers; the first is the one that is scored. */
const answer = z.union([text, z.array(text).min(1).max(100)]).transform((given) => [given].flat()[0]!);
const picture = z.string().min(1).max(1000);

const Record = z.looseObject({
  /** the question, another wording of it, and the target */
  src: text,
  rephrase: text,
  alt: answer,
  /** another model's answer before the edit; not used */
  pred: z.unknown(),
  image: picture,
  image_rephrase: picture,
  /** unrelated question without a picture */
  loc: text,
  loc_ans: answer,
  /** unrelated picture and question */
  m_loc: picture,
  m_loc_q: text,
  m_loc_a: answer,
  /** another question about the edit's own picture; beyond E-VQA */
  same_image_q: text.optional(),
  same_image_a: answer.optional(),
  kind: z.string().min(1).max(100).optional(),
  /** what the edit is about; edits of the same kind about the same thing want the same */
  object: z.string().max(MAX_TEXT).optional(),
  /** the question in wordings that no training shows, and as people also type it; beyond E-VQA, as what follows */
  heldout: text.optional(),
  new_core: text.optional(),
  typed: z.array(text).max(100).optional(),
  /** the edit's picture with a look-alike in the thing's place */
  image_swapped: picture.optional(),
  /** what the question is answered with there */
  swapped_a: answer.optional(),
  /** the same thing in quite another picture, and a question that it answers there */
  image_elsewhere: picture.optional(),
  elsewhere_q: text.optional(),
});
/** One edit with its probes. Field names are E-VQA's; fields it does not know are kept. */
export type EditingRecord = z.infer<typeof Record>;

export const pictureFields = [
  'image',
  'image_rephrase',
  'm_loc',
  'image_swapped',
  'image_elsewhere',
] as const;
export type PictureField = (typeof pictureFields)[number];

export interface EditingSet {
  /** as given */
  readonly path: string;
  /** of the JSON file's bytes, in hex */
  readonly sha256: string;
  /** records in the file */
  readonly total: number;
  /** the first records, as many as were asked for */
  readonly records: readonly EditingRecord[];
  /**
   * Real path of a record's picture.
   * @throws EmendError 'not-found' for a picture that is not there or not named, 'invalid-input' for one outside the folder
   */
  picturePath(index: number, field: PictureField): Promise<string>;
}

export interface EditingSetOptions {
  /** folder that pictures are relative to; the JSON file's own when absent */
  readonly images?: string;
  /** how many records to take, from the first; all when absent */
  readonly limit?: number;
}

/**
 * Reads an editing set and looks whether every picture of the records taken is there.
 * @throws EmendError naming file, record and field: 'not-found', 'damaged', or 'invalid-input' for pictures outside the folder
 */
export async function readEditingSet(path: string, options: EditingSetOptions = {}): Promise<EditingSet> {
  const { limit = Number.POSITIVE_INFINITY } = options;
  const bytes = await readRegularFile(path, MAX_FILE_BYTES);
  const list = parseList(bytes, path);
  const records = list
    .slice(0, limit)
    .map((value, index) => parseRecord(value, `${path}: record ${index + 1}`));
  const folder = options.images ?? dirname(path);
  const root = await realpath(folder).catch((cause) => {
    throw new EmendError('not-found', `There is no folder ${folder} with the pictures of ${path}.`, {
      cause,
    });
  });
  const picturePath = async (index: number, field: PictureField): Promise<string> => {
    const where = `${path}: record ${index + 1}, field "${field}"`;
    const named = records[index]![field];
    if (named === undefined) throw new EmendError('not-found', `${where}: it names no picture.`);
    return findPicture(root, named, where);
  };

  for (const [index, record] of records.entries()) {
    for (const field of pictureFields) if (record[field] !== undefined) await picturePath(index, field);
  }
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  return { path, sha256, total: list.length, records, picturePath };
}

function parseList(bytes: Buffer, path: string): unknown[] {
  const json = parseJson(bytes.toString('utf8'), path);
  if (!Array.isArray(json) || json.length === 0) {
    throw new EmendError(
      'damaged',
      `${path} is no list of edits. An E-VQA file is one flat list of objects.`,
    );
  }
  if (json.length > MAX_RECORDS) {
    throw new EmendError('invalid-input', `${path} holds ${json.length} records, more than ${MAX_RECORDS}.`);
  }
  return json;
}

function parseRecord(value: unknown, where: string): EditingRecord {
  const parsed = Record.safeParse(value);
  if (parsed.success) return parsed.data;
  const { path, message } = parsed.error.issues[0]!;
  const field = path.length > 0 ? `, field "${path.join('.')}"` : '';
  throw new EmendError('damaged', `${where}${field}: ${message}.`);
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
