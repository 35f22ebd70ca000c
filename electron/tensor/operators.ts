/**
 * @file The operators: for each, its shape rule, how it is written in ONNX, and its backward rule, side by side.
 *
 * A backward rule gets the gradient of the (first) output and returns one entry per input. Entries are functions,
 * so that nothing is emitted for inputs whose gradient nobody asked for; `null` marks inputs that have none
 * (indices, shapes). An operator without a rule throws by name when a gradient must pass through it.
 */
import { EmendError } from '../errors.ts';
import { broadcast, type Dim, productOfDims, type Shape, shapeText, sumOfDims } from './dims.ts';
import * as f from './functions.ts';
import type { DType, Tensor } from './graph.ts';

export type AttributeValue = number | string | readonly number[] | readonly Dim[];
export type Attributes = Readonly<Record<string, AttributeValue>>;

interface Output {
  readonly dtype: DType;
  readonly shape: Shape;
}

interface Backward {
  readonly inputs: readonly Tensor[];
  readonly output: Tensor;
  readonly gradient: Tensor;
  readonly attributes: Attributes;
}

type InputGradient = (() => Tensor) | null;

interface Operator {
  readonly infer: (inputs: readonly Tensor[], attributes: Attributes) => readonly Output[];
  /** attributes written to ONNX: name → kind. Others only serve shapes and gradients. */
  readonly attributes?: Readonly<Record<string, 'int' | 'float' | 'ints' | 'string'>>;
  readonly domain?: 'com.microsoft';
  readonly backward?: (context: Backward) => readonly InputGradient[];
}

/** Names as in ONNX; each has one entry in the table below. */
export const operatorNames = [
  'Add',
  'Sub',
  'Mul',
  'Div',
  'Neg',
  'Abs',
  'Sign',
  'Sqrt',
  'Exp',
  'Log',
  'Reciprocal',
  'Erf',
  'Tanh',
  'Sigmoid',
  'Relu',
  'Gelu',
  'QuickGelu',
  'Softmax',
  'LogSoftmax',
  'MatMul',
  'Gemm',
  'Transpose',
  'Reshape',
  'Unsqueeze',
  'Shape',
  'Concat',
  'Split',
  'Slice',
  'Pad',
  'Gather',
  'GatherND',
  'ScatterND',
  'Expand',
  'ReduceSum',
  'ReduceSumSquare',
  'ReduceMean',
  'ReduceMax',
  'OneHot',
  'Greater',
  'Where',
  'Cast',
  'LayerNormalization',
  'SimplifiedLayerNormalization',
  'MultiHeadAttention',
  'MatMulNBits',
  'DequantizeLinear',
] as const;
export type OperatorName = (typeof operatorNames)[number];

const same = (inputs: readonly Tensor[]): Output[] => [{ dtype: inputs[0]!.dtype, shape: inputs[0]!.shape }];

const elementwise =
  (name: string) =>
  (inputs: readonly Tensor[]): Output[] => {
    const [a, b] = inputs as [Tensor, Tensor];
    if (a.dtype !== b.dtype) {
      throw new EmendError('internal', `${name}: ${a.name} is ${a.dtype} and ${b.name} is ${b.dtype}.`);
    }
    return [{ dtype: a.dtype, shape: broadcast(a.shape, b.shape, `${name} of ${a.name} and ${b.name}`) }];
  };

/** Inverse of broadcasting: sums the axes along which `like` was repeated. */
function unbroadcast(gradient: Tensor, like: Tensor): Tensor {
  const extra = gradient.shape.length - like.shape.length;
  const axes: number[] = [];
  for (let axis = 0; axis < gradient.shape.length; axis++) {
    if (axis < extra || (like.shape[axis - extra] === 1 && gradient.shape[axis] !== 1)) axes.push(axis);
  }
  if (axes.length === 0) return gradient;
  return f.reshape(f.sum(gradient, axes, true), like.shape, like);
}

/** A pointwise function whose derivative is given in terms of its input x and output y. */
const pointwise = (derivative: (x: Tensor, y: Tensor, attributes: Attributes) => Tensor): Operator => ({
  infer: same,
  backward: ({ inputs, output, gradient, attributes }) => [
    () => f.multiply(gradient, derivative(inputs[0]!, output, attributes)),
  ],
});

function zerosLike(x: Tensor): Tensor {
  return f.expandLike(x.graph.constant(0), x);
}

/** Run-time size of one axis, int64 [1]. */
function axisSize(x: Tensor, axis: number): Tensor {
  const dim = x.shape[axis]!;
  return typeof dim === 'number'
    ? x.graph.constant([dim], [1], 'int64')
    : f.slice(f.shapeOf(x), 0, axis, axis + 1);
}

function gemm(a: Tensor, b: Tensor, transA: boolean, transB: boolean): Tensor {
  return a.graph.apply('Gemm', [a, b], { transA: transA ? 1 : 0, transB: transB ? 1 : 0 })[0]!;
}

function reduceShape(inputs: readonly Tensor[], attributes: Attributes): Output[] {
  const x = inputs[0]!;
  const axes = attributes['axes'] as readonly number[];
  const keep = attributes['keepdims'] === 1;
  const shape = x.shape.flatMap((dim, axis) => (axes.includes(axis) ? (keep ? [1] : []) : [dim]));
  return [{ dtype: x.dtype, shape }];
}

/** Puts back the reduced axes, of size 1. */
function withReduced(gradient: Tensor, x: Tensor, attributes: Attributes): Tensor {
  if (attributes['keepdims'] === 1) return gradient;
  const axes = attributes['axes'] as readonly number[];
  return f.reshape(
    gradient,
    x.shape.map((dim, axis) => (axes.includes(axis) ? 1 : dim)),
    x,
  );
}

/** Puts back the reduced axes and repeats the gradient along them. */
const spread = (gradient: Tensor, x: Tensor, attributes: Attributes): Tensor =>
  f.expandLike(withReduced(gradient, x, attributes), x);

function countAlong(x: Tensor, axes: readonly number[]): Tensor {
  const sizes = axes.map((axis) => x.shape[axis]!);
  const known = productOfDims(sizes);
  if (typeof known === 'number') return x.graph.constant(known);
  const factors = axes.map((axis) => x.graph.apply('Cast', [axisSize(x, axis)], { to: 'float32' })[0]!);
  return factors.reduce((a, b) => f.multiply(a, b));
}

/** x̂ = (x − mean)·inv and inv = 1/√(var + ε), over the last axis. */
function standardised(x: Tensor, epsilon: number): { normal: Tensor; inverse: Tensor } {
  const centred = f.subtract(x, f.mean(x, [-1], true));
  const inverse = f.reciprocal(f.sqrt(f.add(f.mean(f.multiply(centred, centred), [-1], true), epsilon)));
  return { normal: f.multiply(centred, inverse), inverse };
}

const normalisation = (
  normalise: (x: Tensor, epsilon: number) => { normal: Tensor; inverse: Tensor },
  centre: boolean,
): Operator => ({
  infer: same,
  attributes: { axis: 'int', epsilon: 'float' },
  backward: ({ inputs, gradient, attributes }) => {
    const [x, weight] = inputs as [Tensor, Tensor];
    const epsilon = attributes['epsilon'] as number;
    let shared: { normal: Tensor; inverse: Tensor } | undefined;
    const stats = () => {
      shared ??= normalise(x, epsilon);
      return shared;
    };
    const toInput = () => {
      const { normal, inverse } = stats();
      const scaled = f.multiply(gradient, weight);
      const along = f.multiply(normal, f.mean(f.multiply(scaled, normal), [-1], true));
      const centred = centre ? f.subtract(scaled, f.mean(scaled, [-1], true)) : scaled;
      return f.multiply(inverse, f.subtract(centred, along));
    };
    return [
      toInput,
      () => unbroadcast(f.multiply(gradient, stats().normal), weight),
      ...(inputs[2] ? [() => unbroadcast(gradient, inputs[2]!)] : []),
    ];
  },
});

const table: Record<OperatorName, Operator> = {
  Add: {
    infer: elementwise('Add'),
    backward: ({ inputs, gradient }) => inputs.map((input) => () => unbroadcast(gradient, input)),
  },
  Sub: {
    infer: elementwise('Sub'),
    backward: ({ inputs, gradient }) => [
      () => unbroadcast(gradient, inputs[0]!),
      () => unbroadcast(f.negate(gradient), inputs[1]!),
    ],
  },
  Mul: {
    infer: elementwise('Mul'),
    backward: ({ inputs: [a, b], gradient }) => [
      () => unbroadcast(f.multiply(gradient, b!), a!),
      () => unbroadcast(f.multiply(gradient, a!), b!),
    ],
  },
  Div: {
    infer: elementwise('Div'),
    backward: ({ inputs: [a, b], output, gradient }) => [
      () => unbroadcast(f.divide(gradient, b!), a!),
      () => unbroadcast(f.negate(f.multiply(gradient, f.divide(output, b!))), b!),
    ],
  },
  Neg: { infer: same, backward: ({ gradient }) => [() => f.negate(gradient)] },
  Abs: pointwise((x) => x.graph.apply('Sign', [x])[0]!),
  Sign: { infer: same },
  Sqrt: pointwise((_, y) => f.divide(0.5, y)),
  Exp: pointwise((_, y) => y),
  Log: pointwise((x) => f.reciprocal(x)),
  Reciprocal: pointwise((_, y) => f.negate(f.multiply(y, y))),
  Erf: pointwise((x) => f.multiply(2 / Math.sqrt(Math.PI), f.exp(f.negate(f.multiply(x, x))))),
  Tanh: pointwise((_, y) => f.subtract(1, f.multiply(y, y))),
  Sigmoid: pointwise((_, y) => f.multiply(y, f.subtract(1, y))),
  Relu: pointwise(
    (x) =>
      x.graph.apply('Cast', [x.graph.apply('Greater', [x, x.graph.constant(0)])[0]!], { to: 'float32' })[0]!,
  ),
  Gelu: {
    ...pointwise((x, _, attributes) => {
      if (attributes['approximate'] === 'tanh') {
        // ½(1 + tanh u) + ½x(1 − tanh²u)·u′, u = √(2/π)(x + 0.044715x³)
        const square = f.multiply(x, x);
        const scale = Math.sqrt(2 / Math.PI);
        const t = f.tanh(f.multiply(f.multiply(x, f.add(f.multiply(square, 0.044715), 1)), scale));
        const inner = f.multiply(f.add(f.multiply(square, 3 * 0.044715), 1), scale);
        const right = f.multiply(f.multiply(f.multiply(x, 0.5), f.subtract(1, f.multiply(t, t))), inner);
        return f.add(f.multiply(f.add(t, 1), 0.5), right);
      }
      const cdf = f.multiply(f.add(f.erf(f.multiply(x, Math.SQRT1_2)), 1), 0.5);
      const density = f.multiply(f.exp(f.multiply(f.multiply(x, x), -0.5)), 1 / Math.sqrt(2 * Math.PI));
      return f.add(cdf, f.multiply(x, density));
    }),
    attributes: { approximate: 'string' },
  },
  QuickGelu: {
    ...pointwise((x, y, attributes) => {
      // With y = x·σ(αx): σ + α(y − y·σ).
      const alpha = attributes['alpha'] as number;
      const s = f.sigmoid(alpha === 1 ? x : f.multiply(x, alpha));
      const rest = f.subtract(y, f.multiply(y, s));
      return f.add(s, alpha === 1 ? rest : f.multiply(rest, alpha));
    }),
    attributes: { alpha: 'float' },
    domain: 'com.microsoft',
  },
  Softmax: {
    infer: same,
    attributes: { axis: 'int' },
    backward: ({ output, gradient, attributes }) => [
      () => {
        const axis = attributes['axis'] as number;
        return f.multiply(output, f.subtract(gradient, f.sum(f.multiply(gradient, output), [axis], true)));
      },
    ],
  },
  LogSoftmax: {
    infer: same,
    attributes: { axis: 'int' },
    backward: ({ output, gradient, attributes }) => [
      () =>
        f.subtract(
          gradient,
          f.multiply(f.exp(output), f.sum(gradient, [attributes['axis'] as number], true)),
        ),
    ],
  },
  MatMul: {
    infer: ([a, b]) => {
      const inner = [a!.shape.at(-1), b!.shape.at(-2)];
      if (a!.shape.length < 2 || b!.shape.length < 2 || inner[0] !== inner[1]) {
        throw new EmendError(
          'internal',
          `MatMul: ${shapeText(a!.shape)} by ${shapeText(b!.shape)} does not fit.`,
        );
      }
      const batch = broadcast(a!.shape.slice(0, -2), b!.shape.slice(0, -2), 'MatMul');
      return [{ dtype: a!.dtype, shape: [...batch, a!.shape.at(-2)!, b!.shape.at(-1)!] }];
    },
    backward: ({ inputs: [a, b], gradient }) => [
      () => unbroadcast(f.matmul(gradient, b!, { b: true }), a!),
      () => unbroadcast(f.matmul(a!, gradient, { a: true }), b!),
    ],
  },
  Gemm: {
    attributes: { transA: 'int', transB: 'int' },
    infer: ([a, b, c], attributes) => {
      const [rows, innerA] = attributes['transA'] ? [a!.shape[1], a!.shape[0]] : a!.shape;
      const [innerB, columns] = attributes['transB'] ? [b!.shape[1], b!.shape[0]] : b!.shape;
      if (a!.shape.length !== 2 || b!.shape.length !== 2 || innerA !== innerB) {
        throw new EmendError(
          'internal',
          `Gemm: ${shapeText(a!.shape)} by ${shapeText(b!.shape)} does not fit.`,
        );
      }
      const bias = c && (c.shape.length === 1 ? [columns] : [rows, columns]);
      if (bias && c.shape.join() !== bias.join()) {
        throw new EmendError(
          'internal',
          `Gemm: ${shapeText(c.shape)} cannot be added to ${shapeText([rows!, columns!])}.`,
        );
      }
      return [{ dtype: a!.dtype, shape: [rows!, columns!] }];
    },
    backward: ({ inputs: [a, b, c], gradient, attributes }) => {
      const transA = attributes['transA'] === 1;
      const transB = attributes['transB'] === 1;
      return [
        () => (transA ? gemm(b!, gradient, transB, true) : gemm(gradient, b!, false, !transB)),
        () => (transB ? gemm(gradient, a!, true, transA) : gemm(a!, gradient, !transA, false)),
        ...(c ? [() => (c.shape.length === 1 ? f.sum(gradient, [0]) : gradient)] : []),
      ];
    },
  },
  Transpose: {
    attributes: { perm: 'ints' },
    infer: ([x], attributes) => [
      { dtype: x!.dtype, shape: (attributes['perm'] as readonly number[]).map((axis) => x!.shape[axis]!) },
    ],
    backward: ({ gradient, attributes }) => {
      const permutation = attributes['perm'] as readonly number[];
      return [
        () =>
          f.transpose(
            gradient,
            permutation.map((_, axis) => permutation.indexOf(axis)),
          ),
      ];
    },
  },
  Reshape: {
    infer: ([x], attributes) => {
      const shape = attributes['shape'] as readonly Dim[];
      const before = productOfDims(x!.shape);
      const after = productOfDims(shape);
      if (typeof before === 'number' && typeof after === 'number' && before !== after) {
        throw new EmendError(
          'internal',
          `Reshape: ${shapeText(x!.shape)} does not fill ${shapeText(shape)}.`,
        );
      }
      return [{ dtype: x!.dtype, shape }];
    },
    backward: ({ inputs: [x], gradient }) => [() => f.reshape(gradient, x!.shape, x!), null],
  },
  Unsqueeze: {
    infer: ([x], attributes) => [
      { dtype: x!.dtype, shape: x!.shape.toSpliced(attributes['axis'] as number, 0, 1) },
    ],
    backward: ({ inputs: [x], gradient }) => [() => f.reshape(gradient, x!.shape, x!), null],
  },
  Shape: { infer: ([x]) => [{ dtype: 'int64', shape: [x!.shape.length] }] },
  Concat: {
    attributes: { axis: 'int' },
    infer: (parts, attributes) => {
      const axis = attributes['axis'] as number;
      const first = parts[0]!;
      for (const part of parts) {
        const fits =
          part.shape.length === first.shape.length &&
          part.shape.every((dim, i) => i === axis || dim === first.shape[i]);
        if (!fits || part.dtype !== first.dtype) {
          throw new EmendError(
            'internal',
            `Concat: ${shapeText(part.shape)} does not fit ${shapeText(first.shape)} along axis ${axis}.`,
          );
        }
      }
      return [
        {
          dtype: first.dtype,
          shape: first.shape.with(axis, sumOfDims(parts.map((part) => part.shape[axis]!))),
        },
      ];
    },
    backward: ({ inputs, gradient, attributes }) => {
      const axis = attributes['axis'] as number;
      let pieces: readonly Tensor[] | undefined;
      const split = () => {
        const sizes = inputs.map((input) => axisSize(input, axis));
        pieces ??= gradient.graph.apply('Split', [gradient, f.concat(sizes, 0)], {
          axis,
          sizes: inputs.map((input) => input.shape[axis]!),
        });
        return pieces;
      };
      return inputs.map((_, index) => () => split()[index]!);
    },
  },
  Split: {
    attributes: { axis: 'int' },
    infer: ([x], attributes) =>
      (attributes['sizes'] as readonly Dim[]).map((size) => ({
        dtype: x!.dtype,
        shape: x!.shape.with(attributes['axis'] as number, size),
      })),
  },
  Slice: {
    infer: ([x], attributes) => [
      { dtype: x!.dtype, shape: x!.shape.with(attributes['axis'] as number, attributes['size'] as Dim) },
    ],
    backward: ({ inputs: [x], output, gradient, attributes }) => [
      () => {
        const axis = attributes['axis'] as number;
        const start = attributes['start'] as number;
        const graph = x!.graph;
        const startAt = graph.constant([start], [1], 'int64');
        const before = start >= 0 ? startAt : f.add(axisSize(x!, axis), startAt);
        const after = f.subtract(axisSize(x!, axis), f.add(before, axisSize(output, axis)));
        // Pads of every axis: ONNX Runtime 1.30 pushes transposes through Pad wrongly when only some axes are named.
        const none = (count: number) =>
          count > 0 ? [graph.constant(new Array(count).fill(0), [count], 'int64')] : [];
        const rest = x!.shape.length - axis - 1;
        const pads = f.concat([...none(axis), before, ...none(rest + axis), after, ...none(rest)], 0);
        return graph.apply('Pad', [gradient, pads, graph.constant(0)], { shape: x!.shape })[0]!;
      },
      null,
      null,
      null,
    ],
  },
  Pad: { infer: ([x], attributes) => [{ dtype: x!.dtype, shape: attributes['shape'] as Shape }] },
  Gather: {
    attributes: { axis: 'int' },
    infer: ([x, indices], attributes) => [
      { dtype: x!.dtype, shape: x!.shape.toSpliced(attributes['axis'] as number, 1, ...indices!.shape) },
    ],
    backward: ({ inputs: [x, indices], gradient, attributes }) => [
      () => {
        if (attributes['axis'] !== 0)
          throw new EmendError('internal', 'Backward of Gather is written for axis 0 only.');
        const count = productOfDims(indices!.shape);
        const flat = f.reshape(indices!, [count], indices!);
        const updates = f.reshape(gradient, [count, ...x!.shape.slice(1)], gradient);
        return f.scatterRows(zerosLike(x!), flat, updates, 'add');
      },
      null,
    ],
  },
  GatherND: {
    infer: ([x, indices]) => [{ dtype: x!.dtype, shape: [indices!.shape[0]!, ...x!.shape.slice(1)] }],
  },
  ScatterND: {
    attributes: { reduction: 'string' },
    infer: same,
    backward: ({ inputs: [, indices, updates], gradient, attributes }) => [
      () =>
        attributes['reduction'] === 'add'
          ? gradient
          : gradient.graph.apply('ScatterND', [gradient, indices!, zerosLike(updates!)], {
              reduction: 'none',
            })[0]!,
      null,
      () => gradient.graph.apply('GatherND', [gradient, indices!])[0]!,
    ],
  },
  Expand: {
    infer: ([x], attributes) => [{ dtype: x!.dtype, shape: attributes['shape'] as Shape }],
    backward: ({ inputs: [x], gradient }) => [() => unbroadcast(gradient, x!), null],
  },
  ReduceSum: {
    attributes: { keepdims: 'int' },
    infer: reduceShape,
    backward: ({ inputs: [x], gradient, attributes }) => [() => spread(gradient, x!, attributes), null],
  },
  ReduceSumSquare: {
    attributes: { keepdims: 'int' },
    infer: reduceShape,
    backward: ({ inputs: [x], gradient, attributes }) => [
      () => f.multiply(x!, withReduced(f.multiply(gradient, 2), x!, attributes)),
      null,
    ],
  },
  ReduceMean: {
    attributes: { keepdims: 'int' },
    infer: reduceShape,
    backward: ({ inputs: [x], gradient, attributes }) => [
      () =>
        f.divide(spread(gradient, x!, attributes), countAlong(x!, attributes['axes'] as readonly number[])),
      null,
    ],
  },
  ReduceMax: {
    attributes: { keepdims: 'int' },
    infer: reduceShape,
    // Of several greatest each takes the whole gradient.
    backward: ({ inputs: [x], output, gradient, attributes }) => [
      () => {
        const less = gradient.graph.apply('Greater', [spread(output, x!, attributes), x!])[0]!;
        return f.where(less, gradient.graph.constant(0), spread(gradient, x!, attributes));
      },
      null,
    ],
  },
  OneHot: {
    infer: ([indices], attributes) => [
      { dtype: 'float32', shape: [...indices!.shape, attributes['depth'] as number] },
    ],
  },
  Greater: {
    infer: ([a, b]) => [{ dtype: 'bool', shape: broadcast(a!.shape, b!.shape, 'Greater') }],
  },
  Where: {
    infer: ([condition, a, b]) => [
      {
        dtype: a!.dtype,
        shape: broadcast(broadcast(condition!.shape, a!.shape, 'Where'), b!.shape, 'Where'),
      },
    ],
    backward: ({ inputs: [condition, a, b], gradient }) => {
      const zero = gradient.graph.constant(0);
      return [
        null,
        () => unbroadcast(f.where(condition!, gradient, zero), a!),
        () => unbroadcast(f.where(condition!, zero, gradient), b!),
      ];
    },
  },
  Cast: {
    infer: ([x], attributes) => [{ dtype: attributes['to'] as DType, shape: x!.shape }],
  },
  LayerNormalization: normalisation(standardised, true),
  SimplifiedLayerNormalization: normalisation((x, epsilon) => {
    const inverse = f.reciprocal(f.sqrt(f.add(f.mean(f.multiply(x, x), [-1], true), epsilon)));
    return { normal: f.multiply(x, inverse), inverse };
  }, false),
  // Inputs query, key, value [batch, rows, heads·size]. Backward holds the scores, which forward does not.
  MultiHeadAttention: {
    infer: same,
    attributes: { num_heads: 'int', scale: 'float' },
    domain: 'com.microsoft',
    backward: ({ inputs, gradient, attributes }) => {
      const [heads, scale] = [attributes['num_heads'] as number, attributes['scale'] as number];
      const [query, key, value, arriving] = [...inputs, gradient].map((x) => f.splitHeads(x, heads)) as [
        Tensor,
        Tensor,
        Tensor,
        Tensor,
      ];
      const shares = f.softmax(f.multiply(f.matmul(query, key, { b: true }), scale));
      const toScores = () => {
        const toShares = f.matmul(arriving, value, { b: true });
        const centred = f.subtract(toShares, f.sum(f.multiply(toShares, shares), [-1], true));
        return f.multiply(f.multiply(shares, centred), scale);
      };
      return [
        () => f.mergeHeads(f.matmul(toScores(), key)),
        () => f.mergeHeads(f.matmul(toScores(), query, { a: true })),
        () => f.mergeHeads(f.matmul(shares, arriving, { a: true })),
      ];
    },
  },
  // Inputs x [..., K], blocks uint8 [N, blocks, bytes], scales [N, blocks], zero points uint8 [N, bytes of them].
  MatMulNBits: {
    attributes: { K: 'int', N: 'int', bits: 'int', block_size: 'int', accuracy_level: 'int' },
    domain: 'com.microsoft',
    infer: ([x, blocks, scales, zeroPoints], attributes) => {
      const [K, N, bits, size] = ['K', 'N', 'bits', 'block_size'].map(
        (name) => attributes[name] as number,
      ) as [number, number, number, number];
      const count = K / size;
      const fits =
        x!.shape.at(-1) === K &&
        blocks!.shape.join() === [N, count, (size * bits) / 8].join() &&
        scales!.shape.join() === [N, count].join() &&
        zeroPoints!.shape.join() === [N, (count * bits) / 8].join();
      if (!fits) {
        const shapes = [x, blocks, scales, zeroPoints].map((tensor) => shapeText(tensor!.shape)).join(', ');
        throw new EmendError('internal', `MatMulNBits: ${shapes} do not fit ${N} by ${K} in ${bits} bits.`);
      }
      return [{ dtype: x!.dtype, shape: x!.shape.with(-1, N) }];
    },
    backward: ({ inputs: [, ...packed], gradient, attributes }) => [
      () => f.matmul(gradient, f.unpacked(packed as [Tensor, Tensor, Tensor], attributes['bits'] as 4 | 8)),
      null,
      null,
      null,
    ],
  },
  DequantizeLinear: {
    attributes: { axis: 'int', block_size: 'int' },
    infer: ([x]) => [{ dtype: 'float32', shape: x!.shape }],
  },
};

export function operator(name: OperatorName): Operator {
  return table[name];
}

/** Types and shapes of what an operator gives for these inputs. */
export function inferOutputs(
  name: OperatorName,
  inputs: readonly Tensor[],
  attributes: Attributes,
): readonly Output[] {
  return operator(name).infer(inputs, attributes);
}
