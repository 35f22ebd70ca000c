/** @file Commands that a longer one runs in processes of their own, each once: taken up where it was stopped, it does not run them again. */
import { fork } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { EmendError } from '../errors.ts';
import type { ComparedEditor, Comparison } from '../evaluation/comparisonReport.ts';

/** What `emend bench` writes of edits measured alone, as far as reports read it. */
export type SingleReport = Pick<ComparedEditor, 'verdicts' | 'cost'> &
  Omit<ComparedEditor['sizes'][number], 'edits'> & {
    readonly model: Comparison['model'];
    readonly peakBytes: number;
  };

/** Runs `emend` with these arguments. @throws EmendError 'cancelled' when stopped; 'engine' with what it said when it failed */
export async function runEmend(args: readonly string[], signal: AbortSignal): Promise<void> {
  const child = fork(process.argv[1]!, args, { signal, stdio: ['ignore', 'ignore', 'pipe', 'ipc'] });
  let said = '';
  child.stderr!.setEncoding('utf8');
  child.stderr!.on('data', (text: string) => {
    said = (said + text).slice(-4000);
    if (process.stderr.isTTY) process.stderr.write(text);
  });
  const code = await new Promise<number | null>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', resolve);
  }).catch((cause: unknown) => {
    if (signal.aborted)
      throw new EmendError(
        'cancelled',
        'It was stopped; what was measured is kept, and it goes on from there.',
        {
          cause,
        },
      );
    throw cause;
  });
  if (code !== 0) throw new EmendError('engine', reasonIn(said) || 'It ended without a word.');
}

/** What a command said it failed of: behind `emend:`, or `error:` where its options are wrong; else its last line. */
function reasonIn(said: string): string {
  const lines = said.trim().split('\n');
  return (lines.findLast((line) => /^(emend|error):/.test(line)) ?? lines.at(-1)!).replace(
    /^(emend|error): /,
    '',
  );
}

/**
 * Runs `emend` with these arguments, unless they were run to their end before with the same `of` (what the arguments do not say: the
 * program, hashes of files); `<stem>.key` remembers. Returns whether it ran.
 * @throws EmendError 'cancelled' when stopped; 'engine' with what it said when it failed
 */
export async function runOnce(
  args: readonly string[],
  stem: string,
  of: readonly string[],
  signal: AbortSignal,
): Promise<boolean> {
  const key = createHash('sha256')
    .update(JSON.stringify([args, of]))
    .digest('hex');
  const before = await readFile(`${stem}.key`, 'utf8').catch(() => '');
  if (before.trim() === key) return false;
  await rm(`${stem}.key`, { force: true });
  await runEmend(args, signal);
  await writeFile(`${stem}.key`, key);
  return true;
}

/** What `emend bench` measures, `<stem>.json`; see `runOnce`. */
export async function measured<T>(
  args: readonly string[],
  stem: string,
  of: readonly string[],
  signal: AbortSignal,
): Promise<T> {
  const path = `${stem}.json`;
  await runOnce([...args, '--json', path], stem, of, signal);
  return JSON.parse(await readFile(path, 'utf8')) as T;
}
