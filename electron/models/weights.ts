/**
 * @file Where the graphs of a model get their weights: from a checkpoint's files, used where they lie, or from values fed
 * at each run (training).
 */
import { EmendError } from '../errors.ts';
import { toFloat32 } from '../tensor/functions.ts';
import type { DType, Graph, Tensor } from '../tensor/graph.ts';
import type { WeightSource } from './checkpoint.ts';

/** Gives the float32 tensor of a canonical weight name. */
export type WeightOf = (name: string) => Tensor;

const dtypes = { F32: 'float32', F16: 'float16', BF16: 'bfloat16' } as const satisfies Record<string, DType>;

/** Weights that lie in the checkpoint's files; half-precision ones are widened as the graph loads. */
export function weightsInFiles(graph: Graph, source: WeightSource): WeightOf {
  const widened = new Map<string, Tensor>();
  return (name) => {
    const known = widened.get(name);
    if (known) return known;
    const found = source.find(name);
    if (!found) throw new EmendError('damaged', `The checkpoint has no tensor ${name}.`);
    const slice = { path: found.path, offset: found.offset, bytes: found.bytes };
    const tensor = toFloat32(graph.weight(name, dtypes[found.dtype], found.shape, slice));
    widened.set(name, tensor);
    return tensor;
  };
}

/** Weights that are fed at each run, under their canonical names. */
export function weightsAsInputs(graph: Graph, shapes: ReadonlyMap<string, readonly number[]>): WeightOf {
  const inputs = new Map<string, Tensor>();
  return (name) => {
    const known = inputs.get(name);
    if (known) return known;
    const shape = shapes.get(name);
    if (!shape) throw new EmendError('internal', `No shape is known for weight ${name}.`);
    const tensor = graph.input(name, 'float32', shape);
    inputs.set(name, tensor);
    return tensor;
  };
}
