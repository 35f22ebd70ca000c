/**
 * @file A question as editors may change it, and the rows it is laid out in.
 */
import type { Visual } from '../models/picture.ts';
import type { EncodedPrompt } from '../models/prompt.ts';
import type { ModelInput, Prefill, VisionLanguageModel } from '../models/visionLanguageModel.ts';
import type { Effect } from './editor.ts';

/** What stands in one piece of a question: a text, and the picture's embeddings that go with it, or null for text alone. */
export interface QuestionPart {
  readonly prompt: string;
  readonly visual: Visual | null;
}

/** A whole prompt, with what was answered to it where that is said too. */
export interface EarlierPart extends QuestionPart {
  readonly answer?: string;
}

export interface Question extends QuestionPart {
  /** whole prompts, each with its own beginning and picture, laid before it; positions run on */
  readonly before?: readonly EarlierPart[];
}

/** A question laid out for the model, and how it was asked. */
export interface Asked {
  readonly question: Question;
  /** laid behind the prompt, for teacher forcing; null where the model answers */
  readonly target: string | null;
  readonly prefill: Prefill;
}

/** Prompts behind one another; what is asked is the last. */
export function joinPrompts(parts: readonly EncodedPrompt[]): EncodedPrompt {
  const ids: number[] = [];
  const pictures: number[] = [];
  let lastPromptToken = 0;
  for (const part of parts) {
    lastPromptToken = ids.length + part.lastPromptToken;
    pictures.push(...part.pictures.map((index) => ids.length + index));
    ids.push(...part.ids);
  }
  return { ids, pictures, lastPromptToken };
}

/** The rows of a question, and with a target behind it that target's token ids. @throws EmendError 'invalid-input' for empty texts */
export async function layQuestion(
  model: VisionLanguageModel,
  { prompt, visual, before = [] }: Question,
  target: string | null,
): Promise<{ input: ModelInput; targetIds: readonly number[] }> {
  const { prompts } = model;
  const of = (part: QuestionPart) => ({ prompt: part.prompt, image: part.visual !== null });
  const asked = of({ prompt, visual });
  const encoded =
    target === null ? { ...prompts.encodePrompt(asked), targetIds: [] } : prompts.encodeTarget(asked, target);
  const earlier = before.map(({ answer, ...part }) =>
    answer === undefined ? prompts.encodePrompt(of(part)) : prompts.encodeTarget(of(part), answer),
  );
  const joined = joinPrompts([...earlier, encoded]);
  const visuals = [...before, { visual }].flatMap((part) => part.visual ?? []);
  return { input: await model.lay(joined, visuals), targetIds: encoded.targetIds };
}

/** Rows whose logits are read: those that predict the target's tokens, or the first token of an answer. */
export function askedRows({ rows, lastPromptRow }: ModelInput, targetIds: readonly number[]): number[] {
  return targetIds.length > 0 ? targetIds.map((_, place) => lastPromptRow + place) : [rows - 1];
}

/** Lays a question out and runs it up to the first cut. */
export async function askQuestion(
  model: VisionLanguageModel,
  question: Question,
  target: string | null,
): Promise<Asked & { readonly targetIds: readonly number[] }> {
  const { input, targetIds } = await layQuestion(model, question, target);
  const prefill = await model.prefill(input, askedRows(input, targetIds));
  return { question, target, prefill, targetIds };
}

/** What was asked as an effect leaves it, up to the first cut. */
export async function prefillUnder(
  model: VisionLanguageModel,
  { question, target, prefill }: Asked,
  effect: Effect,
): Promise<Prefill> {
  const changed = effect.question ? await effect.question(question) : question;
  // What lies below the first cut is run anew by `finish`, where weights change there.
  if (changed === question) return prefill;
  const { input, targetIds } = await layQuestion(model, changed, target);
  return model.prefill(input, askedRows(input, targetIds), effect.weights);
}
