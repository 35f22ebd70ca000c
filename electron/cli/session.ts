/** @file What subcommands share: the program for as long as one command takes, progress on stderr, Ctrl+C as cancel. */
import type { CallInput, CallName, CallOutput } from '../api/contract.ts';
import { EmendError, type ErrorCode } from '../errors.ts';
import { onInterrupt } from '../frontends/interrupt.ts';
import { type Program, startProgram } from '../frontends/program.ts';
import type { WeightForm } from '../models/packed/form.ts';
import type { Provider } from '../tensor/session.ts';
import { type EditorOptions, editorChoice, modelOrDemo } from './options.ts';

/** A call of the contract, followed and cancellable. */
export type Call = <N extends CallName>(name: N, input: CallInput<N>) => Promise<CallOutput<N>>;

export interface CommandSession {
  readonly call: Call;
  readonly program: Program;
}

export interface SessionOptions extends EditorOptions {
  readonly library?: string;
  /** checkpoint folder to open in place of the one used last */
  readonly model?: string;
  /** adapter to open the model with, also the one used last */
  readonly adapter?: string | undefined;
  /** form of the weights to open that model in; the one used last with it when absent */
  readonly weights?: WeightForm;
  /** execution providers to try in place of the library's */
  readonly providers?: readonly Provider[];
  /** whether the command needs a model at all */
  readonly needsModel: boolean;
}

/**
 * Runs `work` with a program that is closed afterwards, whatever happens.
 * Progress is told on stderr where that is a terminal; Ctrl+C cancels what runs, so that `work` fails with `cancelled`.
 */
export async function withSession<T>(
  options: SessionOptions,
  work: (session: CommandSession) => Promise<T>,
): Promise<T> {
  const { library, model, adapter, weights, providers, needsModel } = options;
  const chosen = editorChoice(options);
  const opens = (model ?? adapter ?? chosen.editor ?? chosen.scope) !== undefined;
  const program = await startProgram({
    library,
    providers,
    startModel: needsModel && !opens ? 'last' : 'none',
    // Most commands end without a question to a model.
    beginEngine: 'with the first call',
  });
  const { application } = program;
  const jobs = new Set<string>();
  let numbered = 0;

  const call: Call = async (name, input) => {
    const job = `cli-${++numbered}`;
    jobs.add(job);
    try {
      return await application.call(name, input, { job });
    } finally {
      jobs.delete(job);
    }
  };
  const interrupt = onInterrupt(() => {
    for (const job of jobs) void application.call('jobs.cancel', { job }).catch(() => {});
  });
  const quiet = application.on(
    'jobs.changed',
    ({ job: { stage, done, total, unit, secondsLeft, ended } }) => {
      if (!process.stderr.isTTY || stage === '' || ended !== null) return;
      const left = secondsLeft === null ? '' : `, ${secondsLeft} s left`;
      process.stderr.write(`\r\x1b[K${stage} ${done}${total === null ? '' : `/${total}`} ${unit}${left}`);
    },
  );
  try {
    const { path: file, readOnly } = (await call('app.status', {})).library;
    if (readOnly) console.error(`emend: ${file} can only be read here; changes will be refused.`);
    if (opens) {
      const path = model ?? (await call('models.recent', {}))[0]?.path ?? modelOrDemo(undefined);
      await call('models.open', { path, adapter, ...chosen, ...(weights && { weights }) });
    }
    return await work({ call, program });
  } finally {
    quiet();
    if (process.stderr.isTTY) process.stderr.write('\r\x1b[K');
    interrupt.off();
    await program.close();
  }
}

/** Prints for programs (`--json`) or for people. */
export function print(value: unknown, text: string, json: boolean | undefined): void {
  console.log(json ? JSON.stringify(value, null, 2) : text);
}

/** Number of an edit or probe as typed. @throws EmendError `invalid-input` */
export function parseId(text: string): number {
  if (/^[1-9]\d{0,14}$/.test(text)) return Number(text);
  throw new EmendError(
    'invalid-input' satisfies ErrorCode,
    `"${text}" is not a number of an edit. "emend edit list" shows them.`,
  );
}
