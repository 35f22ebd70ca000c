/** @file DualEdit's training: from VisEdit's adapter it starts as that adapter, with the text layer above the visual one too; stopped and gone on with to the bit. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { writeAdapterFiles } from '../../electron/editors/adapterFiles.ts';
import { type DualEdit, dualEdit } from '../../electron/editors/dualedit/dualEdit.ts';
import { dualEditTraining, dualPrefixes } from '../../electron/editors/dualedit/trainDualEdit.ts';
import { parseSettings } from '../../electron/editors/settings.ts';
import type { TrainingOptions, TrainingRun } from '../../electron/editors/training/editorTraining.ts';
import { trainEditor } from '../../electron/editors/training/trainEditor.ts';
import { trainVisEdit } from '../../electron/editors/visedit/trainVisEdit.ts';
import { VisEdit } from '../../electron/editors/visedit/visEdit.ts';
import { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { floatsOf } from '../../electron/tensor/session.ts';
import { writeTinyCheckpoint } from '../support/checkpointFixtures.ts';
import { largestDifference } from '../support/fixtures.ts';
import { EDIT_LAYER, noisePicture, tinyEdits, tinySettings, tinyTraining } from '../support/tinyEdits.ts';

const folder = mkdtempSync(join(tmpdir(), 'emend-dual-'));
const TEXT_LAYER = EDIT_LAYER + 1;
const settings = parseSettings('DualEdit', dualEditTraining.settings, {
  ...tinySettings,
  textLayer: TEXT_LAYER,
});
const options: TrainingOptions = { ...tinyTraining, steps: 4 };
let model: VisionLanguageModel;
beforeAll(async () => {
  await writeTinyCheckpoint(folder);
  model = await VisionLanguageModel.open(folder, { providers: ['cpu'], cuts: [EDIT_LAYER, TEXT_LAYER] });
});
afterAll(async () => {
  await model.dispose();
  rmSync(folder, { recursive: true, force: true });
});

const train = (state: string, changed: Partial<TrainingOptions> = {}, run: Partial<TrainingRun> = {}) =>
  trainEditor(
    model,
    tinyEdits(model),
    { ...options, ...changed },
    { statePath: join(folder, state), ...run },
    (start) => dualEditTraining.begin(settings, start),
  );

test('without a step, from a VisEdit adapter, it edits as that adapter does', async () => {
  const { weights, shape } = await trainVisEdit(model, tinyEdits(model), tinyTraining, {
    statePath: join(folder, 'visedit.safetensors'),
  });
  const still = { schedule: { ...options.optimizer.schedule, peak: 0 } };
  const optimizer = { ...options.optimizer, ...still };
  const trained = await train(
    'from.safetensors',
    { steps: 1, optimizer },
    { from: { fingerprint: 'v', weights } },
  );
  const names = [...trained.weights.keys()];
  expect(names.every((name) => Object.values(dualPrefixes).some((prefix) => name.startsWith(prefix)))).toBe(
    true,
  );
  const at = join(folder, 'adapter');
  const described = {
    editor: 'DualEdit',
    name: 'tiny',
    ...dualEditTraining.describe(settings, model.checkpoint),
  };
  const rest = { model: trained.modelFingerprint, router: { layer: EDIT_LAYER, threshold: 0.5 } };
  await writeAdapterFiles(at, { ...described, ...rest }, trained.weights, 'F32');
  const unopened = await dualEdit.read!(at, model.checkpoint);
  expect(unopened.cuts).toEqual([EDIT_LAYER, TEXT_LAYER]);
  const dual = (await unopened.open(model, 'routed')) as DualEdit;
  const single = await VisEdit.create(EDIT_LAYER, shape, weights, ['cpu']);
  const side = model.images.toTensors([]).get('pixel_values')!.shape.at(-1)!;
  const visual = await model.visualEmbeddings(noisePicture(model, side, 5));
  const request = { visual, prompt: 'What is the fruit?', target: 'apple' };
  const prefill = await model.prefill(
    await model.lay(model.prompts.encodePrompt({ prompt: 'Which fruit is it?', image: true }), visual),
  );
  const rows = [prefill.input.rows - 1];
  const logits = async (adapt: Parameters<typeof model.finish>[2]) =>
    (await floatsOf((await model.finish(prefill, rows, adapt)).logits)).slice();
  const plain = await logits(undefined);
  const byDual = await logits(dual.effect([await dual.make(model, request)]).rows);
  const bySingle = await logits(single.effect([await single.make(model, request)]).rows);
  expect(largestDifference(bySingle, plain)).toBeGreaterThan(1e-3);
  expect(largestDifference(byDual, bySingle)).toBeLessThan(1e-5);
  // Its map is the visual adapter's.
  const map = await dual.maps!(model, prefill, await dual.make(model, request));
  expect(map[0]!.values).toEqual(
    (await single.maps!(model, prefill, await single.make(model, request)))[0]!.values,
  );
  await dual.dispose();
  await single.dispose();
});

test('stopped and taken up again it ends in the same weights, bit for bit, and both adapters have moved', async () => {
  const whole = await train('whole.safetensors');
  const stop = new AbortController();
  const onStep: TrainingRun['onStep'] = ({ step }) => step === 2 && stop.abort();
  const stopped = train('parts.safetensors', {}, { signal: stop.signal, onStep });
  await expect(stopped).rejects.toMatchObject({ code: 'cancelled' });
  const resumed = await train('parts.safetensors');
  expect(resumed.weights).toEqual(whole.weights);
  const before = await train('none.safetensors', {
    steps: 1,
    optimizer: { ...options.optimizer, schedule: { ...options.optimizer.schedule, peak: 0 } },
  });
  for (const prefix of Object.values(dualPrefixes)) {
    const name = `${prefix}mlp_end.weight`;
    expect(largestDifference(whole.weights.get(name)!.data, before.weights.get(name)!.data)).toBeGreaterThan(
      1e-5,
    );
  }
});
