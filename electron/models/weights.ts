/**
 * @file Where the graphs of a model get their weights: from a checkpoint's files, used where they lie, or from values fed
 * at each run (training). Linear layers have one door, behind which weights may change at a run.
 */
import { EmendError } from '../errors.ts';
import * as f from '../tensor/functions.ts';
import type { DType, Graph, Tensor } from '../tensor/graph.ts';
import type { PackedPart, WeightSource } from './checkpoint.ts';
import type { Mlp } from './decoder.ts';
import { changeInputs } from './weightChanges.ts';

/** Gives the float32 tensor of a canonical weight name. */
export type WeightOf = (name: string) => Tensor;

/** The weights of one graph: tensors by canonical name, and the door every linear layer goes through. */
export interface Weights extends WeightOf {
  /**
   * x·Wᵀ + bias, with the layer's change where one is fed. The layer's weight is `name.weight` [out, in].
   * x [..., in], bias [out] → [..., out].
   */
  linear(x: Tensor, name: string, bias?: Tensor): Tensor;
  /** Rows of the table `name` [entries, width]. ids int64 [...] → [..., width]. */
  rows(ids: Tensor, name: string): Tensor;
  /** What neurons beside an MLP's own give, where there may be such. normed [..., hidden] as the MLP reads it → [..., hidden]. */
  neurons?(normed: Tensor, mlp: Mlp): Tensor | null;
}

/** The weights behind `of`, as they are. */
export function fixedWeights(of: WeightOf): Weights {
  const linear: Weights['linear'] = (x, name, bias) => f.linear(x, of(`${name}.weight`), bias);
  const rows: Weights['rows'] = (ids, name) => f.gather(of(name), ids);
  return Object.assign((name: string) => of(name), { linear, rows });
}

/**
 * `weights`, with inputs for a change of each linear layer, tensor of one axis and MLP named in `changeable`; none is fed: none acts.
 * Layers that a graph was not made changeable in do not look at their changes.
 */
export function changeableWeights(graph: Graph, weights: Weights, changeable: ReadonlySet<string>): Weights {
  if (changeable.size === 0) return weights;
  const inputs = changeInputs(graph);
  const linear: Weights['linear'] = (x, name, bias) => {
    const plain = weights.linear(x, name, bias);
    if (!changeable.has(name)) return plain;
    const { right, left } = inputs.linear(name, x.shape.at(-1) as number, plain.shape.at(-1) as number);
    return f.add(plain, f.matmul(f.matmul(x, right), left));
  };
  const vectors = new Map<string, Tensor>();
  const of = (name: string) => {
    const plain = weights(name);
    if (!changeable.has(name)) return plain;
    const changed = vectors.get(name) ?? f.add(plain, inputs.vector(name, plain.shape[0] as number));
    vectors.set(name, changed);
    return changed;
  };
  const neurons: Weights['neurons'] = (normed, mlp) => {
    const below = weights.neurons?.(normed, mlp) ?? null;
    if (!changeable.has(mlp.name)) return below;
    const { keys, values } = inputs.neurons(mlp, normed.shape.at(-1) as number);
    const own = addedNeurons(normed, mlp, keys, values);
    return below ? f.add(below, own) : own;
  };
  return Object.assign(of, { linear, rows: weights.rows, neurons });
}

/**
 * Neurons beside an MLP's own. normed [..., hidden]; for each of the MLP's `into`, weight [neurons, hidden] and bias [neurons];
 * values [neurons, hidden] → [..., hidden].
 */
export function addedNeurons(
  normed: Tensor,
  mlp: Mlp,
  keys: ReadonlyArray<{ readonly weight: Tensor; readonly bias: Tensor | null }>,
  values: Tensor,
): Tensor {
  const inner = keys.map(({ weight, bias }) => {
    const product = f.matmul(normed, f.transpose(weight, [1, 0]));
    return bias ? f.add(product, bias) : product;
  });
  return f.matmul(mlp.activate(inner), values);
}

/**
 * `weights`, with somebody at the door: `gives` is told what a linear layer reads and gives, and says what it gives instead; `reads`
 * says what it reads instead.
 */
export function observedWeights(
  weights: Weights,
  gives: (name: string, x: Tensor, out: Tensor) => Tensor,
  reads: (name: string, x: Tensor) => Tensor = (_, x) => x,
): Weights {
  const linear: Weights['linear'] = (x, name, bias) => {
    const read = reads(name, x);
    return gives(name, read, weights.linear(read, name, bias));
  };
  return Object.assign((name: string) => weights(name), { ...weights, linear });
}

const deltaName = (name: string) => `delta.${name}`;

/**
 * `weights`, with inputs for what is added to each tensor of `shapes`, [out, in] of linear layers and [size] of others, under `delta.` and
 * its canonical name. Differentiable by them, packed matrices included.
 */
export function deltaWeights(
  graph: Graph,
  weights: Weights,
  shapes: ReadonlyMap<string, readonly number[]>,
): { readonly weights: Weights; readonly deltas: ReadonlyMap<string, Tensor> } {
  const deltas = new Map(
    [...shapes].map(([name, shape]) => [name, graph.input(deltaName(name), 'float32', shape)]),
  );
  const linear: Weights['linear'] = (x, name, bias) => {
    const plain = weights.linear(x, name, bias);
    const delta = deltas.get(`${name}.weight`);
    return delta ? f.add(plain, f.linear(x, delta)) : plain;
  };
  const of = (name: string) => {
    const delta = deltas.get(name);
    return delta?.shape.length === 1 ? f.add(weights(name), delta) : weights(name);
  };
  return { weights: Object.assign(of, { ...weights, linear }), deltas };
}

const dtypes = { F32: 'float32', F16: 'float16', BF16: 'bfloat16' } as const satisfies Record<string, DType>;

/** Weights that lie in the checkpoint's files; half-precision ones are widened as the graph loads, packed ones stay packed. */
export function weightsInFiles(graph: Graph, source: WeightSource): Weights {
  const inFile = (name: string, found = source.find(name)) => {
    if (!found) throw new EmendError('damaged', `The checkpoint has no tensor ${name}.`);
    return graph.weight(name, dtypes[found.dtype], found.shape, sliceOf(found));
  };
  const widened = new Map<string, Tensor>();
  const dense = fixedWeights((name) => {
    const tensor = widened.get(name) ?? f.toFloat32(inFile(name));
    widened.set(name, tensor);
    return tensor;
  });
  const linear: Weights['linear'] = (x, name, bias) => {
    const found = source.packed?.(`${name}.weight`);
    if (!found) return dense.linear(x, name, bias);
    const part = (of: PackedPart, suffix: string, dtype: DType) =>
      graph.weight(`${name}.weight.${suffix}`, dtype, of.shape, sliceOf(of));
    const matrix = {
      bits: found.bits,
      blocks: part(found.blocks, 'blocks', 'uint8'),
      scales: part(found.scales, 'scales', 'float32'),
      zeroPoints: part(found.zeroPoints, 'zero_points', 'uint8'),
    };
    return f.packedLinear(x, matrix, bias);
  };
  /** Rows of a table: those asked for are widened, not the table. */
  const rows: Weights['rows'] = (ids, name) =>
    f.toFloat32(f.gather(inFile(name, source.table?.(name) ?? source.find(name)), ids));
  return Object.assign((name: string) => dense(name), { linear, rows });
}

const sliceOf = ({ path, offset, bytes }: PackedPart) => ({ path, offset, bytes });

/** Weights that are fed at each run, under their canonical names. */
export function weightsAsInputs(graph: Graph, shapes: ReadonlyMap<string, readonly number[]>): Weights {
  const inputs = new Map<string, Tensor>();
  return fixedWeights((name) => {
    const known = inputs.get(name);
    if (known) return known;
    const shape = shapes.get(name);
    if (!shape) throw new EmendError('internal', `No shape is known for weight ${name}.`);
    const tensor = graph.input(name, 'float32', shape);
    inputs.set(name, tensor);
    return tensor;
  });
}
