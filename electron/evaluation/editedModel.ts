/**
 * @file A model with an editor and edits that may act on it: the one place where an input meets the router and an edit.
 */

import type { Editor, EditSignal } from '../editors/editor.ts';
import { type Candidate, type Route, route, routingRepresentation } from '../editors/router.ts';
import { EmendError } from '../errors.ts';
import { type Generation, type GenerationOptions, generate } from '../models/generation.ts';
import type { Prefill, VisionLanguageModel } from '../models/visionLanguageModel.ts';
import { floatsOf } from '../tensor/session.ts';

/** An input up to the edit layer: shared by every answer to it, edited or not. */
export interface Prepared {
  readonly prefill: Prefill;
  /** output of the edit layer [rows, hidden]; null without an editor */
  readonly hidden: Float32Array | null;
  /** what the router compares [hidden]; null for inputs no edit can act on */
  readonly routing: Float32Array | null;
}

const nowhere: Route = { chosen: null, closest: null, similarity: null };

export class EditedModel {
  readonly model: VisionLanguageModel;
  readonly editor: Editor | null;
  readonly threshold: number;

  constructor(model: VisionLanguageModel, editor: Editor | null, threshold: number) {
    this.model = model;
    this.editor = editor;
    this.threshold = threshold;
  }

  /** visual: embeddings of the picture [visual tokens, hidden], or null for text alone. */
  async prepare(visual: Float32Array | null, prompt: string): Promise<Prepared> {
    const encoded = this.model.prompts.encodePrompt({ prompt, image: visual !== null });
    const prefill = await this.model.prefill(await this.model.lay(encoded, visual));
    const routed = this.editor && prefill.hidden && prefill.input.imageRows;
    return {
      prefill,
      hidden: prefill.hidden ? await floatsOf(prefill.hidden) : null,
      routing: routed ? await routingRepresentation(this.model, prefill, this.editor!.routerLayer) : null,
    };
  }

  /** The edit that acts on this input, of these. Inputs without a picture are left alone by editors of visual rows. */
  route({ routing }: Prepared, candidates: Iterable<Candidate>): Route {
    return routing ? route(routing, candidates, this.threshold) : nowhere;
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

  async signal(visual: Float32Array, prompt: string, target: string): Promise<EditSignal> {
    return this.#editorOrThrow().signal(this.model, { visual, prompt, target });
  }

  /** Influence of an edit on the visual tokens of an input, row by row; null for inputs without a picture or editors without a map. */
  async influence({ prefill, hidden }: Prepared, signal: EditSignal): Promise<Float32Array | null> {
    const { imageRows } = prefill.input;
    return hidden && imageRows ? this.#editorOrThrow().influence(hidden, imageRows, signal) : null;
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
    await this.editor?.dispose();
    await this.model.dispose();
  }
}
