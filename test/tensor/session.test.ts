import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { openSafetensors, readTensor, writeSafetensors } from '../../electron/files/safetensors.ts';
import * as f from '../../electron/tensor/functions.ts';
import { type DType, Graph } from '../../electron/tensor/graph.ts';
import { examineProviders } from '../../electron/tensor/providers.ts';
import {
  availableProviders,
  float32,
  floatsOf,
  int64,
  providerNames,
  Session,
} from '../../electron/tensor/session.ts';
import { normalNumbers } from '../support/checkpointFixtures.ts';

const folder = mkdtempSync(join(tmpdir(), 'emend-session-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const normal = normalNumbers(11);
const numbers = (count: number) => Float32Array.from({ length: count }, normal);

/** y = 2x + 1 for x [batch, rows]. */
function line(): Graph {
  const graph = new Graph();
  graph.output('y', f.add(f.multiply(graph.input('x', 'float32', ['batch', 'rows']), 2), 1));
  return graph;
}

describe('providers', () => {
  test('are tried in order, and the session says which one loaded and why others did not', async () => {
    // No machine has all three: these libraries belong to three operating systems.
    const session = await Session.create(line(), { providers: ['coreml', 'dml', 'cpu'] });
    const passed = session.refusals.map(({ provider }) => provider);
    expect([...passed, session.provider]).toEqual(
      ['coreml', 'dml', 'cpu'].slice(0, 1 + ['coreml', 'dml', 'cpu'].indexOf(session.provider)),
    );
    expect(session.refusals.length).toBeGreaterThan(0);
    for (const { provider, reason } of session.refusals) {
      expect(reason.length, provider).toBeGreaterThan(10);
      expect(reason, provider).not.toMatch(/\n {4}at |\.cc:\d+/);
    }
    await session.dispose();
  });

  test('none that loads is an error with each one’s own words', async () => {
    const absent = process.platform === 'darwin' ? 'dml' : 'coreml';
    await expect(Session.create(line(), { providers: [absent] })).rejects.toMatchObject({
      code: 'unsupported',
      message: expect.stringContaining(`${absent}: `),
    });
    await expect(Session.create(line(), { providers: [] })).rejects.toMatchObject({ code: 'unsupported' });
  });

  test('offered are this platform’s, cpu last', () => {
    const offered = availableProviders();
    expect(offered.at(-1)).toBe('cpu');
    expect(new Set(offered).size).toBe(offered.length);
    expect(offered).not.toContain(process.platform === 'darwin' ? 'dml' : 'coreml');
  });
});

test('what this machine can run on is told for every provider: why one does not run, and the command that fetches what it lacks', async () => {
  const examined = await examineProviders();
  expect(examined.map(({ provider }) => provider)).toEqual(providerNames);
  expect(examined.at(-1)).toEqual({ provider: 'cpu', runs: true, said: 'the processor', command: null });
  for (const { runs, said, command } of examined) {
    expect(said.length).toBeGreaterThan(5);
    if (runs) expect(command).toBeNull();
  }
  // No machine has all of them: these libraries belong to three operating systems.
  const elsewhere = examined.filter(({ said }) => / only$/.test(said));
  expect(elsewhere.length).toBeGreaterThan(0);
  const cuda = examined.find(({ provider }) => provider === 'cuda')!;
  if (/not here$/.test(cuda.said))
    expect(cuda.command).toMatch(/^node node_modules\/onnxruntime-node\/script\/install\.js /);
});

describe('runs', () => {
  test('with symbolic sizes take any, zero too', async () => {
    const session = await Session.create(line(), { providers: ['cpu'] });
    for (const [batch, rows] of [
      [1, 1],
      [3, 7],
      [64, 5],
      [2, 0],
    ] as const) {
      const x = numbers(batch * rows);
      const { y } = await session.run({ x: float32(x, [batch, rows]) });
      expect(y!.dims).toEqual([batch, rows]);
      expect(await floatsOf(y!)).toEqual(x.map((value) => value * 2 + 1));
    }
    await session.dispose();
  });

  test('name the input that is missing, and leave out what the graph does not use', async () => {
    const session = await Session.create(line(), { providers: ['cpu'] });
    const x = float32(new Float32Array([1]), [1, 1]);
    await expect(session.run({})).rejects.toMatchObject({ message: expect.stringContaining('x') });
    await expect(session.run({ z: x })).rejects.toMatchObject({ message: expect.stringContaining('x') });
    expect(await floatsOf((await session.run({ x, z: x }))['y']!)).toEqual(new Float32Array([3]));
    await session.dispose();
  });

  test('do not ask for inputs that no output depends on', async () => {
    const graph = line();
    graph.input('idle', 'float32', [4]);
    const session = await Session.create(graph, { providers: ['cpu'] });
    expect([...session.inputNames]).toEqual(['x']);
    await session.dispose();
  });

  test('give a tensor back under two names, and an input as it came', async () => {
    const graph = new Graph();
    const x = graph.input('x', 'float32', ['n']);
    const y = f.negate(x);
    for (const [name, tensor] of Object.entries({ same: x, first: y, second: y })) graph.output(name, tensor);
    const session = await Session.create(graph, { providers: ['cpu'] });
    const out = await session.run({ x: float32(new Float32Array([1, -2]), [2]) });
    expect(await floatsOf(out['same']!)).toEqual(new Float32Array([1, -2]));
    expect(await floatsOf(out['first']!)).toEqual(new Float32Array([-1, 2]));
    expect(await floatsOf(out['second']!)).toEqual(new Float32Array([-1, 2]));
    await session.dispose();
  });

  test('refuse to read whole numbers as floats', async () => {
    await expect(floatsOf(int64([1, 2], [2]))).rejects.toMatchObject({ code: 'internal' });
  });
});

describe('weights by reference', () => {
  test.each([
    ['F32', 'float32'],
    ['F16', 'float16'],
    ['BF16', 'bfloat16'],
  ] as const)('%s in a file are the values that reading it gives', async (dtype, type) => {
    const path = join(folder, `${dtype}.safetensors`);
    const [before, matrix] = [numbers(3), numbers(15)];
    await writeSafetensors(
      path,
      new Map([
        // An odd number of values in front puts the matrix at an offset that is no multiple of its row.
        ['a', { dtype, shape: [3], data: before }],
        ['matrix', { dtype, shape: [5, 3], data: matrix }],
      ] as const),
    );
    const file = await openSafetensors(path);
    const { offset, bytes } = file.tensors.get('matrix')!;
    const graph = new Graph();
    const weight = f.toFloat32(graph.weight('matrix', type satisfies DType, [5, 3], { path, offset, bytes }));
    graph.output('value', weight);
    graph.output('product', f.linear(graph.input('x', 'float32', ['rows', 3]), weight));
    const session = await Session.create(graph, { providers: ['cpu'] });
    const x = numbers(6);
    const out = await session.run({ x: float32(x, [2, 3]) });
    const read = (await readTensor(file, 'matrix')).data as Float32Array;
    expect(await floatsOf(out['value']!)).toEqual(read);
    const product = await floatsOf(out['product']!);
    for (let row = 0; row < 2; row++) {
      for (let column = 0; column < 5; column++) {
        let expected = 0;
        for (let i = 0; i < 3; i++) expected += x[row * 3 + i]! * read[column * 3 + i]!;
        expect(product[row * 5 + column]!).toBeCloseTo(expected, 5);
      }
    }
    await session.dispose();
  });

  test('in files of two folders are refused', async () => {
    const graph = new Graph();
    const slice = (name: string) => ({ path: join(folder, name, 'weights'), offset: 0, bytes: 4 });
    const [a, b] = ['one', 'two'].map((name) => graph.weight(name, 'float32', [1], slice(name)));
    graph.output('sum', f.add(a!, b!));
    await expect(Session.create(graph, { providers: ['cpu'] })).rejects.toMatchObject({
      code: 'unsupported',
      message: expect.stringMatching(/one.*two|two.*one/),
    });
  });

  test('whose size is not that of their shape are refused', () => {
    const slice = { path: join(folder, 'weights'), offset: 0, bytes: 8 };
    expect(() => new Graph().weight('w', 'float32', [3], slice)).toThrow(/w.*12 bytes, not 8/);
  });

  test('beyond the end of their file are an error, not a crash', async () => {
    const path = join(folder, 'F32.safetensors');
    expect(existsSync(path)).toBe(true);
    const graph = new Graph();
    graph.output('w', f.negate(graph.weight('w', 'float32', [4], { path, offset: 1e9, bytes: 16 })));
    await expect(Session.create(graph, { providers: ['cpu'] })).rejects.toMatchObject({
      code: 'unsupported',
      message: expect.stringContaining('cpu: '),
    });
  });
});
