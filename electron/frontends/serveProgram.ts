/** @file Serves until somebody stops it: what `emend serve` does, and `npm start` where there is no window to open. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { EditorChoice, ScopeChoice } from '../api/contract.ts';
import { EmendError } from '../errors.ts';
import { serve } from '../serve.ts';
import { onInterrupt } from './interrupt.ts';
import { pageFolder } from './places.ts';
import { startProgram } from './program.ts';

/**
 * Starts the program, prints `because` and the address, and returns once it was interrupted and everything is closed.
 * @throws EmendError when the library, the page or the port cannot be had
 */
export async function serveUntilStopped(options: {
  library?: string;
  port: number;
  because: string;
}): Promise<void> {
  if (!existsSync(join(pageFolder, 'index.html'))) {
    throw new EmendError('not-found', `The page is not built (${pageFolder}). Run "npm run build" first.`);
  }
  const stopped = Promise.withResolvers<void>();
  const interrupt = onInterrupt(stopped.resolve, ['SIGINT', 'SIGTERM', 'SIGHUP']);
  const program = await startProgram({ library: options.library });
  try {
    const served = await serve({ application: program.application, page: pageFolder, port: options.port });
    console.log(`${options.because} Open this address, once, in a browser on this machine (Ctrl+C stops):`);
    console.log(served.url);
    await program.application.endpoint.startAsSet();
    await stopped.promise;
    await served.close();
  } finally {
    await program.close();
    interrupt.off();
  }
}

/**
 * Starts the program with the endpoint for other programs and without a page, prints where it is, and returns once it was interrupted
 * and everything is closed. How the endpoint was set in the app stays as it is, but for the key.
 * @throws EmendError when the library, the model or the port cannot be had
 */
export async function serveEndpointUntilStopped(options: {
  library?: string;
  model?: string;
  adapter?: string;
  /** an editor that needs no training, in place of an adapter */
  editor?: EditorChoice;
  scope?: ScopeChoice;
  /** absent: as it was set */
  port?: number;
  /** folders whose pictures may be named, beside those that were set */
  folders: readonly string[];
  queue: number;
  newKey: boolean;
}): Promise<void> {
  const { library, model, adapter, editor, scope, folders } = options;
  const stopped = Promise.withResolvers<void>();
  const interrupt = onInterrupt(stopped.resolve, ['SIGINT', 'SIGTERM', 'SIGHUP']);
  const opens = (model ?? adapter ?? editor) !== undefined;
  const program = await startProgram({ library, startModel: opens ? 'none' : 'last' });
  const { application } = program;
  try {
    if (opens) {
      const path = model ?? (await application.call('models.recent', {}))[0]?.path;
      if (path === undefined)
        throw new EmendError('invalid-input', 'No model was opened before: name one with --model.');
      await application.call('models.open', { path, adapter, editor, scope });
    }
    const { url, name, key } = await application.endpoint.serve(options.port, folders, options);
    console.log(`${name} is served to other programs on this machine (Ctrl+C stops). Base URL:`);
    console.log(url);
    if ('made' in key) console.log(`Key, shown this once:\n${key.made}`);
    else console.log(`Key: the one that ends in ${key.hint} (--new-key makes another)`);
    await stopped.promise;
  } finally {
    await program.close();
    interrupt.off();
  }
}

/** Port as typed: a whole number from 0 (any free one) to 65535. */
export function parsePort(text: string): number {
  const port = Number(text);
  if (/^\d+$/.test(text) && port <= 65535) return port;
  throw new EmendError(
    'invalid-input',
    `"${text}" is not a port. Give a number from 0 (any free one) to 65535.`,
  );
}
