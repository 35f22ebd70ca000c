/** @file A VisEdit adapter with random weights for the tiny checkpoint, strong enough to change answers. */

import type { AdapterWeights } from '../../electron/editors/adapterFiles.ts';
import { adapterWeights } from '../../electron/editors/visedit/adapterGraph.ts';
import { writeAdapter } from '../../electron/editors/visedit/visEdit.ts';
import { fingerprint } from '../../electron/models/checkpoint.ts';
import { openCheckpoint } from '../../electron/models/open.ts';
import { normalNumbers } from '../support/checkpointFixtures.ts';

/** The layer it acts on. */
export const LAYER = 1;

// Without an influence mapper it acts wherever it is let.
export const shape = {
  ...{ hidden: 32, middle: 16, influenceMiddle: 0, heads: 2 },
  ...{ influenceMapper: false, attention: 'published' as const },
};

export function randomWeights(): AdapterWeights {
  const normal = normalNumbers(3);
  return new Map(
    [...adapterWeights(shape)].map(([name, dims]) => {
      const count = dims.reduce((a, b) => a * b, 1);
      return [name, { shape: dims, data: Float32Array.from({ length: count }, () => 3 * normal()) }];
    }),
  );
}

/** Writes it as a folder, for the model in another. */
export async function writeTinyAdapter(
  folder: string,
  model: string,
  routerThreshold: number,
): Promise<void> {
  const description = {
    ...{ editor: 'VisEdit' as const, name: 'tiny', layer: LAYER, heads: shape.heads },
    ...{
      influenceMapper: shape.influenceMapper,
      attention: shape.attention,
      router: { layer: LAYER, threshold: routerThreshold },
    },
    model: await fingerprint(await openCheckpoint(model)),
  };
  await writeAdapter(folder, description, randomWeights(), 'F32');
}
