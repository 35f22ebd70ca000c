import { expect, test } from 'vitest';
import type { SettingField } from '../../electron/api/contract.ts';
import { lackOf, textOf, typedValue } from '../../renderer/widgets/settingFields.ts';

const field = (change: Partial<SettingField>): SettingField => ({
  ...{ key: 'rate', kind: 'number', label: 'Rate', help: '', default: 1, optional: false },
  ...{ options: [], least: null, most: null, ...change },
});

test('a text is a value of its field’s kind, and half a number is none yet', () => {
  const cases: Array<[Partial<SettingField>, string, unknown]> = [
    [{}, '1e-4', 1e-4],
    [{}, '1e', null],
    [{}, ' ', null],
    [{ kind: 'integer' }, '-1', -1],
    [{ kind: 'string' }, '', ''],
    [{ kind: 'string', optional: true }, ' ', null],
    [{ kind: 'texts' }, 'a\nb', ['a', 'b']],
  ];
  for (const [kind, text, value] of cases) expect(typedValue(field(kind), text), text).toEqual(value);
  expect([textOf(null), textOf(0), textOf(['a', 'b'])]).toEqual(['', '0', 'a\nb']);
});

test('what is missing or beyond its bounds is named', () => {
  const fields = [
    field({ least: 0, most: 1 }),
    field({ key: 'steps', label: 'Steps', kind: 'integer', least: 1 }),
  ];
  const lacks = (rate: number | null, steps: number | null) => lackOf(fields, { rate, steps });
  expect([lacks(0.5, 3), lacks(null, 3), lacks(2, 3), lacks(-1, 3), lacks(1, 0), lacks(1, 1.5)]).toEqual([
    '',
    'Give a value for “Rate”.',
    'Rate is 1 at most.',
    'Rate is 0 at least.',
    'Steps is 1 at least.',
    'Steps is a whole number.',
  ]);
  expect(lackOf([field({ optional: true })], { rate: null })).toBe('');
});
