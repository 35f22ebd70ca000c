/**
 * @file Module contribution (VisEdit eqs. 1–5): what the attention and the MLP of each layer add to the prediction of the
 * key token.
 */
import { EmendError } from '../errors.ts';
import { attentionFeeds, attentionInputs, enter } from '../models/decoder.ts';
import type { ModelInput } from '../models/visionLanguageModel.ts';
import * as f from '../tensor/functions.ts';
import { Graph, type Tensor } from '../tensor/graph.ts';
import { floatsOf, int64, Session } from '../tensor/session.ts';
import type { Decoder } from './layerInputs.ts';

/** `code`: module outputs pass the final norm before the head, as in the published code; `paper`: they do not (eq. 2). */
export type ModuleContributionVariant = 'code' | 'paper';

/** A token of the vocabulary, or the one the model predicts next itself. */
export type KeyToken = number | 'predicted';

/** How one kind of module output speaks for the key token, by layer. */
export interface Contribution {
  /** logit of the key token, (r W)_o [layers] */
  readonly logit: Float32Array;
  /** probability of the key token, eq. 4 [layers] */
  readonly probability: Float32Array;
  /** eq. 3 with the logit's sign outside the root: sign(v)·√(|v| / max|v| · p) [layers] */
  readonly contribution: Float32Array;
}

export interface ModuleContributions {
  /** the token attributed to */
  readonly keyToken: number;
  readonly attention: Contribution;
  readonly mlp: Contribution;
  /** of the layer's output, all that was added so far; on the scale of the other two, so it may pass 1 */
  readonly layer: Contribution;
  /** largest |logit| over attention and MLP outputs of all layers (eq. 5's denominator) */
  readonly largestLogit: number;
}

/** Mean contributions over prompts, by layer: the bars of Figure 1. Each array [layers]. */
export interface MeanContributions {
  readonly prompts: number;
  readonly attention: Float32Array;
  readonly mlp: Float32Array;
  readonly layer: Float32Array;
}

const kinds = ['attention', 'mlp', 'layer'] as const;

/** The decoder with every module output of the last prompt row mapped to the vocabulary, compiled once for many prompts. */
export class ModuleAttribution {
  readonly variant: ModuleContributionVariant;
  readonly #decoder: Decoder;
  readonly #session: Session;

  private constructor(variant: ModuleContributionVariant, decoder: Decoder, session: Session) {
    this.variant = variant;
    this.#decoder = decoder;
    this.#session = session;
  }

  static async compile(
    decoder: Decoder,
    variant: ModuleContributionVariant = 'code',
  ): Promise<ModuleAttribution> {
    const graph = new Graph();
    const weight = decoder.weightsOf(graph);
    const inputs = attentionInputs(graph, decoder, 1, 'rows', 'rows');
    const row = graph.input('row', 'int64', [1]);
    const atRow = (x: Tensor) => f.gather(f.reshape(x, ['rows', decoder.hidden]), row);
    let x: Tensor = graph.input('embeddings', 'float32', [1, 'rows', decoder.hidden]);
    const outputs: Record<(typeof kinds)[number], Tensor[]> = { attention: [], mlp: [], layer: [] };
    for (let layer = 0; layer < decoder.layers; layer++) {
      const result = decoder.layer(x, layer, inputs, weight);
      x = enter(result.hidden, layer + 1, inputs);
      outputs.attention.push(atRow(result.attention));
      outputs.mlp.push(atRow(result.mlp));
      outputs.layer.push(atRow(x));
    }
    const modules = f.concat(
      kinds.flatMap((kind) => outputs[kind]),
      0,
    );
    const read = variant === 'code' ? decoder.finalNorm(modules, weight) : modules;
    graph.output('modules', decoder.head(read, weight));
    graph.output('prediction', decoder.head(decoder.finalNorm(atRow(x), weight), weight));
    return new ModuleAttribution(variant, decoder, await Session.create(graph, decoder.session));
  }

  /**
   * Contributions at the last prompt row to each of `keyTokens`, in their order, from one run of the decoder.
   * Throws `invalid-input` for a key token outside the vocabulary.
   */
  async run(
    input: ModelInput,
    keyTokens: readonly KeyToken[] = ['predicted'],
  ): Promise<ModuleContributions[]> {
    const { vocab } = this.#decoder;
    const fits = (token: KeyToken) =>
      token === 'predicted' || (Number.isInteger(token) && token >= 0 && token < vocab);
    const stray = keyTokens.find((token) => !fits(token));
    if (stray !== undefined) {
      throw new EmendError('invalid-input', `Key token ${stray} is not one of the model's ${vocab} tokens.`);
    }
    const out = await this.#session.run({
      embeddings: input.embeddings,
      row: int64([input.lastPromptRow], [1]),
      ...attentionFeeds(this.#decoder, input.positions, 0, input.added),
    });
    const logits = await floatsOf(out.modules!);
    const predicted = indexOfLargest(await floatsOf(out.prediction!));
    return keyTokens.map((token) => this.#contributionsTo(token === 'predicted' ? predicted : token, logits));
  }

  /** logits: of every module output [3 · layers, vocabulary], kinds one behind the other. */
  #contributionsTo(key: number, logits: Float32Array): ModuleContributions {
    const { vocab, layers } = this.#decoder;
    const logitOf = (index: number) => logits[index * vocab + key]!;
    let largestLogit = 0;
    for (let index = 0; index < 2 * layers; index++)
      largestLogit = Math.max(largestLogit, Math.abs(logitOf(index)));

    const contributionsOf = (kind: number): Contribution => {
      const logit = Float32Array.from({ length: layers }, (_, layer) => logitOf(kind * layers + layer));
      const probability = Float32Array.from({ length: layers }, (_, layer) => {
        const start = (kind * layers + layer) * vocab;
        return probabilityOf(logits.subarray(start, start + vocab), key);
      });
      // All logits are zero only when every module adds nothing: then nothing contributes.
      const scale = largestLogit || 1;
      const contribution = logit.map(
        (value, layer) => Math.sign(value) * Math.sqrt((Math.abs(value) / scale) * probability[layer]!),
      );
      return { logit, probability, contribution };
    };
    return {
      keyToken: key,
      attention: contributionsOf(0),
      mlp: contributionsOf(1),
      layer: contributionsOf(2),
      largestLogit,
    };
  }

  async dispose(): Promise<void> {
    await this.#session.dispose();
  }
}

/** Mean over prompts, layer by layer. Throws `invalid-input` without any prompt. */
export function meanContributions(
  results: ReadonlyArray<Pick<ModuleContributions, (typeof kinds)[number]>>,
): MeanContributions {
  const first = results[0];
  if (!first)
    throw new EmendError('invalid-input', 'Give at least one prompt to average contributions over.');
  const mean = (kind: (typeof kinds)[number]) =>
    first[kind].contribution.map(
      (_, layer) =>
        results.reduce((sum, result) => sum + result[kind].contribution[layer]!, 0) / results.length,
    );
  return { prompts: results.length, attention: mean('attention'), mlp: mean('mlp'), layer: mean('layer') };
}

function indexOfLargest(values: Float32Array): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i;
  return best;
}

/** softmax(logits)[index], summed in double precision. */
function probabilityOf(logits: Float32Array, index: number): number {
  let largest = Number.NEGATIVE_INFINITY;
  for (const value of logits) largest = Math.max(largest, value);
  let sum = 0;
  for (const value of logits) sum += Math.exp(value - largest);
  return Math.exp(logits[index]! - largest) / sum;
}
