/** @file What is asked twice is computed once: a picture that was seen, a conversation of which both sides are asked. */
import { readFile } from 'node:fs/promises';
import { afterEach, expect, test, vi } from 'vitest';
import type { ChatAnswer } from '../../electron/api/contract.ts';
import { operations, release } from '../../electron/engine/operations.ts';
import { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { fixture } from '../support/fixtures.ts';

const context = { signal: new AbortController().signal, send: () => {} };
const bytesOf = async (name: string) => new Uint8Array(await readFile(fixture(`images/${name}`)));
const question = { prompt: 'What is it?', edits: 'none', maxNewTokens: 2, sampling: null } as const;
const open = (name: string) =>
  operations.open(
    { path: fixture(`checkpoints/${name}`), adapter: null, providers: ['cpu'], template: 'plain' },
    context,
  );

afterEach(async () => {
  vi.restoreAllMocks();
  await release();
});

test('the vision tower runs once for a picture, whoever asks about it, and again after others took its place', async () => {
  await open('qwen2_5_vl_tiny');
  const tower = vi.spyOn(VisionLanguageModel.prototype, 'visualEmbeddingsOf');
  const [one, other] = [await bytesOf('a.png'), await bytesOf('b.png')];
  const first = await operations.ask({ ...question, picture: one }, context);
  // the same bytes again, as they come from the library each time
  const second = await operations.ask({ ...question, picture: one.slice() }, context);
  expect({ ...second, times: null }).toEqual({ ...first, times: null });
  await operations.chat(
    {
      turns: [{ role: 'user', text: 'Where?', pictures: [one] }],
      ...{ edits: 'none', maxNewTokens: 1, sampling: null, stop: [], alternatives: 2 },
    },
    context,
  );
  expect(tower).toHaveBeenCalledTimes(1);
  const another = await operations.ask({ ...question, picture: other }, context);
  expect(another.tokens[0]!.probability).not.toBe(first.tokens[0]!.probability);
  await operations.ask({ ...question, picture: one }, context);
  expect(tower).toHaveBeenCalledTimes(2);
});

test('a conversation of which both sides are asked is prepared once, and held for that alone', async () => {
  await open('llava_tiny');
  const prefill = vi.spyOn(VisionLanguageModel.prototype, 'prefill');
  const picture = await bytesOf('a.png');
  const chat = (share: boolean, text = 'What is it?'): Promise<ChatAnswer> =>
    operations.chat(
      {
        turns: [{ role: 'user', text, pictures: [picture.slice()] }],
        ...{ edits: 'none', maxNewTokens: 3, sampling: null, stop: [], alternatives: 2, share },
      },
      context,
    );
  const alone = await chat(false);
  const sides = [await chat(true), await chat(true)];
  for (const side of sides) expect({ ...side, times: null }).toEqual({ ...alone, times: null });
  expect(prefill).toHaveBeenCalledTimes(2);
  // the third is the first of another pair
  await chat(true);
  expect(prefill).toHaveBeenCalledTimes(3);
  // other words, or anything else asked between, and it is gone
  await chat(true, 'Where is it?');
  await operations.rows({ width: 10, height: 10 }, context);
  await chat(true, 'Where is it?');
  expect(prefill).toHaveBeenCalledTimes(5);
});

test('attribution and the model’s own sessions do not hold the decoder at once', async () => {
  await open('llava_tiny');
  const released = vi.spyOn(VisionLanguageModel.prototype, 'releaseDecoder');
  const picture = await bytesOf('a.png');
  const before = await operations.ask({ ...question, picture }, context);
  const of = { inputs: [{ picture, prompt: question.prompt }] };
  await operations.attributeModules({ of, token: null, control: null, variant: 'code', edit: null }, context);
  expect(released).toHaveBeenCalledTimes(1);
  await operations.proposeLayer({ of, rows: 'visual', seed: 0 }, context);
  // one tool after the other, each with the decoder to itself
  expect(released).toHaveBeenCalledTimes(4);
  const after = await operations.ask({ ...question, picture }, context);
  expect({ ...after, times: null }).toEqual({ ...before, times: null });
});
