/**
 * @file What a backbone is: a family reads its config, names its tensors, lays pictures out, gives positions, writes prompts and
 * builds vision tower and decoder from shared parts. Nothing outside a family spells a weight's name.
 */
import type { Graph, Tensor } from '../tensor/graph.ts';
import type { Value } from '../tensor/session.ts';
import type { Decoder } from './decoder.ts';
import type { PictureLayout, PictureReader, Pixels } from './picture.ts';
import { consecutive, type Positions } from './positions.ts';
import type { Tokenizer } from './tokenizer.ts';
import type { Weights } from './weights.ts';

/** What every family's config says in the same words. */
export interface ModelConfig {
  readonly text: {
    readonly layers: number;
    readonly hidden: number;
    readonly vocab: number;
    readonly tieWordEmbeddings: boolean;
    readonly bosTokenId: number | undefined;
    readonly eosTokenIds: readonly number[];
    readonly padTokenId: number | undefined;
  };
  /**
   * The token that stands for a picture, or for each of its rows, in texts; undefined where the tokenizer has none. May lie
   * beyond `text.vocab`: its rows come from the picture, never from the embedding.
   */
  readonly imageTokenId: number | undefined;
  /** Text of that token where the tokenizer of the checkpoint does not know it, as it is a placeholder of the family's own. */
  readonly addedImageToken?: string;
}

/** Patterns of tensor names as some version of a program wrote them, and what they become. The first that fits is taken. */
export type NameTable = ReadonlyArray<readonly [pattern: RegExp, canonical: string]>;

/** The canonical name of a tensor. */
export function canonicalName(table: NameTable, name: string): string {
  const found = table.find(([pattern]) => pattern.test(name));
  return found ? name.replace(found[0], found[1]) : name;
}

/** The graph from pixel values to visual embeddings. */
export interface VisionTower {
  /** How the names of its parts' tensors begin. */
  readonly parts: {
    /** what stands between the encoder and the decoder: a projector, a Q-Former, mergers */
    readonly connector: readonly string[];
    /** layers of the encoder that are used */
    readonly layers: number;
    layer(layer: number): string;
  };
  /** Whether several pictures run together, their values behind one another along the first axis. */
  readonly together: boolean;
  /**
   * Declares the graph's inputs. `visual` [rows of all pictures, hidden] in the decoder's order; `added` the features of the
   * rows that the decoder adds after its layers 0, 1, …, of the same shape.
   */
  build(graph: Graph, weight: Weights): { readonly visual: Tensor; readonly added: readonly Tensor[] };
  feeds(pictures: readonly Pixels[]): Record<string, Value>;
}

/** How a family writes prompts around a person's text. */
export interface PromptStyle {
  /** The papers' plain form of a text with `pictures` pictures before it. */
  plain(text: string, pictures: number, imageToken: string): string;
  /** The pictures come before all tokens, the beginning of the text included. */
  readonly picturesFirst?: boolean;
  /** The family was made for several pictures in one prompt. */
  readonly severalPictures?: boolean;
}

/** The tokens that a picture takes in the decoder's sequence. */
export interface ExpandedPicture {
  readonly ids: readonly number[];
  /** which of them, in order, become the picture's visual rows [layout.rows] */
  readonly visual: readonly number[];
}

/** A picture's place in a sequence of rows. */
export interface PlacedPicture {
  readonly layout: PictureLayout;
  /** its visual rows, in order */
  readonly rows: readonly number[];
}

/** A model of a family with one config, before its weights are touched. */
export interface Backbone {
  readonly decoder: Decoder;
  readonly vision: VisionTower;
  readonly prompts: PromptStyle;
  /** Whether the model's own processor writes token ids with all the tokens of a picture in them, as `lay` makes them. */
  readonly idsExpanded: boolean;
  /** Canonical name and shape of every weight the computation needs, in the order of computation. */
  tensors(): Map<string, number[]>;
  /**
   * Reads the folder's picture settings. `mostRows` lowers how many rows a picture may take, where that depends on its size.
   * Throws `damaged` or `unsupported` for settings that cannot be, `invalid-input` for a limit that no picture keeps.
   */
  openPictures(folder: string, mostRows?: number): Promise<PictureReader>;
  expand(layout: PictureLayout, tokenizer: Tokenizer): ExpandedPicture;
  /** Positions of a sequence of rows, and that of the row generated next. */
  positions(
    rows: number,
    pictures: readonly PlacedPicture[],
  ): { readonly positions: Positions; readonly next: number };
}

/** Parts of a model that are published apart, and lie in the folder of its language model. */
export interface PublishedParts {
  /** `model_type` of the language model */
  readonly beside: readonly string[];
  /** The config of the whole, from the language model's. */
  wholeConfig(languageModel: object): object;
  /** A tensor by which each part is known, by its canonical name, and what people call the part. */
  readonly parts: ReadonlyArray<readonly [tensor: string, part: string]>;
}

export interface Family<Config extends ModelConfig = ModelConfig> {
  /** the field's name for it, shown to people */
  readonly name: string;
  /** values of config.json's `model_type` */
  readonly modelTypes: readonly string[];
  readonly names: NameTable;
  /** How it is published where that is not one folder of its own: archives of PyTorch beside the files of a language model. */
  readonly inParts?: PublishedParts;
  /**
   * @param json the parsed config.json
   * @param origin named in errors
   * @throws EmendError 'unsupported' for parts that are not run, 'damaged' for sizes no model can have
   */
  parseConfig(json: unknown, origin: string): Config;
  /** The config of a checkpoint whose files hold a head of their own, or none. */
  withHead(config: Config, inFiles: boolean): Config;
  backbone(config: Config): Backbone;
}

/** A picture's rows as so many image tokens behind one another. */
export function imageTokens(layout: PictureLayout, imageTokenId: number | undefined): ExpandedPicture {
  return {
    ids: Array.from({ length: layout.rows }, () => imageTokenId ?? 0),
    visual: Array.from({ length: layout.rows }, (_, row) => row),
  };
}

/** Positions along one axis: a row's is its index. */
export function plainPositions(rows: number): { positions: Positions; next: number } {
  return { positions: consecutive(rows), next: rows };
}
