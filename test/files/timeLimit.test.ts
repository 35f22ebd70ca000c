import { expect, test } from 'vitest';
import { withinTime } from '../../electron/files/timeLimit.ts';

const late = () => new Error('late');
/** Takes time and no processor, as on a machine that is busy with something else. */
const wait = (milliseconds: number) =>
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);

test.each([
  [
    'a loop',
    () => {
      for (;;);
    },
  ],
  ['a pattern that goes back and forth', () => /(a+)+b/.test('a'.repeat(50))],
])('%s without end is stopped, and what comes next is not', (_, work) => {
  expect(() => withinTime(50, late, work)).toThrow('late');
  expect(withinTime(50, late, () => 7)).toBe(7);
});

test('work that waits for the processor longer than the limit is done to its end', () => {
  let ended = 0;
  const work = () => {
    wait(250);
    ended += 1;
    return 'done';
  };
  expect(withinTime(100, late, work)).toBe('done');
  expect(ended).toBe(1);
});

test('what the work itself throws is thrown, once', () => {
  let begun = 0;
  const work = () => {
    begun += 1;
    throw new TypeError('of its own');
  };
  expect(() => withinTime(50, late, work)).toThrow('of its own');
  expect(begun).toBe(1);
});
