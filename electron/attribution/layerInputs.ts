/**
 * @file The hidden states that enter chosen decoder layers, for several inputs at once: what visual attribution reads.
 */
import { EmendError } from '../errors.ts';
import type { TextConfig } from '../models/config.ts';
import { decoderLayer } from '../models/decoder.ts';
import { positionFeeds, positionInputs } from '../models/decoderSegment.ts';
import type { VisionLanguageModel } from '../models/visionLanguageModel.ts';
import { type WeightOf, weightsInFiles } from '../models/weights.ts';
import * as f from '../tensor/functions.ts';
import { Graph, type Tensor } from '../tensor/graph.ts';
import { float32, floatsOf, Session, type SessionOptions, type Value } from '../tensor/session.ts';

/** A decoder to attribute in: its configuration, its weights, and where its graphs run. */
export interface Decoder {
  readonly config: TextConfig;
  readonly weightsOf: (graph: Graph) => WeightOf;
  readonly session: SessionOptions;
}

/** The decoder of an opened model, on the provider the model runs on. */
export function decoderOf(model: VisionLanguageModel): Decoder {
  const { checkpoint, provider } = model;
  return {
    config: checkpoint.config.text,
    weightsOf: (graph) => weightsInFiles(graph, checkpoint.weights),
    session: { providers: [provider] },
  };
}

/** Throws `invalid-input` unless `layers` are distinct, ascending layers of the decoder, none below `first`. */
export function checkLayers(layers: readonly number[], config: TextConfig, first = 0): void {
  const fits = layers.every(
    (layer, index) => Number.isInteger(layer) && layer > (layers[index - 1] ?? first - 1),
  );
  if (layers.length > 0 && fits && layers[layers.length - 1]! < config.layers) return;
  throw new EmendError(
    'invalid-input',
    `Layers [${layers.join(', ')}] cannot be attributed: give layers ${first} to ${config.layers - 1}, ascending.`,
  );
}

/** Lays rows of several inputs [rows, hidden] under one another, padded with zeros behind: [batch, longest, hidden]. */
export function padRows(inputs: readonly Float32Array[], hidden: number): { value: Value; rows: number } {
  const stray = inputs.find((input) => input.length === 0 || input.length % hidden !== 0);
  if (stray) throw new EmendError('internal', `${stray.length} numbers are not rows of ${hidden}.`);
  const rows = Math.max(...inputs.map((input) => input.length / hidden));
  const data = new Float32Array(inputs.length * rows * hidden);
  for (const [index, input] of inputs.entries()) data.set(input, index * rows * hidden);
  return { value: float32(data, [inputs.length, rows, hidden]), rows };
}

/** The part of a decoder below the highest chosen layer, compiled once. */
export class LayerInputs {
  readonly layers: readonly number[];
  readonly #config: TextConfig;
  /** absent when the only chosen layer is the one whose input is given */
  readonly #session: Session | null;

  private constructor(layers: readonly number[], config: TextConfig, session: Session | null) {
    this.layers = layers;
    this.#config = config;
    this.#session = session;
  }

  /**
   * `layers`: ascending. `first`: the layer whose input is given at each run; 0 for a model's embeddings, l + 1 for rows
   * an editor changed at the output of layer l. Throws `invalid-input` for layers the decoder does not have.
   */
  static async compile(decoder: Decoder, layers: readonly number[], first = 0): Promise<LayerInputs> {
    const { config } = decoder;
    checkLayers(layers, config, first);
    const last = layers[layers.length - 1]!;
    if (last === first) return new LayerInputs(layers, config, null);
    const graph = new Graph();
    const weight = decoder.weightsOf(graph);
    const positions = positionInputs(graph, config, 'rows', 'rows');
    let x: Tensor = graph.input('hidden', 'float32', ['batch', 'rows', config.hidden]);
    for (let layer = first; layer < last; layer++) {
      x = decoderLayer(x, layer, positions, config, weight).hidden;
      if (layers.includes(layer + 1)) graph.output(`hidden.${layer + 1}`, x);
    }
    return new LayerInputs(layers, config, await Session.create(graph, decoder.session));
  }

  /**
   * Inputs of layer `first` [rows, hidden], of any lengths → for each of them, in the order of `layers`, the hidden states
   * that enter the layer [rows, hidden]. Padding lies behind the rows, where causal attention does not look.
   */
  async run(inputs: readonly Float32Array[]): Promise<Float32Array[][]> {
    if (inputs.length === 0) return [];
    const { hidden } = this.#config;
    const padded = padRows(inputs, hidden);
    const out = this.#session
      ? await this.#session.run({ hidden: padded.value, ...positionFeeds(this.#config, padded.rows, 0) })
      : {};
    const results: Float32Array[][] = inputs.map(() => []);
    for (const layer of this.layers) {
      const all = await floatsOf(out[`hidden.${layer}`] ?? padded.value);
      for (const [index, input] of inputs.entries()) {
        const start = index * padded.rows * hidden;
        results[index]!.push(all.slice(start, start + input.length));
      }
    }
    return results;
  }

  async dispose(): Promise<void> {
    await this.#session?.dispose();
  }
}

/** The norms before the attention of chosen layers, compiled once: hidden states entering a layer → the input of its attention. */
export class AttentionNorms {
  readonly layers: readonly number[];
  readonly #hidden: number;
  readonly #session: Session;

  private constructor(layers: readonly number[], hidden: number, session: Session) {
    this.layers = layers;
    this.#hidden = hidden;
    this.#session = session;
  }

  static async compile(decoder: Decoder, layers: readonly number[]): Promise<AttentionNorms> {
    const { config } = decoder;
    checkLayers(layers, config);
    const graph = new Graph();
    const weight = decoder.weightsOf(graph);
    for (const layer of layers) {
      const x = graph.input(`hidden.${layer}`, 'float32', ['rows', config.hidden]);
      const scale = weight(`language_model.model.layers.${layer}.input_layernorm.weight`);
      graph.output(`normed.${layer}`, f.rmsNorm(x, scale, config.rmsNormEps));
    }
    return new AttentionNorms(layers, config.hidden, await Session.create(graph, decoder.session));
  }

  /** hidden: for each layer [rows, hidden] → the same, normed. */
  async run(hidden: readonly Float32Array[]): Promise<Float32Array[]> {
    const feeds: Record<string, Value> = {};
    for (const [index, layer] of this.layers.entries()) {
      const states = hidden[index]!;
      feeds[`hidden.${layer}`] = float32(states, [states.length / this.#hidden, this.#hidden]);
    }
    const out = await this.#session.run(feeds);
    return Promise.all(this.layers.map((layer) => floatsOf(out[`normed.${layer}`]!)));
  }

  async dispose(): Promise<void> {
    await this.#session.dispose();
  }
}
