/**
 * @file IKE (Zheng et al., "Can we edit factual knowledge by in-context learning?"): nothing of the model changes; demonstrations and
 * the new fact are said before the question, the picture first (the form of EasyEdit's for VLMs, NOTES 22).
 */
import { z } from 'zod';
import { EmendError } from '../../errors.ts';
import type { VisionLanguageModel } from '../../models/visionLanguageModel.ts';
import type { Editor, EditorFact, EditorKind, EditRequest, Effect } from '../editor.ts';
import type { Question } from '../question.ts';
import { mostSimilar, type TextEncoder, tokenMeanEncoder } from '../textEncoder.ts';
import { demonstration, demonstrationsOf, readFacts } from './corpus.ts';

/** Positions that are left for an answer and what the prompt's form adds. */
const ROOM_FOR_ANSWERS = 96;

const Settings = z.object({
  corpus: z.string().max(4096).default('').meta({
    title: 'Demonstrations',
    description:
      'An editing set (JSON) whose facts are shown before the new one. Empty: the new fact is said alone.',
    file: true,
  }),
  demonstrations: z
    .int()
    .min(0)
    .max(256)
    .default(32)
    .meta({ title: 'How many', description: 'Those most like the new fact; published: 32.' }),
});
export type IkeSettings = z.infer<typeof Settings>;

const State = z.object({ prompt: z.string(), target: z.string(), demonstrations: z.array(z.string()) });
/** A new fact with what is shown before it, most similar first. */
export type IkeState = z.infer<typeof State>;

export class Ike implements Editor<IkeState> {
  readonly name = 'IKE';
  readonly cuts = [];
  readonly facts: readonly EditorFact[];
  readonly #corpus: readonly string[];
  readonly #count: number;
  readonly #encode: TextEncoder;
  readonly #fits: (question: Question) => boolean;

  /** `corpus`: demonstrations to choose `count` from, by `encode`; those least like the fact are left out where a question does not fit. */
  constructor(
    corpus: readonly string[],
    count: number,
    encode: TextEncoder,
    fits: (question: Question) => boolean = () => true,
  ) {
    this.#fits = fits;
    this.#corpus = corpus;
    this.#count = count;
    this.#encode = encode;
    const shown = Math.min(count, corpus.length);
    this.facts = [{ label: 'Demonstrations', value: shown > 0 ? `${shown} of ${corpus.length}` : 'none' }];
  }

  async make(_model: VisionLanguageModel, { prompt, target }: EditRequest): Promise<IkeState> {
    const itself = demonstration({ prompt, target }, prompt, target);
    const ordered = await mostSimilar(this.#encode, itself, this.#corpus);
    const demonstrations = ordered.slice(0, this.#count).map(({ place }) => this.#corpus[place]!);
    return { prompt, target, demonstrations };
  }

  encode(state: IkeState): Uint8Array {
    return Buffer.from(JSON.stringify(state));
  }

  decode(bytes: Uint8Array): IkeState {
    try {
      return State.parse(JSON.parse(Buffer.from(bytes).toString('utf8')));
    } catch (cause) {
      throw new EmendError('damaged', 'The stored edit is none of IKE’s. Check the edit again.', { cause });
    }
  }

  /** Where several facts act, the one most like the question is said. */
  effect(states: readonly IkeState[]): Effect {
    return {
      question: async (question: Question) => {
        const sentences = states.map(({ prompt, target }) => `${prompt} ${target}`);
        const [best] = states.length > 1 ? await mostSimilar(this.#encode, question.prompt, sentences) : [];
        const fact = states[best?.place ?? 0]!;
        let shown = fact.demonstrations;
        const asked = () => ({
          ...question,
          prompt: promptWith({ ...fact, demonstrations: shown }, question.prompt),
        });
        while (shown.length > 0 && !this.#fits(asked())) shown = shown.slice(0, -1);
        return asked();
      },
    };
  }

  async dispose(): Promise<void> {}
}

/** What is asked in place of `asked`: demonstrations, the fact as a demonstration of itself, the fact, and the question. */
export function promptWith({ prompt, target, demonstrations }: IkeState, asked: string): string {
  const fact = { prompt, target };
  return [
    ...demonstrations,
    demonstration(fact, prompt, target),
    `New Fact: ${prompt} ${target}\nPrompt: ${asked}`,
  ].join('');
}

export const ike: EditorKind<IkeSettings> = {
  name: 'IKE',
  acts: 'the question: the new fact is said before it, with demonstrations',
  byConstruction: {},
  untrained: {
    settings: Settings,
    scope: 'routed',
    needs: () => ({ cuts: [], changeable: [] }),
    async open({ corpus, demonstrations }, model) {
      const facts = corpus === '' ? [] : await readFacts(corpus);
      // Most positions a question may take, so that an answer has some.
      const most = model.decoder.positionLimit - ROOM_FOR_ANSWERS;
      const fits = ({ prompt, visual }: Question) =>
        model.tokenizer.encode(prompt, { bos: true }).length + (visual?.layout.rows ?? 0) <= most;
      return new Ike(demonstrationsOf(facts), demonstrations, tokenMeanEncoder(model), fits);
    },
  },
};
