/** @file Which edits a subcommand is about: numbers, or the options of a filter, the same for every subcommand. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import {
  Edit,
  type EditFilter,
  type EditSelection,
  type EditSort,
  EditStatus,
  Finding,
  Reach,
  EditSort as Sort,
} from '../api/contract.ts';
import { EmendError } from '../errors.ts';
import { parseId } from './session.ts';

/** The filter's options as commander gives them. */
export interface FilterOptions {
  status?: EditFilter['status'];
  verdict?: EditFilter['verdict'];
  finding?: EditFilter['finding'];
  reach?: Reach;
  tag?: string[];
  search?: string;
  madeFor?: string;
  madeWith?: string;
  since?: string;
  until?: string;
  createdSince?: string;
  createdUntil?: string;
  committedSince?: string;
  committedUntil?: string;
}

/** Adds the options of a filter to a subcommand. */
export function withFilter(command: Command): Command {
  return command
    .addOption(new Option('--status <status...>', 'only edits of these statuses').choices(EditStatus.options))
    .addOption(
      new Option('--verdict <verdict...>', 'only edits whose latest check said this').choices(
        Edit.shape.verdict.options,
      ),
    )
    .addOption(
      new Option('--finding <finding...>', 'only edits whose latest check found this').choices(
        Finding.shape.kind.options,
      ),
    )
    .addOption(new Option('--reach <reach>', 'only edits that go so far').choices(Reach.options))
    .option('--tag <tag...>', 'only edits that have all of these tags')
    .option('--search <text>', 'only edits with words that begin so')
    .option('--made-for <fingerprint>', 'only edits made for the model whose fingerprint begins so')
    .option('--made-with <fingerprint>', 'only edits made for the adapter whose fingerprint begins so')
    .option('--since <date>', 'only edits changed then or later, such as 2026-03-01', moment)
    .option('--until <date>', 'only edits changed before then', moment)
    .option('--created-since <date>', 'only edits written then or later', moment)
    .option('--created-until <date>', 'only edits written before then', moment)
    .option('--committed-since <date>', 'only edits committed then or later', moment)
    .option('--committed-until <date>', 'only edits committed before then', moment);
}

/** A date, or a date and time, as the library writes moments. */
function moment(text: string): string {
  const at = new Date(text);
  if (/^\d{4}-\d{2}-\d{2}/.test(text) && !Number.isNaN(at.getTime())) return at.toISOString();
  throw new InvalidArgumentError('Give a date such as 2026-03-01, or with a time 2026-03-01T12:00.');
}

/** The filter that the options mean; every edit without any. */
export function filterOf(options: FilterOptions): EditFilter {
  const { status, verdict, finding, reach, tag, search, madeFor, madeWith } = options;
  const period = (from?: string, to?: string) => ((from ?? to) === undefined ? undefined : { from, to });
  const filter: EditFilter = {
    ...{ status, verdict, finding, reach, tags: tag, text: search, model: madeFor, adapter: madeWith },
    updated: period(options.since, options.until),
    created: period(options.createdSince, options.createdUntil),
    committed: period(options.committedSince, options.committedUntil),
  };
  return Object.fromEntries(Object.entries(filter).filter(([, value]) => value !== undefined));
}

/**
 * The edits a subcommand works on: those of the numbers given, or those a filter lets through.
 * @throws EmendError 'invalid-input' for both, and for neither: nothing is done to a whole library by leaving something out
 */
export function selectionOf(numbers: readonly number[], options: FilterOptions): EditSelection {
  const filter = filterOf(options);
  const filtered = Object.keys(filter).length > 0;
  if (numbers.length > 0 && filtered) {
    throw new EmendError('invalid-input', 'Give numbers of edits or a filter, not both.');
  }
  if (numbers.length > 0) return { edits: [...numbers] };
  if (filtered) return { filter };
  throw new EmendError(
    'invalid-input',
    'Give numbers of edits, or a filter such as --status draft or --tag night.',
  );
}

/** Parser of a list of numbers of edits. */
export function editNumbers(text: string, before: number[] = []): number[] {
  return [...before, editNumber(text)];
}

/** A number that is none is a mistake in the command, as commander tells them. */
export function editNumber(text: string): number {
  try {
    return parseId(text);
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message);
  }
}

/** Parser of `--sort`: a column, with `-` before it from the last to the first. */
export function sortOrder(text: string): EditSort {
  const descending = text.startsWith('-');
  const by = Sort.shape.by.safeParse(text.replace(/^-/, ''));
  if (by.success) return { by: by.data, descending };
  throw new InvalidArgumentError(
    `Sort by one of ${Sort.shape.by.options.join(', ')}; with a - before it from the last to the first.`,
  );
}
