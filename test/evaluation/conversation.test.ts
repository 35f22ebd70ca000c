/** @file Conversations: turns and pictures as the families take them, stop texts, and what is told while an answer grows. */
import { readFile } from 'node:fs/promises';
import { afterAll, describe, expect, test } from 'vitest';
import { operations, release } from '../../electron/engine/operations.ts';
import type { EngineTurn } from '../../electron/engine/protocol.ts';
import { AnswerText } from '../../electron/models/answerText.ts';
import { fixture } from '../support/fixtures.ts';

const context = { signal: new AbortController().signal, send: () => {} };
const request = { edits: 'none' as const, maxNewTokens: 4, sampling: null, stop: [], alternatives: 1 };
afterAll(release);

const open = (name: string) =>
  operations.open(
    { path: fixture(`checkpoints/${name}`), adapter: null, providers: ['cpu'], template: 'plain' },
    context,
  );
const picture = (name: string) => readFile(fixture(`images/${name}`));
const user = (text: string, ...pictures: Uint8Array[]): EngineTurn => ({ role: 'user', text, pictures });
const model = (text: string): EngineTurn => ({ role: 'assistant', text, pictures: [] });

describe.each(['qwen2_5_vl_tiny', 'qwen3_vl_tiny', 'smolvlm_tiny'])('%s', (name) => {
  test('takes several turns with pictures in any of them, and is told them in its own template', async () => {
    await open(name);
    const [a, pan] = [await picture('a.png'), await picture('pan.png')];
    const first = await operations.chat({ ...request, turns: [user('What is it?', a)] }, context);
    const turns = [user('What is it?', a), model('a cat'), user('And here?', pan)];
    const second = await operations.chat({ ...request, turns }, context);
    const without = await operations.chat(
      { ...request, turns: [turns[0]!, turns[1]!, user('And here?')] },
      context,
    );
    expect(second.promptTokens).toBeGreaterThan(without.promptTokens);
    expect(without.promptTokens).toBeGreaterThan(first.promptTokens);
    const system: EngineTurn = { role: 'system', text: 'Be brief.', pictures: [] };
    const told = await operations.chat({ ...request, turns: [system, ...turns] }, context);
    expect(told.promptTokens).toBeGreaterThan(name === 'smolvlm_tiny' ? second.promptTokens : 0);
  });
});

test('what a checkpoint or a family does not take is said', async () => {
  await open('blip2_tiny');
  const a = await picture('a.png');
  const asked = (...turns: EngineTurn[]) => operations.chat({ ...request, turns }, context);
  await expect(asked(user('What is it?', a), model('a cat'), user('And?'))).rejects.toMatchObject({
    code: 'unsupported',
    message: expect.stringContaining('blip2_tiny has no chat template'),
  });
  expect((await asked(user('What is it?', a))).tokens.length).toBeGreaterThan(0);
  await expect(asked(user('What is it?', a, a))).rejects.toMatchObject({
    code: 'unsupported',
    message: expect.stringContaining('takes one picture in a conversation, and this one has 2'),
  });
  await expect(asked(user('What is it?', a), model('a cat'))).rejects.toMatchObject({
    code: 'invalid-input',
  });
});

test('an answer ends before the first stop text, wherever its tokens are cut, and is told no more than is certain', () => {
  const told = (stops: string[], ...pieces: string[]) => {
    const text = new AnswerText(stops);
    const news = pieces.map((piece) => text.add(piece));
    return { news, text: text.text, stopped: text.stopped };
  };
  expect(told([], ' a', ' cat ', 'sits ')).toEqual({
    news: ['a', ' cat', ' sits'],
    text: 'a cat sits',
    stopped: false,
  });
  expect(told(['END'], 'a ', 'E', 'N', 'x')).toMatchObject({ news: ['a', '', '', ' ENx'], stopped: false });
  expect(told(['END'], 'a ', 'E', 'ND of it', 'more')).toEqual({
    news: ['a', '', '', ''],
    text: 'a',
    stopped: true,
  });
  expect(told(['cd', 'bc'], 'abcd')).toEqual({ news: ['a'], text: 'a', stopped: true });
  expect(told(['\n'], 'one', '\n', 'two')).toEqual({ news: ['one', '', ''], text: 'one', stopped: true });
});
