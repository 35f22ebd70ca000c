/**
 * @file FT-V: what sees is fine-tuned on the edit alone: what stands between the vision encoder and the decoder, or a layer of the encoder.
 */
import { z } from 'zod';
import { EmendError } from '../../errors.ts';
import { addedName } from '../../models/decoder.ts';
import { decoderFrom, feedsFrom, targetFeeds, targetLoss } from '../../models/decoderPass.ts';
import type { Backbone } from '../../models/family.ts';
import type { VisionLanguageModel, WeightChanges } from '../../models/visionLanguageModel.ts';
import { deltaWeights } from '../../models/weights.ts';
import * as f from '../../tensor/functions.ts';
import { gradients } from '../../tensor/gradients.ts';
import type { Tensor } from '../../tensor/graph.ts';
import { float32, floatsOf } from '../../tensor/session.ts';
import type { EditorKind, EditorNeeds, Work } from '../editor.ts';
import { layerOf, teacherForced, WeightEditor, type WeightRequest } from '../weightEditor.ts';
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

export const FtVisionSettings = FineTuning.extend({
  part: z
    .enum(['connector', 'vision layer'])
    .default('connector')
    .describe(
      'The published code tunes what stands between encoder and decoder (projector, Q-Former), the papers’ words are the vision encoder',
    ),
  layer: z
    .int()
    .default(-1)
    .describe('Layer of the encoder, from 0, where one is tuned; −1 is the last that is used'),
});
export type FtVisionSettings = z.infer<typeof FtVisionSettings>;

/** Canonical names of the tensors that are tuned. */
function tunedTensors({ part, layer }: FtVisionSettings, { vision, tensors }: Backbone): string[] {
  const { connector, layers, layer: nameOf } = vision.parts;
  const begin = part === 'connector' ? connector : [nameOf(layerOf(layer, layers))];
  return [...tensors()]
    .filter(([name, { length }]) => length <= 2 && begin.some((start) => name.startsWith(start)))
    .map(([name]) => name);
}

export function ftVisionNeeds(settings: FtVisionSettings, backbone: Backbone): EditorNeeds {
  return { cuts: [], changeable: changeableOf(tunedTensors(settings, backbone), backbone.tensors()) };
}

export class FtVision extends WeightEditor {
  readonly name = 'FT-V';
  readonly settings: FtVisionSettings;

  constructor(model: VisionLanguageModel, settings: FtVisionSettings) {
    super(model, ftVisionNeeds(settings, model.checkpoint.backbone));
    this.settings = settings;
  }

  async make(model: VisionLanguageModel, request: WeightRequest, work: Work = {}): Promise<WeightChanges> {
    return (await this.tune(model, request, work)).changes;
  }

  /** The edit with what was measured before each step. */
  async tune(model: VisionLanguageModel, request: WeightRequest, work: Work = {}): Promise<Tuned> {
    const { backbone } = model.checkpoint;
    const { decoder } = model;
    const all = backbone.tensors();
    const shapes = new Map(tunedTensors(this.settings, backbone).map((name) => [name, all.get(name)!]));
    const { input, targetIds } = await teacherForced(model, request);
    const pixels = request.visual.pixels;
    if (!pixels || input.imageRows === null)
      throw new EmendError(
        'invalid-input',
        'FT-V changes how a picture is seen: make the edit with a picture.',
      );

    // The loss and its gradient at the visual rows; from there the tower is differentiated by itself.
    const loss = await this.sessions.get('loss', (graph) => {
      const weights = decoder.weightsOf(graph);
      const value = targetLoss(graph, decoderFrom(graph, decoder, 0, weights), decoder, weights);
      graph.output('loss', value);
      const entering = graph.inputs.filter(({ name }) => name === 'entering' || name.startsWith('added.'));
      for (const [index, gradient] of gradients(value, entering).entries())
        graph.output(`gradient.${entering[index]!.name}`, gradient);
    });
    const tower = await this.sessions.get('tower', (graph) => {
      const { weights, deltas } = deltaWeights(graph, decoder.weightsOf(graph), shapes);
      const { visual, added } = backbone.vision.build(graph, weights);
      const along = (x: Tensor, name: string) => {
        const gradient = graph.input(`arriving.${name}`, 'float32', ['visual rows', decoder.hidden]);
        return f.sum(f.multiply(f.reshape(x, ['visual rows', decoder.hidden]), gradient));
      };
      const total = added.reduce(
        (sum, x, layer) => f.add(sum, along(x, addedName(layer))),
        along(visual, 'entering'),
      );
      const names = [...deltas.keys()];
      for (const [index, gradient] of gradients(total, [...deltas.values()]).entries())
        graph.output(`gradient.${names[index]}`, gradient);
    });

    const evaluate = async (deltas: Deltas) => {
      const seen = await model.seenUnder(input, changesOf(deltas, shapes));
      const out = await loss.run({ ...(await feedsFrom(model, seen, 0)), ...targetFeeds(seen, targetIds) });
      const arriving = async (name: string) => {
        const gradient = await floatsOf(out[`gradient.${name}`]!);
        const rows = new Float32Array(seen.imageRows!.length * decoder.hidden);
        for (const [place, row] of seen.imageRows!.entries())
          rows.set(
            gradient.subarray(row * decoder.hidden, (row + 1) * decoder.hidden),
            place * decoder.hidden,
          );
        return float32(rows, [seen.imageRows!.length, decoder.hidden]);
      };
      const back = async () => {
        const feeds: Record<string, Awaited<ReturnType<typeof arriving>>> = {};
        const names = ['entering', ...Array.from({ length: decoder.addedLayers }, (_, at) => addedName(at))];
        for (const name of names) feeds[`arriving.${name}`] = await arriving(name);
        const given = await tower.run({
          ...backbone.vision.feeds([pixels]),
          ...deltaFeeds(deltas, shapes),
          ...feeds,
        });
        return gradientsOf(given, shapes.keys());
      };
      return { loss: (await floatsOf(out['loss']!))[0]!, gradients: back };
    };
    const tuned = await descend(evaluate, shapes, this.settings, work);
    return { ...tuned, changes: changesOf(tuned.deltas, shapes) };
  }
}

export const ftVision: EditorKind<FtVisionSettings> = {
  name: 'FT-V',
  acts: 'weights of what sees, by fine-tuning',
  byConstruction: {
    textLocality: 'It changes only how a picture is seen, and a text has none.',
  },
  untrained: {
    scope: 'everywhere',
    settings: FtVisionSettings,
    needs: (settings, { backbone }) => ftVisionNeeds(settings, backbone),
    open: async (settings, model) => new FtVision(model, settings),
  },
};
