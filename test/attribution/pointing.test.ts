import { expect, test } from 'vitest';
import { agreement } from '../../electron/attribution/pointing.ts';

const thing = [false, true, true, false];

test('a map agrees by the share that lies on the thing and by its hottest cell', () => {
  expect(agreement([0.25, 0.5, 0.25, 0], thing)).toEqual({ share: 0.75, points: true, area: 0.5 });
  expect(agreement([0.6, 0.3, 0.1, 0], thing)).toMatchObject({ points: false });
  expect(agreement([0.6, 0.3, 0.1, 0], thing).share).toBeCloseTo(0.4, 6);
  expect(agreement([0, 0, 0, 0], thing)).toMatchObject({ share: 0, points: false });
});

test('a thing that no cell shows, or a map of other cells, is refused', () => {
  expect(() => agreement([1, 2, 3, 4], [false, false, false, false])).toThrow(/0 of 4/);
  expect(() => agreement([1, 2, 3], thing)).toThrow(/3 cells/);
});
