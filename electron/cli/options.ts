/** @file Options that several subcommands share, read and checked; Ctrl+C as an abort signal; progress on stderr. */
import { InvalidArgumentError, Option } from 'commander';
import type { EditorChoice, ScopeChoice } from '../api/contract.ts';
import { demoModel } from '../api/resources.ts';
import { demandEditor } from '../editors/registry.ts';
import { type ScopeForm, scopeForms } from '../editors/scope/openScope.ts';
import { type Reach, reaches } from '../editors/scope/scope.ts';
import { settingFields, settingsFromTexts } from '../editors/settings.ts';
import type { EngineStream } from '../engine/protocol.ts';
import { EmendError } from '../errors.ts';
import { setFormats } from '../evaluation/sets/registry.ts';
import { onInterrupt } from '../frontends/interrupt.ts';
import { packedFolder, resourcesFolder } from '../frontends/places.ts';
import { type WeightForm, weightForms } from '../models/packed/form.ts';
import { E_VQA_SUFFIX } from '../models/prompt.ts';
import { providerNames } from '../tensor/session.ts';

/** Most rows a picture may take: a lower limit than the checkpoint's. */
export const pictureRowsOption = () =>
  new Option(
    '--picture-rows <number>',
    'let a picture take so many rows at most, where the model would give it more: rows cost memory',
  ).argParser(wholeNumber(1, 1_000_000));

export const providerOption = (otherwise = 'the best that loads when not given') =>
  new Option('--provider <name>', `execution provider; ${otherwise} (cpu is always there)`).choices(
    providerNames,
  );

export const weightsOption = () =>
  new Option(
    '--weights <form>',
    'as the checkpoint has them, or most of the decoder in 8 or 4 bits, packed once: for models that do not fit in memory',
  )
    .choices(weightForms)
    .default('dense' satisfies WeightForm);

/** Which editor a command opens its model with, where none was trained. */
export interface EditorOptions {
  editor?: string | undefined;
  setting?: string[] | undefined;
  scope?: ScopeForm | undefined;
  scopeFolder?: string | undefined;
}

export const editorOptions = () => [
  new Option(
    '--editor <name>',
    'an editor that needs no training, in place of an adapter; "emend editors" lists them',
  ),
  new Option(
    '--setting <name=value>',
    'a setting of that editor, the published one otherwise; may be given several times',
  ).argParser((text: string, before: string[] = []) => [...before, text]),
  new Option(
    '--scope <form>',
    'what decides where edits act: a learned scope, one cosine, nothing (all act everywhere), or the editor itself',
  ).choices(scopeForms),
  new Option(
    '--scope-folder <folder>',
    'where the scope lies that decides where that editor’s edits act; beside an adapter of the model otherwise',
  ),
];

/** The editor that was asked for with `editorOptions`. @throws EmendError 'invalid-input', 'not-found' */
export function editorChoice({ editor, setting = [], scope: form, scopeFolder: folder }: EditorOptions): {
  editor?: EditorChoice;
  scope?: ScopeChoice;
} {
  const scope = {
    ...(form !== undefined && { form }),
    ...(folder !== undefined && { folder }),
  };
  if (editor === undefined) {
    if (setting.length === 0 && folder === undefined) return form === undefined ? {} : { scope };
    throw new EmendError('invalid-input', '--setting and --scope-folder go with --editor. Name one.');
  }
  const { name, untrained } = demandEditor(editor);
  const fields = untrained ? settingFields(untrained.settings) : [];
  return {
    editor: { editor: name, settings: settingsFromTexts(name, fields, setting) },
    scope,
  };
}

/** How a model is opened in a form; packed weights lie where the app keeps them too. */
export const inForm = (weights: WeightForm) => ({
  weights,
  packed: { folder: packedFolder(), limitBytes: 50e9 },
});

export const templateOption = () =>
  new Option('--template <form>', "the papers' plain prompts, or the checkpoint's own chat template")
    .choices(['plain', 'chat'])
    .default('plain');

export const suffixOption = () =>
  new Option('--suffix [text]', `appended to the prompt; "${E_VQA_SUFFIX}" when no text is given`).preset(
    E_VQA_SUFFIX,
  );

export const reachOption = () =>
  new Option(
    '--reach <reach>',
    'how far edits go: their picture and its like, or the thing wherever it is shown',
  )
    .choices(reaches)
    .default('picture' satisfies Reach);

export const maxNewTokensOption = (otherwise: number | undefined) =>
  new Option('--max-new-tokens <number>', 'length of an answer at most')
    .argParser(wholeNumber(1, 1024))
    .default(otherwise);

export const formatOption = () =>
  new Option('--format <name>', 'of the data set; told from its fields otherwise').choices(
    setFormats.map(({ name }) => name),
  );

/** Parser of an option that is a whole number from `least` to `most`. */
export function wholeNumber(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (/^\d+$/.test(text) && value >= least && value <= most) return value;
    throw new InvalidArgumentError(`Give a whole number from ${least} to ${most}.`);
  };
}

/** Parser of an option that lists decoder layers, as 3,5,7: ascending, each once. */
export function layerList(text: string): number[] {
  if (!/^\d{1,4}(,\d{1,4})*$/.test(text)) throw new InvalidArgumentError('Give layers as 3 or 3,5,7.');
  return [...new Set(text.split(',').map(Number))].sort((a, b) => a - b);
}

/** Parser of an option that is a number from `least` to `most`. */
export function number(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() !== '' && value >= least && value <= most) return value;
    throw new InvalidArgumentError(`Give a number from ${least} to ${most}.`);
  };
}

/** The given checkpoint folder, else the demo model's. @throws EmendError `not-found` */
export function modelOrDemo(model: string | undefined): string {
  const folder = model ?? demoModel(resourcesFolder())?.path;
  if (folder !== undefined) return folder;
  throw new EmendError(
    'not-found',
    'No demo model is installed here. Give a checkpoint folder with --model.',
  );
}

/** Runs `work` with a signal that Ctrl+C aborts; a second Ctrl+C ends the process. */
export async function untilInterrupted<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const interrupt = onInterrupt(() => controller.abort());
  try {
    return await work(controller.signal);
  } finally {
    interrupt.off();
    if (process.stderr.isTTY) process.stderr.write('\r\x1b[K');
  }
}

/** Tells the progress of opening a model on stderr, as an engine streams it. */
export function tellOpening(message: EngineStream): void {
  if (message.kind === 'progress') tellProgress(`${message.stage}:`, message.done, message.total);
}

/** Tells progress on stderr where that is a terminal. */
export function tellProgress(stage: string, done: number, total: number | null): void {
  if (!process.stderr.isTTY) return;
  process.stderr.write(`\r\x1b[K${stage} ${done}${total === null ? '' : ` of ${total}`}`);
}

/** What was typed from a command's name on, as a shell reads it back. */
export function typedCommand(name: string): string {
  const quoted = (arg: string) => (/^[\w@%+=:,./-]+$/.test(arg) ? arg : `'${arg.replaceAll("'", "'\\''")}'`);
  return ['npx emend', ...process.argv.slice(process.argv.indexOf(name)).map(quoted)].join(' ');
}
