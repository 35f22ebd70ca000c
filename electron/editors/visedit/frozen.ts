/**
 * @file The frozen model on training batches: output of the edit layer, the unedited logits that locality compares with, and
 * the hidden states that influence targets are drawn from. Run once a step, outside the differentiated graph.
 */
import { decoderLayer, embed, finalNorm, languageHead } from '../../models/decoder.ts';
import { visualEmbeddings } from '../../models/vision.ts';
import type { VisionLanguageModel } from '../../models/visionLanguageModel.ts';
import { weightsInFiles } from '../../models/weights.ts';
import * as f from '../../tensor/functions.ts';
import { Graph } from '../../tensor/graph.ts';
import { float32, int64, Session, type Value } from '../../tensor/session.ts';
import type { LaidBatch } from './batch.ts';

export class FrozenModel {
  readonly #session: Session;
  readonly #side: number;
  private constructor(session: Session, side: number) {
    this.#session = session;
    this.#side = side;
  }

  /** `kept`: layers (0-based) whose outputs are given back too, beside the edit layer's. */
  static async compile(
    model: VisionLanguageModel,
    editLayer: number,
    kept: readonly number[] = [],
  ): Promise<FrozenModel> {
    const { config, weights } = model.checkpoint;
    const graph = new Graph();
    const weight = weightsInFiles(graph, weights);
    const { imageSize } = config.vision;
    const { text } = config;
    const visual = visualEmbeddings(
      graph.input('pixels', 'float32', ['batch', 3, imageSize, imageSize]),
      config,
      weight,
    );
    const before = embed(graph.input('before', 'int64', ['batch', 'prefix']), weight);
    const behind = embed(graph.input('behind', 'int64', ['batch', 'behind']), weight);
    // The sum of three symbolic lengths is the symbol of the whole.
    let x = f.concat([before, visual, behind], 1);
    const rows = x.shape[1]!;
    const attention = {
      cosine: graph.input('cosine', 'float32', ['batch', 1, rows, text.headDim]),
      sine: graph.input('sine', 'float32', ['batch', 1, rows, text.headDim]),
      mask: graph.input('mask', 'float32', ['batch', 1, rows, rows]),
    };
    for (let layer = 0; layer < text.layers; layer++) {
      x = decoderLayer(x, layer, attention, text, weight).hidden;
      if (layer === editLayer) graph.output('hidden', x);
      if (kept.includes(layer)) graph.output(`hidden.${layer}`, x);
    }
    const asked = f.gather(
      f.reshape(x, ['all rows', text.hidden]),
      graph.input('picked_locality', 'int64', ['kept']),
    );
    graph.output('before_logits', languageHead(finalNorm(asked, text, weight), text, weight));
    return new FrozenModel(await Session.create(graph, { providers: [model.provider] }), imageSize);
  }

  /** Feeds for the losses: `hidden`, `before`; and the outputs of kept layers under `hidden.l`. */
  async run(batch: LaidBatch): Promise<Record<string, Value>> {
    const all = 3 * batch.sizes.edits;
    const side = this.#side;
    const out = await this.#session.run({
      ...batch.feeds,
      pixels: float32(batch.pixels, [all, 3, side, side]),
      before: int64(batch.before, [all, batch.before.length / all]),
      behind: int64(batch.behind, [all, batch.behind.length / all]),
    });
    const { before_logits, ...rest } = out;
    return { ...rest, before: before_logits! };
  }

  async dispose(): Promise<void> {
    await this.#session.dispose();
  }
}
