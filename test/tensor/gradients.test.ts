import { describe, expect, test } from 'vitest';
import * as f from '../../electron/tensor/functions.ts';
import { gradients } from '../../electron/tensor/gradients.ts';
import { Graph, type Tensor } from '../../electron/tensor/graph.ts';
import { operator, operatorNames } from '../../electron/tensor/operators.ts';
import { float32, int64, Session, type Value } from '../../electron/tensor/session.ts';

/** Deterministic values in about −1..1. */
function values(count: number, seed: number): Float32Array {
  const out = new Float32Array(count);
  let state = (seed * 2654435761) >>> 0;
  for (let i = 0; i < count; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    out[i] = (state / 2 ** 32) * 2 - 1;
  }
  return out;
}

interface Case {
  readonly name: string;
  readonly shapes: ReadonlyArray<readonly number[]>;
  /** names of symbolic axes, by input, so that run-time shapes are exercised too */
  readonly symbols?: ReadonlyArray<ReadonlyArray<string | null>>;
  readonly make: (inputs: Tensor[], graph: Graph) => Tensor;
  readonly prepare?: (values: Float32Array) => Float32Array;
}

const positive = (data: Float32Array) => data.map((value) => Math.abs(value) + 0.5);
/** keeps finite differences away from the kink of relu and abs */
const awayFromZero = (data: Float32Array) => data.map((value) => value + Math.sign(value) * 0.1);
const ids = (graph: Graph, list: number[]) => graph.constant(list, [list.length], 'int64');

const cases: Case[] = [
  { name: 'Add', shapes: [[2, 3], [3]], make: ([a, b]) => f.add(a!, b!) },
  {
    name: 'Sub',
    shapes: [
      [2, 3],
      [2, 1],
    ],
    make: ([a, b]) => f.subtract(a!, b!),
  },
  {
    name: 'Mul',
    shapes: [
      [2, 3],
      [1, 3],
    ],
    symbols: [
      ['rows', null],
      [null, null],
    ],
    make: ([a, b]) => f.multiply(a!, b!),
  },
  { name: 'Div', shapes: [[2, 3], []], prepare: positive, make: ([a, b]) => f.divide(a!, b!) },
  { name: 'ReduceMax', shapes: [[3, 4]], make: ([a]) => f.max(a!, [0]) },
  { name: 'ReduceMax', shapes: [[3, 4]], symbols: [['rows', null]], make: ([a]) => f.max(a!, [1], true) },
  { name: 'Neg', shapes: [[4]], make: ([a]) => f.negate(a!) },
  { name: 'Abs', shapes: [[4]], prepare: awayFromZero, make: ([a]) => f.abs(a!) },
  { name: 'Sqrt', shapes: [[4]], prepare: positive, make: ([a]) => f.sqrt(a!) },
  { name: 'Exp', shapes: [[4]], make: ([a]) => f.exp(a!) },
  { name: 'Log', shapes: [[4]], prepare: positive, make: ([a]) => f.log(a!) },
  { name: 'Reciprocal', shapes: [[4]], prepare: positive, make: ([a]) => f.reciprocal(a!) },
  { name: 'Erf', shapes: [[4]], make: ([a]) => f.erf(a!) },
  { name: 'Tanh', shapes: [[4]], make: ([a]) => f.tanh(a!) },
  { name: 'Sigmoid', shapes: [[4]], make: ([a]) => f.sigmoid(a!) },
  { name: 'Relu', shapes: [[6]], prepare: awayFromZero, make: ([a]) => f.relu(a!) },
  { name: 'Gelu', shapes: [[6]], make: ([a]) => f.gelu(a!) },
  { name: 'Gelu (tanh)', shapes: [[6]], make: ([a]) => f.gelu(a!, 'tanh') },
  { name: 'QuickGelu', shapes: [[6]], make: ([a]) => f.quickGelu(a!) },
  { name: 'QuickGelu (silu)', shapes: [[6]], make: ([a]) => f.silu(a!) },
  { name: 'Softmax', shapes: [[2, 5]], make: ([a]) => f.softmax(a!) },
  { name: 'LogSoftmax', shapes: [[2, 5]], make: ([a]) => f.logSoftmax(a!) },
  {
    name: 'MultiHeadAttention',
    shapes: [
      [1, 3, 8],
      [1, 3, 8],
      [1, 3, 8],
    ],
    make: ([query, key, value]) => f.fusedAttention(query!, key!, value!, 2),
  },
  {
    name: 'MatMul',
    shapes: [
      [2, 1, 3, 4],
      [2, 4, 5],
    ],
    make: ([a, b]) => f.matmul(a!, b!),
  },
  {
    name: 'MatMul (both transposed)',
    shapes: [
      [2, 4, 3],
      [5, 4],
    ],
    make: ([a, b]) => f.matmul(a!, b!, { a: true, b: true }),
  },
  {
    name: 'Gemm',
    shapes: [[2, 3, 4], [5, 4], [5]],
    symbols: [['batch', 'rows', null], [null, null], [null]],
    make: ([x, w, b]) => f.linear(x!, w!, b!),
  },
  {
    name: 'Gemm (plus a matrix)',
    shapes: [
      [2, 3, 4],
      [4, 5],
      [2, 3, 5],
    ],
    symbols: [
      ['batch', 'rows', null],
      [null, null],
      ['batch', 'rows', null],
    ],
    make: ([x, w, c]) => f.productPlus(x!, w!, c!),
  },
  { name: 'Transpose', shapes: [[2, 3, 4]], make: ([a]) => f.transpose(a!, [2, 0, 1]) },
  {
    name: 'Reshape',
    shapes: [[2, 3, 4]],
    symbols: [['batch', 'rows', null]],
    make: ([a]) => f.mergeHeads(f.multiply(f.splitHeads(a!, 2), f.splitHeads(a!, 2))),
  },
  {
    name: 'Concat',
    shapes: [
      [2, 1, 3],
      [2, 4, 3],
    ],
    symbols: [
      [null, null, null],
      [null, 'rows', null],
    ],
    make: ([a, b]) => f.concat([a!, b!, a!], 1),
  },
  {
    name: 'Slice',
    shapes: [[2, 5]],
    symbols: [[null, 'rows']],
    make: ([a]) => f.add(f.slice(a!, 1, 1, 3), f.slice(a!, 1, -2, Number.MAX_SAFE_INTEGER, 2)),
  },
  {
    name: 'Gather',
    shapes: [[5, 3]],
    symbols: [['rows', null]],
    make: ([a], graph) => f.gather(a!, ids(graph, [4, 0, 4])),
  },
  {
    name: 'ScatterND (replace)',
    shapes: [
      [5, 3],
      [2, 3],
    ],
    make: ([x, u], graph) => f.scatterRows(x!, ids(graph, [3, 1]), u!),
  },
  {
    name: 'ScatterND (add)',
    shapes: [
      [5, 3],
      [3, 3],
    ],
    make: ([x, u], graph) => f.scatterRows(x!, ids(graph, [3, 1, 3]), u!, 'add'),
  },
  {
    name: 'Unsqueeze',
    shapes: [[3]],
    make: ([a], graph) => graph.apply('Unsqueeze', [a!, ids(graph, [0])], { axis: 0 })[0]!,
  },
  {
    name: 'Expand',
    shapes: [
      [1, 3],
      [2, 3],
    ],
    make: ([a, b]) => f.multiply(f.expandLike(a!, b!), b!),
  },
  {
    name: 'ReduceSum',
    shapes: [[2, 3, 4]],
    symbols: [['batch', null, null]],
    make: ([a]) => f.sum(a!, [0, 2]),
  },
  {
    name: 'ReduceSumSquare',
    shapes: [[2, 3, 4]],
    symbols: [['batch', null, null]],
    make: ([a]) => f.add(f.sumOfSquares(a!, [1], true), f.sumOfSquares(a!, [0, 1])),
  },
  {
    name: 'ReduceMean',
    shapes: [[2, 3, 4]],
    symbols: [['batch', null, null]],
    make: ([a]) => f.mean(a!, [0, 1], true),
  },
  {
    name: 'Where',
    shapes: [
      [2, 3],
      [1, 3],
    ],
    make: ([a, b], graph) =>
      f.where(graph.apply('Greater', [a!, graph.constant(0)])[0]!, f.multiply(a!, 3), b!),
  },
  {
    name: 'LayerNormalization',
    shapes: [[2, 3, 8], [8], [8]],
    make: ([x, w, b]) => f.layerNorm(x!, w!, b!, 1e-5),
  },
  {
    name: 'SimplifiedLayerNormalization',
    shapes: [[2, 3, 8], [8]],
    make: ([x, w]) => f.rmsNorm(x!, w!, 1e-5),
  },
  {
    name: 'cross-entropy',
    shapes: [[3, 5]],
    make: ([a], graph) => f.crossEntropy(a!, ids(graph, [1, 4, 0])),
  },
  {
    name: 'KL divergence',
    shapes: [
      [3, 5],
      [3, 5],
    ],
    make: ([p, q]) => f.klDivergence(p!, q!),
  },
  {
    name: 'log-sigmoid',
    shapes: [[6]],
    prepare: awayFromZero,
    make: ([a]) => f.logSigmoid(f.multiply(a!, 30)),
  },
];

async function check({ shapes, symbols, make, prepare }: Case): Promise<void> {
  const graph = new Graph();
  const inputs = shapes.map((shape, index) =>
    graph.input(
      `x${index}`,
      'float32',
      shape.map((dim, axis) => symbols?.[index]?.[axis] ?? dim),
    ),
  );
  const result = make(inputs, graph);
  // A weighted sum, so that every element's own derivative counts.
  const weight = graph.input('weight', 'float32', result.shape);
  const loss = f.sum(f.multiply(result, weight));
  graph.output('result', result);
  graph.output('loss', loss);
  gradients(loss, inputs).forEach((gradient, index) => {
    expect(gradient.shape).toEqual(inputs[index]!.shape);
    graph.output(`gradient${index}`, gradient);
  });
  const session = await Session.create(graph, { providers: ['cpu'], threads: 1 });
  const data = shapes.map((shape, index) => {
    const raw = values(
      shape.reduce((a, b) => a * b, 1),
      index + 3,
    );
    return prepare ? prepare(raw) : raw;
  });
  const probe = new Graph();
  const probeInputs = shapes.map((shape, index) => probe.input(`x${index}`, 'float32', shape));
  probe.output('result', make(probeInputs, probe));
  const shapeSession = await Session.create(probe, { providers: ['cpu'], threads: 1 });
  const feedsOf = (list: Float32Array[]): Record<string, Value> =>
    Object.fromEntries(list.map((item, index) => [`x${index}`, float32(item, shapes[index]!)]));
  const dims = (await shapeSession.run(feedsOf(data)))['result']!.dims;
  const weights = float32(
    values(
      dims.reduce((a, b) => a * b, 1),
      99,
    ),
    dims,
  );
  const run = (list: Float32Array[]) => session.run({ ...feedsOf(list), weight: weights });
  const analytic = await run(data);
  const lossAt = async (list: Float32Array[]) => {
    const out = (await run(list))['result']!.data as Float32Array;
    return out.reduce((total, value, index) => total + value * (weights.data as Float32Array)[index]!, 0);
  };
  for (let input = 0; input < data.length; input++) {
    const gradient = analytic[`gradient${input}`]!.data as Float32Array;
    expect(gradient.length).toBe(data[input]!.length);
    for (let element = 0; element < gradient.length; element++) {
      const at = (step: number) =>
        data.map((list, index) => (index === input ? list.with(element, list[element]! + step) : list));
      const numeric = ((await lossAt(at(1e-2))) - (await lossAt(at(-1e-2)))) / 2e-2;
      expect(Math.abs(gradient[element]! - numeric), `input ${input}, element ${element}`).toBeLessThan(
        4e-3 * Math.max(1, Math.abs(numeric)),
      );
    }
  }
  await session.dispose();
  await shapeSession.dispose();
}

describe('backward rules agree with central differences', () => {
  test.each(cases)('$name', check);

  test('every operator with a backward rule has a case', () => {
    const graph = new Graph();
    for (const { shapes, make } of cases)
      make(
        shapes.map((shape, i) => graph.input(`in${graph.nodes.length}_${i}`, 'float32', shape)),
        graph,
      );
    const seen = new Set<string>(graph.nodes.map((node) => node.operator));
    // Packed products round what goes in, so their differences are taken elsewhere: test/models/packed.test.ts.
    seen.add('MatMulNBits');
    const untested = operatorNames.filter((name) => operator(name).backward && !seen.has(name));
    expect(untested).toEqual([]);
  });
});

test('a gradient through an operator without a rule is refused by name', () => {
  const graph = new Graph();
  const x = graph.input('x', 'float32', [2, 3]);
  const picked = graph.apply('GatherND', [x, graph.constant([1], [1, 1], 'int64')])[0]!;
  expect(() => gradients(f.sum(picked), [x])).toThrow('GatherND');
});

test('nothing is computed for frozen weights', () => {
  const graph = new Graph();
  const x = graph.input('x', 'float32', ['rows', 4]);
  const frozen = graph.input('frozen', 'float32', [3, 4]);
  const trained = graph.input('trained', 'float32', [2, 3]);
  const loss = f.sum(f.linear(f.linear(x, frozen), trained));
  const before = graph.nodes.length;
  gradients(loss, [trained]);
  const products = graph.nodes.slice(before).filter((node) => node.operator === 'Gemm');
  expect(products.length).toBe(1);
});

test('an embedding looked up twice gets the sum of both gradients', async () => {
  const graph = new Graph();
  const table = graph.input('table', 'float32', ['words', 2]);
  const picked = graph.input('picked', 'int64', ['batch', 'rows']);
  graph.output('gradient', gradients(f.sum(f.gather(table, picked)), [table])[0]!);
  const session = await Session.create(graph, { providers: ['cpu'], threads: 1 });
  const out = await session.run({
    table: float32(new Float32Array(6), [3, 2]),
    picked: int64([2, 0, 2, 2], [2, 2]),
  });
  expect(Array.from(out['gradient']!.data as Float32Array)).toEqual([1, 1, 0, 0, 3, 3]);
  await session.dispose();
});
