/**
 * @file T-Patcher: a neuron beside the last MLP for each token to be corrected, tuned to fire there and on nothing else
 * (Huang et al. 2023, eqs 5–9).
 */
import { z } from 'zod';
import type { Decoder } from '../../models/decoder.ts';
import type { ModelInput, VisionLanguageModel, WeightChanges } from '../../models/visionLanguageModel.ts';
import { Adam, adamDefaults } from '../../training/optimizer.ts';
import { NeuronTuning, type NeuronValues, type Predicting, uniform } from '../addedNeurons.ts';
import type { EditorKind, EditorNeeds, Work } from '../editor.ts';
import { encodeTexts, readTexts } from '../keyMoments.ts';
import { cutBelow, layerOf, teacherForced, WeightEditor, type WeightRequest } from '../weightEditor.ts';
import { betweenSteps } from '../work.ts';
import { addTo, codeTerms, gradientOf, paperTerms, type Side } from './activationLosses.ts';
import { plainTexts } from './plainTexts.ts';

/** Settings with the published code's values, where the paper does not say. */
export const TPatcherSettings = z.object({
  method: z
    .enum(['paper', 'code intended', 'code as published'])
    .default('paper')
    .describe(
      'Paper: a neuron for each token, keys at what is read there. Code: one neuron, from zero, on all rows; as published it loses the edit after a step',
    ),
  layer: z
    .int()
    .default(-1)
    .describe('Decoder layer beside whose MLP the neurons are, from 0; −1 is the last'),
  rate: z.number().positive().max(1).default(1e-2).describe('Learning rate of Adam'),
  steps: z.int().min(1).max(10_000).default(100).describe('Most steps of an edit'),
  stopBelow: z
    .number()
    .min(0)
    .default(1e-2)
    .describe('The edit is done when the target’s loss is below this'),
  activation: z
    .number()
    .min(0)
    .nullable()
    .default(null)
    .describe('Weight of the loss that makes neurons fire; empty: 1 (paper), 0.0001 (code)'),
  memory: z
    .number()
    .min(0)
    .nullable()
    .default(null)
    .describe('Weight of the losses that keep them quiet elsewhere; empty: 10 (paper), 0.0001 (code)'),
  beta: z.number().default(-3).describe('Elsewhere activations are to be below this (paper)'),
  gamma: z.number().default(-3).describe('… and below the neuron’s own by this (paper)'),
  kept: z.int().min(1).default(1000).describe('Largest activations elsewhere that count (paper)'),
  seed: z.int().min(0).default(0).describe('Of the numbers that the neurons’ values begin with (paper)'),
  texts: z.string().max(4096).default('').meta({
    title: 'Texts',
    description:
      'File of texts, one a line, on which neurons are to stay quiet. Empty: a few plain sentences.',
    file: true,
  }),
});
export type TPatcherSettings = z.infer<typeof TPatcherSettings>;

export function tPatcherNeeds({ layer }: TPatcherSettings, decoder: Decoder): EditorNeeds {
  const at = layerOf(layer, decoder.layers);
  return { cuts: cutBelow(at), changeable: [decoder.mlp(at).name] };
}

/** Losses before a step; `memory` has the paper's two, or the code's one. */
export interface PatchTerms {
  readonly total: number;
  readonly edit: number;
  readonly activation: number;
  readonly memory: readonly number[];
}

export interface Patched {
  readonly neurons: NeuronValues;
  readonly changes: WeightChanges;
  readonly terms: readonly PatchTerms[];
  /** of the first steps, by step and name */
  readonly gradients: ReadonlyArray<ReadonlyMap<string, Float32Array>>;
}

export class TPatcher extends WeightEditor {
  readonly name = 'T-Patcher';
  readonly settings: TPatcherSettings;
  readonly layer: number;
  readonly #tuning: NeuronTuning;
  #texts: Promise<number[][]> | undefined;

  constructor(model: VisionLanguageModel, settings: TPatcherSettings) {
    super(model, tPatcherNeeds(settings, model.decoder));
    this.settings = settings;
    this.layer = layerOf(settings.layer, model.decoder.layers);
    this.#tuning = new NeuronTuning(model, this.sessions, this.layer);
  }

  async make(_: VisionLanguageModel, request: WeightRequest, work: Work = {}): Promise<WeightChanges> {
    const { texts } = this.settings;
    this.#texts ??= (texts === '' ? Promise.resolve(plainTexts) : readTexts(texts)).then((read) =>
      encodeTexts(this.model, read),
    );
    return (await this.patch(request, await this.#texts, null, work)).changes;
  }

  /** Neurons with which an edit begins: the paper's keys are q/|q|², such that each is 1 where it is to fire. */
  async start(request: WeightRequest): Promise<NeuronValues> {
    const { hidden } = this.model;
    if (this.settings.method !== 'paper') return this.#tuning.empty(1);
    const { queries } = await this.#edit(request);
    const count = queries.length / hidden;
    const neurons = this.#tuning.empty(count);
    for (const [name, { data }] of neurons) {
      if (!name.startsWith('key')) continue;
      for (let neuron = 0; neuron < count; neuron++) {
        const query = queries.subarray(neuron * hidden, (neuron + 1) * hidden);
        const square = query.reduce((sum, x) => sum + x * x, 0);
        for (let i = 0; i < hidden; i++) data[neuron * hidden + i] = query[i]! / square;
      }
    }
    neurons.get('values')!.data.set(uniform(count * hidden, 1 / Math.sqrt(hidden), this.settings.seed));
    return neurons;
  }

  /** What the MLP reads on texts, under one another [rows, hidden]. */
  async memoryOf(texts: readonly (readonly number[])[]): Promise<Float32Array> {
    const parts: Float32Array[] = [];
    for (const ids of texts) parts.push(await this.#tuning.reads(await this.#lay(ids)));
    const all = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
    let at = 0;
    for (const part of parts) {
      all.set(part, at);
      at += part.length;
    }
    return all;
  }

  /**
   * @param texts on which the neurons are to stay quiet, at least one. The code takes one of them a step.
   * @param given neurons to begin with, changed in place; null: those of `start`
   */
  async patch(
    request: WeightRequest,
    texts: readonly (readonly number[])[],
    given: NeuronValues | null,
    work: Work = {},
  ): Promise<Patched> {
    const { method, rate, steps, stopBelow, beta, gamma, kept } = this.settings;
    const paper = method === 'paper';
    const weights = {
      activation: this.settings.activation ?? (paper ? 1 : 1e-4),
      memory: this.settings.memory ?? (paper ? 10 : 1e-4),
    };
    const { edit, reads, queries } = await this.#edit(request);
    const neurons = given ?? (await this.start(request));
    const memory = paper ? await this.memoryOf(texts) : null;
    const quiet: Array<{ readonly reads: Float32Array; readonly edit: Predicting | null }> = [];
    if (!paper) {
      for (const ids of texts) {
        const input = await this.#lay(ids);
        quiet.push({ reads: await this.#tuning.reads(input), edit: behind(input, edit.targetIds) });
      }
    }
    const adam = new Adam(neurons, adamDefaults(rate));
    const terms: PatchTerms[] = [];
    const first: Array<ReadonlyMap<string, Float32Array>> = [];
    const hidden = this.model.hidden;
    for (let step = 0; step < steps; step++) {
      await betweenSteps(work, step, steps);
      // As published, the edit's input is overwritten by the text of the step before.
      const lost = method === 'code as published' && step > 0 ? quiet[(step - 1) % quiet.length]! : null;
      const { loss, gradients } = await this.#tuning.loss(neurons, lost?.edit ?? edit);
      const sides = this.model.decoder.mlp(this.layer).into.map((_, at): Side => {
        const [key, bias] = [neurons.get(`key.${at}`)!.data, neurons.get(`bias.${at}`)!.data];
        return { key, bias, hidden };
      });
      let [activation, quietness]: [number, number[]] = [0, []];
      for (const [at, side] of sides.entries()) {
        const own = paper
          ? paperTerms(side, queries, memory!, { ...weights, beta, gamma, kept })
          : codeTerms(side, lost?.edit ? lost.reads : reads, quiet[step % quiet.length]!.reads, weights);
        activation += own.activation;
        quietness = own.memory.map((value, i) => value + (quietness[i] ?? 0));
        addTo(gradients, gradientOf(side, own.pulls), at);
      }
      const total =
        loss + weights.activation * activation + weights.memory * quietness.reduce((a, b) => a + b, 0);
      terms.push({ total, edit: loss, activation, memory: quietness });
      if (first.length < 2) first.push(gradients);
      if (loss < stopBelow) break;
      adam.update(gradients);
    }
    return { neurons, changes: this.#tuning.changes(neurons), terms, gradients: first };
  }

  #lay(ids: readonly number[]): Promise<ModelInput> {
    return this.model.layRows(ids, [], [], ids.length - 1);
  }

  async #edit(request: WeightRequest) {
    const { hidden } = this.model;
    const { input, targetIds } = await teacherForced(this.model, request);
    const rows = targetIds.map((_, place) => input.lastPromptRow + place);
    const reads = await this.#tuning.reads(input);
    return {
      edit: { input, targetIds, rows },
      reads,
      /** what the MLP reads where each token is to be corrected */
      queries: reads.slice(rows[0]! * hidden, (rows.at(-1)! + 1) * hidden),
    };
  }
}

/** The target's labels at the last rows of a text, as the published code aligns them; null where it has not enough rows. */
function behind(input: ModelInput, targetIds: readonly number[]): Predicting | null {
  const first = input.rows - targetIds.length - 1;
  return first < 0 ? null : { input, targetIds, rows: targetIds.map((_, place) => first + place) };
}

export const tPatcher: EditorKind<TPatcherSettings> = {
  name: 'T-Patcher',
  acts: 'the last layer’s MLP, by a neuron beside it for each token',
  byConstruction: {},
  untrained: {
    scope: 'everywhere',
    settings: TPatcherSettings,
    needs: (settings, { backbone }) => tPatcherNeeds(settings, backbone.decoder),
    open: async (settings, model) => new TPatcher(model, settings),
  },
};
