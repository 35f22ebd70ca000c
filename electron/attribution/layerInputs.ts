/**
 * @file The hidden states that enter chosen decoder layers, for several inputs at once: what visual attribution reads.
 */
import { EmendError } from '../errors.ts';
import {
  addedName,
  attentionInputs,
  type DecoderSizes,
  enter,
  type RunnableDecoder,
} from '../models/decoder.ts';
import { causalMask, consecutive, type Positions } from '../models/positions.ts';
import type { ModelInput, VisionLanguageModel } from '../models/visionLanguageModel.ts';
import { Graph, type Tensor } from '../tensor/graph.ts';
import { float32, floatsOf, Session, type Value } from '../tensor/session.ts';

/** A decoder to attribute in: its weights, and where its graphs run. */
export type Decoder = RunnableDecoder;

/** The decoder of an opened model, on the provider the model runs on. */
export function decoderOf(model: VisionLanguageModel): Decoder {
  return model.decoder;
}

/** Rows of one sequence as they enter a layer. */
export interface EnteringRows {
  /** [rows, hidden] */
  readonly hidden: Float32Array;
  /** of the rows, as `ModelInput` has them; absent: 0, 1, 2, … */
  readonly positions?: Positions;
  /** what is added to them above, as `ModelInput` has it */
  readonly added?: readonly Float32Array[];
}

/** Throws `invalid-input` unless `layers` are distinct, ascending layers of the decoder, none below `first`. */
export function checkLayers(layers: readonly number[], decoder: DecoderSizes, first = 0): void {
  const fits = layers.every(
    (layer, index) => Number.isInteger(layer) && layer > (layers[index - 1] ?? first - 1),
  );
  if (layers.length > 0 && fits && layers[layers.length - 1]! < decoder.layers) return;
  throw new EmendError(
    'invalid-input',
    `Layers [${layers.join(', ')}] cannot be attributed: give layers ${first} to ${decoder.layers - 1}, ascending.`,
  );
}

/** Chosen rows of hidden states [rows, width], in their order → [chosen, width]. */
export function rowsOf(hidden: Float32Array, rows: readonly number[], width: number): Float32Array {
  const chosen = new Float32Array(rows.length * width);
  for (const [index, row] of rows.entries())
    chosen.set(hidden.subarray(row * width, (row + 1) * width), index * width);
  return chosen;
}

/**
 * Rows of an input's text: behind the picture, or behind the first token where there is none, up to the last prompt token, exclusive. They are
 * what DualEdit's text adapter changes.
 */
export function textRows({
  imageRows,
  lastPromptRow,
}: Pick<ModelInput, 'imageRows' | 'lastPromptRow'>): number[] {
  const begin = imageRows ? imageRows.at(-1)! + 1 : 1;
  return Array.from({ length: Math.max(0, lastPromptRow - begin) }, (_, row) => begin + row);
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

/**
 * Feeds of `attentionInputs` for sequences laid under one another by `padRows`: each with tables of its own, one causal mask.
 * Padding lies behind the rows, where causal attention does not look.
 */
function batchFeeds(decoder: Decoder, inputs: readonly EnteringRows[], rows: number): Record<string, Value> {
  const batch = inputs.length;
  const { headDim, hidden } = decoder;
  const feeds: Record<string, Value> = {
    mask: float32(repeated(causalMask(rows, 0, decoder.slidingWindow), batch), [batch, 1, rows, rows]),
  };
  if (decoder.rotates) {
    const tables = rotaryTablesOf(decoder, inputs, rows);
    feeds['cosine'] = float32(tables.cosine, [batch, 1, rows, headDim]);
    feeds['sine'] = float32(tables.sine, [batch, 1, rows, headDim]);
  }
  for (let layer = 0; layer < decoder.addedLayers; layer++) {
    const data = new Float32Array(batch * rows * hidden);
    for (const [index, { added }] of inputs.entries()) {
      const values = added?.[layer];
      if (values) data.set(values, index * rows * hidden);
    }
    feeds[addedName(layer)] = float32(data, [batch, rows, hidden]);
  }
  return feeds;
}

function repeated(values: Float32Array, times: number): Float32Array {
  const all = new Float32Array(values.length * times);
  for (let i = 0; i < times; i++) all.set(values, i * values.length);
  return all;
}

/** cos and sin of padded sequences [batch, rows, head size]; padding has those of position 0. */
export function rotaryTablesOf(
  decoder: Decoder,
  inputs: ReadonlyArray<{ readonly positions?: Positions | undefined }>,
  rows: number,
): { cosine: Float32Array; sine: Float32Array } {
  const cosine = new Float32Array(inputs.length * rows * decoder.headDim);
  const sine = new Float32Array(cosine.length);
  for (const [index, { positions }] of inputs.entries()) {
    const tables = decoder.tables(positions ?? consecutive(rows, 0, decoder.axes));
    if (!tables) throw new EmendError('internal', 'The decoder does not rotate.');
    const at = index * rows * decoder.headDim;
    cosine.set(tables.cosine.subarray(0, rows * decoder.headDim), at);
    sine.set(tables.sine.subarray(0, rows * decoder.headDim), at);
  }
  return { cosine, sine };
}

/** The part of a decoder below the highest chosen layer, compiled once. */
export class LayerInputs {
  readonly layers: readonly number[];
  readonly #decoder: Decoder;
  /** absent when the only chosen layer is the one whose input is given */
  readonly #session: Session | null;

  private constructor(layers: readonly number[], decoder: Decoder, session: Session | null) {
    this.layers = layers;
    this.#decoder = decoder;
    this.#session = session;
  }

  /**
   * `layers`: ascending. `first`: the layer whose entering rows are given at each run; 0 for a model's embeddings.
   * Throws `invalid-input` for layers the decoder does not have.
   */
  static async compile(decoder: Decoder, layers: readonly number[], first = 0): Promise<LayerInputs> {
    checkLayers(layers, decoder, first);
    const last = layers[layers.length - 1]!;
    if (last === first) return new LayerInputs(layers, decoder, null);
    const graph = new Graph();
    const weight = decoder.weightsOf(graph);
    const inputs = attentionInputs(graph, decoder, 'batch', 'rows', 'rows');
    let x: Tensor = graph.input('hidden', 'float32', ['batch', 'rows', decoder.hidden]);
    for (let layer = first; layer < last; layer++) {
      x = enter(decoder.layer(x, layer, inputs, weight).hidden, layer + 1, inputs);
      if (layers.includes(layer + 1)) graph.output(`hidden.${layer + 1}`, x);
    }
    return new LayerInputs(layers, decoder, await Session.create(graph, decoder.session));
  }

  /**
   * Inputs of layer `first`, of any lengths → for each of them, in the order of `layers`, the hidden states that enter the layer
   * [rows, hidden].
   */
  async run(inputs: readonly EnteringRows[]): Promise<Float32Array[][]> {
    if (inputs.length === 0) return [];
    const { hidden } = this.#decoder;
    const padded = padRows(
      inputs.map((input) => input.hidden),
      hidden,
    );
    const feeds = { hidden: padded.value, ...batchFeeds(this.#decoder, inputs, padded.rows) };
    const out = this.#session ? await this.#session.run(feeds) : {};
    const results: Float32Array[][] = inputs.map(() => []);
    for (const layer of this.layers) {
      const all = await floatsOf(out[`hidden.${layer}`] ?? padded.value);
      for (const [index, input] of inputs.entries()) {
        const start = index * padded.rows * hidden;
        results[index]!.push(all.slice(start, start + input.hidden.length));
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
    checkLayers(layers, decoder);
    const graph = new Graph();
    const weight = decoder.weightsOf(graph);
    for (const layer of layers) {
      const x = graph.input(`hidden.${layer}`, 'float32', ['rows', decoder.hidden]);
      graph.output(`normed.${layer}`, decoder.attention(layer, weight).norm(x));
    }
    return new AttentionNorms(layers, decoder.hidden, await Session.create(graph, decoder.session));
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
