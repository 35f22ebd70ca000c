/**
 * @file Where the graphs of a model get their weights: from a checkpoint's files, used where they lie, or from values fed
 * at each run (training). Linear layers have one door, behind which weights may change at a run.
 */
import { EmendError } from '../errors.ts';
import * as f from '../tensor/functions.ts';
import type { DType, Graph, Tensor } from '../tensor/graph.ts';
import { float32, type Value } from '../tensor/session.ts';
import type { PackedPart, WeightSource } from './checkpoint.ts';

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
}

/**
 * A change of the linear layer x·Wᵀ: (x·R)·L is added, with R [in, rank] and L [rank, out], both row by row. Editors that change a
 * whole matrix have a rank of its shorter side.
 */
export interface WeightChange {
  readonly rank: number;
  readonly right: Float32Array;
  readonly left: Float32Array;
}

const rightName = (name: string) => `${name}.change.right`;
const leftName = (name: string) => `${name}.change.left`;

/**
 * Feeds for the changes of linear layers, by their canonical names. Layers whose change is not fed are as in the checkpoint; layers
 * that a graph was not made changeable in do not look at theirs.
 */
export function changeFeeds(changes: ReadonlyMap<string, WeightChange>): Record<string, Value> {
  const feeds: Record<string, Value> = {};
  for (const [name, { rank, right, left }] of changes) {
    if (rank < 1 || right.length % rank !== 0 || left.length % rank !== 0)
      throw new EmendError('internal', `The change of ${name} does not have rank ${rank}.`);
    feeds[rightName(name)] = float32(right, [right.length / rank, rank]);
    feeds[leftName(name)] = float32(left, [rank, left.length / rank]);
  }
  return feeds;
}

/** The weights behind `of`, as they are. */
export function fixedWeights(of: WeightOf): Weights {
  const linear: Weights['linear'] = (x, name, bias) => f.linear(x, of(`${name}.weight`), bias);
  const rows: Weights['rows'] = (ids, name) => f.gather(of(name), ids);
  return Object.assign((name: string) => of(name), { linear, rows });
}

/** `weights`, with inputs for a change of each linear layer named in `changeable`; none is fed: none acts. */
export function changeableWeights(graph: Graph, weights: Weights, changeable: ReadonlySet<string>): Weights {
  if (changeable.size === 0) return weights;
  const inputs = new Map<string, { right: Tensor; left: Tensor }>();
  const changeOf = (name: string, into: number, out: number) => {
    const known = inputs.get(name);
    if (known) return known;
    const rank = `rank of ${name}`;
    const made = {
      right: graph.optionalInput(rightName(name), 'float32', [into, rank]),
      left: graph.optionalInput(leftName(name), 'float32', [rank, out]),
    };
    inputs.set(name, made);
    return made;
  };
  const linear: Weights['linear'] = (x, name, bias) => {
    const plain = weights.linear(x, name, bias);
    if (!changeable.has(name)) return plain;
    const { right, left } = changeOf(name, x.shape.at(-1) as number, plain.shape.at(-1) as number);
    return f.add(plain, f.matmul(f.matmul(x, right), left));
  };
  return Object.assign((name: string) => weights(name), { linear, rows: weights.rows });
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
