/** @file `emend serve`: the page on 127.0.0.1, for a machine without a display; or an endpoint in OpenAI's form for other programs. */
import { Command } from 'commander';
import { EmendError } from '../errors.ts';
import { parsePort, serveEndpointUntilStopped, serveUntilStopped } from '../frontends/serveProgram.ts';
import { USUAL_QUEUE } from '../openai/server.ts';
import { type EditorOptions, editorChoice, editorOptions, wholeNumber } from './options.ts';

interface ServeOptions extends EditorOptions {
  port?: number;
  library?: string;
  api?: boolean;
  model?: string;
  adapter?: string;
  pictures?: string[];
  queue?: number;
  newKey?: boolean;
}

export function serveCommand(): Command {
  const command = new Command('serve')
    .description('serve the page to a browser on this machine, or the corrected model to other programs')
    .option('--port <number>', 'port to listen on; 0 takes any free one', parsePort)
    .option('--library <file>', 'library to open; the default is in your data folder')
    .option('--api', 'serve an OpenAI-compatible endpoint in place of the page')
    .option('--model <folder>', 'with --api: checkpoint folder; the one used last otherwise')
    .option(
      '--adapter <folder>',
      'with --api: adapter to open the model with; the one used last with it otherwise',
    )
    .option('--pictures <folders...>', 'with --api: folders whose picture files requests may name')
    .option(
      '--queue <number>',
      `with --api: requests that may wait while one is answered (${USUAL_QUEUE})`,
      wholeNumber(0, 1000),
    )
    .option('--new-key', 'with --api: make a new key; the old one is answered no more')
    .action(async ({ api, port, library, ...options }: ServeOptions) => {
      if (!api) {
        if (Object.keys(options).length > 0) {
          throw new EmendError(
            'invalid-input',
            '--model, --adapter, --editor, --pictures, --queue and --new-key go with --api. Add it.',
          );
        }
        await serveUntilStopped({ port: port ?? 0, library, because: 'Emend is served.' });
        return;
      }
      const { model, adapter, pictures = [], queue = USUAL_QUEUE, newKey = false } = options;
      const chosen = editorChoice(options);
      await serveEndpointUntilStopped({
        ...{ library, model, adapter, ...chosen, port, queue, newKey },
        folders: pictures,
      });
    });
  for (const option of editorOptions()) command.addOption(option);
  return command;
}
