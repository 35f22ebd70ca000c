/** @file Serves until somebody stops it: what `emend serve` does, and `npm start` where there is no window to open. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
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
    await stopped.promise;
    await served.close();
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
