/**
 * @file What the papers report of the editors on E-VQA with their own backbones, one edit at a time, teacher-forced, per cent: to be
 * read beside measurements, not to be compared with them (other models, other data).
 */

export interface PublishedResult {
  readonly editor: string;
  /** reliability, text generality, image generality, text locality, image locality, mean of the five */
  readonly scores: readonly [number, number, number, number, number, number];
}

/** VisEdit's Table 1; DualEdit's own row from its Table 2. */
export const publishedResults: Readonly<
  Record<'LLaVA-V1.5 (7B)' | 'BLIP2-OPT (2.7B)', readonly PublishedResult[]>
> = {
  'LLaVA-V1.5 (7B)': [
    { editor: 'FT-V', scores: [31.68, 29.96, 26.68, 100, 91.23, 55.91] },
    { editor: 'FT-L', scores: [31.78, 30.02, 26.91, 99.94, 92.03, 56.14] },
    { editor: 'KE', scores: [85.86, 84, 82.23, 93.57, 73.06, 83.74] },
    { editor: 'IKE', scores: [91.35, 90.84, 91.08, 60.18, 51.08, 76.91] },
    { editor: 'SERAC', scores: [82.51, 81.6, 80.05, 100, 57.48, 80.33] },
    { editor: 'MEND', scores: [92.3, 92.16, 92.1, 90.3, 81.13, 89.6] },
    { editor: 'T-Patcher', scores: [38.68, 36.27, 31.26, 95.31, 91.41, 58.59] },
    { editor: 'LTE', scores: [94.16, 93.54, 93.06, 83.76, 81.65, 89.23] },
    { editor: 'VisEdit', scores: [95.99, 95.78, 94.71, 100, 94.12, 96.12] },
    { editor: 'DualEdit', scores: [96.94, 96.43, 96.2, 100, 99.61, 97.84] },
  ],
  'BLIP2-OPT (2.7B)': [
    { editor: 'FT-V', scores: [24.01, 16, 20.22, 100, 88.65, 49.78] },
    { editor: 'FT-L', scores: [24.86, 16.39, 20.57, 98.92, 89.61, 50.07] },
    { editor: 'KE', scores: [67.8, 63, 66.17, 97.32, 45.89, 68.04] },
    { editor: 'IKE', scores: [99.95, 91.59, 92.33, 13.16, 1.88, 59.78] },
    { editor: 'SERAC', scores: [91.2, 91.4, 89.81, 100, 0.33, 74.55] },
    { editor: 'MEND', scores: [92.6, 90.8, 91.94, 96.07, 65.15, 87.31] },
    { editor: 'T-Patcher', scores: [68.31, 60.88, 56.35, 98.49, 85.27, 73.86] },
    { editor: 'LTE', scores: [97.74, 97.21, 96.35, 94.34, 84.99, 94.13] },
    { editor: 'VisEdit', scores: [98.83, 98.63, 97.9, 100, 92.3, 97.53] },
    { editor: 'DualEdit', scores: [98.29, 97.89, 98.05, 100, 99.89, 98.82] },
  ],
};

/** Mean of the five with 1,000 edits at once, LLaVA-V1.5, E-VQA: LiveEdit's Table 1. */
export const publishedAtThousand: Readonly<Record<string, number>> = {
  LiveEdit: 92.76,
  RECIPE: 84.18,
  LTE: 80.98,
  SERAC: 64.26,
  'FT-L': 58.63,
  'T-Patcher': 14.38,
  MEND: 0.06,
};
