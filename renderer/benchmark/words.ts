/**
 * @file What a comparison's parts are called on the page.
 */
import type {
  BenchmarkSample,
  Comparison,
  EditVerdict,
  MeasuredAt,
  SampleKind,
} from '../../electron/api/contract.ts';
import { shortNames } from '../widgets/metricNames.ts';

/** Columns of the table, the papers' five first; the long name under the pointer. */
export const metrics: ReadonlyArray<{ key: string; short: string; long: string }> = [
  { key: 'reliability', short: shortNames.reliability, long: 'Reliability: the edit’s own question' },
  { key: 'textGenerality', short: shortNames['text-generality'], long: 'Text generality: another wording' },
  {
    key: 'imageGenerality',
    short: shortNames['image-generality'],
    long: 'Image generality: another picture of the thing',
  },
  {
    key: 'textLocality',
    short: shortNames['text-locality'],
    long: 'Text locality: a question without a picture stays',
  },
  {
    key: 'imageLocality',
    short: shortNames['image-locality'],
    long: 'Image locality: an unrelated picture and question stay',
  },
  { key: 'samePicture', short: shortNames['same-picture'], long: 'Same picture, another question: stays' },
  {
    key: 'sameQuestion',
    short: shortNames['same-question'],
    long: 'Same question, an unrelated picture: stays',
  },
  {
    key: 'textReliability',
    short: shortNames['text-reliability'],
    long: 'What the edit teaches, asked without a picture',
  },
  {
    key: 'imageReliability',
    short: shortNames['image-reliability'],
    long: 'What the edit teaches, asked of its picture',
  },
  { key: 'portability', short: shortNames.portability, long: 'Portability: what follows from the edit' },
];
export const papersFive = 5;

export const kindNames: Readonly<Record<SampleKind, string>> = {
  reliability: 'Reliability',
  'text-generality': 'Text generality',
  'image-generality': 'Image generality',
  'text-locality': 'Text locality',
  'image-locality': 'Image locality',
  'same-picture': 'Same picture',
  'same-question': 'Same question',
  'text-reliability': 'Text reliability',
  'image-reliability': 'Image reliability',
  portability: 'Portability',
  typed: 'Typed otherwise',
  'held-out': 'Wording never trained',
  'new-core': 'Core never trained',
  swapped: 'Look-alike swapped in',
  elsewhere: 'The thing elsewhere',
  fresh: 'Another draw',
};

export const verdictNames: Readonly<Record<EditVerdict, string>> = {
  holds: 'holds',
  'under-generalises': 'under-generalises',
  leaks: 'leaks',
  entangled: 'entangled',
  fails: 'fails',
};

export const sizeName = (edits: number): string =>
  edits === 1 ? 'each alone' : `${edits.toLocaleString()} together`;

/** Numbers of edits that act together: “each alone”, “each alone, 10, 100 together”. */
export function sizesName(sizes: readonly number[]): string {
  const together = sizes.filter((edits) => edits > 1).map((edits) => edits.toLocaleString());
  const parts = [...(sizes.includes(1) ? [sizeName(1)] : []), ...together];
  return `${parts.join(', ')}${together.length > 0 ? ' together' : ''}`;
}

/** An editor of a comparison in a few words. */
export function rowName({ editors }: Comparison, place: number): string {
  const { editor, scope, settings } = editors[place]!;
  const several = editors.some(
    (other, at) =>
      at !== place && other.editor === editor && other.scope === scope && other.settings !== settings,
  );
  return [editor, scope, ...(several ? [settings] : [])].filter(Boolean).join(', ');
}

export const columnName = (comparison: Comparison, { editor, edits }: MeasuredAt): string =>
  `${rowName(comparison, editor)}, ${sizeName(edits)}`;

/** Which edit acted on an input. */
export function actingWords({ acting, row }: BenchmarkSample): string {
  if (acting === null) return 'none';
  if (acting === 'all') return 'all';
  return acting === row ? 'its own' : `edit ${acting}`;
}

/** One name, or how many different ones. */
export function namesOf(names: readonly string[], what: string): string {
  const different = [...new Set(names)];
  return different.length === 1 ? different[0]! : `${different.length} ${what}`;
}

export const percent = (share: number): string => (100 * share).toFixed(1);

export const bytesWords = (bytes: number): string =>
  bytes >= 1e9
    ? `${(bytes / 1e9).toFixed(1)} GB`
    : bytes >= 1e6
      ? `${(bytes / 1e6).toFixed(1)} MB`
      : `${(bytes / 1e3).toFixed(1)} KB`;

export const secondsWords = (seconds: number): string =>
  seconds < 0.1 ? `${(1000 * seconds).toFixed(0)} ms` : `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
