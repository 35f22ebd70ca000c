/**
 * @file What decides where an edit acts: a short key for recall over all edits, then a scorer that sees both sides for the best few.
 * Pure decisions; forms of scopes lie beside this file.
 */
import type { Prefill, VisionLanguageModel } from '../../models/visionLanguageModel.ts';

/**
 * How far an edit goes: `picture`, the edit's own picture and its like (restyled, cropped, another shot of the scene); `thing`,
 * wherever the thing it is about is shown and the same is asked about it.
 */
export const reaches = ['picture', 'thing'] as const;
export type Reach = (typeof reaches)[number];

/** What a scope keeps of an input (picture and prompt): made by the unedited model alone, so it holds whatever is committed. */
export interface ScopeInput {
  /** unit key of the input when it is asked, times 127 [keyWidth]; similarity is the dot product over 127² */
  readonly key: Int8Array;
  /** unit key of the input as an edit of each reach, times 127 [keyWidth] */
  readonly editKeys: Readonly<Record<Reach, Int8Array>>;
  /** what the scorer reads, encoded; some kilobytes, kept in the library and read when it is scored */
  readonly detail: Uint8Array;
}

/** A committed edit that came near an input. */
export interface Match {
  readonly edit: number;
  readonly reach: Reach;
  /** of the keys, −1..1 */
  readonly similarity: number;
  /** the scorer's logit */
  readonly score: number;
}

export interface Decision {
  /** the match whose edit acts; null when none does */
  readonly acting: Match | null;
  /** the best by key, scored, best margin first */
  readonly matches: readonly Match[];
}

/** A point of a scope's calibration: how often edits acted rightly and harmfully in a library of so many, on held-out inputs. */
export interface CurvePoint {
  /** committed edits */
  readonly edits: number;
  readonly reach: Reach;
  /** the logit from which an edit acts there */
  readonly threshold: number;
  /** share of inputs in an edit's reach on which it, or one with the same target, acts, 0..1 */
  readonly right: number;
  /** share of inputs out of every edit's reach on which one acts all the same, 0..1 */
  readonly harm: number;
}

/** One form of scope, opened beside a model. Every number it gives depends on model, scope and input alone. */
export interface Scope {
  readonly form: 'learned' | 'cosine' | 'everywhere' | 'own';
  /** changes when descriptions, scores or thresholds would */
  readonly fingerprint: string;
  readonly keyWidth: number;
  /** how many edits, the best by key, are scored for an input; 0: all act, and none is compared */
  readonly candidates: number;
  /** decoder layers after whose output it looks; the model is opened with these cuts */
  readonly cuts: readonly number[];
  /** what was measured at sizes of a library when it was calibrated; empty where it was not */
  readonly curve: readonly CurvePoint[];
  /** Describes an input, its prompt as asked; null for inputs no edit can act on, such as those without a picture. */
  describe(model: VisionLanguageModel, prefill: Prefill, prompt: string): Promise<ScopeInput | null>;
  /** Logits of edits acting on an input [edits]; details are those of `ScopeInput`. */
  score(
    input: Uint8Array,
    edits: readonly { readonly detail: Uint8Array; readonly reach: Reach }[],
  ): Promise<Float32Array>;
  /** The logit from which an edit of this reach acts in a library of so many committed edits; never falls as the library grows. */
  threshold(committed: number, reach: Reach): number;
  dispose(): Promise<void>;
}

/** Committed edits as a scope needs them, wherever they are kept. */
export interface EditBank {
  /** number of committed edits */
  readonly size: number;
  /** The `count` edits whose keys are most similar to a key, best first; of equals the smaller id first. */
  nearest(key: Int8Array, count: number): readonly { readonly edit: number; readonly similarity: number }[];
  entry(edit: number): { readonly reach: Reach; readonly detail: Uint8Array };
}

/** Scores the candidates of an input and decides which acts. */
export async function decide(scope: Scope, input: ScopeInput, bank: EditBank): Promise<Decision> {
  const near = bank.nearest(input.key, scope.candidates);
  if (near.length === 0) return { acting: null, matches: [] };
  const entries = near.map(({ edit }) => bank.entry(edit));
  const scores = await scope.score(input.detail, entries);
  return judge(
    scope,
    bank.size,
    near.map((match, index) => ({ ...match, reach: entries[index]!.reach, score: scores[index]! })),
  );
}

/**
 * Which of the scored matches acts in a library of so many committed edits: the one that lies furthest above the threshold of its
 * reach, of equals the smaller id; none where none reaches it.
 */
export function judge(
  scope: Pick<Scope, 'threshold'>,
  committed: number,
  matches: readonly Match[],
): Decision {
  const margin = ({ score, reach }: Match) => score - scope.threshold(committed, reach);
  const ordered = matches.toSorted((a, b) => margin(b) - margin(a) || a.edit - b.edit);
  const best = ordered[0];
  return { acting: best && margin(best) >= 0 ? best : null, matches: ordered };
}
