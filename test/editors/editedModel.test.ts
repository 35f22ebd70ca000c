/** @file What edits do to a model, wherever they act: the question, hidden states of the prompt and of generated tokens, weights, or another model. */
import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { EditedModel, type Prepared } from '../../electron/editors/editedModel.ts';
import type { Editor, Effect } from '../../electron/editors/editor.ts';
import { forceTarget, readForced } from '../../electron/evaluation/metrics.ts';
import { generate } from '../../electron/models/generation.ts';
import type { Visual } from '../../electron/models/picture.ts';
import { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { float32, floatsOf } from '../../electron/tensor/session.ts';
import { fixture } from '../support/fixtures.ts';

const options = { maxNewTokens: 4, alternatives: 1 };
let model: VisionLanguageModel;
let visual: Visual;
let prepared: Prepared;
let changeable: string;
let unedited: { ids: readonly number[]; nll: number };

/** An editor whose edits do what is given. */
function doing(effect: Effect): EditedModel {
  const editor: Editor = {
    ...{
      name: 'given',
      cuts: [2],
      make: async () => ({}),
      encode: () => new Uint8Array(),
      decode: () => ({}),
    },
    effect: (states) => {
      expect(states).toHaveLength(1);
      return effect;
    },
    async dispose() {},
  };
  return new EditedModel(model, editor, null);
}

async function under(effect: Effect) {
  const edited = doing(effect);
  const { ids } = await edited.answer(prepared, [{}], options);
  const forced = await forceTarget(model, visual, 'What is it?', 'a red hat');
  return { ids, nll: (await readForced(model, forced, edited.effect([{}]))).nll };
}

beforeAll(async () => {
  const folder = fixture('checkpoints/llava_tiny');
  const opened = await VisionLanguageModel.open(folder, { providers: ['cpu'], decoderLater: true });
  changeable = opened.decoder.mlp(4).out;
  await opened.dispose();
  model = await VisionLanguageModel.open(folder, { providers: ['cpu'], cuts: [2], changeable: [changeable] });
  visual = await model.visualEmbeddings(await model.pixelsOf(await readFile(fixture('images/a.png'))));
  prepared = await new EditedModel(model, null, null).prepare(visual, 'What is it?');
  unedited = await under({});
});
afterAll(() => model.dispose());

test('no edit leaves the model as it is', async () => {
  const { ids } = await new EditedModel(model, null, null).answer(prepared, [], options);
  expect(ids).toEqual(unedited.ids);
});

test('weights: answers and targets are read with the changed layer', async () => {
  const { width } = model.decoder.mlp(4);
  const right = Float32Array.from({ length: width }, (_, i) => Math.sin(i));
  const left = Float32Array.from({ length: model.hidden }, (_, i) => 3 * Math.cos(i));
  const weights = new Map([[changeable, { rank: 1, right, left }]]);
  const found = await under({ weights });
  const direct = await generate(model, prepared.prefill, { ...options, changes: weights });
  expect(found.ids).toEqual(direct.ids);
  expect(found.ids).not.toEqual(unedited.ids);
  expect(Math.abs(found.nll - unedited.nll)).toBeGreaterThan(1e-3);
});

test('the question: what is asked in its place is laid out anew, for answers and targets', async () => {
  const found = await under({ question: (asked) => ({ ...asked, prompt: `Look. ${asked.prompt}` }) });
  const asked = await new EditedModel(model, null, null).prepare(visual, 'Look. What is it?');
  expect(found.ids).toEqual((await generate(model, asked.prefill, options)).ids);
  const forced = await forceTarget(model, visual, 'Look. What is it?', 'a red hat');
  expect(found.nll).toBeCloseTo((await readForced(model, forced)).nll, 5);
  expect(found.nll).not.toBeCloseTo(unedited.nll, 3);
});

test('the question left as it is changes nothing', async () => {
  expect(await under({ question: (asked) => asked })).toEqual(unedited);
});

test('rows of the prompt, and of each generated token', async () => {
  const shifted = (hidden: Float32Array) => hidden.map((value, i) => value + 4 * Math.sin(i));
  const shift = async (value: Parameters<NonNullable<Effect['next']>>[0]) =>
    float32(shifted(await floatsOf(value)), value.dims);
  const rows = await under({ rows: shift });
  expect(rows.nll).not.toBeCloseTo(unedited.nll, 3);
  const cuts: number[] = [];
  const next = await under({
    next: async (hidden, cut) => {
      cuts.push(cut);
      expect(hidden.dims).toEqual([1, 1, model.hidden]);
      return shift(hidden);
    },
  });
  expect(cuts.length).toBeGreaterThan(0);
  expect(new Set(cuts)).toEqual(new Set([2]));
  // The first token comes of the prompt; those behind it of what was changed.
  expect(next.ids[0]).toBe(unedited.ids[0]);
  expect(next.ids).not.toEqual(unedited.ids);
  expect(next.nll).toBe(unedited.nll);
});

test('another model answers, or leaves it to this one', async () => {
  const given = { ids: [7], text: 'of another', tokens: [], ended: 'length' as const };
  const answer = (answers: boolean): NonNullable<Effect['answer']> => ({
    generate: async () => (answers ? given : null),
    read: async (_, target, own) => {
      expect(target).toBe('a red hat');
      return answers ? own.map((_value, i) => -(i % 7)) : own;
    },
  });
  const found = await under({ answer: answer(true) });
  expect(found.ids).toEqual([7]);
  expect(found.nll).not.toBeCloseTo(unedited.nll, 3);
  expect(await under({ answer: answer(false) })).toEqual(unedited);
});
