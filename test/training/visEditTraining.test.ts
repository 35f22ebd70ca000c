import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { trainVisEdit } from '../../electron/editors/visedit/trainVisEdit.ts';
import { shapeOfWeights } from '../../electron/editors/visedit/visEdit.ts';
import { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { writeTinyCheckpoint } from '../support/checkpointFixtures.ts';
import { largestDifference } from '../support/fixtures.ts';
import { EDIT_LAYER, tinyEdits, tinyTraining } from '../support/tinyEdits.ts';

const folder = mkdtempSync(join(tmpdir(), 'emend-visedit-'));
let model: VisionLanguageModel;
beforeAll(async () => {
  await writeTinyCheckpoint(folder);
  model = await VisionLanguageModel.open(folder, { providers: ['cpu'], cuts: [EDIT_LAYER] });
});
afterAll(async () => {
  await model.dispose();
  rmSync(folder, { recursive: true, force: true });
});

const train = (state: string, run: { signal?: AbortSignal; onStep?: (step: number) => void } = {}) =>
  trainVisEdit(model, tinyEdits(model), tinyTraining, {
    statePath: join(folder, state),
    signal: run.signal,
    onStep: ({ step }) => run.onStep?.(step),
  });

test('a training of an adapter that is stopped and taken up again ends in the same weights, bit for bit', async () => {
  const steps: number[] = [];
  const whole = await train('whole.safetensors', { onStep: (step) => steps.push(step) });
  expect(steps).toEqual([1, 2, 3, 4, 5, 6]);

  const stop = new AbortController();
  const first: number[] = [];
  const stopped = train('parts.safetensors', {
    signal: stop.signal,
    onStep: (step) => {
      first.push(step);
      if (step === 2) stop.abort();
    },
  });
  await expect(stopped).rejects.toMatchObject({
    code: 'cancelled',
    message: expect.stringContaining('after 2 steps'),
  });
  expect(first).toEqual([1, 2]);
  expect(existsSync(join(folder, 'parts.safetensors'))).toBe(true);

  const second: number[] = [];
  const resumed = await train('parts.safetensors', { onStep: (step) => second.push(step) });
  expect(second).toEqual([3, 4, 5, 6]);
  expect(resumed.weights).toEqual(whole.weights);

  // A finished training has nothing left to do, and gives what it ended in.
  const again: number[] = [];
  const finished = await train('whole.safetensors', { onStep: (step) => again.push(step) });
  expect(again).toEqual([]);
  expect(finished.weights).toEqual(whole.weights);
});

test('a state saved with other settings is refused, and left as it was', async () => {
  const path = join(folder, 'own.safetensors');
  await train('own.safetensors');
  const before = readFileSync(path);
  const edits = tinyEdits(model);
  const other = trainVisEdit(
    model,
    edits,
    { ...tinyTraining, seed: tinyTraining.seed + 1 },
    { statePath: path },
  );
  await expect(other).rejects.toMatchObject({
    code: 'conflict',
    message: expect.stringContaining('other settings'),
  });
  expect(readFileSync(path).equals(before)).toBe(true);
});

test('a state of another model is refused', async () => {
  const path = join(folder, 'first.safetensors');
  await train('first.safetensors');
  const elsewhere = join(folder, 'second model');
  await writeTinyCheckpoint(elsewhere, { seed: 2 });
  const second = await VisionLanguageModel.open(elsewhere, { providers: ['cpu'], cuts: [EDIT_LAYER] });
  try {
    const edits = tinyEdits(second);
    const other = trainVisEdit(second, edits, tinyTraining, { statePath: path });
    await expect(other).rejects.toMatchObject({
      code: 'conflict',
      message: expect.stringContaining('another model'),
    });
  } finally {
    await second.dispose();
  }
});

test('no more visual tokens are drawn for the influence losses than there are', async () => {
  const edits = tinyEdits(model);
  const run = { statePath: join(folder, 'all.safetensors') };
  const { weights } = await trainVisEdit(model, edits, { ...tinyTraining, sampled: 1000, steps: 1 }, run);
  expect([...weights.values()].every(({ data }) => data.every(Number.isFinite))).toBe(true);
});

test('the layers that teach the influence mapper can be chosen; those the published code takes are another training', async () => {
  const edits = tinyEdits(model);
  const trained = async (name: string, attributionLayers?: readonly number[]) => {
    const run = { statePath: join(folder, `${name}.safetensors`) };
    return (await trainVisEdit(model, edits, { ...tinyTraining, steps: 2, attributionLayers }, run)).weights;
  };
  const last = model.decoder.layers - 1;
  const [usual, first] = [await trained('usual layers'), await trained('last layer', [last])];
  const differs = [...usual].filter(([name, { data }]) =>
    data.some((value, at) => value !== first.get(name)!.data[at]),
  );
  expect(differs.length).toBeGreaterThan(0);
  await expect(trained('too low', [EDIT_LAYER])).rejects.toMatchObject({ code: 'invalid-input' });
  await expect(trained('too high', [last + 1])).rejects.toMatchObject({ code: 'invalid-input' });
});

test('an adapter without an influence mapper is trained by its answers alone', async () => {
  const shape = { ...tinyTraining.shape, influenceMapper: false };
  const told: string[][] = [];
  const run = {
    statePath: join(folder, 'no mapper.safetensors'),
    onStep: ({ terms }: { terms: object }) => told.push(Object.keys(terms)),
  };
  const { weights } = await trainVisEdit(model, tinyEdits(model), { ...tinyTraining, shape, steps: 1 }, run);
  expect(told).toEqual([['reliability', 'textGenerality', 'imageGenerality', 'imageLocality']]);
  expect([...weights.keys()].filter((name) => name.startsWith('influence_mapper.'))).toEqual([]);
});

test('batches that are gathered make the step of one batch of all their edits', async () => {
  const edits = tinyEdits(model);
  // A scale is taken from the first batch, which is another here.
  const options = { ...tinyTraining, sampled: 1000, scale: 0, steps: 2 };
  const weights = { ...options.weights, influenceAttribution: 0 };
  const run = (name: string) => ({ statePath: join(folder, name) });
  const whole = await trainVisEdit(model, edits, { ...options, weights, edits: 4 }, run('four'));
  const parts = await trainVisEdit(
    model,
    edits,
    { ...options, weights, edits: 2, accumulate: 2 },
    run('two and two'),
  );
  const apart = await trainVisEdit(model, edits, { ...options, weights, edits: 2 }, run('two'));
  const name = 'mlp_end.weight';
  const of = ({ weights: found }: typeof whole) => found.get(name)!.data;
  expect(largestDifference(of(parts), of(whole))).toBeLessThan(2e-5);
  expect(largestDifference(of(apart), of(whole))).toBeGreaterThan(2e-4);
});

test('a step of gathered batches that was stopped in its middle is made anew', async () => {
  const gathered = (state: string, signal?: AbortSignal) => {
    const edits = tinyEdits(model);
    const asked: number[] = [];
    const batch: typeof edits.batch = (number, count) => {
      asked.push(number);
      if (signal && number === 3) stop.abort();
      return edits.batch(number, count);
    };
    const options = { ...tinyTraining, edits: 1, accumulate: 3, steps: 2 };
    const run = { statePath: join(folder, state), ...(signal && { signal }) };
    return { asked, trained: trainVisEdit(model, { ...edits, batch }, options, run) };
  };
  const stop = new AbortController();
  await expect(gathered('middle', stop.signal).trained).rejects.toMatchObject({ code: 'cancelled' });
  const resumed = gathered('middle');
  const whole = gathered('unbroken');
  expect((await resumed.trained).weights).toEqual((await whole.trained).weights);
  expect(resumed.asked).toEqual([0, 3, 4, 5]);
});

test('the influence mapper alone is trained as its own losses say, whole or in layers, and nothing else of the adapter changes', async () => {
  const edits = tinyEdits(model);
  const options = { ...tinyTraining, steps: 2, rows: 320 };
  const start = await trainVisEdit(model, edits, options, { statePath: join(folder, 'start') });
  const from = { fingerprint: 'start', weights: start.weights };
  const told: string[][] = [];
  const alone = (name: string, keptBelow?: string) =>
    trainVisEdit(
      model,
      edits,
      { ...options, trains: 'mapper' },
      {
        ...{ statePath: join(folder, name), from },
        ...(keptBelow && { keptBelow }),
        onStep: ({ terms }) => told.push(Object.keys(terms)),
      },
    );
  const mapper = await alone('mapper');
  const influence = ['influenceUp', 'influenceDown', 'influenceAttribution', 'influenceOverlap'];
  expect(told).toEqual([influence, influence]);
  // The same by the way of training all of it, where answers weigh next to nothing.
  const silent = { reliability: 1e-9, textGenerality: 0, imageGenerality: 0, imageLocality: 0 };
  const whole = await trainVisEdit(
    model,
    edits,
    { ...options, weights: { ...options.weights, ...silent } },
    { statePath: join(folder, 'silent'), from },
  );
  const layers = await alone('in layers', join(folder, 'below'));
  expect([...mapper.weights.keys()].sort()).toEqual([...start.weights.keys()].sort());
  for (const [name, { data }] of mapper.weights) {
    if (!name.startsWith('influence_mapper.')) expect(data, name).toEqual(start.weights.get(name)!.data);
    else
      for (const other of [whole, layers])
        expect(largestDifference(data, other.weights.get(name)!.data), name).toBeLessThan(2e-4);
  }
  const changed = 'influence_mapper.img_map.l_in.weight';
  expect(
    largestDifference(mapper.weights.get(changed)!.data, start.weights.get(changed)!.data),
  ).toBeGreaterThan(1e-4);
  const nothing = trainVisEdit(
    model,
    edits,
    { ...options, trains: 'mapper' },
    { statePath: join(folder, 'n') },
  );
  await expect(nothing).rejects.toMatchObject({ code: 'invalid-input' });
});

test('an adapter whose mapper read the last token alone goes on with one that reads the prompt', async () => {
  const edits = tinyEdits(model);
  const start = await trainVisEdit(
    model,
    edits,
    { ...tinyTraining, steps: 1 },
    { statePath: join(folder, 'last token') },
  );
  const shape = { ...tinyTraining.shape, influenceKey: 'prompt' as const };
  const { weights } = await trainVisEdit(
    model,
    edits,
    { ...tinyTraining, shape, steps: 2 },
    { statePath: join(folder, 'prompt'), from: { fingerprint: 'start', weights: start.weights } },
  );
  expect(weights.get('influence_mapper.prompt_attention.out.weight')!.data.some((value) => value !== 0)).toBe(
    true,
  );
  expect(shapeOfWeights(weights, shape.heads, 'here')).toMatchObject(shape);
});

test('the changes alone are trained by their answers, whole or in layers, and the mapper stays as it is', async () => {
  const edits = tinyEdits(model);
  const options = { ...tinyTraining, steps: 2, rows: 320 };
  const start = await trainVisEdit(model, edits, options, { statePath: join(folder, 'start of changes') });
  const from = { fingerprint: 'start', weights: start.weights };
  const changes = async (name: string, below: { keptBelow?: string } = {}) => {
    const run = { statePath: join(folder, name), from, ...below };
    return (await trainVisEdit(model, edits, { ...options, trains: 'changes' }, run)).weights;
  };
  const [whole, layers] = [
    await changes('changes'),
    await changes('layers', { keptBelow: join(folder, 'b') }),
  ];
  for (const [name, { data }] of start.weights)
    if (name.startsWith('influence_mapper.')) expect(whole.get(name)!.data, name).toEqual(data);
    else expect(largestDifference(layers.get(name)!.data, whole.get(name)!.data), name).toBeLessThan(2e-3);
  const changed = 'mlp_end.weight';
  const moved = largestDifference(whole.get(changed)!.data, start.weights.get(changed)!.data);
  expect(moved).toBeGreaterThan(1e-4);
});
