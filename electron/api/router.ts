/**
 * @file From a name and an unknown input to a handler and back: everything that crosses is checked against the contract.
 */
import { randomUUID } from 'node:crypto';
import type { z } from 'zod';
import { EmendError } from '../errors.ts';
import { type CallName, type Calls, calls, JobId, type WireError } from './contract.ts';
import { type JobReport, type Jobs, noReport, subjectOf } from './jobs.ts';

/** What a handler of a long call is given beside its input. */
export interface CallContext {
  /** the job's id, under which events are sent */
  readonly job: string;
  /** aborted when the caller cancels; a handler looks at it before it writes */
  readonly signal: AbortSignal;
  /** where it tells how far it is and what came of it */
  readonly report: JobReport;
}

/** One function per call, its input checked already. */
export type Handlers = {
  readonly [N in CallName]: (
    input: z.output<Calls[N]['input']>,
    context: CallContext,
  ) => z.input<Calls[N]['output']> | Promise<z.input<Calls[N]['output']>>;
};

/** Handlers of the calls about one subject, such as `edits`. */
export type HandlersOf<S extends string> = Pick<Handlers, Extract<CallName, `${S}.${string}`>>;

export type Dispatch = (name: string, input: unknown, options?: { job?: string }) => Promise<unknown>;

/**
 * Makes the function every front end calls.
 * It rejects with EmendErrors only: 'invalid-input' names the field, 'internal' stands for a mistake of ours.
 */
export function createRouter(handlers: Handlers, jobs: Jobs): Dispatch {
  return async (name, input, { job } = {}) => {
    if (!Object.hasOwn(calls, name)) throw new EmendError('invalid-input', `There is no call "${name}".`);
    const { input: inputSchema, output: outputSchema, job: isJob } = calls[name as CallName];
    const handler = handlers[name as CallName] as (input: unknown, context: CallContext) => unknown;

    const checked = inputSchema.safeParse(input);
    if (!checked.success) throw new EmendError('invalid-input', `${name}: ${fieldsOf(checked.error)}`);
    if (job !== undefined && !JobId.safeParse(job).success) {
      throw new EmendError('invalid-input', `${name}: a job id is a text of 1 to 64 characters.`);
    }
    const work = async (context: CallContext): Promise<unknown> => {
      const output = outputSchema.safeParse(await handler(checked.data, context));
      if (output.success) return output.data;
      throw new EmendError(
        'internal',
        `${name} answered what the contract does not allow: ${fieldsOf(output.error)}`,
      );
    };
    const id = job ?? randomUUID();
    try {
      if (!isJob) return await work({ job: id, signal: new AbortController().signal, report: noReport });
      const about = subjectOf(name, checked.data, isJob);
      return await jobs.run(id, about, (signal, report) => work({ job: id, signal, report }));
    } catch (error) {
      throw asEmendError(error, name);
    }
  };
}

/** What an error looks like on the wire: code and message, never a stack. */
export function wireError(error: unknown): WireError {
  const { code, message } = asEmendError(error);
  return { code, message };
}

function asEmendError(error: unknown, name = 'Emend'): EmendError {
  if (error instanceof EmendError) return error;
  const said = error instanceof Error ? error.message.split('\n')[0] : String(error);
  return new EmendError('internal', `${name} failed by a mistake in Emend: ${said}`, { cause: error });
}

function fieldsOf(error: z.ZodError): string {
  const told = error.issues.slice(0, 3).map(({ path, message }) => {
    return path.length > 0 ? `"${path.join('.')}": ${message}` : message;
  });
  return `${told.join('; ')}.`;
}
