/**
 * @file CaliNET: a few slots beside the MLP of one layer are tuned on the edit (Dong et al. 2022, eq. 3).
 */
import { z } from 'zod';
import type { Decoder } from '../../models/decoder.ts';
import type { VisionLanguageModel, WeightChanges } from '../../models/visionLanguageModel.ts';
import { Adam, adamDefaults } from '../../training/optimizer.ts';
import { NeuronTuning, type NeuronValues, type Predicting, uniform } from '../addedNeurons.ts';
import type { EditorKind, EditorNeeds, Work } from '../editor.ts';
import { cutBelow, layerOf, teacherForced, WeightEditor, type WeightRequest } from '../weightEditor.ts';
import { betweenSteps } from '../work.ts';

export const CaliNetSettings = z.object({
  layer: z.int().default(-1).describe('Decoder layer beside whose MLP the slots are, from 0; −1 is the last'),
  slots: z.int().min(1).max(4096).default(8).describe('Neurons of an edit'),
  rate: z.number().positive().max(1).default(1e-2).describe('Learning rate of Adam'),
  steps: z.int().min(1).max(10_000).default(25).describe('Most steps of an edit'),
  stopBelow: z.number().min(0).default(1e-2).describe('The edit is done when its loss is below this'),
  seed: z.int().min(0).default(0).describe('Of the numbers that the slots’ keys begin with'),
});
export type CaliNetSettings = z.infer<typeof CaliNetSettings>;

export function caliNetNeeds({ layer }: CaliNetSettings, decoder: Decoder): EditorNeeds {
  const at = layerOf(layer, decoder.layers);
  return { cuts: cutBelow(at), changeable: [decoder.mlp(at).name] };
}

/** Tuned slots, with the losses before each step: of each request, and their mean. */
export interface TunedSlots {
  readonly neurons: NeuronValues;
  readonly changes: WeightChanges;
  readonly losses: ReadonlyArray<{ readonly mean: number; readonly each: readonly number[] }>;
  readonly firstGradients: ReadonlyMap<string, Float32Array>;
}

export class CaliNet extends WeightEditor {
  readonly name = 'CaliNET';
  readonly settings: CaliNetSettings;
  readonly #tuning: NeuronTuning;

  constructor(model: VisionLanguageModel, settings: CaliNetSettings) {
    super(model, caliNetNeeds(settings, model.decoder));
    this.settings = settings;
    this.#tuning = new NeuronTuning(model, this.sessions, layerOf(settings.layer, model.decoder.layers));
  }

  async make(_: VisionLanguageModel, request: WeightRequest, work: Work = {}): Promise<WeightChanges> {
    return (await this.tune([request], this.start(), work)).changes;
  }

  /** Keys as linear layers begin, values of nothing: the edit begins with the model as it is. */
  start(): NeuronValues {
    const neurons = this.#tuning.empty(this.settings.slots);
    const size = 1 / Math.sqrt(this.model.hidden);
    let seed = this.settings.seed;
    for (const [name, { data }] of neurons)
      if (name.startsWith('key')) data.set(uniform(data.length, size, seed++));
    return neurons;
  }

  /** What the model does with these slots. */
  changes(neurons: NeuronValues): WeightChanges {
    return this.#tuning.changes(neurons);
  }

  /** Adam on the mean of the requests' losses; slots have no biases. `neurons` are changed in place. */
  async tune(
    requests: readonly WeightRequest[],
    neurons: NeuronValues,
    work: Work = {},
  ): Promise<TunedSlots> {
    const { rate, steps, stopBelow } = this.settings;
    const asked: Predicting[] = [];
    for (const request of requests) {
      const { input, targetIds } = await teacherForced(this.model, request);
      asked.push({ input, targetIds, rows: targetIds.map((_, place) => input.lastPromptRow + place) });
    }
    const trained = new Map([...neurons].filter(([name]) => !name.startsWith('bias')));
    const adam = new Adam(trained, adamDefaults(rate));
    const losses: Array<TunedSlots['losses'][number]> = [];
    let firstGradients: TunedSlots['firstGradients'] = new Map();
    for (let step = 0; step < steps; step++) {
      await betweenSteps(work, step, steps);
      const each: number[] = [];
      const sum = new Map([...trained].map(([name, { data }]) => [name, new Float32Array(data.length)]));
      for (const one of asked) {
        const { loss, gradients } = await this.#tuning.loss(neurons, one);
        each.push(loss);
        for (const [name, own] of sum) {
          const gradient = gradients.get(name)!;
          for (let i = 0; i < own.length; i++) own[i]! += gradient[i]! / asked.length;
        }
      }
      const mean = each.reduce((a, b) => a + b) / each.length;
      losses.push({ mean, each });
      if (mean < stopBelow) break;
      if (step === 0) firstGradients = sum;
      adam.update(sum);
    }
    return { neurons, changes: this.changes(neurons), losses, firstGradients };
  }
}

export const caliNet: EditorKind<CaliNetSettings> = {
  name: 'CaliNET',
  acts: 'one layer’s MLP, by slots beside it',
  byConstruction: {},
  untrained: {
    scope: 'everywhere',
    settings: CaliNetSettings,
    needs: (settings, { backbone }) => caliNetNeeds(settings, backbone.decoder),
    open: async (settings, model) => new CaliNet(model, settings),
  },
};
