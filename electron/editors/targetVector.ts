/**
 * @file The vector that, put in a hidden state's place, makes a model say the target: ROME's v* (eq. 4) and MEMIT's z (eq. 16).
 */
import { z } from 'zod';
import { decoderFrom, feedsFrom, logitsAt, targetFeeds } from '../models/decoderPass.ts';
import type { ModelInput, VisionLanguageModel } from '../models/visionLanguageModel.ts';
import { observedWeights } from '../models/weights.ts';
import * as f from '../tensor/functions.ts';
import { gradients } from '../tensor/gradients.ts';
import { float32, floatsOf, int64, type Value } from '../tensor/session.ts';
import { Adam, adamDefaults } from '../training/optimizer.ts';
import { betweenSteps, type Sessions, type Work } from './weightEditor.ts';

/** Settings, without their defaults: ROME and MEMIT differ in these. */
export const TargetVectorSettings = z.object({
  rate: z.number().positive().max(10).describe('Learning rate of Adam'),
  passes: z.int().min(1).max(1000).describe('Forward passes; the last is not followed by a step'),
  decay: z.number().min(0).describe('Weight of |δ| / |v|², v the vector before the edit'),
  klFactor: z
    .number()
    .min(0)
    .describe('Weight of the divergence from the unedited model on the subject alone'),
  clamp: z.number().positive().describe('|δ| stays below so many |v|'),
  stopBelow: z.number().min(0).describe('The vector is found when the loss is below this'),
});
export type TargetVectorSettings = z.infer<typeof TargetVectorSettings>;

/** A sequence in which the vector stands at a row. */
export interface Placed {
  readonly input: ModelInput;
  readonly row: number;
}

export interface FoundVector {
  /** [hidden] */
  readonly initial: Float32Array;
  readonly delta: Float32Array;
  /** v* = initial + delta [hidden] */
  readonly target: Float32Array;
  /** before each step */
  readonly terms: ReadonlyArray<{
    readonly loss: number;
    readonly nll: number;
    readonly kl: number;
    readonly decay: number;
    readonly length: number;
  }>;
  readonly firstGradient: Float32Array;
}

export const length = (vector: ArrayLike<number>): number => {
  let square = 0;
  for (let i = 0; i < vector.length; i++) square += vector[i]! * vector[i]!;
  return Math.sqrt(square);
};

/**
 * Finds δ by Adam on the mean NLL of the target over the prompts + klFactor·KL(edited ‖ unedited) at `unchanged`'s row
 * + decay·|δ| / |v|². `place`: the output of the layer's MLP (ROME) or of the layer (MEMIT). The model is cut after `layer − 1`,
 * or `from − 1` for a lower layer `from`.
 */
export async function findTargetVector(
  model: VisionLanguageModel,
  sessions: Sessions,
  { layer, from = layer, place }: { layer: number; from?: number; place: 'mlp' | 'layer' },
  prompts: ReadonlyArray<Placed & { readonly targetIds: readonly number[] }>,
  unchanged: Placed,
  settings: TargetVectorSettings,
  work: Work,
): Promise<FoundVector> {
  const { decoder } = model;
  const { hidden, vocab } = decoder;
  const session = await sessions.get('target vector', (graph) => {
    const delta = graph.input('delta', 'float32', [hidden]);
    const row = graph.input('row', 'int64', [1]);
    const moved = (x: f.Operand & object) => {
      const flat = f.reshape(x, ['rows', hidden]);
      graph.output('initial', f.gather(flat, row));
      return f.reshape(f.scatterRows(flat, row, f.reshape(delta, [1, hidden]), 'add'), [1, 'rows', hidden]);
    };
    const { out } = decoder.mlp(layer);
    const weights = observedWeights(decoder.weightsOf(graph), (name, _, given) =>
      place === 'mlp' && name === out ? moved(given) : given,
    );
    const top = decoderFrom(graph, decoder, from, weights, {
      changed: (at, outputs) => (place === 'layer' && at === layer ? moved(outputs.hidden) : outputs.hidden),
    });
    const logits = logitsAt(top, graph.input('predicting', 'int64', ['target']), decoder, weights);
    const nll = f.mean(f.crossEntropy(logits, graph.input('labels', 'int64', ['target'])));
    const kl = f.mean(f.klDivergence(logits, graph.input('unedited', 'float32', ['target', vocab])));
    graph.output('logits', logits);
    graph.output('nll', nll);
    graph.output('kl', kl);
    const loss = f.add(
      f.multiply(nll, graph.input('weight of nll', 'float32', [])),
      f.multiply(kl, graph.input('weight of kl', 'float32', [])),
    );
    graph.output('gradient', gradients(loss, [delta])[0]!);
  });
  const scalar = (value: number) => float32(Float32Array.of(value), []);
  const feedsOf = async ({ input, row }: Placed) => ({
    ...(await feedsFrom(model, input, from)),
    row: int64([row], [1]),
  });
  const asked: Record<string, Value>[] = [];
  for (const prompt of prompts)
    asked.push({
      ...(await feedsOf(prompt)),
      ...targetFeeds(prompt.input, prompt.targetIds),
      unedited: float32(new Float32Array(prompt.targetIds.length * vocab), [prompt.targetIds.length, vocab]),
      ...{ 'weight of nll': scalar(1 / prompts.length), 'weight of kl': scalar(0) },
    });
  const zero = float32(new Float32Array(hidden), [hidden]);
  const kept: Record<string, Value> = {
    ...(await feedsOf(unchanged)),
    predicting: int64([unchanged.row], [1]),
    labels: int64([0], [1]),
    unedited: float32(new Float32Array(vocab), [1, vocab]),
    ...{ 'weight of nll': scalar(0), 'weight of kl': scalar(settings.klFactor) },
  };
  kept['unedited'] = (await session.run({ ...kept, delta: zero }))['logits']!;
  const initial = (await floatsOf((await session.run({ ...asked[0]!, delta: zero }))['initial']!)).slice();

  const delta = new Float32Array(hidden);
  const adam = new Adam(new Map([['delta', { shape: [hidden], data: delta }]]), adamDefaults(settings.rate));
  const size = length(initial);
  const terms: Array<FoundVector['terms'][number]> = [];
  let firstGradient: Float32Array = delta;
  for (let pass = 0; pass < settings.passes; pass++) {
    await betweenSteps(work, pass, settings.passes);
    const gradient = new Float32Array(hidden);
    let [nll, kl] = [0, 0];
    for (const feeds of [...asked, kept]) {
      const out = await session.run({ ...feeds, delta: float32(delta, [hidden]) });
      const one = async (name: string) => (await floatsOf(out[name]!))[0]!;
      if (feeds === kept) kl = settings.klFactor * (await one('kl'));
      else nll += (await one('nll')) / prompts.length;
      const own = await floatsOf(out['gradient']!);
      for (let i = 0; i < hidden; i++) gradient[i]! += own[i]!;
    }
    const moved = length(delta);
    const decay = (settings.decay * moved) / size ** 2;
    const loss = nll + kl + decay;
    terms.push({ loss, nll, kl, decay, length: moved });
    if (moved > 0)
      for (let i = 0; i < hidden; i++) gradient[i]! += (settings.decay * delta[i]!) / moved / size ** 2;
    if (pass === 0) firstGradient = gradient;
    if (loss < settings.stopBelow || pass === settings.passes - 1) break;
    adam.update(new Map([['delta', gradient]]));
    const [reached, most] = [length(delta), settings.clamp * size];
    if (reached > most) for (let i = 0; i < hidden; i++) delta[i]! *= most / reached;
  }
  const target = initial.map((value, i) => value + delta[i]!);
  return { initial, delta, target, terms, firstGradient };
}
