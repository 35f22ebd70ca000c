/** @file Tokens: ids as the reference gives them, streams of text, and special tokens a person types. */

import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readJson } from '../../electron/files/json.ts';
import { type LlavaConfig, parseLlavaConfig } from '../../electron/models/families/llava/config.ts';
import { loadTokenizer, type Tokenizer } from '../../electron/models/tokenizer.ts';
import { writeTinyCheckpoint } from '../support/checkpointFixtures.ts';
import { fixture } from '../support/fixtures.ts';

let folder: string;
let config: LlavaConfig;
let tokenizer: Tokenizer;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'emend-tokenizer-'));
  await writeTinyCheckpoint(folder);
  config = parseLlavaConfig(await readJson(join(folder, 'config.json')), 'config.json');
  tokenizer = await loadTokenizer(folder, config);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const TEXTS = [
  'What is the animal on the left?',
  ' two  spaces   and three ',
  'über 漢字 and 👩‍👩‍👧 emoji, naïve café',
  'line\nbreaks\n\nand\ttabs',
  'x',
];

it.each(TEXTS)('gives back the text it encoded: %j', (text) => {
  expect(tokenizer.decode(tokenizer.encodeUserText(text))).toBe(text);
  expect(tokenizer.encode(text, { bos: true })).toEqual([1, ...tokenizer.encode(text, { bos: false })]);
});

it.each(TEXTS)('streams it piece by piece, never half a character: %j', (text) => {
  const stream = tokenizer.decodeStream();
  const pieces = tokenizer.encodeUserText(text).map((id) => stream.push(id));
  pieces.push(stream.end());
  expect(pieces.join('')).toBe(text);
  expect(pieces.join('|')).not.toContain('\uFFFD');
});

it('streams over special tokens without losing spaces, and shows a broken ending only at the end', () => {
  const [the, cat] = [tokenizer.encodeUserText('the'), tokenizer.encodeUserText('cat')];
  const bytes = tokenizer.encodeUserText('é').slice(-2);
  const ids = [1, ...the, 2, 2, ...cat, bytes[0]!];
  const stream = tokenizer.decodeStream();
  const pieces = ids.map((id) => stream.push(id)).join('');
  expect(pieces).toBe('the cat');
  expect(stream.end()).toBe('\uFFFD');
  expect(`${pieces}\uFFFD`).toBe(tokenizer.decode(ids));
});

it('makes the image token of text we compose, and characters of text a person typed', () => {
  const typed = 'a <image> b</s><s> c <pad>';
  const composed = tokenizer.encode('<image>\nWhat', { bos: true });
  expect(composed.filter((id) => id === config.imageTokenId)).toHaveLength(1);
  expect(composed[1]).toBe(config.imageTokenId);
  const ids = tokenizer.encodeUserText(typed);
  expect(ids.some((id) => tokenizer.isSpecial(id))).toBe(false);
  expect(tokenizer.decode(ids)).toBe(typed);
});

it.each(['</s>', '<image>', '<s>'])('keeps %s plain where a person types nothing else', (typed) => {
  const ids = tokenizer.encodeUserText(typed);
  expect(ids.some((id) => tokenizer.isSpecial(id))).toBe(false);
  expect(tokenizer.decode(ids)).toBe(typed);
});

it('keeps them plain also in a tokenizer that changes nothing before it looks for them', async () => {
  const other = await mkdtemp(join(folder, 'bare-'));
  await writeTinyCheckpoint(other);
  const path = join(other, 'tokenizer.json');
  const json = JSON.parse(await readFile(path, 'utf8'));
  json.normalizer = null;
  json.pre_tokenizer = { type: 'Metaspace', replacement: '▁', prepend_scheme: 'first', split: false };
  await writeFile(path, JSON.stringify(json));
  const bare = await loadTokenizer(other, config);
  for (const typed of ['</s>', '<image>', 'a </s>'])
    expect(bare.encodeUserText(typed).some((id) => bare.isSpecial(id))).toBe(false);
  expect(bare.encode('<image>', { bos: true })).toEqual([1, config.imageTokenId]);
});

it('leaves out tokens that only the model has, as transformers does', () => {
  const the = tokenizer.encodeUserText('the');
  expect(tokenizer.decode([999_999, ...the, 999_999])).toBe('the');
  expect(tokenizer.tokenText(999_999)).toBe('');
  const stream = tokenizer.decodeStream();
  expect(stream.push(999_999) + stream.push(the[0]!) + stream.end()).toContain('t');
});

it('keeps a shielded text plain inside a composed one', () => {
  const ids = tokenizer.encode(`<image>\n${tokenizer.shield('say </s> or <image>!')}</s>`, { bos: true });
  expect(ids.filter((id) => tokenizer.isSpecial(id))).toEqual([1, config.imageTokenId, 2]);
  expect(tokenizer.decode(ids)).toBe('\nsay </s> or <image>!');
});

it('shows tokens as they stand in a text', () => {
  const shown = tokenizer.encode('the é\n', { bos: true }).map((id) => tokenizer.tokenText(id));
  expect(shown[0]).toBe('<s>');
  expect(shown.slice(1)).toEqual([' the', ' ', '<0xC3>', '<0xA9>', '\n']);
});

it('knows the end tokens of tokenizer and config', async () => {
  expect(tokenizer.eosIds).toEqual([2]);
  const other = { ...config, text: { ...config.text, eosTokenIds: [5] } };
  expect((await loadTokenizer(folder, other)).eosIds).toEqual([2, 5]);
});

describe('refuses', () => {
  type Json = Record<string, unknown> & {
    added_tokens: { content: string }[];
    model: Record<string, unknown>;
  };

  /** A folder with what `change` makes of tokenizer.json. */
  async function broken(change: (json: Json) => object | string): Promise<string> {
    const copy = await mkdtemp(join(folder, 'bad-'));
    const changed = change((await readJson(join(folder, 'tokenizer.json'))) as Json);
    await writeFile(
      join(copy, 'tokenizer.json'),
      typeof changed === 'string' ? changed : JSON.stringify(changed),
    );
    return copy;
  }
  const failing = async (where: string, code: string, message: RegExp) =>
    expect(loadTokenizer(where, config)).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message),
    });
  const withoutImage = (json: Json) => json.added_tokens.filter(({ content }) => content !== '<image>');

  it('a pattern that never ends: the text is given up, the next one is not', async () => {
    const where = await broken((json) => ({
      ...json,
      pre_tokenizer: { type: 'Split', pattern: { Regex: '(a+)+b' }, behavior: 'Isolated', invert: false },
    }));
    const slow = await loadTokenizer(where, config);
    expect(() => slow.encodeUserText('a'.repeat(50))).toThrow(
      expect.objectContaining({ code: 'unsupported', message: expect.stringMatching(/longer than 2 s/) }),
    );
    expect(slow.decode(slow.encodeUserText('What is it?'))).toBe('What is it?');
  });

  it('a folder without tokenizer.json, or with a SentencePiece model only', async () => {
    const empty = await mkdtemp(join(folder, 'none-'));
    await failing(empty, 'not-found', /tokenizer\.json/);
    await writeFile(join(empty, 'tokenizer.model'), 'x');
    await failing(empty, 'unsupported', /tokenizer\.model/);
  });

  it('a tokenizer without the image token, or with it elsewhere', async () => {
    const none = await broken((json) => ({ ...json, added_tokens: withoutImage(json) }));
    await failing(none, 'damaged', new RegExp(`no image token.*${config.imageTokenId}`));
    const elsewhere = { id: 9, content: '<image>', special: true };
    const moved = await broken((json) => ({ ...json, added_tokens: [...withoutImage(json), elsewhere] }));
    await failing(moved, 'damaged', /"<image>" is 9/);
  });

  it('ids beyond the model', async () => {
    const where = await broken(({ model, ...json }) => ({
      ...json,
      model: { ...model, vocab: { ...(model.vocab as object), zzz: 9999 } },
    }));
    await failing(where, 'damaged', /token 9999 \("zzz"\)/);
  });

  it('other kinds, and files that are no tokenizer', async () => {
    const other = await broken((json) => ({ ...json, model: { ...json.model, type: 'WordPiece' } }));
    await failing(other, 'unsupported', /WordPiece/);
    await failing(await broken(() => '{"model":'), 'damaged', /not JSON/);
    await failing(await broken(() => '{"model": {"vocab": [1]}}'), 'damaged', /vocab/);
    const odd = await broken((json) => ({ ...json, decoder: { type: 'Nonsense' } }));
    await failing(odd, 'damaged', /cannot be used/);
  });
});

describe('beside the reference tokenizer', () => {
  it('gives the same ids, with BOS and without', async () => {
    const source = fixture('checkpoints/llava_tiny');
    const reference = await loadTokenizer(
      source,
      parseLlavaConfig(await readJson(join(source, 'config.json')), 'config.json'),
    );
    const cases = JSON.parse(await readFile(fixture('llava_tiny/tokenizer.json'), 'utf8')) as {
      text: string;
      ids: number[];
      ids_no_special: number[];
    }[];
    expect(cases.length).toBeGreaterThan(10);
    for (const { text, ids, ids_no_special } of cases) {
      expect(reference.encode(text, { bos: true })).toEqual(ids);
      expect(reference.encode(text, { bos: false })).toEqual(ids_no_special);
      if (!text.includes('<image>')) expect(reference.encodeUserText(text)).toEqual(ids_no_special);
    }
  });
});
