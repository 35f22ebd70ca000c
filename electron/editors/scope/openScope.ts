/**
 * @file The scope that goes with an adapter: the learned one where one was trained, DualEdit's cosine otherwise.
 */
import { type CosineSettings, cosineScope } from './cosine.ts';
import type { Scope } from './scope.ts';

export const scopeForms = ['learned', 'cosine'] as const;
export type ScopeForm = (typeof scopeForms)[number];

/** A scope whose cuts are known before the model is opened with them. */
export interface ScopeKind {
  readonly cuts: readonly number[];
  /** `width`: of the decoder's hidden states */
  open(width: number): Promise<Scope>;
}

/** Reads the scope of an adapter; `form`: the one asked for, or the best there is. */
export async function readScope(cosine: CosineSettings): Promise<ScopeKind> {
  return { cuts: [cosine.layer], open: async (width) => cosineScope(cosine, width) };
}
