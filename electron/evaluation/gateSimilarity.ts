/**
 * @file What DualEdit's gate compares (eq. 4, Fig. 4): cosine similarities of edits with inputs they should act on and with inputs they
 * should not, by what of both is compared, and how well one threshold tells these apart.
 */
import { textRows } from '../attribution/layerInputs.ts';
import { EditedModel } from '../editors/editedModel.ts';
import { askQuestion } from '../editors/question.ts';
import { cosine } from '../editors/scope/cosine.ts';
import { EmendError } from '../errors.ts';
import type { Visual } from '../models/picture.ts';
import type { VisionLanguageModel } from '../models/visionLanguageModel.ts';
import { floatsOf } from '../tensor/session.ts';
import { judgedProbes, Pictures } from './benchmark.ts';
import type { EditingSet } from './editingSet.ts';
import { bestThreshold } from './routerCalibration.ts';
import type { RecordProbeKind } from './sets/record.ts';

/**
 * What of an edit and of an input is compared, at a layer's output:
 * `visual`: means of the picture's rows (Fig. 4 a); `textual`: means of the rows between the picture and the last prompt token (b);
 * `lastPromptToken`: these tokens, which hold no answer (c);
 * `lastToken`: the last tokens of prompt and target, as the published code compares them under teacher forcing: the targets' own;
 * `lastTokenAsked`: the edit's last token again, and an input's last prompt token: the published edit as it meets a person's question.
 */
export const gateRepresentations = [
  'visual',
  'textual',
  'lastPromptToken',
  'lastToken',
  'lastTokenAsked',
] as const;
export type GateRepresentation = (typeof gateRepresentations)[number];

/** Kinds of inputs: edits should act on them, should not (these two as in the figure), and should not (beyond the papers). */
export const gateKinds = {
  generality: ['text-generality', 'image-generality'],
  locality: ['text-locality', 'image-locality'],
  beyond: ['same-picture', 'same-question'],
} as const satisfies Record<string, readonly RecordProbeKind[]>;
export type GateKind = (typeof gateKinds)[keyof typeof gateKinds][number];

/** One threshold for a layer and a representation. */
export interface GateSeparation {
  readonly threshold: number;
  /** share of generality inputs at or above it, and of locality inputs below it, 0..1 */
  readonly acts: number;
  readonly staysOut: number;
  /** mean of both shares */
  readonly balancedAccuracy: number;
  /** probability that a generality input is more similar to its edit than a locality input to its; equals count half */
  readonly auc: number;
}

export interface GateFinding {
  /** decoder layer whose output is compared, from 0 */
  readonly layer: number;
  readonly representation: GateRepresentation;
  /** cosines by kind of input, in the order of the edits; an input without what is compared has none */
  readonly similarities: ReadonlyMap<GateKind, readonly number[]>;
  /** null where there are no generality or no locality inputs */
  readonly separation: GateSeparation | null;
}

export interface GateOptions {
  /** appended to prompts that go with a picture, and to those without one */
  readonly suffix: string;
  readonly textSuffix: string;
  readonly onProgress?: (done: number, total: number) => void;
  readonly signal?: AbortSignal;
}

/** What is compared of one input at one layer [hidden] each; null where the input does not have it. */
interface Compared {
  readonly visual: Float32Array | null;
  readonly textual: Float32Array | null;
  readonly lastPromptToken: Float32Array;
  readonly lastToken: Float32Array | null;
}

/**
 * Compares every edit of a set with its probes, at every cut of the model. Nothing is edited: these are the unedited model's states.
 * @throws EmendError 'cancelled', and what is wrong with a picture
 */
export async function gateSimilarities(
  model: VisionLanguageModel,
  set: EditingSet,
  { suffix, textSuffix, onProgress, signal }: GateOptions,
): Promise<GateFinding[]> {
  const pictures = new Pictures(new EditedModel(model, null, null), set);
  const found = new Map<string, Map<GateKind, number[]>>();
  const add = (layer: number, representation: GateRepresentation, kind: GateKind, value: number) => {
    const key = `${layer} ${representation}`;
    const kinds = found.get(key) ?? new Map<GateKind, number[]>();
    found.set(key, kinds.set(kind, [...(kinds.get(kind) ?? []), value]));
  };
  const kinds: readonly string[] = Object.values(gateKinds).flat();
  const total = set.records.length;
  for (const [index, record] of set.records.entries()) {
    onProgress?.(index, total);
    if (signal?.aborted) throw new EmendError('cancelled', `Stopped after ${index} of ${total} edits.`);
    const { picture, prompt, target } = record;
    const edit = await comparedOf(model, await pictures.see(record, picture), prompt + suffix, target);
    for (const probe of judgedProbes(record)) {
      if (!kinds.includes(probe.kind)) continue;
      const kind = probe.kind as GateKind;
      const acts = (gateKinds.generality as readonly GateKind[]).includes(kind);
      const visual = probe.picture === null ? null : await pictures.see(record, probe.picture);
      const asked = probe.prompt + (visual ? suffix : textSuffix);
      const input = await comparedOf(model, visual, asked, probe.answer || (acts ? target : null));
      for (const [at, layer] of model.cuts.entries()) {
        const [own, other] = [edit[at]!, input[at]!];
        const pairs: Record<GateRepresentation, readonly [Float32Array | null, Float32Array | null]> = {
          visual: [own.visual, other.visual],
          textual: [own.textual, other.textual],
          lastPromptToken: [own.lastPromptToken, other.lastPromptToken],
          lastToken: [own.lastToken, other.lastToken],
          lastTokenAsked: [own.lastToken, other.lastPromptToken],
        };
        for (const representation of gateRepresentations) {
          const [a, b] = pairs[representation];
          if (a && b) add(layer, representation, kind, cosine(a, b));
        }
      }
    }
  }
  onProgress?.(total, total);
  return model.cuts.flatMap((layer) =>
    gateRepresentations.map((representation): GateFinding => {
      const similarities = found.get(`${layer} ${representation}`) ?? new Map<GateKind, number[]>();
      const of = (wanted: readonly GateKind[]) => wanted.flatMap((kind) => similarities.get(kind) ?? []);
      const separation = separate(of(gateKinds.generality), of(gateKinds.locality));
      return { layer, representation, similarities, separation };
    }),
  );
}

/** The best threshold between two lists of cosines, and how well it tells them apart; null where one is empty. */
export function separate(wanted: readonly number[], unwanted: readonly number[]): GateSeparation | null {
  if (wanted.length === 0 || unwanted.length === 0) return null;
  const { threshold, acts, staysOut } = bestThreshold(wanted, unwanted);
  return { threshold, acts, staysOut, balancedAccuracy: (acts + staysOut) / 2, auc: auc(wanted, unwanted) };
}

/** Area under the ROC curve (Mann and Whitney's U over all pairs). */
function auc(wanted: readonly number[], unwanted: readonly number[]): number {
  const sorted = unwanted.toSorted((a, b) => a - b);
  /** how many of the unwanted are below, or not above */
  const count = (passes: (value: number) => boolean) => {
    let [low, high] = [0, sorted.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (passes(sorted[middle]!)) low = middle + 1;
      else high = middle;
    }
    return low;
  };
  let above = 0;
  for (const value of wanted) above += (count((one) => one < value) + count((one) => one <= value)) / 2;
  return above / (wanted.length * unwanted.length);
}

/** What is compared of an input, at each cut. A target behind the prompt changes nothing up to the last prompt token. */
async function comparedOf(
  model: VisionLanguageModel,
  visual: Visual | null,
  prompt: string,
  target: string | null,
): Promise<Compared[]> {
  const { prefill } = await askQuestion(model, { prompt, visual }, target);
  const { input } = prefill;
  const compared: Compared[] = [];
  for (const layer of model.cuts) {
    const hidden = await floatsOf(await model.unedited(prefill, layer));
    const row = (at: number) => hidden.slice(at * model.hidden, (at + 1) * model.hidden);
    compared.push({
      visual: meanOf(hidden, input.imageRows ?? [], model.hidden),
      textual: meanOf(hidden, textRows(input), model.hidden),
      lastPromptToken: row(input.lastPromptRow),
      lastToken: target === null ? null : row(input.rows - 1),
    });
  }
  return compared;
}

/** Mean of rows of hidden states [rows, width] → [width]; null of none. */
function meanOf(hidden: Float32Array, rows: readonly number[], width: number): Float32Array | null {
  if (rows.length === 0) return null;
  const sum = new Float64Array(width);
  for (const row of rows) for (let i = 0; i < width; i++) sum[i]! += hidden[row * width + i]!;
  return Float32Array.from(sum, (value) => value / rows.length);
}
