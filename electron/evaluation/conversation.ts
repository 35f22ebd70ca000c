/**
 * @file Conversations with an edited model: several turns, with pictures in any of them.
 *
 * The scope compares what edits were made and checked with, a picture and a question in the library's form. In a conversation these are
 * each of its pictures with the last question; the edit whose margin is best acts, on the rows of the picture it was found for.
 */
import { type EditedModel, generateUnder } from '../editors/editedModel.ts';
import type { AnswerOptions, EditState, Effect } from '../editors/editor.ts';
import { joinPrompts, type Question } from '../editors/question.ts';
import type { Decision, EditBank, Scope } from '../editors/scope/scope.ts';
import { EmendError } from '../errors.ts';
import { checkPictures } from '../models/conversation.ts';
import type { Generation } from '../models/generation.ts';
import { nameOfModel } from '../models/hubCache.ts';
import type { Visual } from '../models/picture.ts';
import type { EncodedPrompt } from '../models/prompt.ts';
import type { Adapt, Prefill, VisionLanguageModel } from '../models/visionLanguageModel.ts';

/** A turn whose pictures the model has seen. */
export interface SeenTurn {
  readonly role: 'system' | 'user' | 'assistant';
  readonly text: string;
  readonly visuals: readonly Visual[];
}

export interface PreparedConversation {
  readonly turns: readonly SeenTurn[];
  readonly prefill: Prefill;
  /** of all turns, in order */
  readonly visuals: readonly Visual[];
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
  const prefill = await model.prefill(await model.lay(encodeTurns(model, turns), visuals));
  return { turns, prefill, visuals };
}

function encodeTurns(
  { prompts, conversations }: VisionLanguageModel,
  turns: readonly SeenTurn[],
): EncodedPrompt {
  const pictures = turns.reduce((sum, { visuals }) => sum + visuals.length, 0);
  if (turns.length === 1)
    return prompts.encodePrompt({ prompt: turns[0]!.text, image: pictures > 0, pictures });
  return conversations.encode(turns.map(({ visuals, ...turn }) => ({ ...turn, pictures: visuals.length })));
}

/** Decides for each of the conversation's pictures with the last question; the best margin counts. */
export async function decideConversation(
  edited: EditedModel,
  scope: Scope,
  bank: EditBank,
  { turns, prefill, visuals }: PreparedConversation,
): Promise<ConversationDecision> {
  let best: ConversationDecision = { acting: null, matches: [], picture: null };
  const margin = ({ matches }: Decision): number => {
    const first = matches[0];
    return first ? first.score - scope.threshold(bank.size, first.reach) : Number.NEGATIVE_INFINITY;
  };
  for (const [picture, visual] of visuals.entries()) {
    const prompt = turns.at(-1)!.text;
    const alone = turns.length === 1 && visuals.length === 1;
    const prepared = alone ? { prefill, prompt, visual } : await edited.prepare(visual, prompt);
    const found = await edited.decide(prepared, bank);
    if (margin(found) > margin(best)) best = { ...found, picture: found.acting ? picture : null };
  }
  return best;
}

/** Free generation; `acting`: edits that act together, and the picture they act on, or null for the conversation as a whole. */
export async function answerConversation(
  edited: EditedModel,
  conversation: PreparedConversation,
  acting: { readonly states: readonly EditState[]; readonly picture: number | null },
  options: AnswerOptions,
): Promise<Generation> {
  const { model } = edited;
  const { visuals } = conversation;
  const { rows, answer, ...effect } = edited.effect(acting.states);
  const asked = questionOf(conversation, acting.picture);
  const other = await answer?.generate(asked, options);
  if (other) return other;
  const changed = await conversationUnder(model, conversation, acting.picture, effect);
  const before = changed.visuals.length - visuals.length;
  const adapt =
    rows && acting.picture !== null ? onPicture(rows, changed.visuals, before + acting.picture) : rows;
  return generateUnder(model, changed.prefill, { ...effect, ...(adapt && { rows: adapt }) }, options);
}

/** A conversation as an edit leaves it: its last question asked otherwise, or prompts laid before it. */
async function conversationUnder(
  model: VisionLanguageModel,
  { turns, prefill, visuals }: PreparedConversation,
  picture: number | null,
  { question, weights }: Effect,
): Promise<{ readonly prefill: Prefill; readonly visuals: readonly Visual[] }> {
  const asked = questionOf({ turns, visuals }, picture);
  const changed = question ? await question(asked) : asked;
  if (changed === asked) return { prefill, visuals };
  const { prompt, before = [] } = changed;
  const ahead = before.map((part) =>
    encodeTurns(model, [{ role: 'user', text: part.prompt, visuals: part.visual ? [part.visual] : [] }]),
  );
  const said = turns.with(-1, { ...turns.at(-1)!, text: prompt });
  const all = [...before.flatMap((part) => part.visual ?? []), ...visuals];
  const input = await model.lay(joinPrompts([...ahead, encodeTurns(model, said)]), all);
  return { prefill: await model.prefill(input, [input.rows - 1], weights), visuals: all };
}

/** The last turn, with the picture that edits are compared with. */
function questionOf(
  { turns, visuals }: Pick<PreparedConversation, 'turns' | 'visuals'>,
  picture: number | null,
): Question {
  const visual = (picture === null ? visuals.at(-1) : visuals[picture]) ?? null;
  return { prompt: turns.at(-1)!.text, visual };
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
