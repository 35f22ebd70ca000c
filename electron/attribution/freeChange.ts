/**
 * @file How much a change of the visual rows can do at each layer: the change itself is optimised, freely, for one answer.
 * An adapter at a layer can do no better than that; where it cannot make the model say the target, no adapter will.
 */
import { EmendError } from '../errors.ts';
import { attentionFeeds, attentionInputs, enter } from '../models/decoder.ts';
import type { ModelInput } from '../models/visionLanguageModel.ts';
import * as f from '../tensor/functions.ts';
import { Graph, type Tensor } from '../tensor/graph.ts';
import { float32, floatsOf, int64 } from '../tensor/session.ts';
import { Adam, adamDefaults } from '../training/optimizer.ts';
import { Trainer } from '../training/trainer.ts';
import { type Decoder, LayerInputs, rowsOf } from './layerInputs.ts';

/** A question about a picture with the answer to reach: prompt and target laid out together. */
export interface FreeChangeCase {
  readonly input: ModelInput;
  /** ids that the rows from `input.lastPromptRow` on are to predict: the target, then the end token */
  readonly labels: readonly number[];
}

export interface FreeChangeResult {
  /** decoder layer whose output was changed, from 0 */
  readonly layer: number;
  /** −log p of the target, mean over its tokens, before and after */
  readonly before: number;
  readonly after: number;
  /** every label is the most likely one: greedy generation says the target */
  readonly reached: boolean;
  /** norm of the change over the norm of the rows it is added to */
  readonly length: number;
}

export interface FreeChangeOptions {
  /** steps of Adam */
  readonly steps: number;
  /** its rate, in units of the rows' root mean square at the layer */
  readonly rate: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (done: number, total: number) => void;
}

const input = 'hidden';

/** The decoder above a layer's output, differentiated by what is added to the visual rows there. */
async function compile(
  decoder: Decoder,
  layer: number,
  change: { readonly shape: readonly [number, number]; readonly data: Float32Array },
): Promise<Trainer> {
  const graph = new Graph();
  const weight = decoder.weightsOf(graph);
  const inputs = attentionInputs(graph, decoder, 1, 'rows', 'rows');
  const hidden = graph.input(input, 'float32', ['rows', decoder.hidden]);
  const visual = graph.input('visual', 'int64', [change.shape[0]]);
  // Pictures of fewer rows than the change has leave the rest of it unused.
  const used = graph.input('used', 'float32', [change.shape[0], 1]);
  const given = f.multiply(graph.input('change', 'float32', change.shape), used);
  const added = f.scatterRows(hidden, visual, given, 'add');
  let x: Tensor = f.reshape(added, [1, 'rows', decoder.hidden]);
  // `hidden` is what enters the layer above, so what the decoder adds between the two is in it.
  for (let above = layer + 1; above < decoder.layers; above++) {
    const entering = above > layer + 1 ? enter(x, above, inputs) : x;
    x = decoder.layer(entering, above, inputs, weight).hidden;
  }
  if (layer < decoder.layers - 2) x = enter(x, decoder.layers, inputs);
  const rows = f.gather(f.reshape(x, ['rows', decoder.hidden]), graph.input('picked', 'int64', ['labels']));
  const logits = decoder.head(decoder.finalNorm(rows, weight), weight);
  const labels = graph.input('labels', 'int64', ['labels']);
  const loss = f.mean(f.crossEntropy(logits, labels));
  const ofLabels = f.sum(f.multiply(logits, f.oneHot(labels, decoder.vocab)), [-1]);
  // 0 where every label is the most likely one, else negative
  const margin = f.sum(f.subtract(ofLabels, f.max(logits, [-1])));
  return Trainer.create(
    graph,
    loss,
    { margin },
    new Map([['change', change]]),
    adamDefaults(1),
    decoder.session,
  );
}

/**
 * Optimises a change for each case at each of `layers` (ascending, below the last: a change at its output reaches no other
 * row) and tells what it came to, case by case, layers within. Throws `cancelled`, and `invalid-input` for a case without a picture.
 */
export async function freelyChange(
  decoder: Decoder,
  layers: readonly number[],
  cases: readonly FreeChangeCase[],
  options: FreeChangeOptions,
): Promise<FreeChangeResult[]> {
  if (cases.length === 0 || cases.some((one) => !one.input.imageRows))
    throw new EmendError('invalid-input', 'Every case needs a picture.');
  const below = await LayerInputs.compile(
    decoder,
    layers.map((layer) => layer + 1),
  );
  try {
    const embedded = await Promise.all(
      cases.map(async ({ input }) => ({ ...input, hidden: await floatsOf(input.embeddings) })),
    );
    const states = await below.run(embedded);
    const count = Math.max(...cases.map(({ input }) => input.imageRows!.length));
    const change = {
      shape: [count, decoder.hidden] as const,
      data: new Float32Array(count * decoder.hidden),
    };
    const results: FreeChangeResult[] = [];
    for (const [place, layer] of layers.entries()) {
      const trainer = await compile(decoder, layer, change);
      try {
        for (const [index, one] of cases.entries()) {
          options.onProgress?.(results.length, layers.length * cases.length);
          if (options.signal?.aborted) throw new EmendError('cancelled', 'The measurement was stopped.');
          results.push({ layer, ...(await reach(trainer, change.data, states[index]![place]!, one)) });
        }
      } finally {
        await trainer.dispose();
      }
    }
    return results;
  } finally {
    await below.dispose();
  }

  async function reach(
    trainer: Trainer,
    values: Float32Array,
    hidden: Float32Array,
    { input: { rows, lastPromptRow, imageRows, positions, added }, labels }: FreeChangeCase,
  ): Promise<Omit<FreeChangeResult, 'layer'>> {
    const visual = imageRows!;
    const width = decoder.hidden;
    const count = values.length / width;
    const at = (from: number, length: number) => Array.from({ length }, (_, i) => from + i);
    const feeds = {
      ...attentionFeeds(decoder, positions, 0, added),
      [input]: float32(hidden, [rows, width]),
      visual: int64(
        Array.from({ length: count }, (_, i) => visual[i] ?? visual[0]!),
        [count],
      ),
      used: float32(
        Float32Array.from({ length: count }, (_, i) => (i < visual.length ? 1 : 0)),
        [count, 1],
      ),
      picked: int64(at(lastPromptRow, labels.length), [labels.length]),
      labels: int64(labels, [labels.length]),
    };
    const own = rowsOf(hidden, visual, width);
    const norm = (vector: Float32Array) => Math.sqrt(vector.reduce((sum, value) => sum + value * value, 0));
    const rate = (options.rate * norm(own)) / Math.sqrt(own.length);
    values.fill(0);
    const adam = new Adam(
      new Map([['change', { shape: [values.length], data: values }]]),
      adamDefaults(rate),
    );
    const before = (await trainer.evaluate(feeds)).loss;
    for (let step = 0; step < options.steps; step++) {
      const { gradients } = await trainer.evaluate(feeds);
      adam.update(gradients);
    }
    const { loss, terms } = await trainer.evaluate(feeds);
    return { before, after: loss, reached: terms['margin'] === 0, length: norm(values) / norm(own) };
  }
}
