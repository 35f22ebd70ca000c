/**
 * @file What the scope decided, in words.
 */
import type { Answer, Routing } from '../../electron/api/contract.ts';

/** What a margin is, for those who ask. */
export const routingMeaning =
  'How sure the scope is that this input is one the edit should act on, in log odds, beside what is asked of it ' +
  'in a library of this size. From there on, the edit acts.';

/** One line about how edits came to act on an answer, or did not; '' where there is nothing to tell. */
export function actingWords(answer: Pick<Answer, 'routing' | 'together'>, own: number | null = null): string {
  const { routing, together } = answer;
  if (together === undefined) return routingWords(routing, own);
  if (together === 0) return 'no edit is committed';
  return together === 1
    ? 'one committed edit acts everywhere'
    : `${together} committed edits act everywhere, together`;
}

/** One line about a routing; `own` is the edit it is told for, called “this edit”. */
export function routingWords(routing: Routing | null, own: number | null = null): string {
  if (!routing) return '';
  const named = (id: number) => (id === own ? 'this edit' : `edit ${id}`);
  const { edit, closest, score, threshold } = routing;
  const figures =
    score === null || threshold === null ? '' : `score ${score.toFixed(1)}, ${threshold.toFixed(1)} needed`;
  if (edit !== null) return [`${named(edit)} acted`, figures].filter(Boolean).join(' · ');
  if (closest === null) return 'no edit acted';
  return [`no edit acted · closest ${named(closest)}`, figures].filter(Boolean).join(', ');
}
