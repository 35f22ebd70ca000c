/**
 * @file LTE (Jiang et al., "Learning to edit"): the updated information is retrieved and shown with its picture before the question, to the model
 * as it is or as it was trained to heed that. The form is LiveEdit's for VLMs (NOTES 23).
 */
import { z } from 'zod';
import type { VisionLanguageModel, WeightChanges } from '../../models/visionLanguageModel.ts';
import type { Editor, EditorFact, EditRequest, Effect } from '../editor.ts';
import type { Question, QuestionPart } from '../question.ts';
import { decodeFact, encodeFact, type ShownFact } from '../shownFact.ts';
import { mostSimilar, type TextEncoder } from '../textEncoder.ts';

/** What decides whether a fact is shown. */
export const retrievalFields = {
  threshold: z.number().min(-1).max(1).default(0.9).meta({
    title: 'Retrieval from',
    description:
      'Cosine of question and fact above which the fact is shown. Published: 0.3 with a sentence encoder; the mean of token embeddings that stands for one here lies higher.',
  }),
  compared: z.enum(['prompt', 'prompt and target']).default('prompt').meta({
    title: 'Compared with',
    description:
      'What of a fact a question is compared with. Published: prompt and target, of which a mean of token embeddings takes the target for another question.',
  }),
};

/** What of a fact a question is compared with. */
export type Compared = 'prompt' | 'prompt and target';

/** What is shown before the question. */
export function updatedInformation({ prompt, target, visual }: ShownFact): QuestionPart {
  return { prompt: `[Updated Information]${prompt} ${target}\n[Query]`, visual };
}

export class Lte implements Editor<ShownFact> {
  readonly name = 'LTE';
  readonly cuts = [];
  readonly facts: readonly EditorFact[];
  readonly #changes: WeightChanges | null;
  readonly #width: number;
  readonly #threshold: number | null;
  readonly #compared: Compared;
  readonly #encode: TextEncoder;

  /**
   * `threshold`: null where something else decides whether a fact acts. `width`: of the decoder. `changes`: what makes the model heed what it
   * is shown; null: it is taken as it is.
   */
  constructor(
    width: number,
    threshold: number | null,
    compared: Compared,
    encode: TextEncoder,
    changes: WeightChanges | null = null,
  ) {
    this.#width = width;
    this.#changes = changes;
    this.#threshold = threshold;
    this.#compared = compared;
    this.#encode = encode;
    this.facts = [
      { label: 'Retrieval', value: threshold === null ? 'by the scope' : `cosine above ${threshold}` },
      { label: 'Model', value: changes ? 'trained to heed what is shown' : 'as it is' },
    ];
  }

  async make(_: VisionLanguageModel, { prompt, target, visual }: EditRequest): Promise<ShownFact> {
    return { prompt, target, visual };
  }

  encode(fact: ShownFact): Uint8Array {
    return encodeFact(fact);
  }

  decode(bytes: Uint8Array): ShownFact {
    return decodeFact(bytes, this.#width).fact;
  }

  /** Facts most like a question, with their cosines, most similar first. */
  retrieve(prompt: string, facts: readonly ShownFact[]) {
    const texts = facts.map((fact) =>
      this.#compared === 'prompt' ? fact.prompt : `${fact.prompt} ${fact.target}`,
    );
    return mostSimilar(this.#encode, prompt, texts);
  }

  /** As published a trained model answers every question, whether a fact is shown before it or not. */
  effect(facts: readonly ShownFact[]): Effect {
    return {
      ...(this.#changes && facts.length > 0 && { weights: this.#changes }),
      question: async (question: Question) => {
        const [best] = await this.retrieve(question.prompt, facts);
        if (!best || (this.#threshold !== null && !(best.similarity > this.#threshold))) return question;
        return { ...question, before: [...(question.before ?? []), updatedInformation(facts[best.place]!)] };
      },
    };
  }

  async dispose(): Promise<void> {}
}
