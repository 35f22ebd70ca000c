/**
 * @file Decides which edit of a library, if any, acts on an input: DualEdit's gate, generalised to many edits.
 * Compared at the last *prompt* token on both sides, never at a position that holds the answer.
 */
import type { EditSignal } from './editor.ts';

/** Cosine similarity of two vectors; 0 when one of them is zero. */
export function cosine(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let [dot, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    dot += a[i]! * b[i]!;
    aa += a[i]! * a[i]!;
    bb += b[i]! * b[i]!;
  }
  return aa > 0 && bb > 0 ? dot / Math.sqrt(aa * bb) : 0;
}

/** The row of hidden states [rows, hidden] at the last prompt token. */
export function lastPromptToken(hidden: Float32Array, row: number, width: number): Float32Array {
  return hidden.subarray(row * width, (row + 1) * width);
}

export interface Candidate {
  readonly id: number;
  readonly signal: EditSignal;
}

export interface Route {
  /** the candidate that acts; null when none reaches the threshold */
  readonly chosen: Candidate | null;
  /** the most similar one, acting or not */
  readonly closest: Candidate | null;
  readonly similarity: number | null;
}

/**
 * The most similar candidate, acting when it reaches the threshold; of equals the first.
 * representation: the input's hidden state at the last prompt token, at the layer the signals were taken from [hidden].
 */
export function route(
  representation: Float32Array,
  candidates: Iterable<Candidate>,
  threshold: number,
): Route {
  let closest: Candidate | null = null;
  let similarity: number | null = null;
  for (const candidate of candidates) {
    const { hidden, lastPromptRow } = candidate.signal;
    const value = cosine(representation, lastPromptToken(hidden, lastPromptRow, representation.length));
    if (similarity === null || value > similarity) [closest, similarity] = [candidate, value];
  }
  // An input compared with itself may fall a rounding error short of 1.
  const acts = similarity !== null && similarity >= threshold - 1e-6;
  return { chosen: acts ? closest : null, closest, similarity };
}
