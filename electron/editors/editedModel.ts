/**
 * @file A model with an editor, a scope and edits that may act on it: the one place where an input meets them.
 */

import { EmendError } from '../errors.ts';
import { type Generation, type GenerationOptions, generate } from '../models/generation.ts';
import type { Visual } from '../models/picture.ts';
import type { Prefill, VisionLanguageModel } from '../models/visionLanguageModel.ts';
import type { EditMap, Editor, EditState, Effect } from './editor.ts';
import { type Decision, decide, type EditBank, type Scope, type ScopeInput } from './scope/scope.ts';

/** An input up to the lowest cut: shared by every answer to it, edited or not. */
export interface Prepared {
  readonly prefill: Prefill;
  /** as asked, suffix included */
  readonly prompt: string;
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
    const encoded = this.model.prompts.encodePrompt({ prompt, image: visual !== null });
    return { prefill: await this.model.prefill(await this.model.lay(encoded, visual)), prompt };
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

  /** Free generation; `state` null: the unedited model. */
  async answer(
    { prefill }: Prepared,
    state: EditState | null,
    options: Omit<GenerationOptions, 'adapt' | 'changes'>,
  ): Promise<Generation> {
    const { rows, weights } = this.effect(state);
    return generate(this.model, prefill, {
      ...options,
      ...(rows && { adapt: rows }),
      ...(weights && { changes: weights }),
    });
  }

  /** What an edit does; nothing where there is none. */
  effect(state: EditState | null): Effect {
    return state ? this.#editorOrThrow().effect([state]) : {};
  }

  async make(visual: Visual, prompt: string, target: string): Promise<EditState> {
    return this.#editorOrThrow().make(this.model, { visual, prompt, target });
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
        'No adapter is open, so nothing can be edited. Open the model with an adapter trained for it.',
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

/** Where a decoder is cut for an editor and a scope: ascending, each once. */
export function cutsFor(...parts: ReadonlyArray<{ readonly cuts: readonly number[] } | null>): number[] {
  return [...new Set(parts.flatMap((part) => part?.cuts ?? []))].sort((a, b) => a - b);
}
