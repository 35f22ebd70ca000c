/** @file `emend edit import | export | tag | undo | redo`: what is done to many edits at once. */
import { resolve } from 'node:path';
import { Argument, Command, Option } from 'commander';
import type { CallOutput } from '../api/contract.ts';
import { editNumbers, type FilterOptions, selectionOf, withFilter } from './editFilter.ts';
import { print, withSession } from './session.ts';

interface Common {
  library?: string;
  json?: boolean;
}

const formats = ['evqa', 'emend', 'csv'] as const;
type Format = (typeof formats)[number];

function subcommand(name: string, description: string): Command {
  return new Command(name)
    .description(description)
    .option('--library <file>', 'library to work in; the default is in your data folder')
    .option('--json', 'print for programs');
}

/** The subcommands of `emend edit` that are about many edits. */
export const manyCommands = (): Command[] => [
  importCommand(),
  exportCommand(),
  tagCommand(),
  undoCommand(),
  redoCommand(),
];

interface ImportCommandOptions extends Common {
  images?: string;
  format?: Format;
  tag?: string[];
  dryRun?: boolean;
}

function importCommand(): Command {
  return subcommand('import', 'write a draft for each row of a file; exit code 1 when rows cannot be used')
    .argument(
      '<file>',
      'JSON in the form of E-VQA or of an export, or CSV with columns picture, prompt, target',
    )
    .option('--images <folder>', "folder the pictures are in; the file's own otherwise")
    .addOption(new Option('--format <format>', 'told from the file otherwise').choices(formats))
    .option('--tag <tag...>', 'tags for every edit')
    .option('--dry-run', 'tell what would come of it, and write nothing')
    .action(async (file: string, { library, json, images, format, tag, dryRun }: ImportCommandOptions) => {
      const found = await withSession({ library, needsModel: false }, ({ call }) =>
        call('edits.import', {
          file: resolve(file),
          ...(images !== undefined && { images: resolve(images) }),
          ...(format && { format }),
          tags: tag ?? [],
          dryRun: dryRun ?? false,
        }),
      );
      const verb = dryRun ? 'could be added' : 'added';
      const lines = [
        ...found.problems.map(({ row, reason }) => `row ${row}: ${reason}`),
        ...(found.wrong > found.problems.length ? [`and ${found.wrong - found.problems.length} more`] : []),
        `${found.added} of ${found.rows} rows ${verb}` +
          (found.known > 0 ? `, ${found.known} were there already` : '') +
          (found.wrong > 0 ? `, ${found.wrong} cannot be used` : '') +
          (found.stopped ? '; stopped before the end' : '') +
          '.',
      ];
      print(found, lines.join('\n'), json);
      if (found.wrong > 0 || found.stopped) process.exitCode = 1;
    });
}

interface ExportCommandOptions extends Common, FilterOptions {
  format: Format;
}

function exportCommand(): Command {
  return withFilter(
    subcommand('export', 'write edits and their pictures to a new folder')
      .argument('<folder>', 'folder that is not there yet')
      .addArgument(numbers())
      .addOption(new Option('--format <format>', 'form of the file').choices(formats).default('emend')),
  ).action(
    async (folder: string, given: number[], { library, json, format, ...filter }: ExportCommandOptions) => {
      const found = await withSession({ library, needsModel: false }, ({ call }) =>
        call('edits.exportMany', { select: selectionOf(given, filter), format, folder: resolve(folder) }),
      );
      const lines = [
        ...found.refused.map(({ edit, reason }) => `edit ${edit}: ${reason}`),
        `${found.edits} edits and ${found.pictures} pictures written to ${found.file}` +
          (found.refusals > 0 ? `, ${found.refusals} edits left out.` : '.'),
      ];
      print(found, lines.join('\n'), json);
      if (found.refusals > 0) process.exitCode = 1;
    },
  );
}

interface TagCommandOptions extends Common, FilterOptions {
  add?: string[];
  remove?: string[];
}

function tagCommand(): Command {
  return withFilter(
    subcommand('tag', 'add tags to edits, or take them away')
      .addArgument(numbers())
      .option('--add <tag...>', 'tags to add')
      .option('--remove <tag...>', 'tags to take away'),
  ).action(async (given: number[], { library, json, add, remove, ...filter }: TagCommandOptions) => {
    const found = await withSession({ library, needsModel: false }, ({ call }) =>
      call('edits.tagMany', { select: selectionOf(given, filter), add: add ?? [], remove: remove ?? [] }),
    );
    tellBulk('tagged', found, json);
  });
}

function undoCommand(): Command {
  return subcommand('undo', 'take back the last change to the library').action(
    async ({ library, json }: Common) => {
      const done = await withSession({ library, needsModel: false }, ({ call }) => call('history.undo', {}));
      print(done, `Taken back: ${done.label}`, json);
    },
  );
}

function redoCommand(): Command {
  return subcommand('redo', 'do again what was taken back last').action(async ({ library, json }: Common) => {
    const done = await withSession({ library, needsModel: false }, ({ call }) => call('history.redo', {}));
    print(done, `Done again: ${done.label}`, json);
  });
}

/** The argument of subcommands that take numbers or a filter. */
export const numbers = (): Argument =>
  new Argument('[numbers...]', 'numbers of the edits; otherwise those a filter lets through')
    .argParser(editNumbers)
    .default([]);

/** Tells what came of a change of many; exit code 1 where it could not be made to some. */
export function tellBulk(
  done: string,
  found: CallOutput<'edits.retireMany'>,
  json: boolean | undefined,
): void {
  const lines = [
    ...found.refused.map(({ edit, reason }) => `edit ${edit}: ${reason}`),
    ...(found.refusals > found.refused.length ? [`and ${found.refusals - found.refused.length} more`] : []),
    `${found.changed} edit${found.changed === 1 ? '' : 's'} ${done}${found.stopped ? '; stopped before the end' : ''}.`,
  ];
  print(found, lines.join('\n'), json);
  if (found.refusals > 0 || found.stopped) process.exitCode = 1;
}
