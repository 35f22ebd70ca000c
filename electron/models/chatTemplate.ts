/**
 * @file A checkpoint's chat template as a function of turns. Templates are programs from strangers: they run under a time limit, and
 * what they leave out is told.
 */
import { Template } from '@huggingface/jinja';
import { EmendError } from '../errors.ts';
import { withinTime } from '../files/timeLimit.ts';
import type { Tokenizer } from './tokenizer.ts';

/** A turn of a conversation as a template takes it. */
export interface Turn {
  readonly role: 'system' | 'user' | 'assistant';
  /** already shielded where a person typed it */
  readonly text: string;
  /** how many pictures come before the text */
  readonly pictures: number;
}

/** Milliseconds of processor time for one conversation: a template may loop for ever. */
const TIME_LIMIT = 2_000;
/** Jinja templates of models are some kilobytes long. */
export const MAX_TEMPLATE_LENGTH = 256 * 1024;

/**
 * The text of a conversation in which the model speaks next, one image token a picture.
 * @param instead what to do where the template cannot be used, for people
 * @throws EmendError 'unsupported' if it is none that can be read; the function throws it for turns that the template refuses or
 *   leaves out
 */
export function chatRenderer(
  tokenizer: Tokenizer,
  chatTemplate: string,
  instead: string,
): (turns: readonly Turn[]) => string {
  const refuse = (why: string, cause?: unknown) =>
    new EmendError('unsupported', `The checkpoint's chat template cannot be used: ${why}. ${instead}`, {
      cause,
    });
  if (chatTemplate.length > MAX_TEMPLATE_LENGTH) throw refuse('it is too long');
  let template: Template;
  try {
    template = new Template(chatTemplate);
  } catch (cause) {
    throw refuse((cause as Error).message.slice(0, 200), cause);
  }
  const imageToken = tokenizer.imageToken ?? '<image>';
  const endless = () => refuse(`it worked longer than ${TIME_LIMIT / 1000} s over one conversation`);

  return (turns) => {
    const pictures = turns.reduce((sum, turn) => sum + turn.pictures, 0);
    // Templates of vision-language models take a list of parts, those of text models one string. The second would write a list
    // out as JSON; the first leaves a string out, and is told by that.
    const forms = pictures > 0 ? [asParts, asString] : [asString, asParts];
    let failure: unknown;
    for (const form of forms) {
      try {
        const values = {
          messages: turns.map((turn) => ({ role: turn.role, content: form(turn, imageToken) })),
          add_generation_prompt: true,
          bos_token: tokenizer.bosToken ?? '',
          eos_token: tokenizer.eosToken ?? '',
          unk_token: tokenizer.unkToken ?? '',
          image_token: imageToken,
          tools: null,
          documents: null,
        };
        const rendered = withinTime(TIME_LIMIT, endless, () => template.render(values));
        // What is asked must stand beside the image tokens, not be found in one.
        const parts = rendered.split(imageToken);
        if (parts.length - 1 === pictures && holdsInOrder(parts.join('\n'), turns)) return rendered;
      } catch (cause) {
        if (cause instanceof EmendError) throw cause;
        failure = cause;
      }
    }
    if (failure instanceof Error) throw refuse(failure.message.slice(0, 200), failure);
    if (turns.length === 1) throw refuse('it leaves out the picture or the question');
    const system = turns.some(({ role }) => role === 'system');
    throw refuse(
      `it leaves out a picture or a turn of the conversation${system ? ' (or the system message)' : ''}`,
    );
  };
}

const asParts = ({ text, pictures }: Turn): unknown => [
  ...Array.from({ length: pictures }, () => ({ type: 'image' })),
  { type: 'text', text },
];

const asString = ({ text, pictures }: Turn, imageToken: string): unknown =>
  `${`${imageToken}\n`.repeat(pictures)}${text}`;

function holdsInOrder(rendered: string, turns: readonly Turn[]): boolean {
  let at = 0;
  return turns.every(({ text }) => {
    const found = rendered.indexOf(text.trim(), at);
    at = found + text.trim().length;
    return found >= 0;
  });
}
