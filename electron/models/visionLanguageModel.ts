/**
 * @file A vision-language model ready to run: pictures and prompt in, logits out, with the decoder cut where editors act.
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
import type { WeightSource } from './checkpoint.ts';
import { type ConversationWriter, conversationWriter } from './conversation.ts';
import { attentionFeeds, type RunnableDecoder } from './decoder.ts';
import { type Cache, DecoderSegment, type SegmentResult } from './decoderSegment.ts';
import type { PlacedPicture } from './family.ts';
import { nameOfModel } from './hubCache.ts';
import { refuseWhatCannotFit } from './memory.ts';
import { type Checkpoint, openCheckpoint, stopTokenIds } from './open.ts';
import { type PackedCache, packedWeights } from './packed/cache.ts';
import type { PackedForm, WeightForm } from './packed/form.ts';
import type { PictureReader, Pixels, Visual, VisualGrid } from './picture.ts';
import { consecutive, type Positions } from './positions.ts';
import {
  chatPrompts,
  type EncodedPrompt,
  loadChatTemplate,
  type PromptForm,
  type PromptWriter,
  plainPrompts,
} from './prompt.ts';
import { loadTokenizer, type Tokenizer } from './tokenizer.ts';
import {
  canChange,
  changeableParts,
  changeFeeds,
  changeInputNames,
  type WeightChanges,
} from './weightChanges.ts';
import { changeableWeights, weightsInFiles } from './weights.ts';

export type { WeightChanges } from './weightChanges.ts';

export interface OpenOptions {
  /** providers to try, in order; the platform's own order when empty or absent */
  readonly providers?: readonly Provider[];
  /** decoder layers after whose output the decoder is cut, from 0, ascending */
  readonly cuts?: readonly number[];
  readonly promptForm?: PromptForm;
  /** the form to hold the decoder's matrices in; `dense` when absent */
  readonly weights?: WeightForm;
  /** where packed weights are; needed for every form but `dense` */
  readonly packed?: PackedCache;
  /** packed weights are being made: bytes written of so many */
  readonly onPacking?: (done: number, total: number) => void;
  /** what a run may change, by the names that `WeightChanges` has */
  readonly changeable?: readonly string[];
  /** most rows a picture may take, where the checkpoint allows more: rows cost memory and time */
  readonly pictureRows?: number | undefined;
  /**
   * The decoder's sessions are made when something is first asked of them, and not as the model is opened: for those that build
   * graphs of their own, so that its weights are not held twice.
   */
  readonly decoderLater?: boolean;
  /** threads of one operator on cpu; the runtime's choice when absent. One is best where other work shares the processor. */
  readonly threads?: number;
  /** aborted: opening fails with `cancelled`, between two sessions */
  readonly signal?: AbortSignal;
}

/** A prompt laid out in the decoder's rows. */
export interface ModelInput {
  /** rows before the first decoder layer [1, rows, hidden] */
  readonly embeddings: Value;
  readonly rows: number;
  /** token ids of the rows; what stands in visual rows means nothing [rows] */
  readonly ids: readonly number[];
  /** visual rows, in the order of the pictures' visual embeddings; need not lie together; null without a picture */
  readonly imageRows: readonly number[] | null;
  /** the visual rows as one grid, row by row; null where they are none */
  readonly grid: VisualGrid | null;
  /** row of the last prompt token */
  readonly lastPromptRow: number;
  readonly positions: Positions;
  /** position of the row generated first */
  readonly nextPosition: number;
  /** the pictures in it, and where each of them is */
  readonly pictures: ReadonlyArray<{ readonly placed: PlacedPicture; readonly pixels: Pixels | undefined }>;
  /** what is added to all rows after decoder layer 0, 1, … [rows, hidden] each; empty in most decoders and without a picture */
  readonly added: readonly Float32Array[];
}

/** State after the segment below the first cut: the same before and after any edit. */
export interface Prefill {
  readonly input: ModelInput;
  /** output of the layer at the first cut [1, rows, hidden]; null when the decoder is not cut */
  readonly hidden: Value | null;
  /** what every segment is fed beside hidden states */
  readonly shared: Readonly<Record<string, Value>>;
  /** which of the linear layers it was run with changes of */
  readonly changes: WeightChanges;
  readonly cache: Cache;
  /** rows whose logits were asked for */
  readonly asked: readonly number[];
  /** logits of these, when there is no segment above */
  readonly logits: Value | null;
  /** unedited results of the segments above that were run so far, from the lowest on: kept, so that none is run twice */
  readonly above: SegmentResult[];
}

/** Changes hidden states at a cut [1, rows, hidden] → the same shape. */
export type Adapt = (hidden: Value, input: ModelInput, cut: number) => Promise<Value>;

/** Changes the hidden state of a generated token at a cut [1, 1, hidden] → the same shape. */
export type AdaptNext = (hidden: Value, cut: number) => Promise<Value>;

/** Whether any of the changes is of something in a session's graph. */
function acts(changes: WeightChanges, { inputNames }: Session): boolean {
  return [...changes.keys()].some((name) => changeInputNames(name).some((input) => inputNames.has(input)));
}

function packedOf(checkpoint: Checkpoint, form: PackedForm, { packed, signal, onPacking }: OpenOptions) {
  if (!packed) throw new EmendError('internal', 'It was not said where packed weights are.');
  return packedWeights(checkpoint, form, packed, { signal, onProgress: onPacking });
}

export class VisionLanguageModel {
  readonly checkpoint: Checkpoint;
  /** the form its matrices are held in */
  readonly form: WeightForm;
  /** where they lie */
  readonly weights: WeightSource;
  readonly tokenizer: Tokenizer;
  readonly images: PictureReader;
  readonly decoder: RunnableDecoder;
  readonly prompts: PromptWriter;
  readonly conversations: ConversationWriter;
  readonly cuts: readonly number[];
  /** ids that end an answer */
  readonly stopIds: ReadonlySet<number>;
  readonly #vision: Session;
  readonly #embed: Session;
  /** of the decoder, from the lowest on; null until it is needed */
  readonly #segments: Array<DecoderSegment | null>;
  /** whether it was left open as the model was opened if the decoder fits in memory */
  #unweighed: boolean;

  private constructor(parts: {
    checkpoint: Checkpoint;
    form: WeightForm;
    decoderLater: boolean;
    weights: WeightSource;
    tokenizer: Tokenizer;
    images: PictureReader;
    decoder: RunnableDecoder;
    prompts: PromptWriter;
    conversations: ConversationWriter;
    cuts: readonly number[];
    vision: Session;
    embed: Session;
  }) {
    this.checkpoint = parts.checkpoint;
    this.form = parts.form;
    this.weights = parts.weights;
    this.tokenizer = parts.tokenizer;
    this.images = parts.images;
    this.decoder = parts.decoder;
    this.prompts = parts.prompts;
    this.conversations = parts.conversations;
    this.cuts = parts.cuts;
    this.#unweighed = parts.decoderLater;
    this.#segments = new Array(parts.cuts.length + 1).fill(null);
    const stops = stopTokenIds(parts.checkpoint);
    this.stopIds = new Set(stops.length > 0 ? stops : parts.tokenizer.eosIds);
    this.#vision = parts.vision;
    this.#embed = parts.embed;
  }

  /** Opens a checkpoint folder in place. Throws what is wrong with it, or `unsupported` when no provider loads it. */
  static async open(folder: string, options: OpenOptions = {}): Promise<VisionLanguageModel> {
    const checkpoint = await openCheckpoint(folder);
    const { backbone, config } = checkpoint;
    const { layers } = backbone.decoder;
    const [tokenizer, images, chatTemplate] = await Promise.all([
      loadTokenizer(checkpoint.folder, config),
      backbone.openPictures(checkpoint.folder, options.pictureRows),
      loadChatTemplate(checkpoint.folder),
    ]);
    const cuts = options.cuts ?? [];
    for (const [index, cut] of cuts.entries()) {
      if (!Number.isInteger(cut) || cut < 0 || cut > layers - 2 || cut <= (cuts[index - 1] ?? -1)) {
        throw new EmendError(
          'invalid-input',
          `A decoder of ${layers} layers cannot be cut after layer ${cut}: take layers 0 to ${layers - 2}, ascending.`,
        );
      }
    }
    if (options.promptForm === 'chat' && chatTemplate === undefined) {
      throw new EmendError('unsupported', `${folder} has no chat template. Use the plain prompt form.`);
    }
    const prompts =
      options.promptForm === 'chat' && chatTemplate !== undefined
        ? chatPrompts(tokenizer, chatTemplate, backbone.prompts)
        : plainPrompts(tokenizer, backbone.prompts);
    const conversations = conversationWriter(
      tokenizer,
      chatTemplate,
      backbone.prompts,
      nameOfModel(checkpoint.folder),
    );

    const form = options.weights ?? 'dense';
    if (!options.decoderLater) refuseWhatCannotFit(checkpoint, form, images.rows.most);
    const weights = form === 'dense' ? checkpoint.weights : await packedOf(checkpoint, form, options);

    const opened: Session[] = [];
    // A session blocks the thread while it loads; between two of them a wish to stop is heard.
    const heard = async () => {
      await new Promise((resolve) => setImmediate(resolve));
      if (options.signal?.aborted) throw new EmendError('cancelled', 'Opening the model was stopped.');
    };
    const threads = options.threads === undefined ? {} : { threads: options.threads };
    const session = async (build: (graph: Graph) => void, providers: readonly Provider[]) => {
      const graph = new Graph();
      build(graph);
      await heard();
      const made = await Session.create(graph, { providers, ...threads });
      opened.push(made);
      return made;
    };
    const wanted = options.providers?.length ? options.providers : availableProviders();
    try {
      const changeable = new Set(options.changeable);
      const parts = changeableParts(backbone.tensors(), backbone.decoder);
      for (const name of changeable) {
        if (!canChange(name, parts))
          throw new EmendError('internal', `The model has no linear layer, vector or MLP ${name}.`);
      }
      const weightsOf = (graph: Graph) =>
        changeableWeights(graph, weightsInFiles(graph, weights), changeable);
      const vision = await session((graph) => {
        const { visual, added } = backbone.vision.build(graph, weightsOf(graph));
        graph.output('visual', visual);
        for (const [layer, features] of added.entries()) graph.output(`added.${layer}`, features);
      }, wanted);
      // What loaded the vision tower loads the rest: one model runs on one provider.
      const providers: Provider[] = [vision.provider];
      const decoder: RunnableDecoder = { ...backbone.decoder, weightsOf, session: { providers, ...threads } };
      const embedding = await session((graph) => {
        const weight = weightsOf(graph);
        graph.output('rows', decoder.embed(graph.input('ids', 'int64', [1, 'rows']), weight));
        const places = decoder.embedPositions?.(graph.input('positions', 'int64', [1, 'rows']), weight);
        if (places) graph.output('places', places);
      }, providers);
      const model = new VisionLanguageModel({
        checkpoint,
        form,
        decoderLater: options.decoderLater ?? false,
        weights,
        tokenizer,
        images,
        decoder,
        prompts,
        conversations,
        cuts,
        vision,
        embed: embedding,
      });
      try {
        for (let index = 0; index <= cuts.length && !options.decoderLater; index++) {
          await heard();
          await model.#segment(index);
        }
      } catch (error) {
        await model.releaseDecoder();
        throw error;
      }
      return model;
    } catch (error) {
      for (const made of opened) await made.dispose();
      throw error;
    }
  }

  /** For those that hold the whole decoder in graphs of their own. @throws EmendError 'conflict' where it does not fit in memory */
  refuseUnlessDecoderFits(): void {
    if (!this.#unweighed) return;
    refuseWhatCannotFit(this.checkpoint, this.form, this.images.rows.most);
    this.#unweighed = false;
  }

  /** The segment of the decoder at a place from the lowest on, made where it is not there. */
  async #segment(index: number): Promise<DecoderSegment> {
    if (this.#unweighed) this.refuseUnlessDecoderFits();
    const { decoder, cuts } = this;
    const [first, last] = [index === 0 ? 0 : cuts[index - 1]! + 1, cuts[index] ?? decoder.layers - 1];
    this.#segments[index] ??= await DecoderSegment.compile(
      first,
      last,
      decoder,
      decoder.weightsOf,
      decoder.session,
    );
    return this.#segments[index];
  }

  /** Lets the decoder's sessions go, with the weights they hold; they are made again when they are needed. */
  async releaseDecoder(): Promise<void> {
    for (const [index, segment] of this.#segments.entries()) {
      this.#segments[index] = null;
      await segment?.dispose();
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
    return this.decoder.hidden;
  }

  /** A picture file as the vision tower takes it. */
  async pixelsOf(file: Uint8Array): Promise<Pixels> {
    return this.images.preprocess(await decodePicture(file));
  }

  /** A picture's visual embeddings. */
  async visualEmbeddings(pixels: Pixels, changes?: WeightChanges): Promise<Visual> {
    return (await this.visualEmbeddingsOf([pixels], changes))[0]!;
  }

  /** Visual embeddings of several pictures, together where the vision tower can. `changes` act in it. */
  async visualEmbeddingsOf(
    pictures: readonly Pixels[],
    changes: WeightChanges = new Map(),
  ): Promise<Visual[]> {
    const { positionLimit } = this.decoder;
    for (const { layout } of pictures) {
      if (layout.rows <= positionLimit) continue;
      throw new EmendError(
        'invalid-input',
        `The picture takes ${layout.rows} rows and the model has ${positionLimit} positions. Make it smaller.`,
      );
    }
    const { vision } = this.checkpoint.backbone;
    const groups = vision.together ? [pictures] : pictures.map((picture) => [picture]);
    const seen: Visual[] = [];
    for (const group of groups) {
      if (group.length === 0) continue;
      const out = await this.#vision.run({ ...vision.feeds(group), ...changeFeeds(changes) });
      const all = await floatsOf(out['visual']!);
      const features: Float32Array[] = [];
      while (out[`added.${features.length}`]) features.push(await floatsOf(out[`added.${features.length}`]!));
      let from = 0;
      for (const pixels of group) {
        const { layout } = pixels;
        const to = from + layout.rows * this.hidden;
        const part = (values: Float32Array) => values.slice(from, to);
        seen.push({ rows: part(all), layout, pixels, added: features.map(part) });
        from = to;
      }
      if (from !== all.length) {
        throw new EmendError(
          'internal',
          `The vision tower gave ${all.length / this.hidden} rows for pictures laid out in ${from / this.hidden}.`,
        );
      }
    }
    return seen;
  }

  /** Embeddings of tokens, positions left out. ids of the vocabulary → [tokens, hidden]. */
  async tokenEmbeddings(ids: readonly number[]): Promise<Float32Array> {
    return (await this.#embedTokens(ids, consecutive(ids.length))).rows;
  }

  /** Embeddings of tokens and, where the decoder learns such, of their positions; each [tokens, hidden]. */
  async #embedTokens(
    ids: readonly number[],
    positions: Positions,
  ): Promise<{ rows: Float32Array; places: Float32Array | null }> {
    const shape = [1, ids.length];
    const out = await this.#embed.run({
      ids: int64(ids, shape),
      positions: int64(Array.from(positions[0]!), shape),
    });
    return {
      rows: await floatsOf(out['rows']!),
      places: out['places'] ? await floatsOf(out['places']) : null,
    };
  }

  /** Lays token ids and the pictures' rows (in place of their image tokens) behind one another. */
  async lay(encoded: EncodedPrompt, visual: Visual | readonly Visual[] | null): Promise<ModelInput> {
    const visuals = visual === null ? [] : 'rows' in visual ? [visual] : visual;
    const { pictures } = encoded;
    if (pictures.length !== visuals.length) {
      throw new EmendError('internal', 'A prompt and its pictures do not belong together.');
    }
    const { backbone } = this.checkpoint;
    const ids: number[] = [];
    const placed: PlacedPicture[] = [];
    let lastPromptRow = 0;
    for (const [index, id] of encoded.ids.entries()) {
      const picture = visuals[pictures.indexOf(index)];
      if (picture) {
        const expanded = backbone.expand(picture.layout, this.tokenizer);
        const start = ids.length;
        placed.push({ layout: picture.layout, rows: expanded.visual.map((row) => start + row) });
        ids.push(...expanded.ids);
      } else ids.push(id);
      if (index === encoded.lastPromptToken) lastPromptRow = ids.length - 1;
    }
    return this.layRows(ids, placed, visuals, lastPromptRow);
  }

  /** Lays rows whose pictures have their places already. `ids` of visual rows are not read. */
  async layRows(
    ids: readonly number[],
    placed: readonly PlacedPicture[],
    visuals: readonly Visual[],
    lastPromptRow: number,
  ): Promise<ModelInput> {
    const width = this.hidden;
    const rows = ids.length;
    const imageRows = placed.flatMap((picture) => picture.rows);
    const isVisual = new Set(imageRows);
    const { vocab, positionLimit } = this.decoder;
    const beyond = ids.find((id, row) => id >= vocab && !isVisual.has(row));
    if (beyond !== undefined) {
      throw new EmendError(
        'damaged',
        `The prompt has token ${beyond} ("${this.tokenizer.tokenText(beyond)}"), and the model only ${vocab} tokens. Take tokenizer and config from the same model.`,
      );
    }
    if (rows > positionLimit) {
      throw new EmendError(
        'invalid-input',
        `The prompt takes ${rows} rows${isVisual.size > 0 ? `, ${isVisual.size} of them the picture's,` : ''} and the model has ${positionLimit} positions. Shorten the prompt${isVisual.size > positionLimit / 2 ? ' or take a smaller picture' : ''}.`,
      );
    }
    const { positions, next } = this.checkpoint.backbone.positions(rows, placed);
    // The image token may lie beyond the embedding: its row is replaced anyway.
    const tokens = await this.#embedTokens(
      ids.map((id, row) => (isVisual.has(row) ? 0 : id)),
      positions,
    );
    const data = tokens.rows.slice();
    const added =
      visuals.length > 0
        ? Array.from({ length: this.decoder.addedLayers }, () => new Float32Array(rows * width))
        : [];
    for (const [index, picture] of visuals.entries()) {
      for (const [at, row] of placed[index]!.rows.entries()) {
        const of = (values: Float32Array) => values.subarray(at * width, (at + 1) * width);
        data.set(of(picture.rows), row * width);
        for (const [layer, features] of picture.added.entries()) added[layer]!.set(of(features), row * width);
      }
    }
    const { places } = tokens;
    if (places) for (let i = 0; i < data.length; i++) data[i]! += places[i]!;
    return {
      embeddings: float32(data, [1, rows, width]),
      rows,
      ids,
      imageRows: visuals.length > 0 ? imageRows : null,
      grid: placed.length === 1 ? placed[0]!.layout.grid : null,
      lastPromptRow,
      positions,
      nextPosition: next,
      pictures: visuals.map(({ pixels }, index) => ({ placed: placed[index]!, pixels })),
      added,
    };
  }

  /** An input with its pictures seen again, by a vision tower in which `changes` act; itself where none of them is the tower's. */
  async seenUnder(input: ModelInput, changes: WeightChanges): Promise<ModelInput> {
    if (input.pictures.length === 0 || !acts(changes, this.#vision)) return input;
    const pixels = input.pictures.map((picture) => {
      if (!picture.pixels)
        throw new EmendError('internal', 'A change of the vision tower needs the pixels of the picture.');
      return picture.pixels;
    });
    const placed = input.pictures.map((picture) => picture.placed);
    const visuals = await this.visualEmbeddingsOf(pixels, changes);
    return this.layRows(input.ids, placed, visuals, input.lastPromptRow);
  }

  /** Runs the segment below the first cut. `changes` act in it and in the vision tower, and in what is made of it unless others are given there. */
  async prefill(
    laid: ModelInput,
    asked: readonly number[] = [laid.rows - 1],
    changes: WeightChanges = new Map(),
  ): Promise<Prefill> {
    const input = await this.seenUnder(laid, changes);
    const shared = {
      ...attentionFeeds(this.decoder, input.positions, 0, input.added),
      ...changeFeeds(changes),
    };
    const lowest = await this.#segment(0);
    const { hidden, logits, cache } = await lowest.run(
      input.embeddings,
      shared,
      lowest.emptyCache(),
      asked,
      input.nextPosition,
    );
    return { input, hidden, shared, changes, cache, asked, logits, above: [] };
  }

  /**
   * Runs what lies above the first cut. `adapt` may change the hidden states at each cut, `changes` act in its weights:
   * without either the answer is that of the prefilled model. Where `changes` reach below the first cut, that runs again with them.
   * Returns logits of the rows asked for and the caches of all segments, ready for `next`.
   */
  async finish(
    prefill: Prefill,
    asked: readonly number[],
    adapt?: Adapt,
    changes: WeightChanges = prefill.changes,
  ): Promise<{ logits: Value; caches: Cache[] }> {
    const differs = changes !== prefill.changes && (await this.#changesBelow(prefill.changes, changes));
    const others = !prefill.hidden && asked.join() !== prefill.asked.join();
    if (differs || others)
      return this.finish(await this.prefill(prefill.input, asked, changes), asked, adapt, changes);
    const caches = [prefill.cache];
    if (!prefill.hidden) return { logits: prefill.logits!, caches };
    let hidden = prefill.hidden;
    let unedited = changes === prefill.changes;
    const shared = unedited ? prefill.shared : { ...prefill.shared, ...changeFeeds(changes) };
    for (let index = 1; index <= this.cuts.length; index++) {
      const segment = await this.#segment(index);
      const adapted = adapt ? await adapt(hidden, prefill.input, this.cuts[index - 1]!) : hidden;
      unedited &&= adapted === hidden;
      const kept = unedited ? prefill.above[index - 1] : undefined;
      const { input } = prefill;
      const result =
        kept ?? (await segment.run(adapted, shared, segment.emptyCache(), asked, input.nextPosition));
      caches.push(result.cache);
      if (result.logits) return { logits: result.logits, caches };
      hidden = result.hidden!;
    }
    throw new EmendError('internal', 'A decoder must end in its head.');
  }

  /** Whether either of two sets of changes acts below the first cut. */
  async #changesBelow(...sets: readonly WeightChanges[]): Promise<boolean> {
    const sessions = [this.#vision, (await this.#segment(0)).session];
    return sets.some((changes) => sessions.some((session) => acts(changes, session)));
  }

  /** Output of the layer at a cut, without any change [1, rows, hidden]. Throws when the decoder is not cut there. */
  async unedited(prefill: Prefill, cut: number): Promise<Value> {
    const place = this.cuts.indexOf(cut);
    if (place < 0 || !prefill.hidden)
      throw new EmendError('internal', `The decoder is not cut after layer ${cut}.`);
    for (let index = prefill.above.length; index < place; index++) {
      const segment = await this.#segment(index + 1);
      const { input, shared } = prefill;
      const below = prefill.above[index - 1]?.hidden ?? prefill.hidden;
      prefill.above.push(await segment.run(below, shared, segment.emptyCache(), [], input.nextPosition));
    }
    return prefill.above[place - 1]?.hidden ?? prefill.hidden;
  }

  /** One more token behind the cached rows → its logits [1, vocabulary] and the longer caches. `adapt` may change it at each cut. */
  async next(
    id: number,
    caches: readonly Cache[],
    changes: WeightChanges = new Map(),
    adapt?: AdaptNext,
  ): Promise<{ logits: Value; caches: Cache[] }> {
    const { length, nextPosition } = caches[0]!;
    const positions = consecutive(1, nextPosition, this.decoder.axes);
    const { rows, places } = await this.#embedTokens([id], positions);
    const embedded = places ? rows.map((value, i) => value + places[i]!) : rows;
    let hidden: Value = float32(embedded, [1, 1, this.hidden]);
    const shared = { ...attentionFeeds(this.decoder, positions, length), ...changeFeeds(changes) };
    const longer: Cache[] = [];
    for (let index = 0; index <= this.cuts.length; index++) {
      const segment = await this.#segment(index);
      const result = await segment.run(hidden, shared, caches[index]!, [0], nextPosition + 1);
      longer.push(result.cache);
      if (result.logits) return { logits: result.logits, caches: longer };
      hidden = adapt ? await adapt(result.hidden!, this.cuts[index]!) : result.hidden!;
    }
    throw new EmendError('internal', 'A decoder must end in its head.');
  }

  async dispose(): Promise<void> {
    await this.#vision.dispose();
    await this.#embed.dispose();
    await this.releaseDecoder();
  }
}
