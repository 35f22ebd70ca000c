/**
 * @file DualEdit's gate as a scope: cosine similarity of the unedited model's hidden states at the last prompt token, at one layer.
 * Edits of either reach are compared alike: the published form knows no reach.
 */
import { createHash } from 'node:crypto';
import { EmendError } from '../../errors.ts';
import type { Prefill, VisionLanguageModel } from '../../models/visionLanguageModel.ts';
import { floatsOf } from '../../tensor/session.ts';
import { quantiseKey } from './keyBank.ts';
import type { Scope, ScopeInput } from './scope.ts';

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

/** Log odds of (1 + cosine)/2, which is 2·artanh(cosine); rises with the cosine, finite for an input compared with itself. */
export function cosineScore(similarity: number): number {
  const nearest = 1 - 1e-6;
  return Math.fround(2 * Math.atanh(Math.min(nearest, Math.max(-nearest, similarity))));
}

/**
 * The unedited model's hidden state at an input's last prompt token, at a cut [hidden]. Never at a position that holds the answer:
 * it is not there when a person asks.
 */
export async function lastPromptToken(
  model: VisionLanguageModel,
  prefill: Prefill,
  layer: number,
): Promise<Float32Array> {
  const hidden = await model.unedited(prefill, layer);
  const { lastPromptRow } = prefill.input;
  return (await floatsOf(hidden)).slice(lastPromptRow * model.hidden, (lastPromptRow + 1) * model.hidden);
}

export interface CosineSettings {
  /** decoder layer whose output is compared, from 0 */
  readonly layer: number;
  /** cosine similarity from which an edit acts, whatever the library's size */
  readonly threshold: number;
}

/** `width`: of the decoder's hidden states. */
export function cosineScope({ layer, threshold }: CosineSettings, width: number): Scope {
  // An input compared with itself may fall a rounding error short of 1.
  const least = cosineScore(threshold - 1e-6);
  return {
    form: 'cosine',
    fingerprint: createHash('sha256').update(`cosine ${layer} ${threshold}`).digest('hex'),
    keyWidth: width,
    candidates: 8,
    cuts: [layer],
    curve: [],
    async describe(model, prefill): Promise<ScopeInput | null> {
      if (!prefill.input.imageRows) return null;
      const state = await lastPromptToken(model, prefill, layer);
      const key = quantiseKey(state);
      return {
        key,
        editKeys: { picture: key, thing: key },
        detail: new Uint8Array(state.buffer, state.byteOffset, state.byteLength),
      };
    },
    async score(input, edits) {
      const state = statesOf(input, width);
      return Float32Array.from(edits, ({ detail }) => cosineScore(cosine(state, statesOf(detail, width))));
    },
    threshold: () => least,
    async dispose() {},
  };
}

function statesOf(detail: Uint8Array, width: number): Float32Array {
  if (detail.byteLength !== 4 * width)
    throw new EmendError('damaged', 'What the scope kept of an edit does not belong to this model.');
  // Bytes from a database lie at any offset.
  return new Float32Array(new Uint8Array(detail).buffer);
}
