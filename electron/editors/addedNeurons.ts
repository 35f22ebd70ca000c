/**
 * @file Neurons beside an MLP's own, tuned on an edit: the loss of a target with them, and its gradients.
 */
import { decoderFrom, feedsFrom, logitsAt } from '../models/decoderPass.ts';
import type { ModelInput, VisionLanguageModel, WeightChanges } from '../models/visionLanguageModel.ts';
import type { AddedNeurons } from '../models/weightChanges.ts';
import { addedNeurons, type Weights } from '../models/weights.ts';
import * as f from '../tensor/functions.ts';
import { gradients } from '../tensor/gradients.ts';
import { float32, floatsOf, int64, type Value } from '../tensor/session.ts';
import type { Parameters } from '../training/optimizer.ts';
import type { Sessions } from './weightEditor.ts';

/** A sequence, the rows that predict a target in it, and the target. */
export interface Predicting {
  readonly input: ModelInput;
  readonly rows: readonly number[];
  readonly targetIds: readonly number[];
}

/** Numbers of neurons by name: `key.0`, `bias.0` of the first projection into the MLP, …, `values`; each [count, …]. */
export type NeuronValues = Parameters;

export class NeuronTuning {
  readonly #model: VisionLanguageModel;
  readonly #sessions: Sessions;
  readonly #layer: number;

  /** The model must be cut after `layer − 1`. */
  constructor(model: VisionLanguageModel, sessions: Sessions, layer: number) {
    this.#model = model;
    this.#sessions = sessions;
    this.#layer = layer;
  }

  /** All zero. */
  empty(count: number): Map<string, { shape: number[]; data: Float32Array }> {
    const { into } = this.#model.decoder.mlp(this.#layer);
    const { hidden } = this.#model;
    const values = new Map<string, { shape: number[]; data: Float32Array }>();
    for (const at of into.keys()) {
      values.set(`key.${at}`, { shape: [count, hidden], data: new Float32Array(count * hidden) });
      values.set(`bias.${at}`, { shape: [count], data: new Float32Array(count) });
    }
    return values.set('values', { shape: [count, hidden], data: new Float32Array(count * hidden) });
  }

  /** Mean negative log likelihood of a target with these neurons, and its gradients by their names. */
  async loss(
    neurons: NeuronValues,
    { input, rows, targetIds }: Predicting,
    acting?: WeightChanges,
  ): Promise<{ loss: number; gradients: Map<string, Float32Array> }> {
    const session = await this.#session();
    const out = await session.run({
      ...(await feedsFrom(this.#model, input, this.#layer, acting)),
      ...feedsOf(neurons),
      predicting: int64(rows, [rows.length]),
      labels: int64(targetIds, [targetIds.length]),
    });
    const found = new Map<string, Float32Array>();
    for (const name of neurons.keys()) found.set(name, await floatsOf(out[`gradient.${name}`]!));
    return { loss: (await floatsOf(out['loss']!))[0]!, gradients: found };
  }

  /** What the MLP reads [rows, hidden]: no neuron of its own layer changes it. */
  async reads(input: ModelInput): Promise<Float32Array> {
    const session = await this.#session();
    const none = this.empty(1);
    const out = await session.run({
      ...(await feedsFrom(this.#model, input, this.#layer)),
      ...feedsOf(none),
      ...{ predicting: int64([0], [1]), labels: int64([0], [1]) },
    });
    return floatsOf(out['reads']!);
  }

  /** Neurons as a change of the model. */
  changes(neurons: NeuronValues): WeightChanges {
    const { name, into } = this.#model.decoder.mlp(this.#layer);
    const of = (part: string) => neurons.get(part)!;
    const change: AddedNeurons = {
      count: of('values').shape[0]!,
      keys: into.map((_, at) => ({ weight: of(`key.${at}`).data, bias: of(`bias.${at}`).data })),
      values: of('values').data,
    };
    return new Map([[name, change]]);
  }

  #session() {
    const { decoder } = this.#model;
    const own = decoder.mlp(this.#layer);
    return this.#sessions.get('neurons', (graph) => {
      const { hidden } = decoder;
      const keys = own.into.map((_, at) => ({
        weight: graph.input(`key.${at}`, 'float32', ['neurons', hidden]),
        bias: graph.input(`bias.${at}`, 'float32', ['neurons']),
      }));
      const values = graph.input('values', 'float32', ['neurons', hidden]);
      const below = decoder.weightsOf(graph);
      const neurons: Weights['neurons'] = (normed, mlp) => {
        const acting = below.neurons?.(normed, mlp) ?? null;
        if (mlp.name !== own.name) return acting;
        graph.output('reads', f.reshape(normed, ['rows', hidden]));
        const added = addedNeurons(normed, mlp, keys, values);
        return acting ? f.add(acting, added) : added;
      };
      const weights: Weights = Object.assign((name: string) => below(name), { ...below, neurons });
      const top = decoderFrom(graph, decoder, this.#layer, weights);
      const logits = logitsAt(top, graph.input('predicting', 'int64', ['target']), decoder, weights);
      const loss = f.mean(f.crossEntropy(logits, graph.input('labels', 'int64', ['target'])));
      graph.output('loss', loss);
      const parts = keys.flatMap(({ weight, bias }) => [weight, bias]).concat(values);
      for (const [at, gradient] of gradients(loss, parts).entries())
        graph.output(`gradient.${parts[at]!.name}`, gradient);
    });
  }
}

function feedsOf(neurons: NeuronValues): Record<string, Value> {
  return Object.fromEntries(
    [...neurons].map(([name, { shape, data }]) => [name, float32(data, shape)] as const),
  );
}

/** Numbers between −size and size that are the same for the same seed (mulberry32). */
export function uniform(count: number, size: number, seed: number): Float32Array {
  let state = seed >>> 0;
  return Float32Array.from({ length: count }, () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return size * (2 * (((t ^ (t >>> 14)) >>> 0) / 2 ** 32) - 1);
  });
}
