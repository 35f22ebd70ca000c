/**
 * @file CSV with a line of column names: E-VQA's names or plain ones. Separated by commas, semicolons or tabs, UTF-8.
 */
import { type CsvError, parse } from 'csv-parse';
import { EmendError } from '../../errors.ts';
import type { ListedRecord } from '../../files/jsonRecords.ts';
import { openRegularFile } from '../../files/regularFile.ts';
import { evqa } from './evqa.ts';
import type { Heard, SetFormat } from './record.ts';

/** Plain names of columns, and E-VQA's for the same. */
const aliases: Readonly<Record<string, string>> = {
  picture: 'image',
  prompt: 'src',
  question: 'src',
  target: 'alt',
  answer: 'alt',
};
const demanded = ['image', 'src', 'alt'];
const plain: Readonly<Record<string, string>> = { image: 'picture', src: 'prompt', alt: 'target' };

/** A row of this many bytes is no row but a quotation mark that was never closed. */
const LARGEST_ROW = 1024 * 1024;

/**
 * The rows of a CSV file as objects with E-VQA's field names; `tags` split at semicolons.
 * @throws EmendError as `openRegularFile`; 'damaged' where a demanded column is missing
 */
async function* readCsv(path: string, heard?: Heard): AsyncGenerator<ListedRecord> {
  const delimiter = await delimiterOf(path);
  const { handle } = await openRegularFile(path);
  let row = 0;
  let broken: { at: number; problem: string }[] = [];
  const parser = parse({
    bom: true,
    delimiter,
    columns: (names: string[]) => columnsOf(names, path),
    info: true,
    skip_empty_lines: true,
    skip_records_with_error: true,
    max_record_size: LARGEST_ROW,
    on_skip: (error) => {
      broken.push({ at: recordsBefore(error), problem: troubleOf(error) });
      return undefined;
    },
  });
  const source = handle.createReadStream();
  source.on('error', (error) => parser.destroy(error));
  if (heard) source.on('data', (bytes) => heard(bytes as Buffer));
  source.pipe(parser);
  try {
    for await (const parsed of parser) {
      const { record, info } = parsed as { record: Record<string, string>; info: { records: number } };
      const due = broken.filter(({ at }) => at < info.records);
      broken = broken.filter((other) => !due.includes(other));
      for (const { problem } of due) yield { row: ++row, problem };
      yield { row: ++row, value: withTags(record) };
    }
    for (const { problem } of broken) yield { row: ++row, problem };
  } catch (cause) {
    if (cause instanceof EmendError) throw cause;
    // A row that is too long ends the reading: what follows cannot be told apart.
    yield { row: ++row, problem: troubleOf(cause as CsvError) };
  } finally {
    source.destroy();
  }
}

/** How many good records came before a broken one. */
const recordsBefore = (error: CsvError | undefined): number => Number(error?.['records'] ?? 0);

function troubleOf(error: CsvError | undefined): string {
  switch (error?.code) {
    case 'CSV_RECORD_INCONSISTENT_COLUMNS':
    case 'CSV_RECORD_INCONSISTENT_FIELDS_LENGTH':
      return 'it has more or fewer fields than there are columns';
    case 'CSV_QUOTE_NOT_CLOSED':
    case 'CSV_MAX_RECORD_SIZE':
      return 'a quotation mark in it is never closed';
    default:
      return 'its quotation marks are not paired';
  }
}

function columnsOf(names: readonly string[], path: string): string[] {
  const columns = names.map((name) => {
    const known = name.trim().toLowerCase();
    return aliases[known] ?? known;
  });
  const missing = demanded.filter((name) => !columns.includes(name));
  if (missing.length > 0) {
    throw new EmendError(
      'damaged',
      `${path} has no column ${missing.map((name) => `"${plain[name]}"`).join(', ')}. Its first line names the columns: picture, prompt, target, and others as E-VQA has them.`,
    );
  }
  const twice = columns.find((name, at) => columns.indexOf(name) !== at);
  if (twice !== undefined) {
    throw new EmendError('damaged', `${path} has two columns "${plain[twice] ?? twice}". Remove one.`);
  }
  return columns;
}

function withTags(record: Record<string, string>): Record<string, unknown> {
  const { tags, ...row } = record;
  const split = (tags ?? '')
    .split(';')
    .map((tag) => tag.trim())
    .filter((tag) => tag !== '');
  return { ...row, tags: split };
}

/** The separator that stands most often in the first line, outside quotation marks. */
async function delimiterOf(path: string): Promise<string> {
  const { handle } = await openRegularFile(path);
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(64 * 1024), 0, 64 * 1024, 0);
    const line = buffer
      .toString('utf8', 0, bytesRead)
      .split(/\r?\n/, 1)[0]!
      .replace(/"[^"]*"/g, '');
    const count = (separator: string) => line.split(separator).length;
    return [',', ';', '\t'].reduce((best, other) => (count(other) > count(best) ? other : best));
  } finally {
    await handle.close();
  }
}

export const csv: SetFormat = { ...evqa, name: 'csv', title: 'CSV', read: readCsv };
