/**
 * @file The formats of data sets, a line each, and files read row by row in any of them.
 */
import { extname } from 'node:path';
import { EmendError } from '../../errors.ts';
import { readJsonList } from '../../files/jsonRecords.ts';
import { csv } from './csv.ts';
import { eic } from './eic.ts';
import { emend } from './emend.ts';
import { evqa } from './evqa.ts';
import { mmke } from './mmke.ts';
import type { Heard, ReadRow, SetFormat } from './record.ts';
import { vlkeb } from './vlkeb.ts';

/** MMKE-Bench's rows have VLKEB's field of portability too, so that they are recognised first. */
export const setFormats: readonly SetFormat[] = [evqa, eic, mmke, vlkeb, emend, csv];
export type SetFormatName = SetFormat['name'];

/** Rows that are looked at for what tells a format: not every row of a set has all its fields. */
const LOOKED_AT = 50;

/** @throws EmendError 'not-found' that lists those there are */
export function demandFormat(name: string): SetFormat {
  const format = setFormats.find((one) => one.name === name);
  if (format) return format;
  const names = setFormats.map((one) => one.name).join(', ');
  throw new EmendError('not-found', `There is no format ${name} of data sets. There are ${names}.`);
}

/** The format of a file, told by its name and, for JSON, by the fields of its first rows. @throws EmendError as the reader */
export async function formatOf(path: string): Promise<SetFormat> {
  if (['.csv', '.tsv', '.txt'].includes(extname(path).toLowerCase())) return csv;
  let rows = 0;
  for await (const listed of readJsonList(path)) {
    const value = 'value' in listed ? listed.value : null;
    if (typeof value === 'object' && value !== null) {
      const found = setFormats.find((format) => format.recognises(value as Record<string, unknown>));
      if (found) return found;
    }
    rows += 1;
    if (rows === LOOKED_AT) break;
  }
  return evqa;
}

/** The rows of a file. @throws EmendError for a file that cannot be read as the format at all */
export async function* readRecords(path: string, format: SetFormat, heard?: Heard): AsyncGenerator<ReadRow> {
  for await (const listed of format.read(path, heard)) {
    if ('problem' in listed) {
      yield listed;
      continue;
    }
    const { row, value } = listed;
    let read: ReadRow;
    try {
      read = { row, record: { row, ...format.record(value) } };
    } catch (error) {
      read = { row, problem: (error as Error).message };
    }
    yield read;
  }
}

/** How many rows a file has, good or not. @throws EmendError as {@link readRecords} */
export async function countRows(path: string, format: SetFormat): Promise<number> {
  let rows = 0;
  for await (const _ of format.read(path)) rows += 1;
  return rows;
}
