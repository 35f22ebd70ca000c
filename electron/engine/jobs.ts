/** @file The engine's side of the protocol: calls wait in a queue, one runs at a time, each can be cancelled. */
import { EmendError } from '../errors.ts';
import { checkMessageSize } from './messageSize.ts';
import type { EnginePort } from './port.ts';
import type {
  EngineOperations,
  OperationContext,
  OperationName,
  OperationTable,
  ToEngine,
} from './protocol.ts';

interface Job {
  readonly id: number;
  readonly name: OperationName;
  readonly input: unknown;
  readonly cancel: AbortController;
}

export interface EngineJobs {
  /** Cancels everything and waits for the running job to notice. */
  drain(): Promise<void>;
}

/**
 * Answers calls that come through `port` with `operations`, first come first served. A call that is cancelled before it
 * ends fails with code `cancelled`; one that ends all the same is answered with its result, because it did happen.
 * @param options.onStop the parent asks the process to end
 */
export function serveOperations(
  port: EnginePort,
  operations: OperationTable,
  options: { onStop: () => void; messageLimit?: number },
): EngineJobs {
  const queue: Job[] = [];
  let running: { job: Job; done: Promise<void> } | null = null;

  const advance = (): void => {
    if (running) return;
    const job = queue.shift();
    if (!job) return;
    const done = runJob(port, operations, job).then(() => {
      running = null;
      advance();
    });
    running = { job, done };
  };

  const cancel = (id: number): void => {
    if (running?.job.id === id) {
      running.job.cancel.abort();
      return;
    }
    const place = queue.findIndex((job) => job.id === id);
    if (place < 0) return;
    queue.splice(place, 1);
    port.send({ kind: 'error', id, error: { code: 'cancelled', message: 'Stopped.' } });
  };

  port.onMessage((raw) => {
    const message = readMessage(raw, operations, options.messageLimit);
    if (message.kind === 'stop') options.onStop();
    else if (message.kind === 'cancel') cancel(message.id);
    else if (message.kind === 'refused') {
      if (message.id !== null) port.send({ kind: 'error', id: message.id, error: wireError(message.reason) });
    } else {
      queue.push({ id: message.id, name: message.name, input: message.input, cancel: new AbortController() });
      advance();
    }
  });

  return {
    async drain() {
      for (const job of [...queue]) cancel(job.id);
      running?.job.cancel.abort();
      await running?.done;
    },
  };
}

async function runJob(port: EnginePort, operations: OperationTable, job: Job): Promise<void> {
  const context: OperationContext = {
    signal: job.cancel.signal,
    send: (message) => port.send({ kind: 'stream', id: job.id, message }),
  };
  try {
    // The table's type ties name, input and output together; the name was checked when the message was read.
    const operation = operations[job.name] as (input: unknown, context: OperationContext) => Promise<unknown>;
    const output = (await operation(job.input, context)) as EngineOperations[OperationName]['output'];
    port.send({ kind: 'result', id: job.id, output });
  } catch (error) {
    const cancelled = job.cancel.signal.aborted;
    port.send({
      kind: 'error',
      id: job.id,
      error: cancelled ? { code: 'cancelled', message: 'Stopped.' } : wireError(error),
    });
  }
}

type ReadMessage = ToEngine | { kind: 'refused'; id: number | null; reason: unknown };

function readMessage(raw: unknown, operations: OperationTable, limit: number | undefined): ReadMessage {
  const message = (typeof raw === 'object' && raw !== null ? raw : {}) as Record<string, unknown>;
  if (message.kind === 'stop') return { kind: 'stop' };
  const id = Number.isSafeInteger(message.id) ? (message.id as number) : null;
  try {
    if (id === null) throw new EmendError('internal', 'The engine was sent a message without a number.');
    if (message.kind === 'cancel') return { kind: 'cancel', id };
    if (message.kind !== 'call') {
      throw new EmendError(
        'internal',
        `The engine does not know messages of kind "${String(message.kind)}".`,
      );
    }
    if (typeof message.name !== 'string' || !Object.hasOwn(operations, message.name)) {
      throw new EmendError('internal', `The engine has no operation "${String(message.name)}".`);
    }
    checkMessageSize(message.input, limit);
    return { kind: 'call', id, name: message.name as OperationName, input: message.input };
  } catch (reason) {
    return { kind: 'refused', id, reason };
  }
}

function wireError(error: unknown): { code: string; message: string } {
  if (error instanceof EmendError) return { code: error.code, message: error.message };
  // Not for people to act on, but better told than hidden: the stack goes to the log, the sentence to the caller.
  console.error(error);
  return {
    code: 'internal',
    message: `The engine failed: ${error instanceof Error ? error.message : String(error)}`,
  };
}
