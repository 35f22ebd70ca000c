import { expect, test } from 'vitest';
import { standardNormal } from '../../electron/attribution/visualContribution.ts';
import { type AdapterShape, crossAttention, rowKinds } from '../../electron/editors/visedit/adapterGraph.ts';
import { initialAdapter } from '../../electron/editors/visedit/initialAdapter.ts';
import { Graph } from '../../electron/tensor/graph.ts';
import { float32, floatsOf, Session } from '../../electron/tensor/session.ts';

const hidden = 32;
const shape: AdapterShape = {
  hidden,
  middle: 128,
  influenceMiddle: 8,
  heads: 4,
  influenceMapper: false,
  attention: 'row-kinds',
};
const pictureRows = 6;
const kindOf = [0, ...Array<number>(pictureRows).fill(1), 2, 2, 3];

/** What an adapter that starts from similarity would add to visual rows, given an edit signal [rows, hidden]. */
async function change(visual: Float32Array, signal: Float32Array): Promise<Float32Array> {
  const graph = new Graph();
  const weights = initialAdapter(shape, 3, 'similarity');
  const kinds = new Float32Array(kindOf.length * rowKinds.length);
  for (const [row, kind] of kindOf.entries()) kinds[row * rowKinds.length + kind] = 1;
  const rows = graph.input('rows', 'float32', [1, visual.length / hidden, hidden]);
  const source = {
    rows: graph.constant(signal, [1, kindOf.length, hidden]),
    key: graph.constant(new Float32Array(hidden), [1, hidden]),
    kinds: graph.constant(kinds, [1, kindOf.length, rowKinds.length]),
  };
  const weightOf = (name: string) => {
    const { data, shape: dims } = weights.get(name)!;
    return graph.constant(data, [...dims]);
  };
  graph.output('change', crossAttention(rows, source, shape, weightOf));
  const session = await Session.create(graph, { providers: ['cpu'] });
  const out = await session.run({ rows: float32(visual, [1, visual.length / hidden, hidden]) });
  await session.dispose();
  return floatsOf(out['change']!);
}

/** Rows as the adapter's LayerNorms leave them. */
function normed(rows: Float32Array): Float32Array {
  return Float32Array.from(rows, (value, at) => {
    const row = rows.subarray(at - (at % hidden), at - (at % hidden) + hidden);
    const mean = row.reduce((a, b) => a + b, 0) / hidden;
    const variance = row.reduce((a, b) => a + (b - mean) ** 2, 0) / hidden;
    return (value - mean) / Math.sqrt(variance + 1e-5);
  });
}

const length = (rows: Float32Array) => Math.sqrt(rows.reduce((sum, value) => sum + value * value, 0));

test('from similarity: what the edit’s picture shows becomes the target, anything else stays', async () => {
  const signal = standardNormal(kindOf.length * hidden, 11);
  const own = signal.slice(hidden, (1 + pictureRows) * hidden);
  const target = normed(signal.slice(-hidden));
  const wanted = normed(own).map((value, at) => target[at % hidden]! - value);

  const onOwn = await change(own, signal);
  expect(length(onOwn.map((value, at) => value - wanted[at]!))).toBeLessThan(0.35 * length(wanted));

  const elsewhere = standardNormal(pictureRows * hidden, 12);
  expect(length(await change(elsewhere, signal))).toBeLessThan(0.35 * length(wanted));
});

test('from similarity: an adapter too narrow for it is refused, with the width it needs', () => {
  expect(() => initialAdapter({ ...shape, middle: 32 }, 3, 'similarity')).toThrow('--middle 64');
  expect(() => initialAdapter({ ...shape, attention: 'published' }, 3, 'similarity')).toThrow('row-kinds');
});
