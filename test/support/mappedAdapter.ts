/** @file A VisEdit adapter of random weights that has an influence map, for the tiny checkpoints of hidden size 64. */
import { adapterWeights } from '../../electron/editors/visedit/adapterGraph.ts';
import { writeAdapter } from '../../electron/editors/visedit/visEdit.ts';
import { fingerprint } from '../../electron/models/checkpoint.ts';
import { openCheckpoint } from '../../electron/models/open.ts';
import type { WeightForm } from '../../electron/models/packed/form.ts';
import { normalNumbers } from './checkpointFixtures.ts';

/** The layer it acts on. */
export const MAPPED_LAYER = 1;

/** Writes it as a folder, for the model in another; `form`: of the weights it says it was trained on. */
export async function writeMappedAdapter(folder: string, model: string, form?: WeightForm): Promise<void> {
  const shape = { hidden: 64, middle: 16, influenceMiddle: 24, heads: 2, influenceMapper: true } as const;
  const normal = normalNumbers(3);
  const weights = [...adapterWeights({ ...shape, attention: 'published' })].map(([name, dims]) => {
    const count = dims.reduce((a, b) => a * b, 1);
    return [name, { shape: dims, data: Float32Array.from({ length: count }, () => normal()) }] as const;
  });
  const description = {
    ...({ editor: 'VisEdit', name: 'tiny', layer: MAPPED_LAYER, heads: 2, influenceMapper: true } as const),
    ...({ attention: 'published', router: { layer: MAPPED_LAYER, threshold: 0.9 } } as const),
    model: await fingerprint(await openCheckpoint(model)),
    ...(form && { weights: form }),
  };
  await writeAdapter(folder, description, new Map(weights), 'F32');
}
