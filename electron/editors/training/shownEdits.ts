/**
 * @file A model learns, by a low-rank change of its decoder, to heed an edit that is shown before the question, and to answer other
 * questions as it did.
 */
import { attentionInputs, enter } from '../../models/decoder.ts';
import type { Visual } from '../../models/picture.ts';
import type { VisionLanguageModel } from '../../models/visionLanguageModel.ts';
import { weightsAsInputs } from '../../models/weights.ts';
import * as f from '../../tensor/functions.ts';
import type { Graph, Tensor } from '../../tensor/graph.ts';
import { type Evaluation, evaluationOf, outputGradients, parameterFeeds } from '../../training/trainer.ts';
import type { AdapterWeights } from '../adapterFiles.ts';
import type { EarlierPart } from '../question.ts';
import { Sessions } from '../weightEditor.ts';
import { likelihoodTerms, localityTerms } from './answerTerms.ts';
import { layBatch } from './batch.ts';
import { plainly } from './changedAnswers.ts';
import type { TrainingEdit } from './edits.ts';
import { FrozenModel } from './frozenModel.ts';
import { type DecoderLinear, lowRankWeights } from './lowRank.ts';

export interface ShownEditsOptions {
  /** what stands before every question about an edit */
  readonly before: (edit: TrainingEdit, visual: Visual) => readonly EarlierPart[];
  readonly linears: readonly DecoderLinear[];
  /** the low-rank change, trained in place */
  readonly weights: AdapterWeights;
  readonly endToken: boolean;
  readonly editWeight: number;
  readonly generalityWeight: number;
  /** of other answers, with the edit shown and without; 0: they are not looked at */
  readonly localityWeight: number;
}

export class ShownEdits {
  readonly #model: VisionLanguageModel;
  readonly #options: ShownEditsOptions;
  readonly #frozen: FrozenModel | null;
  readonly #sessions: Sessions;

  private constructor(model: VisionLanguageModel, options: ShownEditsOptions, frozen: FrozenModel | null) {
    this.#model = model;
    this.#options = options;
    this.#frozen = frozen;
    this.#sessions = new Sessions({ ...model.decoder.session, prepack: true });
  }

  static async create(model: VisionLanguageModel, options: ShownEditsOptions): Promise<ShownEdits> {
    const frozen = options.localityWeight === 0 ? null : await FrozenModel.compile(model, []);
    return new ShownEdits(model, options, frozen);
  }

  /** NLL of targets with the edit shown, and the mean of KL(before ‖ after) with it and without over what must stay. `seen`: the edits' pictures, of `seeEdits`. */
  async evaluate(edits: readonly TrainingEdit[], seen: readonly Visual[]): Promise<Evaluation> {
    const { before, endToken, weights } = this.#options;
    const common = { ...plainly, endToken, seen };
    const shown = await layBatch(this.#model, edits, {
      ...common,
      before,
      textLocality: this.#frozen !== null,
    });
    const parameters = parameterFeeds(weights);
    const run = async (
      kind: 'shown' | 'plain',
      sequences: number,
      feeds: Parameters<FrozenModel['run']>[0]['feeds'],
    ) => {
      const session = await this.#session(kind, sequences);
      return evaluationOf(await session.run({ ...feeds, ...parameters }), weights.keys());
    };
    if (!this.#frozen) return run('shown', shown.sequences.length, shown.feeds);
    const plain = await layBatch(this.#model, edits, { ...common, textLocality: true, localityOnly: true });
    const unedited = (await this.#frozen.run(plain))['before']!;
    const one = await run('shown', shown.sequences.length, { ...shown.feeds, before: unedited });
    const other = await run('plain', plain.sequences.length, { ...plain.feeds, before: unedited });
    const terms = { ...one.terms };
    for (const [name, value] of Object.entries(other.terms)) terms[name] = (terms[name]! + value) / 2;
    for (const [name, gradient] of one.gradients) {
      const more = other.gradients.get(name)!;
      for (let i = 0; i < gradient.length; i++) gradient[i]! += more[i]!;
    }
    return { loss: one.loss + other.loss, terms, gradients: one.gradients };
  }

  #session(kind: 'shown' | 'plain', sequences: number) {
    const { linears, weights, editWeight, generalityWeight, localityWeight } = this.#options;
    return this.#sessions.get(`${kind}, ${sequences} sequences`, (graph) => {
      const shapes = new Map([...weights].map(([name, { shape }]) => [name, shape]));
      const fed = weightsAsInputs(graph, shapes);
      const changed = lowRankWeights(this.#model.decoder.weightsOf(graph), linears, fed);
      const top = this.#top(graph, sequences, changed);
      const { decoder } = this.#model;
      const parts: Tensor[] = [];
      const terms: Record<string, Tensor> = {};
      if (kind === 'shown') {
        const answers = likelihoodTerms(graph, top, decoder, changed);
        Object.assign(terms, answers);
        parts.push(
          f.multiply(answers.reliability, editWeight),
          f.multiply(f.add(answers.textGenerality, answers.imageGenerality), generalityWeight),
        );
      }
      if (this.#frozen) {
        const kinds = ['imageLocality', 'textLocality'] as const;
        const stays = localityTerms(graph, top, decoder, changed, kinds);
        Object.assign(terms, stays);
        // Half with the edit shown, half without.
        for (const kindOf of kinds) parts.push(f.multiply(stays[kindOf], localityWeight / 2));
      }
      const loss = parts.reduce((a, b) => f.add(a, b));
      graph.output('loss', loss);
      for (const [name, term] of Object.entries(terms)) graph.output(`term.${name}`, term);
      outputGradients(graph, loss, [...weights.keys()].map(fed));
    });
  }

  /** The decoder under changed weights, from embeddings on. */
  #top(graph: Graph, sequences: number, weights: ReturnType<typeof lowRankWeights>): Tensor {
    const { decoder } = this.#model;
    const inputs = attentionInputs(graph, decoder, sequences, 'rows', 'rows');
    let x: Tensor = graph.input('embeddings', 'float32', [sequences, 'rows', decoder.hidden]);
    for (let layer = 0; layer < decoder.layers; layer++)
      x = decoder.layer(enter(x, layer, inputs), layer, inputs, weights).hidden;
    return enter(x, decoder.layers, inputs);
  }

  async dispose(): Promise<void> {
    await this.#frozen?.dispose();
    await this.#sessions.dispose();
  }
}
