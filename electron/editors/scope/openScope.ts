/**
 * @file The scope that goes with an adapter: the learned one where one was trained, DualEdit's cosine otherwise.
 */
import { EmendError } from '../../errors.ts';
import { type CosineSettings, cosineScope } from './cosine.ts';
import { cutsOfScope, LearnedScope } from './learned/learnedScope.ts';
import { readScopeFiles } from './learned/scopeFile.ts';
import type { Scope } from './scope.ts';

export const scopeForms = ['learned', 'cosine'] as const;
export type ScopeForm = (typeof scopeForms)[number];

/** A scope whose cuts are known before the model is opened with them. */
export interface ScopeKind {
  readonly cuts: readonly number[];
  /** `width`: of the decoder's hidden states */
  open(width: number): Promise<Scope>;
}

/**
 * Reads the scope of an adapter folder; null: there is no folder where one could lie. `form`: the one asked for; the learned one where it is there and was trained on this model,
 * else the cosine, when absent. Throws `not-found` when a learned scope is asked for and there is none for this model.
 */
export async function readScope(
  folder: string | null,
  adapter: { readonly cosine: CosineSettings; readonly model: string },
  form?: ScopeForm,
): Promise<ScopeKind> {
  const files = form === 'cosine' || folder === null ? null : await readScopeFiles(folder);
  if (files && files.description.model === adapter.model)
    return { cuts: cutsOfScope(files), open: (width) => LearnedScope.open(files, width) };
  if (form === 'learned')
    throw new EmendError(
      'not-found',
      `There is no scope that was trained for this model${folder === null ? '' : ` in ${folder}`}. Train one with "emend train scope", or use the cosine.`,
    );
  const { cosine } = adapter;
  return { cuts: [cosine.layer], open: async (width) => cosineScope(cosine, width) };
}

/** Whether a learned scope lies in a folder. */
export async function hasScope(folder: string): Promise<boolean> {
  return (await readScopeFiles(folder).catch(() => null)) !== null;
}
