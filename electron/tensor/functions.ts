/**
 * @file Operators as plain functions on tensors, and the compositions that models and losses are made of.
 * Everything here is differentiable where the table in `operators.ts` says so.
 */
import { EmendError } from '../errors.ts';
import { axisOf, type Dim, productOfDims, type Shape, shapeText } from './dims.ts';
import type { Graph, Tensor } from './graph.ts';

/** A tensor, or a number that becomes a scalar constant beside the other operand. */
export type Operand = Tensor | number;

function one(
  graph: Graph,
  operator: Parameters<Graph['apply']>[0],
  inputs: readonly Tensor[],
  attributes = {},
): Tensor {
  return graph.apply(operator, inputs, attributes)[0]!;
}

function both(a: Operand, b: Operand): [Tensor, Tensor] {
  if (typeof a !== 'number') return [a, typeof b === 'number' ? a.graph.constant(b) : b];
  if (typeof b !== 'number') return [b.graph.constant(a), b];
  throw new EmendError('internal', 'An operation needs at least one tensor.');
}

function binary(operator: 'Add' | 'Sub' | 'Mul' | 'Div') {
  return (a: Operand, b: Operand): Tensor => {
    const [x, y] = both(a, b);
    return one(x.graph, operator, [x, y]);
  };
}

/** Elementwise with NumPy broadcasting. */
export const add = binary('Add');
export const subtract = binary('Sub');
export const multiply = binary('Mul');
export const divide = binary('Div');

type Unary = 'Neg' | 'Sqrt' | 'Exp' | 'Log' | 'Erf' | 'Tanh' | 'Sigmoid' | 'Relu' | 'Reciprocal' | 'Abs';
const unary =
  (operator: Unary) =>
  (x: Tensor): Tensor =>
    one(x.graph, operator, [x]);
export const negate = unary('Neg');
export const sqrt = unary('Sqrt');
export const exp = unary('Exp');
export const log = unary('Log');
export const erf = unary('Erf');
export const tanh = unary('Tanh');
export const sigmoid = unary('Sigmoid');
export const relu = unary('Relu');
export const reciprocal = unary('Reciprocal');
export const abs = unary('Abs');

/** x·sigmoid(1.702 x), CLIP's activation. */
export const quickGelu = (x: Tensor): Tensor => one(x.graph, 'QuickGelu', [x], { alpha: 1.702 });
/** x·sigmoid(x), Llama's activation. */
export const silu = (x: Tensor): Tensor => one(x.graph, 'QuickGelu', [x], { alpha: 1 });
/** x·Φ(x); exact (erf) unless the tanh approximation is asked for. */
export const gelu = (x: Tensor, approximate: 'none' | 'tanh' = 'none'): Tensor =>
  one(x.graph, 'Gelu', [x], { approximate });

export const softmax = (x: Tensor, axis = -1): Tensor =>
  one(x.graph, 'Softmax', [x], { axis: axisOf(axis, x.shape.length, 'softmax') });
export const logSoftmax = (x: Tensor, axis = -1): Tensor =>
  one(x.graph, 'LogSoftmax', [x], { axis: axisOf(axis, x.shape.length, 'logSoftmax') });

/** Batched matrix product over the last two axes; the flags transpose an operand first. */
export function matmul(a: Tensor, b: Tensor, transpose: { a?: boolean; b?: boolean } = {}): Tensor {
  return one(a.graph, 'MatMul', [transpose.a ? swapLast(a) : a, transpose.b ? swapLast(b) : b]);
}

function swapLast(x: Tensor): Tensor {
  const axes = x.shape.map((_, axis) => axis);
  const last = axes.length - 1;
  [axes[last], axes[last - 1]] = [axes[last - 1]!, axes[last]!];
  return transpose(x, axes);
}

/** x·Wᵀ + b. x [..., in], weight [out, in] as checkpoints hold it, bias [out] → [..., out]. */
export function linear(x: Tensor, weight: Tensor, bias?: Tensor): Tensor {
  const rank = x.shape.length;
  const flat = rank === 2 ? x : reshape(x, [productOfDims(x.shape.slice(0, -1)), x.shape[rank - 1]!]);
  const result = one(x.graph, 'Gemm', bias ? [flat, weight, bias] : [flat, weight], { transA: 0, transB: 1 });
  return rank === 2 ? result : reshape(result, [...x.shape.slice(0, -1), weight.shape[0]!], x);
}

/** x·W + c in one. x [..., in], W [in, out], c [..., out] → [..., out]. */
export function productPlus(x: Tensor, weight: Tensor, c: Tensor): Tensor {
  const flat = (y: Tensor) => reshape(y, [productOfDims(y.shape.slice(0, -1)), y.shape.at(-1)!]);
  const result = one(x.graph, 'Gemm', [flat(x), weight, flat(c)], { transA: 0, transB: 0 });
  return reshape(result, c.shape, c);
}

/** A matrix [out, in] in blocks along its rows: an element of block b is scales[b]·(its bits − zeroPoints[b]). */
export interface PackedMatrix {
  readonly bits: 4 | 8;
  /** uint8 [out, blocks, bytes of a block] */
  readonly blocks: Tensor;
  /** float32 [out, blocks] */
  readonly scales: Tensor;
  /** uint8 [out, bytes]: one number of `bits` bits for each block */
  readonly zeroPoints: Tensor;
}

/**
 * x·Ŵᵀ + bias with a packed W. x [..., in], bias [out] → [..., out]. On cpu x is rounded to 8 bits by the block too (accuracy level 4):
 * anything else is a hundred times slower there. Differentiable by x.
 */
export function packedLinear(
  x: Tensor,
  { bits, blocks, scales, zeroPoints }: PackedMatrix,
  bias?: Tensor,
): Tensor {
  const [N, count, bytes] = blocks.shape as [number, number, number];
  const size = (bytes * 8) / bits;
  const attributes = { K: count * size, N, bits, block_size: size, accuracy_level: 4 };
  const product = one(x.graph, 'MatMulNBits', [x, blocks, scales, zeroPoints], attributes);
  return bias ? add(product, bias) : product;
}

/** The elements of a packed matrix, made when they are used: float32 [out, in]. */
export function unpacked(
  [blocks, scales, zeroPoints]: readonly [Tensor, Tensor, Tensor],
  bits: 4 | 8,
): Tensor {
  const { graph } = blocks;
  const [out, count, bytes] = blocks.shape as [number, number, number];
  const size = (bytes * 8) / bits;
  const dtype = bits === 4 ? 'uint4' : 'uint8';
  const elements = graph.reinterpret(blocks, dtype, [out, count * size]);
  const zeros = graph.reinterpret(zeroPoints, dtype, [out, count]);
  return dequantized(elements, scales, zeros);
}

/** scales·(elements − zeros), by blocks along rows. elements [out, in], scales and zeros [out, blocks] → float32 [out, in]. */
export function dequantized(elements: Tensor, scales: Tensor, zeros: Tensor): Tensor {
  const size = (elements.shape[1] as number) / (scales.shape[1] as number);
  return one(elements.graph, 'DequantizeLinear', [elements, scales, zeros], { axis: 1, block_size: size });
}

export function transpose(x: Tensor, permutation: readonly number[]): Tensor {
  return one(x.graph, 'Transpose', [x], { perm: [...permutation] });
}

/**
 * The same elements in another shape. Symbolic sizes are taken from `x`, then from `like`, at run time;
 * one size may be left to be inferred.
 */
export function reshape(x: Tensor, shape: Shape, like: Tensor = x): Tensor {
  if (shape.length === x.shape.length && shape.every((dim, axis) => dim === x.shape[axis])) return x;
  const graph = x.graph;
  const unresolved = shape.filter((dim, axis) => typeof dim === 'string' && x.shape[axis] !== dim);
  let sizes: Tensor;
  if (unresolved.length <= 1) {
    const plain = shape.map((dim, axis) => (typeof dim === 'number' ? dim : x.shape[axis] === dim ? 0 : -1));
    sizes = graph.constant(plain, [plain.length], 'int64');
  } else {
    sizes = concat(
      shape.map((dim) => sizeOf(dim, [x, like])),
      0,
    );
  }
  return one(graph, 'Reshape', [x, sizes], { shape: [...shape] });
}

/** The run-time value of a size, as an int64 tensor [1]. */
function sizeOf(dim: Dim, sources: readonly Tensor[]): Tensor {
  const graph = sources[0]!.graph;
  if (typeof dim === 'number') return graph.constant([dim], [1], 'int64');
  for (const source of sources) {
    const axis = source.shape.indexOf(dim);
    if (axis >= 0) return slice(one(graph, 'Shape', [source]), 0, axis, axis + 1);
  }
  throw new EmendError('internal', `No tensor at hand has an axis of size ${dim}.`);
}

/** The run-time shape of a tensor, int64 [rank]. */
export const shapeOf = (x: Tensor): Tensor => one(x.graph, 'Shape', [x]);

export function concat(parts: readonly Tensor[], axis: number): Tensor {
  const first = parts[0];
  if (!first) throw new EmendError('internal', 'concat needs at least one tensor.');
  if (parts.length === 1) return first;
  return one(first.graph, 'Concat', parts, { axis: axisOf(axis, first.shape.length, 'concat') });
}

/** Elements start..end (end exclusive) of one axis. A symbolic axis takes `size`, the size of the result. */
export function slice(x: Tensor, axis: number, start: number, end: number, size?: Dim): Tensor {
  const at = axisOf(axis, x.shape.length, 'slice');
  const dim = x.shape[at]!;
  const extent = size ?? sliceSize(dim, start, end);
  const list = (value: number) => x.graph.constant([value], [1], 'int64');
  return one(x.graph, 'Slice', [x, list(start), list(end), list(at)], { axis: at, start, end, size: extent });
}

function sliceSize(dim: Dim, start: number, end: number): Dim {
  if (typeof dim === 'number') {
    const clamp = (value: number) => Math.min(Math.max(value < 0 ? value + dim : value, 0), dim);
    return Math.max(clamp(end) - clamp(start), 0);
  }
  if (start >= 0 && end >= 0) return end - start;
  if (start < 0 && (end < 0 || end === Number.MAX_SAFE_INTEGER)) return (end < 0 ? end : 0) - start;
  throw new EmendError(
    'internal',
    `slice: the size of ${start}..${end} of an axis of size ${dim} must be given.`,
  );
}

/** Rows of `x` along `axis` picked by int64 indices of any shape. */
export function gather(x: Tensor, indices: Tensor, axis = 0): Tensor {
  return one(x.graph, 'Gather', [x, indices], { axis: axisOf(axis, x.shape.length, 'gather') });
}

/** Writes `updates` [n, ...row] over rows `indices` [n] of x [rows, ...row]; `add` sums into them instead. */
export function scatterRows(
  x: Tensor,
  indices: Tensor,
  updates: Tensor,
  mode: 'replace' | 'add' = 'replace',
): Tensor {
  const column = one(x.graph, 'Unsqueeze', [indices, x.graph.constant([1], [1], 'int64')], { axis: 1 });
  return one(x.graph, 'ScatterND', [x, column, updates], { reduction: mode === 'add' ? 'add' : 'none' });
}

const reduction =
  (operator: 'ReduceSum' | 'ReduceSumSquare' | 'ReduceMean' | 'ReduceMax') =>
  (x: Tensor, axes: readonly number[] = x.shape.map((_, axis) => axis), keep = false): Tensor => {
    const at = axes.map((axis) => axisOf(axis, x.shape.length, operator));
    return one(x.graph, operator, [x, x.graph.constant(at, [at.length], 'int64')], {
      axes: at,
      keepdims: keep ? 1 : 0,
    });
  };
export const sum = reduction('ReduceSum');
export const sumOfSquares = reduction('ReduceSumSquare');
export const mean = reduction('ReduceMean');
export const max = reduction('ReduceMax');

/** Repeats axes of size 1 to the shape of `like`. */
export function expandLike(x: Tensor, like: Tensor): Tensor {
  const fixed = like.shape.every((dim) => typeof dim === 'number');
  const sizes = fixed
    ? x.graph.constant(like.shape as number[], [like.shape.length], 'int64')
    : shapeOf(like);
  return one(x.graph, 'Expand', [x, sizes], { shape: [...like.shape] });
}

/** 1 where the index is the class, 0 elsewhere. indices int64 [...] → float32 [..., depth]. */
export const oneHot = (indices: Tensor, depth: number): Tensor =>
  one(
    indices.graph,
    'OneHot',
    [indices, indices.graph.constant([depth], [1], 'int64'), indices.graph.constant([0, 1])],
    { depth },
  );

/** Elementwise choice: condition (bool) ? a : b. */
export const where = (condition: Tensor, a: Tensor, b: Tensor): Tensor =>
  one(condition.graph, 'Where', [condition, a, b]);

/** float32 view of a float16 or bfloat16 tensor. */
export const toFloat32 = (x: Tensor): Tensor =>
  x.dtype === 'float32' ? x : one(x.graph, 'Cast', [x], { to: 'float32' });

/** (x − mean)/√(var + ε)·weight + bias over the last axis. */
export const layerNorm = (x: Tensor, weight: Tensor, bias: Tensor, epsilon: number): Tensor =>
  one(x.graph, 'LayerNormalization', [x, weight, bias], { axis: -1, epsilon });

/** x/√(mean(x²) + ε)·weight over the last axis. */
export const rmsNorm = (x: Tensor, weight: Tensor, epsilon: number): Tensor =>
  one(x.graph, 'SimplifiedLayerNormalization', [x, weight], { axis: -1, epsilon });

/** [batch, rows, heads·size] → [batch, heads, rows, size]. */
export function splitHeads(x: Tensor, heads: number): Tensor {
  const [batch, rows, width] = x.shape;
  if (x.shape.length !== 3 || typeof width !== 'number' || width % heads !== 0) {
    throw new EmendError('internal', `splitHeads: ${shapeText(x.shape)} does not split into ${heads} heads.`);
  }
  return transpose(reshape(x, [batch!, rows!, heads, width / heads]), [0, 2, 1, 3]);
}

/** [batch, heads, rows, size] → [batch, rows, heads·size]. */
export function mergeHeads(x: Tensor): Tensor {
  const [batch, heads, rows, size] = x.shape;
  return reshape(transpose(x, [0, 2, 1, 3]), [batch!, rows!, productOfDims([heads!, size!])]);
}

/**
 * Attention of every row over every row, heads apart, in one operator: on cpu its memory grows with the rows and not with their
 * square. query, key, value [batch, rows, heads·size] → the same shape.
 */
export function fusedAttention(query: Tensor, key: Tensor, value: Tensor, heads: number): Tensor {
  const size = (query.shape[2] as number) / heads;
  return one(query.graph, 'MultiHeadAttention', [query, key, value], {
    num_heads: heads,
    scale: 1 / Math.sqrt(size),
  });
}

/** What {@link fusedAttention} computes, by plain operators: the scores [batch, rows, rows] of one head at a time. */
export function attentionByHeads(query: Tensor, key: Tensor, value: Tensor, heads: number): Tensor {
  const size = (query.shape[2] as number) / heads;
  const mixed = Array.from({ length: heads }, (_, head) => {
    const [q, k, v] = [query, key, value].map((x) => slice(x, 2, head * size, (head + 1) * size)) as [
      Tensor,
      Tensor,
      Tensor,
    ];
    return matmul(softmax(matmul(multiply(q, 1 / Math.sqrt(size)), k, { b: true })), v);
  });
  return concat(mixed, 2);
}

/** −log p(label), per row. logits [n, classes], labels int64 [n] → [n]. */
export function crossEntropy(logits: Tensor, labels: Tensor): Tensor {
  const classes = logits.shape[logits.shape.length - 1];
  if (typeof classes !== 'number')
    throw new EmendError('internal', 'crossEntropy needs a fixed number of classes.');
  return negate(sum(multiply(logSoftmax(logits), oneHot(labels, classes)), [-1]));
}

/** KL(p ‖ q) per row from logits. reference (p) and logits (q) [n, classes] → [n]. */
export function klDivergence(reference: Tensor, logits: Tensor): Tensor {
  const p = softmax(reference);
  return sum(multiply(p, subtract(logSoftmax(reference), logSoftmax(logits))), [-1]);
}

/** log σ(x), safe for large |x|: min(x, 0) − log(1 + e^−|x|). */
export function logSigmoid(x: Tensor): Tensor {
  return subtract(negate(relu(negate(x))), log(add(exp(negate(abs(x))), 1)));
}
