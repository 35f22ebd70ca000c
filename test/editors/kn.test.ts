import { afterAll, beforeAll, expect, test } from 'vitest';
import { Kn, KnSettings, knNeeds, type Neuron, refined } from '../../electron/editors/kn/kn.ts';
import { neuronAttribution } from '../../electron/editors/kn/neuronAttribution.ts';
import { Sessions } from '../../electron/editors/weightEditor.ts';
import { openSafetensors, readTensor } from '../../electron/files/safetensors.ts';
import { openCheckpoint } from '../../electron/models/open.ts';
import { VisionLanguageModel, type WeightChanges } from '../../electron/models/visionLanguageModel.ts';
import { floatsOf } from '../../electron/tensor/session.ts';
import { type Cases, EditorReference } from '../support/editorFixtures.ts';
import { fixture, largestDifference } from '../support/fixtures.ts';

type Pairs = ReadonlyArray<readonly number[]>;
interface KnJson {
  readonly steps: number;
  readonly ground_truth_ids: readonly number[];
  readonly choose: Readonly<
    Record<
      string,
      {
        readonly adaptive_threshold: number;
        readonly coarse: Pairs;
        readonly p: number;
        readonly refined: Pairs;
        readonly counts: Pairs;
      }
    >
  >;
  readonly target_ids: readonly number[];
  readonly edit_code: { readonly neurons: Pairs; readonly cases: Cases };
  readonly edit_paper: { readonly neurons: Pairs; readonly cases: Cases };
}

let reference: EditorReference<KnJson>;
let model: VisionLanguageModel;
beforeAll(async () => {
  reference = await EditorReference.open('kn');
  const folder = fixture('checkpoints/llava_tiny');
  const { backbone } = await openCheckpoint(folder);
  const needs = knNeeds(KnSettings.parse({}), backbone.decoder);
  // Cut for a scope, as the workbench has it.
  model = await VisionLanguageModel.open(folder, {
    providers: ['cpu'],
    threads: 1,
    changeable: needs.changeable,
    cuts: [2],
  });
});
afterAll(() => model?.dispose());

const pairs = (neurons: readonly Neuron[]) => neurons.map(({ layer, index }) => [layer, index]);

test.each([
  ['code', 'published code', 'first'],
  ['code_all_tokens', 'published code', 'all'],
  ['paper', 'paper', 'first'],
] as const)('%s: scores, neurons and edit equal the reference', async (name, method, tokens) => {
  const { steps, ground_truth_ids, choose, target_ids, ...edits } = reference.json;
  const { adaptive_threshold: threshold, coarse } = choose[name]!;
  const editor = new Kn(model, KnSettings.parse({ method, tokens, steps, threshold }));
  try {
    const request = await reference.request(model);
    const old = await editor.answer(request, target_ids.length);
    expect(old).toEqual(ground_truth_ids);
    const scores = await editor.attribution(request, old);
    expect(
      largestDifference(
        scores.flatMap((own) => [...own]),
        await reference.floats(`scores.${name}`),
      ),
    ).toBeLessThan(1e-5);
    const neurons = editor.chosen(scores);
    expect(pairs(neurons)).toEqual(coarse);
    if (name === 'code_all_tokens') return;
    const other = await editor.attribution(await reference.request(model, 'text_rephrase'), old);
    expect(
      largestDifference(
        other.flatMap((own) => [...own]),
        await reference.floats(`scores.${name}_rephrase`),
      ),
    ).toBeLessThan(1e-5);
    const { p, refined: kept } = choose[`${name}_refined`]!;
    expect(pairs(refined([neurons, editor.chosen(other)], p))).toEqual(kept);

    const vector = await editor.vector(old, target_ids);
    expect(largestDifference(vector, await reference.floats(`vector.${name}`))).toBeLessThan(1e-5);
    const changes = editor.moved(neurons, vector);
    await reference.expectAnswers(model, changes, `edit_${name}.`, edits[`edit_${name}`].cases, 2e-3);
    expect(await editor.make(model, request)).toEqual(changes);
  } finally {
    await editor.dispose();
  }
});

test('what a layer’s neurons have a part in adds up to what the answer loses without them, grouped queries and M-RoPE included', async () => {
  const folder = fixture('checkpoints/qwen3_vl_tiny');
  const { backbone, weights } = await openCheckpoint(folder);
  const { changeable } = knNeeds(KnSettings.parse({}), backbone.decoder);
  const model = await VisionLanguageModel.open(folder, { providers: ['cpu'], threads: 1, changeable });
  const sessions = new Sessions(model.decoder.session);
  try {
    // One row: what is changed for it is changed for the whole prompt.
    const input = await model.lay(model.prompts.encodePrompt({ prompt: 'a', image: false }), null);
    expect(input.rows).toBe(1);
    const probability = async (id: number, changes: WeightChanges) => {
      const prefill = await model.prefill(input, [0], changes);
      const logits = await floatsOf((await model.finish(prefill, [0])).logits);
      return Math.exp(logits[id]!) / logits.reduce((sum, value) => sum + Math.exp(value), 0);
    };
    const file = await openSafetensors(weights.find(`${changeable[0]}.weight`)!.path);
    const alphas = Array.from({ length: 400 }, (_, i) => (i + 0.5) / 400);
    for (const id of [5, 300]) {
      const scores = await neuronAttribution(model, sessions, input, id, { activations: 'inner', alphas });
      const whole = await probability(id, new Map());
      for (const [layer, name] of changeable.entries()) {
        const { shape, data } = await readTensor(file, weights.entry(`${name}.weight`)!.name);
        const matrix = (data as Float32Array).map((value) => -value);
        const without = await probability(id, new Map([[name, { out: shape[0]!, matrix }]]));
        const sum = scores[layer]!.reduce((a, b) => a + b, 0);
        expect(Math.abs(sum - (whole - without)), `layer ${layer}`).toBeLessThan(
          1e-3 * Math.max(whole, without),
        );
      }
    }
  } finally {
    await sessions.dispose();
    await model.dispose();
  }
});
