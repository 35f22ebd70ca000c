/** @file Which answers count as the same. */
import { expect, test } from 'vitest';
import { normaliseAnswer, probePasses, sameAnswer } from '../../electron/evaluation/exactMatch.ts';

test('spaces, case and a full stop at the end make no difference, anything else does', () => {
  expect(normaliseAnswer('  A  red\n Dog. ')).toBe('a red dog');
  expect(sameAnswer('Two', 'two .')).toBe(true);
  expect(sameAnswer('v1.5', 'v15')).toBe(false);
  expect(sameAnswer('dog', 'dogs')).toBe(false);
  expect(sameAnswer('', '.')).toBe(true);
});

test('a probe passes with the expected answer, or without one when nothing changed', () => {
  expect(probePasses('fox', 'dog', 'Fox.')).toBe(true);
  expect(probePasses('fox', 'fox', 'dog')).toBe(false);
  expect(probePasses(null, 'dog', 'Dog')).toBe(true);
  expect(probePasses(null, 'dog', 'fox')).toBe(false);
});
