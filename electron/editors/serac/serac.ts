/**
 * @file SERAC (Mitchell et al. 2022): a scope classifier decides whether an input is about a stored edit; then a counterfactual model
 * answers, which is the model itself, as it is or as it was trained to heed that, with the edit and its target shown before the input.
 */
import { generate } from '../../models/generation.ts';
import type { VisionLanguageModel, WeightChanges } from '../../models/visionLanguageModel.ts';
import { floatsOf } from '../../tensor/session.ts';
import type { Editor, EditorFact, EditRequest, Effect } from '../editor.ts';
import { askedRows, layQuestion, type Question } from '../question.ts';
import { decodeFact, encodeFact, type ShownFact } from '../shownFact.ts';
import type { ScopeClassifier } from './scopeClassifier.ts';

/** How SERAC's two models are read under teacher forcing. */
export const readings = ['routed', 'mixed'] as const;
export type Reading = (typeof readings)[number];

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
  readonly #reading: Reading;
  readonly #decides: boolean;
  readonly #changes: WeightChanges;

  /**
   * `decides`: false where something else decides whether an edit acts. `changes`: what makes a counterfactual model of the model that heeds
   * what it is shown; none: it is taken as it is.
   */
  constructor(
    model: VisionLanguageModel,
    classifier: ScopeClassifier,
    reading: Reading,
    decides: boolean,
    changes: WeightChanges = new Map(),
  ) {
    this.#model = model;
    this.#classifier = classifier;
    this.#reading = reading;
    this.#decides = decides;
    this.#changes = changes;
    const trained = changes.size > 0 ? ', trained to heed it' : '';
    this.facts = [{ label: 'Counterfactual', value: `the model itself, the edit shown before${trained}` }];
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
    const changes = this.#changes;
    return {
      answer: {
        generate: async (question, options) => {
          const found = await this.route(question, edits);
          if (!found?.routed) return null;
          const { input } = await layQuestion(model, counterfactual(found.edit, question), null);
          const prefill = await model.prefill(input, [input.rows - 1], changes);
          return generate(model, prefill, { ...options, changes });
        },
        read: async (question, target, own) => {
          const found = await this.route(question, edits);
          const mixes = this.#reading === 'mixed' && this.#decides;
          if (!found || !(found.routed || mixes)) return own;
          const asked = await layQuestion(model, counterfactual(found.edit, question), target);
          const rows = askedRows(asked.input, asked.targetIds);
          const prefill = await model.prefill(asked.input, rows, changes);
          const other = await floatsOf((await model.finish(prefill, rows, undefined, changes)).logits);
          return mixes ? mixedLogProbabilities(own, other, found.score, model.decoder.vocab) : other;
        },
      },
    };
  }

  dispose(): Promise<void> {
    return this.#classifier.dispose();
  }
}
