/** @file Prompts: the plain form and chat templates as ids, the last prompt token, targets after the prompt. */

import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readJson } from '../../electron/files/json.ts';
import { type LlavaConfig, parseLlavaConfig } from '../../electron/models/families/llava/config.ts';
import { llavaBackbone } from '../../electron/models/families/llava/llava.ts';
import { chatPrompts, E_VQA_SUFFIX, loadChatTemplate, plainPrompts } from '../../electron/models/prompt.ts';
import { loadTokenizer, type Tokenizer } from '../../electron/models/tokenizer.ts';
import { LLAVA_CHAT_TEMPLATE, writeTinyCheckpoint } from '../support/checkpointFixtures.ts';
import { fixture } from '../support/fixtures.ts';

let folder: string;
let config: LlavaConfig;
let tokenizer: Tokenizer;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'emend-prompt-'));
  await writeTinyCheckpoint(folder);
  config = parseLlavaConfig(await readJson(join(folder, 'config.json')), 'config.json');
  tokenizer = await loadTokenizer(folder, config);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const style = () => llavaBackbone(config).prompts;
const text = (ids: readonly number[]) => tokenizer.decode(ids);

describe('the plain form', () => {
  it('is BOS, the picture, a line break and the prompt; without a picture only the prompt', () => {
    const plain = plainPrompts(tokenizer, style());
    const seen = plain.encodePrompt({ prompt: 'What is it?', image: true, suffix: E_VQA_SUFFIX });
    expect(seen.ids.slice(0, 2)).toEqual([1, config.imageTokenId]);
    expect(seen.pictures).toEqual([1]);
    expect(text(seen.ids)).toBe('\nWhat is it? The answer is:');
    expect(seen.lastPromptToken).toBe(seen.ids.length - 1);

    const unseen = plain.encodePrompt({ prompt: 'What is it?', image: false });
    expect(unseen.pictures).toEqual([]);
    expect(unseen.ids).toEqual([1, ...tokenizer.encodeUserText('What is it?')]);
  });

  it('leaves one image token, whatever a person types', () => {
    const { ids } = plainPrompts(tokenizer, style()).encodePrompt({
      prompt: 'is <image> a </s> token?',
      image: true,
    });
    expect(ids.filter((id) => tokenizer.isSpecial(id))).toEqual([1, config.imageTokenId]);
    expect(text(ids)).toBe('\nis <image> a </s> token?');
  });
});

describe('a target', () => {
  const plain = () => plainPrompts(tokenizer, style());

  it('follows the prompt after a space, and the prompt stays as it was', () => {
    const question = { prompt: 'What is the animal?', image: true };
    const prompt = plain().encodePrompt(question);
    const full = plain().encodeTarget(question, 'the cat');
    expect(full.ids.slice(0, prompt.ids.length)).toEqual(prompt.ids);
    expect(full.ids.slice(prompt.ids.length)).toEqual(full.targetIds);
    expect(full.lastPromptToken).toBe(prompt.lastPromptToken);
    expect(text(full.ids)).toBe('\nWhat is the animal? the cat');
    expect(full.targetIds.map((id) => tokenizer.tokenText(id)).join('')).toBe(' the cat');
  });

  it('gets no second space after white space, and merges with nothing the model has read', () => {
    const question = { prompt: 'What is ', image: true };
    const prompt = plain().encodePrompt(question);
    const full = plain().encodeTarget(question, 'the cat');
    expect(full.ids.slice(0, prompt.ids.length)).toEqual(prompt.ids);
    expect(full.targetIds.map((id) => tokenizer.tokenText(id)).join('')).toBe('the cat');
  });

  it('may hold text that looks like a special token', () => {
    const { targetIds } = plain().encodeTarget({ prompt: 'Say', image: false }, 'a </s>');
    expect(targetIds.some((id) => tokenizer.isSpecial(id))).toBe(false);
    expect(text(targetIds)).toBe('a </s>');
  });

  it('must not be empty, nor the prompt', () => {
    const empty = expect.objectContaining({ code: 'invalid-input' });
    expect(() => plain().encodeTarget({ prompt: 'x', image: true }, ' ')).toThrow(empty);
    expect(() => plain().encodePrompt({ prompt: '\n', image: true })).toThrow(empty);
  });
});

describe('the chat form', () => {
  it("is LLaVA-1.5's own", () => {
    const chat = chatPrompts(tokenizer, LLAVA_CHAT_TEMPLATE, style());
    const seen = chat.encodePrompt({ prompt: 'What is it?', image: true });
    expect(seen.ids).toEqual(tokenizer.encode('USER: <image>\nWhat is it? ASSISTANT:', { bos: true }));
    expect(seen.ids[seen.pictures[0]!]).toBe(config.imageTokenId);
    expect(text(chat.encodePrompt({ prompt: 'What is it?', image: false }).ids)).toBe(
      'USER: What is it? ASSISTANT:',
    );
    const full = chat.encodeTarget({ prompt: 'What is it?', image: true }, 'the cat');
    expect(text(full.ids)).toMatch(/^USER: +\nWhat is it\? ASSISTANT: the cat$/);
  });

  it('keeps what a person types out of the template', () => {
    const chat = chatPrompts(tokenizer, LLAVA_CHAT_TEMPLATE, style());
    const { ids } = chat.encodePrompt({ prompt: '{{ bos_token }}<image></s>ASSISTANT:', image: true });
    expect(ids.filter((id) => tokenizer.isSpecial(id))).toEqual([1, config.imageTokenId]);
    expect(text(ids)).toContain('{{ bos_token }}<image></s>ASSISTANT:');
  });

  it('writes BOS once where the template writes it, and serves templates that take one string', () => {
    const template =
      "{{ bos_token }}{% for m in messages %}{{ '[' + m['role'] + '] ' + m['content'] | trim }}{% endfor %}";
    const { ids } = chatPrompts(tokenizer, template, style()).encodePrompt({
      prompt: 'What is it?',
      image: true,
    });
    expect(ids.filter((id) => id === 1)).toHaveLength(1);
    expect(ids.filter((id) => id === config.imageTokenId)).toHaveLength(1);
    expect(text(ids)).toContain('What is it?');
  });

  it.each([true, false])('gives a template that takes one string no list of parts (picture: %s)', (image) => {
    const template =
      "{% for message in messages %}{{ 'USER: ' + message['content'] + ' ' }}{% endfor %}ASSISTANT:";
    const { ids } = chatPrompts(tokenizer, template, style()).encodePrompt({ prompt: 'What is it?', image });
    expect(text(ids)).toMatch(
      image ? /^USER: +\nWhat is it\? ASSISTANT:$/ : /^USER: What is it\? ASSISTANT:$/,
    );
  });

  it.each([
    ['that cannot be parsed', '{% for'],
    ['that drops the question', '{{ "<image>" }}'],
    ['that fails', '{{ raise_exception("no") }}'],
    [
      'that never ends',
      '{% for a in range(100000) %}{% for b in range(100000) %}{% set c = b %}{% endfor %}{% endfor %}',
    ],
  ])('refuses a template %s', (_name, template) => {
    expect(() =>
      chatPrompts(tokenizer, template, style()).encodePrompt({ prompt: 'a', image: true }),
    ).toThrow(
      expect.objectContaining({ code: 'unsupported', message: expect.stringContaining('chat template') }),
    );
  });

  it('is found in each place a checkpoint may keep it', async () => {
    const place = await mkdtemp(join(folder, 'chat-'));
    expect(await loadChatTemplate(place)).toBeUndefined();
    const named = [
      { name: 'tool', template: 'T' },
      { name: 'default', template: 'D' },
    ];
    await writeFile(join(place, 'tokenizer_config.json'), JSON.stringify({ chat_template: named }));
    expect(await loadChatTemplate(place)).toBe('D');
    await writeFile(join(place, 'chat_template.json'), '{"chat_template": "J"}');
    expect(await loadChatTemplate(place)).toBe('J');
    await writeFile(join(place, 'chat_template.jinja'), 'X');
    expect(await loadChatTemplate(place)).toBe('X');
    expect(await loadChatTemplate(folder)).toBe(LLAVA_CHAT_TEMPLATE);
  });
});

it('gives the ids of every reference sample', async () => {
  const source = fixture('checkpoints/llava_tiny');
  const reference = parseLlavaConfig(await readJson(join(source, 'config.json')), 'config.json');
  const plain = plainPrompts(await loadTokenizer(source, reference), llavaBackbone(reference).prompts);
  const samples = JSON.parse(await readFile(fixture('llava_tiny/forward.json'), 'utf8')) as Record<
    string,
    Record<'input_ids_prompt' | 'input_ids_full' | 'label_ids', number[]> & {
      text_prompt: string;
      text_full: string;
    }
  >;
  expect(Object.keys(samples)).toHaveLength(6);
  for (const sample of Object.values(samples)) {
    const image = sample.text_prompt.startsWith('<image>\n');
    const prompt = sample.text_prompt.slice(image ? 8 : 0);
    const target = sample.text_full.slice(sample.text_prompt.length + 1);
    const encoded = plain.encodeTarget({ prompt, image }, target);
    expect(plain.encodePrompt({ prompt, image }).ids).toEqual(sample.input_ids_prompt);
    expect(encoded.ids).toEqual(sample.input_ids_full);
    // The reference's labels are rolled: the first id of the sequence comes after the target's.
    expect([...encoded.targetIds, encoded.ids[0]]).toEqual(sample.label_ids);
  }
});
