/**
 * @file A LLaVA-architecture model ready to run: picture and prompt in, logits out, with the decoder cut where editors act.
 */
import { EmendError } from '../errors.ts';
import { decodePicture } from '../files/picture.ts';
import { Graph } from '../tensor/graph.ts';
import {
  availableProviders,
  float32,
  floatsOf,
  int64,
  type Provider,
  Session,
  type Value,
} from '../tensor/session.ts';
import { type Checkpoint, openCheckpoint, stopTokenIds } from './checkpoint.ts';
import { embed } from './decoder.ts';
import { type Cache, DecoderSegment, positionFeeds, type SegmentResult } from './decoderSegment.ts';
import { type ImageProcessor, loadImageProcessor } from './imageProcessor.ts';
import { positionLimit } from './positions.ts';
import {
  chatPrompts,
  type EncodedPrompt,
  loadChatTemplate,
  type PromptForm,
  type PromptWriter,
  plainPrompts,
} from './prompt.ts';
import { loadTokenizer, type Tokenizer } from './tokenizer.ts';
import { visualEmbeddings } from './vision.ts';
import { weightsInFiles } from './weights.ts';

export interface OpenOptions {
  /** providers to try, in order; the platform's own order when empty or absent */
  readonly providers?: readonly Provider[];
  /** decoder layers after whose output the decoder is cut, from 0, ascending */
  readonly cuts?: readonly number[];
  readonly promptForm?: PromptForm;
  /** aborted: opening fails with `cancelled`, between two sessions */
  readonly signal?: AbortSignal;
}

/** A prompt laid out in the decoder's rows. */
export interface ModelInput {
  /** rows before the first decoder layer [1, rows, hidden] */
  readonly embeddings: Value;
  readonly rows: number;
  /** rows of the picture, end exclusive; null without a picture */
  readonly imageRows: readonly [start: number, end: number] | null;
  /** row of the last prompt token */
  readonly lastPromptRow: number;
}

/** State after the segment below the first cut: the same before and after any edit. */
export interface Prefill {
  readonly input: ModelInput;
  /** output of the layer at the first cut [1, rows, hidden]; null when the decoder is not cut */
  readonly hidden: Value | null;
  readonly positions: Readonly<Record<string, Value>>;
  readonly cache: Cache;
  /** logits of the rows asked for, when there is no segment above */
  readonly logits: Value | null;
  /** unedited results of the segments above that were run so far, from the lowest on: kept, so that none is run twice */
  readonly above: SegmentResult[];
}

/** Changes hidden states at a cut [1, rows, hidden] → the same shape. */
export type Adapt = (hidden: Value, input: ModelInput, cut: number) => Promise<Value>;

export class VisionLanguageModel {
  readonly checkpoint: Checkpoint;
  readonly tokenizer: Tokenizer;
  readonly images: ImageProcessor;
  readonly prompts: PromptWriter;
  readonly cuts: readonly number[];
  readonly segments: readonly DecoderSegment[];
  /** ids that end an answer */
  readonly stopIds: ReadonlySet<number>;
  readonly #vision: Session;
  readonly #embed: Session;

  private constructor(parts: {
    checkpoint: Checkpoint;
    tokenizer: Tokenizer;
    images: ImageProcessor;
    prompts: PromptWriter;
    cuts: readonly number[];
    segments: readonly DecoderSegment[];
    vision: Session;
    embed: Session;
  }) {
    this.checkpoint = parts.checkpoint;
    this.tokenizer = parts.tokenizer;
    this.images = parts.images;
    this.prompts = parts.prompts;
    this.cuts = parts.cuts;
    this.segments = parts.segments;
    const stops = stopTokenIds(parts.checkpoint);
    this.stopIds = new Set(stops.length > 0 ? stops : parts.tokenizer.eosIds);
    this.#vision = parts.vision;
    this.#embed = parts.embed;
  }

  /** Opens a checkpoint folder in place. Throws what is wrong with it, or `unsupported` when no provider loads it. */
  static async open(folder: string, options: OpenOptions = {}): Promise<VisionLanguageModel> {
    const checkpoint = await openCheckpoint(folder);
    const { config } = checkpoint;
    const [tokenizer, images, chatTemplate] = await Promise.all([
      loadTokenizer(checkpoint.folder, config),
      loadImageProcessor(checkpoint.folder, config),
      loadChatTemplate(checkpoint.folder),
    ]);
    const cuts = options.cuts ?? [];
    for (const [index, cut] of cuts.entries()) {
      if (
        !Number.isInteger(cut) ||
        cut < 0 ||
        cut > config.text.layers - 2 ||
        cut <= (cuts[index - 1] ?? -1)
      ) {
        throw new EmendError(
          'invalid-input',
          `A decoder of ${config.text.layers} layers cannot be cut after layer ${cut}: take layers 0 to ${config.text.layers - 2}, ascending.`,
        );
      }
    }
    if (options.promptForm === 'chat' && chatTemplate === undefined) {
      throw new EmendError('unsupported', `${folder} has no chat template. Use the plain prompt form.`);
    }
    const prompts =
      options.promptForm === 'chat' && chatTemplate !== undefined
        ? chatPrompts(tokenizer, chatTemplate)
        : plainPrompts(tokenizer);

    const opened: Session[] = [];
    // A session blocks the thread while it loads; between two of them a wish to stop is heard.
    const heard = async () => {
      await new Promise((resolve) => setImmediate(resolve));
      if (options.signal?.aborted) throw new EmendError('cancelled', 'Opening the model was stopped.');
    };
    const session = async (build: (graph: Graph) => void, providers: readonly Provider[]) => {
      const graph = new Graph();
      build(graph);
      await heard();
      const made = await Session.create(graph, { providers });
      opened.push(made);
      return made;
    };
    const wanted = options.providers?.length ? options.providers : availableProviders();
    try {
      const vision = await session((graph) => {
        const side = config.vision.imageSize;
        const pixels = graph.input('pixels', 'float32', ['pictures', 3, side, side]);
        graph.output('visual', visualEmbeddings(pixels, config, weightsInFiles(graph, checkpoint.weights)));
      }, wanted);
      // What loaded the vision tower loads the rest: one model runs on one provider.
      const providers: Provider[] = [vision.provider];
      const embedding = await session((graph) => {
        graph.output(
          'rows',
          embed(graph.input('ids', 'int64', [1, 'rows']), weightsInFiles(graph, checkpoint.weights)),
        );
      }, providers);
      const segments: DecoderSegment[] = [];
      const ends = [...cuts, config.text.layers - 1];
      for (const [index, last] of ends.entries()) {
        const first = index === 0 ? 0 : ends[index - 1]! + 1;
        const weightsOf = (graph: Graph) => weightsInFiles(graph, checkpoint.weights);
        await heard();
        const segment = await DecoderSegment.compile(first, last, config.text, weightsOf, { providers });
        opened.push(segment.session);
        segments.push(segment);
      }
      return new VisionLanguageModel({
        checkpoint,
        tokenizer,
        images,
        prompts,
        cuts,
        segments,
        vision,
        embed: embedding,
      });
    } catch (error) {
      for (const made of opened) await made.dispose();
      throw error;
    }
  }

  get provider(): Provider {
    return this.#vision.provider;
  }

  /** why better-liked providers were passed over */
  get refusals(): Session['refusals'] {
    return this.#vision.refusals;
  }

  get hidden(): number {
    return this.checkpoint.config.text.hidden;
  }

  /** A picture file as the vision tower takes it [3, side, side]. */
  async pixelsOf(file: Uint8Array): Promise<Float32Array> {
    return this.images.preprocess(await decodePicture(file));
  }

  /** pixels [3, side, side] → visual embeddings [visual tokens, hidden]. */
  async visualEmbeddings(pixels: Float32Array): Promise<Float32Array> {
    const side = this.checkpoint.config.vision.imageSize;
    const out = await this.#vision.run({ pixels: float32(pixels, [1, 3, side, side]) });
    return floatsOf(out['visual']!);
  }

  async #embedTokens(ids: readonly number[]): Promise<Float32Array> {
    return floatsOf((await this.#embed.run({ ids: int64(ids, [1, ids.length]) }))['rows']!);
  }

  /** Lays token ids and the picture's rows (in place of the one image token) behind one another. */
  async lay(encoded: EncodedPrompt, visual: Float32Array | null): Promise<ModelInput> {
    const { imageIndex, ids } = encoded;
    const width = this.hidden;
    if ((imageIndex === undefined) !== (visual === null)) {
      throw new EmendError('internal', 'A prompt and its picture do not belong together.');
    }
    const vocabulary = this.checkpoint.config.text.vocab;
    const beyond = ids.find((id, index) => id >= vocabulary && index !== imageIndex);
    if (beyond !== undefined) {
      throw new EmendError(
        'damaged',
        `The prompt has token ${beyond} ("${this.tokenizer.tokenText(beyond)}"), and the model only ${vocabulary} tokens. Take tokenizer and config from the same model.`,
      );
    }
    // The image token may lie beyond the embedding: its row is replaced anyway.
    const rowsOfTokens = await this.#embedTokens(ids.map((id, index) => (index === imageIndex ? 0 : id)));
    const visualCount = visual ? visual.length / width : 0;
    const start = imageIndex ?? 0;
    const rows = visual ? ids.length - 1 + visualCount : ids.length;
    const data = new Float32Array(rows * width);
    if (visual) {
      data.set(rowsOfTokens.subarray(0, start * width));
      data.set(visual, start * width);
      data.set(rowsOfTokens.subarray((start + 1) * width), (start + visualCount) * width);
    } else data.set(rowsOfTokens);
    const limit = positionLimit(this.checkpoint.config.text);
    if (rows > limit) {
      throw new EmendError(
        'invalid-input',
        `The prompt takes ${rows} rows and the model has ${limit} positions. Shorten the prompt.`,
      );
    }
    return {
      embeddings: float32(data, [1, rows, width]),
      rows,
      imageRows: visual ? [start, start + visualCount] : null,
      lastPromptRow: encoded.lastPromptToken + (visual ? visualCount - 1 : 0),
    };
  }

  /** Runs the segment below the first cut. */
  async prefill(input: ModelInput, asked: readonly number[] = [input.rows - 1]): Promise<Prefill> {
    const positions = positionFeeds(this.checkpoint.config.text, input.rows, 0);
    const lowest = this.segments[0]!;
    const { hidden, logits, cache } = await lowest.run(
      input.embeddings,
      positions,
      lowest.emptyCache(),
      asked,
    );
    return { input, hidden, positions, cache, logits, above: [] };
  }

  /**
   * Runs what lies above the first cut. `adapt` may change the hidden states at each cut; without it the model is unedited.
   * Returns logits of the rows asked for and the caches of all segments, ready for `next`.
   */
  async finish(
    prefill: Prefill,
    asked: readonly number[],
    adapt?: Adapt,
  ): Promise<{ logits: Value; caches: Cache[] }> {
    const caches = [prefill.cache];
    if (!prefill.hidden) return { logits: prefill.logits!, caches };
    let hidden = prefill.hidden;
    let unedited = true;
    for (const [index, segment] of this.segments.entries()) {
      if (index === 0) continue;
      const adapted = adapt ? await adapt(hidden, prefill.input, this.cuts[index - 1]!) : hidden;
      unedited &&= adapted === hidden;
      const kept = unedited ? prefill.above[index - 1] : undefined;
      const result = kept ?? (await segment.run(adapted, prefill.positions, segment.emptyCache(), asked));
      caches.push(result.cache);
      if (result.logits) return { logits: result.logits, caches };
      hidden = result.hidden!;
    }
    throw new EmendError('internal', 'A decoder must end in its head.');
  }

  /** Output of the layer at a cut, without any change [1, rows, hidden]. Throws when the decoder is not cut there. */
  async unedited(prefill: Prefill, cut: number): Promise<Value> {
    const place = this.cuts.indexOf(cut);
    if (place < 0 || !prefill.hidden)
      throw new EmendError('internal', `The decoder is not cut after layer ${cut}.`);
    for (let index = prefill.above.length; index < place; index++) {
      const segment = this.segments[index + 1]!;
      const below = prefill.above[index - 1]?.hidden ?? prefill.hidden;
      prefill.above.push(await segment.run(below, prefill.positions, segment.emptyCache(), []));
    }
    return prefill.above[place - 1]?.hidden ?? prefill.hidden;
  }

  /** One more token behind the cached rows → its logits [1, vocabulary] and the longer caches. */
  async next(id: number, caches: readonly Cache[]): Promise<{ logits: Value; caches: Cache[] }> {
    let hidden: Value = float32(await this.#embedTokens([id]), [1, 1, this.hidden]);
    const positions = positionFeeds(this.checkpoint.config.text, 1, caches[0]!.length);
    const longer: Cache[] = [];
    for (const [index, segment] of this.segments.entries()) {
      const result = await segment.run(hidden, positions, caches[index]!, [0]);
      longer.push(result.cache);
      if (result.logits) return { logits: result.logits, caches: longer };
      hidden = result.hidden!;
    }
    throw new EmendError('internal', 'A decoder must end in its head.');
  }

  async dispose(): Promise<void> {
    await this.#vision.dispose();
    await this.#embed.dispose();
    for (const segment of this.segments) await segment.dispose();
  }
}
