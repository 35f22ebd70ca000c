/** @file SERAC against the reference: representations and scores of both classifiers, and what the counterfactual model reads. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import {
  distanceClassifier,
  embeddingsClassifier,
  type ScopeClassifier,
} from '../../electron/editors/serac/scopeClassifier.ts';
import { counterfactual, mixedLogProbabilities, Serac } from '../../electron/editors/serac/serac.ts';
import { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { EditorReference } from '../support/editorFixtures.ts';
import { fixture, largestDifference } from '../support/fixtures.ts';
import { logitsTail, referenceSample, type SampleName, sampleNames } from '../support/referenceSamples.ts';

interface Reference {
  vlm_code: { t: number; cases: Record<SampleName, { sim: number; routed: boolean }> };
  distance: {
    threshold: number;
    cases: Record<SampleName, { squared_distance: number; score: number; routed: boolean }>;
  };
}

let model: VisionLanguageModel;
let reference: EditorReference<Reference>;
let embeddings: ScopeClassifier;

beforeAll(async () => {
  reference = await EditorReference.open<Reference>('serac');
  model = await VisionLanguageModel.open(fixture('checkpoints/llava_tiny'), {
    providers: ['cpu'],
    cuts: [2],
  });
  const weights = new Map<string, { shape: readonly number[]; data: Float32Array }>();
  for (const name of reference.names) {
    if (!/^vlm\.(classifier_proj|ln)\./.test(name)) continue;
    weights.set(name.slice('vlm.'.length), {
      shape: reference.shape(name),
      data: await reference.floats(name),
    });
  }
  embeddings = await embeddingsClassifier(model, weights, reference.json.vlm_code.t);
});
afterAll(async () => {
  await embeddings.dispose();
  await model.dispose();
});

test.each(sampleNames)('%s: the classifier over embeddings', async (name) => {
  const { prompt, visual, target } = await referenceSample(model, 'edit');
  const edit = await embeddings.represent({ prompt, visual }, target);
  expect(largestDifference(edit, await reference.floats('vlm.edit_rep'))).toBeLessThan(1e-5);
  const asked = await referenceSample(model, name);
  const input = await embeddings.represent(asked, null);
  expect(largestDifference(input, await reference.floats(`vlm.${name}.rep`))).toBeLessThan(1e-5);
  const { sim, routed } = reference.json.vlm_code.cases[name];
  const score = embeddings.score(edit, input);
  expect(Math.abs(score - sim)).toBeLessThan(1e-4);
  expect(embeddings.routes(score)).toBe(routed);
});

test.each(sampleNames)(
  '%s: the classifier by distance, the counterfactual model, and both mixed',
  async (name) => {
    const { score: wanted, routed } = reference.json.distance.cases[name];
    const classifier = distanceClassifier(async () => new Float32Array(), reference.json.distance.threshold);
    const score = classifier.score(
      await reference.floats('distance.edit_embedding'),
      await reference.floats(`distance.${name}.query_embedding`),
    );
    expect(Math.abs(score - wanted)).toBeLessThan(1e-5);
    expect(classifier.routes(score)).toBe(routed);
    const fact = await referenceSample(model, 'edit');
    const { target, ...asked } = await referenceSample(model, name);
    const other = await logitsTail(model, { ...counterfactual(fact, asked), target });
    const cf = await reference.floats(`${name}.counterfactual_logits_tail`);
    expect(largestDifference(other, cf)).toBeLessThan(6e-4);
    const own = await logitsTail(model, { ...asked, target });
    const mixed = mixedLogProbabilities(own, other, score, model.decoder.vocab);
    const soft = await reference.floats(`distance.${name}.mixed_log_probs_tail`);
    expect(largestDifference(mixed, soft)).toBeLessThan(6e-4);
  },
);

test('what an edit is about is answered by the counterfactual model, anything else by the model', async () => {
  const { prompt, visual, target } = await referenceSample(model, 'edit');
  const unlike = distanceClassifier(
    async (text) => Float32Array.of(text.startsWith(prompt) ? 1 : 9),
    reference.json.distance.threshold,
  );
  const editor = new Serac(model, unlike, 'routed', true);
  const made = await editor.make(model, { prompt, target, visual: visual! });
  const { answer } = editor.effect([editor.decode(editor.encode(made))]);
  const options = { maxNewTokens: 4 };
  expect((await answer!.generate({ prompt, visual }, options))?.ids.length).toBeGreaterThan(0);
  expect(await answer!.generate({ prompt: 'What is that?', visual }, options)).toBeNull();
  const own = new Float32Array(3);
  expect(await answer!.read({ prompt: 'What is that?', visual }, target, own)).toBe(own);
  expect(await answer!.read({ prompt, visual }, target, own)).not.toBe(own);
});
