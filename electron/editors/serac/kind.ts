/**
 * @file SERAC as the registry lists it: with the model as it is, and with adapter folders of a trained classifier and counterfactual model.
 */
import { z } from 'zod';
import { EmendError } from '../../errors.ts';
import { weightForms } from '../../models/packed/form.ts';
import { readAdapterFiles } from '../adapterFiles.ts';
import type { EditorKind, UnopenedEditor } from '../editor.ts';
import { tokenMeanEncoder, unitEncoder } from '../textEncoder.ts';
import { lowRankChanges, lowRankNames } from '../training/lowRank.ts';
import { distanceClassifier, embeddingsClassifier, readClassifier } from './scopeClassifier.ts';
import { readings, Serac } from './serac.ts';
import { seracTraining } from './trainSerac.ts';

const Settings = z.object({
  classifier: z.string().max(4096).default('').meta({
    title: 'Scope classifier',
    description:
      'Trained weights in LiveEdit’s form (safetensors). Empty: the distance of text embeddings, untrained.',
    file: true,
  }),
  threshold: z.number().nullable().default(null).meta({
    title: 'Threshold',
    description:
      'Empty: as published, 10 with trained weights; 0.5 of exp(−distance²) otherwise, which is a cosine of 0.65.',
  }),
  reading: z.enum(readings).default('routed').meta({
    title: 'Teacher forcing reads',
    description:
      'One model or the other, as answers are generated; or both, mixed by the score, as EasyEdit’s metrics do (NOTES 25).',
  }),
});
export type SeracSettings = z.infer<typeof Settings>;

const Description = z.object({
  editor: z.literal('SERAC'),
  name: z.string().max(200),
  model: z.string().max(200),
  /** the form of the weights it was trained on; older adapters do not say */
  weights: z.enum(weightForms).optional(),
  /** score from which the counterfactual model answers */
  threshold: z.number(),
  reading: z.enum(readings).default('routed'),
  router: z.object({ layer: z.int().min(0).max(10_000), threshold: z.number().min(-1).max(1) }),
  weightsSha256: z.string().length(64).optional(),
  training: z.record(z.string(), z.unknown()).optional(),
});

export const serac: EditorKind<SeracSettings> = {
  name: 'SERAC',
  acts: 'who answers: where an input is about an edit, a counterfactual model',
  byConstruction: {},
  training: seracTraining,
  async read(folder): Promise<UnopenedEditor> {
    const { description, weights, fingerprint, path } = await readAdapterFiles(folder, Description);
    const changeable = lowRankNames(weights);
    if (changeable.length === 0)
      throw new EmendError('damaged', `${path} holds no change of a decoder’s linear layers.`);
    const { name, model, router, threshold, reading } = description;
    return {
      weights: description.weights,
      ...{ editor: serac as EditorKind, folder: true, name, model, fingerprint, router, settings: null },
      ...{ scope: 'own', cuts: [], changeable },
      open: async (opened, scope) => {
        const classifier = await embeddingsClassifier(opened, weights, threshold);
        return new Serac(opened, classifier, reading, scope === 'own', lowRankChanges(weights));
      },
    };
  },
  untrained: {
    settings: Settings,
    scope: 'own',
    needs: () => ({ cuts: [], changeable: [] }),
    async open({ classifier, threshold, reading }, model, scope) {
      if (classifier === '' && threshold !== null && !(threshold > 0 && threshold < 1))
        throw new EmendError(
          'invalid-input',
          'The threshold of SERAC lies between 0 and 1 without trained weights.',
        );
      const opened =
        classifier === ''
          ? distanceClassifier(unitEncoder(tokenMeanEncoder(model)), threshold ?? 0.5)
          : await embeddingsClassifier(model, await readClassifier(classifier), threshold ?? 10);
      return new Serac(model, opened, reading, scope === 'own');
    },
  },
};
