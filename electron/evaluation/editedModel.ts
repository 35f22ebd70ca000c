/**
 * @file A model with an editor, a scope and edits that may act on it: the one place where an input meets them.
 */

import type { Editor, EditSignal } from '../editors/editor.ts';
import { type Decision, decide, type EditBank, type Scope, type ScopeInput } from '../editors/scope/scope.ts';
import { EmendError } from '../errors.ts';
import { type Generation, type GenerationOptions, generate } from '../models/generation.ts';
import type { Visual } from '../models/picture.ts';
import type { Prefill, VisionLanguageModel } from '../models/visionLanguageModel.ts';
import { floatsOf } from '../tensor/session.ts';

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

  /** Free generation; `signal` null: the unedited model. */
  async answer(
    prepared: Prepared,
    signal: EditSignal | null,
    options: Omit<GenerationOptions, 'adapt'>,
  ): Promise<Generation> {
    return generate(
      this.model,
      prepared.prefill,
      signal ? { ...options, adapt: this.#editorOrThrow().adapt(signal) } : options,
    );
  }

  async signal(visual: Visual, prompt: string, target: string): Promise<EditSignal> {
    return this.#editorOrThrow().signal(this.model, { visual, prompt, target });
  }

  /** Influence of an edit on the visual tokens of an input, row by row; null for inputs without a picture or editors without a map. */
  async influence({ prefill }: Prepared, signal: EditSignal): Promise<Float32Array | null> {
    const editor = this.#editorOrThrow();
    const { imageRows } = prefill.input;
    if (!imageRows) return null;
    const hidden = await floatsOf(await this.model.unedited(prefill, editor.cuts[0]!));
    return editor.influence(hidden, imageRows, signal);
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
