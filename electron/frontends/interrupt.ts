/** @file Ctrl+C: once asks for an end, again insists on it. */

/** Within so many milliseconds a second SIGINT is the first one again: the terminal sends it, and so do npm and npx. */
const SAME_INTERRUPT = 1000;

/** Does `stop` at the first of `signals`; one that comes later ends the process. */
export function onInterrupt(
  stop: () => void,
  signals: readonly NodeJS.Signals[] = ['SIGINT'],
): { off(): void } {
  let since: number | null = null;
  const interrupt = (): void => {
    if (since === null) {
      since = Date.now();
      stop();
    } else if (Date.now() - since > SAME_INTERRUPT) process.exit(130);
  };
  for (const signal of signals) process.on(signal, interrupt);
  return {
    off: () => {
      for (const signal of signals) process.off(signal, interrupt);
    },
  };
}
