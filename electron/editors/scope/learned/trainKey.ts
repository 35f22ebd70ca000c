/**
 * @file Trains the key network: inputs near the edits in whose scope they are, far from all others (InfoNCE over the batch).
 */

import * as f from '../../../tensor/functions.ts';
import { Graph } from '../../../tensor/graph.ts';
import { float32, floatsOf, Session } from '../../../tensor/session.ts';
import { quantiseKey } from '../keyBank.ts';
import { reaches } from '../scope.ts';
import type { ScopeDataset } from './dataset.ts';
import { inScope } from './examples.ts';
import { askInputs, dropout, feedAsks, notSeen } from './feeding.ts';
import { keysOf, keyWeights, type ScopeShape, startWeights } from './network.ts';
import type { Draws, Row, Sampler } from './sampling.ts';
import { type NetworkTraining, type TrainContext, trainNetwork, type Weights } from './trainNetwork.ts';

export interface KeyTraining extends NetworkTraining {
  /** edits a step; each brings some ten inputs */
  readonly edits: number;
  /** weight of the same thing elsewhere beside that of the same scene */
  readonly elsewhere: number;
  /** similarity is multiplied by it before the softmax */
  readonly sharpness: number;
}

export async function trainKey(
  dataset: ScopeDataset,
  sampler: Sampler,
  shape: ScopeShape,
  settings: KeyTraining,
  draws: Draws,
  context: TrainContext,
  from?: Weights,
): Promise<Weights> {
  const weights = from ?? startWeights(keyWeights(shape), draws.normal);
  const graph = new Graph();
  const asks = askInputs(graph, shape);
  const kept = graph.input('kept', 'float32', ['asks', shape.hidden]);
  const inputs = new Map(
    [...keyWeights(shape)].map(([name, dims]) => [name, graph.input(name, 'float32', dims)]),
  );
  const keys = keysOf(asks, shape, (name) => inputs.get(name)!, kept);
  const terms: Record<string, ReturnType<typeof f.sum>> = {};
  const entries = f.concat([keys.picture, keys.thing], 0);
  const similarity = f.multiply(f.matmul(keys.input, entries, { b: true }), settings.sharpness);
  // −log of an edit's share beside all it must not be taken for, per pair in scope: softplus(log Σ exp(negatives) − s).
  const negatives = graph.input('negatives', 'float32', ['asks', 'asks+asks']);
  // Similarities lie within ± sharpness, so a fixed shift keeps the sum in range.
  const shifted = f.exp(f.add(f.add(similarity, -settings.sharpness), negatives));
  const others = f.add(f.log(f.add(f.sum(shifted, [1], true), 1e-30)), settings.sharpness);
  const pairs = f.negate(f.logSigmoid(f.subtract(similarity, others)));
  for (const name of ['scene', 'thing'])
    terms[name] = f.sum(f.multiply(pairs, graph.input(`weight.${name}`, 'float32', ['asks', 'asks+asks'])));
  const loss = f.add(terms['scene']!, f.multiply(terms['thing']!, settings.elsewhere));

  return trainNetwork(graph, { loss, terms, weights }, settings, draws, context, async (disturbance) => {
    const rows: Row[] = sampler.groups(settings.edits).flatMap(({ edit, inputs }) => [edit, ...inputs]);
    return {
      ...feedAsks(rows, ...lookups(dataset), shape, { disturbance }),
      ...scopeFeeds(rows),
      kept: dropout(rows.length, shape.hidden, settings.dropout, draws.uniform),
    };
  });
}

export function lookups(dataset: ScopeDataset) {
  const { rows, width, data } = dataset.pictures;
  const size = rows * width;
  return [
    (place: number) => data.subarray(place * size, (place + 1) * size),
    (place: number) => dataset.questions[place]!,
  ] as const;
}

/** Which rows are in the scope of which, as edits of each reach [rows, 2·rows]: masks of the others, weights of the pairs. */
function scopeFeeds(rows: readonly Row[]) {
  const count = rows.length;
  const negatives = new Float32Array(count * 2 * count).fill(notSeen);
  const weights = { scene: new Float32Array(count * 2 * count), thing: new Float32Array(count * 2 * count) };
  const totals = { scene: 0, thing: 0 };
  for (let i = 0; i < count; i++) {
    const input = rows[i]!.ask;
    for (const [r, reach] of reaches.entries()) {
      for (let e = 0; e < count; e++) {
        const edit = rows[e]!.ask;
        const at = i * 2 * count + r * count + e;
        // Nothing is edited where the picture has no answer.
        const within = edit.about < 0 ? null : inScope(edit, input, reach);
        if (within === false) negatives[at] = 0;
        else if (within && !(i === e && r > 0)) {
          const group = edit.family === input.family ? 'scene' : 'thing';
          weights[group][at] = 1;
          totals[group]++;
        }
      }
    }
  }
  for (const group of ['scene', 'thing'] as const)
    for (let at = 0; at < weights[group].length; at++) weights[group][at]! /= Math.max(1, totals[group]);
  const dims = [count, 2 * count];
  return {
    negatives: float32(negatives, dims),
    'weight.scene': float32(weights.scene, dims),
    'weight.thing': float32(weights.thing, dims),
  };
}

/** Keys of many rows, rounded as they are kept. */
export interface RowKeys {
  readonly input: Int8Array;
  readonly picture: Int8Array;
  readonly thing: Int8Array;
}

/** The key network ready to use on many rows at once. */
export async function keysOfRows(
  dataset: ScopeDataset,
  rows: readonly Row[],
  shape: ScopeShape,
  weights: Weights,
  threads: number,
): Promise<RowKeys[]> {
  const graph = new Graph();
  const asks = askInputs(graph, shape);
  const keys = keysOf(
    asks,
    shape,
    (name) => graph.constant(weights.get(name)!.data, weights.get(name)!.shape),
    null,
  );
  for (const [role, key] of Object.entries(keys)) graph.output(role, key);
  const session = await Session.create(graph, { providers: ['cpu'], threads });
  try {
    const found: RowKeys[] = [];
    for (let start = 0; start < rows.length; start += 128) {
      const out = await session.run(feedAsks(rows.slice(start, start + 128), ...lookups(dataset), shape));
      const [input, picture, thing] = await Promise.all(
        (['input', 'picture', 'thing'] as const).map((role) => floatsOf(out[role]!)),
      );
      const width = shape.keyWidth;
      for (let at = 0; at * width < input!.length; at++) {
        const part = (all: Float32Array) => quantiseKey(all.subarray(at * width, (at + 1) * width));
        found.push({ input: part(input!), picture: part(picture!), thing: part(thing!) });
      }
    }
    return found;
  } finally {
    await session.dispose();
  }
}
