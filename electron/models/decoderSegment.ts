/**
 * @file Consecutive decoder layers compiled as one session, with their part of the KV cache. A decoder is cut into
 * segments where editors act, so that what lies below a cut runs once for the answers before and after an edit.
 */

import * as f from '../tensor/functions.ts';
import type { Graph, Tensor } from '../tensor/graph.ts';
import { Graph as NewGraph } from '../tensor/graph.ts';
import { float32, int64, Session, type SessionOptions, type Value } from '../tensor/session.ts';
import type { TextConfig } from './config.ts';
import { decoderLayer, finalNorm, languageHead } from './decoder.ts';
import { causalMask, rotaryTables } from './positions.ts';
import type { WeightOf } from './weights.ts';

/** Keys and values of the rows a segment has seen, by layer. Values are never changed in place: a cache can be shared. */
export interface Cache {
  /** rows held */
  readonly length: number;
  readonly values: Readonly<Record<string, Value>>;
}

/** Rotary tables and mask of a run, fed to every segment of it. */
export function positionFeeds(config: TextConfig, rows: number, past: number): Record<string, Value> {
  const positions = Int32Array.from({ length: rows }, (_, row) => past + row);
  const { cosine, sine } = rotaryTables(config, positions);
  return {
    cosine: float32(cosine, [1, 1, rows, config.headDim]),
    sine: float32(sine, [1, 1, rows, config.headDim]),
    mask: float32(causalMask(rows, past), [1, 1, rows, past + rows]),
  };
}

/** Inputs for rotary tables and mask, as `positionFeeds` fills them. */
export function positionInputs(
  graph: Graph,
  config: TextConfig,
  rows: string | number,
  total: string | number,
) {
  return {
    cosine: graph.input('cosine', 'float32', [1, 1, rows, config.headDim]),
    sine: graph.input('sine', 'float32', [1, 1, rows, config.headDim]),
    mask: graph.input('mask', 'float32', [1, 1, rows, total]),
  };
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
  readonly #config: TextConfig;

  private constructor(first: number, last: number, session: Session, config: TextConfig) {
    this.first = first;
    this.last = last;
    this.session = session;
    this.#config = config;
  }

  static async compile(
    first: number,
    last: number,
    config: TextConfig,
    weightsOf: (graph: Graph) => WeightOf,
    options: SessionOptions,
  ): Promise<DecoderSegment> {
    const graph = new NewGraph();
    const weight = weightsOf(graph);
    const inputs = positionInputs(graph, config, 'rows', 'past+rows');
    let x: Tensor = graph.input('hidden', 'float32', [1, 'rows', config.hidden]);
    for (let layer = first; layer <= last; layer++) {
      const held = [1, config.keyValueHeads, 'past', config.headDim];
      const past = {
        key: graph.input(`past_key.${layer}`, 'float32', held),
        value: graph.input(`past_value.${layer}`, 'float32', held),
      };
      const result = decoderLayer(x, layer, inputs, config, weight, past);
      graph.output(`key.${layer}`, result.key);
      graph.output(`value.${layer}`, result.value);
      x = result.hidden;
    }
    if (last === config.layers - 1) {
      const asked = graph.input('asked', 'int64', ['asked']);
      const rows = f.gather(f.reshape(x, ['rows', config.hidden]), asked);
      graph.output('logits', languageHead(finalNorm(rows, config, weight), config, weight));
    } else graph.output('hidden_out', x);
    return new DecoderSegment(first, last, await Session.create(graph, options), config);
  }

  emptyCache(): Cache {
    const { keyValueHeads, headDim } = this.#config;
    const values: Record<string, Value> = {};
    for (let layer = this.first; layer <= this.last; layer++) {
      values[`past_key.${layer}`] = float32(new Float32Array(0), [1, keyValueHeads, 0, headDim]);
      values[`past_value.${layer}`] = float32(new Float32Array(0), [1, keyValueHeads, 0, headDim]);
    }
    return { length: 0, values };
  }

  /**
   * Runs new rows behind those in the cache.
   * hidden [1, rows, hidden]; `positions` from `positionFeeds`; `asked`: rows (of the new ones) whose logits are wanted.
   */
  async run(
    hidden: Value,
    positions: Readonly<Record<string, Value>>,
    cache: Cache,
    asked: readonly number[],
  ): Promise<SegmentResult> {
    const out = await this.session.run({
      hidden,
      ...positions,
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
      cache: { length: cache.length + rows, values },
    };
  }

  async dispose(): Promise<void> {
    await this.session.dispose();
  }
}
