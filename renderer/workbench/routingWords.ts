/**
 * @file What the router decided, in words.
 */
import type { Routing } from '../../electron/api/contract.ts';

/** What similarity and threshold are, for those who ask. */
export const routingMeaning =
  'How much this input resembles the edit it is closest to, at the last token of the prompt (cosine similarity). ' +
  'From the threshold on, the edit acts.';

/** One line about a routing; `own` is the edit it is told for, called “this edit”. */
export function routingWords(routing: Routing | null, own: number | null = null): string {
  if (!routing) return '';
  const named = (id: number) => (id === own ? 'this edit' : `edit ${id}`);
  const similarity = routing.similarity === null ? '' : `similarity ${routing.similarity.toFixed(2)}`;
  const threshold = `threshold ${routing.threshold.toFixed(2)}`;
  if (routing.edit !== null)
    return [`${named(routing.edit)} acted`, [similarity, threshold].filter(Boolean).join(', ')].join(' · ');
  if (routing.closest === null) return 'no edit acted';
  return [`no edit acted · closest ${named(routing.closest)}`, similarity, threshold]
    .filter(Boolean)
    .join(', ');
}
