/** @file The safetensors format: reading, writing, and refusing files that lie about themselves. */

import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  decodeSafetensors,
  encodeSafetensors,
  floatToBfloat,
  floatToHalf,
  halfToFloat,
  openSafetensors,
  readTensor,
  type WritableTensor,
  writeSafetensors,
} from '../../electron/files/safetensors.ts';
import { fixture } from '../support/fixtures.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'emend-safetensors-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** A file of the given header text (or object) and number of data bytes. */
function fileOf(header: object | string, dataBytes: number): Uint8Array {
  const json = new TextEncoder().encode(typeof header === 'string' ? header : JSON.stringify(header));
  const bytes = new Uint8Array(8 + json.length + dataBytes);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(json.length), true);
  bytes.set(json, 8);
  return bytes;
}

const f32 = (shape: number[], begin: number, end: number) => ({
  dtype: 'F32',
  shape,
  data_offsets: [begin, end],
});

async function opening(bytes: Uint8Array) {
  const path = join(folder, 'bad.safetensors');
  await writeFile(path, bytes);
  return openSafetensors(path);
}

describe('files that lie', () => {
  const good = { a: f32([2], 0, 8), b: f32([1], 8, 12) };
  const cases: [string, Uint8Array, RegExp][] = [
    ['too short for a header', new Uint8Array(5), /5 bytes long/],
    ['header longer than the file', fileOf(good, 12).slice(0, 40), /header claims/],
    ['header over 100 MB', new Uint8Array([0, 0, 0, 0, 0, 0, 0, 255, 1, 2]), /more than the format/],
    ['header that is no JSON', fileOf('{"a":', 0), /not JSON/],
    ['header that is no object', fileOf('[1]', 0), /not a JSON object/],
    ['truncated data', fileOf(good, 11), /bytes 8 to 12 of 11/],
    ['bytes after the last tensor', fileOf(good, 16), /end at byte/],
    ['overlap', fileOf({ a: f32([2], 0, 8), b: f32([2], 4, 12) }, 12), /"b" overlaps/],
    ['hole', fileOf({ a: f32([1], 0, 4), b: f32([1], 8, 12) }, 12), /hole of 4 bytes before tensor "b"/],
    ['shape and range disagree', fileOf({ a: f32([3], 0, 8) }, 8), /needs 12 bytes and is given 8/],
    ['end before begin', fileOf({ a: f32([2], 8, 0) }, 8), /bytes 8 to 0/],
    ['negative size', fileOf({ a: f32([-2], 0, 8) }, 8), /no valid shape/],
    ['fractional size', fileOf({ a: f32([0.5], 0, 2) }, 2), /no valid shape/],
    ['size overflow', fileOf({ a: f32([2 ** 40, 2 ** 40, 0], 0, 0) }, 0), /impossibly large/],
    [
      'unknown dtype',
      fileOf({ a: { dtype: 'toString', shape: [], data_offsets: [0, 4] } }, 4),
      /unknown dtype/,
    ],
    [
      'one name twice',
      fileOf('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\\u0061":1}', 1),
      /"a" twice/,
    ],
    ['metadata that is no text', fileOf({ __metadata__: { x: 1 } }, 0), /metadata "x"/],
  ];
  it.each(cases)('are refused on disk and in memory: %s', async (_name, bytes, message) => {
    await expect(opening(bytes)).rejects.toMatchObject({
      code: 'damaged',
      message: expect.stringMatching(message),
    });
    expect(() => decodeSafetensors(bytes)).toThrow(message);
  });

  it('say when there is no file', async () => {
    await expect(openSafetensors(join(folder, 'none'))).rejects.toMatchObject({ code: 'not-found' });
  });

  it('are noticed when shortened after opening', async () => {
    const path = join(folder, 'shrinks.safetensors');
    await writeFile(path, fileOf({ a: f32([2], 0, 8) }, 8));
    const file = await openSafetensors(path);
    await writeFile(path, new Uint8Array(10));
    await expect(readTensor(file, 'a')).rejects.toMatchObject({ code: 'damaged' });
  });
});

it('accepts __proto__ as a tensor name, zero-sized tensors and a padded header', async () => {
  const header =
    '{"__proto__":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},' +
    '"e":{"dtype":"F32","shape":[0,7],"data_offsets":[2,2]}}   ';
  const bytes = fileOf(header, 2);
  bytes.set([7, 9], bytes.length - 2);
  const file = await opening(bytes);
  expect([...file.tensors.keys()]).toEqual(['__proto__', 'e']);
  expect((await readTensor(file, '__proto__')).data).toEqual(new Uint8Array([7, 9]));
  expect((await readTensor(file, 'e')).data.length).toBe(0);
});

it('refuses to read a dtype it cannot convert, by name', async () => {
  const file = await opening(fileOf({ q: { dtype: 'F8_E4M3', shape: [1], data_offsets: [0, 1] } }, 1));
  await expect(readTensor(file, 'q')).rejects.toMatchObject({
    code: 'unsupported',
    message: expect.stringMatching(/"q".*F8_E4M3/),
  });
});

describe('writing', () => {
  const values = Float32Array.of(1, -0.5, 3.14159274, 65504);
  const tensors = new Map<string, WritableTensor>([
    ['z.u8', { dtype: 'U8', shape: [3], data: Uint8Array.of(1, 2, 3) }],
    ['half', { dtype: 'F16', shape: [2, 2], data: values }],
    ['brain', { dtype: 'BF16', shape: [4], data: values }],
    ['full', { dtype: 'F32', shape: [4], data: values }],
    ['ids', { dtype: 'I64', shape: [2], data: BigInt64Array.of(-1n, 2n ** 40n) }],
    ['small', { dtype: 'I32', shape: [], data: Int32Array.of(-7) }],
  ]);

  it('gives back what was written, aligned, and leaves no other file', async () => {
    const inside = await mkdtemp(join(folder, 'out-'));
    const path = join(inside, 'w.safetensors');
    await writeSafetensors(path, tensors, { b: '2', a: '1' });
    expect(await readdir(inside)).toEqual(['w.safetensors']);
    const file = await openSafetensors(path);
    expect(Object.fromEntries(file.metadata)).toEqual({ a: '1', b: '2' });
    expect((await readTensor(file, 'full')).data).toEqual(values);
    expect((await readTensor(file, 'half')).data).toEqual(Float32Array.of(1, -0.5, 3.140625, 65504));
    expect((await readTensor(file, 'brain')).data).toEqual(Float32Array.of(1, -0.5, 3.140625, 65536));
    expect((await readTensor(file, 'ids')).data).toEqual(BigInt64Array.of(-1n, 2n ** 40n));
    expect(await readTensor(file, 'small')).toEqual({ dtype: 'I32', shape: [], data: Int32Array.of(-7) });
    expect(file.dataOffset % 8).toBe(0);
    for (const entry of file.tensors.values()) {
      const width = entry.bytes / entry.shape.reduce((a, b) => a * b, 1);
      expect(entry.offset % width).toBe(0);
    }
    expect(new Uint8Array(await readFile(path))).toEqual(encodeSafetensors(tensors, { a: '1', b: '2' }));
  });

  it('does not depend on the order the tensors are given in, nor on where their memory lies', () => {
    const shifted = new Float32Array(5).subarray(1);
    shifted.set(values);
    const reordered = new Map([...tensors].toReversed());
    reordered.set('full', { dtype: 'F32', shape: [4], data: shifted });
    expect(encodeSafetensors(reordered)).toEqual(encodeSafetensors(tensors));
  });

  it('decodes in memory from any alignment', () => {
    const bytes = encodeSafetensors(tensors);
    const odd = new Uint8Array(bytes.length + 1).subarray(1);
    odd.set(bytes);
    expect(decodeSafetensors(odd).tensors.get('full')?.data).toEqual(values);
  });

  it('refuses a shape that does not match its values', async () => {
    const wrong = new Map<string, WritableTensor>([['a', { dtype: 'F32', shape: [3], data: values }]]);
    expect(() => encodeSafetensors(wrong)).toThrow(/"a" has 4 values/);
    await expect(writeSafetensors(join(folder, 'x'), wrong)).rejects.toMatchObject({ code: 'invalid-input' });
  });
});

describe('half precision', () => {
  it('survives a round trip for every finite bit pattern', () => {
    const all = Uint16Array.from({ length: 65536 }, (_, i) => i).filter((bits) => (bits & 0x7c00) !== 0x7c00);
    expect(floatToHalf(halfToFloat(all))).toEqual(all);
  });

  it('rounds to nearest, ties to even, from the least subnormal to infinity', () => {
    const cases: [number, number][] = [
      [1 + 2 ** -11, 0x3c00],
      [1 + 3 * 2 ** -11, 0x3c02],
      [1 + 2 ** -11 + 2 ** -20, 0x3c01],
      [2 ** -25, 0],
      [3 * 2 ** -25, 2],
      [1.5 * 2 ** -25, 1],
      [-(2 ** -24), 0x8001],
      [2 ** -14 - 2 ** -26, 0x400],
      [65519, 0x7bff],
      [65520, 0x7c00],
      [-1e30, 0xfc00],
      [Number.POSITIVE_INFINITY, 0x7c00],
    ];
    const got = floatToHalf(Float32Array.from(cases.map(([value]) => value)));
    expect([...got]).toEqual(cases.map(([, bits]) => bits));
    expect(halfToFloat(floatToHalf(Float32Array.of(Number.NaN)))[0]).toBeNaN();
  });

  it('rounds bfloat16 to nearest, ties to even', () => {
    const got = floatToBfloat(Float32Array.of(1 + 2 ** -8, 1 + 3 * 2 ** -8, -1, Number.NEGATIVE_INFINITY));
    expect([...got]).toEqual([0x3f80, 0x3f82, 0xbf80, 0xff80]);
  });
});

it('reads a checkpoint that another program wrote', async () => {
  const file = await openSafetensors(fixture('checkpoints/llava_tiny/model.safetensors'));
  expect(file.metadata.get('format')).toBe('pt');
  expect(file.tensors.get('language_model.lm_head.weight')).toMatchObject({ dtype: 'F32', shape: [448, 64] });
  const { data } = await readTensor(file, 'language_model.model.norm.weight');
  expect(data.length).toBe(64);
  expect((data as Float32Array).every(Number.isFinite)).toBe(true);
});
