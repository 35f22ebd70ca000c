/**
 * @file How much the last prompt token attends to rows of text and to rows of the picture, by layer (DualEdit Figure 1).
 */
import { EmendError } from '../errors.ts';
import { attentionFeeds, attentionInputs, enter } from '../models/decoder.ts';
import type { ModelInput } from '../models/visionLanguageModel.ts';
import * as f from '../tensor/functions.ts';
import { Graph, type Tensor } from '../tensor/graph.ts';
import { floatsOf, int64, Session } from '../tensor/session.ts';
import type { Decoder } from './layerInputs.ts';

/** Attention weights of the last prompt row, mean over heads, by layer. Each array [layers]; weights of a layer sum to 1. */
export interface ModalityAttentions {
  /** mean over the rows of text, and over those of the picture */
  readonly text: Float32Array;
  readonly visual: Float32Array;
  /** mean of the three visual rows that get most (the figure's dashed line) */
  readonly topVisual: Float32Array;
  /** sum over the picture's rows */
  readonly visualShare: Float32Array;
  /** sum over the rows of the question: behind the picture, before the last prompt token */
  readonly questionShare: Float32Array;
}

/** Rows of text that the last prompt token reads, itself included, and those of the picture. */
export function modalityRows({ lastPromptRow, imageRows }: ModelInput): { text: number[]; visual: number[] } {
  if (!imageRows)
    throw new EmendError('invalid-input', 'Modalities are compared on a prompt with a picture. Give one.');
  const visual = new Set(imageRows);
  const text = Array.from({ length: lastPromptRow + 1 }, (_, row) => row).filter((row) => !visual.has(row));
  return { text, visual: [...imageRows] };
}

export class ModalityAttention {
  readonly #decoder: Decoder;
  readonly #session: Session;

  private constructor(decoder: Decoder, session: Session) {
    this.#decoder = decoder;
    this.#session = session;
  }

  static async compile(decoder: Decoder): Promise<ModalityAttention> {
    const { layers, hidden, heads, keyValueHeads, headDim } = decoder;
    const graph = new Graph();
    const weight = decoder.weightsOf(graph);
    const inputs = attentionInputs(graph, decoder, 1, 'rows', 'rows');
    const row = graph.input('row', 'int64', [1]);
    const { cosine, sine } = inputs;
    const ofRow = cosine && sine ? { cosine: f.gather(cosine, row, 2), sine: f.gather(sine, row, 2) } : {};
    const mask = f.reshape(f.gather(inputs.mask, row, 2), [1, 1, 1, 'rows']);
    let x: Tensor = graph.input('embeddings', 'float32', [1, 'rows', hidden]);
    for (let layer = 0; layer < layers; layer++) {
      const parts = decoder.attention(layer, weight);
      const normed = parts.norm(x);
      const query = f.reshape(parts.query(f.gather(normed, row, 1), ofRow), [
        ...[1, keyValueHeads, heads / keyValueHeads, headDim],
      ]);
      const key = parts.key(normed, cosine && sine ? { cosine, sine } : {});
      const scores = f.multiply(f.matmul(query, key, { b: true }), 1 / Math.sqrt(headDim));
      graph.output(`weights.${layer}`, f.mean(f.softmax(f.add(scores, mask)), [0, 1, 2]));
      if (layer < layers - 1) x = enter(decoder.layer(x, layer, inputs, weight).hidden, layer + 1, inputs);
    }
    return new ModalityAttention(decoder, await Session.create(graph, decoder.session));
  }

  /** Throws `invalid-input` for a prompt without a picture. */
  async run(input: ModelInput): Promise<ModalityAttentions> {
    const { text, visual } = modalityRows(input);
    const question = text.filter((row) => row > visual.at(-1)! && row < input.lastPromptRow);
    const out = await this.#session.run({
      embeddings: input.embeddings,
      row: int64([input.lastPromptRow], [1]),
      ...attentionFeeds(this.#decoder, input.positions, 0, input.added),
    });
    const { layers } = this.#decoder;
    const result: ModalityAttentions = {
      text: new Float32Array(layers),
      visual: new Float32Array(layers),
      topVisual: new Float32Array(layers),
      visualShare: new Float32Array(layers),
      questionShare: new Float32Array(layers),
    };
    for (let layer = 0; layer < layers; layer++) {
      const weights = await floatsOf(out[`weights.${layer}`]!);
      const sum = (rows: readonly number[]) => rows.reduce((total, at) => total + weights[at]!, 0);
      const top = visual.toSorted((a, b) => weights[b]! - weights[a]!).slice(0, 3);
      result.text[layer] = sum(text) / text.length;
      result.visual[layer] = sum(visual) / visual.length;
      result.topVisual[layer] = sum(top) / top.length;
      result.visualShare[layer] = sum(visual);
      result.questionShare[layer] = sum(question);
    }
    return result;
  }

  async dispose(): Promise<void> {
    await this.#session.dispose();
  }
}
