/**
 * @file The frozen model on training batches: outputs of the layers after which edits act, the unedited logits that locality compares with, and
 * the hidden states that influence targets are drawn from. Run once a step, outside the differentiated graph.
 */
import { attentionInputs, enter } from '../../models/decoder.ts';
import type { VisionLanguageModel } from '../../models/visionLanguageModel.ts';
import * as f from '../../tensor/functions.ts';
import { Graph, type Tensor } from '../../tensor/graph.ts';
import { Session, type Value } from '../../tensor/session.ts';
import type { LaidBatch } from './batch.ts';

export class FrozenModel {
  readonly #session: Session;
  private constructor(session: Session) {
    this.#session = session;
  }

  /**
   * `layers`: after which edits act, ascending; `entering`: layers for which the hidden states that enter them are given back too.
   */
  static async compile(
    model: VisionLanguageModel,
    layers: readonly number[],
    entering: readonly number[] = [],
  ): Promise<FrozenModel> {
    model.refuseUnlessDecoderFits();
    const { decoder } = model;
    const graph = new Graph();
    const weight = decoder.weightsOf(graph);
    let x: Tensor = graph.input('embeddings', 'float32', ['batch', 'rows', decoder.hidden]);
    const inputs = attentionInputs(graph, decoder, 'batch', 'rows', 'rows');
    for (let layer = 0; layer < decoder.layers; layer++) {
      x = enter(x, layer, inputs);
      if (entering.includes(layer)) graph.output(`entering.${layer}`, x);
      x = decoder.layer(x, layer, inputs, weight).hidden;
      if (layers.includes(layer)) graph.output(layer === layers[0] ? 'hidden' : `hidden.${layer}`, x);
    }
    x = enter(x, decoder.layers, inputs);
    const asked = f.gather(
      f.reshape(x, ['all rows', decoder.hidden]),
      graph.input('picked_locality', 'int64', ['kept']),
    );
    graph.output('before_logits', decoder.head(decoder.finalNorm(asked, weight), weight));
    return new FrozenModel(await Session.create(graph, decoder.session));
  }

  /** Feeds for the losses: `hidden` of the lowest layer, `hidden.l` of others, `before`; and what enters chosen layers under `entering.l`. */
  async run(batch: LaidBatch): Promise<Record<string, Value>> {
    const { before_logits, ...rest } = await this.#session.run(batch.feeds);
    return { ...rest, before: before_logits! };
  }

  async dispose(): Promise<void> {
    await this.#session.dispose();
  }
}
