/** @file Packed weights: made once, used where they lie, and what is said where they cannot be used or made. */
import {
  cp,
  mkdtemp,
  open,
  readdir,
  readFile,
  rm,
  stat,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { memoryNeeds, openingWays, refuseWhatCannotFit } from '../../electron/models/memory.ts';
import { openCheckpoint } from '../../electron/models/open.ts';
import { packRows } from '../../electron/models/packed/blocks.ts';
import { listPacked, type PackedCache, removePacked } from '../../electron/models/packed/cache.ts';
import type { WeightForm } from '../../electron/models/packed/form.ts';
import { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import * as f from '../../electron/tensor/functions.ts';
import { gradients } from '../../electron/tensor/gradients.ts';
import { Graph } from '../../electron/tensor/graph.ts';
import { float32, floatsOf, Session } from '../../electron/tensor/session.ts';
import { fixture, largestDifference } from '../support/fixtures.ts';

let base: string;
beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), 'emend-packed-'));
});
afterAll(() => rm(base, { recursive: true, force: true }));

const spread = (count: number, seed: number) =>
  Float32Array.from({ length: count }, (_, i) => Math.sin(1 + i * 12.9898 + seed * 78.233));

const newCache = async (limitBytes = 1e9): Promise<PackedCache> => ({
  folder: await mkdtemp(join(base, 'cache-')),
  limitBytes,
});

async function logitsOf(folder: string, weights: WeightForm, packed: PackedCache): Promise<Float32Array> {
  const model = await VisionLanguageModel.open(folder, { providers: ['cpu'], weights, packed });
  try {
    expect(model.form).toBe(weights);
    const prompt = model.prompts.encodePrompt({ prompt: 'What is it?', image: false });
    const { logits } = await model.prefill(await model.lay(prompt, null));
    return (await floatsOf(logits!)).slice();
  } finally {
    await model.dispose();
  }
}

/** Cosine of two vectors. */
function cosine(a: Float32Array, b: Float32Array): number {
  const dot = (x: Float32Array, y: Float32Array) => x.reduce((sum, value, i) => sum + value * y[i]!, 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}

describe.each([4, 8] as const)('a matrix in %i bits', (bits) => {
  const size = 32;
  const [out, columns, rows] = [24, 128, 3];
  const dense = spread(out * columns, 3).map((value, i) => value * (1 + (i % 7)) + 0.3);
  const { blocks, scales, zeroPoints } = packRows(dense, { bits, size });
  const matrixIn = (graph: Graph) => {
    const count = columns / size;
    const bytes = (data: Uint8Array, shape: number[]) =>
      graph.constant(data as unknown as number[], shape, 'uint8');
    return {
      bits,
      blocks: bytes(blocks, [out, count, (size * bits) / 8]),
      scales: graph.constant(scales, [out, count]),
      zeroPoints: bytes(zeroPoints, [out, (count * bits) / 8]),
    };
  };
  const run = async (build: (graph: Graph) => void, feeds: Record<string, ReturnType<typeof float32>>) => {
    const graph = new Graph();
    build(graph);
    const session = await Session.create(graph, { providers: ['cpu'] });
    const found = await session.run(feeds);
    const floats = Object.fromEntries(
      await Promise.all(
        Object.entries(found).map(async ([name, value]) => [name, (await floatsOf(value)).slice()]),
      ),
    ) as Record<string, Float32Array>;
    await session.dispose();
    return floats;
  };

  test('is within half a step of its numbers', async () => {
    const { wide } = await run(
      (graph) => {
        const { blocks: b, scales: s, zeroPoints: z } = matrixIn(graph);
        const scale = graph.input('x', 'float32', []);
        graph.output('wide', f.multiply(f.unpacked([b, s, z], bits), scale));
      },
      { x: float32(Float32Array.of(1), []) },
    );
    // The zero point is rounded too, so the numbers at the ends of a block may lie a whole step off.
    const step = (i: number) => scales[Math.floor(i / size)]!;
    expect(wide!.every((value, i) => Math.abs(value - dense[i]!) <= 1.001 * step(i))).toBe(true);
    const far = wide!.filter((value, i) => Math.abs(value - dense[i]!) > 0.501 * step(i)).length;
    expect(far / wide!.length).toBeLessThan(0.05);
  });

  test('gives the product with its numbers, and the gradient of that product by finite differences', async () => {
    const x = spread(rows * columns, 5);
    const direction = spread(rows * out, 9);
    const build = (graph: Graph) => {
      const input = graph.input('x', 'float32', ['rows', columns]);
      const matrix = matrixIn(graph);
      const product = f.packedLinear(input, matrix);
      const loss = f.sum(f.multiply(product, graph.input('direction', 'float32', ['rows', out])));
      graph.output('product', product);
      graph.output('gradient', gradients(loss, [input])[0]!);
      const wide = f.unpacked([matrix.blocks, matrix.scales, matrix.zeroPoints], bits);
      graph.output('exact', f.linear(input, wide));
    };
    const feeds = (values: Float32Array) => ({
      x: float32(values, [rows, columns]),
      direction: float32(direction, [rows, out]),
    });
    const { product, exact, gradient } = await run(build, feeds(x));
    expect(cosine(product!, exact!)).toBeGreaterThan(0.9999);
    // The product rounds x by the block, so differences are taken of the exact one: it is linear, any step will do.
    const along = (values: Float32Array) => values.reduce((sum, value, i) => sum + value * direction[i]!, 0);
    for (const at of [0, 17, 140, rows * columns - 1]) {
      const moved = x.slice();
      moved[at]! += 1;
      const difference = along((await run(build, feeds(moved)))['exact']!) - along(exact!);
      expect(Math.abs(difference - gradient![at]!)).toBeLessThan(2e-3);
    }
  });
});

test.each(['llava_tiny', 'blip2_tiny', 'smolvlm_tiny', 'qwen2_5_vl_tiny', 'qwen3_vl_tiny', 'minigpt4_tiny'])(
  '%s in 8 and in 4 bits says nearly what it says as it is; what is packed once is used again',
  async (name) => {
    const cache = await newCache();
    const folder = fixture(`checkpoints/${name}`);
    const dense = await logitsOf(folder, 'dense', cache);
    const eight = await logitsOf(folder, '8bit', cache);
    const four = await logitsOf(folder, '4bit', cache);
    expect(largestDifference(dense, eight)).toBeGreaterThan(0);
    expect(cosine(dense, eight)).toBeGreaterThan(0.995);
    expect(cosine(dense, four)).toBeGreaterThan(0.9);
    expect(cosine(dense, eight)).toBeGreaterThan(cosine(dense, four));
    const made = await listPacked(cache.folder);
    expect(made.map(({ form }) => form).toSorted()).toEqual(['4bit', '8bit']);
    const before = await stat(join(cache.folder, made[0]!.name));
    expect(await logitsOf(folder, made[0]!.form, cache)).toEqual(made[0]!.form === '8bit' ? eight : four);
    expect((await stat(join(cache.folder, made[0]!.name))).ino).toBe(before.ino);
  },
);

describe('packed weights that cannot be used or made', () => {
  const folder = fixture('checkpoints/llava_tiny');
  const opening = (packed: PackedCache, signal?: AbortSignal, onPacking?: () => void) =>
    VisionLanguageModel.open(folder, {
      providers: ['cpu'],
      weights: '8bit',
      packed,
      ...(signal && { signal }),
      ...(onPacking && { onPacking }),
    });
  const pathIn = async ({ folder: of }: PackedCache) => join(of, (await readdir(of))[0]!);

  test('a file that was cut short is said to be, and made again once it is removed', async () => {
    const cache = await newCache();
    await (await opening(cache)).dispose();
    const path = await pathIn(cache);
    await truncate(path, (await stat(path)).size - 100);
    await expect(opening(cache)).rejects.toMatchObject({
      code: 'damaged',
      message: expect.stringMatching(/Remove them \(emend packed --remove/),
    });
    await removePacked(cache.folder, (await listPacked(cache.folder))[0]!.name);
    await (await opening(cache)).dispose();
  });

  test('a file made of another checkpoint is refused', async () => {
    const cache = await newCache();
    await (await opening(cache)).dispose();
    const path = await pathIn(cache);
    const { metadata } = await import('../../electron/files/safetensors.ts').then((m) =>
      m.openSafetensors(path),
    );
    const source = metadata.get('source')!;
    const bytes = await readFile(path);
    bytes.write(source.replaceAll(/./g, '0'), bytes.indexOf(source));
    await writeFile(path, bytes);
    await expect(opening(cache)).rejects.toMatchObject({
      code: 'damaged',
      message: expect.stringMatching(/another checkpoint/),
    });
  });

  test('a cache that is too small is said to be, before anything is written', async () => {
    const cache = await newCache(1000);
    await expect(opening(cache)).rejects.toMatchObject({
      code: 'conflict',
      message: expect.stringMatching(/limit/),
    });
    expect(await readdir(cache.folder)).toEqual([]);
  });

  test('what was used longest ago makes room', async () => {
    const cache = await newCache();
    const other = join(base, 'other');
    await cp(folder, other, { recursive: true });
    await writeFile(join(other, 'generation_config.json'), '{}');
    await (await opening(cache)).dispose();
    const [first] = await listPacked(cache.folder);
    await utimes(join(cache.folder, first!.name), new Date(0), new Date(0));
    const small = { ...cache, limitBytes: first!.bytes * 1.5 };
    const second = await VisionLanguageModel.open(other, {
      providers: ['cpu'],
      weights: '8bit',
      packed: small,
    });
    await second.dispose();
    const left = await listPacked(cache.folder);
    expect(left).toHaveLength(1);
    expect(left[0]!.name).not.toBe(first!.name);
  });

  test('packing that is stopped leaves nothing behind', async () => {
    const cache = await newCache();
    const stop = new AbortController();
    await expect(opening(cache, stop.signal, () => stop.abort())).rejects.toMatchObject({
      code: 'cancelled',
    });
    expect(await readdir(cache.folder)).toEqual([]);
  });

  test('a disk without room is said to have none, and nothing is left on it', async () => {
    // Writing beyond the limit that a process has for files fails as on a full disk.
    const cache = await newCache();
    const taken = await open(join(cache.folder, 'in-the-way'), 'w');
    await taken.close();
    const broken = { ...cache, folder: join(cache.folder, 'in-the-way') };
    await expect(opening(broken)).rejects.toThrow();
    expect(await readdir(cache.folder)).toEqual(['in-the-way']);
  });
});

describe('memory, told from headers alone', () => {
  test('dense takes four bytes a parameter, packed ones a quarter and an eighth of it', async () => {
    const checkpoint = await openCheckpoint(fixture('checkpoints/llava_tiny'));
    const [dense, eight, four] = memoryNeeds(checkpoint, 16);
    const parameters = [...checkpoint.backbone.decoder.tensors().values()]
      .map((shape) => shape.reduce((a, b) => a * b, 1))
      .reduce((a, b) => a + b, 0);
    expect(dense!.decoder / (4 * parameters)).toBeGreaterThan(0.5);
    expect(dense!.decoder / (4 * parameters)).toBeLessThanOrEqual(1);
    expect(eight!.decoder).toBeLessThan(dense!.decoder / 1.5);
    expect(four!.total).toBeLessThanOrEqual(dense!.total);
    expect(eight!.file).toBeGreaterThan(0);
  });

  test('the best form that fits is proposed, and what does not fit is refused with it', async () => {
    const checkpoint = await openCheckpoint(fixture('checkpoints/llava_tiny'));
    const [dense, eight] = memoryNeeds(checkpoint, 16);
    const providers = ['webgpu', 'cpu'] as const;
    const between = (dense!.total + eight!.total) / 2;
    expect(openingWays(checkpoint, { pictureRows: 16, providers, available: 1e12 }).proposed).toBe('dense');
    const { ways, proposed } = openingWays(checkpoint, { pictureRows: 16, providers, available: between });
    expect(proposed).toBe('8bit');
    expect(ways.filter(({ provider }) => provider === 'webgpu').every(({ fits }) => fits === null)).toBe(
      true,
    );
    expect(() => refuseWhatCannotFit(checkpoint, 'dense', 16, between)).toThrow(/--weights 8bit/);
    expect(() => refuseWhatCannotFit(checkpoint, '8bit', 16, between)).not.toThrow();
    expect(() => refuseWhatCannotFit(checkpoint, '8bit', 16, 1000)).toThrow(/not fit in any form/);
  });
});
