/** @file `emend edit …`: the edits of a library, from draft to retired, over the contract like the page. */
import { Command, InvalidArgumentError, Option } from 'commander';
import { type CallOutput, type Edit, EditStatus } from '../api/contract.ts';
import { readPictureFile } from '../files/picture.ts';
import { type Call, parseId, print, withSession } from './session.ts';

interface Common {
  library?: string;
  json?: boolean;
}
interface WithModel extends Common {
  model?: string;
  adapter?: string;
}

export function editCommand(): Command {
  const edit = new Command('edit').description('write, check, commit and retire edits');
  for (const make of [add, list, show, preview, check, commit, retire, restore]) edit.addCommand(make());
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
  return subcommand(name, description)
    .option('--model <folder>', 'checkpoint folder; the one used last otherwise')
    .option('--adapter <folder>', 'adapter to open it with; the one used last with it otherwise');
}

async function addPicture(call: Call, file: string): Promise<string> {
  const bytes = await readPictureFile(file);
  return (await call('pictures.add', { base64: Buffer.from(bytes).toString('base64') })).id;
}

interface AddOptions extends Common {
  image: string;
  prompt: string;
  target: string;
  note?: string;
  rephrase?: string[];
  rephraseImage?: string[];
}

function add(): Command {
  return subcommand('add', 'write an edit as a draft')
    .requiredOption('--image <file>', 'the picture')
    .requiredOption('--prompt <text>', 'the question')
    .requiredOption('--target <text>', 'the right answer')
    .option('--note <text>', 'why, for whoever reads it later')
    .option('--rephrase <text...>', 'other wordings that must be answered alike; the check asks them')
    .option('--rephrase-image <file...>', 'other pictures on which the prompt must be answered alike')
    .action(async ({ library, json, image, prompt, target, note, ...more }: AddOptions) => {
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
        return call('edits.create', { picture, prompt, target, note, probes });
      });
      print(edit, `${line(edit)}\nCheck it with: emend edit check ${edit.id}`, json);
    });
}

function list(): Command {
  return subcommand('list', 'list edits, newest first')
    .addOption(new Option('--status <status...>', 'only edits of these statuses').choices(EditStatus.options))
    .option('--search <text>', 'only edits that mention this')
    .action(
      async ({ library, json, status, search }: Common & { status?: Edit['status'][]; search?: string }) => {
        const edits = await withSession({ library, needsModel: false }, ({ call }) =>
          call('edits.list', { status, search }),
        );
        print(edits, edits.length > 0 ? edits.map(line).join('\n') : 'No edits.', json);
      },
    );
}

function show(): Command {
  return subcommand('show', 'show an edit with its probes, latest check and history')
    .argument('<number>', 'number of the edit', editId)
    .action(async (id: number, { library, json }: Common) => {
      const shown = await withSession({ library, needsModel: false }, ({ call }) =>
        call('edits.show', { id }),
      );
      print(shown, details(shown), json);
    });
}

function preview(): Command {
  return asking('preview', 'answer before and after the edit alone')
    .argument('<number>', 'number of the edit', editId)
    .action(async (id: number, { json, ...options }: WithModel) => {
      const found = await withSession({ ...options, needsModel: true }, ({ call }) =>
        call('edits.preview', { id }),
      );
      print(found, `before  ${found.before.text}\nafter   ${found.after.text}`, json);
    });
}

function check(): Command {
  return asking('check', 'ask every probe before and after; exit code 1 when the check fails')
    .argument('<number>', 'number of the edit', editId)
    .action(async (id: number, { json, ...options }: WithModel) => {
      const done = await withSession({ ...options, needsModel: true }, ({ call }) =>
        call('checks.run', { edit: id }),
      );
      print(done, report(done), json);
      if (done.verdict === 'fails') process.exitCode = 1;
    });
}

function commit(): Command {
  return subcommand('commit', 'let an edit act, after a fresh passing check')
    .argument('<number>', 'number of the edit', editId)
    .option('--reason <text>', 'why it is committed without one; stays on record')
    .action(async (id: number, { library, json, reason }: Common & { reason?: string }) => {
      const edit = await withSession({ library, needsModel: false }, ({ call }) =>
        call('edits.commit', { id, reason }),
      );
      print(edit, line(edit), json);
    });
}

function retire(): Command {
  return subcommand('retire', 'stop an edit from acting; it stays in the library')
    .argument('<number>', 'number of the edit', editId)
    .option('--reason <text>', 'why; stays on record')
    .action(async (id: number, { library, json, reason }: Common & { reason?: string }) => {
      const edit = await withSession({ library, needsModel: false }, ({ call }) =>
        call('edits.retire', { id, reason }),
      );
      print(edit, line(edit), json);
    });
}

function restore(): Command {
  return subcommand('restore', 'make a retired edit a draft again')
    .argument('<number>', 'number of the edit', editId)
    .action(async (id: number, { library, json }: Common) => {
      const edit = await withSession({ library, needsModel: false }, ({ call }) =>
        call('edits.restore', { id }),
      );
      print(edit, line(edit), json);
    });
}

/** A number that is none is a mistake in the command, as commander tells them. */
function editId(text: string): number {
  try {
    return parseId(text);
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message);
  }
}

const quoted = (text: string | null): string => (text === null ? '–' : `“${text}”`);

/** An edit in one line. */
function line({ id, status, prompt, before, target }: Edit): string {
  return `${String(id).padStart(4)}  ${status.padEnd(9)}  ${prompt}  ${quoted(before)} → ${quoted(target)}`;
}

type Check = CallOutput<'checks.run'>;

/** The check's groups, and every probe that failed. */
function report({ verdict, fresh, seconds, groups, results }: Check): string {
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
    `The check ${verdict} (${results.length} probes, ${seconds.toFixed(1)} s)${fresh ? '' : ', and is stale'}.`,
  ].join('\n');
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
