/** @file Training through a decoder that is run one layer at a time: as in one graph, in every family, and with packed weights. */
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { TrainingProgress } from '../../electron/editors/training/editorTraining.ts';
import type { EditSource } from '../../electron/editors/training/edits.ts';
import { trainVisEdit } from '../../electron/editors/visedit/trainVisEdit.ts';
import type { WeightForm } from '../../electron/models/packed/form.ts';
import { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { fixture, largestDifference } from '../support/fixtures.ts';
import { EDIT_LAYER, tinyEdits, tinyTraining } from '../support/tinyEdits.ts';

let base: string;
beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), 'emend-layerwise-'));
});
afterAll(() => rm(base, { recursive: true, force: true }));

/** Two edits of pictures that every family reads. */
function edits(model: VisionLanguageModel): EditSource {
  const pixels = async (name: string) => model.pixelsOf(await readFile(fixture(`images/${name}.png`)));
  return {
    name: 'two edits',
    batch: async () => {
      const [a, b, pan] = await Promise.all([pixels('a'), pixels('b'), pixels('pan')]);
      return [a, b].map((own, index) => ({
        ...{ pixels: own, prompt: 'What is the animal?', target: index ? 'a dog' : 'the cat' },
        ...{ rephrase: 'Which animal is it?', rephrasePixels: pan, localityPixels: index ? a : b },
        locality: { prompt: 'What is the fruit?', answer: 'an apple' },
      }));
    },
    close: async () => {},
  };
}

async function train(folder: string, keptBelow?: string, weights: WeightForm = 'dense') {
  const model = await VisionLanguageModel.open(folder, {
    providers: ['cpu'],
    cuts: [EDIT_LAYER],
    decoderLater: true,
    weights,
    packed: { folder: join(base, 'packed'), limitBytes: 1e9 },
  });
  try {
    const steps: TrainingProgress[] = [];
    const { weights: trained } = await trainVisEdit(
      model,
      folder.includes('llava') ? tinyEdits(model) : edits(model),
      { ...tinyTraining, rows: 320, steps: 3 },
      {
        statePath: join(await mkdtemp(join(base, 's-')), 'state.safetensors'),
        ...(keptBelow && { keptBelow }),
        onStep: (step) => steps.push(step),
      },
    );
    return { steps, trained };
  } finally {
    await model.dispose();
  }
}

test('losses, gradients and weights are those of one graph', async () => {
  const folder = fixture('checkpoints/llava_tiny');
  const kept = await mkdtemp(join(base, 'below-'));
  const whole = await train(folder);
  const layerwise = await train(folder, kept);
  expect(layerwise.steps).toHaveLength(3);
  for (const [index, step] of layerwise.steps.entries()) {
    const other = whole.steps[index]!;
    expect(Math.abs(step.loss / other.loss - 1)).toBeLessThan(1e-4);
    expect(Math.abs(step.gradientNorm / other.gradientNorm - 1)).toBeLessThan(1e-3);
    for (const [term, value] of Object.entries(step.terms))
      expect(Math.abs(value - other.terms[term]!)).toBeLessThan(2e-4);
  }
  for (const [weight, { data }] of layerwise.trained)
    expect(largestDifference(data, whole.trained.get(weight)!.data)).toBeLessThan(2e-3);

  // Again: what lies below the adapter is read, not computed and written anew.
  const files = (await readdir(kept, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => join(parentPath, name));
  expect(files.length).toBeGreaterThan(0);
  const nodes = () => Promise.all(files.map(async (file) => (await stat(file)).ino));
  const before = await nodes();
  const losses = layerwise.steps.map(({ loss }) => loss);
  expect((await train(folder, kept)).steps.map(({ loss }) => loss)).toEqual(losses);
  expect(await nodes()).toEqual(before);

  // What is damaged is computed anew, and right again.
  const bytes = await readFile(files[0]!);
  await writeFile(files[0]!, bytes.toReversed());
  await writeFile(files.at(-1)!, 'cut short');
  expect((await train(folder, kept)).steps.map(({ loss }) => loss)).toEqual(losses);
  expect((await readFile(files[0]!)).equals(bytes)).toBe(true);
});

test.each(['qwen3_vl_tiny', 'blip2_tiny', 'smolvlm_tiny'])(
  '%s: the first step has the loss and the gradient of one graph',
  async (name) => {
    const folder = fixture(`checkpoints/${name}`);
    const whole = await train(folder);
    const layerwise = await train(folder, await mkdtemp(join(base, 'below-')));
    const [one, other] = [layerwise.steps[0]!, whole.steps[0]!];
    expect(Math.abs(one.loss / other.loss - 1)).toBeLessThan(1e-4);
    expect(Math.abs(one.gradientNorm / other.gradientNorm - 1)).toBeLessThan(1e-3);
  },
);

test('packed weights are trained through: the loss is near the dense one, and falls', async () => {
  const folder = fixture('checkpoints/llava_tiny');
  const dense = await train(folder, await mkdtemp(join(base, 'below-')));
  const packed = await train(folder, await mkdtemp(join(base, 'below-')), '8bit');
  const [first] = packed.steps;
  expect(first!.loss).not.toBe(dense.steps[0]!.loss);
  expect(Math.abs(first!.loss / dense.steps[0]!.loss - 1)).toBeLessThan(0.05);
  expect(Math.abs(first!.gradientNorm / dense.steps[0]!.gradientNorm - 1)).toBeLessThan(0.2);
});
