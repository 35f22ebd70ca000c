/**
 * @file How much the prediction changes when noise is put on the rows of one modality at the output of one layer (DualEdit
 * Figure 2): layers, modalities and draws as one batch, a few at a time.
 */
import { EmendError } from '../errors.ts';
import { attentionFeeds, attentionInputs, enter } from '../models/decoder.ts';
import type { ModelInput } from '../models/visionLanguageModel.ts';
import * as f from '../tensor/functions.ts';
import { Graph, type Tensor } from '../tensor/graph.ts';
import { float32, floatsOf, int64, Session } from '../tensor/session.ts';
import type { Decoder } from './layerInputs.ts';
import { modalityRows } from './modalityAttention.ts';
import { standardNormal } from './visualContribution.ts';

export const modalities = ['visual', 'text', 'both'] as const;
export type Modality = (typeof modalities)[number];

export interface ModalityNoiseSettings {
  /** of the noise, in standard deviations of the elements of the rows it is put on, at that layer */
  readonly level: number;
  readonly draws: number;
  readonly seed: number;
}
export const modalityNoiseDefaults: ModalityNoiseSettings = { level: 1, draws: 3, seed: 0 };

/** KL(p ‖ p̃) in nats of the next token's distributions without and with noise, mean over draws, by layer. Each array [layers]. */
export type ModalityNoises = Readonly<Record<Modality, Float32Array>>;

/** Numbers the largest intermediate result of a run should hold. */
const largestIntermediate = 2 ** 24;

interface Item {
  readonly modality: Modality;
  readonly layer: number;
  readonly noise: Float32Array;
}

export class ModalityNoise {
  readonly #decoder: Decoder;
  readonly #session: Session;

  private constructor(decoder: Decoder, session: Session) {
    this.#decoder = decoder;
    this.#session = session;
  }

  static async compile(decoder: Decoder): Promise<ModalityNoise> {
    const { layers, hidden } = decoder;
    const graph = new Graph();
    const weight = decoder.weightsOf(graph);
    const inputs = attentionInputs(graph, decoder, 1, 'rows', 'rows');
    /** 1 at the rows an item perturbs, and how many numbers they hold */
    const rows = graph.input('perturbed', 'float32', ['batch', 'rows', 1]);
    const count = graph.input('count', 'float32', ['batch', 1, 1]);
    const noise = graph.input('noise', 'float32', ['batch', 'rows', hidden]);
    /** 1 at the layer whose output an item perturbs */
    const at = graph.input('at', 'float32', [layers, 'batch', 1, 1]);
    const spread = (x: Tensor) => {
      const over = (values: Tensor) => f.divide(f.sum(values, [1, 2], true), count);
      const centred = f.multiply(f.subtract(x, over(f.multiply(x, rows))), rows);
      return f.sqrt(over(f.multiply(centred, centred)));
    };
    const embeddings = graph.input('embeddings', 'float32', [1, 'rows', hidden]);
    let x: Tensor = f.add(embeddings, f.multiply(noise, 0));
    for (let layer = 0; layer < layers; layer++) {
      const output = decoder.layer(x, layer, inputs, weight).hidden;
      const here = f.reshape(f.slice(at, 0, layer, layer + 1), ['batch', 1, 1]);
      const perturbed = f.add(output, f.multiply(f.multiply(noise, spread(output)), here));
      x = enter(perturbed, layer + 1, inputs);
    }
    const last = f.reshape(f.gather(x, graph.input('row', 'int64', [1]), 1), ['batch', hidden]);
    graph.output('logits', decoder.head(decoder.finalNorm(last, weight), weight));
    return new ModalityNoise(decoder, await Session.create(graph, decoder.session));
  }

  /**
   * Throws `invalid-input` for a prompt without a picture and for noise nobody can mean, `cancelled` between two runs.
   * @param most numbers the largest intermediate result may hold
   */
  async run(
    input: ModelInput,
    settings: ModalityNoiseSettings = modalityNoiseDefaults,
    signal?: AbortSignal,
    most = largestIntermediate,
  ): Promise<ModalityNoises> {
    const { level, draws, seed } = settings;
    const whole = (value: number, least: number) =>
      Number.isInteger(value) && value >= least && value <= 1000;
    if (!(Number.isFinite(level) && level > 0 && whole(draws, 1))) {
      throw new EmendError(
        'invalid-input',
        `Noise of level ${level} in ${draws} draws cannot be used: the level is above 0, draws are 1 to 1000.`,
      );
    }
    const { hidden, heads, layers } = this.#decoder;
    const of = modalityRows(input);
    const rowsOf: Record<Modality, readonly number[]> = { ...of, both: [...of.text, ...of.visual] };
    const unit = Array.from({ length: draws }, (_, draw) =>
      standardNormal(input.rows * hidden, seed * 1000 + draw),
    );
    const noises = modalities.flatMap((modality) =>
      unit.map((normal) => ({ modality, noise: scaledAt(normal, rowsOf[modality], hidden, level) })),
    );
    const items: Item[] = noises.flatMap((noise) =>
      Array.from({ length: layers }, (_, layer) => ({ ...noise, layer })),
    );
    const shared = {
      embeddings: input.embeddings,
      row: int64([input.lastPromptRow], [1]),
      ...attentionFeeds(this.#decoder, input.positions, 0, input.added),
    };
    const perItem = Math.max(4 * input.rows * hidden, heads * input.rows * input.rows);
    const together = Math.max(1, Math.floor(most / perItem));
    // The first item of all is the input as it is.
    const clean: Item = { modality: 'both', layer: -1, noise: noises[0]!.noise };
    const all = [clean, ...items];
    const logits: Float32Array[] = [];
    for (let from = 0; from < all.length; from += together) {
      if (signal?.aborted) throw new EmendError('cancelled', 'The measurement was stopped.');
      const batch = all.slice(from, from + together);
      const feeds = this.#feeds(batch, input.rows, rowsOf);
      const values = await floatsOf((await this.#session.run({ ...shared, ...feeds }))['logits']!);
      const { vocab } = this.#decoder;
      for (const [index] of batch.entries()) logits.push(values.slice(index * vocab, (index + 1) * vocab));
      // Lets messages in between two blocking runs.
      await new Promise((resolve) => setImmediate(resolve));
    }
    const result = Object.fromEntries(
      modalities.map((modality) => [modality, new Float32Array(layers)]),
    ) as Record<Modality, Float32Array>;
    const original = logProbabilities(logits[0]!);
    for (const [index, { modality, layer }] of items.entries())
      result[modality][layer]! += divergence(original, logProbabilities(logits[index + 1]!)) / draws;
    return result;
  }

  #feeds(batch: readonly Item[], rows: number, rowsOf: Record<Modality, readonly number[]>) {
    const { hidden, layers } = this.#decoder;
    const noise = new Float32Array(batch.length * rows * hidden);
    const perturbed = new Float32Array(batch.length * rows);
    const at = new Float32Array(layers * batch.length);
    for (const [index, item] of batch.entries()) {
      noise.set(item.noise, index * rows * hidden);
      for (const row of rowsOf[item.modality]) perturbed[index * rows + row] = 1;
      if (item.layer >= 0) at[item.layer * batch.length + index] = 1;
    }
    const count = Float32Array.from(batch, ({ modality }) => rowsOf[modality].length * hidden);
    return {
      noise: float32(noise, [batch.length, rows, hidden]),
      perturbed: float32(perturbed, [batch.length, rows, 1]),
      count: float32(count, [batch.length, 1, 1]),
      at: float32(at, [layers, batch.length, 1, 1]),
    };
  }

  async dispose(): Promise<void> {
    await this.#session.dispose();
  }
}

/** level · normal at some rows, 0 elsewhere. [rows, width] → the same. */
function scaledAt(normal: Float32Array, rows: readonly number[], width: number, level: number): Float32Array {
  const noise = new Float32Array(normal.length);
  for (const row of rows)
    for (let at = row * width; at < (row + 1) * width; at++) noise[at] = level * normal[at]!;
  return noise;
}

/** log softmax, in double precision. */
function logProbabilities(logits: Float32Array): Float64Array {
  let largest = Number.NEGATIVE_INFINITY;
  for (const value of logits) largest = Math.max(largest, value);
  let sum = 0;
  for (const value of logits) sum += Math.exp(value - largest);
  const scale = largest + Math.log(sum);
  return Float64Array.from(logits, (value) => value - scale);
}

/** KL(p ‖ q) in nats, from log probabilities. */
function divergence(p: Float64Array, q: Float64Array): number {
  let sum = 0;
  for (const [at, value] of p.entries()) sum += Math.exp(value) * (value - q[at]!);
  return Math.max(0, sum);
}
