/**
 * @file Every input of a measurement with its answers, as they are recorded, compared and looked through.
 */
import type { BenchmarkSample, SampleFilter, SampleKind, SampleSort } from '../api/contract.ts';
import type { MeasuredRecord } from './benchmark.ts';
import { sameAnswer } from './exactMatch.ts';
import { type Metric, metricNames, staysUnder } from './metrics.ts';

/** So many inputs of a measurement, at one size, are recorded at most, and so many characters of a text. */
export const MOST_SAMPLES = 5000;
const LONGEST_TEXT = 2000;

/** A sample whose texts are as long as is recorded. */
export function boundedSample(sample: BenchmarkSample): BenchmarkSample {
  const cut = (text: string) => (text.length > LONGEST_TEXT ? `${text.slice(0, LONGEST_TEXT - 1)}…` : text);
  const { prompt, expected, before, after } = sample;
  return {
    ...{ ...sample, prompt: cut(prompt), expected: cut(expected) },
    ...{ before: cut(before), after: cut(after) },
  };
}

const kindOf: Readonly<Record<Metric, SampleKind>> = {
  reliability: 'reliability',
  textGenerality: 'text-generality',
  imageGenerality: 'image-generality',
  textLocality: 'text-locality',
  imageLocality: 'image-locality',
  samePicture: 'same-picture',
  sameQuestion: 'same-question',
  textReliability: 'text-reliability',
  imageReliability: 'image-reliability',
  portability: 'portability',
};

/** The inputs of edits that were measured alone, the first so many. */
export function samplesOfRecords(records: readonly MeasuredRecord[]): BenchmarkSample[] {
  const samples: BenchmarkSample[] = [];
  for (const { index, verdict, measurements } of records) {
    const row = index + 1;
    for (const metric of metricNames) {
      for (const found of measurements[metric] ?? []) {
        if (samples.length === MOST_SAMPLES) return samples;
        const { picture, prompt, expected, before, after, exactMatch, teacherForced, acted } = found;
        samples.push(
          boundedSample({
            ...{ row, kind: kindOf[metric], picture, prompt, expected, stays: staysUnder(metric) },
            ...{ before, after, passes: exactMatch, teacherForced, acting: acted ? row : null, verdict },
          }),
        );
      }
    }
  }
  return samples;
}

/** A sample beside the same input under another editor; null where that was not asked it. */
export interface ComparedSample {
  readonly sample: BenchmarkSample;
  readonly other: BenchmarkSample | null;
}

const keyOf = ({ row, kind, picture, prompt }: BenchmarkSample) =>
  `${row} ${kind} ${picture ?? ''}\n${prompt}`;

/** The samples that a filter lets through, in an order, each beside that of another measurement where there is one. */
export function findSamples(
  samples: readonly BenchmarkSample[],
  others: readonly BenchmarkSample[] | null,
  { differs, kinds, verdicts, passes, text }: SampleFilter,
  { by, descending }: SampleSort,
): ComparedSample[] {
  const beside = new Map((others ?? []).map((other) => [keyOf(other), other]));
  const words = (text ?? '')
    .toLocaleLowerCase()
    .split(/\s+/u)
    .filter((word) => word !== '');
  const found: ComparedSample[] = [];
  for (const sample of samples) {
    const other = beside.get(keyOf(sample)) ?? null;
    if (kinds && !kinds.includes(sample.kind)) continue;
    if (verdicts && (sample.verdict === null || !verdicts.includes(sample.verdict))) continue;
    if (passes !== undefined && sample.passes !== passes) continue;
    if (differs && (!other || (other.passes === sample.passes && sameAnswer(other.after, sample.after))))
      continue;
    if (words.length > 0) {
      const { prompt, expected, before, after } = sample;
      const read = [prompt, expected, before, after, other?.after ?? ''].join('\n').toLocaleLowerCase();
      if (!words.every((word) => read.includes(word))) continue;
    }
    found.push({ sample, other });
  }
  const sign = descending ? -1 : 1;
  const value = ({ sample }: ComparedSample): string | number => {
    if (by === 'row') return sample.row;
    if (by === 'passes') return Number(sample.passes);
    return by === 'teacherForced' ? (sample.teacherForced ?? -1) : sample[by];
  };
  // Sorting is stable: rows stay in their order where nothing tells them apart.
  return found.sort((one, two) => {
    const [a, b] = [value(one), value(two)];
    if (typeof a === 'string' && typeof b === 'string') return sign * a.localeCompare(b);
    return sign * (Number(a) - Number(b));
  });
}

/** Samples as CSV: a line each, with the other measurement's answer where there is one. */
export function samplesCsv(found: readonly ComparedSample[]): string {
  const cell = (value: string | number | boolean | null) => {
    const text = value === null ? '' : String(value);
    return /[",\n\r]/u.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const head = [
    ...['row', 'kind', 'picture', 'prompt', 'expected', 'stays', 'before', 'after', 'passes'],
    ...['teacherForced', 'acting', 'verdict', 'otherAfter', 'otherPasses'],
  ];
  const lines = found.map(({ sample, other }) => [
    ...[sample.row, sample.kind, sample.picture, sample.prompt, sample.expected, sample.stays],
    ...[sample.before, sample.after, sample.passes, sample.teacherForced, sample.acting, sample.verdict],
    ...[other?.after ?? null, other?.passes ?? null],
  ]);
  return `${[head, ...lines].map((cells) => cells.map(cell).join(',')).join('\n')}\n`;
}
