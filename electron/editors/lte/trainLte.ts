/**
 * @file LTE's training (Jiang et al., "Learning to edit", sec. 3.1, in LiveEdit's form for VLMs): with the updated information before the question
 * the model says the target, and everything else it answers as before, with and without it.
 *
 * Published, the language model itself is fine-tuned. Here its linear layers get a low-rank change that acts as long as an edit does:
 * the checkpoint stays as it is, and retiring all edits gives it back.
 */
import { z } from 'zod';
import type { AdapterWeights } from '../adapterFiles.ts';
import { seeEdits } from '../training/batch.ts';
import type { EditorInTraining, EditorTraining, TrainingStart } from '../training/editorTraining.ts';
import { decoderLinears, initialLowRank } from '../training/lowRank.ts';
import { ShownEdits } from '../training/shownEdits.ts';
import { startingWeights } from '../training/startingWeights.ts';
import { retrievalFields, updatedInformation } from './lte.ts';

const lossWeight = z.number().min(0).max(100).default(1);

const Settings = z.object({
  rank: z.int().min(1).max(1024).default(16).meta({
    title: 'Rank',
    description: 'Of the change of every linear layer of the decoder; published: all its weights are tuned',
  }),
  editWeight: lossWeight.meta({ title: 'Weight of the edit', description: 'Of reliability' }),
  generalityWeight: lossWeight.meta({ title: 'Weight of generality', description: '' }),
  localityWeight: z
    .number()
    .positive()
    .max(100)
    .default(1)
    .meta({ title: 'Weight of locality', description: '' }),
  endToken: z.boolean().default(true).meta({
    title: 'End token',
    description: 'Targets end with the end token in the loss; published: without',
  }),
  ...retrievalFields,
});
type Settings = z.infer<typeof Settings>;

async function begin(settings: Settings, start: TrainingStart): Promise<EditorInTraining> {
  const { model, vision, seed, from } = start;
  const { rank, threshold: _, compared: __, ...told } = settings;
  const linears = decoderLinears(model.decoder);
  const weights: AdapterWeights = initialLowRank(linears, rank, seed);
  if (from) startingWeights(weights, from.weights);
  const shown = await ShownEdits.create(model, {
    ...{ ...told, linears, weights },
    before: ({ prompt, target }, visual) => [updatedInformation({ prompt, target, visual })],
  });
  return {
    parameters: weights,
    settings: { editor: 'LTE', rank, ...told },
    evaluate: async (edits) => shown.evaluate(edits, await seeEdits(vision, edits)),
    weights: () =>
      new Map([...weights].map(([name, { shape, data }]) => [name, { shape, data: data.slice() }])),
    dispose: () => shown.dispose(),
  };
}

export const lteTraining: EditorTraining<Settings> = {
  settings: Settings,
  rate: 1e-4,
  needs: (_, { backbone }) => ({
    cuts: [],
    changeable: decoderLinears(backbone.decoder).map(({ name }) => name),
  }),
  describe: ({ threshold, compared }) => ({ threshold, compared }),
  begin,
};
