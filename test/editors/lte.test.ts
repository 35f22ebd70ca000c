/** @file LTE against the reference: the prefix, what is retrieved from where on, and the logits behind it. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Lte } from '../../electron/editors/lte/lte.ts';
import { layQuestion } from '../../electron/editors/question.ts';
import { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { fixture, largestDifference } from '../support/fixtures.ts';
import {
  logitsTail,
  referenceJson,
  referenceSample,
  referenceTensors,
  type SampleName,
  sampleNames,
} from '../support/referenceSamples.ts';

interface Reference {
  lte: {
    prefix_ids: number[];
    pool_texts: string[];
    sim_threshold: number;
    cases: Record<SampleName, { sims: number[]; best: number; above_threshold: boolean; total_rows: number }>;
  };
}

let model: VisionLanguageModel;
let reference: Reference['lte'];
let tensors: (name: string) => Promise<Float32Array>;

beforeAll(async () => {
  reference = (await referenceJson<Reference>('ike_lte.json')).lte;
  tensors = await referenceTensors('ike_lte.safetensors');
  model = await VisionLanguageModel.open(fixture('checkpoints/llava_tiny'), {
    providers: ['cpu'],
    cuts: [2],
  });
});
afterAll(() => model.dispose());

/** The stored pool, and an editor whose encoder knows it and the query of a sample. */
async function pool(sample: SampleName) {
  const rows = await tensors('lte.pool_embeddings');
  const width = rows.length / reference.pool_texts.length;
  const query = await tensors(`lte.${sample}.query_embedding`);
  const editor = new Lte(model.hidden, reference.sim_threshold, 'prompt and target', async (text) => {
    const place = reference.pool_texts.indexOf(text);
    return place < 0 ? query : rows.slice(place * width, (place + 1) * width);
  });
  const facts = [];
  for (const name of ['edit', 'image_loc', 'text_loc'] as const) {
    const { prompt, visual } = await referenceSample(model, name);
    const target = reference.pool_texts[facts.length]!.slice(prompt.length + 1);
    facts.push(editor.decode(editor.encode({ prompt, target, visual })));
  }
  return { editor, facts };
}

test.each(sampleNames)('%s: what is retrieved, rows and logits', async (name) => {
  const { sims, best, above_threshold, total_rows } = reference.cases[name];
  const { editor, facts } = await pool(name);
  const { target, ...asked } = await referenceSample(model, name);
  const found = await editor.retrieve(asked.prompt, facts);
  expect(found[0]!.place).toBe(best);
  for (const { place, similarity } of found) expect(Math.abs(similarity - sims[place]!)).toBeLessThan(1e-5);
  const changed = await editor.effect(facts).question!(asked);
  expect(changed !== asked).toBe(above_threshold);

  // The numbers behind the prefix are of the edit's own.
  const effect = new Lte(model.hidden, null, 'prompt', async () => Float32Array.of(1)).effect([facts[0]!]);
  const { input } = await layQuestion(model, await effect.question!(asked), target);
  expect(input.rows).toBe(total_rows);
  const image = model.tokenizer.imageTokenId;
  const visual = new Set(input.imageRows);
  const ids = input.ids.filter((_, row) => !visual.has(row));
  const prefix = reference.prefix_ids.filter((id) => id !== image);
  expect(ids.slice(0, prefix.length)).toEqual(prefix);
  const logits = await logitsTail(model, { ...asked, target }, effect);
  expect(largestDifference(logits, await tensors(`lte.${name}.prefixed_logits_tail`))).toBeLessThan(6e-4);
});
