/**
 * @file What a learned scope sees of an input: rows of the picture and rows of the question, as the unedited model holds them,
 * projected once by principal components and kept as bytes.
 *
 * The picture: visual embeddings beside the visual rows after a middle layer. The question: token embeddings beside the rows after
 * a lower and the middle layer, read by the model without the picture. No row of a prompt that goes with a picture is looked at,
 * so none that holds the answer.
 */
import { EmendError } from '../../../errors.ts';
import type { Prefill, VisionLanguageModel } from '../../../models/visionLanguageModel.ts';
import * as f from '../../../tensor/functions.ts';
import { Graph } from '../../../tensor/graph.ts';
import { float32, floatsOf, Session } from '../../../tensor/session.ts';

/** Components kept of each input, where it has as many. */
export const COMPONENTS = 48;
/** Inputs of a picture row, and of a question row. */
export const PICTURE_INPUTS = ['visual.embedding', 'visual.middle'] as const;
export const QUESTION_INPUTS = ['question.embedding', 'question.low', 'question.middle'] as const;
export type InputName = (typeof PICTURE_INPUTS)[number] | (typeof QUESTION_INPUTS)[number];
/** Picture rows at most: more are averaged in their grid. */
const MAX_PICTURE_ROWS = 144;
/** Question rows at most: longer questions keep their end. */
export const MAX_QUESTION_ROWS = 48;
/** Steps of a byte per standard deviation. */
export const STEPS = 32;

/** Decoder layers after whose output it looks. */
export interface ScopeLayers {
  readonly low: number;
  readonly middle: number;
}

/** A quarter and a half of the way up. Throws `unsupported` for decoders of fewer than three layers. */
export function usualLayers(layers: number): ScopeLayers {
  const low = Math.max(0, Math.floor(layers / 4) - 1);
  const middle = Math.floor(layers / 2) - 1;
  if (middle <= low)
    throw new EmendError(
      'unsupported',
      `A decoder of ${layers} layers is too low for a learned scope. Use the cosine.`,
    );
  return { low, middle };
}

/** Rows [count, hidden] by input. */
export type RawRows = Readonly<Record<string, Float32Array>>;

/**
 * The prompt without what typing alone changes: letter case, spaces, and marks at the end. Questions that differ in these only are
 * one question.
 */
export function plainQuestion(prompt: string): string {
  const words = prompt
    .normalize('NFKC')
    .toLowerCase()
    .replace(/\s+/gu, ' ')
    .replace(/[\s?!.,;:…？！。]+$/u, '')
    .replace(/ (?=[?!.,;:])/gu, '')
    .trim();
  return words === '' ? '?' : `${words.charAt(0).toUpperCase()}${words.slice(1)}?`;
}

/** Visual rows of an input with a picture. The model is cut after the middle layer. */
export async function pictureRows(
  model: VisionLanguageModel,
  prefill: Prefill,
  layers: ScopeLayers,
): Promise<RawRows> {
  const width = model.hidden;
  const { imageRows, grid } = prefill.input;
  const part = (rows: Float32Array) => {
    const found = new Float32Array(imageRows!.length * width);
    for (const [at, row] of imageRows!.entries())
      found.set(rows.subarray(row * width, (row + 1) * width), at * width);
    return pooled(found, width, grid?.width ?? 1);
  };
  return {
    'visual.embedding': part(await floatsOf(prefill.input.embeddings)),
    'visual.middle': part(await floatsOf(await model.unedited(prefill, layers.middle))),
  };
}

/** Rows of a question that is read without its picture. The model is cut after both layers. */
export async function questionRows(
  model: VisionLanguageModel,
  prompt: string,
  layers: ScopeLayers,
): Promise<RawRows> {
  const encoded = model.prompts.encodePrompt({ prompt: plainQuestion(prompt), image: false });
  const prefill = await model.prefill(await model.lay(encoded, null), []);
  const part = (rows: Float32Array) => rows.slice(-MAX_QUESTION_ROWS * model.hidden);
  return {
    'question.embedding': part(await floatsOf(prefill.input.embeddings)),
    'question.low': part(await floatsOf(await model.unedited(prefill, layers.low))),
    'question.middle': part(await floatsOf(await model.unedited(prefill, layers.middle))),
  };
}

/**
 * Rows [count, width] averaged to at most 144: in squares of their grid, row by row, or one after another in a grid of one column.
 */
export function pooled(rows: Float32Array, width: number, columns: number): Float32Array {
  const count = rows.length / width;
  if (count <= MAX_PICTURE_ROWS) return rows.slice();
  let factor = 1;
  const across = () => (columns > 1 ? Math.ceil(columns / factor) : 1);
  const down = () => Math.ceil(Math.ceil(count / columns) / factor);
  while (across() * down() > MAX_PICTURE_ROWS) factor++;
  const out = new Float32Array(across() * down() * width);
  const members = new Float32Array(across() * down());
  for (let row = 0; row < count; row++) {
    const cell =
      Math.floor(Math.floor(row / columns) / factor) * across() + Math.floor((row % columns) / factor);
    members[cell]!++;
    for (let i = 0; i < width; i++) out[cell * width + i]! += rows[row * width + i]!;
  }
  for (let i = 0; i < out.length; i++) out[i]! /= members[Math.floor(i / width)]!;
  return out;
}

/** Mean and leading principal directions of one input, each direction divided by the standard deviation along it. */
export interface Projection {
  /** [hidden] */
  readonly mean: Float32Array;
  /** [hidden, components] */
  readonly directions: Float32Array;
}

/** Projects and rounds rows. */
export class Projector {
  readonly #session: Session;
  readonly #hidden: number;

  private constructor(session: Session, hidden: number) {
    this.#session = session;
    this.#hidden = hidden;
  }

  static async create(
    projections: Readonly<Record<InputName, Projection>>,
    hidden: number,
    components: number,
  ): Promise<Projector> {
    const graph = new Graph();
    for (const [kind, names] of [
      ['picture', PICTURE_INPUTS],
      ['question', QUESTION_INPUTS],
    ] as const) {
      const parts = names.map((name) => {
        const { mean, directions } = projections[name];
        const centred = f.subtract(
          graph.input(name, 'float32', [kind, hidden]),
          graph.constant(mean, [hidden]),
        );
        return f.matmul(centred, graph.constant(directions, [hidden, components]));
      });
      graph.output(kind, f.concat(parts, 1));
    }
    return new Projector(await Session.create(graph, { providers: ['cpu'], threads: 1 }), hidden);
  }

  /** Rows of a picture and a question → bytes, 32 a standard deviation [rows, width] each. Either may be null: nothing comes of it. */
  async project(
    picture: RawRows | null,
    question: RawRows | null,
  ): Promise<{ picture: Int8Array; question: Int8Array }> {
    const feeds = Object.fromEntries(
      [
        ...PICTURE_INPUTS.map((name) => [name, picture] as const),
        ...QUESTION_INPUTS.map((name) => [name, question] as const),
      ].map(([name, rows]) => {
        const data = rows?.[name] ?? new Float32Array(0);
        return [name, float32(data, [data.length / this.#hidden, this.#hidden])];
      }),
    );
    const out = await this.#session.run(feeds);
    return {
      picture: rounded(await floatsOf(out['picture']!)),
      question: rounded(await floatsOf(out['question']!)),
    };
  }

  async dispose(): Promise<void> {
    await this.#session.dispose();
  }
}

function rounded(values: Float32Array): Int8Array {
  return Int8Array.from(values, (value) => Math.max(-127, Math.min(127, Math.round(value * STEPS))));
}

/**
 * Principal components of rows [count, hidden], by subspace iteration on the covariance. Deterministic.
 * `kept`: share of the variance along the directions, 0..1.
 */
export async function principalComponents(
  rows: Float32Array,
  hidden: number,
  components: number,
): Promise<Projection & { readonly kept: number }> {
  const count = rows.length / hidden;
  const mean = new Float32Array(hidden);
  for (let i = 0; i < rows.length; i++) mean[i % hidden]! += rows[i]! / count;
  const centred = rows.map((value, i) => value - mean[i % hidden]!);
  let total = 0;
  for (const value of centred) total += value * value;

  const graph = new Graph();
  const x = graph.input('x', 'float32', ['count', hidden]);
  const q = graph.input('q', 'float32', [hidden, components]);
  graph.output('next', f.matmul(f.transpose(x, [1, 0]), f.matmul(x, q)));
  const session = await Session.create(graph, { providers: ['cpu'], threads: 1 });
  try {
    let directions = new Float32Array(hidden * components);
    let state = 1;
    for (let i = 0; i < directions.length; i++) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      directions[i] = state / 2 ** 32 - 0.5;
    }
    const data = float32(centred, [count, hidden]);
    let variances = new Float32Array(components);
    for (let round = 0; round < 25; round++) {
      orthonormalise(directions, hidden, components);
      const next = await floatsOf(
        (await session.run({ x: data, q: float32(directions, [hidden, components]) }))['next']!,
      );
      variances = Float32Array.from({ length: components }, (_, column) => {
        let dot = 0;
        for (let i = 0; i < hidden; i++)
          dot += directions[i * components + column]! * next[i * components + column]!;
        return dot;
      });
      if (round < 24) directions = next.slice();
    }
    // Directions along which nothing varies would divide by nothing.
    const least = Math.max(...variances, 1e-12) * 1e-6;
    for (let column = 0; column < components; column++) {
      const deviation = Math.sqrt(Math.max(variances[column]!, least) / count);
      for (let i = 0; i < hidden; i++) directions[i * components + column]! /= deviation;
    }
    return { mean, directions, kept: total > 0 ? variances.reduce((a, b) => a + b, 0) / total : 1 };
  } finally {
    await session.dispose();
  }
}

/** Gram–Schmidt on the columns, twice for accuracy. */
function orthonormalise(matrix: Float32Array, rows: number, columns: number): void {
  for (let column = 0; column < columns; column++) {
    for (let pass = 0; pass < 2; pass++) {
      for (let other = 0; other < column; other++) {
        let dot = 0;
        for (let i = 0; i < rows; i++) dot += matrix[i * columns + column]! * matrix[i * columns + other]!;
        for (let i = 0; i < rows; i++) matrix[i * columns + column]! -= dot * matrix[i * columns + other]!;
      }
    }
    let square = 0;
    for (let i = 0; i < rows; i++) square += matrix[i * columns + column]! ** 2;
    const scale = square > 0 ? 1 / Math.sqrt(square) : 0;
    for (let i = 0; i < rows; i++) matrix[i * columns + column]! *= scale;
  }
}
