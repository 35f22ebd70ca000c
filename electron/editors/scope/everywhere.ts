/**
 * @file No scope at all: every committed edit acts on every input, together; where an editor has a scope of its own (GRACE's radii,
 * LTE's retrieval), it decides there by itself.
 */
import { createHash } from 'node:crypto';
import { EmendError } from '../../errors.ts';
import type { Scope } from './scope.ts';

export function everywhereScope(form: 'everywhere' | 'own'): Scope {
  return {
    form,
    fingerprint: createHash('sha256').update(form).digest('hex'),
    keyWidth: 1,
    // None is looked for, for all act.
    candidates: 0,
    cuts: [],
    curve: [],
    describe: async () => null,
    async score() {
      throw new EmendError('internal', 'Edits that act everywhere are not compared with inputs.');
    },
    threshold: () => Number.POSITIVE_INFINITY,
    async dispose() {},
  };
}

/** Whether all committed edits act on every input, so that nothing is compared. */
export const actsEverywhere = ({ candidates }: Pick<Scope, 'candidates'>): boolean => candidates === 0;
