/** @file Rows of several pictures adapted to the same signals at once: as each group by itself, gradients too. */
import { expect, test } from 'vitest';
import { type AdapterShape, adapterWeights, adaptRows } from '../../electron/editors/visedit/adapterGraph.ts';
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
  ['published', 16, 8],
  ['row-kinds', 8, 16],
] as const)('%s, a decoder %i wide, attention %i', async (attention, hidden, middle) => {
  const shape = { hidden, middle, influenceMiddle: 12, heads: 2, influenceMapper: true, attention };
  const [one, each] = [await adapted(shape, true), await adapted(shape, false)];
  expect(one.size).toBe(adapterWeights(shape).size + 1);
  for (const [name, values] of one) {
    const other = each.get(name)!;
    const size = other.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    expect(largestDifference(values, other), name).toBeLessThan(1e-5 + 1e-4 * size);
  }
});
