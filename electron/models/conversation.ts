/** @file Conversations of several turns as token ids, in the checkpoint's own chat template. */
import { EmendError } from '../errors.ts';
import { chatRenderer, type Turn } from './chatTemplate.ts';
import type { PromptStyle } from './family.ts';
import { type EncodedPrompt, encodeComposed } from './prompt.ts';
import type { Tokenizer } from './tokenizer.ts';

/** Writes conversations for one tokenizer. */
export interface ConversationWriter {
  /**
   * @param turns as people and the model said them; the last is a person's
   * @throws EmendError 'unsupported' for turns that the checkpoint's chat template or the family's pictures do not allow
   */
  encode(turns: readonly Turn[]): EncodedPrompt;
}

/**
 * Writes conversations in a chat template; without one, the writer refuses every conversation.
 * @param name of the model, for people
 */
export function conversationWriter(
  tokenizer: Tokenizer,
  chatTemplate: string | undefined,
  style: PromptStyle,
  name: string,
): ConversationWriter {
  return {
    encode(turns) {
      if (chatTemplate === undefined) {
        throw new EmendError(
          'unsupported',
          `${name} has no chat template, so it takes one question at a time. Ask it alone, without earlier turns or a system message.`,
        );
      }
      const wanted = turns.reduce((sum, turn) => sum + turn.pictures, 0);
      checkPictures(style, wanted, name);
      const advice = 'Ask the question alone, without earlier turns or a system message.';
      const render = chatRenderer(tokenizer, chatTemplate, advice);
      const shielded = turns.map((turn) => ({ ...turn, text: tokenizer.shield(turn.text) }));
      if (style.picturesFirst) {
        const first = turns.findIndex((turn) => turn.role === 'user');
        if (turns.some((turn, index) => turn.pictures > 0 && index !== first)) {
          throw new EmendError(
            'unsupported',
            `${name} takes its picture before everything that is said. Put it into the first question, or begin anew.`,
          );
        }
        const text = encodeComposed(tokenizer, render(shielded.map((turn) => ({ ...turn, pictures: 0 }))));
        const pictures = Array.from({ length: wanted }, (_, index) => index);
        const ids = [...pictures.map(() => tokenizer.imageTokenId ?? 0), ...text];
        return { ids, pictures, lastPromptToken: ids.length - 1 };
      }
      const ids = encodeComposed(tokenizer, render(shielded));
      const pictures = ids.flatMap((id, index) => (id === tokenizer.imageTokenId ? [index] : []));
      if (pictures.length !== wanted)
        throw new EmendError('internal', `The conversation became ${pictures.length} image tokens.`);
      return { ids, pictures, lastPromptToken: ids.length - 1 };
    },
  };
}

/** @throws EmendError 'unsupported' for several pictures where the family was not made for them */
export function checkPictures(style: PromptStyle, pictures: number, name: string): void {
  if (pictures <= 1 || style.severalPictures) return;
  throw new EmendError(
    'unsupported',
    `${name} takes one picture in a conversation, and this one has ${pictures}. Leave the others out, or begin anew with the picture that is asked about.`,
  );
}
