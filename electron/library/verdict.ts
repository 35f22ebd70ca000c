/**
 * @file What a check's results come to, under a policy.
 */
import type { z } from 'zod';
import type { CheckGroup, ProbeKind, ProbeResult } from '../api/contract.ts';
import type { CheckPolicy } from './settings.ts';

export type Group = z.infer<typeof CheckGroup>;

const kinds: readonly ProbeKind[] = [
  'reliability',
  'text-generality',
  'image-generality',
  'text-locality',
  'image-locality',
  'same-picture',
  'same-question',
  'committed',
];

/** What holds by construction of an editor, whatever the number beside it says. */
const byConstruction: Readonly<Record<string, Partial<Record<ProbeKind, string>>>> = {
  VisEdit: {
    'text-locality': 'VisEdit changes only visual rows, so inputs without a picture cannot change.',
  },
};

/**
 * Groups of a check, a kind of probe each, and the verdict: every kind that has probes reaches its share.
 * A kind without probes is listed with total 0 and decides nothing.
 */
export function judge(
  results: readonly ProbeResult[],
  policy: CheckPolicy,
  editor: string,
): { groups: Group[]; verdict: 'passes' | 'fails' } {
  const groups = kinds.map((kind): Group => {
    const ofKind = results.filter((result) => result.probe.kind === kind);
    const passed = ofKind.filter((result) => result.passes).length;
    const required = policy.required[kind];
    return {
      kind,
      passed,
      total: ofKind.length,
      required,
      // 19 of 20 is 0.95 whatever the last bit of the product says
      passes: passed >= ofKind.length * required - 1e-9,
      byConstruction: (Object.hasOwn(byConstruction, editor) && byConstruction[editor]?.[kind]) || null,
    };
  });
  return { groups, verdict: groups.every((group) => group.passes) ? 'passes' : 'fails' };
}
