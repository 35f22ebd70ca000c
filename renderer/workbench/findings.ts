/**
 * @file What a check found of an edit, in the field's words and in a sentence.
 */
import type { Finding } from '../../electron/api/contract.ts';

export interface FindingWords {
  readonly name: string;
  readonly meaning: string;
  readonly tone: 'good' | 'bad' | 'warn';
}

/** A finding's name and meaning. */
export function findingWords({ kind, edit }: Finding): FindingWords {
  switch (kind) {
    case 'holds':
      return {
        name: 'Holds',
        meaning: 'It changes what it should, and leaves what must stay as far as the policy asks.',
        tone: 'good',
      };
    case 'fails':
      return { name: 'Fails', meaning: 'It does not answer its own question as it should.', tone: 'bad' };
    case 'under-generalises':
      return {
        name: 'Under-generalises',
        meaning: 'Other wordings or pictures that should change with it do not.',
        tone: 'warn',
      };
    case 'leaks':
      return { name: 'Leaks', meaning: 'It changes answers that should stay.', tone: 'bad' };
    case 'entangled':
      return {
        name: edit === null ? 'Entangled' : `Entangled with edit ${edit}`,
        meaning: 'It and another edit answer each other’s probes.',
        tone: 'bad',
      };
  }
}
