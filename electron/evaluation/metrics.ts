/**
 * @file The metrics of model editing for one edit, each told twice: teacher-forced token accuracy as the papers report it,
 * and exact match of free generation, which is what a person sees.
 */
import type { EditedModel } from '../editors/editedModel.ts';
import type { EditState, Effect } from '../editors/editor.ts';
import { type Asked, askedRows, askQuestion, prefillUnder } from '../editors/question.ts';
import { actsEverywhere } from '../editors/scope/everywhere.ts';
import { MemoryBank } from '../editors/scope/memoryBank.ts';
import type { EditBank, Reach } from '../editors/scope/scope.ts';
import { EmendError } from '../errors.ts';
import { argmax, type Generation } from '../models/generation.ts';
import type { Visual } from '../models/picture.ts';
import type { VisionLanguageModel } from '../models/visionLanguageModel.ts';
import { floatsOf } from '../tensor/session.ts';
import { sameAnswer } from './exactMatch.ts';

/** The five of the papers. "Image" is what they also call "modal". */
export const paperMetrics = [
  'reliability',
  'textGenerality',
  'imageGenerality',
  'textLocality',
  'imageLocality',
] as const;
/** Where an editor of visual rows leaks, which no published metric looks at. */
export const leakMetrics = ['samePicture', 'sameQuestion'] as const;
/** Questions that an edit's knowledge answers, which some sets ask: MMKE-Bench's T-Rel and I-Rel, VLKEB's portability. */
export const knowledgeMetrics = ['textReliability', 'imageReliability', 'portability'] as const;
export const metricNames = [...paperMetrics, ...leakMetrics, ...knowledgeMetrics] as const;
export type Metric = (typeof metricNames)[number];

/** Prompt and target laid out for teacher forcing, run up to the edit layer once for before and after. */
export interface Forced extends Asked {
  /** without an end token */
  readonly targetIds: readonly number[];
}

/** The model's reading of a target that is given to it token by token. */
export interface Reading {
  /** the model's own choice at each of the target's positions */
  readonly argmax: readonly number[];
  /** share of the target's tokens that are the model's own choice, 0..1 */
  readonly accuracy: number;
  /** mean negative log-likelihood of the target's tokens, in nats */
  readonly nll: number;
}

/** visual: the picture's embeddings, or null for text alone. Throws `invalid-input` for an empty target. */
export async function forceTarget(
  model: VisionLanguageModel,
  visual: Visual | null,
  prompt: string,
  target: string,
): Promise<Forced> {
  return askQuestion(model, { prompt, visual }, target);
}

/** Reads the target with the part of the model above the edit layer, edited or not. */
export async function readForced(
  model: VisionLanguageModel,
  forced: Forced,
  effect: Effect = {},
): Promise<Reading> {
  const { targetIds } = forced;
  const prefill = await prefillUnder(model, forced, effect);
  // The row of a token holds the choice of the token after it.
  const rows = askedRows(prefill.input, targetIds);
  const own = await floatsOf((await model.finish(prefill, rows, effect.rows, effect.weights)).logits);
  const { question, target } = forced;
  const logits = (await effect.answer?.read(question, target ?? '', own)) ?? own;
  const width = logits.length / rows.length;
  const chosen: number[] = [];
  let nll = 0;
  for (const [place, target] of targetIds.entries()) {
    const scores = logits.subarray(place * width, (place + 1) * width);
    chosen.push(argmax(scores));
    nll -= logProbability(scores, target);
  }
  return { argmax: chosen, accuracy: shareEqual(chosen, targetIds), nll: nll / rows.length };
}

/** Locality as the papers score it: share of the target's positions at which the model's choice is what it was. */
export function unchangedShare(before: Reading, after: Reading): number {
  return shareEqual(before.argmax, after.argmax);
}

function shareEqual(one: readonly number[], other: readonly number[]): number {
  return one.filter((id, place) => id === other[place]).length / one.length;
}

function logProbability(logits: Float32Array, id: number): number {
  const top = logits.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  let sum = 0;
  for (const value of logits) sum += Math.exp(value - top);
  return logits[id]! - top - Math.log(sum);
}

/** A prompt with the answer it is judged by. Pictures are visual embeddings [visual tokens, hidden]. */
export interface ProbeInput {
  readonly visual: Visual | null;
  readonly prompt: string;
  /** null: the edit's target where the answer must change, else whatever the unedited model answers */
  readonly answer: string | null;
  /** name of the picture */
  readonly picture?: string | null;
}

/** One edit and the inputs it is measured on. */
export interface EditCase {
  readonly visual: Visual;
  readonly prompt: string;
  readonly target: string;
  /** name of its picture */
  readonly picture?: string | null;
  /** inputs of every metric but reliability, which is the edit itself; none where there are none */
  readonly probes: Readonly<Partial<Record<Metric, readonly ProbeInput[]>>>;
}

/** What came of one input. */
export interface Measurement {
  readonly picture: string | null;
  readonly prompt: string;
  /** the answer it is judged by in teacher forcing */
  readonly expected: string;
  readonly before: string;
  readonly after: string;
  /** whether the scope let the edit act; always without the scope, even where the editor then changes nothing */
  readonly acted: boolean;
  /** the scope's logit; null when it is off or has nothing to compare */
  readonly score: number | null;
  /** 0..1; null when the unedited model answers nothing that could be forced */
  readonly teacherForced: number | null;
  readonly exactMatch: boolean;
}

export interface MeasureOptions {
  /** let the scope decide whether the edit acts; off is the papers' setting */
  readonly scoped: boolean;
  readonly reach: Reach;
  readonly maxNewTokens: number;
  readonly signal?: AbortSignal;
  /** is told of the edit once it is made, and how long that took */
  readonly onMade?: (state: EditState, seconds: number) => void;
}

/**
 * Measures one edit alone, as the papers' single-edit setting does: the inputs of every metric, none where the edit has no probe for it.
 * Throws `cancelled` when the signal is aborted, `conflict` without an adapter.
 */
export async function measureEdit(
  edited: EditedModel,
  edit: EditCase,
  options: MeasureOptions,
): Promise<Record<Metric, Measurement[]>> {
  const { editor } = edited;
  if (!editor) throw new EmendError('conflict', 'Nothing can be measured without an adapter. Give one.');
  const { visual, prompt, target } = edit;
  const everywhere = edited.scope !== null && actsEverywhere(edited.scope);
  const begun = performance.now();
  const state = await edited.make(
    { visual, prompt, target },
    { ...(options.signal && { signal: options.signal }) },
  );
  options.onMade?.(state, (performance.now() - begun) / 1000);
  const bank = options.scoped && !everywhere ? await bankOfOne(edited, edit, options.reach) : null;
  const acting = { state, bank };
  const measured = Object.fromEntries(metricNames.map((metric) => [metric, []])) as unknown as Record<
    Metric,
    Measurement[]
  >;
  for (const metric of metricNames) {
    const inputs: readonly ProbeInput[] =
      metric === 'reliability'
        ? [{ visual, prompt, answer: target, picture: edit.picture ?? null }]
        : (edit.probes[metric] ?? []);
    const stays = staysUnder(metric);
    for (const input of inputs) {
      const judged = stays ? input : { ...input, answer: input.answer ?? target };
      measured[metric].push(await measure(edited, acting, judged, stays ? 'stays' : 'changes', options));
    }
  }
  return measured;
}

const staying: ReadonlySet<Metric> = new Set(['textLocality', 'imageLocality', ...leakMetrics]);

/** Whether a metric asks for answers to stay as they were. */
export const staysUnder = (metric: Metric): boolean => staying.has(metric);

/** The edit alone, as the scope compares it. */
async function bankOfOne(edited: EditedModel, edit: EditCase, reach: Reach): Promise<EditBank> {
  if (!edited.scope)
    throw new EmendError('conflict', 'Without a scope nothing decides where an edit acts. Open one.');
  const bank = new MemoryBank(edited.scope.keyWidth);
  const described = await edited.describe(await edited.prepare(edit.visual, edit.prompt));
  if (described) bank.add(1, reach, described);
  return bank;
}

async function measure(
  edited: EditedModel,
  { state, bank }: { state: EditState; bank: EditBank | null },
  { visual, prompt, answer, picture = null }: ProbeInput,
  must: 'changes' | 'stays',
  options: MeasureOptions,
): Promise<Measurement> {
  const prepared = await edited.prepare(visual, prompt);
  const decision = bank && (await edited.decide(prepared, bank));
  const acts = decision ? decision.acting !== null : true;
  const before = await generate([]);
  const after = acts ? await generate([state]) : before;
  const expected = answer ?? before.text;
  return {
    picture,
    prompt,
    expected,
    before: before.text,
    after: after.text,
    acted: acts,
    score: decision?.matches[0]?.score ?? null,
    teacherForced: expected.trim() === '' ? null : await forcedScore(expected),
    exactMatch: sameAnswer(after.text, must === 'changes' ? expected : before.text),
  };

  function generate(by: readonly EditState[]): Promise<Generation> {
    const { maxNewTokens, signal: stop } = options;
    return edited.answer(prepared, by, { maxNewTokens, ...(stop && { signal: stop }), alternatives: 1 });
  }

  async function forcedScore(target: string): Promise<number> {
    const { model } = edited;
    const forced = await forceTarget(model, visual, prompt, target);
    const effect = edited.effect(acts ? [state] : []);
    if (must === 'changes') return (await readForced(model, forced, effect)).accuracy;
    const unedited = await readForced(model, forced);
    return acts ? unchangedShare(unedited, await readForced(model, forced, effect)) : 1;
  }
}
