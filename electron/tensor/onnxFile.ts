/**
 * @file Writes a graph as an ONNX model (protobuf wire format, onnx.proto field numbers).
 */
import { basename, dirname } from 'node:path';
import { BinaryWriter } from '@bufbuild/protobuf/wire';
import { EmendError } from '../errors.ts';
import type { Dim } from './dims.ts';
import { attentionByHeads } from './functions.ts';
import type { DType, Graph, Node, Tensor } from './graph.ts';
import { operator } from './operators.ts';

const opset = 21;
const dtypeNumber: Record<DType, number> = {
  float32: 1,
  uint8: 2,
  int32: 6,
  int64: 7,
  bool: 9,
  float16: 10,
  bfloat16: 16,
  uint4: 21,
};

const lengthDelimited = 2;
const varint = 0;
const fixed32 = 5;

function message(writer: BinaryWriter, field: number, body: (writer: BinaryWriter) => void): void {
  writer.tag(field, lengthDelimited).fork();
  body(writer);
  writer.join();
}
const text = (writer: BinaryWriter, field: number, value: string) =>
  writer.tag(field, lengthDelimited).string(value);
const integer = (writer: BinaryWriter, field: number, value: number) =>
  writer.tag(field, varint).int64(value);

function attribute(
  writer: BinaryWriter,
  name: string,
  kind: 'int' | 'float' | 'ints' | 'string',
  value: unknown,
): void {
  message(writer, 5, (w) => {
    text(w, 1, name);
    if (kind === 'float') w.tag(2, fixed32).float(value as number);
    if (kind === 'int') integer(w, 3, value as number);
    if (kind === 'string') w.tag(4, lengthDelimited).bytes(new TextEncoder().encode(value as string));
    if (kind === 'ints') for (const item of value as number[]) integer(w, 8, item);
    integer(w, 20, { float: 1, int: 2, string: 3, ints: 7 }[kind]);
  });
}

function valueInfo(
  writer: BinaryWriter,
  field: number,
  name: string,
  dtype: DType,
  shape: readonly Dim[],
): void {
  message(writer, field, (w) => {
    text(w, 1, name);
    message(w, 2, (type) => {
      message(type, 1, (tensor) => {
        integer(tensor, 1, dtypeNumber[dtype]);
        message(tensor, 2, (dims) => {
          for (const dim of shape) {
            message(dims, 1, (d) => (typeof dim === 'number' ? integer(d, 1, dim) : text(d, 2, dim)));
          }
        });
      });
    });
  });
}

function initializer(writer: BinaryWriter, tensor: Tensor): void {
  message(writer, 5, (w) => {
    for (const dim of tensor.shape) integer(w, 1, dim as number);
    integer(w, 2, dtypeNumber[tensor.dtype]);
    text(w, 8, tensor.name);
    if (tensor.origin.kind === 'constant') w.tag(9, lengthDelimited).bytes(tensor.origin.bytes);
    if (tensor.origin.kind === 'file') {
      const { path, offset, bytes } = tensor.origin.slice;
      const entries = { location: basename(path), offset: String(offset), length: String(bytes) };
      for (const [key, value] of Object.entries(entries)) {
        message(w, 13, (entry) => {
          text(entry, 1, key);
          text(entry, 2, value);
        });
      }
      integer(w, 14, 1);
    }
  });
}

function writeNode(writer: BinaryWriter, node: Node): void {
  const definition = operator(node.operator);
  message(writer, 1, (w) => {
    for (const input of node.inputs) text(w, 1, input.name);
    for (const output of node.outputs) text(w, 2, output.name);
    text(w, 3, node.outputs[0]!.name);
    text(w, 4, node.operator);
    for (const [name, kind] of Object.entries(definition.attributes ?? {})) {
      const value = node.attributes[name];
      if (value !== undefined) attribute(w, name, kind, value);
    }
    if (node.operator === 'Cast') attribute(w, 'to', 'int', dtypeNumber[node.attributes['to'] as DType]);
    if (definition.domain) text(w, 7, definition.domain);
  });
}

export interface OnnxModel {
  /** the serialised ModelProto */
  readonly bytes: Uint8Array;
  /** folder that holds every file the model points into; undefined when it points into none */
  readonly folder: string | undefined;
  /** inputs that survive: those some output depends on */
  readonly inputs: readonly Tensor[];
}

/** A graph's nodes with plain operators in the place of fused attention. The graph itself stays as it is. */
function withoutFusedAttention(graph: Graph): Node[] {
  return [...graph.nodes].flatMap((node) => {
    if (node.operator !== 'MultiHeadAttention') return [node];
    const [query, key, value] = node.inputs as [Tensor, Tensor, Tensor];
    const from = graph.nodes.length;
    attentionByHeads(query, key, value, node.attributes['num_heads'] as number);
    const plain = graph.nodes.splice(from);
    plain.at(-1)!.outputs = node.outputs;
    return plain;
  });
}

/**
 * Serialises what the graph's outputs depend on; the rest is left out.
 * Throws when weights lie in files of different folders: ONNX external data is found relative to one folder.
 */
export function writeOnnx(graph: Graph, { fusesAttention = true } = {}): OnnxModel {
  if (graph.outputs.size === 0) throw new EmendError('internal', 'A graph without outputs cannot run.');
  const needed = new Set<number>([...graph.outputs.values()].map((tensor) => tensor.id));
  const nodes: Node[] = [];
  const all = fusesAttention ? graph.nodes : withoutFusedAttention(graph);
  for (const node of all.toReversed()) {
    if (!node.outputs.some((output) => needed.has(output.id))) continue;
    for (const input of node.inputs) needed.add(input.id);
    nodes.push(node);
  }
  nodes.reverse();

  const leaves = new Map<number, Tensor>();
  for (const tensor of [...graph.outputs.values(), ...nodes.flatMap((node) => node.inputs)]) {
    if (tensor.origin.kind !== 'node') leaves.set(tensor.id, tensor);
  }
  const inputs = graph.inputs.filter((input) => needed.has(input.id));
  const folders = new Set<string>();
  for (const leaf of leaves.values())
    if (leaf.origin.kind === 'file') folders.add(dirname(leaf.origin.slice.path));
  if (folders.size > 1) {
    throw new EmendError(
      'unsupported',
      `Weights of one model lie in several folders: ${[...folders].join(', ')}.`,
    );
  }

  const writer = new BinaryWriter();
  integer(writer, 1, 10);
  text(writer, 2, 'emend');
  message(writer, 7, (g) => {
    for (const node of nodes) writeNode(g, node);
    // Outputs carry names of their own: one tensor may be given back under two names, or be an input.
    for (const [name, tensor] of graph.outputs) {
      message(g, 1, (w) => {
        text(w, 1, tensor.name);
        text(w, 2, name);
        text(w, 3, `output ${name}`);
        text(w, 4, 'Identity');
      });
    }
    text(g, 2, 'emend');
    for (const leaf of leaves.values()) if (leaf.origin.kind !== 'input') initializer(g, leaf);
    for (const input of inputs) valueInfo(g, 11, input.name, input.dtype, input.shape);
    for (const [name, tensor] of graph.outputs) valueInfo(g, 12, name, tensor.dtype, tensor.shape);
  });
  message(writer, 8, (o) => {
    text(o, 1, '');
    integer(o, 2, opset);
  });
  message(writer, 8, (o) => {
    text(o, 1, 'com.microsoft');
    integer(o, 2, 1);
  });
  return { bytes: writer.finish(), folder: [...folders][0], inputs };
}
