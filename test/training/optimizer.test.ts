import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { writeSafetensors } from '../../electron/files/safetensors.ts';
import * as f from '../../electron/tensor/functions.ts';
import { Graph } from '../../electron/tensor/graph.ts';
import { float32 } from '../../electron/tensor/session.ts';
import {
  Adam,
  type AdamOptions,
  adamDefaults,
  learningRate,
  type Schedule,
} from '../../electron/training/optimizer.ts';
import { Trainer } from '../../electron/training/trainer.ts';
import { normalNumbers } from '../support/checkpointFixtures.ts';

const folder = mkdtempSync(join(tmpdir(), 'emend-training-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

type Values = Map<string, { shape: number[]; data: Float32Array }>;

/** A matrix and a bias. */
const start = (): Values =>
  new Map([
    ['weight', { shape: [2, 2], data: new Float32Array([0.5, -1, 2, 0.25]) }],
    ['bias', { shape: [2], data: new Float32Array([0.1, -0.3]) }],
  ]);

/** Gradients of step `step`: of very different sizes, changing sign. */
const gradientsAt = (step: number) =>
  new Map([
    ['weight', new Float32Array([3, -0.02, 1e-4, -7]).map((value, i) => value * Math.cos(1.3 * step + i))],
    ['bias', new Float32Array([0.5, -40]).map((value, i) => value / (step + 1) - i * 0.01)],
  ]);

const plain = (values: Values) =>
  Object.fromEntries([...values].map(([name, { data }]) => [name, [...data]]));

/**
 * Adam as the papers write it (Kingma & Ba alg. 1; Loshchilov & Hutter alg. 2), in double precision: bias-corrected moments
 * m̂ and v̂, decay applied to the weights themselves.
 */
function reference(steps: number, options: AdamOptions): Record<string, number[]> {
  const result: Record<string, number[]> = {};
  for (const [name, { shape, data }] of start()) {
    result[name] = [...data].map((initial, i) => {
      let [theta, m, v] = [initial, 0, 0];
      for (let t = 1; t <= steps; t++) {
        const all = [...gradientsAt(t - 1).values()].flatMap((values) => [...values]);
        const norm = Math.hypot(...all);
        const clip = options.clipNorm > 0 ? Math.min(1, options.clipNorm / norm) : 1;
        const g = gradientsAt(t - 1).get(name)![i]! * clip;
        const rate = learningRate(options.schedule, t - 1);
        m = options.beta1 * m + (1 - options.beta1) * g;
        v = options.beta2 * v + (1 - options.beta2) * g * g;
        const mHat = m / (1 - options.beta1 ** t);
        const vHat = v / (1 - options.beta2 ** t);
        const decay = shape.length > 1 ? rate * options.weightDecay * theta : 0;
        theta = theta - decay - (rate * mHat) / (Math.sqrt(vHat) + options.epsilon);
      }
      return theta;
    });
  }
  return result;
}

describe('Adam', () => {
  test.each<[string, Partial<AdamOptions>]>([
    ['as published', {}],
    ['with other constants', { beta1: 0.8, beta2: 0.95, epsilon: 1e-3 }],
    ['with decoupled decay of matrices', { weightDecay: 0.5 }],
    ['with clipping', { clipNorm: 1 }],
    [
      'with warm-up and cosine decay',
      { schedule: { peak: 0.05, warmUp: 3, decay: 'cosine', steps: 8, floor: 0.1 } },
    ],
  ])('%s follows the reference', (_, given) => {
    const options = { ...adamDefaults(0.05), ...given };
    const values = start();
    const adam = new Adam(values, options);
    for (let step = 0; step < 10; step++) adam.update(gradientsAt(step));
    expect(adam.step).toBe(10);
    const expected = reference(10, options);
    for (const [name, { data }] of values) {
      // Moments and parameters are kept in float32: some rounding errors of 6e-8 a step.
      for (const [i, value] of data.entries())
        expect(Math.abs(value - expected[name]![i]!), name).toBeLessThan(2e-6);
    }
  });

  test('the first step moves every weight by the rate, whatever the gradient’s size', () => {
    const values = start();
    new Adam(values, adamDefaults(0.01)).update(gradientsAt(0));
    for (const [name, { data }] of values) {
      for (const [i, value] of data.entries()) {
        const moved = start().get(name)!.data[i]! - value;
        expect(moved).toBeCloseTo(0.01 * Math.sign(gradientsAt(0).get(name)![i]!), 5);
      }
    }
  });

  test('decay shrinks matrices and leaves norms and biases', () => {
    const values = start();
    const nothing = new Map([...values].map(([name, { data }]) => [name, new Float32Array(data.length)]));
    new Adam(values, { ...adamDefaults(0.1), weightDecay: 0.5 }).update(nothing);
    expect(plain(values)['bias']).toEqual(plain(start())['bias']);
    expect(values.get('weight')!.data).toEqual(
      start()
        .get('weight')!
        .data.map((value) => value * 0.95),
    );
  });

  test('tells the norm before clipping', () => {
    const gradients = new Map([
      ['weight', new Float32Array([3, 0, 0, 0])],
      ['bias', new Float32Array([0, 4])],
    ]);
    expect(new Adam(start(), { ...adamDefaults(1), clipNorm: 1 }).update(gradients)).toBe(5);
  });

  test.each([
    ['not a number', Number.NaN],
    ['infinite', Number.POSITIVE_INFINITY],
    ['beyond float32 when squared', 1e300],
  ])('refuses a gradient that is %s, with nothing changed', (_, bad) => {
    const values = start();
    const adam = new Adam(values, adamDefaults(0.1));
    adam.update(gradientsAt(0));
    const before = structuredClone(adam.save());
    const gradients = gradientsAt(1);
    gradients.get('bias')![1] = bad;
    expect(() => adam.update(gradients)).toThrow(/diverged at step 1/);
    expect(adam.save()).toEqual(before);
  });

  test('refuses gradients that are missing or of another size, with nothing changed', () => {
    const adam = new Adam(start(), adamDefaults(0.1));
    const before = structuredClone(adam.save());
    const gradients = gradientsAt(0);
    gradients.set('bias', new Float32Array(3));
    expect(() => adam.update(gradients)).toThrow(/bias/);
    gradients.delete('bias');
    expect(() => adam.update(gradients)).toThrow(/bias/);
    expect(adam.save()).toEqual(before);
  });
});

describe('the learning rate', () => {
  const schedule = (given: Partial<Schedule>): Schedule => ({
    ...{ peak: 2, warmUp: 4, decay: 'none', steps: 14, floor: 0.25 },
    ...given,
  });
  const rates = (given: Partial<Schedule>, steps: number[]) =>
    steps.map((step) => learningRate(schedule(given), step));

  test('rises in equal steps and reaches the peak with the last of them', () => {
    expect(rates({}, [0, 1, 2, 3, 4, 5])).toEqual([0.5, 1, 1.5, 2, 2, 2]);
    expect(rates({ warmUp: 0 }, [0, 1])).toEqual([2, 2]);
  });

  test('falls in a straight line to its floor and stays there', () => {
    const found = rates({ decay: 'linear' }, [4, 9, 14, 15, 1000]);
    for (const [i, rate] of [2, 1.25, 0.5, 0.5, 0.5].entries()) expect(found[i]).toBeCloseTo(rate, 12);
  });

  test('falls along a cosine to its floor and stays there', () => {
    const quarter = 2 * (0.25 + (0.75 * (1 + Math.SQRT1_2)) / 2);
    const found = rates({ decay: 'cosine', warmUp: 2 }, [2, 5, 8, 14, 15]);
    for (const [i, rate] of [2, quarter, 1.25, 0.5, 0.5].entries()) expect(found[i]).toBeCloseTo(rate, 12);
  });
});

/** Least squares of a two-layer network: small, and with every part of a training step. */
async function trainer(values: Values, options: Partial<AdamOptions> = {}): Promise<Trainer> {
  const graph = new Graph();
  const x = graph.input('x', 'float32', ['rows', 3]);
  const input = (name: string) => graph.input(name, 'float32', values.get(name)!.shape);
  const inner = f.gelu(f.linear(x, input('in.weight'), input('in.bias')));
  const y = f.linear(inner, input('out.weight'));
  const error = f.subtract(y, graph.input('y', 'float32', ['rows', 2]));
  const loss = f.mean(f.multiply(error, error));
  const schedule = { peak: 0.02, warmUp: 3, decay: 'cosine', steps: 12, floor: 0 } as const;
  const all = { ...adamDefaults(0), schedule, weightDecay: 0.01, clipNorm: 0.5, ...options };
  return Trainer.create(graph, loss, { error: f.mean(f.abs(error)) }, values, all, { providers: ['cpu'] });
}

function network(): Values {
  const normal = normalNumbers(5);
  const random = (...shape: number[]) => ({
    shape,
    data: Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => 0.5 * normal()),
  });
  return new Map([
    ['in.weight', random(8, 3)],
    ['in.bias', random(8)],
    ['out.weight', random(2, 8)],
  ]);
}

function batch(step: number) {
  const normal = normalNumbers(100 + step);
  const random = (width: number) =>
    float32(
      Float32Array.from({ length: 16 * width }, () => normal()),
      [16, width],
    );
  return { x: random(3), y: random(2) };
}

describe('a training', () => {
  test('brings its loss down', async () => {
    const training = await trainer(network(), { clipNorm: 0 });
    const first = await training.step(batch(0));
    let last = first;
    for (let step = 1; step < 12; step++) last = await training.step(batch(0));
    expect(last.step).toBe(12);
    expect(last.loss).toBeLessThan(first.loss);
    expect(first.terms['error']).toBeGreaterThan(0);
    await training.dispose();
  });

  test('saved in the middle and taken up elsewhere goes on bit for bit', async () => {
    const path = join(folder, 'state.safetensors');
    const whole = network();
    const uninterrupted = await trainer(whole);
    for (let step = 0; step < 9; step++) await uninterrupted.step(batch(step));
    await uninterrupted.dispose();

    const before = await trainer(network());
    for (let step = 0; step < 4; step++) await before.step(batch(step));
    await before.save(path, 'gentle');
    await before.dispose();

    const resumed = network();
    for (const { data } of resumed.values()) data.fill(9);
    const after = await trainer(resumed);
    await after.load(path, 'gentle');
    expect(after.optimizer.step).toBe(4);
    for (let step = 4; step < 9; step++) await after.step(batch(step));
    await after.dispose();
    expect(resumed).toEqual(whole);
    expect(after.optimizer.save()).toEqual(uninterrupted.optimizer.save());
  });

  test('refuses, with nothing changed, a state of a training with other settings', async () => {
    const path = join(folder, 'other.safetensors');
    const values = network();
    const training = await trainer(values);
    await training.step(batch(0));
    await training.save(path, 'gentle');
    await training.step(batch(1));
    const before = structuredClone(training.optimizer.save());
    await expect(training.load(path, 'rough')).rejects.toMatchObject({ code: 'conflict' });
    expect(training.optimizer.save()).toEqual(before);
    await training.dispose();
  });

  describe('refuses, with nothing changed, a state', () => {
    const attempt = async (name: string, change: (state: Map<string, Stored>) => void, step = '3') => {
      const values = network();
      const training = await trainer(values);
      await training.step(batch(0));
      const before = structuredClone(training.optimizer.save());
      const state = new Map<string, Stored>(
        [...before.tensors].map(([key, { shape, data }]) => [
          key,
          { dtype: 'F32', shape: [...shape], data: data.map((value) => value + 1) },
        ]),
      );
      change(state);
      const path = join(folder, `${name.replaceAll(' ', '-')}.safetensors`);
      await writeSafetensors(path, state, { settings: 'gentle', ...(step === '' ? {} : { step }) });
      await expect(training.load(path, 'gentle')).rejects.toMatchObject({ code: 'damaged' });
      expect(training.optimizer.save()).toEqual(before);
      await training.dispose();
    };
    type Stored =
      | { dtype: 'F32'; shape: number[]; data: Float32Array }
      | { dtype: 'I64'; shape: number[]; data: BigInt64Array };
    const last = 'second.out.weight';

    test.each<[string, (state: Map<string, Stored>) => void]>([
      ['that lacks a moment', (state) => state.delete(last)],
      [
        'of a matrix lying the other way',
        (state) => state.set(last, { dtype: 'F32', shape: [8, 2], data: new Float32Array(16) }),
      ],
      [
        'of whole numbers',
        (state) => state.set(last, { dtype: 'I64', shape: [2, 8], data: new BigInt64Array(16) }),
      ],
      [
        'with values that are no numbers',
        (state) =>
          state.set(last, { dtype: 'F32', shape: [2, 8], data: new Float32Array(16).fill(Number.NaN) }),
      ],
    ])('%s', (name, change) => attempt(name, change));

    test.each(['', '-1', '1.5', 'soon'])('with step "%s"', (step) => attempt(`step ${step}`, () => {}, step));
  });

  test('that diverges stops before anything is changed', async () => {
    const values = network();
    const training = await trainer(values);
    await training.step(batch(0));
    const before = structuredClone(training.optimizer.save());
    const { x, y } = batch(1);
    (y.data as Float32Array)[3] = Number.NaN;
    await expect(training.step({ x, y })).rejects.toThrow(/diverged at step 1/);
    expect(training.optimizer.save()).toEqual(before);
    await training.dispose();
  });
});
