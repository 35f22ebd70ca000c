/**
 * @file VisEdit's training through a backbone that is run one layer at a time: the same losses and gradients as in one graph, with one
 * layer's weights and inner values in memory instead of the decoder's. What lies below the adapter is computed once for each sequence
 * and kept on disk.
 */
import { createHash } from 'node:crypto';
import { FloatCache } from '../../files/floatCache.ts';
import { addedName } from '../../models/decoder.ts';
import { LayerwiseDecoder } from '../../models/layerwise.ts';
import type { VisionLanguageModel } from '../../models/visionLanguageModel.ts';
import { weightsAsInputs } from '../../models/weights.ts';
import * as f from '../../tensor/functions.ts';
import { gradients } from '../../tensor/gradients.ts';
import { Graph } from '../../tensor/graph.ts';
import { float32, floatsOf, release, Session, type Value } from '../../tensor/session.ts';
import type { Parameters } from '../../training/optimizer.ts';
import {
  type Evaluation,
  type Evaluator,
  gradientsIn,
  outputGradients,
  scalarOf,
} from '../../training/trainer.ts';
import type { AdapterWeights } from '../adapterFiles.ts';
import { answerTerms } from '../training/answerTerms.ts';
import type { BatchSizes, LaidBatch } from '../training/batch.ts';
import type { AdapterShape } from './adapterGraph.ts';
import { adaptedHidden, type LossWeights, weightedSum, withFixed } from './losses.ts';

type Feeds = Readonly<Record<string, Value>>;

/** Losses and gradients, layer by layer. */
export class LayerwiseLosses implements Evaluator {
  readonly provider: string;
  readonly #layers: LayerwiseDecoder;
  readonly #first: number;
  readonly #count: number;
  /** edit layer with the adapter's change; the terms above the decoder; the terms at the edit layer and the adapter's gradients */
  readonly #sessions: { readonly adapted: Session; readonly answers: Session; readonly adapter: Session };
  readonly #parameters: readonly string[];

  private constructor(parts: {
    layers: LayerwiseDecoder;
    first: number;
    count: number;
    sessions: { adapted: Session; answers: Session; adapter: Session };
    parameters: readonly string[];
  }) {
    this.#layers = parts.layers;
    this.#first = parts.first;
    this.#count = parts.count;
    this.#sessions = parts.sessions;
    this.#parameters = parts.parameters;
    this.provider = parts.sessions.answers.provider;
  }

  /** `fixed`: weights of the adapter that are not among the parameters */
  static async create(
    { decoder, weights: source }: VisionLanguageModel,
    editLayer: number,
    sizes: BatchSizes,
    shape: AdapterShape,
    parameters: Parameters,
    fixed: AdapterWeights,
    weights: LossWeights,
    scale: number,
  ): Promise<LayerwiseLosses> {
    const all = [3 * sizes.edits, sizes.rows, decoder.hidden];
    const shapes = new Map([...parameters].map(([name, value]) => [name, value.shape]));
    const bottom = (graph: Graph) => {
      const adapter = withFixed(graph, weightsAsInputs(graph, shapes), fixed);
      return adaptedHidden(graph, sizes, shape, decoder.hidden, adapter, scale);
    };

    const forward = new Graph();
    forward.output('adapted', bottom(forward).adapted);

    const top = new Graph();
    const x = top.input('top', 'float32', all);
    const terms = answerTerms(top, x, decoder, decoder.weightsOf(top));
    for (const [name, term] of Object.entries(terms)) top.output(`term.${name}`, term);
    const answers = weightedSum(terms, weights);
    if (answers) {
      top.output('loss', answers);
      top.output('gradient', gradients(answers, [x])[0]!);
    }

    const backward = new Graph();
    const { adapted, influence } = bottom(backward);
    const above = backward.input('above', 'float32', all);
    for (const [name, term] of Object.entries(influence)) backward.output(`term.${name}`, term);
    const own = weightedSum(influence, weights);
    if (own) backward.output('loss', own);
    // What the loss above gains by a change of the adapted rows, to first order: its gradient is the chain rule's.
    const through = f.sum(f.multiply(adapted, above));
    const inputs = new Map(backward.inputs.map((input) => [input.name, input]));
    const targets = [...parameters.keys()].map((name) => inputs.get(name)!);
    outputGradients(backward, own ? f.add(through, own) : through, targets);

    const made: Session[] = [];
    const compile = async (graph: Graph) => {
      made.push(await Session.create(graph, decoder.session));
      return made.at(-1)!;
    };
    try {
      return new LayerwiseLosses({
        layers: new LayerwiseDecoder(decoder, source),
        first: editLayer + 1,
        count: decoder.layers,
        sessions: {
          adapted: await compile(forward),
          answers: await compile(top),
          adapter: await compile(backward),
        },
        parameters: [...parameters.keys()],
      });
    } catch (error) {
      for (const session of made) await session.dispose();
      throw error;
    }
  }

  async evaluate(feeds: Feeds): Promise<Evaluation> {
    const layers = this.#layers;
    const { adapted, answers, adapter } = this.#sessions;
    const entering: Value[] = [];
    let x = (await adapted.run(feeds))['adapted']!;
    for (let layer = this.#first; layer < this.#count; layer++) {
      x = await layers.enter(x, layer, feeds);
      entering.push(x);
      x = await layers.forward(layer, x, feeds);
    }
    const top = await answers.run({ ...feeds, top: await layers.enter(x, this.#count, feeds) });
    release(x);
    let gradient = top['gradient'] ?? zerosLike(entering[0]!);
    for (let layer = this.#count - 1; layer >= this.#first; layer--) {
      const below = await layers.backward(layer, entering.at(-1)!, gradient, feeds);
      release(entering.pop()!);
      release(gradient);
      gradient = below;
    }
    const bottom = await adapter.run({ ...feeds, above: gradient });
    const terms: Record<string, number> = {};
    for (const out of [top, bottom])
      for (const name of Object.keys(out))
        if (name.startsWith('term.')) terms[name.slice('term.'.length)] = scalarOf(out, name);
    const loss = [top, bottom].reduce((sum, out) => sum + (out['loss'] ? scalarOf(out, 'loss') : 0), 0);
    return { loss, terms, gradients: gradientsIn(bottom, this.#parameters) };
  }

  async dispose(): Promise<void> {
    await this.#layers.dispose();
    for (const session of Object.values(this.#sessions)) await session.dispose();
  }
}

const zerosLike = ({ dims }: Value) => float32(new Float32Array(dims.reduce((a, b) => a * b, 1)), dims);

/** Bytes that kept sequences may take on the disk; beyond it they are computed again. */
const MOST_KEPT = 20e9;

/**
 * The frozen model on training batches as `FrozenModel` gives it, layer by layer. What a sequence is at the edit layer, and the unedited
 * logits of its kept rows, are read from `folder` where they were computed before.
 */
export class LayerwiseFrozen {
  readonly #model: VisionLanguageModel;
  readonly #layers: LayerwiseDecoder;
  readonly #head: Session;
  readonly #editLayer: number;
  readonly #entering: readonly number[];
  readonly #cache: FloatCache;
  /** of the model, the form of its weights and the edit layer */
  readonly #of: string;

  private constructor(parts: {
    model: VisionLanguageModel;
    head: Session;
    editLayer: number;
    entering: readonly number[];
    cache: FloatCache;
    of: string;
  }) {
    this.#model = parts.model;
    this.#layers = new LayerwiseDecoder(parts.model.decoder, parts.model.weights);
    this.#head = parts.head;
    this.#editLayer = parts.editLayer;
    this.#entering = parts.entering;
    this.#cache = parts.cache;
    this.#of = parts.of;
  }

  /** `entering` as in `FrozenModel`: with any, the decoder is run to the last of them whatever is kept. */
  static async create(
    model: VisionLanguageModel,
    modelFingerprint: string,
    editLayer: number,
    entering: readonly number[],
    folder: string,
  ): Promise<LayerwiseFrozen> {
    const cache = await FloatCache.open({ folder, limitBytes: MOST_KEPT });
    const { decoder } = model;
    const graph = new Graph();
    const weight = decoder.weightsOf(graph);
    const rows = graph.input('rows', 'float32', ['rows', decoder.hidden]);
    graph.output('logits', decoder.head(decoder.finalNorm(rows, weight), weight));
    const of = `${modelFingerprint} ${model.form} ${editLayer}`;
    const head = await Session.create(graph, decoder.session);
    return new LayerwiseFrozen({ model, head, editLayer, entering, cache, of });
  }

  async run(batch: LaidBatch): Promise<Record<string, Value>> {
    const { decoder } = this.#model;
    const { rows } = batch.sizes;
    const count = batch.sequences.length;
    const keptRows = Array.from(batch.feeds['picked_locality']!.data as BigInt64Array, Number);
    const asked = (sequence: number) =>
      keptRows.filter((row) => Math.floor(row / rows) === sequence).map((row) => row % rows);
    const found = await Promise.all(
      Array.from({ length: count }, (_, sequence) => this.#read(batch, sequence, asked(sequence))),
    );
    const missing = found.flatMap((known, sequence) => (known ? [] : [sequence]));
    const states = new Map<number, Value>();
    // What is computed anew, and everything where attribution reads the layers above.
    const running = this.#entering.length > 0 ? found.map((_, sequence) => sequence) : missing;
    if (running.length > 0) {
      const feeds = sequencesOf(batch.feeds, running);
      let x = feeds['embeddings']!;
      let hidden: Float32Array | null = null;
      for (let layer = 0; layer < decoder.layers; layer++) {
        x = await this.#layers.enter(x, layer, feeds);
        if (this.#entering.includes(layer)) states.set(layer, x);
        const next = await this.#layers.forward(layer, x, feeds);
        if (x !== feeds['embeddings'] && !states.has(layer)) release(x);
        x = next;
        if (layer === this.#editLayer) hidden = (await floatsOf(x)).slice();
      }
      const last = await floatsOf(await this.#layers.enter(x, decoder.layers, feeds));
      for (const [place, sequence] of running.entries()) {
        if (found[sequence]) continue;
        const part = rows * decoder.hidden;
        const own = last.subarray(place * part, (place + 1) * part);
        const logits = await this.#logits(own, asked(sequence));
        found[sequence] = { hidden: hidden!.slice(place * part, (place + 1) * part), logits };
        const { hidden: below, logits: before } = found[sequence];
        await this.#cache.keep(this.#nameOf(batch, sequence, asked(sequence)), [below, before]);
      }
    }
    const hidden = joined(found.map((each) => each!.hidden));
    const given: Record<string, Value> = { hidden: float32(hidden, [count, rows, decoder.hidden]) };
    const before = new Float32Array(keptRows.length * decoder.vocab);
    const taken = new Array<number>(count).fill(0);
    for (const [at, row] of keptRows.entries()) {
      const sequence = Math.floor(row / rows);
      const from = taken[sequence]!++ * decoder.vocab;
      before.set(found[sequence]!.logits.subarray(from, from + decoder.vocab), at * decoder.vocab);
    }
    given['before'] = float32(before, [keptRows.length, decoder.vocab]);
    for (const [layer, value] of states) given[`entering.${layer}`] = value;
    return given;
  }

  /** Logits of some rows of one sequence [asked, vocabulary]. */
  async #logits(hidden: Float32Array, asked: readonly number[]): Promise<Float32Array> {
    if (asked.length === 0) return new Float32Array(0);
    const width = this.#model.decoder.hidden;
    const chosen = joined(asked.map((row) => hidden.subarray(row * width, (row + 1) * width)));
    const { logits } = await this.#head.run({ rows: float32(chosen, [asked.length, width]) });
    return floatsOf(logits!);
  }

  #nameOf(batch: LaidBatch, sequence: number, asked: readonly number[]): string {
    const hash = createHash('sha256').update(`${this.#of} ${asked.join()}`);
    const own = sequencesOf(batch.feeds, [sequence]);
    for (const name of Object.keys(own).toSorted()) {
      const { data } = own[name]!;
      const { buffer, byteOffset, byteLength } = data as Float32Array;
      hash.update(`${name} ${byteLength} `).update(new Uint8Array(buffer, byteOffset, byteLength));
    }
    return hash.digest('hex');
  }

  async #read(batch: LaidBatch, sequence: number, asked: readonly number[]): Promise<Kept | null> {
    const { hidden, vocab } = this.#model.decoder;
    const below = batch.sizes.rows * hidden;
    const name = this.#nameOf(batch, sequence, asked);
    const found = await this.#cache.read(name, below + asked.length * vocab);
    return found && { hidden: found.subarray(0, below), logits: found.subarray(below) };
  }

  async dispose(): Promise<void> {
    await this.#layers.dispose();
    await this.#head.dispose();
  }
}

interface Kept {
  /** output of the edit layer [rows, hidden] */
  readonly hidden: Float32Array;
  /** [rows asked for, vocabulary] */
  readonly logits: Float32Array;
}

function joined(parts: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** What the decoder is fed, of some sequences of a batch only. */
function sequencesOf(feeds: Feeds, chosen: readonly number[]): Record<string, Value> {
  const found: Record<string, Value> = {};
  for (const [name, value] of Object.entries(feeds)) {
    const isDecoders =
      ['embeddings', 'mask', 'cosine', 'sine'].includes(name) || name.startsWith(addedName(0).slice(0, -1));
    if (!isDecoders) continue;
    const data = value.data as Float32Array;
    const each = data.length / value.dims[0]!;
    const part = joined(chosen.map((sequence) => data.subarray(sequence * each, (sequence + 1) * each)));
    found[name] = float32(part, [chosen.length, ...value.dims.slice(1)]);
  }
  return found;
}
