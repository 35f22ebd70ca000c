/**
 * @file Prompts as token ids: the papers' plain form, the checkpoint's chat template, and targets after them.
 */

import { join } from 'node:path';
import { Template } from '@huggingface/jinja';
import { z } from 'zod';
import { EmendError } from '../errors.ts';
import { readJsonIfThere } from '../files/json.ts';
import { readRegularFile } from '../files/regularFile.ts';
import type { Tokenizer } from './tokenizer.ts';

/** `plain` is the papers' `<image>\n{prompt}`; `chat` is the checkpoint's own chat template. */
export type PromptForm = 'plain' | 'chat';

/** What E-VQA experiments append to every prompt. */
export const E_VQA_SUFFIX = ' The answer is:';

/** A question as a person asks it. */
export interface Question {
  /** Typed by a person: special tokens written out in it are characters. */
  readonly prompt: string;
  /** Whether a picture goes with it. */
  readonly image: boolean;
  /** Appended to the prompt, for example {@link E_VQA_SUFFIX}. */
  readonly suffix?: string;
}

/** A prompt ready for the model. */
export interface EncodedPrompt {
  /** Token ids with BOS; the picture is one image token, not yet expanded to its rows. */
  readonly ids: readonly number[];
  /** The index of the image token in `ids`; undefined without a picture. */
  readonly imageIndex: number | undefined;
  /** The index in `ids` of the last prompt token. See {@link rowOf} for its row in the expanded sequence. */
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

/** Jinja templates of models are some kilobytes long. */
const MAX_TEMPLATE_LENGTH = 256 * 1024;

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

/** Writes the papers' plain form: `<image>\n{prompt}`, or `{prompt}` without a picture. */
export function plainPrompts(tokenizer: Tokenizer): PromptWriter {
  return writer('plain', tokenizer, (text, image) => (image ? `${tokenizer.imageToken}\n${text}` : text));
}

/**
 * Writes the form the model was taught to converse in.
 * @throws EmendError 'unsupported' if the template is none that can be read
 */
export function chatPrompts(tokenizer: Tokenizer, chatTemplate: string): PromptWriter {
  const refuse = (why: string, cause?: unknown) =>
    new EmendError(
      'unsupported',
      `The checkpoint's chat template cannot be used: ${why}. Use the plain form instead.`,
      { cause },
    );
  if (chatTemplate.length > MAX_TEMPLATE_LENGTH) throw refuse('it is too long');
  let template: Template;
  try {
    template = new Template(chatTemplate);
  } catch (cause) {
    throw refuse((cause as Error).message.slice(0, 200), cause);
  }

  return writer('chat', tokenizer, (text, image) => {
    // Templates of vision-language models take a list of parts, those of text models one string. The second would write a list
    // out as JSON; the first leaves a string out, and is told by that.
    const contents = image
      ? [[{ type: 'image' }, { type: 'text', text }], `${tokenizer.imageToken}\n${text}`]
      : [text, [{ type: 'text', text }]];
    let failure: unknown;
    for (const content of contents) {
      try {
        const rendered = template.render({
          messages: [{ role: 'user', content }],
          add_generation_prompt: true,
          bos_token: tokenizer.bosToken ?? '',
          eos_token: tokenizer.eosToken ?? '',
          unk_token: tokenizer.unkToken ?? '',
          image_token: tokenizer.imageToken,
          tools: null,
          documents: null,
        });
        const [before, after, ...more] = rendered.split(tokenizer.imageToken);
        const pictures = after === undefined ? 0 : 1 + more.length;
        if (pictures === (image ? 1 : 0) && `${before}\n${after ?? ''}`.includes(text.trim()))
          return rendered;
      } catch (cause) {
        failure = cause;
      }
    }
    throw refuse(
      failure instanceof Error ? failure.message.slice(0, 200) : 'it leaves out the picture or the question',
      failure,
    );
  });
}

/**
 * The row of `ids[index]` once the image token has become `imageTokenCount` rows. The image token itself has
 * the row of its first visual representation.
 */
export function rowOf(prompt: EncodedPrompt, index: number, imageTokenCount: number): number {
  const afterImage = prompt.imageIndex !== undefined && index > prompt.imageIndex;
  return afterImage ? index + imageTokenCount - 1 : index;
}

/**
 * @param render composes the whole text around a person's `text`, already shielded; with at most one image
 *   token, and only if `image`
 */
function writer(
  form: PromptForm,
  tokenizer: Tokenizer,
  render: (text: string, image: boolean) => string,
): PromptWriter {
  const encode = (text: string): number[] => {
    // Chat templates may write BOS themselves; two would be one too many.
    const { bosToken } = tokenizer;
    return tokenizer.encode(text, { bos: !(bosToken && text.startsWith(bosToken)) });
  };
  const asked = ({ prompt, suffix = '' }: Question): string => {
    if (prompt.trim() === '') throw new EmendError('invalid-input', 'The prompt is empty. Type a question.');
    return tokenizer.shield(prompt + suffix);
  };
  const encodePrompt = (question: Question): EncodedPrompt => {
    const ids = encode(render(asked(question), question.image));
    const imageIndex = ids.indexOf(tokenizer.imageTokenId);
    const images = ids.filter((id) => id === tokenizer.imageTokenId).length;
    if (images !== (question.image ? 1 : 0)) {
      throw new EmendError('internal', `The prompt became ${images} image tokens.`);
    }
    return {
      ids,
      imageIndex: question.image ? imageIndex : undefined,
      lastPromptToken: ids.length - 1,
    };
  };

  return {
    form,
    encodePrompt,
    encodeTarget(question, target) {
      if (target.trim() === '') throw new EmendError('invalid-input', 'The target is empty. Type an answer.');
      const prompt = encodePrompt(question);
      const before = render(asked(question), false);
      const joined = /\s$/.test(before) ? target : ` ${target}`;
      const targetIds = continuation(tokenizer, encode, before, tokenizer.shield(joined));
      return { ...prompt, ids: [...prompt.ids, ...targetIds], targetIds };
    },
  };
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
