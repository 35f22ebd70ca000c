/**
 * @file How far edits go, in words.
 */
import type { Reach } from '../../electron/api/contract.ts';

export const reaches: ReadonlyArray<{ value: Reach; name: string; meaning: string }> = [
  { value: 'picture', name: 'This picture', meaning: 'and pictures like it' },
  { value: 'thing', name: 'This thing', meaning: 'wherever it is asked about' },
];

export const reachNames = Object.fromEntries(reaches.map(({ value, name }) => [value, name])) as Readonly<
  Record<Reach, string>
>;
