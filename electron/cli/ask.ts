/** @file `emend ask`: one answer, of the model alone or with a library's committed edits. */

import { Command } from 'commander';
import type { Answer } from '../api/contract.ts';
import { forkEngine } from '../engine/forkEngine.ts';
import { startEngine } from '../engine/supervisor.ts';
import { EmendError } from '../errors.ts';
import { readPictureFile } from '../files/picture.ts';
import type { WeightForm } from '../models/packed/form.ts';
import type { PromptForm } from '../models/prompt.ts';
import type { Provider } from '../tensor/session.ts';
import {
  type EditorOptions,
  editorOptions,
  inForm,
  maxNewTokensOption,
  modelOrDemo,
  number,
  pictureRowsOption,
  providerOption,
  suffixOption,
  tellOpening,
  templateOption,
  untilInterrupted,
  weightsOption,
  wholeNumber,
} from './options.ts';
import { print, withSession } from './session.ts';

interface AskOptions extends EditorOptions {
  weights: WeightForm;
  model?: string;
  image?: string;
  prompt: string;
  suffix?: string;
  template: PromptForm;
  maxNewTokens?: number;
  temperature: number;
  topP: number;
  seed: number;
  pictureRows?: number;
  provider?: Provider;
  edited?: boolean;
  library?: string;
  adapter?: string;
  json?: boolean;
}

export function askCommand(): Command {
  const command = new Command('ask')
    .description('ask a model about a picture')
    .option(
      '--model <folder>',
      'checkpoint folder; the demo model (with --edited: the one used last) otherwise',
    )
    .option('--image <file>', 'picture to ask about; none asks in text alone')
    .requiredOption('--prompt <text>', 'the question')
    .addOption(suffixOption())
    .addOption(templateOption())
    .addOption(maxNewTokensOption(undefined))
    .option('--temperature <number>', '0 always takes the most probable token', number(0, 5), 0)
    .option('--top-p <number>', 'sample from the most probable tokens of this mass', number(0.000001, 1), 1)
    .option('--seed <number>', 'of the sampling', wholeNumber(0, 2 ** 32 - 1), 0)
    .addOption(pictureRowsOption())
    .addOption(weightsOption())
    .addOption(providerOption())
    .option('--edited', "let the library's committed edits act, and say which did")
    .option('--library <file>', 'library to take edits from; the default is in your data folder')
    .option('--adapter <folder>', 'adapter to open the model with; what was used last with it otherwise')
    .option('--json', 'print tokens, probabilities, alternatives, provider and times, for programs')
    .action(async (options: AskOptions, command: Command) => {
      const template = command.getOptionValueSource('template') === 'cli';
      if (options.edited && template) {
        throw new EmendError(
          'invalid-input',
          '--template cannot be chosen with --edited: edits act in the prompts they were checked with, as the library’s settings say.',
        );
      }
      if (!options.edited && (options.library || options.adapter || options.editor)) {
        throw new EmendError('invalid-input', '--library, --adapter and --editor go with --edited. Add it.');
      }
      const picture = options.image === undefined ? null : await readPictureFile(options.image);
      const answer = options.edited
        ? await askEdited(options, picture)
        : await askModel(options, modelOrDemo(options.model), picture);
      const { text, ...told } = answer;
      print({ prompt: promptOf(options), answer: text, ...told }, forPeople(answer), options.json);
    });
  for (const option of editorOptions()) command.addOption(option);
  return command;
}

/** As the contract takes prompts: a space at the end makes models answer nothing. */
const promptOf = ({ prompt, suffix = '' }: AskOptions): string => (prompt + suffix).trim();

/** The sampling asked for; none is greedy. */
const samplingOf = ({ temperature, topP, seed }: AskOptions) =>
  temperature > 0 ? { temperature, topP, seed } : undefined;

/** Answers in an engine process, so that a driver that fails takes only that down. */
async function askModel(options: AskOptions, model: string, picture: Uint8Array | null): Promise<Answer> {
  const engine = startEngine({ launch: () => forkEngine() });
  try {
    return await untilInterrupted(async (signal) => {
      const { provider, template, pictureRows, maxNewTokens = 64 } = options;
      const providers = provider ? [provider] : [];
      const form = inForm(options.weights);
      const opening = { path: model, adapter: null, providers, template, pictureRows, ...form };
      await engine.call('open', opening, { signal, onStream: tellOpening });
      const sampling = samplingOf(options) ?? null;
      const question = { picture, prompt: promptOf(options), edits: 'none' as const, maxNewTokens, sampling };
      return engine.call('ask', question, { signal });
    });
  } finally {
    await engine.stop();
  }
}

async function askEdited(options: AskOptions, file: Uint8Array | null): Promise<Answer> {
  const { library, model, adapter, provider, maxNewTokens } = options;
  const { editor, setting, scope, scopeFolder } = options;
  if (options.weights !== 'dense' && (model ?? adapter ?? editor) === undefined)
    throw new EmendError('invalid-input', '--weights goes with --model here: say which model to open so.');
  const providers = provider && [provider];
  return withSession(
    {
      ...{ library, model, adapter, editor, setting, scope, scopeFolder, providers },
      ...{ weights: options.weights, needsModel: true },
    },
    async ({ call }) => {
      const picture = file
        ? (await call('pictures.add', { base64: Buffer.from(file).toString('base64') })).id
        : null;
      const sampling = samplingOf(options);
      const prompt = promptOf(options);
      return call('answers.ask', { picture, prompt, edits: 'committed', sampling, maxNewTokens });
    },
  );
}

function forPeople({ text, ended, provider, times, routing, together, asked }: Answer): string {
  const lines = [text + (ended === 'length' ? ' …' : '')];
  if (routing) lines.push(routed(routing));
  if (together !== undefined) lines.push(togetherWords(together));
  if (asked !== undefined) lines.push(`Asked:\n${asked}`);
  lines.push(`(${provider}, ${(times.total / 1000).toFixed(2)} s)`);
  return lines.join('\n');
}

function togetherWords(edits: number): string {
  if (edits === 1) return 'One committed edit acts everywhere.';
  return edits === 0 ? 'No edit is committed.' : `${edits} committed edits act everywhere, together.`;
}

function routed({ edit, closest, score, threshold }: NonNullable<Answer['routing']>): string {
  const figures = `score ${score?.toFixed(2)}, ${threshold?.toFixed(2)} needed`;
  if (edit !== null) return `Edit ${edit} acted (${figures}).`;
  return closest === null ? 'No edit acted.' : `No edit acted; the closest is ${closest} (${figures}).`;
}
