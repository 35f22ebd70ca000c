/**
 * @file SERAC (Mitchell et al. 2022), forward: a scope classifier decides whether an input is about a stored edit; then a counterfactual
 * model answers, which is the model itself with the edit and its target shown before the input.
 */
import { z } from 'zod';
import { EmendError } from '../../errors.ts';
import { generate } from '../../models/generation.ts';
import type { VisionLanguageModel } from '../../models/visionLanguageModel.ts';
import { floatsOf } from '../../tensor/session.ts';
import type { Editor, EditorFact, EditorKind, EditRequest, Effect } from '../editor.ts';
import { askedRows, askQuestion, type Question } from '../question.ts';
import { decodeFact, encodeFact, type ShownFact } from '../shownFact.ts';
import { tokenMeanEncoder, unitEncoder } from '../textEncoder.ts';
import {
  distanceClassifier,
  embeddingsClassifier,
  readClassifier,
  type ScopeClassifier,
} from './scopeClassifier.ts';

const Settings = z.object({
  classifier: z.string().max(4096).default('').meta({
    title: 'Scope classifier',
    description:
      'Trained weights in LiveEdit’s form (safetensors). Empty: the distance of text embeddings, untrained.',
    file: true,
  }),
  threshold: z.number().nullable().default(null).meta({
    title: 'Threshold',
    description:
      'Empty: as published, 10 with trained weights; 0.5 of exp(−distance²) otherwise, which is a cosine of 0.65.',
  }),
  reading: z.enum(['routed', 'mixed']).default('routed').meta({
    title: 'Teacher forcing reads',
    description:
      'One model or the other, as answers are generated; or both, mixed by the score, as EasyEdit’s metrics do (NOTES 25).',
  }),
});
export type SeracSettings = z.infer<typeof Settings>;

/** An edit with what the classifier compares of it. */
export interface SeracEdit extends ShownFact {
  readonly representation: Float32Array;
}

/** An input as the counterfactual model is asked it. */
export function counterfactual({ prompt, target, visual }: ShownFact, asked: Question): Question {
  return { ...asked, before: [...(asked.before ?? []), { prompt, visual, answer: target }] };
}

/** log((1 − s)·p + s·p′ + 2⁻²³), with p and p′ the softmax of both [rows, vocabulary]. */
export function mixedLogProbabilities(
  own: Float32Array,
  other: Float32Array,
  score: number,
  vocab: number,
): Float32Array {
  const mixed = new Float32Array(own.length);
  for (let from = 0; from < own.length; from += vocab) {
    const [p, q] = [own, other].map((logits) => softmax(logits.subarray(from, from + vocab)));
    for (let i = 0; i < vocab; i++)
      mixed[from + i] = Math.log((1 - score) * p![i]! + score * q![i]! + 2 ** -23);
  }
  return mixed;
}

function softmax(logits: Float32Array): Float64Array {
  const top = logits.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const out = Float64Array.from(logits, (value) => Math.exp(value - top));
  const sum = out.reduce((a, b) => a + b, 0);
  return out.map((value) => value / sum);
}

export class Serac implements Editor<SeracEdit> {
  readonly name = 'SERAC';
  readonly cuts = [];
  readonly facts: readonly EditorFact[];
  readonly #model: VisionLanguageModel;
  readonly #classifier: ScopeClassifier;
  readonly #reading: SeracSettings['reading'];
  readonly #decides: boolean;

  /** `decides`: false where something else decides whether an edit acts. */
  constructor(
    model: VisionLanguageModel,
    classifier: ScopeClassifier,
    reading: SeracSettings['reading'],
    decides: boolean,
  ) {
    this.#model = model;
    this.#classifier = classifier;
    this.#reading = reading;
    this.#decides = decides;
    this.facts = [{ label: 'Counterfactual', value: 'the model itself, the edit shown before' }];
  }

  async make(_: VisionLanguageModel, { prompt, target, visual }: EditRequest): Promise<SeracEdit> {
    const representation = await this.#classifier.represent({ prompt, visual }, target);
    return { prompt, target, visual, representation };
  }

  encode({ representation, ...fact }: SeracEdit): Uint8Array {
    return encodeFact(fact, new Map([['representation', representation]]));
  }

  decode(bytes: Uint8Array): SeracEdit {
    const { fact, more } = decodeFact(bytes, this.#model.hidden, ['representation']);
    return { ...fact, representation: more.get('representation')! };
  }

  /** The edit an input is about, with its score; null where it is about none. */
  async route(
    { prompt, visual }: Question,
    edits: readonly SeracEdit[],
  ): Promise<{ edit: SeracEdit; score: number; routed: boolean } | null> {
    const input = await this.#classifier.represent({ prompt, visual }, null);
    const scores = edits.map(({ representation }) => this.#classifier.score(representation, input));
    const best = scores.indexOf(Math.max(...scores));
    const edit = edits[best];
    if (!edit) return null;
    const score = scores[best]!;
    return { edit, score, routed: !this.#decides || this.#classifier.routes(score) };
  }

  effect(edits: readonly SeracEdit[]): Effect {
    const model = this.#model;
    return {
      answer: {
        generate: async (question, options) => {
          const found = await this.route(question, edits);
          if (!found?.routed) return null;
          const { prefill } = await askQuestion(model, counterfactual(found.edit, question), null);
          return generate(model, prefill, options);
        },
        read: async (question, target, own) => {
          const found = await this.route(question, edits);
          const mixes = this.#reading === 'mixed' && this.#decides;
          if (!found || !(found.routed || mixes)) return own;
          const asked = await askQuestion(model, counterfactual(found.edit, question), target);
          const rows = askedRows(asked.prefill.input, asked.targetIds);
          const other = await floatsOf((await model.finish(asked.prefill, rows)).logits);
          return mixes ? mixedLogProbabilities(own, other, found.score, model.decoder.vocab) : other;
        },
      },
    };
  }

  dispose(): Promise<void> {
    return this.#classifier.dispose();
  }
}

export const serac: EditorKind<SeracSettings> = {
  name: 'SERAC',
  acts: 'who answers: where an input is about an edit, a counterfactual model',
  byConstruction: {},
  untrained: {
    settings: Settings,
    scope: 'own',
    needs: () => ({ cuts: [], changeable: [] }),
    async open({ classifier, threshold, reading }, model, scope) {
      if (classifier === '' && threshold !== null && !(threshold > 0 && threshold < 1))
        throw new EmendError(
          'invalid-input',
          'The threshold of SERAC lies between 0 and 1 without trained weights.',
        );
      const opened =
        classifier === ''
          ? distanceClassifier(unitEncoder(tokenMeanEncoder(model)), threshold ?? 0.5)
          : await embeddingsClassifier(model, await readClassifier(classifier), threshold ?? 10);
      return new Serac(model, opened, reading, scope === 'own');
    },
  },
};
