/**
 * @file Answers, token by token: greedy or sampled, with the alternatives of every token.
 */
import { EmendError } from '../errors.ts';
import { floatsOf } from '../tensor/session.ts';
import { AnswerText } from './answerText.ts';
import { releaseCaches } from './decoderSegment.ts';
import type { Adapt, AdaptNext, Prefill, VisionLanguageModel, WeightChanges } from './visionLanguageModel.ts';

export interface Sampling {
  /** 0 is greedy */
  readonly temperature: number;
  /** least mass of the most probable tokens to sample from, 0..1 */
  readonly topP: number;
  readonly seed: number;
}

export interface GenerationOptions {
  readonly maxNewTokens: number;
  /** absent: greedy */
  readonly sampling?: Sampling | null;
  /** alternatives kept for every token */
  readonly alternatives?: number;
  readonly adapt?: Adapt;
  /** changes each generated token's hidden states; absent: it sees an edit of the prompt's rows through the cache */
  readonly adaptNext?: AdaptNext;
  /** changes of linear layers above the first cut; those of the prefill where absent */
  readonly changes?: WeightChanges;
  /** texts before which the answer ends; they are no part of it */
  readonly stop?: readonly string[];
  /**
   * Every token of the answer as it comes; not the stop token, which is no part of it. `text`: what is certain of the answer's text by
   * now and was not told before; what is told in all is how the whole begins.
   */
  readonly onToken?: (token: GeneratedToken, text: string) => void;
  readonly signal?: AbortSignal;
}

export interface TokenChoice {
  readonly id: number;
  readonly text: string;
  /** of the unmodified distribution, whatever the sampling */
  readonly probability: number;
}

export interface GeneratedToken extends TokenChoice {
  /** most probable first; holds the token itself when it is among them */
  readonly alternatives: readonly TokenChoice[];
}

export interface Generation {
  /** without the stop token */
  readonly ids: readonly number[];
  readonly text: string;
  /** with the stop token, when there was one: its probability says how sure the end was */
  readonly tokens: readonly GeneratedToken[];
  readonly ended: 'stop-token' | 'stop-text' | 'length';
}

/** Softmax in double precision. */
export function probabilities(logits: ArrayLike<number>): Float64Array {
  let top = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < logits.length; i++) top = Math.max(top, logits[i]!);
  const out = new Float64Array(logits.length);
  let sum = 0;
  for (let i = 0; i < out.length; i++) sum += out[i] = Math.exp(logits[i]! - top);
  for (let i = 0; i < out.length; i++) out[i]! /= sum;
  return out;
}

/** Index of the largest value; the first of equals. */
export function argmax(values: ArrayLike<number>): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i;
  return best;
}

function largest(values: Float64Array, count: number): number[] {
  const found: number[] = [];
  for (let i = 0; i < values.length; i++) {
    if (found.length === count && values[i]! <= values[found[count - 1]!]!) continue;
    let at = found.length;
    while (at > 0 && values[found[at - 1]!]! < values[i]!) at--;
    found.splice(at, 0, i);
    if (found.length > count) found.pop();
  }
  return found;
}

/** Reproducible uniform numbers (mulberry32). */
function uniform(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

function sample(logits: Float32Array, { temperature, topP }: Sampling, random: () => number): number {
  const p = probabilities(logits.map((value) => value / temperature));
  const order = Array.from(p.keys()).sort((a, b) => p[b]! - p[a]!);
  let kept = 0;
  let mass = 0;
  while (kept < order.length && (kept === 0 || mass < topP)) mass += p[order[kept++]!]!;
  let left = random() * mass;
  for (let i = 0; i < kept; i++) {
    left -= p[order[i]!]!;
    if (left <= 0) return order[i]!;
  }
  return order[kept - 1]!;
}

/**
 * Answers from a prefilled prompt. With `adapt` an edit acts on the prompt's rows, with `adaptNext` on each generated token's own.
 * Throws `cancelled` when the signal is aborted; it is looked at before every token.
 */
export async function generate(
  model: VisionLanguageModel,
  prefill: Prefill,
  options: GenerationOptions,
): Promise<Generation> {
  const {
    maxNewTokens,
    sampling,
    alternatives = 5,
    stop = [],
    adapt,
    adaptNext,
    changes = prefill.changes,
    onToken,
    signal,
  } = options;
  const random = uniform(sampling?.seed ?? 0);
  const tokens: GeneratedToken[] = [];
  const ids: number[] = [];
  const choice = (id: number, probability: number): TokenChoice => ({
    id,
    text: model.tokenizer.tokenText(id),
    probability,
  });

  // The last token takes no row of its own.
  const room = model.decoder.positionLimit - prefill.input.rows + 1;
  const limit = Math.min(maxNewTokens, Math.max(0, room));
  let { logits, caches } = await model.finish(prefill, [prefill.input.rows - 1], adapt, changes);
  let ended: Generation['ended'] = 'length';
  const stream = model.tokenizer.decodeStream();
  const written = new AnswerText(stop);
  while (tokens.length < limit) {
    if (signal?.aborted) throw new EmendError('cancelled', 'Generation was stopped.');
    const scores = await floatsOf(logits);
    const p = probabilities(scores);
    const id = sampling && sampling.temperature > 0 ? sample(scores, sampling, random) : argmax(scores);
    const token = {
      ...choice(id, p[id]!),
      alternatives: largest(p, alternatives).map((other) => choice(other, p[other]!)),
    };
    tokens.push(token);
    if (model.stopIds.has(id)) {
      ended = 'stop-token';
      break;
    }
    ids.push(id);
    onToken?.(token, written.add(stream.push(id)));
    if (written.stopped) {
      ended = 'stop-text';
      break;
    }
    if (tokens.length === limit) break;
    const before = caches;
    ({ logits, caches } = await model.next(id, caches, changes, adaptNext));
    // The prompt's may be shared with other answers; those of tokens are this answer's own.
    if (ids.length > 1) releaseCaches(before);
    // Sessions block the thread; this lets a cancel message in.
    await new Promise((resolve) => setImmediate(resolve));
  }
  const text = written.stopped ? written.text : model.tokenizer.decode(ids).trim();
  if (ids.length > 1) releaseCaches(caches);
  return { ids, text, tokens, ended };
}
