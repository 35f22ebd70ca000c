/**
 * @file Command: node electron/demo/makeEditingSet.ts --out DIR [--train 3000] [--test 300] [--seed 1]
 */
import { parseArgs } from 'node:util';
import { EmendError } from '../errors.ts';
import { writeEditingSet } from './editingSet.ts';

const { values } = parseArgs({
  options: {
    out: { type: 'string' },
    train: { type: 'string', default: '3000' },
    test: { type: 'string', default: '300' },
    seed: { type: 'string', default: '1' },
  },
});

function wholeNumber(name: 'train' | 'test' | 'seed'): number {
  const value = Number(values[name]);
  if (Number.isSafeInteger(value) && value >= 0 && value <= 1_000_000) return value;
  throw new EmendError('invalid-input', `--${name} ${values[name]}: give a whole number from 0 to 1000000`);
}

try {
  if (!values.out) throw new EmendError('invalid-input', '--out is missing: give the folder to write to');
  for (const split of ['train', 'test'] as const) {
    const kinds = await writeEditingSet(values.out, split, wholeNumber(split), wholeNumber('seed'));
    const counts = Object.entries(kinds).map(([kind, count]) => `${kind} ${count}`);
    console.log(`${split}: ${wholeNumber(split)} edits (${counts.join(', ')})`);
  }
} catch (error) {
  console.error(error instanceof EmendError ? error.message : error);
  process.exitCode = 1;
}
