/**
 * @file MEMIT: several layers' MLPs are changed together, for one fact or many, such that the highest of these layers gives the vectors
 * that make the model say the targets (Meng et al. 2023, eqs 14–20).
 */
import { z } from 'zod';
import { EmendError } from '../../errors.ts';
import type { Decoder } from '../../models/decoder.ts';
import { decoderFrom, feedsFrom } from '../../models/decoderPass.ts';
import type { VisionLanguageModel, WeightChanges } from '../../models/visionLanguageModel.ts';
import type { LinearChange } from '../../models/weightChanges.ts';
import { observedWeights } from '../../models/weights.ts';
import * as f from '../../tensor/functions.ts';
import { floatsOf, int64 } from '../../tensor/session.ts';
import type { EditorKind, EditorNeeds, Work } from '../editor.ts';
import { type KeyMoments, keyMoments, TextMoments, textsSetting } from '../keyMoments.ts';
import { choleskyFactor, solveFactored } from '../linearAlgebra.ts';
import { keyPlaces } from '../rome/rome.ts';
import {
  type FoundVector,
  findTargetVector,
  length,
  type Placed,
  TargetVectorSettings,
} from '../targetVector.ts';
import { cutBelow, layerOf, WeightEditor, type WeightRequest } from '../weightEditor.ts';

/** λ as published for Llama, whose keys have so many numbers. */
const PUBLISHED = { lambda: 15_000, width: 11_008 };

/** Settings with the published code's values for Llama. */
export const MemitSettings = TargetVectorSettings.extend({
  layers: z
    .string()
    .regex(/^\s*(-?\d+(\s*,\s*-?\d+)*)?\s*$/, 'layers are numbers with commas between')
    .default('')
    .describe(
      'Decoder layers whose MLPs are changed, from 0, such as 4, 5, 6. Empty: as deep as layers 4 to 8 of 32',
    ),
  rate: TargetVectorSettings.shape.rate.default(0.5),
  passes: TargetVectorSettings.shape.passes.default(25),
  decay: TargetVectorSettings.shape.decay.default(1e-3),
  klFactor: TargetVectorSettings.shape.klFactor.default(0.0625),
  clamp: TargetVectorSettings.shape.clamp.default(0.75),
  stopBelow: TargetVectorSettings.shape.stopBelow.default(5e-2),
  lambda: z
    .number()
    .positive()
    .nullable()
    .default(null)
    .describe(
      'How many tokens’ keys an edit must leave what they give; empty: as published for Llama, for the width of these keys',
    ),
  keyToken: z
    .enum(['subject', 'prompt'])
    .default('subject')
    .describe(
      'The token that stands for a fact: the subject’s last where a request names one, or always the prompt’s last',
    ),
  contexts: z
    .array(z.string().max(1000))
    .min(1)
    .max(100)
    .default([''])
    .describe(
      'Texts put before the prompt; keys are means over those of as many words, and then over these means',
    ),
  texts: textsSetting('keys are taken as spread evenly'),
});
export type MemitSettings = z.infer<typeof MemitSettings>;

/** @throws EmendError 'invalid-input' for layers that the decoder does not have, or not ascending */
function layersChanged({ layers }: MemitSettings, decoder: Decoder): number[] {
  const depth = decoder.layers;
  if (layers.trim() === '') {
    const [first, last] = [Math.round((4 / 32) * depth), Math.min(depth - 1, Math.round((8 / 32) * depth))];
    return Array.from({ length: last - first + 1 }, (_, at) => first + at);
  }
  const wanted = layers.split(',').map((layer) => layerOf(Number(layer), depth));
  if (wanted.some((layer, at) => at > 0 && layer <= wanted[at - 1]!))
    throw new EmendError('invalid-input', `MEMIT’s layers are not ascending: ${layers}.`);
  return wanted;
}

export function memitNeeds(settings: MemitSettings, decoder: Decoder): EditorNeeds {
  const layers = layersChanged(settings, decoder);
  return { cuts: cutBelow(layers[0]!), changeable: layers.map((layer) => decoder.mlp(layer).out) };
}

/** An edit of one fact or several, with all that led to it. */
export interface MemitEdit {
  readonly changes: WeightChanges;
  /** z of each fact */
  readonly vectors: readonly FoundVector[];
  /** for each layer: keys of the facts, and what the highest layer still lacked then, lengths */
  readonly steps: ReadonlyArray<{
    readonly layer: number;
    readonly keys: readonly Float64Array[];
    readonly lacking: readonly number[];
  }>;
  /** what the highest layer lacks in the end, lengths */
  readonly left: readonly number[];
}

export class Memit extends WeightEditor {
  readonly name = 'MEMIT';
  readonly settings: MemitSettings;
  readonly layers: readonly number[];
  readonly #texts: TextMoments;

  constructor(model: VisionLanguageModel, settings: MemitSettings) {
    super(model, memitNeeds(settings, model.decoder));
    this.settings = settings;
    this.layers = layersChanged(settings, model.decoder);
    this.#texts = new TextMoments(settings.texts, model, (layer, sequences) =>
      this.momentsOver(layer, sequences),
    );
  }

  /** Covariance of a layer's keys over token sequences. */
  momentsOver(layer: number, sequences: readonly (readonly number[])[]): Promise<KeyMoments> {
    return keyMoments(this.model, this.sessions, layer, this.layers[0]!, sequences);
  }

  async make(_: VisionLanguageModel, request: WeightRequest, work: Work = {}): Promise<WeightChanges> {
    const moments = new Map<number, KeyMoments>();
    for (const layer of this.layers) {
      const found = await this.#texts.of(layer);
      if (found) moments.set(layer, found);
    }
    return (await this.edit([request], moments, work)).changes;
  }

  /**
   * One edit of several facts. @param moments covariance of keys by layer; for layers without, keys are taken as spread evenly and as
   * long as the facts' own
   */
  async edit(
    requests: readonly WeightRequest[],
    moments: ReadonlyMap<number, KeyMoments>,
    work: Work = {},
  ): Promise<MemitEdit> {
    const { model, layers, settings, sessions } = this;
    const [first, last] = [layers[0]!, layers.at(-1)!];
    const vectors: FoundVector[] = [];
    const places: Array<{ readonly kinds: Placed[][]; readonly own: Placed }> = [];
    for (const [at, request] of requests.entries()) {
      const kinds: Placed[][] = [];
      for (const contexts of byLength(settings.contexts))
        kinds.push([...(await keyPlaces(model, request, contexts, settings.keyToken)).prompts]);
      const { prompts, unchanged } = await keyPlaces(model, request, settings.contexts, settings.keyToken);
      const own = (await keyPlaces(model, request, [''], settings.keyToken)).prompts[0]!;
      places.push({ kinds, own });
      const told: Work = {
        ...work,
        progress: (done, total) => work.progress?.(at * total + done, requests.length * total),
      };
      const where = { layer: last, from: first, place: 'layer' } as const;
      vectors.push(await findTargetVector(model, sessions, where, prompts, unchanged, settings, told));
    }

    const changes = new Map<string, LinearChange>();
    const steps: Array<MemitEdit['steps'][number]> = [];
    const lackingNow = async () => {
      const lacking: Float64Array[] = [];
      for (const [at, { own }] of places.entries()) {
        const { output } = await this.#at(own, changes);
        lacking.push(Float64Array.from(vectors[at]!.target, (value, i) => value - output[i]!));
      }
      return lacking;
    };
    for (const [index, layer] of layers.entries()) {
      const keys: Float64Array[] = [];
      for (const { kinds } of places) {
        const means: Float64Array[] = [];
        for (const kind of kinds) {
          const found: Float32Array[] = [];
          for (const place of kind) found.push((await this.#at(place, changes)).keys.get(layer)!);
          means.push(meanOf(found));
        }
        keys.push(meanOf(means));
      }
      const lacking = await lackingNow();
      const { out, width } = model.decoder.mlp(layer);
      const lambda = settings.lambda ?? (PUBLISHED.lambda * width) / PUBLISHED.width;
      const share = lacking.map((residual) => residual.map((value) => value / (layers.length - index)));
      changes.set(out, spreadUpdate(keys, share, lambda, moments.get(layer) ?? null));
      steps.push({ layer, keys, lacking: lacking.map(length) });
    }
    return { changes, vectors, steps, left: (await lackingNow()).map(length) };
  }

  /** Keys of the layers that are changed at a row, and what the highest gives there. */
  async #at({ input, row }: Placed, changes: WeightChanges) {
    const { model, layers } = this;
    const { decoder } = model;
    const [first, last] = [layers[0]!, layers.at(-1)!];
    const session = await this.sessions.get('keys', (graph) => {
      const at = graph.input('row', 'int64', [1]);
      const weights = observedWeights(decoder.weightsOf(graph), (name, x, given) => {
        const layer = layers.find((each) => decoder.mlp(each).out === name);
        if (layer !== undefined)
          graph.output(`key.${layer}`, f.gather(f.reshape(x, ['rows', decoder.mlp(layer).width]), at));
        return given;
      });
      decoderFrom(graph, decoder, first, weights, {
        last,
        changed: (layer, { hidden }) => {
          if (layer === last)
            graph.output('output', f.gather(f.reshape(hidden, ['rows', decoder.hidden]), at));
          return hidden;
        },
      });
    });
    const feeds = { ...(await feedsFrom(model, input, first, changes)), row: int64([row], [1]) };
    const found = await session.run(feeds);
    const keys = new Map<number, Float32Array>();
    for (const layer of layers) keys.set(layer, await floatsOf(found[`key.${layer}`]!));
    return { keys, output: await floatsOf(found['output']!) };
  }
}

/** Texts by how many words they have. */
function byLength(texts: readonly string[]): string[][] {
  const kinds = new Map<number, string[]>();
  for (const text of texts) {
    const words = text.split(/\s+/).filter(Boolean).length;
    kinds.set(words, [...(kinds.get(words) ?? []), text]);
  }
  return [...kinds.values()];
}

function meanOf(vectors: readonly ArrayLike<number>[]): Float64Array {
  const mean = new Float64Array(vectors[0]!.length);
  for (const vector of vectors) for (let i = 0; i < mean.length; i++) mean[i]! += vector[i]! / vectors.length;
  return mean;
}

/**
 * ΔW = R·Kᵀ·(λC + K·Kᵀ)⁻¹ (eq. 14), of as many ranks as facts: with X = (λC)⁻¹·K the right factor is X·(1 + Kᵀ·X)⁻¹.
 * keys: columns of K [inner width]; residuals: columns of R [hidden]. Without C keys are as long as these and point anywhere.
 */
function spreadUpdate(
  keys: readonly Float64Array[],
  residuals: readonly Float64Array[],
  lambda: number,
  moments: KeyMoments | null,
): LinearChange {
  const rank = keys.length;
  const [into, out] = [keys[0]!.length, residuals[0]!.length];
  const even = keys.reduce((sum, key) => sum + length(key) ** 2, 0) / rank / into;
  const solved = keys.map((key) =>
    moments ? moments.solve(key).map((x) => x / lambda) : key.map((x) => x / even / lambda),
  );
  const small = new Float64Array(rank * rank);
  for (let a = 0; a < rank; a++)
    for (let b = 0; b < rank; b++)
      small[a * rank + b] = (a === b ? 1 : 0) + keys[a]!.reduce((sum, x, i) => sum + x * solved[b]![i]!, 0);
  const factor = choleskyFactor(small, rank);
  if (!factor) throw new EmendError('internal', 'Keys of the facts are no finite numbers.');
  const right = new Float32Array(into * rank);
  for (let i = 0; i < into; i++) {
    const row = solveFactored(
      factor,
      solved.map((x) => x[i]!),
    );
    right.set(row, i * rank);
  }
  const left = new Float32Array(rank * out);
  for (const [at, residual] of residuals.entries()) left.set(residual, at * out);
  return { rank, right, left };
}

export const memit: EditorKind<MemitSettings> = {
  name: 'MEMIT',
  acts: 'the projections out of several layers’ MLPs, by one rank for each fact',
  byConstruction: {},
  untrained: {
    scope: 'everywhere',
    settings: MemitSettings,
    needs: (settings, { backbone }) => memitNeeds(settings, backbone.decoder),
    open: async (settings, model) => new Memit(model, settings),
  },
};
