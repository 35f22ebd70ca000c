/**
 * @file How a check is told: its dots, its sentence, and why it needs running again.
 */
import type { Check, ProbeResult, StaleReason } from '../../electron/api/contract.ts';

/**
 * A row of dots for `passed` of `total`: one a probe while they fit, else `most` dots that keep the proportion. A row
 * with any failure always shows at least one failing dot, one with any success at least one passing dot.
 */
export function dotsFor(passed: number, total: number, most = 12): { passing: number; failing: number } {
  if (total <= most) return { passing: passed, failing: total - passed };
  const failed = total - passed;
  let failing = Math.round((failed / total) * most);
  if (failed > 0) failing = Math.max(1, failing);
  if (passed > 0) failing = Math.min(most - 1, failing);
  return { passing: most - failing, failing };
}

/** The verdict of one row in a word or three. */
export function groupVerdict(
  group: Pick<Check['groups'][number], 'kind' | 'passes' | 'passed' | 'total' | 'required'>,
): string {
  if (group.total === 0) return 'none';
  if (!group.passes) return `below ${percent(group.required)}`;
  if (group.kind === 'committed' && group.passed === group.total) return 'none changed';
  return 'passes';
}

/** A share as people read it: “95 %”, with as many decimals as it has, two at most. */
export function percent(share: number): string {
  return `${Number((share * 100).toFixed(2))} %`;
}

/** “Check of 12:41, 4.1 s · passes”: the time by the reader's clock, with the day unless it is today. */
export function checkSentence(
  check: Pick<Check, 'finished' | 'seconds' | 'verdict'>,
  now = new Date(),
): string {
  return `Check of ${clock(check.finished, now)}, ${check.seconds.toFixed(1)} s · ${check.verdict}`;
}

/** How many answers changed that should not have, or did not that should. */
export function answersToLookAt(results: readonly ProbeResult[]): number {
  return results.filter((result) => !result.passes).length;
}

/** A moment as “12:41”, with the day before it unless that is today. */
export function clock(moment: string, now = new Date()): string {
  const at = new Date(moment);
  const time = at.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', hour12: false });
  if (at.toDateString() === now.toDateString()) return time;
  const day = at.toLocaleDateString([], {
    day: 'numeric',
    month: 'short',
    ...(at.getFullYear() !== now.getFullYear() && { year: 'numeric' }),
  });
  return `${day}, ${time}`;
}

const changes: Readonly<Record<StaleReason, string>> = {
  plan: 'another version of Emend chose its probes',
  model: 'another model is open than it was run on',
  adapter: 'another adapter is loaded than it was run with',
  scope: 'another scope decides where edits act',
  prompts: 'the prompt template or the length of answers changed',
  policy: 'the shares of probes that must pass changed',
  'standing-probes': 'the standing probes changed',
  'committed-edits': 'the committed edits changed',
  edit: 'the edit was changed, or retired and restored',
  probes: 'probes were added or removed',
};

/** Why a check that is no longer fresh needs running again, in one sentence. */
export function whyStale({ staleBecause, staleBy }: Pick<Check, 'staleBecause' | 'staleBy'>): string {
  if (staleBecause.length === 0) return '';
  const list = new Intl.ListFormat('en');
  const named = `edit${staleBy.length === 1 ? '' : 's'} ${list.format(staleBy.map(String))}`;
  const told = list.format(
    staleBecause.map((reason) =>
      reason === 'committed-edits' && staleBy.length > 0
        ? `${named} came to act, or no longer ${staleBy.length === 1 ? 'does' : 'do'}, on one of its probes`
        : changes[reason],
    ),
  );
  return `Since then, ${told}.`;
}
