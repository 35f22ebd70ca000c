import { expect, test } from 'vitest';
import { EmendError } from '../electron/errors.ts';

test('a message is never longer than a thousand characters, and keeps its end, which says what to do', () => {
  const { message } = new EmendError('damaged', `${'x'.repeat(1_000_000)} Choose another file.`);
  expect(message.length).toBeLessThanOrEqual(1000);
  expect(message).toMatch(/^x+ … x+ Choose another file\.$/);
  expect(new EmendError('damaged', 'Short.').message).toBe('Short.');
});
