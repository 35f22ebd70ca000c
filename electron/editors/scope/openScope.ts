/**
 * @file The scope that goes with an adapter: the learned one where one was trained, DualEdit's cosine otherwise.
 */
import { EmendError } from '../../errors.ts';
import { type CosineSettings, cosineScope } from './cosine.ts';
import { everywhereScope } from './everywhere.ts';
import { cutsOfScope, LearnedScope } from './learned/learnedScope.ts';
import { readScopeFiles } from './learned/scopeFile.ts';
import type { Scope } from './scope.ts';

export const scopeForms = ['learned', 'cosine', 'everywhere', 'own'] as const;
export type ScopeForm = (typeof scopeForms)[number];

/** A scope whose cuts are known before the model is opened with them. */
export interface ScopeKind {
  readonly cuts: readonly number[];
  /** `width`: of the decoder's hidden states */
  open(width: number): Promise<Scope>;
}

/**
 * Reads the scope of a model from the first of the folders where one lies that was trained on it: the adapter's own, then another's.
 * `form`: the one asked for; the learned one where there is one, else the cosine, when absent.
 * @throws EmendError 'not-found' when a learned scope is asked for and there is none for this model
 */
export async function readScope(
  folders: readonly string[],
  adapter: { readonly cosine: CosineSettings; readonly model: string },
  form?: ScopeForm,
): Promise<ScopeKind> {
  if (form === 'everywhere' || form === 'own') {
    const scope = everywhereScope(form);
    return { cuts: scope.cuts, open: async () => scope };
  }
  for (const folder of form === 'cosine' ? [] : folders) {
    const files = await readScopeFiles(folder);
    if (files && files.description.model === adapter.model)
      return { cuts: cutsOfScope(files), open: (width) => LearnedScope.open(files, width) };
  }
  if (form === 'learned')
    throw new EmendError(
      'not-found',
      `There is no scope that was trained for this model${folders.length === 0 ? '' : ` in ${folders.join(' or ')}`}. Train one with "emend train scope", or use the cosine.`,
    );
  const { cosine } = adapter;
  return { cuts: [cosine.layer], open: async (width) => cosineScope(cosine, width) };
}

/** Whether a learned scope lies in a folder. */
export async function hasScope(folder: string): Promise<boolean> {
  return (await readScopeFiles(folder).catch(() => null)) !== null;
}
