/** @file `emend serve`: the page on 127.0.0.1, for a machine without a display. */
import { Command } from 'commander';
import { parsePort, serveUntilStopped } from '../frontends/serveProgram.ts';

export function serveCommand(): Command {
  return new Command('serve')
    .description('serve the page to a browser on this machine')
    .option('--port <number>', 'port to listen on; 0 takes any free one', parsePort, 0)
    .option('--library <file>', 'library to open; the default is in your data folder')
    .action(async ({ port, library }: { port: number; library?: string }) => {
      await serveUntilStopped({ port, library, because: 'Emend is served.' });
    });
}
