/**
 * @file LTE as the registry lists it: with the model as it is, and with adapter folders of models that were trained to heed what is shown.
 */
import { z } from 'zod';
import { EmendError } from '../../errors.ts';
import { weightForms } from '../../models/packed/form.ts';
import { readAdapterFiles } from '../adapterFiles.ts';
import type { EditorKind, EditorScope, UnopenedEditor } from '../editor.ts';
import { tokenMeanEncoder } from '../textEncoder.ts';
import { lowRankChanges, lowRankNames } from '../training/lowRank.ts';
import { Lte, retrievalFields } from './lte.ts';
import { lteTraining } from './trainLte.ts';

const Settings = z.object(retrievalFields);
export type LteSettings = z.infer<typeof Settings>;

const Description = z.object({
  ...retrievalFields,
  editor: z.literal('LTE'),
  name: z.string().max(200),
  model: z.string().max(200),
  /** the form of the weights it was trained on; older adapters do not say */
  weights: z.enum(weightForms).optional(),
  router: z.object({ layer: z.int().min(0).max(10_000), threshold: z.number().min(-1).max(1) }),
  weightsSha256: z.string().length(64).optional(),
  training: z.record(z.string(), z.unknown()).optional(),
});

export const lte: EditorKind<LteSettings> = {
  name: 'LTE',
  acts: 'the question: the fact is retrieved and shown with its picture before it; trained, the decoder’s weights too',
  byConstruction: {},
  training: lteTraining,
  async read(folder): Promise<UnopenedEditor> {
    const { description, weights, fingerprint, path } = await readAdapterFiles(folder, Description);
    const changeable = lowRankNames(weights);
    if (changeable.length === 0)
      throw new EmendError('damaged', `${path} holds no change of a decoder’s linear layers.`);
    const { name, model, router, threshold, compared } = description;
    return {
      weights: description.weights,
      ...{ editor: lte as EditorKind, folder: true, name, model, fingerprint, router, settings: null },
      ...{ scope: 'own', cuts: [], changeable },
      open: async (opened, scope) => {
        const from = scope === 'own' ? threshold : null;
        return new Lte(opened.hidden, from, compared, tokenMeanEncoder(opened), lowRankChanges(weights));
      },
    };
  },
  untrained: {
    settings: Settings,
    scope: 'own',
    needs: () => ({ cuts: [], changeable: [] }),
    open: async ({ threshold, compared }, model, scope: EditorScope) =>
      new Lte(model.hidden, scope === 'own' ? threshold : null, compared, tokenMeanEncoder(model)),
  },
};
