/**
 * @file Consecutive decoder layers compiled as one session, with their part of the KV cache. A decoder is cut into
 * segments where editors act, so that what lies below a cut runs once for the answers before and after an edit.
 */

import * as f from '../tensor/functions.ts';
import type { Graph, Tensor } from '../tensor/graph.ts';
import { Graph as NewGraph } from '../tensor/graph.ts';
import { float32, int64, release, Session, type SessionOptions, type Value } from '../tensor/session.ts';
import { attentionInputs, type Decoder, enter } from './decoder.ts';
import type { Weights } from './weights.ts';

/** Keys and values of the rows a segment has seen, by layer. Values are never changed in place: a cache can be shared. */
export interface Cache {
  /** rows held */
  readonly length: number;
  /** position of the row behind them; with positions of three axes not the number of rows */
  readonly nextPosition: number;
  readonly values: Readonly<Record<string, Value>>;
}

/** Lets go of caches that nothing else reads. */
export function releaseCaches(caches: readonly Cache[]): void {
  for (const { values } of caches) for (const value of Object.values(values)) release(value);
}

export interface SegmentResult {
  /** output of the segment's last layer [1, rows, hidden]; null from the segment that ends in the head */
  readonly hidden: Value | null;
  /** logits of the rows asked for [asked, vocabulary]; null from segments below the head */
  readonly logits: Value | null;
  readonly cache: Cache;
}

export class DecoderSegment {
  /** layers of the segment: first..last, both included */
  readonly first: number;
  readonly last: number;
  readonly session: Session;
  readonly #decoder: Decoder;

  private constructor(first: number, last: number, session: Session, decoder: Decoder) {
    this.first = first;
    this.last = last;
    this.session = session;
    this.#decoder = decoder;
  }

  static async compile(
    first: number,
    last: number,
    decoder: Decoder,
    weightsOf: (graph: Graph) => Weights,
    options: SessionOptions,
  ): Promise<DecoderSegment> {
    const graph = new NewGraph();
    const weight = weightsOf(graph);
    const inputs = attentionInputs(graph, decoder, 1, 'rows', 'past+rows');
    let x: Tensor = graph.input('hidden', 'float32', [1, 'rows', decoder.hidden]);
    for (let layer = first; layer <= last; layer++) {
      const held = [1, decoder.keyValueHeads, 'past', decoder.headDim];
      const past = {
        key: graph.input(`past_key.${layer}`, 'float32', held),
        value: graph.input(`past_value.${layer}`, 'float32', held),
      };
      const result = decoder.layer(enter(x, layer, inputs), layer, inputs, weight, past);
      graph.output(`key.${layer}`, result.key);
      graph.output(`value.${layer}`, result.value);
      x = result.hidden;
    }
    if (last === decoder.layers - 1) {
      const asked = graph.input('asked', 'int64', ['asked']);
      const top = enter(x, decoder.layers, inputs);
      const rows = f.gather(f.reshape(top, ['rows', decoder.hidden]), asked);
      graph.output('logits', decoder.head(decoder.finalNorm(rows, weight), weight));
    } else graph.output('hidden_out', x);
    return new DecoderSegment(first, last, await Session.create(graph, options), decoder);
  }

  emptyCache(): Cache {
    const { keyValueHeads, headDim } = this.#decoder;
    const values: Record<string, Value> = {};
    for (let layer = this.first; layer <= this.last; layer++) {
      values[`past_key.${layer}`] = float32(new Float32Array(0), [1, keyValueHeads, 0, headDim]);
      values[`past_value.${layer}`] = float32(new Float32Array(0), [1, keyValueHeads, 0, headDim]);
    }
    return { length: 0, nextPosition: 0, values };
  }

  /**
   * Runs new rows behind those in the cache.
   * hidden [1, rows, hidden]; `shared` from `attentionFeeds`; `asked`: rows (of the new ones) whose logits are wanted;
   * `nextPosition`: of the row behind them.
   */
  async run(
    hidden: Value,
    shared: Readonly<Record<string, Value>>,
    cache: Cache,
    asked: readonly number[],
    nextPosition: number,
  ): Promise<SegmentResult> {
    const out = await this.session.run({
      hidden,
      ...shared,
      ...cache.values,
      asked: int64(asked, [asked.length]),
    });
    const values: Record<string, Value> = {};
    for (let layer = this.first; layer <= this.last; layer++) {
      values[`past_key.${layer}`] = out[`key.${layer}`]!;
      values[`past_value.${layer}`] = out[`value.${layer}`]!;
    }
    const rows = hidden.dims[1]!;
    return {
      hidden: out['hidden_out'] ?? null,
      logits: out['logits'] ?? null,
      cache: { length: cache.length + rows, nextPosition, values },
    };
  }

  async dispose(): Promise<void> {
    await this.session.dispose();
  }
}
