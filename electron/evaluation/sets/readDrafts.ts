/**
 * @file A file of edits to be written, row by row, in any of the formats there are.
 */
import { extname } from 'node:path';
import { type ListedRecord, readJsonList } from '../../files/jsonRecords.ts';
import { readCsv } from './csv.ts';
import type { DraftRecord, DraftRow } from './draft.ts';
import { emendDraft } from './emend.ts';
import { evqaDraft } from './evqa.ts';

interface Format {
  readonly read: (path: string) => AsyncGenerator<ListedRecord>;
  readonly draft: (value: unknown) => DraftRecord;
}

const formats = {
  evqa: { read: readJsonList, draft: evqaDraft },
  emend: { read: readJsonList, draft: emendDraft },
  csv: { read: readCsv, draft: evqaDraft },
} satisfies Record<string, Format>;
export type DraftFormat = keyof typeof formats;

/** The format of a file, told by its name and, for JSON, by the fields of its first row. @throws EmendError as the reader */
export async function draftFormat(path: string): Promise<DraftFormat> {
  if (['.csv', '.tsv', '.txt'].includes(extname(path).toLowerCase())) return 'csv';
  for await (const first of readJsonList(path)) {
    const value = 'value' in first ? first.value : null;
    return typeof value === 'object' && value !== null && 'prompt' in value ? 'emend' : 'evqa';
  }
  return 'evqa';
}

/** The rows of a file. @throws EmendError for a file that cannot be read as the format at all */
export async function* readDrafts(path: string, format: DraftFormat): AsyncGenerator<DraftRow> {
  const { read, draft } = formats[format];
  for await (const listed of read(path)) {
    if ('problem' in listed) {
      yield listed;
      continue;
    }
    const { row, value } = listed;
    let made: DraftRow;
    try {
      made = { row, draft: draft(value) };
    } catch (error) {
      made = { row, problem: (error as Error).message };
    }
    yield made;
  }
}

/** How many rows a file has, good or not. @throws EmendError as {@link readDrafts} */
export async function countRows(path: string, format: DraftFormat): Promise<number> {
  let rows = 0;
  for await (const _ of formats[format].read(path)) rows += 1;
  return rows;
}
