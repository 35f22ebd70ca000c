/** @file Rows of several pictures adapted to the same signals at once: as each group by itself, gradients too. */
import { expect, test } from 'vitest';
import {
  type AdapterShape,
  adapterWeights,
  adaptRows,
  influenceKeyOf,
  influenceLogits,
} from '../../electron/editors/visedit/adapterGraph.ts';
import { initialAdapter } from '../../electron/editors/visedit/initialAdapter.ts';
import { weightsAsInputs } from '../../electron/models/weights.ts';
import * as f from '../../electron/tensor/functions.ts';
import { Graph } from '../../electron/tensor/graph.ts';
import { float32, floatsOf, Session, type Value } from '../../electron/tensor/session.ts';
import { outputGradients } from '../../electron/training/trainer.ts';
import { normalNumbers } from '../support/checkpointFixtures.ts';
import { largestDifference } from '../support/fixtures.ts';

const [EDITS, GROUPS, ROWS, SIGNAL] = [2, 3, 4, 5];

/** Adapted rows and the gradients of a weighted sum of them, all groups at once or each by itself. */
async function adapted(shape: AdapterShape, together: boolean): Promise<Map<string, Float32Array>> {
  const { hidden } = shape;
  const shapes = adapterWeights(shape);
  const graph = new Graph();
  const weight = weightsAsInputs(graph, shapes);
  const rows = graph.input('rows', 'float32', [GROUPS * EDITS, ROWS, hidden]);
  const signal = {
    rows: graph.input('signal', 'float32', [EDITS, SIGNAL, hidden]),
    key: graph.input('key', 'float32', [EDITS, hidden]),
    mask: graph.input('mask', 'float32', [EDITS, 1, 1, SIGNAL]),
    kinds: graph.input('kinds', 'float32', [EDITS, SIGNAL, 4]),
  };
  const parts = Array.from({ length: GROUPS }, (_, group) =>
    f.slice(rows, 0, group * EDITS, (group + 1) * EDITS),
  );
  const all = together
    ? adaptRows(rows, signal, shape, weight).rows
    : f.concat(
        parts.map((part) => adaptRows(part, signal, shape, weight).rows),
        0,
      );
  graph.output('adapted', all);
  const wanted = graph.input('wanted', 'float32', [GROUPS * EDITS, ROWS, hidden]);
  outputGradients(graph, f.sum(f.multiply(all, wanted)), [...shapes.keys()].map(weight));
  const normal = normalNumbers(11);
  const feeds: Record<string, Value> = {};
  for (const { name, shape: dims } of graph.inputs) {
    const size = (dims as number[]).reduce((a, b) => a * b, 1);
    feeds[name] = float32(Float32Array.from({ length: size }, normal), dims as number[]);
  }
  feeds['mask'] = float32(Float32Array.from([0, 0, 0, 0, 0, 0, 0, 0, -1e9, -1e9]), [EDITS, 1, 1, SIGNAL]);
  for (const [name, { shape: dims, data }] of initialAdapter(shape, 3)) feeds[name] = float32(data, dims);
  const session = await Session.create(graph, { providers: ['cpu'], threads: 1 });
  try {
    const found = new Map<string, Float32Array>();
    for (const [name, value] of Object.entries(await session.run(feeds)))
      found.set(name, (await floatsOf(value)).slice());
    return found;
  } finally {
    await session.dispose();
  }
}

// Where the attention is wider than the decoder, both layers of the queries are made one first.
test.each([
  ['published', 16, 8, 'last-token'],
  ['row-kinds', 8, 16, 'prompt'],
] as const)(
  '%s, a decoder %i wide, attention %i, mapper of the %s',
  async (attention, hidden, middle, influenceKey) => {
    const shape = {
      hidden,
      middle,
      influenceMiddle: 12,
      heads: 2,
      influenceMapper: true,
      attention,
      influenceKey,
    };
    const [one, each] = [await adapted(shape, true), await adapted(shape, false)];
    expect(one.size).toBe(adapterWeights(shape).size + 1);
    for (const [name, values] of one) {
      const other = each.get(name)!;
      const size = other.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      expect(largestDifference(values, other), name).toBeLessThan(1e-5 + 1e-4 * size);
    }
  },
);

test('a mapper of the prompt starts as that of its last token, and learns from the prompt’s other rows and no others', async () => {
  const shape: AdapterShape = {
    ...{ hidden: 8, middle: 16, influenceMiddle: 12, heads: 2, influenceMapper: true },
    ...{ attention: 'row-kinds', influenceKey: 'prompt' },
  };
  const weights = initialAdapter(shape, 3);
  const normal = normalNumbers(5);
  const logits = async (signal: Float32Array, key: 'prompt' | 'last-token', gathers: number) => {
    const graph = new Graph();
    const weight = (name: string) => {
      const { shape: dims, data } = weights.get(name)!;
      return graph.constant(
        name.endsWith('prompt_attention.out.weight') ? data.map((_, at) => gathers * Math.sin(at)) : data,
        dims,
      );
    };
    const given = {
      rows: graph.input('signal', 'float32', [1, SIGNAL, 8]),
      key: graph.input('key', 'float32', [1, 8]),
      // the picture, two rows of the prompt, one of the target
      kinds: graph.constant(
        Float32Array.from([0, 1, 2, 2, 3].flatMap((kind) => [0, 1, 2, 3].map((k) => Number(k === kind)))),
        [1, SIGNAL, 4],
      ),
    };
    const rows = graph.input('rows', 'float32', [1, ROWS, 8]);
    const of = { ...shape, influenceKey: key };
    graph.output('logits', influenceLogits(rows, influenceKeyOf(given, of, weight), of, weight));
    const session = await Session.create(graph, { providers: ['cpu'], threads: 1 });
    try {
      const out = await session.run({
        rows: float32(visual, [1, ROWS, 8]),
        signal: float32(signal, [1, SIGNAL, 8]),
        key: float32(signal.slice(3 * 8, 4 * 8), [1, 8]),
      });
      return (await floatsOf(out['logits']!)).slice();
    } finally {
      await session.dispose();
    }
  };
  const visual = Float32Array.from({ length: ROWS * 8 }, normal);
  const signal = Float32Array.from({ length: SIGNAL * 8 }, normal);
  expect(await logits(signal, 'prompt', 0)).toEqual(await logits(signal, 'last-token', 0));
  const changed = (row: number) => signal.map((value, at) => (Math.floor(at / 8) === row ? -value : value));
  const whole = await logits(signal, 'prompt', 0.5);
  for (const row of [0, 1, 4]) expect(await logits(changed(row), 'prompt', 0.5)).toEqual(whole);
  expect(largestDifference(await logits(changed(2), 'prompt', 0.5), whole)).toBeGreaterThan(1e-3);
});
