/**
 * @file Asks laid out for the networks, as they are or disturbed for training.
 */
import type { Graph } from '../../../tensor/graph.ts';
import { float32, int64, type Value } from '../../../tensor/session.ts';
import { STEPS } from './features.ts';
import type { Asks, Pairs, ScopeShape } from './network.ts';

/** An ask by its picture [rows, width] and its question [question rows, width], as bytes of 32 a standard deviation. */
export interface AskRows {
  readonly picture: Int8Array;
  readonly question: Int8Array;
}

export const notSeen = -1e4;

/** Inputs of a graph that asks are fed to. `tokens`: rows of a question, symbolic in training. */
export function askInputs(graph: Graph, shape: ScopeShape): Asks {
  const { rows, pictureWidth, questionWidth } = shape;
  return {
    pictures: graph.input('pictures', 'float32', ['pictures', rows, pictureWidth]),
    pictureMask: graph.input('picture_mask', 'float32', ['pictures', 1, 1, rows]),
    questions: graph.input('questions', 'float32', ['questions', 'tokens', questionWidth]),
    questionMask: graph.input('question_mask', 'float32', ['questions', 1, 1, 'tokens']),
    pictureOf: graph.input('picture_of', 'int64', ['asks']),
    questionOf: graph.input('question_of', 'int64', ['asks']),
  };
}

export function pairInputs(graph: Graph): Pairs {
  return {
    input: graph.input('pair_input', 'int64', ['pairs']),
    edit: graph.input('pair_edit', 'int64', ['pairs']),
    reach: graph.input('pair_reach', 'float32', ['pairs', 2]),
  };
}

/** How examples are disturbed in training. */
export interface Disturbance {
  /** standard deviations of noise on every value */
  readonly noise: number;
  /** share of picture rows not seen */
  readonly masked: number;
  readonly uniform: () => number;
  /** normal numbers to draw noise from, at any place */
  readonly normals: Float32Array;
}

/**
 * Feeds of asks; the same picture or question is fed once. `tokens`: rows set aside for a question; as many as the longest has when
 * absent. With a disturbance every picture and question is disturbed on its own.
 */
export function feedAsks(
  asks: ReadonlyArray<{ readonly picture: number; readonly question: number }>,
  pictureOf: (place: number) => Int8Array,
  questionOf: (place: number) => Int8Array,
  shape: ScopeShape,
  options: { readonly tokens?: number; readonly disturbance?: Disturbance | null } = {},
): Record<string, Value> {
  const { rows, pictureWidth, questionWidth } = shape;
  const { disturbance } = options;
  const numbered = (places: readonly number[]) => {
    const known = new Map<number, number>();
    const order = places.map((place) => {
      const at = known.get(place) ?? known.size;
      known.set(place, at);
      return at;
    });
    return { order, distinct: [...known.keys()] };
  };
  const pictures = numbered(asks.map(({ picture }) => picture));
  const questions = numbered(asks.map(({ question }) => question));

  const size = rows * pictureWidth;
  const pictureData = new Float32Array(pictures.distinct.length * size);
  const pictureMask = new Float32Array(pictures.distinct.length * rows);
  for (const [at, place] of pictures.distinct.entries())
    fill(pictureData, at * size, pictureOf(place), disturbance);
  if (disturbance)
    for (let i = 0; i < pictureMask.length; i++)
      if (disturbance.uniform() < disturbance.masked) pictureMask[i] = notSeen;

  const sequences = questions.distinct.map(questionOf);
  const tokens = options.tokens ?? Math.max(1, ...sequences.map((rows) => rows.length / questionWidth));
  const questionData = new Float32Array(sequences.length * tokens * questionWidth);
  const questionMask = new Float32Array(sequences.length * tokens).fill(notSeen);
  sequences.forEach((sequence, at) => {
    // Longer ones keep their end.
    const kept = sequence.subarray(Math.max(0, sequence.length - tokens * questionWidth));
    fill(questionData, at * tokens * questionWidth, kept, disturbance);
    questionMask.fill(0, at * tokens, at * tokens + Math.max(1, kept.length / questionWidth));
  });
  return {
    pictures: float32(pictureData, [pictures.distinct.length, rows, pictureWidth]),
    picture_mask: float32(pictureMask, [pictures.distinct.length, 1, 1, rows]),
    questions: float32(questionData, [sequences.length, tokens, questionWidth]),
    question_mask: float32(questionMask, [sequences.length, 1, 1, tokens]),
    picture_of: int64(pictures.order, [asks.length]),
    question_of: int64(questions.order, [asks.length]),
  };
}

function fill(
  into: Float32Array,
  start: number,
  bytes: Int8Array,
  disturbance: Disturbance | null | undefined,
): void {
  if (!disturbance) {
    for (let i = 0; i < bytes.length; i++) into[start + i] = bytes[i]! / STEPS;
    return;
  }
  const { noise, normals, uniform } = disturbance;
  const from = Math.floor(uniform() * (normals.length - bytes.length));
  for (let i = 0; i < bytes.length; i++) into[start + i] = bytes[i]! / STEPS + noise * normals[from + i]!;
}

/** Dropout for hidden values [count, width]: 0, or 1/(1 − share). */
export function dropout(count: number, width: number, share: number, uniform: () => number): Value {
  const keep = 1 / (1 - share);
  const data = Float32Array.from({ length: count * width }, () => (uniform() < share ? 0 : keep));
  return float32(data, [count, width]);
}
