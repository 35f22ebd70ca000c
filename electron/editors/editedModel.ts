/**
 * @file A model with an editor, a scope and edits that may act on it: the one place where an input meets them.
 */

import { EmendError } from '../errors.ts';
import { type Generation, generate } from '../models/generation.ts';
import type { Visual } from '../models/picture.ts';
import type { Prefill, VisionLanguageModel } from '../models/visionLanguageModel.ts';
import type { AnswerOptions, EditMap, Editor, EditRequest, EditState, Effect, Work } from './editor.ts';
import { askQuestion, prefillUnder } from './question.ts';
import { type Decision, decide, type EditBank, type Scope, type ScopeInput } from './scope/scope.ts';

/** An input up to the lowest cut: shared by every answer to it, edited or not. */
export interface Prepared {
  readonly prefill: Prefill;
  /** as asked, suffix included */
  readonly prompt: string;
  readonly visual: Visual | null;
}

export class EditedModel {
  readonly model: VisionLanguageModel;
  readonly editor: Editor | null;
  /** null: no edit acts unless it is named */
  readonly scope: Scope | null;

  constructor(model: VisionLanguageModel, editor: Editor | null, scope: Scope | null) {
    this.model = model;
    this.editor = editor;
    this.scope = scope;
  }

  /** visual: the picture's embeddings, or null for text alone. */
  async prepare(visual: Visual | null, prompt: string): Promise<Prepared> {
    const { prefill } = await askQuestion(this.model, { prompt, visual }, null);
    return { prefill, prompt, visual };
  }

  /** What the scope keeps of an input; null for inputs no edit can act on, and without a scope. */
  async describe({ prefill, prompt }: Prepared): Promise<ScopeInput | null> {
    return (await this.scope?.describe(this.model, prefill, prompt)) ?? null;
  }

  /** Which of the bank's edits acts on an input. */
  async decide(prepared: Prepared, bank: EditBank): Promise<Decision> {
    const described = await this.describe(prepared);
    return described && this.scope ? decide(this.scope, described, bank) : { acting: null, matches: [] };
  }

  /** Free generation under edits that act together; none: the unedited model. */
  async answer(
    prepared: Prepared,
    states: readonly EditState[],
    options: AnswerOptions,
  ): Promise<Generation> {
    return this.answerUnder(prepared, this.effect(states), options);
  }

  /** As `answer`, under what edits do. */
  async answerUnder(prepared: Prepared, effect: Effect, options: AnswerOptions): Promise<Generation> {
    const { prompt, visual } = prepared;
    const other = await effect.answer?.generate({ prompt, visual }, options);
    if (other) return other;
    return generateUnder(this.model, await this.under(prepared, effect), effect, options);
  }

  /** What is asked in place of an input's question, prompts laid before it included; undefined where edits leave it as it is. */
  async askedAs({ prompt, visual }: Prepared, states: readonly EditState[]): Promise<string | undefined> {
    const question = { prompt, visual };
    const changed = await this.effect(states).question?.(question);
    if (!changed || changed === question) return undefined;
    return [...(changed.before ?? []), changed].map((part) => part.prompt).join('\n');
  }

  /** An input as an effect leaves it, up to the lowest cut. */
  under({ prefill, prompt, visual }: Prepared, effect: Effect): Promise<Prefill> {
    return prefillUnder(this.model, { question: { prompt, visual }, target: null, prefill }, effect);
  }

  /** What edits do together; nothing where there are none. */
  effect(states: readonly EditState[]): Effect {
    return states.length > 0 ? this.#editorOrThrow().effect(states) : {};
  }

  async make(request: EditRequest, work?: Work): Promise<EditState> {
    return this.#editorOrThrow().make(this.model, request, work);
  }

  encode(state: EditState): Uint8Array {
    return this.#editorOrThrow().encode(state);
  }

  decode(bytes: Uint8Array): EditState {
    return this.#editorOrThrow().decode(bytes);
  }

  /** How much an edit changes each visual row of an input; null for inputs without a picture and editors without a map. */
  async influence({ prefill }: Prepared, state: EditState): Promise<EditMap | null> {
    return (await this.#editorOrThrow().maps?.(this.model, prefill, state))?.[0] ?? null;
  }

  #editorOrThrow(): Editor {
    if (!this.editor) {
      throw new EmendError(
        'conflict',
        'No editor is open, so nothing can be edited. Open the model with an adapter trained for it, or with an editor that needs no training.',
      );
    }
    return this.editor;
  }

  async dispose(): Promise<void> {
    await this.scope?.dispose();
    await this.editor?.dispose();
    await this.model.dispose();
  }
}

/** Answers from a prefilled prompt, as `prefillUnder` made it, with what an effect does above the first cut. */
export function generateUnder(
  model: VisionLanguageModel,
  prefill: Prefill,
  { rows, next, weights }: Effect,
  options: AnswerOptions,
): Promise<Generation> {
  return generate(model, prefill, {
    ...options,
    ...(rows && { adapt: rows }),
    ...(next && { adaptNext: next }),
    ...(weights && { changes: weights }),
  });
}

/** Where a decoder is cut for an editor and a scope: ascending, each once. */
export function cutsFor(...parts: ReadonlyArray<{ readonly cuts: readonly number[] } | null>): number[] {
  return [...new Set(parts.flatMap((part) => part?.cuts ?? []))].sort((a, b) => a - b);
}
