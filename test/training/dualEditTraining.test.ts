/**
 * @file DualEdit's training: from VisEdit's adapter it starts as that adapter, with the text layer above the visual one too; stopped and gone
 * on with to the bit; either adapter alone.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { textRows } from '../../electron/attribution/layerInputs.ts';
import { writeAdapterFiles } from '../../electron/editors/adapterFiles.ts';
import type { DualEdit } from '../../electron/editors/dualedit/dualEdit.ts';
import { dualEditTraining, dualPrefixes } from '../../electron/editors/dualedit/trainDualEdit.ts';
import { EditedModel } from '../../electron/editors/editedModel.ts';
import { readAdapter } from '../../electron/editors/registry.ts';
import { cosineScope } from '../../electron/editors/scope/cosine.ts';
import { MemoryBank } from '../../electron/editors/scope/memoryBank.ts';
import { parseSettings } from '../../electron/editors/settings.ts';
import type {
  TrainedWeights,
  TrainingOptions,
  TrainingRun,
} from '../../electron/editors/training/editorTraining.ts';
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
/** cut where the text adapter alone needs it */
let cutForText: VisionLanguageModel;
beforeAll(async () => {
  await writeTinyCheckpoint(folder);
  model = await VisionLanguageModel.open(folder, { providers: ['cpu'], cuts: [EDIT_LAYER, TEXT_LAYER] });
  cutForText = await VisionLanguageModel.open(folder, { providers: ['cpu'], cuts: [TEXT_LAYER] });
});
afterAll(async () => {
  await model.dispose();
  await cutForText.dispose();
  rmSync(folder, { recursive: true, force: true });
});

const train = (
  state: string,
  changed: Partial<TrainingOptions> = {},
  run: Partial<TrainingRun> = {},
  adapters: typeof settings.adapters = 'both',
) =>
  trainEditor(
    adapters === 'text' ? cutForText : model,
    tinyEdits(model),
    { ...options, ...changed },
    { statePath: join(folder, state), ...run },
    (start) => dualEditTraining.begin({ ...settings, adapters }, start),
  );

/** Writes an adapter folder as a training does, and reads it. */
async function saved(
  name: string,
  { weights, modelFingerprint }: TrainedWeights,
  adapters: typeof settings.adapters,
) {
  const at = join(folder, name);
  const described = dualEditTraining.describe({ ...settings, adapters }, model.checkpoint);
  const rest = { model: modelFingerprint, router: { layer: EDIT_LAYER, threshold: 0.5 } };
  await writeAdapterFiles(at, { editor: 'DualEdit', name, ...described, ...rest }, weights, 'F32');
  return readAdapter(at, model.checkpoint, modelFingerprint);
}

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
  const unopened = await saved('adapter', trained, 'both');
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

describe.each([
  ['text', TEXT_LAYER, EDIT_LAYER],
  ['visual', EDIT_LAYER, TEXT_LAYER],
] as const)('the %s adapter alone', (part, layer, other) => {
  let trained: TrainedWeights;
  beforeAll(async () => {
    trained = await train(`${part}.safetensors`, {}, {}, part);
  });

  test('is all that is trained and saved', async () => {
    const names = [...trained.weights.keys()];
    expect(names.length).toBeGreaterThan(0);
    expect(names.filter((name) => !name.startsWith(dualPrefixes[part]))).toEqual([]);
    const before = await train(`${part}-none.safetensors`, { steps: 0 }, {}, part);
    const last = `${dualPrefixes[part]}mlp_end.weight`;
    const moved = largestDifference(trained.weights.get(last)!.data, before.weights.get(last)!.data);
    expect(moved).toBeGreaterThan(1e-5);
    const needs = dualEditTraining.needs({ ...settings, adapters: part }, model.checkpoint);
    expect(needs.cuts).toEqual([layer]);
    expect(await saved(`${part}-adapter`, trained, part)).toMatchObject({ cuts: [layer] });
  });

  test('edits its own rows, nothing at the other’s layer, and its gate lets through what is asked again', async () => {
    const unopened = await saved(`${part}-edits`, trained, part);
    const editor = (await unopened.open(model, 'routed')) as DualEdit;
    const scope = cosineScope(unopened.router, model.hidden);
    const edited = new EditedModel(model, editor, scope);
    const side = model.images.toTensors([]).get('pixel_values')!.shape.at(-1)!;
    const visual = await model.visualEmbeddings(noisePicture(model, side, 5));
    const state = await edited.make({ visual, prompt: 'What is the fruit?', target: 'apple' });
    const again = edited.decode(edited.encode(state)) as typeof state;
    expect(again).toEqual(state);
    expect(Object.keys(state)).toEqual([part]);

    const prepared = await edited.prepare(visual, 'What is the fruit?');
    const { prefill } = prepared;
    const rows = part === 'text' ? textRows(prefill.input) : prefill.input.imageRows!;
    const { rows: adapt } = editor.effect([again]);
    const elsewhere = await model.unedited(prefill, other);
    expect(await adapt!(elsewhere, prefill.input, other)).toBe(elsewhere);
    const unedited = await model.unedited(prefill, layer);
    const [before, after] = [
      await floatsOf(unedited),
      await floatsOf(await adapt!(unedited, prefill.input, layer)),
    ];
    const changed = Array.from({ length: prefill.input.rows }, (_, row) => row).filter((row) =>
      before
        .subarray(row * model.hidden, (row + 1) * model.hidden)
        .some((value, i) => value !== after[row * model.hidden + i]),
    );
    expect(changed).toEqual(rows);

    const maps = await editor.maps(model, prefill, state as never);
    expect(maps.map(({ values }) => values.length)).toEqual(
      part === 'visual' ? [prefill.input.imageRows!.length] : [],
    );
    const bank = new MemoryBank(scope.keyWidth);
    bank.add(7, 'picture', (await edited.describe(prepared))!);
    expect((await edited.decide(prepared, bank)).acting?.edit).toBe(7);
    await editor.dispose();
  });
});

test('of both adapters, one may be trained on; of VisEdit’s none but the visual one', async () => {
  const still = {
    steps: 1,
    optimizer: { ...options.optimizer, schedule: { ...options.optimizer.schedule, peak: 0 } },
  };
  const both = await train('start-both.safetensors');
  const from = { fingerprint: 'both', weights: both.weights };
  const text = await train('start-text.safetensors', still, { from }, 'text');
  expect(text.weights.size).toBeGreaterThan(0);
  for (const [name, { data }] of text.weights)
    expect(largestDifference(data, both.weights.get(name)!.data), name).toBeLessThan(1e-6);
  const { weights } = await trainVisEdit(
    model,
    tinyEdits(model),
    { ...tinyTraining, steps: 1 },
    {
      statePath: join(folder, 'start-visedit.safetensors'),
    },
  );
  await expect(
    train('refused.safetensors', still, { from: { fingerprint: 'v', weights } }, 'text'),
  ).rejects.toMatchObject({
    code: 'invalid-input',
    message: expect.stringMatching(/visual rows.*text adapter/),
  });
});

test('an adapter that its description gives no layer, or a layer without its adapter, is refused', async () => {
  const text = await train('lone.safetensors', { steps: 1 }, {}, 'text');
  await expect(saved('lacking', text, 'both')).rejects.toMatchObject({
    code: 'damaged',
    message: expect.stringMatching(/visual adapter lacks/),
  });
  await expect(saved('other', text, 'visual')).rejects.toMatchObject({
    code: 'damaged',
    message: expect.stringMatching(/text adapter.*no layer/),
  });
});
