/**
 * @file What metrics, and the kinds of input they are of, are called for short: as in the papers' tables.
 */
import type { SampleKind } from '../../electron/api/contract.ts';

export const shortNames = {
  reliability: 'Rel.',
  'text-generality': 'T-Gen.',
  'image-generality': 'M-Gen.',
  'text-locality': 'T-Loc.',
  'image-locality': 'M-Loc.',
  'same-picture': 'Same pic.',
  'same-question': 'Same q.',
  'text-reliability': 'T-Rel.',
  'image-reliability': 'I-Rel.',
  portability: 'Port.',
} as const satisfies Partial<Record<SampleKind, string>>;
