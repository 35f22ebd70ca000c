/** @file GRACE against the reference: what a sequence of edits does to the codebook, losses, values, and the answers it gives. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { EditedModel } from '../../electron/editors/editedModel.ts';
import { type CodebookEdit, labelMean } from '../../electron/editors/grace/codebook.ts';
import { Grace, GraceSettings } from '../../electron/editors/grace/grace.ts';
import type { Visual } from '../../electron/models/picture.ts';
import { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { EditorReference } from '../support/editorFixtures.ts';
import { fixture, largestDifference } from '../support/fixtures.ts';
import { logitsTail, referenceSample, sampleNames } from '../support/referenceSamples.ts';

interface Step {
  sample: string;
  action: string;
  chosen: number;
  losses: number[];
  eps: number[];
  label: number | number[];
  deferral_after?: Record<string, { distances: number[]; nearest: number; replaced: boolean }>;
}
interface Reference {
  layer: number;
  eps_init: number;
  lr: number;
  steps: number;
  edits: Array<{ sample: string; image: string | null; prompt: string; target: string; label: number[] }>;
  sequence: Step[];
  published_label_rule: Step[];
  cases: Record<string, { greedy_ids: number[] }>;
}

let model: VisionLanguageModel;
let reference: EditorReference<Reference>;
const made = new Map<string, { edits: CodebookEdit[]; editor: Grace }>();

beforeAll(async () => {
  reference = await EditorReference.open<Reference>('grace');
  const { layer } = reference.json;
  model = await VisionLanguageModel.open(fixture('checkpoints/llava_tiny'), {
    providers: ['cpu'],
    cuts: [layer - 1, layer],
  });
});
afterAll(async () => {
  for (const { editor } of made.values()) await editor.dispose();
  await model.dispose();
});

async function editSequence(labels: GraceSettings['labels'], expected: readonly Step[]) {
  const { layer, eps_init: radius, lr: rate, steps, edits: requests } = reference.json;
  const editor = new Grace(model, GraceSettings.parse({ layer, radius, rate, steps, labels }), true);
  const edits: CodebookEdit[] = [];
  made.set(labels, { edits, editor });
  for (const [place, { image, prompt, target, label }] of requests.entries()) {
    const visual: Visual | null = await reference.visual(model, image);
    const cold = await reference.floats(`cold.${place}`);
    const before = editor.codebook(edits);
    const { edit, losses } = await editor.edit({ prompt, target, visual }, before, cold);
    edits.push(editor.decode(editor.encode(edit)));
    const wanted = expected[place]!;
    expect(edit.label).toEqual(label);
    expect(before.take(edit)).toEqual({ action: wanted.action, entry: wanted.chosen });
    expect(largestDifference(losses, wanted.losses), `losses of ${place}`).toBeLessThan(2e-4);
    expect(largestDifference(before.radii, wanted.eps), `radii after ${place}`).toBeLessThan(1e-4);
  }
  return { editor, edits };
}

test('a sequence begins, expands, splits and adds, with these losses, radii, values and answers', async () => {
  const { sequence, cases } = reference.json;
  const { editor, edits } = await editSequence('target ids', sequence);
  for (const [place, { deferral_after: after }] of sequence.entries()) {
    const book = editor.codebook(edits.slice(0, place + 1));
    const values = await reference.floats(`after${place}.values`);
    const own = Float32Array.from(book.keys.flatMap((_, entry) => [...book.value(entry)]));
    expect(largestDifference(own, values), `values after ${place}`).toBeLessThan(3e-3);
    for (const [other, { key }] of edits.entries()) {
      const found = book.nearest(key)!;
      const wanted = after![reference.json.edits[other]!.sample]!;
      expect(largestDifference(found.distances, wanted.distances)).toBeLessThan(1e-4);
      expect([found.entry, found.replaced]).toEqual([wanted.nearest, wanted.replaced]);
    }
  }
  const [old, split] = editor.codebook(edits).radii;
  // Of two that meet, the new one has the border.
  expect(Math.abs(split! - old! - 1e-5)).toBeLessThan(1e-6);
  const effect = editor.effect(edits);
  for (const sample of sampleNames) {
    const asked = await referenceSample(model, sample);
    const logits = await logitsTail(model, asked, effect);
    const wanted = await reference.floats(`${sample}.post_logits_tail`);
    expect(largestDifference(logits, wanted), sample).toBeLessThan(6e-4);
    const edited = new EditedModel(model, editor, null);
    const greedy = cases[sample]!.greedy_ids;
    const prepared = await edited.prepare(asked.visual, asked.prompt);
    const { tokens } = await edited.answer(prepared, edits, { maxNewTokens: greedy.length });
    expect(tokens.map(({ id }) => id)).toEqual(greedy.slice(0, tokens.length));
  }
});

test('bytes that are no edit of it are refused, and making one stops when it is told to', async () => {
  const { editor, edits } = made.get('target ids')!;
  const bytes = editor.encode(edits[0]!);
  const text = Buffer.from(bytes).toString('latin1').replace('[260,295,279]', '[260,295,27x]');
  expect(() => editor.decode(Buffer.from(text, 'latin1'))).toThrow(/does not belong to this model/);
  expect(() => editor.decode(new Uint8Array(3))).toThrow(/too short/);
  const controller = new AbortController();
  const steps: number[] = [];
  const progress = (done: number) => {
    steps.push(done);
    if (done === 2) controller.abort();
  };
  const { prompt, target } = reference.json.edits[0]!;
  const visual = (await reference.visual(model, reference.json.edits[0]!.image))!;
  const work = { signal: controller.signal, progress };
  await expect(editor.make(model, { prompt, target, visual }, work)).rejects.toMatchObject({
    code: 'cancelled',
  });
  expect(steps).toEqual([0, 1, 2]);
});

test('as published, the same answer to a longer prompt is a conflict', async () => {
  const { published_label_rule: expected } = reference.json;
  const { edits } = await editSequence('published mean', expected);
  expect(
    largestDifference(
      edits.map(labelMean),
      expected.map(({ label }) => label as number),
    ),
  ).toBeLessThan(1e-4);
});
