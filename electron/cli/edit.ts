/** @file `emend edit …`: the edits of a library, from draft to retired, over the contract like the page. */
import { resolve } from 'node:path';
import { Command, Option } from 'commander';
import {
  type CallOutput,
  type Edit,
  type EditRow,
  type EditSelection,
  type EditSort,
  type Finding,
  Reach,
} from '../api/contract.ts';
import { readPictureFile } from '../files/picture.ts';
import {
  editNumber,
  editNumbers,
  type FilterOptions,
  filterOf,
  selectionOf,
  sortOrder,
  withFilter,
} from './editFilter.ts';
import { manyCommands, numbers, tellBulk } from './editMany.ts';
import { type EditorOptions, editorOptions, wholeNumber } from './options.ts';
import { type Call, print, withSession } from './session.ts';

interface Common {
  library?: string;
  json?: boolean;
}
interface WithModel extends Common, EditorOptions {
  model?: string;
  adapter?: string;
}

export function editCommand(): Command {
  const edit = new Command('edit').description('write, check, commit and retire edits');
  for (const make of [add, list, show, preview, check, commit, health, retire, restore, exportModel])
    edit.addCommand(make());
  for (const command of manyCommands()) edit.addCommand(command);
  return edit;
}

/** A subcommand with the options they all have. */
function subcommand(name: string, description: string): Command {
  return new Command(name)
    .description(description)
    .option('--library <file>', 'library to work in; the default is in your data folder')
    .option('--json', 'print for programs');
}

/** A subcommand that asks the model. */
function asking(name: string, description: string): Command {
  const command = subcommand(name, description)
    .option('--model <folder>', 'checkpoint folder; the one used last otherwise')
    .option('--adapter <folder>', 'adapter to open it with; what was used last with it otherwise');
  for (const option of editorOptions()) command.addOption(option);
  return command;
}

async function addPicture(call: Call, file: string): Promise<string> {
  const bytes = await readPictureFile(file);
  return (await call('pictures.add', { base64: Buffer.from(bytes).toString('base64') })).id;
}

function exportModel(): Command {
  return asking(
    'export-model',
    'write what committed edits of weights do together into a copy of the checkpoint; other programs open it as it is',
  )
    .argument('<path>', 'folder that is not there yet; with --delta a file')
    .option('--delta', 'only what is added to each tensor, as safetensors')
    .action(async (path: string, { json, delta, ...options }: WithModel & { delta?: boolean }) => {
      const found = await withSession({ ...options, needsModel: true }, ({ call }) =>
        call('edits.exportWeights', { path: resolve(path), form: delta ? 'delta' : 'checkpoint' }),
      );
      const lines = [
        `${found.edits} ${found.edits === 1 ? 'edit' : 'edits'} written to ${found.path}: ${found.written.join(', ')} written` +
          (found.linked.length > 0 ? `, ${found.linked.length} files as they were.` : '.'),
        'They act everywhere there: no scope goes with a checkpoint.',
      ];
      print(found, lines.join('\n'), json);
    });
}

interface AddOptions extends Common {
  image: string;
  prompt: string;
  target: string;
  note?: string;
  reach?: Reach;
  rephrase?: string[];
  rephraseImage?: string[];
}

function add(): Command {
  return subcommand('add', 'write an edit as a draft')
    .requiredOption('--image <file>', 'the picture')
    .requiredOption('--prompt <text>', 'the question')
    .requiredOption('--target <text>', 'the right answer')
    .option('--note <text>', 'why, for whoever reads it later')
    .addOption(
      new Option(
        '--reach <reach>',
        'how far it goes: its own picture and its like, or the thing; as set otherwise',
      ).choices(Reach.options),
    )
    .option('--rephrase <text...>', 'other wordings that must be answered alike; the check asks them')
    .option('--rephrase-image <file...>', 'other pictures on which the prompt must be answered alike')
    .action(async ({ library, json, image, prompt, target, note, reach, ...more }: AddOptions) => {
      const edit = await withSession({ library, needsModel: false }, async ({ call }) => {
        const picture = await addPicture(call, image);
        const pictures: string[] = [];
        for (const file of more.rephraseImage ?? []) pictures.push(await addPicture(call, file));
        const probes = [
          ...(more.rephrase ?? []).map((wording) => ({
            ...{ kind: 'text-generality' as const, picture: null, prompt: wording },
          })),
          ...pictures.map((other) => ({ kind: 'image-generality' as const, picture: other, prompt })),
        ];
        return call('edits.create', { picture, prompt, target, note, reach, probes });
      });
      print(edit, `${line(edit)}\nCheck it with: emend edit check ${edit.id}`, json);
    });
}

interface ListOptions extends Common, FilterOptions {
  sort: EditSort;
  limit?: number;
}

function list(): Command {
  return withFilter(subcommand('list', 'list edits, newest first'))
    .addOption(
      new Option('--sort <column>', 'order, such as prompt or -updated')
        .argParser(sortOrder)
        .default({ by: 'id', descending: true } satisfies EditSort, '-id'),
    )
    .option('--limit <number>', 'the first so many only', wholeNumber(1, 1_000_000))
    .action(async ({ library, json, sort, limit = Number.POSITIVE_INFINITY, ...options }: ListOptions) => {
      const edits = await withSession({ library, needsModel: false }, async ({ call }) => {
        const filter = filterOf(options);
        const all: EditRow[] = [];
        for (;;) {
          const size = Math.min(500, limit - all.length);
          const page = await call('edits.find', { filter, sort, offset: all.length, limit: size });
          all.push(...page.rows);
          if (page.rows.length < size || all.length >= limit) return all;
        }
      });
      print(edits, edits.length > 0 ? edits.map(line).join('\n') : 'No edits.', json);
    });
}

function show(): Command {
  return subcommand('show', 'show an edit with its probes, latest check and history')
    .argument('<number>', 'number of the edit', editNumber)
    .action(async (id: number, { library, json }: Common) => {
      const shown = await withSession({ library, needsModel: false }, ({ call }) =>
        call('edits.show', { id }),
      );
      print(shown, details(shown), json);
    });
}

function preview(): Command {
  return asking('preview', 'answer before and after the edit alone')
    .argument('<number>', 'number of the edit', editNumber)
    .action(async (id: number, { json, ...options }: WithModel) => {
      const found = await withSession({ ...options, needsModel: true }, ({ call }) =>
        call('edits.preview', { id }),
      );
      const asked = found.after.asked === undefined ? '' : `\nasked:\n${found.after.asked}`;
      print(found, `before  ${found.before.text}\nafter   ${found.after.text}${asked}`, json);
    });
}

interface SetOptions extends WithModel, FilterOptions {
  allDrafts?: boolean;
}

const drafts = ['draft', 'checked', 'failed', 'stale'] as const;

/** The edits a subcommand is about: all drafts, those numbered, or those a filter lets through. */
function chosen(ids: readonly number[], { allDrafts, ...options }: SetOptions): EditSelection {
  return allDrafts ? selectionOf(ids, { ...options, status: [...drafts] }) : selectionOf(ids, options);
}

function check(): Command {
  return withFilter(
    asking('check', 'ask what an edit may change, before and after; exit code 1 when a check fails')
      .addArgument(numbers())
      .option('--all-drafts', 'every edit that is neither committed nor retired'),
  ).action(async (ids: number[], options: SetOptions) => {
    const { json } = options;
    const select = chosen(ids, options);
    const fails = await withSession({ ...options, needsModel: true }, async ({ call }) => {
      if (ids.length === 1) {
        const done = await call('checks.run', { edit: ids[0]! });
        print(done, report(done), json);
        return done.verdict === 'fails';
      }
      const done = await call('checks.runSet', { select });
      print(done, setReport(done), json);
      return done.results.some(({ verdict }) => verdict !== 'passes');
    });
    if (fails) process.exitCode = 1;
  });
}

interface CommitOptions extends SetOptions {
  reason?: string;
  supersede?: number;
}

function commit(): Command {
  return withFilter(
    asking('commit', 'let edits act, each after a fresh passing check')
      .addArgument(numbers())
      .option('--all-drafts', 'every edit that is neither committed nor retired; what is not ready is left')
      .option('--reason <text>', 'why they are committed without one; stays on record')
      .option('--supersede <number>', 'the committed edit that is retired with it', editNumber),
  ).action(async (ids: number[], options: CommitOptions, command: Command) => {
    const { json, reason, supersede } = options;
    const select = chosen(ids, options);
    const refused = await withSession({ ...options, needsModel: true }, async ({ call }) => {
      if (ids.length === 1) {
        const edit = await call('edits.commit', { id: ids[0]!, reason, supersede });
        print(edit, line(edit), json);
        return 0;
      }
      if (supersede !== undefined) command.error('error: --supersede goes with one edit');
      const done = await call('edits.commitSet', { select, reason });
      const told = done.refused.map(({ edit, message }) => `${String(edit).padStart(4)}  ${message}`);
      print(done, [...told, `Committed ${done.committed.length} edits.`].join('\n'), json);
      return done.refused.length;
    });
    if (refused > 0) process.exitCode = 1;
  });
}

function health(): Command {
  return asking('health', 'check committed edits again, against the model and adapter that are open')
    .argument('[numbers...]', 'numbers of the edits; all that are committed otherwise', editNumbers, [])
    .action(async (ids: number[], { json, ...options }: WithModel) => {
      const select = ids.length > 0 ? { edits: ids } : undefined;
      const done = await withSession({ ...options, needsModel: true }, ({ call }) =>
        call('checks.health', { select }),
      );
      print(done, healthReport(done), json);
      if (done.results.some(({ outcome }) => outcome === 'needs-work')) process.exitCode = 1;
    });
}

interface RetireOptions extends Common, FilterOptions {
  reason?: string;
}

function retire(): Command {
  return withFilter(
    subcommand('retire', 'stop edits from acting; they stay in the library')
      .addArgument(numbers())
      .option('--reason <text>', 'why; stays on record'),
  ).action(async (given: number[], { library, json, reason, ...filter }: RetireOptions) => {
    const [id] = given;
    if (given.length === 1 && id !== undefined && Object.keys(filterOf(filter)).length === 0) {
      const edit = await withSession({ library, needsModel: false }, ({ call }) =>
        call('edits.retire', { id, reason }),
      );
      print(edit, line(edit), json);
      return;
    }
    const found = await withSession({ library, needsModel: false }, ({ call }) =>
      call('edits.retireMany', { select: selectionOf(given, filter), reason }),
    );
    tellBulk('retired', found, json);
  });
}

function restore(): Command {
  return withFilter(subcommand('restore', 'make retired edits drafts again').addArgument(numbers())).action(
    async (given: number[], { library, json, ...filter }: Common & FilterOptions) => {
      const [id] = given;
      if (given.length === 1 && id !== undefined && Object.keys(filterOf(filter)).length === 0) {
        const edit = await withSession({ library, needsModel: false }, ({ call }) =>
          call('edits.restore', { id }),
        );
        print(edit, line(edit), json);
        return;
      }
      const found = await withSession({ library, needsModel: false }, ({ call }) =>
        call('edits.restoreMany', { select: selectionOf(given, filter) }),
      );
      tellBulk('restored', found, json);
    },
  );
}

const quoted = (text: string | null): string => (text === null ? '–' : `“${text}”`);

/** An edit in one line. */
function line({ id, status, prompt, before, target }: Edit): string {
  return `${String(id).padStart(4)}  ${status.padEnd(9)}  ${prompt}  ${quoted(before)} → ${quoted(target)}`;
}

type Check = CallOutput<'checks.run'>;

/** A finding in words. */
function found({ kind, edit }: Finding): string {
  return kind === 'entangled' ? `entangled with edit ${edit}` : kind;
}

function setReport({ results, pairs, seconds }: CallOutput<'checks.runSet'>): string {
  const passed = results.filter(({ verdict }) => verdict === 'passes').length;
  return [
    ...results.map(({ edit, verdict, finding, error }) => {
      const told = error ?? (finding ? found(finding) : '');
      return `${verdict === 'passes' ? '✓' : '✗'} ${String(edit).padStart(4)}  ${told}`;
    }),
    ...pairs.map(({ edit, disturbs, probes }) => {
      return `  edit ${edit} disturbs edit ${disturbs} (${probes} ${probes === 1 ? 'probe' : 'probes'})`;
    }),
    `${passed} of ${results.length} checks pass (${seconds.toFixed(1)} s).`,
  ].join('\n');
}

const outcomes = {
  holds: 'holds',
  'not-needed': 'no longer needed: the model now knows',
  'needs-work': 'needs work',
} as const;

function healthReport({ results, seconds }: CallOutput<'checks.health'>): string {
  return [
    ...results.map(({ edit, outcome, unedited, answer, passed, total }) => {
      const answers = `${quoted(unedited)} → ${quoted(answer)}`;
      return `${String(edit).padStart(4)}  ${outcomes[outcome]}  ${answers}  (${passed} of ${total} probes)`;
    }),
    `${results.length} committed edits checked (${seconds.toFixed(1)} s).`,
  ].join('\n');
}

/** The check's groups, every probe that failed, and drift that earlier edits caused. */
function report({
  verdict,
  finding,
  fresh,
  staleBy,
  seconds,
  groups,
  unchanged,
  everywhere,
  results,
}: Check): string {
  const asked = groups.filter(({ total }) => total > 0);
  return [
    ...asked.map(({ kind, passed, total, required, passes, byConstruction }) => {
      const share = `${passed} of ${total}`.padEnd(11);
      const note = byConstruction ? `  ${byConstruction}` : '';
      return `${passes ? '✓' : '✗'} ${kind.padEnd(18)}${share} (${Math.round(100 * required)} % needed)${note}`;
    }),
    ...results
      .filter(({ passes }) => !passes)
      .map(
        ({ probe, before, after }) =>
          `  ${probe.kind}: ${probe.prompt}  ${quoted(before)} → ${quoted(after)}` +
          (probe.expected === null ? ', should have stayed' : `, should be ${quoted(probe.expected)}`),
      ),
    ...results.flatMap(({ probe, unedited, before, drift }) =>
      drift === null
        ? []
        : [
            `  drift: ${probe.prompt}  ${quoted(unedited)} → ${quoted(before)}, ${drift.edit === null ? 'by edits committed before' : `by edit ${drift.edit}`}`,
          ],
    ),
    `The check ${verdict}: ${found(finding)} (${results.length} probes, ${everywhere ? 'every one of committed edits among them, for edits act everywhere' : `${unchanged} more of committed edits cannot change`}, ${seconds.toFixed(1)} s)${staleness(fresh, staleBy)}.`,
  ].join('\n');
}

function staleness(fresh: boolean, by: readonly number[]): string {
  if (fresh) return '';
  return by.length > 0 ? `, and is stale by edit ${by.join(', ')}` : ', and is stale';
}

function details({ edit, probes, check, history }: CallOutput<'edits.show'>): string {
  return [
    line(edit),
    `after: ${quoted(edit.after)}`,
    ...(edit.note ? [`note: ${edit.note}`] : []),
    ...(edit.overrideReason ? [`committed without a passing check: ${edit.overrideReason}`] : []),
    '',
    'probes',
    ...probes.map(
      ({ kind, prompt, expected }) => `  ${kind.padEnd(18)}${prompt || edit.prompt}  ${quoted(expected)}`,
    ),
    '',
    ...(check ? ['check', report(check), ''] : ['Not checked.', '']),
    'history',
    ...history.map(({ at, detail }) => `  ${at.slice(0, 16).replace('T', ' ')}  ${detail}`),
  ].join('\n');
}
