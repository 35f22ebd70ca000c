/**
 * @file What a check's results come to, under a policy.
 */
import type { z } from 'zod';
import type { CheckGroup, Finding, ProbeKind, ProbeResult } from '../api/contract.ts';
import { editorNamed } from '../editors/registry.ts';
import { mustChange } from './rows.ts';
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

/**
 * Groups of a check, a kind of probe each, and the verdict: every kind that has probes reaches its share.
 * A kind without probes is listed with total 0 and decides nothing.
 * `unchanged`: probes of committed edits that were decided unchanged without asking; they count as passed.
 */
export function judge(
  results: readonly ProbeResult[],
  policy: CheckPolicy,
  editor: string,
  unchanged = 0,
): { groups: Group[]; verdict: 'passes' | 'fails' } {
  const groups = kinds.map((kind): Group => {
    const ofKind = results.filter((result) => result.probe.kind === kind);
    const more = kind === 'committed' ? unchanged : 0;
    const passed = ofKind.filter((result) => result.passes).length + more;
    const total = ofKind.length + more;
    const required = policy.required[kind];
    return {
      kind,
      passed,
      total,
      required,
      // 19 of 20 is 0.95 whatever the last bit of the product says
      passes: passed >= total * required - 1e-9,
      byConstruction: (kind === 'text-locality' && editorNamed(editor)?.byConstruction.textLocality) || null,
    };
  });
  return { groups, verdict: groups.every((group) => group.passes) ? 'passes' : 'fails' };
}

/**
 * A check's verdict in the field's words. Of several the worst: it does not take at all; it and another edit answer each other's
 * probes; it leaks into what must stay; it under-generalises.
 */
export function findingOf(edit: number, results: readonly ProbeResult[], groups: readonly Group[]): Finding {
  const short = new Set(groups.filter((group) => !group.passes).map((group) => group.kind));
  const failed = results.filter(({ probe, passes }) => !passes && short.has(probe.kind));
  const others = failed.flatMap(({ probe, owner, acting }) => {
    const other = probe.kind === 'committed' ? owner : mustChange.has(probe.kind) ? acting.after : null;
    return other === null || other === edit ? [] : [other];
  });
  // Of several the first one made, in whatever order the probes were asked.
  if (others.length > 0) return { kind: 'entangled', edit: others.reduce((a, b) => Math.min(a, b)) };
  const shortOf = (...kinds: ProbeKind[]) => kinds.some((kind) => short.has(kind));
  if (shortOf('reliability')) return { kind: 'fails', edit: null };
  if (shortOf('text-locality', 'image-locality', 'same-picture', 'same-question', 'committed'))
    return { kind: 'leaks', edit: null };
  if (shortOf('text-generality', 'image-generality')) return { kind: 'under-generalises', edit: null };
  return { kind: 'holds', edit: null };
}
