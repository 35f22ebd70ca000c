/**
 * @file Text to token ids and back, as the checkpoint's tokenizer.json says (@huggingface/tokenizers).
 *
 * Two kinds of text go in: text we compose, in which `<image>` or `</s>` are tokens, and text a person typed,
 * in which they are just characters. {@link Tokenizer.shield} turns the second into something the first may
 * contain: it breaks special tokens apart with a mark that is dropped again after special tokens were found.
 */

import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { Tokenizer as HubTokenizer } from '@huggingface/tokenizers';
import { z } from 'zod';
import { EmendError } from '../errors.ts';
import { readJson, readJsonIfThere } from '../files/json.ts';
import { withinTime } from '../files/timeLimit.ts';
import type { ModelConfig } from './family.ts';

/** A Unicode noncharacter: never in text meant for others. */
const MARK = '\uFDD0';
/** Milliseconds of processor time for one text. Tokenizers take a few; patterns of a hostile one may take for ever. */
const TIME_LIMIT = 2_000;
const MAX_TOKENIZER_BYTES = 128 * 1024 * 1024;

const addedTokenSchema = z.looseObject({
  id: z.int().min(0).max(100_000_000),
  content: z.string().min(1),
  special: z.boolean().default(false),
  normalized: z.boolean().optional(),
});

const tokenizerSchema = z.looseObject({
  added_tokens: z.array(addedTokenSchema).default([]),
  normalizer: z.looseObject({ type: z.string() }).nullable().default(null),
  pre_tokenizer: z.unknown().default(null),
  post_processor: z.unknown().default(null),
  decoder: z.unknown().default(null),
  model: z.looseObject({
    type: z.string().default('BPE'),
    vocab: z.record(z.string(), z.int().min(0).max(100_000_000)),
    merges: z.array(z.unknown()),
  }),
});

/** A special token is written as text or, in older files, as an object around it. */
const tokenText = z
  .union([z.string(), z.looseObject({ content: z.string() }).transform(({ content }) => content)])
  .nullish();

const settingsSchema = z.looseObject({
  bos_token: tokenText,
  eos_token: tokenText,
  unk_token: tokenText,
  add_bos_token: z.boolean().nullish(),
  clean_up_tokenization_spaces: z.boolean().nullish(),
});

/** Text from a growing list of tokens, a piece at a time. */
export interface TextStream {
  /** The text this token completes: '' while a character's bytes are incomplete. */
  push(id: number): string;
  /** What was held back, when no more tokens come. */
  end(): string;
}

export interface Tokenizer {
  /** The text of the token that stands for a picture, usually `<image>`, and its id; undefined where the tokenizer has none. */
  readonly imageToken: string | undefined;
  readonly imageTokenId: number | undefined;
  readonly bosToken: string | undefined;
  readonly eosToken: string | undefined;
  readonly unkToken: string | undefined;
  /** Ids that end an answer: the tokenizer's and the config's. The generation config may name others. */
  readonly eosIds: readonly number[];
  /**
   * Ids of text we composed: special tokens written out in it become those tokens.
   * `bos` adds what the tokenizer puts at the beginning of a text.
   */
  encode(text: string, options: { readonly bos: boolean }): number[];
  /** Ids of text a person typed: no part of it becomes a special token. Never with BOS. */
  encodeUserText(text: string): number[];
  /** `text` in a form that {@link encode} reads as plain characters, special tokens and all. */
  shield(text: string): string;
  /** The text of token ids, special tokens left out. '' for none. */
  decode(ids: readonly number[]): string;
  /** Piece by piece what {@link decode} gives for the whole. */
  decodeStream(): TextStream;
  /**
   * What one token adds in the middle of a text, its leading space included. Special tokens as written; a byte
   * that is no character by itself as `<0xE7>`.
   */
  tokenText(id: number): string;
  isSpecial(id: number): boolean;
}

/**
 * Opens tokenizer.json and tokenizer_config.json of a model folder.
 * @throws EmendError 'not-found' without tokenizer.json, 'unsupported' for kinds other than BPE,
 *   'damaged' if the file is malformed, has no image token where the config says, or knows ids the model does not.
 */
export async function loadTokenizer(folder: string, config: ModelConfig): Promise<Tokenizer> {
  const path = join(folder, 'tokenizer.json');
  const json = await readTokenizerJson(folder, path);
  const parsed = tokenizerSchema.safeParse(json);
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    throw new EmendError('damaged', `${path}: ${issue.path.join('.')}: ${issue.message}.`);
  }
  const settingsPath = join(folder, 'tokenizer_config.json');
  const settings = settingsSchema.safeParse((await readJsonIfThere(settingsPath)) ?? {});
  if (!settings.success) throw new EmendError('damaged', `${settingsPath} does not hold tokenizer settings.`);

  const definition = parsed.data;
  if (definition.model.type !== 'BPE') {
    throw new EmendError(
      'unsupported',
      `${path} is a ${definition.model.type} tokenizer. Emend reads BPE tokenizers, which Llama models have.`,
    );
  }
  const { imageTokenId, addedImageToken } = config;
  if (addedImageToken !== undefined && imageTokenId !== undefined)
    definition.added_tokens.push({ id: imageTokenId, content: addedImageToken, special: true });
  const imageToken = definition.added_tokens.find((token) => token.id === imageTokenId);
  if (!imageToken && imageTokenId !== undefined) {
    const elsewhere = definition.added_tokens.find((token) => token.content === '<image>');
    throw new EmendError(
      'damaged',
      `${path} has no image token: config.json says its id is ${imageTokenId}, ` +
        (elsewhere ? `and "<image>" is ${elsewhere.id} there.` : 'and no added token has that id.') +
        ' Take tokenizer and config from the same model.',
    );
  }
  const added = new Set(definition.added_tokens.map((token) => token.id));
  const beyond = Object.entries(definition.model.vocab).find(
    ([, id]) => id >= config.text.vocab && !added.has(id),
  );
  if (beyond) {
    throw new EmendError(
      'damaged',
      `${path} knows token ${beyond[1]} ("${beyond[0]}"), and the model only ${config.text.vocab} tokens. ` +
        'Take tokenizer and config from the same model.',
    );
  }

  // Special tokens are found in the text as written, and looked for once more in what the normalizer leaves of it; the mark
  // that shields a person's text goes after that.
  const special = definition.added_tokens.filter((token) => token.special || token === imageToken);
  for (const token of special) Object.assign(token, { special: true, normalized: false });
  const dropMark = { type: 'Replace', pattern: { String: MARK }, content: '' };
  const preTokenizer = definition.pre_tokenizer
    ? { type: 'Sequence', pretokenizers: [dropMark, definition.pre_tokenizer] }
    : dropMark;
  let hub: HubTokenizer;
  try {
    hub = new HubTokenizer({ ...definition, pre_tokenizer: preTokenizer }, { ...settings.data });
    withinTime(TIME_LIMIT, endless, () => hub.encode('a', { add_special_tokens: true }));
  } catch (cause) {
    if (cause instanceof EmendError) throw cause;
    throw new EmendError('damaged', `${path} cannot be used: ${(cause as Error).message.slice(0, 200)}`, {
      cause,
    });
  }
  return wrap(hub, settings.data, special, imageToken, config);
}

function endless(): EmendError {
  return new EmendError(
    'unsupported',
    `The model's tokenizer worked longer than ${TIME_LIMIT / 1000} s over one text and was stopped. Take its tokenizer.json from the model's publisher.`,
  );
}

async function readTokenizerJson(folder: string, path: string): Promise<unknown> {
  const json = await readJsonIfThere(path, MAX_TOKENIZER_BYTES);
  if (json !== undefined) return json;
  const sentencePiece = await stat(join(folder, 'tokenizer.model')).catch(() => undefined);
  if (sentencePiece) {
    throw new EmendError(
      'unsupported',
      `${folder} has its tokenizer only as tokenizer.model. Save it as tokenizer.json (a "fast" tokenizer).`,
    );
  }
  return readJson(path);
}

function wrap(
  hub: HubTokenizer,
  settings: z.infer<typeof settingsSchema>,
  special: readonly { id: number; content: string }[],
  imageToken: { id: number; content: string } | undefined,
  config: ModelConfig,
): Tokenizer {
  const specialIds = new Map(special.map((token) => [token.id, token.content]));
  const idOf = (token: string | null | undefined) => (token ? hub.token_to_id(token) : undefined);
  const bosId = idOf(settings.bos_token);
  const eosId = idOf(settings.eos_token);
  const eosIds = new Set([...(eosId === undefined ? [] : [eosId]), ...config.text.eosTokenIds]);
  const specialPattern = new RegExp(
    special
      .map((token) => token.content)
      .toSorted((a, b) => b.length - a.length)
      .map((content) => content.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&'))
      .join('|'),
    'g',
  );
  const cleanUp = { clean_up_tokenization_spaces: settings.clean_up_tokenization_spaces ?? false };

  const encode: Tokenizer['encode'] = (text, { bos }) => {
    const { ids } = withinTime(TIME_LIMIT, endless, () => hub.encode(text, { add_special_tokens: bos }));
    if (bos && settings.add_bos_token && bosId !== undefined && ids[0] !== bosId) return [bosId, ...ids];
    return ids;
  };
  const shield = (text: string): string => {
    const clean = text.replaceAll(MARK, '');
    return clean.replace(specialPattern, (token) => [...token].join(MARK) + MARK);
  };
  // A model may have more tokens than its tokenizer; like transformers' fast ones, it leaves them out.
  const decodeKept = (ids: readonly number[]): string => {
    const known = ids.filter((id) => hub.id_to_token(id) !== undefined);
    return known.length === 0 ? '' : withinTime(TIME_LIMIT, endless, () => hub.decode(known, cleanUp));
  };

  return {
    imageToken: imageToken?.content,
    imageTokenId: imageToken?.id,
    bosToken: settings.bos_token ?? undefined,
    eosToken: settings.eos_token ?? undefined,
    unkToken: settings.unk_token ?? undefined,
    eosIds: [...eosIds],
    encode,
    shield,
    encodeUserText: (text) => encode(shield(text), { bos: false }),
    decode: (ids) => decodeKept(ids.filter((id) => !specialIds.has(id))),
    isSpecial: (id) => specialIds.has(id),
    tokenText(id) {
      const content = specialIds.get(id);
      if (content !== undefined) return content;
      // The decoder strips the space before the first token of a text, so look at the second of two.
      const text = decodeKept([id, id]).slice(decodeKept([id]).length);
      const written = hub.id_to_token(id);
      return text.includes('\uFFFD') && written?.startsWith('<0x') ? written : text;
    },
    decodeStream() {
      // Only a window is decoded again: the tokens of the last piece, for their spaces, and those not yet out.
      let window: number[] = [];
      let known = 0;
      const emit = (text: string): string => {
        const piece = text.slice(decodeKept(window.slice(0, known)).length);
        window = window.slice(known);
        known = window.length;
        return piece;
      };
      return {
        push(id) {
          if (specialIds.has(id)) return '';
          window.push(id);
          const text = decodeKept(window);
          // Bytes that do not yet make a character decode to U+FFFD.
          return text.endsWith('\uFFFD') ? '' : emit(text);
        },
        end: () => emit(decodeKept(window)),
      };
    },
  };
}
