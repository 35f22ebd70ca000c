import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type FreeChangeCase, freelyChange } from '../../electron/attribution/freeChange.ts';
import { decoderOf } from '../../electron/attribution/layerInputs.ts';
import { decodePicture } from '../../electron/files/picture.ts';
import { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';

let model: VisionLanguageModel;
let untouched: FreeChangeCase;
beforeAll(async () => {
  model = await VisionLanguageModel.open('resources/demo-model', { providers: ['cpu'] });
  const [sample] = JSON.parse(await readFile('resources/samples.json', 'utf8')) as Array<{ file: string }>;
  const picture = await decodePicture(await readFile(`resources/${sample!.file}`));
  const visual = await model.visualEmbeddings(await model.images.preprocess(picture));
  const encoded = model.prompts.encodeTarget({ prompt: 'What is in the picture?', image: true }, 'piano');
  const end = model.checkpoint.config.text.eosTokenIds[0]!;
  untouched = { input: await model.lay(encoded, visual), labels: [...encoded.targetIds, end] };
});
afterAll(() => model.dispose());

test('a change at the first layer makes the model say the target; one at the last but one hardly can', async () => {
  const last = model.checkpoint.config.text.layers - 2;
  const told: number[] = [];
  const [early, late] = await freelyChange(decoderOf(model), [0, last], [untouched], {
    steps: 60,
    rate: 0.05,
    onProgress: (done) => told.push(done),
  });
  expect(told).toEqual([0, 1]);
  expect(early).toMatchObject({ layer: 0, reached: true });
  expect(early!.after).toBeLessThan(0.2);
  expect(early!.length).toBeGreaterThan(0);
  // Untouched, the loss is the model's own, whatever the layer.
  expect(late!.before).toBeCloseTo(early!.before, 3);
  expect(late!.after).toBeGreaterThan(early!.after);
});

test('no step changes nothing and reaches nothing', async () => {
  const [still] = await freelyChange(decoderOf(model), [0], [untouched], { steps: 0, rate: 0.05 });
  expect(still).toMatchObject({ reached: false, length: 0 });
  expect(still!.after).toBe(still!.before);
});

test('what cannot be measured is said', async () => {
  const { input, labels } = untouched;
  const measured = (cases: FreeChangeCase[], signal?: AbortSignal) =>
    freelyChange(decoderOf(model), [0], cases, { steps: 1, rate: 0.1, ...(signal && { signal }) });
  await expect(measured([{ input: { ...input, imageRows: null }, labels }])).rejects.toThrow(
    'needs a picture',
  );
  await expect(measured([])).rejects.toThrow('needs a picture');
  await expect(measured([untouched], AbortSignal.abort())).rejects.toThrow('stopped');
});
