/** @file Changes of weights written into a copy of a checkpoint: it answers as the edited model does, and nothing else of it is another. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openSafetensors, readTensor } from '../../electron/files/safetensors.ts';
import { writeEditedCheckpoint, writeWeightDelta } from '../../electron/models/editedCheckpoint.ts';
import { type Checkpoint, openCheckpoint } from '../../electron/models/open.ts';
import { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import type { WeightChanges } from '../../electron/models/weightChanges.ts';
import { floatsOf } from '../../electron/tensor/session.ts';
import { normalNumbers } from '../support/checkpointFixtures.ts';
import { fixture, largestDifference } from '../support/fixtures.ts';

const base = mkdtempSync(join(tmpdir(), 'emend-edited-'));
const LAYER = 3;
let checkpoint: Checkpoint;
let name: string;
let changes: WeightChanges;
beforeAll(async () => {
  checkpoint = await openCheckpoint(fixture('checkpoints/llava_tiny'));
  const { decoder } = checkpoint.backbone;
  name = decoder.mlp(LAYER).out;
  const [out, into] = checkpoint.backbone.tensors().get(`${name}.weight`) as [number, number];
  const normal = normalNumbers(3);
  const floats = (count: number) => Float32Array.from({ length: count }, () => 0.3 * normal());
  changes = new Map([[name, { rank: 2, right: floats(2 * into), left: floats(2 * out) }]]);
});
afterAll(() => rmSync(base, { recursive: true, force: true }));

async function logits(folder: string, fed: WeightChanges | null): Promise<Float32Array> {
  const model = await VisionLanguageModel.open(folder, {
    ...{ providers: ['cpu'], threads: 1, cuts: [LAYER - 1] },
    ...(fed && { changeable: [name] }),
  });
  try {
    const encoded = model.prompts.encodePrompt({ prompt: 'What is the animal?', image: false });
    const prefill = await model.prefill(await model.lay(encoded, null));
    const rows = Array.from({ length: prefill.input.rows }, (_, row) => row);
    return (await floatsOf((await model.finish(prefill, rows, undefined, fed ?? undefined)).logits)).slice();
  } finally {
    await model.dispose();
  }
}

test('the copy answers as the model under the changes does; only files with changes are written anew', async () => {
  const out = join(base, 'copy');
  const { written, linked } = await writeEditedCheckpoint(checkpoint, changes, out);
  expect(written).toEqual(['model.safetensors']);
  expect([...written, ...linked].sort()).toEqual(readdirSync(checkpoint.folder).sort());
  expect(readdirSync(out).sort()).toEqual(readdirSync(checkpoint.folder).sort());
  const [plain, edited, copy] = [
    await logits(checkpoint.folder, null),
    await logits(checkpoint.folder, changes),
    await logits(out, null),
  ];
  expect(largestDifference(copy, edited)).toBeLessThan(2e-5);
  expect(largestDifference(copy, plain)).toBeGreaterThan(0.1);
  // Every other tensor is as it was, to the bit.
  const [before, after] = await Promise.all(
    [checkpoint.folder, out].map((folder) => openSafetensors(join(folder, 'model.safetensors'))),
  );
  const changed: string[] = [];
  for (const tensor of before!.tensors.keys()) {
    const [a, b] = [await readTensor(before!, tensor), await readTensor(after!, tensor)];
    expect(b.shape).toEqual(a.shape);
    if (
      !Buffer.from(a.data.buffer, a.data.byteOffset, a.data.byteLength).equals(
        Buffer.from(b.data.buffer, b.data.byteOffset, b.data.byteLength),
      )
    )
      changed.push(tensor);
  }
  expect(changed).toHaveLength(1);
});

test('the changes alone lie under the tensor’s own name, and the copy is the original with them added', async () => {
  const file = join(base, 'delta.safetensors');
  await writeWeightDelta(checkpoint, changes, file, { model: 'a fingerprint' });
  const delta = await openSafetensors(file);
  const own = checkpoint.weights.entry(`${name}.weight`)!.name;
  expect([...delta.tensors.keys()]).toEqual([own]);
  expect(delta.metadata.get('model')).toBe('a fingerprint');
  const out = join(base, 'again');
  await writeEditedCheckpoint(checkpoint, changes, out);
  const [before, after, added] = await Promise.all(
    [join(checkpoint.folder, 'model.safetensors'), join(out, 'model.safetensors'), file].map(
      async (path) => (await readTensor(await openSafetensors(path), own)).data as Float32Array,
    ),
  );
  expect(
    largestDifference(
      after!,
      before!.map((value, i) => value + added![i]!),
    ),
  ).toBe(0);
});

test('a folder that is there is not touched, and what a checkpoint cannot hold is told; nothing half-written stays', async () => {
  const there = join(base, 'copy');
  const bytes = readFileSync(join(there, 'model.safetensors'));
  await expect(writeEditedCheckpoint(checkpoint, changes, there)).rejects.toMatchObject({ code: 'conflict' });
  expect(readFileSync(join(there, 'model.safetensors')).equals(bytes)).toBe(true);
  const { hidden } = checkpoint.backbone.decoder;
  const mlp = checkpoint.backbone.decoder.mlp(LAYER);
  const keys = mlp.into.map(() => ({ weight: new Float32Array(hidden), bias: new Float32Array(1) }));
  const neurons: WeightChanges = new Map([[mlp.name, { count: 1, keys, values: new Float32Array(hidden) }]]);
  await expect(writeEditedCheckpoint(checkpoint, neurons, join(base, 'neurons'))).rejects.toMatchObject({
    code: 'unsupported',
    message: expect.stringContaining('neurons'),
  });
  const stop = new AbortController();
  const stopped = { signal: stop.signal, progress: (done: number) => done === 2 && stop.abort() };
  await expect(
    writeEditedCheckpoint(checkpoint, changes, join(base, 'stopped'), stopped),
  ).rejects.toMatchObject({
    code: 'cancelled',
  });
  expect(readdirSync(base).filter((entry) => /neurons|stopped|part/.test(entry))).toEqual([]);
});
