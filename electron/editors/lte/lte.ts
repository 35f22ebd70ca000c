/**
 * @file LTE (Jiang et al., "Learning to edit"), forward: the updated information is retrieved and shown with its picture before the
 * question. Its training makes a model heed that; here the model is taken as it is. The form is LiveEdit's for VLMs (NOTES 23).
 */
import { z } from 'zod';
import type { VisionLanguageModel } from '../../models/visionLanguageModel.ts';
import type { Editor, EditorFact, EditorKind, EditorScope, EditRequest, Effect } from '../editor.ts';
import type { Question, QuestionPart } from '../question.ts';
import { decodeFact, encodeFact, type ShownFact } from '../shownFact.ts';
import { mostSimilar, type TextEncoder, tokenMeanEncoder } from '../textEncoder.ts';

const Settings = z.object({
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
});
export type LteSettings = z.infer<typeof Settings>;

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
  readonly #width: number;
  readonly #threshold: number | null;
  readonly #compared: Compared;
  readonly #encode: TextEncoder;

  /** `threshold`: null where something else decides whether a fact acts. `width`: of the decoder. */
  constructor(width: number, threshold: number | null, compared: Compared, encode: TextEncoder) {
    this.#width = width;
    this.#threshold = threshold;
    this.#compared = compared;
    this.#encode = encode;
    this.facts = [
      { label: 'Retrieval', value: threshold === null ? 'by the scope' : `cosine above ${threshold}` },
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

  effect(facts: readonly ShownFact[]): Effect {
    return {
      question: async (question: Question) => {
        const [best] = await this.retrieve(question.prompt, facts);
        if (!best || (this.#threshold !== null && !(best.similarity > this.#threshold))) return question;
        return { ...question, before: [...(question.before ?? []), updatedInformation(facts[best.place]!)] };
      },
    };
  }

  async dispose(): Promise<void> {}
}

export const lte: EditorKind<LteSettings> = {
  name: 'LTE',
  acts: 'the question: the fact is retrieved and shown with its picture before it',
  byConstruction: {},
  untrained: {
    settings: Settings,
    scope: 'own',
    needs: () => ({ cuts: [], changeable: [] }),
    open: async ({ threshold, compared }, model, scope: EditorScope) =>
      new Lte(model.hidden, scope === 'own' ? threshold : null, compared, tokenMeanEncoder(model)),
  },
};
