/**
 * @file What a data set's rows become, whatever its format: an edit to be written, with its probes. Pictures are still file names.
 */
import type { ProbeKind } from '../../api/contract.ts';

export interface DraftProbe {
  readonly kind: Exclude<ProbeKind, 'committed' | 'reliability'>;
  /** name of a picture file; null: none, or the edit's own, as the kind asks */
  readonly picture: string | null;
  readonly prompt: string;
}

export interface DraftRecord {
  /** name of a picture file */
  readonly picture: string;
  readonly prompt: string;
  readonly target: string;
  readonly before?: string;
  readonly note: string;
  readonly tags: readonly string[];
  readonly probes: readonly DraftProbe[];
}

/** A row of a file, or what is wrong with it; rows count from 1. */
export type DraftRow =
  | { readonly row: number; readonly draft: DraftRecord }
  | { readonly row: number; readonly problem: string };
