/**
 * @file Decides which edit of a library, if any, acts on an input: DualEdit's gate, generalised to many edits.
 * Compared at the last *prompt* token on both sides, never at a position that holds the answer.
 */
import type { Prefill, VisionLanguageModel } from '../models/visionLanguageModel.ts';
import { floatsOf } from '../tensor/session.ts';
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

/**
 * The unedited model's hidden state at an input's last prompt token, at a cut [hidden]. Layers above the edit layer know
 * better than it what is asked; what lies between is run once more for inputs on which an edit then acts.
 */
export async function routingRepresentation(
  model: VisionLanguageModel,
  prefill: Prefill,
  layer: number,
): Promise<Float32Array> {
  const hidden = await model.unedited(prefill, layer);
  const { lastPromptRow } = prefill.input;
  return (await floatsOf(hidden)).slice(lastPromptRow * model.hidden, (lastPromptRow + 1) * model.hidden);
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
 * representation: from `routingRepresentation`, at the layer the candidates' were taken from [hidden].
 */
export function route(
  representation: Float32Array,
  candidates: Iterable<Candidate>,
  threshold: number,
): Route {
  let closest: Candidate | null = null;
  let similarity: number | null = null;
  for (const candidate of candidates) {
    const value = cosine(representation, candidate.signal.routing);
    if (similarity === null || value > similarity) [closest, similarity] = [candidate, value];
  }
  // An input compared with itself may fall a rounding error short of 1.
  const acts = similarity !== null && similarity >= threshold - 1e-6;
  return { chosen: acts ? closest : null, closest, similarity };
}
