/**
 * @file Conversations with an edited model: several turns, with pictures in any of them.
 *
 * The scope compares what edits were made and checked with, a picture and a question in the library's form. In a conversation these are
 * each of its pictures with the last question; the edit whose margin is best acts, on the rows of the picture it was found for.
 */
import type { EditedModel } from '../editors/editedModel.ts';
import type { EditState } from '../editors/editor.ts';
import type { Decision, EditBank, Scope } from '../editors/scope/scope.ts';
import { EmendError } from '../errors.ts';
import { checkPictures } from '../models/conversation.ts';
import { type Generation, type GenerationOptions, generate } from '../models/generation.ts';
import { nameOfModel } from '../models/hubCache.ts';
import type { Visual } from '../models/picture.ts';
import type { Adapt, Prefill } from '../models/visionLanguageModel.ts';

/** A turn whose pictures the model has seen. */
export interface SeenTurn {
  readonly role: 'system' | 'user' | 'assistant';
  readonly text: string;
  readonly visuals: readonly Visual[];
}

export interface PreparedConversation {
  readonly prefill: Prefill;
  /** of all turns, in order */
  readonly visuals: readonly Visual[];
  /** the last turn's text */
  readonly question: string;
}

/** Which edit acts, and on which of the conversation's pictures, from 0; null: on none. */
export interface ConversationDecision extends Decision {
  readonly picture: number | null;
}

/**
 * A single question is written in the form the model was opened with, as everywhere; several turns in the checkpoint's chat template.
 * @throws EmendError 'unsupported' where the template or the family's pictures do not allow these turns, 'invalid-input' for turns that
 *   do not end in a question
 */
export async function prepareConversation(
  { model }: EditedModel,
  turns: readonly SeenTurn[],
): Promise<PreparedConversation> {
  const last = turns.at(-1);
  if (last?.role !== 'user' || last.text.trim() === '') {
    throw new EmendError(
      'invalid-input',
      'A conversation must end in a question: the last turn is a person’s, and not empty.',
    );
  }
  const visuals = turns.flatMap((turn) => turn.visuals);
  const { prompts } = model.checkpoint.backbone;
  checkPictures(prompts, visuals.length, nameOfModel(model.checkpoint.folder));
  const encoded =
    turns.length === 1
      ? model.prompts.encodePrompt({
          prompt: last.text,
          image: visuals.length > 0,
          pictures: visuals.length,
        })
      : model.conversations.encode(
          turns.map(({ role, text, visuals: seen }) => ({ role, text, pictures: seen.length })),
        );
  const prefill = await model.prefill(await model.lay(encoded, visuals));
  return { prefill, visuals, question: last.text };
}

/** Decides for each of the conversation's pictures with the last question; the best margin counts. */
export async function decideConversation(
  edited: EditedModel,
  scope: Scope,
  bank: EditBank,
  { prefill, visuals, question }: PreparedConversation,
  turns: number,
): Promise<ConversationDecision> {
  let best: ConversationDecision = { acting: null, matches: [], picture: null };
  const margin = ({ matches }: Decision): number => {
    const first = matches[0];
    return first ? first.score - scope.threshold(bank.size, first.reach) : Number.NEGATIVE_INFINITY;
  };
  for (const [picture, visual] of visuals.entries()) {
    const alone = turns === 1 && visuals.length === 1;
    const prepared = alone ? { prefill, prompt: question } : await edited.prepare(visual, question);
    const found = await edited.decide(prepared, bank);
    if (margin(found) > margin(best)) best = { ...found, picture: found.acting ? picture : null };
  }
  return best;
}

/** Free generation; `acting`: an edit and the picture it acts on. */
export async function answerConversation(
  edited: EditedModel,
  { prefill, visuals }: PreparedConversation,
  acting: { readonly state: EditState; readonly picture: number } | null,
  options: Omit<GenerationOptions, 'adapt' | 'changes'>,
): Promise<Generation> {
  if (!acting) return generate(edited.model, prefill, options);
  const { rows, weights } = edited.effect(acting.state);
  return generate(edited.model, prefill, {
    ...options,
    ...(rows && { adapt: onPicture(rows, visuals, acting.picture) }),
    ...(weights && { changes: weights }),
  });
}

/** A change that sees one picture's rows only. */
function onPicture(adapt: Adapt, visuals: readonly Visual[], picture: number): Adapt {
  const from = visuals.slice(0, picture).reduce((sum, { layout }) => sum + layout.rows, 0);
  const { layout } = visuals[picture]!;
  return (hidden, input, cut) => {
    const imageRows = input.imageRows!.slice(from, from + layout.rows);
    return adapt(hidden, { ...input, imageRows, grid: layout.grid }, cut);
  };
}
