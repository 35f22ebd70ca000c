/**
 * @file Second moments of an MLP's keys over texts: C = mean of k·kᵀ over all tokens (ROME, sec. 3.1; MEMIT, eq. 15).
 */
import { z } from 'zod';
import { EmendError } from '../errors.ts';
import { readRegularFile } from '../files/regularFile.ts';
import { decoderFrom, feedsFrom } from '../models/decoderPass.ts';
import type { VisionLanguageModel } from '../models/visionLanguageModel.ts';
import { observedWeights } from '../models/weights.ts';
import * as f from '../tensor/functions.ts';
import { floatsOf } from '../tensor/session.ts';
import { choleskyFactor, solveFactored } from './linearAlgebra.ts';
import type { Sessions } from './weightEditor.ts';

export class KeyMoments {
  readonly width: number;
  /** C [width, width] */
  readonly moments: Float64Array;
  readonly tokens: number;
  #factor: Float64Array | null | undefined;

  constructor(width: number, moments: Float64Array, tokens: number) {
    this.width = width;
    this.moments = moments;
    this.tokens = tokens;
  }

  /** C⁻¹·k. @throws EmendError 'invalid-input' where C cannot be inverted */
  solve(key: ArrayLike<number>): Float64Array {
    this.#factor ??= choleskyFactor(this.moments, this.width);
    if (this.#factor) return solveFactored(this.#factor, key);
    throw new EmendError(
      'invalid-input',
      `The covariance of keys over ${this.tokens} tokens cannot be inverted: keys have ${this.width} numbers. Give more and longer texts.`,
    );
  }
}

/** The setting that names a file of texts. */
export const textsSetting = (without: string) =>
  z
    .string()
    .max(4096)
    .default('')
    .meta({
      title: 'Texts',
      description: `File of texts, one a line, for the covariance of keys. Empty: ${without}.`,
      file: true,
    });

/** Covariances of layers over the texts of a file, each made once. */
export class TextMoments {
  readonly #path: string;
  readonly #over: (layer: number, sequences: readonly (readonly number[])[]) => Promise<KeyMoments>;
  readonly #model: VisionLanguageModel;
  readonly #made = new Map<number, Promise<KeyMoments>>();

  /** @param path '': there are none */
  constructor(
    path: string,
    model: VisionLanguageModel,
    over: (layer: number, sequences: readonly (readonly number[])[]) => Promise<KeyMoments>,
  ) {
    this.#path = path;
    this.#model = model;
    this.#over = over;
  }

  /** null without texts. @throws EmendError 'not-found', 'invalid-input' */
  async of(layer: number): Promise<KeyMoments | null> {
    const path = this.#path;
    if (path === '') return null;
    const make = async () => this.#over(layer, encodeTexts(this.#model, await readTexts(path)));
    const made = this.#made.get(layer) ?? make();
    this.#made.set(layer, made);
    return made;
  }
}

const LARGEST_FILE = 64 * 1024 * 1024;

/** Texts of a file, one a line. @throws EmendError 'not-found', 'invalid-input' */
export async function readTexts(path: string): Promise<string[]> {
  const lines = (await readRegularFile(path, LARGEST_FILE)).toString('utf8').split(/\r?\n/);
  const texts = lines.map((line) => line.trim()).filter((line) => line !== '');
  if (texts.length === 0) throw new EmendError('invalid-input', `${path} holds no text.`);
  return texts;
}

/** Token ids of texts as the decoder reads them, cut to its positions. */
export function encodeTexts(model: VisionLanguageModel, texts: readonly string[]): number[][] {
  return texts.map((text) =>
    model.tokenizer.encode(model.tokenizer.shield(text), { bos: true }).slice(0, model.decoder.positionLimit),
  );
}

/** Moments of the keys of a layer's MLP over token sequences. The model must be cut after layer `from − 1`; `from` ≤ layer. */
export async function keyMoments(
  model: VisionLanguageModel,
  sessions: Sessions,
  layer: number,
  from: number,
  sequences: readonly (readonly number[])[],
): Promise<KeyMoments> {
  const { decoder } = model;
  const { out, width } = decoder.mlp(layer);
  const session = await sessions.get(`moments of layer ${layer}`, (graph) => {
    const weights = observedWeights(decoder.weightsOf(graph), (name, x, given) => {
      if (name === out) {
        const keys = f.reshape(x, ['rows', width]);
        graph.output('moments', f.matmul(keys, keys, { a: true }));
      }
      return given;
    });
    decoderFrom(graph, decoder, from, weights, { last: layer });
  });
  const moments = new Float64Array(width * width);
  let tokens = 0;
  for (const ids of sequences) {
    const input = await model.layRows(ids, [], [], ids.length - 1);
    const sums = await floatsOf((await session.run(await feedsFrom(model, input, from)))['moments']!);
    for (let i = 0; i < sums.length; i++) moments[i]! += sums[i]!;
    tokens += ids.length;
  }
  for (let i = 0; i < moments.length; i++) moments[i]! /= tokens;
  return new KeyMoments(width, moments, tokens);
}
