/**
 * @file Changes of linear layers that are fed at a run: a model with them answers as the checkpoint with the changed weights would,
 * in every family, and without them as it is.
 */
import { cp, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import {
  openSafetensors,
  readTensor,
  type WritableTensor,
  writeSafetensors,
} from '../../electron/files/safetensors.ts';
import { openCheckpoint } from '../../electron/models/open.ts';
import { VisionLanguageModel, type WeightChanges } from '../../electron/models/visionLanguageModel.ts';
import type { LinearChange } from '../../electron/models/weightChanges.ts';
import { floatsOf } from '../../electron/tensor/session.ts';
import { fixture, largestDifference } from '../support/fixtures.ts';

let base: string;
beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), 'emend-changes-'));
});
afterAll(() => rm(base, { recursive: true, force: true }));

/** Numbers between -size and size that look random and are the same every time. */
function spread(count: number, size: number, seed: number): Float32Array {
  return Float32Array.from({ length: count }, (_, i) => size * Math.sin(1 + i * 12.9898 + seed * 78.233));
}

/** Changes of rank 2 of every linear layer of decoder layer 1, and the head where it is the model's own. */
async function changesOf(folder: string): Promise<Map<string, LinearChange>> {
  const { backbone } = await openCheckpoint(folder);
  const changes = new Map<string, LinearChange>();
  for (const [name, shape] of backbone.decoder.tensors()) {
    const [out, into] = shape;
    if (into === undefined || !/layers\.1\.|lm_head/.test(name)) continue;
    const change = { rank: 2, right: spread(into * 2, 0.2, into), left: spread(2 * out!, 0.2, out! + 7) };
    changes.set(name.replace(/\.weight$/, ''), change);
  }
  return changes;
}

/** A copy of the checkpoint with W + (R·L)ᵀ in place of each changed W. */
async function changedCopy(folder: string, changes: ReadonlyMap<string, LinearChange>): Promise<string> {
  const copy = await mkdtemp(join(base, 'm-'));
  await cp(folder, copy, { recursive: true });
  const { weights } = await openCheckpoint(folder);
  const own = new Map([...changes].map(([name, change]) => [weights.entry(`${name}.weight`)!.name, change]));
  const file = await openSafetensors(join(folder, 'model.safetensors'));
  const tensors = new Map<string, WritableTensor>();
  for (const name of file.tensors.keys()) {
    const { shape, data } = await readTensor(file, name);
    const values = (data as Float32Array).slice();
    const change = own.get(name);
    if (change) {
      const [out, into] = shape as [number, number];
      for (let o = 0; o < out; o++)
        for (let i = 0; i < into; i++)
          for (let k = 0; k < change.rank; k++)
            values[o * into + i]! += change.right[i * change.rank + k]! * change.left[k * out + o]!;
    }
    tensors.set(name, { dtype: 'F32', shape: [...shape], data: values });
  }
  await writeSafetensors(join(copy, 'model.safetensors'), tensors);
  return copy;
}

async function logitsOf(model: VisionLanguageModel, changes?: WeightChanges): Promise<Float32Array> {
  const prompt = model.prompts.encodePrompt({ prompt: 'What is it?', image: false });
  const prefill = await model.prefill(await model.lay(prompt, null), undefined, changes);
  const { logits, caches } = await model.finish(prefill, [prefill.input.rows - 1]);
  const next = await model.next(5, caches, changes);
  return Float32Array.from([...(await floatsOf(logits)), ...(await floatsOf(next.logits))]);
}

test.each(['llava_tiny', 'blip2_tiny', 'minigpt4_tiny', 'smolvlm_tiny', 'qwen2_5_vl_tiny', 'qwen3_vl_tiny'])(
  '%s: changed weights act while they are fed, and only then',
  async (name) => {
    const folder = fixture(`checkpoints/${name}`);
    const changes = await changesOf(folder);
    expect(changes.size).toBeGreaterThan(5);
    const open = (path: string, changeable?: string[]) =>
      VisionLanguageModel.open(path, { providers: ['cpu'], cuts: [0], ...(changeable && { changeable }) });
    const plain = await open(folder);
    const changed = await open(await changedCopy(folder, changes));
    const changeable = await open(folder, [...changes.keys()]);
    try {
      const [before, wanted] = [await logitsOf(plain), await logitsOf(changed)];
      expect(largestDifference(before, wanted)).toBeGreaterThan(0.02);
      expect(largestDifference(await logitsOf(changeable), before)).toBeLessThan(1e-5);
      expect(largestDifference(await logitsOf(changeable, changes), wanted)).toBeLessThan(2e-4);
      expect(largestDifference(await logitsOf(changeable), before)).toBeLessThan(1e-5);
    } finally {
      for (const model of [plain, changed, changeable]) await model.dispose();
    }
  },
);

test('a change above the first cut acts on a prefill that was made without it', async () => {
  const folder = fixture('checkpoints/llava_tiny');
  const changes = await changesOf(folder);
  const model = await VisionLanguageModel.open(folder, {
    providers: ['cpu'],
    cuts: [0],
    changeable: [...changes.keys()],
  });
  try {
    const prompt = model.prompts.encodePrompt({ prompt: 'What is it?', image: false });
    const prefill = await model.prefill(await model.lay(prompt, null));
    const asked = [prefill.input.rows - 1];
    const values = async (acting?: WeightChanges) =>
      (await floatsOf((await model.finish(prefill, asked, undefined, acting)).logits)).slice();
    const before = await values();
    const fresh = await model.prefill(prefill.input, undefined, changes);
    const wanted = (await floatsOf((await model.finish(fresh, asked)).logits)).slice();
    expect(largestDifference(before, wanted)).toBeGreaterThan(0.02);
    expect(largestDifference(await values(changes), wanted)).toBeLessThan(1e-5);
    expect(largestDifference(await values(), before)).toBe(0);
  } finally {
    await model.dispose();
  }
});

test('a change below the first cut, or of what sees, acts on a prefill that was made without it', async () => {
  const folder = fixture('checkpoints/llava_tiny');
  const { backbone } = await openCheckpoint(folder);
  const { out } = backbone.decoder.mlp(0);
  const [connector] = backbone.vision.parts.connector;
  const seeing = [...backbone.tensors().keys()].filter((name) => name.startsWith(connector!));
  const bias = seeing.find((name) => name.endsWith('.bias'))!;
  const model = await VisionLanguageModel.open(folder, {
    providers: ['cpu'],
    cuts: [2],
    changeable: [out, bias],
  });
  try {
    const picture = await readFile(fixture('images/a.png'));
    const visual = await model.visualEmbeddings(await model.pixelsOf(picture));
    const prefill = await model.prefill(
      await model.lay(model.prompts.encodePrompt({ prompt: 'What is it?', image: true }), visual),
    );
    const asked = [prefill.input.rows - 1];
    const values = async (from: typeof prefill, acting?: WeightChanges) =>
      (await floatsOf((await model.finish(from, asked, undefined, acting)).logits)).slice();
    const before = await values(prefill);
    for (const changes of [
      new Map([[out, { rank: 1, right: spread(172, 0.5, 1), left: spread(64, 0.5, 2) }]]),
      new Map([[bias, { added: spread(64, 0.5, 3) }]]),
    ]) {
      const acting = await values(prefill, changes);
      expect(largestDifference(acting, before)).toBeGreaterThan(0.02);
      expect(
        largestDifference(await values(await model.prefill(prefill.input, asked, changes)), acting),
      ).toBe(0);
      expect(largestDifference(await values(prefill), before)).toBe(0);
    }
    const stored = { ...visual };
    delete (stored as { pixels?: unknown }).pixels;
    const unseen = await model.lay(
      model.prompts.encodePrompt({ prompt: 'What is it?', image: true }),
      stored,
    );
    await expect(
      model.prefill(unseen, asked, new Map([[bias, { added: spread(64, 0.5, 3) }]])),
    ).rejects.toThrow(/pixels/);
  } finally {
    await model.dispose();
  }
});

test('a layer that the decoder does not have cannot be made changeable', async () => {
  const opening = VisionLanguageModel.open(fixture('checkpoints/llava_tiny'), {
    providers: ['cpu'],
    changeable: ['language_model.model.layers.99.mlp.up_proj'],
  });
  await expect(opening).rejects.toThrow(/no linear layer/);
});
