/**
 * @file Command: node electron/demo/trainEditors.ts --out DIR [--editor VisEdit,MEND]
 * Trains the demo's editors one after the other, each as `emend train`. Stopped and started again it goes on where it was; what is done is not done again.
 */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { EmendError } from '../errors.ts';
import { readTrainingRun } from '../evaluation/trainingRun.ts';
import { demoEditors, demoEditorsNamed, type EditorTraining, editorTrainings } from './editorTrainings.ts';

const cli = join(import.meta.dirname, '../cli.ts');

async function isDone({ folder, steps }: EditorTraining): Promise<boolean> {
  const run = await readTrainingRun(join(folder, 'training')).catch(() => null);
  // An adapter may have been made of it before its last step.
  return (
    run?.progress.finished === true && run.progress.step >= steps && existsSync(join(folder, 'adapter.json'))
  );
}

/** Runs `emend train` to its end; gives its exit code. Ctrl+C is its matter: it saves its state first. */
function train({ args }: EditorTraining): Promise<number> {
  const child = spawn(process.execPath, [cli, 'train', ...args], { stdio: 'inherit' });
  const signals = ['SIGINT', 'SIGTERM'] as const;
  const pass = (signal: NodeJS.Signals) => child.kill(signal);
  for (const signal of signals) process.on(signal, pass);
  return new Promise<number>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => resolve(code ?? 1));
  }).finally(() => {
    for (const signal of signals) process.off(signal, pass);
  });
}

try {
  const { values } = parseArgs({
    options: { out: { type: 'string' }, editor: { type: 'string', default: demoEditors.join(',') } },
  });
  if (!values.out) throw new EmendError('invalid-input', '--out is missing: give the folder to train into');
  for (const training of editorTrainings(values.out, demoEditorsNamed(values.editor))) {
    if (await isDone(training)) {
      console.log(`${training.folder} is there.`);
      continue;
    }
    console.log(`emend train ${training.args.join(' ')}`);
    const code = await train(training);
    if (code !== 0) {
      process.exitCode = code;
      break;
    }
  }
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
