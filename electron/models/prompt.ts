/**
 * @file Prompts as token ids: the papers' plain form, the checkpoint's chat template, and targets after them.
 */

import { join } from 'node:path';
import { z } from 'zod';
import { EmendError } from '../errors.ts';
import { readJsonIfThere } from '../files/json.ts';
import { readRegularFile } from '../files/regularFile.ts';
import { chatRenderer, MAX_TEMPLATE_LENGTH } from './chatTemplate.ts';
import type { PromptStyle } from './family.ts';
import type { Tokenizer } from './tokenizer.ts';

/** `plain` is the papers' form, such as LLaVA's `<image>\n{prompt}`; `chat` is the checkpoint's own chat template. */
export type PromptForm = 'plain' | 'chat';

/** What E-VQA experiments append to every prompt. */
export const E_VQA_SUFFIX = ' The answer is:';

/** A question as a person asks it. */
export interface Question {
  /** Typed by a person: special tokens written out in it are characters. */
  readonly prompt: string;
  /** Whether a picture goes with it. */
  readonly image: boolean;
  /** How many pictures go with it, where the model takes several; 1 otherwise. */
  readonly pictures?: number;
  /** Appended to the prompt, for example {@link E_VQA_SUFFIX}. */
  readonly suffix?: string;
}

/** A prompt ready for the model. */
export interface EncodedPrompt {
  /** Token ids with BOS; each picture is one image token, not yet expanded to its rows. */
  readonly ids: readonly number[];
  /** The indices of the image tokens in `ids`, ascending; empty without a picture. */
  readonly pictures: readonly number[];
  /** The index in `ids` of the last prompt token; the model knows its row. */
  readonly lastPromptToken: number;
}

/** A prompt with the target after it, for teacher forcing. */
export interface EncodedTarget extends EncodedPrompt {
  /** Prompt and target; begins with the ids of the prompt alone. */
  readonly ids: readonly number[];
  /** The target's own ids, without an end token: the last `targetIds.length` of `ids`. */
  readonly targetIds: readonly number[];
}

/** Writes questions in one form, for one tokenizer. */
export interface PromptWriter {
  readonly form: PromptForm;
  /**
   * @throws EmendError 'invalid-input' if nothing is asked, 'unsupported' if the chat template cannot be
   *   rendered with exactly one image token.
   */
  encodePrompt(question: Question): EncodedPrompt;
  /**
   * The target's ids come from tokenising prompt and target together, without the picture. It is joined with
   * a space unless the prompt ends in white space.
   * @throws EmendError as `encodePrompt`, and 'invalid-input' for an empty target
   */
  encodeTarget(question: Question, target: string): EncodedTarget;
}

/**
 * The chat template of a model folder: chat_template.jinja, chat_template.json or tokenizer_config.json,
 * in transformers' order. Undefined if there is none.
 */
export async function loadChatTemplate(folder: string): Promise<string | undefined> {
  const jinja = join(folder, 'chat_template.jinja');
  const written = await readRegularFile(jinja, MAX_TEMPLATE_LENGTH).catch(() => undefined);
  if (written) return written.toString('utf8');
  const named = z.array(z.looseObject({ name: z.string(), template: z.string() }));
  const schema = z.looseObject({ chat_template: z.union([z.string(), named]).nullish() });
  for (const file of ['chat_template.json', 'tokenizer_config.json']) {
    const parsed = schema.safeParse((await readJsonIfThere(join(folder, file))) ?? {});
    const template = parsed.data?.chat_template;
    if (typeof template === 'string') return template;
    const byName = template?.find(({ name }) => name === 'default') ?? template?.[0];
    if (byName) return byName.template;
  }
  return undefined;
}

/** Writes the papers' plain form, as the family has it. */
export function plainPrompts(tokenizer: Tokenizer, style: PromptStyle): PromptWriter {
  const write = (text: string, pictures: number) => style.plain(text, pictures, tokenizer.imageToken ?? '');
  return writer('plain', tokenizer, style, write);
}

/**
 * Writes the form the model was taught to converse in.
 * @throws EmendError 'unsupported' if the template is none that can be read
 */
export function chatPrompts(tokenizer: Tokenizer, chatTemplate: string, style: PromptStyle): PromptWriter {
  const render = chatRenderer(tokenizer, chatTemplate, 'Use the plain form instead.');
  return writer('chat', tokenizer, style, (text, pictures) => render([{ role: 'user', text, pictures }]));
}

/**
 * @param render composes the whole text around a person's `text`, already shielded, with so many image tokens
 */
function writer(
  form: PromptForm,
  tokenizer: Tokenizer,
  style: PromptStyle,
  render: (text: string, pictures: number) => string,
): PromptWriter {
  const encode = (text: string) => encodeComposed(tokenizer, text);
  const asked = ({ prompt, suffix = '' }: Question): string => {
    if (prompt.trim() === '') throw new EmendError('invalid-input', 'The prompt is empty. Type a question.');
    return tokenizer.shield(prompt + suffix);
  };
  const encodePrompt = (question: Question): EncodedPrompt => {
    const wanted = question.image ? (question.pictures ?? 1) : 0;
    if (style.picturesFirst) {
      const text = encode(render(asked(question), 0));
      const pictures = Array.from({ length: wanted }, (_, index) => index);
      const ids = [...pictures.map(() => tokenizer.imageTokenId ?? 0), ...text];
      return { ids, pictures, lastPromptToken: ids.length - 1 };
    }
    const ids = encode(render(asked(question), wanted));
    const pictures = ids.flatMap((id, index) => (id === tokenizer.imageTokenId ? [index] : []));
    if (pictures.length !== wanted) {
      throw new EmendError('internal', `The prompt became ${pictures.length} image tokens.`);
    }
    return { ids, pictures, lastPromptToken: ids.length - 1 };
  };

  return {
    form,
    encodePrompt,
    encodeTarget(question, target) {
      if (target.trim() === '') throw new EmendError('invalid-input', 'The target is empty. Type an answer.');
      const prompt = encodePrompt(question);
      const before = render(asked(question), 0);
      const joined = /\s$/.test(before) ? target : ` ${target}`;
      const targetIds = continuation(tokenizer, encode, before, tokenizer.shield(joined));
      return { ...prompt, ids: [...prompt.ids, ...targetIds], targetIds };
    },
  };
}

/** Ids of a whole text we composed. Chat templates may write BOS themselves; two would be one too many. */
export function encodeComposed(tokenizer: Tokenizer, text: string): number[] {
  const { bosToken } = tokenizer;
  return tokenizer.encode(text, { bos: !(bosToken && text.startsWith(bosToken)) });
}

/** The ids that `text` adds after `before`, such that the ids of `before` stay as they are. */
function continuation(
  tokenizer: Tokenizer,
  encode: (text: string) => number[],
  before: string,
  text: string,
): number[] {
  const tail = (head: readonly number[], whole: readonly number[]): number[] | undefined =>
    head.every((id, i) => whole[i] === id) && whole.length > head.length
      ? whole.slice(head.length)
      : undefined;
  const together = tail(encode(before), encode(before + text));
  if (together) return together;
  // The first characters merged with the prompt's last token, which the model has read already: begin afresh
  // after a line break, which merges with nothing.
  const alone = tokenizer.encode(text, { bos: false });
  return tail(tokenizer.encode('\n', { bos: false }), tokenizer.encode(`\n${text}`, { bos: false })) ?? alone;
}
