/**
 * @file Which edits of a set disturb each other: committed together, one answers probes of another.
 */
import { type Disturbance, disturbancesIn, pairsOf, wantedOf } from '../library/disturbance.ts';
import { allAct } from '../library/scopes.ts';
import { readSettings } from '../library/settings.ts';
import { ask, type CheckListener } from './checking.ts';
import type { DisturbingPair } from './contract.ts';
import type { Parts } from './parts.ts';

/** Edits compared with the set at once. */
const AT_ONCE = 32;

/** `edits`: drafts that were just checked. */
export async function disturbingPairs(
  parts: Parts,
  edits: readonly number[],
  listener: CheckListener,
): Promise<DisturbingPair[]> {
  const { engine, library, session } = parts;
  // Where all act everywhere, each is checked anew after the one before it was committed.
  if (edits.length < 2 || allAct(library)) return [];
  await session.demandSettled(listener.signal);
  const found: Disturbance[] = [];
  for (let first = 0; first < edits.length; first += AT_ONCE) {
    const comparison = await engine.call(
      'compare',
      { edits, with: 'each other', inputs: [], from: first, to: first + AT_ONCE },
      { signal: listener.signal },
    );
    found.push(...library.read(() => disturbancesIn(library, comparison)));
  }
  await ask(parts, wantedOf(library, found), readSettings(library).maxNewTokens, listener);
  return library.read(() => pairsOf(library, found));
}
