/**
 * @file Changes of a model's weights that are fed at a run: what they are, how several act as one, and how they are kept as bytes.
 */
import { EmendError } from '../errors.ts';
import { decodeSafetensors, encodeSafetensors, type WritableTensor } from '../files/safetensors.ts';
import type { Graph, Tensor } from '../tensor/graph.ts';
import { float32, type Value } from '../tensor/session.ts';
import type { Decoder, Mlp } from './decoder.ts';

/** Of a linear layer x·Wᵀ: (x·R)·L is added, with R `right` [in, rank] and L `left` [rank, out], both row by row. */
export interface LinearChange {
  readonly rank: number;
  readonly right: Float32Array;
  readonly left: Float32Array;
}

/** Of a linear layer whose whole matrix changes: `matrix` [out, in] is added to W, row by row. */
export interface MatrixChange {
  /** outputs of the layer */
  readonly out: number;
  readonly matrix: Float32Array;
}

/** Of a tensor of one axis, a bias or a norm's scale: `added` is added to it. */
export interface VectorChange {
  readonly added: Float32Array;
}

/** Neurons beside an MLP's own, under the MLP's name. */
export interface AddedNeurons {
  readonly count: number;
  /** for each linear layer into the MLP's inner width: weights [count, hidden] and biases [count] */
  readonly keys: ReadonlyArray<{ readonly weight: Float32Array; readonly bias: Float32Array }>;
  /** [count, hidden] */
  readonly values: Float32Array;
}

export type WeightChange = LinearChange | MatrixChange | VectorChange | AddedNeurons;

/**
 * Changes that act in a run, by canonical names: linear layers without `.weight`, tensors of one axis with their whole name, MLPs by
 * theirs. What they name must have been made changeable as the model was opened.
 */
export type WeightChanges = ReadonlyMap<string, WeightChange>;

const part = (name: string, of: string) => `${name}.change.${of}`;

/** Inputs of a graph for changes; what is not fed is empty and changes nothing. */
export function changeInputs(graph: Graph) {
  const made = new Map<string, Tensor>();
  const input = (name: string, shape: readonly (number | string)[]) => {
    const known = made.get(name) ?? graph.optionalInput(name, 'float32', shape);
    made.set(name, known);
    return known;
  };
  return {
    linear: (name: string, into: number, out: number) => ({
      right: input(part(name, 'right'), [into, `rank of ${name}`]),
      left: input(part(name, 'left'), [`rank of ${name}`, out]),
    }),
    vector: (name: string, size: number) => input(part(name, 'added'), [size]),
    neurons(mlp: Mlp, hidden: number) {
      const count = `neurons of ${mlp.name}`;
      return {
        keys: mlp.into.map((_, index) => ({
          weight: input(part(mlp.name, `key.${index}`), [count, hidden]),
          bias: input(part(mlp.name, `bias.${index}`), [count]),
        })),
        values: input(part(mlp.name, 'values'), [count, hidden]),
      };
    },
  };
}

/** The names of a graph's inputs that a change has. */
export const changeInputNames = (name: string): string[] =>
  ['right', 'added', 'values'].map((of) => part(name, of));

const fedBefore = new WeakMap<WeightChange, Readonly<Record<string, Value>>>();

/** Feeds for changes. Layers whose change is not fed are as in the checkpoint. */
export function changeFeeds(changes: WeightChanges): Record<string, Value> {
  const feeds: Record<string, Value> = {};
  for (const [name, change] of changes) {
    const own = fedBefore.get(change) ?? feedsOf(change);
    fedBefore.set(change, own);
    for (const [of, value] of Object.entries(own)) feeds[part(name, of)] = value;
  }
  return feeds;
}

function feedsOf(change: WeightChange): Record<string, Value> {
  const rows = (data: Float32Array, count: number) => {
    if (count < 1 || data.length % count !== 0)
      throw new EmendError('internal', `A change of ${data.length} numbers has no ${count} rows.`);
    return float32(data, [count, data.length / count]);
  };
  if ('added' in change) return { added: float32(change.added, [change.added.length]) };
  if ('values' in change) {
    const { count, keys, values } = change;
    return {
      ...Object.fromEntries(keys.map(({ weight }, index) => [`key.${index}`, rows(weight, count)])),
      ...Object.fromEntries(keys.map(({ bias }, index) => [`bias.${index}`, float32(bias, [count])])),
      values: rows(values, count),
    };
  }
  const { rank, right, left } = 'matrix' in change ? factored(change) : change;
  if (rank < 1 || right.length % rank !== 0)
    throw new EmendError('internal', `A change of ${right.length} numbers does not have rank ${rank}.`);
  return { right: float32(right, [right.length / rank, rank]), left: rows(left, rank) };
}

/** A whole matrix as factors: itself, and the identity on its shorter side. Exact. */
function factored({ matrix, out }: MatrixChange): LinearChange {
  const into = matrix.length / out;
  const turned = new Float32Array(matrix.length);
  for (let o = 0; o < out; o++) for (let i = 0; i < into; i++) turned[i * out + o] = matrix[o * into + i]!;
  const rank = Math.min(into, out);
  const identity = new Float32Array(rank * rank);
  for (let k = 0; k < rank; k++) identity[k * rank + k] = 1;
  return out <= into ? { rank, right: turned, left: identity } : { rank, right: identity, left: turned };
}

/** A change of a linear layer as a whole matrix [out, in]. */
export function matrixOf(change: LinearChange | MatrixChange): MatrixChange {
  if ('matrix' in change) return change;
  const { rank, right, left } = change;
  const [into, out] = [right.length / rank, left.length / rank];
  const matrix = new Float32Array(out * into);
  for (let o = 0; o < out; o++) {
    for (let i = 0; i < into; i++) {
      let sum = 0;
      for (let k = 0; k < rank; k++) sum += right[i * rank + k]! * left[k * out + o]!;
      matrix[o * into + i] = sum;
    }
  }
  return { out, matrix };
}

/** What several changes do together: their sum. Neurons stand beside one another. */
export function sumOfChanges(all: readonly WeightChanges[]): WeightChanges {
  if (all.length === 1) return all[0]!;
  const sum = new Map<string, WeightChange>();
  for (const changes of all) {
    for (const [name, change] of changes) {
      const sofar = sum.get(name);
      sum.set(name, sofar ? together(sofar, change, name) : change);
    }
  }
  return sum;
}

function plus(a: Float32Array, b: Float32Array): Float32Array {
  return a.map((value, i) => value + b[i]!);
}

function behind(a: Float32Array, b: Float32Array): Float32Array {
  const both = new Float32Array(a.length + b.length);
  both.set(a);
  both.set(b, a.length);
  return both;
}

function together(a: WeightChange, b: WeightChange, name: string): WeightChange {
  if ('added' in a && 'added' in b) return { added: plus(a.added, b.added) };
  if ('values' in a && 'values' in b)
    return {
      count: a.count + b.count,
      keys: a.keys.map(({ weight, bias }, index) => ({
        weight: behind(weight, b.keys[index]!.weight),
        bias: behind(bias, b.keys[index]!.bias),
      })),
      values: behind(a.values, b.values),
    };
  if ('added' in a || 'added' in b || 'values' in a || 'values' in b)
    throw new EmendError('internal', `Two changes of ${name} are not of one kind.`);
  if ('rank' in a && 'rank' in b) {
    const rank = a.rank + b.rank;
    const [into, out] = [a.right.length / a.rank, a.left.length / a.rank];
    if (rank <= Math.min(into, out)) {
      const right = new Float32Array(into * rank);
      for (let i = 0; i < into; i++) {
        right.set(a.right.subarray(i * a.rank, (i + 1) * a.rank), i * rank);
        right.set(b.right.subarray(i * b.rank, (i + 1) * b.rank), i * rank + a.rank);
      }
      return { rank, right, left: behind(a.left, b.left) };
    }
  }
  const { out, matrix } = matrixOf(a);
  return { out, matrix: plus(matrix, matrixOf(b).matrix) };
}

/** Changes as bytes, for the library. */
export function encodeChanges(changes: WeightChanges): Uint8Array {
  const tensors = new Map<string, WritableTensor>();
  const put = (name: string, shape: readonly number[], data: Float32Array) =>
    tensors.set(name, { dtype: 'F32', shape, data });
  for (const [name, change] of changes) {
    if ('added' in change) put(part(name, 'added'), [change.added.length], change.added);
    else if ('matrix' in change)
      put(part(name, 'matrix'), [change.out, change.matrix.length / change.out], change.matrix);
    else if ('rank' in change) {
      const { rank, right, left } = change;
      put(part(name, 'right'), [right.length / rank, rank], right);
      put(part(name, 'left'), [rank, left.length / rank], left);
    } else {
      const { count, keys, values } = change;
      for (const [index, { weight, bias }] of keys.entries()) {
        put(part(name, `key.${index}`), [count, weight.length / count], weight);
        put(part(name, `bias.${index}`), [count], bias);
      }
      put(part(name, 'values'), [count, values.length / count], values);
    }
  }
  return encodeSafetensors(tensors);
}

/** What changes of a model may be: shapes of its tensors by canonical name, and its MLPs. */
export interface Changeable {
  readonly shapes: ReadonlyMap<string, readonly number[]>;
  readonly mlps: ReadonlyMap<string, Mlp>;
  readonly hidden: number;
}

/** Neurons that one edit may add to an MLP. */
const MOST_NEURONS = 4096;

/** What may be changed in a model. */
export function changeableParts(
  shapes: ReadonlyMap<string, readonly number[]>,
  decoder: Pick<Decoder, 'layers' | 'hidden' | 'mlp'>,
): Changeable {
  const mlps = Array.from({ length: decoder.layers }, (_, layer) => decoder.mlp(layer));
  return { shapes, mlps: new Map(mlps.map((mlp) => [mlp.name, mlp])), hidden: decoder.hidden };
}

/** Whether a model has something of this name that can be changed. */
export function canChange(name: string, { shapes, mlps }: Changeable): boolean {
  return shapes.get(`${name}.weight`)?.length === 2 || shapes.get(name)?.length === 1 || mlps.has(name);
}

/**
 * Changes from bytes. `names`: those that the editor changes; `mostRank`: of low-rank changes, the matrix's own where absent.
 * @throws EmendError 'damaged' where they are not changes of these in this model
 */
export function decodeChanges(
  bytes: Uint8Array,
  names: readonly string[],
  model: Changeable,
  mostRank?: number,
): WeightChanges {
  const { tensors } = decodeSafetensors(bytes, 'The stored edit');
  const refuse = (why: string): never => {
    throw new EmendError(
      'damaged',
      `The stored edit does not belong to this model: ${why}. Check the edit again.`,
    );
  };
  let taken = 0;
  const floats = (name: string, shape: readonly (number | null)[]): Float32Array => {
    const found = tensors.get(name);
    const fits =
      found?.data instanceof Float32Array &&
      found.shape.length === shape.length &&
      shape.every((size, axis) => size === null || size === found.shape[axis]);
    if (!fits) return refuse(`${name} is not of its size`);
    if (!(found.data as Float32Array).every(Number.isFinite))
      return refuse(`${name} holds what is no number`);
    taken++;
    return found.data as Float32Array;
  };
  const changes = new Map<string, WeightChange>();
  for (const name of names) {
    const has = (of: string) => tensors.has(part(name, of));
    const mlp = model.mlps.get(name);
    if (mlp && has('values')) {
      const values = floats(part(name, 'values'), [null, model.hidden]);
      const count = values.length / model.hidden;
      if (count < 1 || count > MOST_NEURONS) refuse(`${count} neurons beside ${name}`);
      const keys = mlp.into.map((_, index) => ({
        weight: floats(part(name, `key.${index}`), [count, model.hidden]),
        bias: floats(part(name, `bias.${index}`), [count]),
      }));
      changes.set(name, { count, keys, values });
      continue;
    }
    const vector = model.shapes.get(name);
    if (vector?.length === 1 && has('added')) {
      changes.set(name, { added: floats(part(name, 'added'), vector) });
      continue;
    }
    const [out, into] = model.shapes.get(`${name}.weight`) ?? [];
    if (out === undefined || into === undefined) continue;
    if (has('matrix')) changes.set(name, { out, matrix: floats(part(name, 'matrix'), [out, into]) });
    else if (has('right')) {
      const right = floats(part(name, 'right'), [into, null]);
      const rank = right.length / into;
      if (rank < 1 || rank > (mostRank ?? Math.min(into, out))) refuse(`a change of ${name} of rank ${rank}`);
      changes.set(name, { rank, right, left: floats(part(name, 'left'), [rank, out]) });
    }
  }
  if (changes.size === 0 || taken !== tensors.size) refuse('it changes other layers than this editor does');
  return changes;
}
