/**
 * @file Models in words.
 */
import type {
  EditorSummary,
  FoundModel,
  ModelSummary,
  ScopeForm,
  WeightForm,
} from '../../electron/api/contract.ts';

/** “7.1 B”, “22.4 M”, “12,345”. */
export function countWords(count: number): string {
  if (count >= 1e9) return `${(count / 1e9).toFixed(1)} B`;
  return count >= 1e6 ? `${(count / 1e6).toFixed(1)} M` : count.toLocaleString();
}

/** “13.2 GB”, “88 MB”: in powers of 1000, as disks and hubs count. */
export function sizeWords(bytes: number): string {
  if (bytes >= 1e9) return `${(bytes / 1e9).toFixed(1)} GB`;
  return bytes >= 1e6 ? `${Math.round(bytes / 1e6)} MB` : `${Math.max(1, Math.round(bytes / 1e3))} KB`;
}

/** How the matrices of a model are held. */
export const formWords: Readonly<Record<WeightForm, string>> = {
  dense: 'as it is',
  '8bit': 'in 8 bits',
  '4bit': 'in 4 bits',
};

/** What a found model is, in a line. */
export function modelFacts({ family, parameters, dtype, bytes }: FoundModel): string {
  const facts = [
    family,
    parameters !== null && `${countWords(parameters)} parameters`,
    dtype,
    sizeWords(bytes),
  ];
  return facts.filter(Boolean).join(' · ');
}

/** How many rows a picture takes: “576”, “4 to 1,280”, and the limit that lowers it. */
export function rowsWords({ least, most, limit }: ModelSummary['pictureRows']): string {
  const range =
    least === most ? most.toLocaleString() : `${least.toLocaleString()} to ${most.toLocaleString()}`;
  return limit === null ? range : `${range}, as the settings limit it`;
}

const scopeWords: Readonly<Record<ScopeForm, string>> = {
  learned: 'where the learned scope lets it',
  cosine: 'where one cosine says so',
  everywhere: 'everywhere, all together',
  own: 'where the editor itself decides',
};

/** What decides where edits act, in a few words. */
export const wordsOfScope = (form: ScopeForm): string => scopeWords[form];

/** The forms of scope an editor can be opened with; its own where it has one. */
export const scopeForms = (proposed: EditorSummary['scope'] | undefined): readonly ScopeForm[] => [
  ...(proposed === 'own' ? (['own'] as const) : []),
  ...(['learned', 'cosine', 'everywhere'] as const),
];

/** The choices for an editor, its own proposal first. */
export function scopeChoices(
  proposed: EditorSummary['scope'],
): ReadonlyArray<{ readonly form: ScopeForm | ''; readonly words: string }> {
  const routed = { form: '' as const, words: 'where the best scope of this model lets them (proposed)' };
  const first =
    proposed === 'routed' ? routed : { form: '' as const, words: `${scopeWords[proposed]} (proposed)` };
  const others = scopeForms(proposed).filter((form) => form !== proposed);
  return [first, ...others.map((form) => ({ form, words: scopeWords[form] }))];
}
