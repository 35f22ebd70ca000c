/**
 * @file KN: the neurons that an answer hangs on are found, and what they write is moved from the old answer to the new one
 * (Dai et al. 2022, sec. 4.3).
 */
import { z } from 'zod';
import { EmendError } from '../../errors.ts';
import type { Decoder } from '../../models/decoder.ts';
import { generate } from '../../models/generation.ts';
import type { VisionLanguageModel, WeightChanges } from '../../models/visionLanguageModel.ts';
import type { LinearChange } from '../../models/weightChanges.ts';
import type { EditorKind, EditorNeeds, Work } from '../editor.ts';
import { betweenSteps, teacherForced, WeightEditor, type WeightRequest } from '../weightEditor.ts';
import { type Integral, neuronAttribution } from './neuronAttribution.ts';

export const KnSettings = z.object({
  method: z
    .enum(['paper', 'published code'])
    .default('paper')
    .describe(
      'Paper: inner activations, first tokens, −1 old + 8 new. Code for Llama: what the gate gives before its activation, all tokens, −1 old + 1 new',
    ),
  steps: z.int().min(2).max(1000).default(20).describe('Steps of the integral'),
  tokens: z
    .enum(['first', 'all'])
    .default('first')
    .describe('Tokens of the old answer that neurons are found for'),
  threshold: z
    .number()
    .min(0)
    .max(1)
    .default(0.2)
    .describe('Neurons above this share of the largest attribution are changed'),
});
export type KnSettings = z.infer<typeof KnSettings>;

/** A neuron of an MLP. */
export interface Neuron {
  readonly layer: number;
  readonly index: number;
}

/** How the two tellings differ. */
const methods = {
  paper: {
    activations: 'inner',
    alphas: (steps: number) => Array.from({ length: steps }, (_, i) => (i + 1) / steps),
    move: { old: 1, new: 8, tokens: 1 },
  },
  'published code': {
    activations: 'gate',
    alphas: (steps: number) => Array.from({ length: steps }, (_, i) => i / (steps - 1)),
    move: { old: 1, new: 1, tokens: Number.POSITIVE_INFINITY },
  },
} as const;

/** Neurons may lie in any layer, so the model is cut nowhere. */
export function knNeeds(_: KnSettings, decoder: Decoder): EditorNeeds {
  const changeable = Array.from({ length: decoder.layers }, (__, layer) => decoder.mlp(layer).out);
  return { cuts: [], changeable };
}

export class Kn extends WeightEditor {
  readonly name = 'KN';
  readonly settings: KnSettings;

  constructor(model: VisionLanguageModel, settings: KnSettings) {
    super(model, knNeeds(settings, model.decoder));
    this.settings = settings;
  }

  async make(model: VisionLanguageModel, request: WeightRequest, work: Work = {}): Promise<WeightChanges> {
    const { targetIds } = await teacherForced(model, request);
    const old = await this.answer(request, targetIds.length);
    const neurons = this.chosen(await this.attribution(request, old, work));
    if (neurons.length === 0)
      throw new EmendError(
        'unsupported',
        'No neuron has a part in the answer. Take another editor for this edit.',
      );
    return this.moved(neurons, await this.vector(old, targetIds));
  }

  /** The unedited model's own answer, up to so many tokens. */
  async answer({ visual, prompt }: WeightRequest, tokens: number): Promise<number[]> {
    const { model } = this;
    const encoded = model.prompts.encodePrompt({ prompt, image: (visual as object | null) !== null });
    const prefill = await model.prefill(await model.lay(encoded, visual));
    return (await generate(model, prefill, { maxNewTokens: tokens })).tokens.map(({ id }) => id);
  }

  /** Attribution of each neuron to an answer to the request's prompt, its mean over the tokens asked for. [layers][inner width] */
  async attribution(
    request: WeightRequest,
    answer: readonly number[],
    work: Work = {},
  ): Promise<Float32Array[]> {
    const { model, sessions } = this;
    const { method, steps, tokens } = this.settings;
    const { activations, alphas } = methods[method];
    const integral: Integral = { activations, alphas: alphas(steps) };
    const { visual, prompt } = request;
    const encoded = model.prompts.encodePrompt({ prompt, image: (visual as object | null) !== null });
    const count = tokens === 'first' ? 1 : answer.length;
    const sum: Float32Array[] = [];
    for (let token = 0; token < count; token++) {
      await betweenSteps(work, token, count);
      const ids = [...encoded.ids, ...answer.slice(0, token)];
      const input = await model.lay({ ...encoded, ids, lastPromptToken: ids.length - 1 }, visual);
      const scores = await neuronAttribution(model, sessions, input, answer[token]!, integral);
      for (const [layer, own] of scores.entries())
        sum[layer] = own.map((score, i) => (sum[layer]?.[i] ?? 0) + score / count);
    }
    return sum;
  }

  /** Neurons above the threshold, by layer and index. */
  chosen(scores: readonly Float32Array[]): Neuron[] {
    const largest = scores.reduce((most, own) => own.reduce((a, b) => Math.max(a, b), most), -Infinity);
    const threshold = this.settings.threshold * largest;
    return scores.flatMap((own, layer) =>
      [...own.keys()].filter((index) => own[index]! > threshold).map((index) => ({ layer, index })),
    );
  }

  /** What neurons are to write beside what they write: embeddings of the new answer for those of the old one [hidden]. */
  async vector(old: readonly number[], target: readonly number[]): Promise<Float32Array> {
    const { move } = methods[this.settings.method];
    const hidden = this.model.hidden;
    const vector = new Float32Array(hidden);
    for (const [ids, weight] of [
      [old, -move.old],
      [target, move.new],
    ] as const) {
      const rows = await this.model.tokenEmbeddings(ids.slice(0, move.tokens));
      for (let i = 0; i < rows.length; i++) vector[i % hidden]! += weight * rows[i]!;
    }
    return vector;
  }

  /** Adds a vector to what neurons write, of rank one in each layer. */
  moved(neurons: readonly Neuron[], vector: Float32Array): WeightChanges {
    const changes = new Map<string, LinearChange>();
    for (const layer of new Set(neurons.map((neuron) => neuron.layer))) {
      const { out, width } = this.model.decoder.mlp(layer);
      const right = new Float32Array(width);
      for (const neuron of neurons) if (neuron.layer === layer) right[neuron.index] = 1;
      changes.set(out, { rank: 1, right, left: vector });
    }
    return changes;
  }
}

/** Neurons that were chosen for more than a share of several wordings of a prompt. */
export function refined(chosen: readonly (readonly Neuron[])[], share: number): Neuron[] {
  const counts = new Map<string, { readonly neuron: Neuron; count: number }>();
  for (const neuron of chosen.flat()) {
    const key = `${neuron.layer} ${neuron.index}`;
    const counted = counts.get(key) ?? { neuron, count: 0 };
    counted.count++;
    counts.set(key, counted);
  }
  return [...counts.values()]
    .filter(({ count }) => count > share * chosen.length)
    .map(({ neuron }) => neuron)
    .sort((a, b) => a.layer - b.layer || a.index - b.index);
}

export const kn: EditorKind<KnSettings> = {
  name: 'KN',
  acts: 'what single neurons of the MLPs write',
  byConstruction: {},
  untrained: {
    scope: 'everywhere',
    settings: KnSettings,
    needs: (settings, { backbone }) => knNeeds(settings, backbone.decoder),
    open: async (settings, model) => new Kn(model, settings),
  },
};
