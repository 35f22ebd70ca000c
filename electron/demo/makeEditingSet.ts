/**
 * @file Command: node electron/demo/makeEditingSet.ts --out DIR [--train 3000] [--test 300] [--seed 1] [--withheld N]
 * `--withheld N`: edits about the things that a scope trained with the same option never saw come first.
 */
import { parseArgs } from 'node:util';
import { EmendError } from '../errors.ts';
import { writeEditingSet } from './editingSet.ts';
import { withheldThings } from './world/objects.ts';

const { values } = parseArgs({
  options: {
    out: { type: 'string' },
    train: { type: 'string', default: '3000' },
    test: { type: 'string', default: '300' },
    seed: { type: 'string', default: '1' },
    withheld: { type: 'string', default: '0' },
  },
});

function wholeNumber(name: 'train' | 'test' | 'seed' | 'withheld'): number {
  const value = Number(values[name]);
  if (Number.isSafeInteger(value) && value >= 0 && value <= 1_000_000) return value;
  throw new EmendError('invalid-input', `--${name} ${values[name]}: give a whole number from 0 to 1000000`);
}

try {
  if (!values.out) throw new EmendError('invalid-input', '--out is missing: give the folder to write to');
  for (const split of ['train', 'test'] as const) {
    const [count, first] = [wholeNumber(split), withheldThings(wholeNumber('withheld'))];
    const kinds = await writeEditingSet(values.out, split, count, wholeNumber('seed'), first);
    const counts = Object.entries(kinds).map(([kind, count]) => `${kind} ${count}`);
    console.log(`${split}: ${count} edits (${counts.join(', ')})`);
  }
} catch (error) {
  console.error(error instanceof EmendError ? error.message : error);
  process.exitCode = 1;
}
