/** @file The same app without a page: one subcommand a file in cli/, each over the contract like the page itself. */
import { Command, CommanderError } from 'commander';
import { askCommand } from './cli/ask.ts';
import { attributeCommand } from './cli/attribute.ts';
import { benchCommand } from './cli/bench.ts';
import { editCommand } from './cli/edit.ts';
import { editorsCommand } from './cli/editors.ts';
import { inspectCommand } from './cli/inspect.ts';
import { layersCommand } from './cli/layers.ts';
import { modelsCommand } from './cli/models.ts';
import { packedCommand } from './cli/packed.ts';
import { providersCommand } from './cli/providers.ts';
import { serveCommand } from './cli/serve.ts';
import { sweepCommand } from './cli/sweep.ts';
import { traceCommand } from './cli/trace.ts';
import { trainCommand } from './cli/train.ts';
import { EmendError } from './errors.ts';
import { version } from './frontends/places.ts';

const emend = new Command('emend')
  .description('Correct what a vision-language model believes.')
  .version(version())
  // Else a command below a command loses the options that both have: `train scope --data`.
  .enablePositionalOptions();

const commands = [
  inspectCommand(),
  modelsCommand(),
  askCommand(),
  traceCommand(),
  editCommand(),
  editorsCommand(),
  benchCommand(),
  layersCommand(),
  attributeCommand(),
  trainCommand(),
  sweepCommand(),
  packedCommand(),
  providersCommand(),
  serveCommand(),
];
for (const command of commands) emend.addCommand(command);
tellUsageErrors(emend);

try {
  await emend.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    // What commander has said already: help and version, or a command that cannot be meant.
    process.exitCode = error.exitCode === 0 ? 0 : 2;
  } else {
    // Something to act on is a sentence; a mistake of ours keeps its stack.
    console.error(error instanceof EmendError ? `emend: ${error.message}` : error);
    process.exitCode = 1;
  }
}

/** Commander's errors come back to us, those of every subcommand too. */
function tellUsageErrors(command: Command): void {
  command.exitOverride().showHelpAfterError('(add --help for what is possible)');
  for (const below of command.commands) tellUsageErrors(below);
}
