/**
 * @file Dot products of one int8 vector with many, in WebAssembly with 128-bit vectors: about ten times a loop over an Int8Array.
 */
import { EmendError } from '../../errors.ts';

/** Sizes in the module's memory. */
const PAGE = 65_536;
/** Vectors compared in one call; their products lie at a fixed place, so that the vectors can grow behind them. */
const BLOCK = 4096;

const [block, loop, end, branch, branchIf] = [[0x02, 0x40], [0x03, 0x40], [0x0b], [0x0c], [0x0d]];
const get = (local: number) => [0x20, local];
const set = (local: number) => [0x21, local];
const tee = (local: number) => [0x22, local];
const constant = (value: number) => [0x41, value];
const [isZero, less, plus, minus, shiftLeft] = [[0x45], [0x49], [0x6a], [0x6b], [0x74]];
const store = [0x36, 2, 0];
const loadVector = (offset: number) => [0xfd, 0x00, 0, offset];
/** eight int8 as eight int16 */
const loadWidened = (offset: number) => [0xfd, 0x01, 0, offset];
const zeroVector = [0xfd, 0x0c, ...new Array<number>(16).fill(0)];
const lane = (index: number) => [0xfd, 0x1b, index];
const plusVector = [0xfd, 0xae, 0x01];
/** products of eight int16, added in pairs: four int32 */
const dot = [0xfd, 0xba, 0x01];

/** dots(vectors, count, width, query, out): out[i] = Σ vectors[i]·query; vectors int8, query int16, width in elements, of 16. */
function moduleBytes(): Uint8Array<ArrayBuffer> {
  const [vectors, count, width, query, out, at, sum] = [0, 1, 2, 3, 4, 5, 6];
  const half = (offset: number) => [
    ...[...get(vectors), ...get(at), ...plus, ...loadWidened(offset)],
    ...[...get(query), ...get(at), ...constant(1), ...shiftLeft, ...plus, ...loadVector(2 * offset)],
    ...[...dot, ...plusVector],
  ];
  const body = [
    ...[...block, ...loop, ...get(count), ...isZero, ...branchIf, 1],
    ...[...zeroVector, ...set(sum), ...constant(0), ...set(at)],
    ...[...loop, ...get(sum), ...half(0), ...half(8), ...set(sum)],
    ...[...get(at), ...constant(16), ...plus, ...tee(at), ...get(width), ...less, ...branchIf, 0, ...end],
    ...[...get(out), ...get(sum), ...lane(0), ...get(sum), ...lane(1), ...plus],
    ...[...get(sum), ...lane(2), ...plus, ...get(sum), ...lane(3), ...plus, ...store],
    ...[...get(vectors), ...get(width), ...plus, ...set(vectors)],
    ...[...get(out), ...constant(4), ...plus, ...set(out)],
    ...[...get(count), ...constant(1), ...minus, ...set(count), ...branch, 0, ...end, ...end, ...end],
  ];
  const [i32, v128] = [0x7f, 0x7b];
  const section = (id: number, bytes: readonly number[]) => [id, ...size(bytes.length), ...bytes];
  const name = (text: string) => [text.length, ...Buffer.from(text)];
  const code = [2, 1, i32, 1, v128, ...body];
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00],
    ...section(1, [1, 0x60, 5, i32, i32, i32, i32, i32, 0]),
    ...section(2, [1, ...name('emend'), ...name('memory'), 0x02, 0x00, 1]),
    ...section(3, [1, 0]),
    ...section(7, [1, ...name('dots'), 0x00, 0]),
    ...section(10, [1, ...size(code.length), ...code]),
  ]);
}

/** LEB128 of a length. */
function size(value: number): number[] {
  return value < 128 ? [value] : [(value % 128) + 128, ...size(Math.floor(value / 128))];
}

type Dots = (vectors: number, count: number, width: number, query: number, out: number) => void;
let compiled: WebAssembly.Module | undefined;

/** Int8 vectors of one width behind one another, which grow at the end. */
export class Int8Vectors {
  readonly width: number;
  readonly #memory: WebAssembly.Memory;
  readonly #dots: Dots;
  /** bytes a vector takes: its width, filled with zeros to a multiple of 16 */
  readonly #stride: number;
  readonly #query: number;
  readonly #start: number;
  #capacity = 0;

  constructor(width: number) {
    if (!Number.isInteger(width) || width < 1 || width > 65_536)
      throw new EmendError('internal', `Keys of width ${width} cannot be compared.`);
    this.width = width;
    this.#stride = Math.ceil(width / 16) * 16;
    this.#query = 4 * BLOCK;
    this.#start = this.#query + 2 * this.#stride;
    this.#memory = new WebAssembly.Memory({ initial: Math.ceil(this.#start / PAGE) });
    compiled ??= new WebAssembly.Module(moduleBytes());
    const { exports } = new WebAssembly.Instance(compiled, { emend: { memory: this.#memory } });
    this.#dots = exports['dots'] as Dots;
  }

  /** Bytes of memory held. */
  get bytes(): number {
    return this.#memory.buffer.byteLength;
  }

  set(index: number, vector: Int8Array): void {
    if (vector.length !== this.width)
      throw new EmendError('internal', `A key of width ${vector.length} does not fit ${this.width}.`);
    this.#reserve(index + 1);
    new Int8Array(this.#memory.buffer).set(vector, this.#start + index * this.#stride);
  }

  /** A copy of a vector [width]. */
  get(index: number): Int8Array {
    const start = this.#start + index * this.#stride;
    return new Int8Array(this.#memory.buffer).slice(start, start + this.width);
  }

  /** Dot products of `query` [width] with the first `count` vectors, given block by block: products of vectors first, first + 1, … */
  dots(query: Int8Array, count: number, take: (products: Int32Array, first: number) => void): void {
    if (query.length !== this.width)
      throw new EmendError('internal', `A key of width ${query.length} does not fit ${this.width}.`);
    const wide = new Int16Array(this.#memory.buffer, this.#query, this.#stride);
    wide.fill(0);
    wide.set(query);
    for (let first = 0; first < count; first += BLOCK) {
      const some = Math.min(BLOCK, count - first);
      this.#dots(this.#start + first * this.#stride, some, this.#stride, this.#query, 0);
      take(new Int32Array(this.#memory.buffer, 0, some), first);
    }
  }

  #reserve(count: number): void {
    if (count <= this.#capacity) return;
    const wanted = Math.max(count, Math.ceil(this.#capacity * 1.25), 64);
    const pages = Math.ceil((this.#start + wanted * this.#stride) / PAGE);
    const more = pages - this.#memory.buffer.byteLength / PAGE;
    if (more > 0) this.#memory.grow(more);
    this.#capacity = Math.floor((this.#memory.buffer.byteLength - this.#start) / this.#stride);
  }
}
