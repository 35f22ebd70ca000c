/** @file `emend providers`: what this machine can run models on, what is missing, and the command that fetches it. */
import { Command } from 'commander';
import { examineProviders } from '../tensor/providers.ts';
import { print } from './session.ts';

export function providersCommand(): Command {
  return new Command('providers')
    .description('show what models can run on here, and what is missing')
    .option('--json', 'for programs')
    .action(async ({ json }: { json?: boolean }) => {
      const examined = await examineProviders();
      const lines = examined.map(({ provider, runs, said, command }) => {
        const fetch = command === null ? '' : `\n${''.padEnd(16)}to fetch it: ${command}`;
        return `${provider.padEnd(9)}${(runs ? 'runs' : '–').padEnd(7)}${said}${fetch}`;
      });
      print(examined, lines.join('\n'), json);
    });
}
