/**
 * @file A computation graph: tensors with symbolic shapes and the nodes that make them.
 * Operators live in `operators.ts`; this file only knows how a graph is put together.
 */
import { EmendError } from '../errors.ts';
import { type Dim, type Shape, shapeText } from './dims.ts';
import { type Attributes, inferOutputs, type OperatorName } from './operators.ts';

/** Two elements of `uint4` lie in a byte, the first in its lower half. */
export type DType = 'float32' | 'float16' | 'bfloat16' | 'int64' | 'int32' | 'uint8' | 'uint4' | 'bool';

/** Bytes that lie in a file the graph points into (ONNX external data). */
export interface FileSlice {
  /** absolute path of the file */
  readonly path: string;
  /** bytes from the start of the file */
  readonly offset: number;
  readonly bytes: number;
}

/** Where a tensor's value comes from. */
export type Origin =
  | { readonly kind: 'input'; readonly optional: boolean }
  | { readonly kind: 'constant'; readonly bytes: Uint8Array }
  | { readonly kind: 'file'; readonly slice: FileSlice }
  | { readonly kind: 'node'; readonly node: Node; readonly index: number };

export interface Tensor {
  readonly graph: Graph;
  readonly id: number;
  readonly name: string;
  readonly dtype: DType;
  readonly shape: Shape;
  readonly origin: Origin;
}

export interface Node {
  readonly operator: OperatorName;
  readonly inputs: readonly Tensor[];
  readonly attributes: Attributes;
  outputs: readonly Tensor[];
}

const bytesPer: Record<DType, number> = {
  float32: 4,
  float16: 2,
  bfloat16: 2,
  int64: 8,
  int32: 4,
  uint8: 1,
  uint4: 0.5,
  bool: 1,
};

const byteLength = (dtype: DType, shape: Shape) =>
  (shape as readonly number[]).reduce((a, b) => a * b, 1) * bytesPer[dtype];

/** Builds one graph. Nodes are kept in the order they were added, which is a topological order. */
export class Graph {
  readonly nodes: Node[] = [];
  readonly inputs: Tensor[] = [];
  readonly outputs = new Map<string, Tensor>();
  readonly #byName = new Map<string, Tensor>();
  readonly #constants = new Map<string, Tensor>();
  #next = 0;

  /** A value given at each run. */
  input(name: string, dtype: DType, shape: Shape): Tensor {
    return this.#input(name, dtype, shape, false);
  }

  /** A value that may be given at a run. Where it is not, it is empty: its symbolic sizes are 0. */
  optionalInput(name: string, dtype: 'float32', shape: Shape): Tensor {
    return this.#input(name, dtype, shape, true);
  }

  #input(name: string, dtype: DType, shape: Shape, optional: boolean): Tensor {
    const tensor = this.#tensor(name, dtype, shape, { kind: 'input', optional });
    this.inputs.push(tensor);
    return tensor;
  }

  /** A value held in a file, used where it lies. The same name gives the same tensor. */
  weight(name: string, dtype: DType, shape: readonly number[], slice: FileSlice): Tensor {
    const known = this.#byName.get(name);
    if (known) return known;
    const bytes = byteLength(dtype, shape);
    if (bytes !== slice.bytes) {
      throw new EmendError(
        'internal',
        `Weight ${name}: ${shapeText(shape)} of ${dtype} takes ${bytes} bytes, not ${slice.bytes}.`,
      );
    }
    return this.#tensor(name, dtype, shape, { kind: 'file', slice });
  }

  /** A small constant kept inside the graph. Equal constants are kept once. */
  constant(
    values: number | readonly number[] | Float32Array,
    shape?: readonly number[],
    dtype: DType = 'float32',
  ): Tensor {
    const list = typeof values === 'number' ? [values] : values;
    const size = shape ?? (typeof values === 'number' ? [] : [list.length]);
    if (size.reduce((a, b) => a * b, 1) !== list.length) {
      throw new EmendError(
        'internal',
        `Constant of shape ${shapeText(size)} was given ${list.length} values.`,
      );
    }
    const bytes =
      dtype === 'int64'
        ? new Uint8Array(BigInt64Array.from(list as number[], (value) => BigInt(value)).buffer)
        : dtype === 'float32'
          ? new Uint8Array(Float32Array.from(list as number[]).buffer)
          : dtype === 'bool' || dtype === 'uint8'
            ? Uint8Array.from(list as number[])
            : undefined;
    if (!bytes) throw new EmendError('internal', `Constants of ${dtype} are not written.`);
    const key = list.length <= 64 ? `${dtype}${shapeText(size)}${Array.from(list).join(',')}` : undefined;
    const known = key && this.#constants.get(key);
    if (known) return known;
    const tensor = this.#tensor(`constant_${this.#next}`, dtype, size, { kind: 'constant', bytes });
    if (key) this.#constants.set(key, tensor);
    return tensor;
  }

  /** The bytes of a constant or of a weight in a file as elements of another type. */
  reinterpret(tensor: Tensor, dtype: DType, shape: readonly number[]): Tensor {
    const { origin } = tensor;
    if (origin.kind !== 'constant' && origin.kind !== 'file')
      throw new EmendError('internal', `${tensor.name} has no bytes that could be read otherwise.`);
    const name = `${tensor.name} as ${dtype}`;
    const known = this.#byName.get(name);
    if (known) return known;
    const has = origin.kind === 'file' ? origin.slice.bytes : origin.bytes.length;
    if (byteLength(dtype, shape) !== has)
      throw new EmendError('internal', `${name}: ${shapeText(shape)} does not take ${has} bytes.`);
    return this.#tensor(name, dtype, shape, origin);
  }

  /** Adds a node and returns its outputs. Shapes and types are checked here, by name of the operator. */
  apply(operator: OperatorName, inputs: readonly Tensor[], attributes: Attributes = {}): readonly Tensor[] {
    for (const input of inputs) {
      if (input.graph !== this)
        throw new EmendError('internal', `${operator}: ${input.name} is of another graph.`);
    }
    const node: Node = { operator, inputs, attributes, outputs: [] };
    node.outputs = inferOutputs(operator, inputs, attributes).map((output, index) =>
      this.#tensor(`${operator}_${this.#next}`, output.dtype, output.shape, { kind: 'node', node, index }),
    );
    this.nodes.push(node);
    return node.outputs;
  }

  /** Names a tensor that runs give back. */
  output(name: string, tensor: Tensor): void {
    if (this.outputs.has(name)) throw new EmendError('internal', `Two outputs are named ${name}.`);
    this.outputs.set(name, tensor);
  }

  #tensor(name: string, dtype: DType, shape: readonly Dim[], origin: Origin): Tensor {
    if (this.#byName.has(name)) throw new EmendError('internal', `Two tensors are named ${name}.`);
    const tensor: Tensor = { graph: this, id: this.#next++, name, dtype, shape, origin };
    this.#byName.set(name, tensor);
    return tensor;
  }
}
