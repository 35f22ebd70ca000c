/**
 * @file FT-L: weights of one decoder layer are fine-tuned on the edit alone.
 */
import { z } from 'zod';
import type { Decoder } from '../../models/decoder.ts';
import { decoderFrom, feedsFrom, targetFeeds, targetLoss } from '../../models/decoderPass.ts';
import type { VisionLanguageModel, WeightChanges } from '../../models/visionLanguageModel.ts';
import { deltaWeights } from '../../models/weights.ts';
import { gradients } from '../../tensor/gradients.ts';
import { floatsOf } from '../../tensor/session.ts';
import type { EditorKind, EditorNeeds, Work } from '../editor.ts';
import { cutBelow, layerOf, teacherForced, WeightEditor, type WeightRequest } from '../weightEditor.ts';
import {
  changeableOf,
  changesOf,
  type Deltas,
  deltaFeeds,
  descend,
  FineTuning,
  gradientsOf,
  type Tuned,
} from './fineTuning.ts';

export const FtLanguageSettings = FineTuning.extend({
  layer: z.int().default(-1).describe('Decoder layer that is tuned, from 0; −1 is the last'),
  weights: z
    .enum(['mlp output', 'whole layer'])
    .default('mlp output')
    .describe(
      'The published code tunes the projection out of the MLP, the papers’ words are the whole layer',
    ),
});
export type FtLanguageSettings = z.infer<typeof FtLanguageSettings>;

const layerTuned = ({ layer }: FtLanguageSettings, { layers }: Decoder) => layerOf(layer, layers);

/** Canonical names of the tensors that are tuned. */
function tunedTensors(settings: FtLanguageSettings, decoder: Decoder): string[] {
  const layer = layerTuned(settings, decoder);
  return settings.weights === 'mlp output'
    ? [`${decoder.mlp(layer).out}.weight`]
    : decoder.layerTensors(layer);
}

export function ftLanguageNeeds(settings: FtLanguageSettings, decoder: Decoder): EditorNeeds {
  return {
    cuts: cutBelow(layerTuned(settings, decoder)),
    changeable: changeableOf(tunedTensors(settings, decoder), decoder.tensors()),
  };
}

export class FtLanguage extends WeightEditor {
  readonly name = 'FT-L';
  readonly settings: FtLanguageSettings;

  constructor(model: VisionLanguageModel, settings: FtLanguageSettings) {
    super(model, ftLanguageNeeds(settings, model.decoder));
    this.settings = settings;
  }

  async make(model: VisionLanguageModel, request: WeightRequest, work: Work = {}): Promise<WeightChanges> {
    return (await this.tune(model, request, work)).changes;
  }

  /** The edit with what was measured before each step. */
  async tune(model: VisionLanguageModel, request: WeightRequest, work: Work = {}): Promise<Tuned> {
    const { decoder } = model;
    const layer = layerTuned(this.settings, decoder);
    const all = decoder.tensors();
    const shapes = new Map(tunedTensors(this.settings, decoder).map((name) => [name, all.get(name)!]));
    const session = await this.sessions.get('loss', (graph) => {
      const { weights, deltas } = deltaWeights(graph, decoder.weightsOf(graph), shapes);
      const loss = targetLoss(graph, decoderFrom(graph, decoder, layer, weights), decoder, weights);
      graph.output('loss', loss);
      const names = [...deltas.keys()];
      for (const [index, gradient] of gradients(loss, [...deltas.values()]).entries())
        graph.output(`gradient.${names[index]}`, gradient);
    });
    const { input, targetIds } = await teacherForced(model, request);
    const feeds = { ...(await feedsFrom(model, input, layer)), ...targetFeeds(input, targetIds) };
    const evaluate = async (deltas: Deltas) => {
      const out = await session.run({ ...feeds, ...deltaFeeds(deltas, shapes) });
      const loss = (await floatsOf(out['loss']!))[0]!;
      return { loss, gradients: () => gradientsOf(out, shapes.keys()) };
    };
    const tuned = await descend(evaluate, shapes, this.settings, work);
    return { ...tuned, changes: changesOf(tuned.deltas, shapes) };
  }
}

export const ftLanguage: EditorKind<FtLanguageSettings> = {
  name: 'FT-L',
  acts: 'weights of one decoder layer, by fine-tuning',
  byConstruction: {},
  untrained: {
    scope: 'everywhere',
    settings: FtLanguageSettings,
    needs: (settings, { backbone }) => ftLanguageNeeds(settings, backbone.decoder),
    open: async (settings, model) => new FtLanguage(model, settings),
  },
};
