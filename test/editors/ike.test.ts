/** @file IKE against the reference: texts, order and logits; its corpus, and what of a question it changes. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { demonstrationsOf, readFacts } from '../../electron/editors/ike/corpus.ts';
import { Ike } from '../../electron/editors/ike/ike.ts';
import { layQuestion } from '../../electron/editors/question.ts';
import { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { fixture, largestDifference } from '../support/fixtures.ts';
import {
  logitsTail,
  referenceJson,
  referenceSample,
  referenceTensors,
  sampleNames,
} from '../support/referenceSamples.ts';

interface Reference {
  ike: {
    facts: Array<[string, string, string, string, string]>;
    corpus: string[];
    k: number;
    query_sentence: string;
    order: number[];
    demonstrations: string[];
    cases: Record<string, { prompt: string; input_ids_full: number[]; n_rows: number }>;
  };
}

let model: VisionLanguageModel;
let reference: Reference['ike'];
let editor: Ike;

/** Stored embeddings of the corpus and of the new fact. */
async function storedEncoder() {
  const tensors = await referenceTensors('ike_lte.safetensors');
  const rows = await tensors('ike.corpus_embeddings');
  const width = rows.length / reference.corpus.length;
  const query = await tensors('ike.query_embedding');
  return async (text: string) => {
    if (text === reference.query_sentence) return query;
    const place = reference.corpus.indexOf(text);
    return rows.slice(place * width, (place + 1) * width);
  };
}

beforeAll(async () => {
  reference = (await referenceJson<Reference>('ike_lte.json')).ike;
  model = await VisionLanguageModel.open(fixture('checkpoints/llava_tiny'), {
    providers: ['cpu'],
    cuts: [2],
  });
  editor = new Ike(reference.corpus, reference.k, await storedEncoder());
});
afterAll(() => model.dispose());

test('a fact becomes three demonstrations', () => {
  const facts = reference.facts.map(([prompt, target, rephrase, asked, answer]) => {
    return { prompt, target, rephrase, locality: { prompt: asked, answer } };
  });
  expect(demonstrationsOf(facts)).toEqual(reference.corpus);
});

test('the demonstrations most like the new fact are kept, best first', async () => {
  const { demonstrations } = await editor.make(model, await editRequest());
  expect(demonstrations).toEqual(reference.order.map((place) => reference.corpus[place]));
});

test.each(sampleNames)('%s: rows and logits', async (name) => {
  const expected = reference.cases[name]!;
  const state = editor.decode(editor.encode(await editor.make(model, await editRequest())));
  const effect = editor.effect([state]);
  const { target, ...question } = await referenceSample(model, name);
  const changed = await effect.question!(question);
  expect(expected.prompt.replace('<image>\n', '')).toBe(changed.prompt);
  const { input } = await layQuestion(model, changed, target);
  expect(input.rows).toBe(expected.n_rows);
  const visual = new Set(input.imageRows);
  const ids = input.ids.filter((_, row) => !visual.has(row));
  const image = model.tokenizer.imageTokenId;
  expect(ids).toEqual(expected.input_ids_full.filter((id) => id !== image));
  const logits = await logitsTail(model, { ...question, target }, effect);
  const post = (await referenceTensors('ike_lte.safetensors'))(`ike.${name}.post_logits_tail`);
  expect(largestDifference(logits, await post)).toBeLessThan(6e-4);
});

test('of several facts that act, the one most like the question is said', async () => {
  const one = { prompt: 'Which ship is this?', target: 'a ferry', demonstrations: [] };
  const other = { prompt: 'What color is the bus?', target: 'pink', demonstrations: [] };
  const encode = async (text: string) => Float32Array.of(/ship/.test(text) ? 1 : 0, /bus/.test(text) ? 1 : 0);
  const { question } = new Ike([], 0, encode).effect([one, other]);
  const asked = async (prompt: string) => (await question!({ prompt, visual: null })).prompt;
  expect(await asked('Where does the bus go?')).toMatch(/pink\nPrompt: Where does the bus go\?$/);
  expect(await asked('Where does the ship go?')).toMatch(/a ferry\nPrompt: Where does the ship go\?$/);
});

test('demonstrations that do not fit are left out, those least like the fact first', async () => {
  const fact = { prompt: 'What is it?', target: 'a cat', demonstrations: ['one\n', 'two\n', 'three\n'] };
  const fits = ({ prompt }: { prompt: string }) => !prompt.includes('two');
  const { question } = new Ike([], 3, async () => Float32Array.of(1), fits).effect([fact]);
  const { prompt } = await question!({ prompt: 'What?', visual: null });
  expect(prompt).toMatch(/^one\nNew Fact: What is it\? a cat\n/);
});

describe('a corpus', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'emend-ike-'));
  });
  afterAll(() => rm(folder, { recursive: true }));

  test('is an editing set in E-VQA’s form', async () => {
    const file = join(folder, 'set.json');
    const record = { src: 'What is it?', alt: ['a bus', 'bus'], rephrase: 'Which thing?', image: 'a.png' };
    await writeFile(file, JSON.stringify([record, { ...record, loc: 'Who?', loc_ans: 'reed' }]));
    const facts = await readFacts(file);
    expect(facts[0]).toMatchObject({ target: 'a bus', locality: null });
    expect(demonstrationsOf(facts)).toHaveLength(5);
  });

  test('that is none is refused, with the record that is wrong', async () => {
    const file = join(folder, 'wrong.json');
    await writeFile(file, JSON.stringify([{ src: 'What is it?', alt: 'a bus' }, { src: 'Who?' }]));
    await expect(readFacts(file)).rejects.toMatchObject({
      code: 'damaged',
      message: expect.stringMatching(/record 2, alt/),
    });
  });
});

async function editRequest() {
  const { visual, prompt, target } = await referenceSample(model, 'edit');
  return { visual: visual!, prompt, target };
}
