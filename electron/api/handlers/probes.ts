/**
 * @file Calls about probes.
 */
import { addProbe, removeProbe } from '../../library/probes.ts';
import { standingProbes } from '../../library/rows.ts';
import type { Parts } from '../parts.ts';
import type { HandlersOf } from '../router.ts';

export function probeHandlers({ library, seeded }: Parts): HandlersOf<'probes'> {
  return {
    'probes.add': (probe) => addProbe(library, probe),
    'probes.remove': ({ id }) => {
      removeProbe(library, id);
      return {};
    },
    'probes.standing': async () => {
      await seeded;
      return standingProbes(library);
    },
  };
}
