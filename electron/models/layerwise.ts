/**
 * @file A decoder run one layer at a time, forward and backward, with the layer's weights read from their files as it runs: memory is
 * one layer's and not the depth's. Layers whose weights are alike share a session.
 */
import { type FileHandle, open } from 'node:fs/promises';
import { EmendError } from '../errors.ts';
import { floatsFromBytes } from '../files/safetensors.ts';
import * as f from '../tensor/functions.ts';
import { gradients } from '../tensor/gradients.ts';
import { Graph, type Tensor } from '../tensor/graph.ts';
import { float32, floatsOf, release, Session, uint8, type Value } from '../tensor/session.ts';
import type { PackedPart, WeightSource } from './checkpoint.ts';
import { addedName, attentionInputs, type RunnableDecoder } from './decoder.ts';
import type { Weights } from './weights.ts';

/** A weight as it is fed: a tensor, or a part of a packed matrix. */
interface Fed {
  /** of the graph's input, without the layer's number */
  readonly input: string;
  read(files: Files): Promise<Value>;
}

type Direction = 'forward' | 'backward';

export class LayerwiseDecoder {
  readonly #decoder: RunnableDecoder;
  readonly #source: WeightSource;
  readonly #sessions = new Map<string, Session>();
  readonly #files = new Files();

  constructor(decoder: RunnableDecoder, source: WeightSource) {
    this.#decoder = decoder;
    this.#source = source;
  }

  /**
   * Output of a layer [batch, rows, hidden], without what is added before the next. hidden [batch, rows, hidden] as it enters;
   * `shared` as `attentionInputs` has it, for as many sequences.
   */
  async forward(layer: number, hidden: Value, shared: Readonly<Record<string, Value>>): Promise<Value> {
    const { session, weights } = await this.#ready(layer, 'forward');
    return sequenceBySequence(session, weights, { ...shared, hidden }, 'out');
  }

  /** d loss / d hidden, given hidden as it entered and d loss / d output; all [batch, rows, hidden]. The layer is run again for it. */
  async backward(
    layer: number,
    hidden: Value,
    gradient: Value,
    shared: Readonly<Record<string, Value>>,
  ): Promise<Value> {
    const { session, weights } = await this.#ready(layer, 'backward');
    return sequenceBySequence(session, weights, { ...shared, hidden, gradient }, 'gradient_in');
  }

  /** A layer's output as it enters the next: with the features of the picture that some decoders add between. */
  async enter(hidden: Value, layer: number, shared: Readonly<Record<string, Value>>): Promise<Value> {
    const added = layer > 0 && layer - 1 < this.#decoder.addedLayers ? shared[addedName(layer - 1)] : null;
    if (!added) return hidden;
    const [a, b] = [await floatsOf(hidden), await floatsOf(added)];
    return float32(
      a.map((value, i) => value + b[i]!),
      hidden.dims,
    );
  }

  async dispose(): Promise<void> {
    for (const session of this.#sessions.values()) await session.dispose();
    this.#sessions.clear();
    await this.#files.close();
  }

  /** A session for a layer like this one, and the layer's own weights. */
  async #ready(layer: number, direction: Direction) {
    const fed: Fed[] = [];
    const graph = new Graph();
    const weight = this.#fedWeights(graph, fed);
    const { hidden } = this.#decoder;
    const x = graph.input('hidden', 'float32', ['batch', 'rows', hidden]);
    const inputs = attentionInputs(graph, this.#decoder, 'batch', 'rows', 'rows');
    const out = this.#decoder.layer(x, layer, inputs, weight).hidden;
    if (direction === 'forward') graph.output('out', out);
    else {
      const gradient = graph.input('gradient', 'float32', ['batch', 'rows', hidden]);
      graph.output('gradient_in', gradients(f.sum(f.multiply(out, gradient)), [x])[0]!);
    }
    const likeness = graph.inputs.map(({ name, dtype, shape }) => `${name} ${dtype} ${shape}`);
    const key = `${direction} ${likeness.join('; ')}`;
    const session = this.#sessions.get(key) ?? (await Session.create(graph, this.#decoder.session));
    this.#sessions.set(key, session);
    const weights: Record<string, Value> = {};
    for (const each of fed) weights[each.input] = await each.read(this.#files);
    return { session, weights };
  }

  /** Weights fed under names that are the same in every layer: numbered in the order they are asked for. */
  #fedWeights(graph: Graph, fed: Fed[]): Weights {
    const known = new Map<string, Tensor>();
    const dense = (name: string): Tensor => {
      const before = known.get(name);
      if (before) return before;
      const found = this.#source.find(name);
      if (!found) throw new EmendError('damaged', `The checkpoint has no tensor ${name}.`);
      const input = `weight ${known.size}`;
      const read = async (files: Files) =>
        float32(floatsFromBytes(await files.read(found), found.dtype), found.shape);
      fed.push({ input, read });
      const tensor = graph.input(input, 'float32', found.shape);
      known.set(name, tensor);
      return tensor;
    };
    const matrix = (name: string): Tensor => {
      const found = this.#source.packed?.(name);
      if (!found) return dense(name);
      const before = known.get(name);
      if (before) return before;
      const { bits, blocks, scales, zeroPoints } = found;
      const [out, count] = scales.shape as [number, number];
      const place = known.size;
      const numbers = (which: string, of: PackedPart, shape: readonly number[]) => {
        const input = `${which} ${place}`;
        fed.push({ input, read: async (files) => uint8(apart(await files.read(of), bits), shape) });
        return graph.input(input, 'uint8', shape);
      };
      const scale = `scales ${place}`;
      fed.push({
        input: scale,
        read: async (files) => float32(floatsFromBytes(await files.read(scales), 'F32'), scales.shape),
      });
      const columns = (blocks.bytes * 8) / bits / out;
      const tensor = f.dequantized(
        numbers('elements', blocks, [out, columns]),
        graph.input(scale, 'float32', [out, count]),
        numbers('zeros', zeroPoints, [out, count]),
      );
      known.set(name, tensor);
      return tensor;
    };
    return Object.assign((name: string) => dense(name), {
      linear: (x: Tensor, name: string, bias?: Tensor) => f.linear(x, matrix(`${name}.weight`), bias),
      rows: (ids: Tensor, name: string) => f.gather(dense(name), ids),
    });
  }
}

/** A session's output for a batch, one sequence after the other: inner values of one sequence are held at a time. */
async function sequenceBySequence(
  session: Session,
  weights: Readonly<Record<string, Value>>,
  batch: Readonly<Record<string, Value>>,
  output: string,
): Promise<Value> {
  const { dims } = batch['hidden']!;
  const count = dims[0]!;
  const all = new Float32Array(dims.reduce((a, b) => a * b, 1));
  for (let sequence = 0; sequence < count; sequence++) {
    const feeds: Record<string, Value> = { ...weights };
    for (const [name, value] of Object.entries(batch)) {
      if (!session.inputNames.has(name)) continue;
      const each = await floatsOf(value);
      const length = each.length / count;
      const own = each.subarray(sequence * length, (sequence + 1) * length);
      feeds[name] = float32(own, [1, ...value.dims.slice(1)]);
    }
    const out = (await session.run(feeds))[output]!;
    all.set(await floatsOf(out), (sequence * all.length) / count);
    release(out);
  }
  return float32(all, dims);
}

/** Numbers of 4 bits, two to a byte, each in a byte of its own; those of 8 as they are. */
function apart(raw: Uint8Array, bits: 4 | 8): Uint8Array {
  if (bits === 8) return raw;
  const out = new Uint8Array(2 * raw.length);
  for (let i = 0; i < raw.length; i++) {
    out[2 * i] = raw[i]! & 15;
    out[2 * i + 1] = raw[i]! >> 4;
  }
  return out;
}

/** Files that are read again and again. */
class Files {
  readonly #handles = new Map<string, FileHandle>();

  async read({ path, offset, bytes: length }: PackedPart): Promise<Uint8Array<ArrayBuffer>> {
    const handle = this.#handles.get(path) ?? (await open(path, 'r'));
    this.#handles.set(path, handle);
    const into = new Uint8Array(length);
    for (let done = 0; done < length; ) {
      const { bytesRead } = await handle.read(into, done, length - done, offset + done);
      if (bytesRead === 0) throw new EmendError('damaged', `${path} ends in the middle of its data.`);
      done += bytesRead;
    }
    return into;
  }

  async close(): Promise<void> {
    for (const handle of this.#handles.values()) await handle.close();
    this.#handles.clear();
  }
}
