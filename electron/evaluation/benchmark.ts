/**
 * @file An editor measured over an editing set, one edit at a time, with everything needed to repeat the measurement.
 */
import { createHash } from 'node:crypto';
import type { EditedModel } from '../editors/editedModel.ts';
import { editorNamed } from '../editors/registry.ts';
import type { Reach, Scope } from '../editors/scope/scope.ts';
import { EmendError } from '../errors.ts';
import { readPictureFile } from '../files/picture.ts';
import type { Visual } from '../models/picture.ts';
import { type Estimate, estimate, RESAMPLINGS } from './bootstrap.ts';
import type { EditingRecord, EditingSet } from './editingSet.ts';
import { sameAnswer } from './exactMatch.ts';
import {
  type EditCase,
  type Measurement,
  type Metric,
  measureEdit,
  metricNames,
  type ProbeInput,
  paperMetrics,
} from './metrics.ts';
import { probeOf, type RecordProbe, type RecordProbeKind } from './sets/record.ts';

export interface BenchmarkOptions {
  /** let the scope decide whether the edit acts; off is the papers' setting */
  readonly scoped: boolean;
  readonly reach: Reach;
  /** appended to every prompt that goes with a picture; ` The answer is:` in the papers, else empty */
  readonly suffix: string;
  /** appended to the prompts of text locality; `?` in the papers, else empty */
  readonly textSuffix: string;
  readonly maxNewTokens: number;
  /** of the bootstrap; the measurement itself has no chance in it */
  readonly seed: number;
  readonly onProgress?: (done: number, total: number) => void;
  readonly signal?: AbortSignal;
}

/** One metric in both tellings; null where no record could be scored. */
export interface Told {
  readonly teacherForced: Estimate | null;
  readonly exactMatch: Estimate | null;
}

export interface Scores {
  readonly metrics: Readonly<Record<Metric, Told>>;
  /** mean of the papers' five metrics, edit by edit */
  readonly meanOfFive: Told;
}

/**
 * What an edit does as a whole, by exact match: of several the worst, in this order. Entangled, among several that act: another edit took
 * what it should answer.
 */
export const editVerdicts = ['fails', 'entangled', 'leaks', 'under-generalises', 'holds'] as const;
export type EditVerdict = (typeof editVerdicts)[number];

export interface MeasuredRecord {
  /** place in the file, from 0 */
  readonly index: number;
  readonly kind: string | null;
  readonly verdict: EditVerdict;
  /** of every input of a metric; none where the record has no probe for it */
  readonly measurements: Readonly<Record<Metric, readonly Measurement[]>>;
}

export interface BenchmarkResult extends Scores {
  /** what the numbers were made with */
  readonly setting: {
    readonly edits: 'single';
    readonly editor: string;
    readonly layers: readonly number[];
    /** what decided whether the edit acts; null: it always did */
    readonly scope: { readonly form: Scope['form']; readonly reach: Reach } | null;
    readonly promptTemplate: string;
    readonly suffix: string;
    readonly textSuffix: string;
    readonly maxNewTokens: number;
    readonly provider: string;
    /** the form the model's weights were held in */
    readonly weights: string;
    readonly data: {
      readonly path: string;
      readonly sha256: string;
      /** of the pictures' sha256, in the order they were first seen */
      readonly picturesSha256: string;
      readonly taken: number;
      readonly total: number;
    };
    readonly bootstrap: { readonly resamplings: number; readonly seed: number };
  };
  /** metrics that hold by construction of the editor, with the reason in one sentence */
  readonly byConstruction: Readonly<Partial<Record<Metric, string>>>;
  /** exact match of the target before the edit: what the edits had nothing to change about */
  readonly answeredBefore: Estimate | null;
  readonly seconds: number;
  /** numbers of edits by what they do as a whole */
  readonly verdicts: Readonly<Record<EditVerdict, number>>;
  /** what making one edit takes: seconds in the median, and bytes in a library on average */
  readonly cost: { readonly seconds: number; readonly bytes: number };
  /** for every `kind` of edit, where records say it */
  readonly kinds: Readonly<Record<string, Scores>>;
  readonly records: readonly MeasuredRecord[];
}

/** Visual embeddings kept, so that pictures which come again are not computed again. */
const PICTURES_KEPT = 64;

/**
 * Measures every edit of the set alone. The same model, adapter, set and options give the same numbers on one provider.
 * Throws `cancelled` when the signal is aborted, and what is wrong with a picture, naming record and field.
 */
export async function benchmark(
  edited: EditedModel,
  set: EditingSet,
  options: BenchmarkOptions,
): Promise<BenchmarkResult> {
  const { editor, model } = edited;
  if (!editor) throw new EmendError('conflict', 'Nothing can be measured without an adapter. Give one.');
  const started = performance.now();
  const pictures = new Pictures(edited, set);
  const records: MeasuredRecord[] = [];
  const made: Array<{ seconds: number; bytes: number }> = [];
  const total = set.records.length;
  for (const [index, record] of set.records.entries()) {
    options.onProgress?.(index, total);
    if (options.signal?.aborted)
      throw new EmendError('cancelled', `Stopped after ${index} of ${total} edits.`);
    const edit = await caseOf(record, options, pictures);
    const measurements = await measureEdit(edited, edit, {
      ...options,
      onMade: (state, seconds) => void made.push({ seconds, bytes: edited.encode(state).length }),
    });
    records.push({
      ...{ index: record.row - 1, kind: record.kind ?? null },
      ...{ verdict: verdictOf(measurements), measurements },
    });
  }
  options.onProgress?.(total, total);

  const kinds = [...new Set(records.flatMap(({ kind }) => kind ?? []))].sort();
  return {
    setting: {
      edits: 'single',
      editor: editor.name,
      layers: editor.cuts,
      scope: options.scoped && edited.scope ? { form: edited.scope.form, reach: options.reach } : null,
      promptTemplate: model.prompts.form,
      suffix: options.suffix,
      textSuffix: options.textSuffix,
      maxNewTokens: options.maxNewTokens,
      provider: model.provider,
      weights: model.form,
      data: {
        path: set.path,
        sha256: set.sha256,
        picturesSha256: pictures.sha256(),
        taken: total,
        total: set.total,
      },
      bootstrap: { resamplings: RESAMPLINGS, seed: options.seed },
    },
    byConstruction: editorNamed(editor.name)?.byConstruction ?? {},
    answeredBefore: estimate(records.map(answeredBefore), options.seed),
    seconds: (performance.now() - started) / 1000,
    verdicts: countVerdicts(records.map(({ verdict }) => verdict)),
    cost: {
      seconds: made.map(({ seconds }) => seconds).sort((a, b) => a - b)[made.length >> 1] ?? 0,
      bytes: made.reduce((sum, { bytes }) => sum + bytes, 0) / Math.max(1, made.length),
    },
    ...scoresOf(records, options.seed),
    kinds: Object.fromEntries(
      kinds.map((kind) => [
        kind,
        scoresOf(
          records.filter((record) => record.kind === kind),
          options.seed,
        ),
      ]),
    ),
    records,
  };
}

/** What an edit does as a whole; metrics it has no probe for do not count. */
export function verdictOf(measurements: MeasuredRecord['measurements']): EditVerdict {
  return verdictOfShort(
    new Set(metricNames.filter((metric) => measurements[metric].some(({ exactMatch }) => !exactMatch))),
  );
}

/** The verdict of an edit that falls short in some metrics. What follows from it (portability) is no part of it. */
export function verdictOfShort(short: ReadonlySet<Metric>): EditVerdict {
  const any = (...metrics: Metric[]) => metrics.some((metric) => short.has(metric));
  if (any('reliability')) return 'fails';
  if (any('textLocality', 'imageLocality', 'samePicture', 'sameQuestion')) return 'leaks';
  return any('textGenerality', 'imageGenerality') ? 'under-generalises' : 'holds';
}

export function countVerdicts(verdicts: readonly EditVerdict[]): Record<EditVerdict, number> {
  return Object.fromEntries(
    editVerdicts.map((kind) => [kind, verdicts.filter((verdict) => verdict === kind).length]),
  ) as Record<EditVerdict, number>;
}

function answeredBefore({ measurements: { reliability } }: MeasuredRecord): number {
  return Number(reliability.some(({ before, expected }) => sameAnswer(before, expected)));
}

/** Means and intervals of measured edits. */
export function scoresOf(records: readonly MeasuredRecord[], seed: number): Scores {
  // A record counts once, however many inputs it has for a metric.
  const mean = (values: readonly number[]) =>
    values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0) / values.length;
  const teacherForced = ({ measurements }: MeasuredRecord, metric: Metric) =>
    mean(measurements[metric].flatMap((found) => found.teacherForced ?? []));
  const exactMatch = ({ measurements }: MeasuredRecord, metric: Metric) =>
    mean(measurements[metric].map((found) => Number(found.exactMatch)));
  const told = (values: (score: typeof teacherForced) => Array<number | null>): Told => {
    const of = (score: typeof teacherForced) =>
      estimate(
        values(score).filter((value) => value !== null),
        seed,
      );
    return { teacherForced: of(teacherForced), exactMatch: of(exactMatch) };
  };
  const metrics = Object.fromEntries(
    metricNames.map((metric) => [metric, told((score) => records.map((record) => score(record, metric)))]),
  ) as Record<Metric, Told>;
  const meanOfFive = told((score) =>
    records.map((record) => {
      const five = paperMetrics.map((metric) => score(record, metric));
      return five.some((value) => value === null)
        ? null
        : five.reduce<number>((sum, value) => sum + value!, 0) / five.length;
    }),
  );
  return { metrics, meanOfFive };
}

/** Metric of each kind of probe, as far as it has one. */
const metricOfKind: Readonly<Partial<Record<RecordProbeKind, Metric>>> = {
  'text-generality': 'textGenerality',
  'image-generality': 'imageGenerality',
  'text-locality': 'textLocality',
  'image-locality': 'imageLocality',
  'same-picture': 'samePicture',
  'same-question': 'sameQuestion',
  'text-reliability': 'textReliability',
  'image-reliability': 'imageReliability',
  portability: 'portability',
};

async function caseOf(
  record: EditingRecord,
  { suffix, textSuffix }: BenchmarkOptions,
  pictures: Pictures,
): Promise<EditCase> {
  const see = (picture: string | null) => (picture === null ? null : pictures.see(record, picture));
  const probes: Partial<Record<Metric, ProbeInput[]>> = {};
  for (const { kind, picture, prompt, answer } of judgedProbes(record)) {
    const metric = metricOfKind[kind];
    if (!metric) continue;
    const asked = prompt + (picture === null ? textSuffix : suffix);
    probes[metric] = [
      ...(probes[metric] ?? []),
      { visual: await see(picture), prompt: asked, answer, picture },
    ];
  }
  const { picture, prompt, target } = record;
  return { visual: await pictures.see(record, picture), prompt: prompt + suffix, target, picture, probes };
}

/** A record's probes; where it has none of the kind, its question is asked of its unrelated picture too. */
export function judgedProbes(record: EditingRecord): readonly RecordProbe[] {
  const unrelated = probeOf(record, 'image-locality');
  if (!unrelated || probeOf(record, 'same-question')) return record.probes;
  const { picture } = unrelated;
  return [...record.probes, { kind: 'same-question', picture, prompt: record.prompt, answer: null }];
}

/** The set's pictures as the model sees them; the latest are kept. */
export class Pictures {
  readonly #edited: EditedModel;
  readonly #set: EditingSet;
  readonly #kept = new Map<string, Visual>();
  readonly #digests = new Map<string, Buffer>();

  constructor(edited: EditedModel, set: EditingSet) {
    this.#edited = edited;
    this.#set = set;
  }

  async see(record: EditingRecord, name: string): Promise<Visual> {
    const path = await this.#set.picturePath(record, name);
    const known = this.#kept.get(path);
    if (known) return known;
    const { model } = this.#edited;
    try {
      const file = await readPictureFile(path);
      this.#digests.set(path, createHash('sha256').update(file).digest());
      const visual = await model.visualEmbeddings(await model.pixelsOf(file));
      this.#kept.set(path, visual);
      if (this.#kept.size > PICTURES_KEPT) this.#kept.delete(this.#kept.keys().next().value!);
      return visual;
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause);
      throw new EmendError(
        'damaged',
        `${this.#set.path}: row ${record.row}: the picture ${path} cannot be used. ${why}`,
        { cause },
      );
    }
  }

  sha256(): string {
    const hash = createHash('sha256');
    for (const digest of this.#digests.values()) hash.update(digest);
    return hash.digest('hex');
  }
}
