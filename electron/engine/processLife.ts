/** @file The engine process from ready to end: it answers, reports its memory, and goes when its parent goes. */
import { serveOperations } from './jobs.ts';
import { type EnginePort, parentPort } from './port.ts';
import type { OperationTable } from './protocol.ts';

const MEMORY_INTERVAL = 5_000;
/** Bytes; less is not worth a message. */
const MEMORY_STEP = 4 * 1024 * 1024;
/** A job that does not look at its signal must not keep an engine nobody owns. */
const LAST_MOMENT = 15_000;

/**
 * Serves `operations` to the parent process until told to stop or until the parent is gone.
 * A running job is given the chance to notice before the process ends.
 * @param release frees what must not outlive the last job: inference sessions, before macOS aborts over them
 */
export function runEngineProcess(
  operations: OperationTable,
  release: () => Promise<void> = async () => {},
): void {
  const port: EnginePort = parentPort();
  let ending = false;
  const end = async (): Promise<void> => {
    if (ending) return;
    ending = true;
    setTimeout(() => process.exit(1), LAST_MOMENT).unref();
    await jobs.drain();
    await release();
    process.exit(0);
  };
  const jobs = serveOperations(port, operations, { onStop: () => void end() });
  port.onClose(() => void end());
  // An interrupt from the terminal reaches the whole group: the parent decides when the engine ends.
  process.on('SIGINT', () => {});

  let reported = 0;
  const reportMemory = (): void => {
    const bytes = process.memoryUsage.rss();
    if (Math.abs(bytes - reported) < MEMORY_STEP) return;
    reported = bytes;
    port.send({ kind: 'memory', bytes });
  };
  setInterval(reportMemory, MEMORY_INTERVAL).unref();
  port.send({ kind: 'ready' });
  reportMemory();
}
