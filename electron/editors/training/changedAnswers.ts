/**
 * @file Edits by weights in training: a batch of one edit's inputs through the frozen model, and through the decoder as the edit changes it.
 */
import { attentionInputs, enter } from '../../models/decoder.ts';
import type { Visual } from '../../models/picture.ts';
import type { VisionLanguageModel } from '../../models/visionLanguageModel.ts';
import type { Weights } from '../../models/weights.ts';
import type { Graph, Tensor } from '../../tensor/graph.ts';
import type { Value } from '../../tensor/session.ts';
import { type AnswerTerms, likelihoodTerms, localityTerms } from './answerTerms.ts';
import { type LaidBatch, layBatch, seeEdits } from './batch.ts';
import type { FrozenVision } from './cachedVision.ts';
import type { TrainingStart } from './editorTraining.ts';
import type { TrainingEdit } from './edits.ts';
import { FrozenModel } from './frozenModel.ts';

/** Terms of a loss by name. */
export type ChangedTerms<Kind extends string> = Record<
  Exclude<keyof AnswerTerms, 'imageLocality'> | Kind,
  Tensor
>;

/** One edit's inputs, laid out, with what the unedited model makes of them. */
export interface EditInputs {
  readonly laid: LaidBatch;
  /** feeds of `changedTerms` */
  readonly feeds: Readonly<Record<string, Value>>;
  /** sequences of the batch: 3, and a fourth for text locality */
  readonly sequences: number;
}

/** How inputs are laid where nothing is drawn of pictures. */
export const plainly = { rows: null, sampled: 1, raised: 'one', random: () => 0 } as const;

/** The frozen model up to the lowest layer that is changed. */
export class FrozenInputs {
  readonly #model: VisionLanguageModel;
  readonly #vision: FrozenVision;
  readonly #frozen: FrozenModel;
  readonly #endToken: boolean;

  private constructor(
    model: VisionLanguageModel,
    vision: FrozenVision,
    frozen: FrozenModel,
    endToken: boolean,
  ) {
    this.#model = model;
    this.#vision = vision;
    this.#frozen = frozen;
    this.#endToken = endToken;
  }

  /** `from`: the lowest layer that is changed. */
  static async compile(
    { model, vision }: Pick<TrainingStart, 'model' | 'vision'>,
    from: number,
    endToken: boolean,
  ): Promise<FrozenInputs> {
    const frozen = await FrozenModel.compile(model, from > 0 ? [from - 1] : []);
    return new FrozenInputs(model, vision, frozen, endToken);
  }

  async of(edit: TrainingEdit): Promise<EditInputs & { readonly visual: Visual }> {
    const seen = await seeEdits(this.#vision, [edit]);
    const laid = await layBatch(this.#model, [edit], {
      ...{ ...plainly, endToken: this.#endToken, textLocality: true, seen },
    });
    const { hidden = laid.feeds['embeddings']!, before } = await this.#frozen.run(laid);
    const feeds = { ...laid.feeds, entering: hidden, before: before! };
    return { laid, feeds, sequences: laid.sequences.length, visual: seen[0]! };
  }

  dispose(): Promise<void> {
    return this.#frozen.dispose();
  }
}

/** The kinds of locality that a batch of so many sequences has. */
export const localityKinds = (sequences: number) =>
  sequences < 4 ? (['imageLocality'] as const) : (['imageLocality', 'textLocality'] as const);

/**
 * The terms with the decoder's layers from `from` on under changed weights. Inputs: `entering` [sequences, rows, hidden], the output of layer
 * `from − 1` (the embeddings where `from` is 0), what `attentionInputs` declares, and those of `likelihoodTerms` (`smoothing` as there) and
 * `localityTerms` (`kinds` as there).
 */
export function changedTerms<Kind extends string>(
  graph: Graph,
  { decoder }: VisionLanguageModel,
  {
    sequences,
    from,
    kinds,
    smoothing = 0,
  }: {
    readonly sequences: number;
    readonly from: number;
    readonly kinds: readonly Kind[];
    readonly smoothing?: number;
  },
  weights: Weights,
): ChangedTerms<Kind> {
  const inputs = attentionInputs(graph, decoder, sequences, 'rows', 'rows');
  let x: Tensor = graph.input('entering', 'float32', [sequences, 'rows', decoder.hidden]);
  for (let layer = from; layer < decoder.layers; layer++)
    x = decoder.layer(enter(x, layer, inputs), layer, inputs, weights).hidden;
  const top = enter(x, decoder.layers, inputs);
  return {
    ...likelihoodTerms(graph, top, decoder, weights, smoothing),
    ...localityTerms(graph, top, decoder, weights, kinds),
  };
}
