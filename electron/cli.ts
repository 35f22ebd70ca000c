/** @file The same app without a page: one subcommand a file in cli/, each over the contract like the page itself. */
import { Command } from 'commander';
import { serveCommand } from './cli/serve.ts';
import { EmendError } from './errors.ts';
import { version } from './frontends/places.ts';

const emend = new Command('emend')
  .description('Correct what a vision-language model believes.')
  .version(version())
  .showHelpAfterError('(add --help for what is possible)');

for (const command of [serveCommand()]) emend.addCommand(command);

try {
  await emend.parseAsync();
} catch (error) {
  // Something to act on is a sentence; a mistake of ours keeps its stack.
  console.error(error instanceof EmendError ? `emend: ${error.message}` : error);
  process.exitCode = 1;
}
