/**
 * @file Drafts that would answer each other's own probes if they were committed together.
 */
import type { DisturbingPair } from '../api/contract.ts';
import { sameAnswer } from '../evaluation/exactMatch.ts';
import type { Store } from './database.ts';
import { knownAnswer, type WantedAnswer } from './localCheck.ts';
import { editRow, ownProbes } from './rows.ts';
import { actorOf, findInput, type KeptMatch, matchesOf } from './scopeInputs.ts';
import { committedCount, scopeOf } from './scopes.ts';
import { type Comparison, matchesWith } from './watched.ts';

/** An own probe of `disturbs` on which `edit` acts when both are committed. */
export interface Disturbance {
  readonly edit: number;
  readonly disturbs: number;
  readonly picture: string;
  readonly prompt: string;
  /** the edit that acts without `edit` */
  readonly without: number | null;
}

/** `comparison`: of drafts with each other's own inputs. */
export function disturbancesIn(store: Store, comparison: Comparison): Disturbance[] {
  const scope = scopeOf(store);
  if (!scope) return [];
  const count = committedCount(store);
  return comparison.edits.flatMap((disturbs) => {
    const own = store.database.prepare<[number, number], { product: number | null; score: number | null }>(
      'SELECT product, score FROM watched WHERE edit = ? AND input = ?',
    );
    const { reach } = editRow(store, disturbs);
    return ownProbes(store, editRow(store, disturbs)).flatMap(({ picture, prompt }) => {
      const input = picture === null ? null : findInput(store, picture, prompt);
      if (!input || picture === null) return [];
      const itself = own.get(disturbs, input.id) ?? { product: null, score: null };
      const matches = matchesWith(matchesOf(store, input.id), { edit: disturbs, reach, ...itself });
      const without = actorOf(scope, count + 1, matches);
      return comparison.drafts.flatMap((pair): Disturbance[] => {
        if (pair.input !== input.id || pair.edit === disturbs || without === undefined) return [];
        const comer: KeptMatch = { ...pair, reach: editRow(store, pair.edit).reach };
        if (actorOf(scope, count + 2, matchesWith(matches, comer)) !== pair.edit) return [];
        return [{ edit: pair.edit, disturbs, picture, prompt, without }];
      });
    });
  });
}

/** Answers that tell whether a disturbance changes anything. */
export function wantedOf(store: Store, disturbances: readonly Disturbance[]): WantedAnswer[] {
  return disturbances
    .flatMap(({ picture, prompt, edit, without }) => [
      { picture, prompt, edits: [edit] },
      { picture, prompt, edits: without === null ? [] : [without] },
    ])
    .filter((wanted) => knownAnswer(store, wanted) === null);
}

/** The pairs between which answers change, with the number of probes. */
export function pairsOf(store: Store, disturbances: readonly Disturbance[]): DisturbingPair[] {
  const pairs = new Map<string, DisturbingPair>();
  for (const { edit, disturbs, picture, prompt, without } of disturbances) {
    const [one, other] = [[edit], without === null ? [] : [without]].map((edits) =>
      knownAnswer(store, { picture, prompt, edits }),
    );
    if (one === null || other === null || sameAnswer(one!, other!)) continue;
    const key = `${edit} ${disturbs}`;
    pairs.set(key, { edit, disturbs, probes: (pairs.get(key)?.probes ?? 0) + 1 });
  }
  return [...pairs.values()];
}
