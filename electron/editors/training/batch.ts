/**
 * @file A batch of edits laid out for the losses of editors. Texts about one picture share its visual rows: they lie behind one another, see the picture
 * and themselves, and not each other.
 */
import { EmendError } from '../../errors.ts';
import { addedName } from '../../models/decoder.ts';
import type { Visual } from '../../models/picture.ts';
import { forbidden, type Positions } from '../../models/positions.ts';
import type { ModelInput, VisionLanguageModel } from '../../models/visionLanguageModel.ts';
import { float32, floatsOf, int64, type Value } from '../../tensor/session.ts';
import { type EarlierPart, layQuestion } from '../question.ts';
import { kindsOfRows, rowKinds } from '../visedit/adapterGraph.ts';
import type { FrozenVision } from './cachedVision.ts';
import type { LocalityText, TrainingEdit } from './edits.ts';

/** The sizes of a batch's graphs. */
export interface BatchSizes {
  /** edits in a batch; there are three sequences to each: its own picture, the rephrased picture, the locality picture; with text locality a fourth */
  readonly edits: number;
  /** rows of a sequence */
  readonly rows: number;
  /** visual tokens drawn for the influence losses */
  readonly sampled: number;
  /** pictures of each edit whose influence is to rise: its own and the rephrased one (eq. 16), or one of them */
  readonly raisedPictures: 1 | 2;
}

/** A text about a picture, or about none, laid out with it. */
interface LaidText {
  readonly input: ModelInput;
  /** embeddings of its rows [rows, hidden] */
  readonly embeddings: Float32Array;
  /** rows behind the last picture's last */
  readonly length: number;
  readonly targetIds: readonly number[];
}

/**
 * On which pictures of an edit influence is to rise: on its own and on the rephrased one, each with a term of its own (eq. 16),
 * or on one of them that each step draws (the published code draws one of three).
 */
export type RaisedPictures = 'both' | 'one';

/** Everything a step needs, before the frozen part has run. */
export interface LaidBatch {
  readonly sizes: BatchSizes;
  /** the pictures' rows and all rows' positions, sequence by sequence; behind a picture its first text comes first */
  readonly sequences: ReadonlyArray<{ readonly imageRows: readonly number[]; readonly positions: Positions }>;
  /** embeddings and whatever else does not depend on the frozen part */
  readonly feeds: Record<string, Value>;
}

/** Draws `count` of 0..total−1 without repetition, as far as there are so many; then over again. */
function draw(total: number, count: number, random: () => number): number[] {
  const order = Array.from({ length: total }, (_, i) => i);
  for (let i = 0; i < Math.min(count, total); i++) {
    const j = i + Math.floor(random() * (total - i));
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  return Array.from({ length: count }, (_, i) => order[i % Math.min(count, total)]!);
}

export interface LayOptions {
  /** whether targets are followed by the end token in the loss (answers then also learn to end) */
  readonly endToken: boolean;
  /** rows of a sequence, or null for as many as the longest needs */
  readonly rows: number | null;
  readonly sampled: number;
  readonly raised: RaisedPictures;
  readonly random: () => number;
  /** lay a sequence without a picture too, for each edit that has a question of that kind; all of a batch have, or none */
  readonly textLocality?: boolean;
  /** lay only what must stay as it is */
  readonly localityOnly?: boolean;
  /** what stands before every text about an edit, from its own picture's embeddings */
  readonly before?: (edit: TrainingEdit, visual: Visual) => readonly EarlierPart[];
  /** embeddings of the edits' pictures where they are known: see `seeEdits` */
  readonly seen?: readonly Visual[];
}

/** Embeddings of edits' pictures: all own, all rephrased, all unrelated ones. */
export function seeEdits(vision: FrozenVision, batch: readonly TrainingEdit[]): Promise<Visual[]> {
  return vision.visualEmbeddingsOf([
    ...batch.map(({ pixels }) => pixels),
    ...batch.map(({ rephrasePixels }) => rephrasePixels),
    ...batch.map(({ localityPixels }) => localityPixels),
  ]);
}

type Term = 'reliability' | 'textGenerality' | 'imageGenerality' | 'imageLocality' | 'textLocality';
const isLocality = (term: Term): term is 'imageLocality' | 'textLocality' => /Locality$/.test(term);

/** Lays a batch out. @throws EmendError 'invalid-input' when an edit does not fit */
export async function layBatch(
  model: VisionLanguageModel,
  batch: readonly TrainingEdit[],
  options: LayOptions,
): Promise<LaidBatch> {
  const { decoder } = model;
  const endId = model.checkpoint.config.text.eosTokenIds[0];
  const visuals = options.seen ?? (await seeEdits(model, batch));
  const lay = async (edit: number, prompt: string, target: string | null, visual: Visual | null) => {
    const before = options.before?.(batch[edit]!, visuals[edit]!) ?? [];
    const { input, targetIds } = await layQuestion(model, { prompt, visual, before }, target);
    const embeddings = await floatsOf(input.embeddings);
    return { input, embeddings, length: input.rows - sharedRows(input), targetIds } satisfies LaidText;
  };
  const edits = batch.length;
  const sequences: Array<Array<{ text: LaidText; term: Term }>> = [];
  interface Wanted {
    readonly prompt: string;
    readonly target: string | null;
    readonly term: Term;
  }
  const kept = (text: LocalityText | undefined, term: Term): Wanted[] =>
    text ? [{ prompt: text.prompt, target: text.answer, term }] : [];
  /** Texts about one picture as a sequence; where only locality is laid, none without such. */
  const sequence = async (edit: number, visual: Visual | null, texts: readonly Wanted[]) => {
    const laid: (typeof sequences)[number] = [];
    for (const { prompt, target, term } of texts)
      if (!options.localityOnly || isLocality(term))
        laid.push({ text: await lay(edit, prompt, target, visual), term });
    if (laid.length > 0) sequences.push(laid);
  };
  for (const [index, { prompt, rephrase, target, extra }] of batch.entries())
    await sequence(index, visuals[index]!, [
      { prompt, target, term: 'reliability' },
      { prompt: rephrase, target, term: 'textGenerality' },
      ...kept(extra?.own, 'imageLocality'),
    ]);
  for (const [index, { prompt, target, extra }] of batch.entries())
    await sequence(index, visuals[edits + index]!, [
      { prompt, target, term: 'imageGenerality' },
      ...kept(extra?.rephrased, 'imageLocality'),
    ]);
  for (const [index, { locality, extra }] of batch.entries())
    await sequence(index, visuals[2 * edits + index]!, [
      ...kept(locality, 'imageLocality'),
      ...kept(extra?.elsewhere, 'imageLocality'),
    ]);
  for (const [index, { textLocality }] of options.textLocality ? batch.entries() : [])
    await sequence(index, null, kept(textLocality, 'textLocality'));

  const rowsNeeded = (texts: (typeof sequences)[number]) =>
    texts.reduce((sum, { text }) => sum + text.length, sharedRows(texts[0]!.text.input));
  if (options.rows !== null) {
    // Extra texts, which are last, give way when the rows set aside do not hold them.
    for (const texts of sequences) {
      while (
        rowsNeeded(texts) > options.rows &&
        texts.length > 1 &&
        isLocality(texts[texts.length - 1]!.term)
      )
        texts.pop();
    }
  }
  const needed = Math.max(...sequences.map(rowsNeeded));
  const rows = options.rows ?? needed;
  if (needed > rows)
    throw new EmendError(
      'invalid-input',
      `The texts of an edit take ${needed} rows; ${rows} are set aside. Raise the limit or shorten them.`,
    );
  const all = sequences.length;
  const width = decoder.hidden;
  const embeddings = new Float32Array(all * rows * width);
  const added = Array.from({ length: decoder.addedLayers }, () => new Float32Array(all * rows * width));
  const positions = Array.from({ length: decoder.axes }, () => new Int32Array(all * rows));
  const mask = new Float32Array(all * rows * rows).fill(forbidden);
  const signalMask = new Float32Array(edits * rows).fill(forbidden);
  const kinds = new Float32Array(edits * rows * rowKinds.length);
  const keyRows: number[] = [];
  const picked: number[] = [];
  const next: number[] = [];
  const weights: Record<Exclude<Term, 'imageLocality' | 'textLocality'>, number[]> = {
    reliability: [],
    textGenerality: [],
    imageGenerality: [],
  };
  const keptRows: number[] = [];
  const keptWeights: Record<'imageLocality' | 'textLocality', number[]> = {
    imageLocality: [],
    textLocality: [],
  };
  /** rows of each sequence's texts up to their last prompt tokens, exclusive */
  const textRows: number[][] = [];
  const textsOf = (wanted: Term) => sequences.flat().filter(({ term }) => term === wanted).length;

  sequences.forEach((texts, sequence) => {
    const { imageRows } = texts[0]!.text.input;
    const end = sharedRows(texts[0]!.text.input);
    const allow = (row: number, from: number, to: number) =>
      mask.fill(0, (sequence * rows + row) * rows + from, (sequence * rows + row) * rows + to);
    /** Takes `count` rows of a text's own sequence, from `from`, into this one at `to`. */
    const take = ({ input, embeddings: of }: LaidText, from: number, to: number, count: number) => {
      const at = (sequence * rows + to) * width;
      embeddings.set(of.subarray(from * width, (from + count) * width), at);
      for (const [layer, values] of input.added.entries())
        added[layer]!.set(values.subarray(from * width, (from + count) * width), at);
      for (const [axis, values] of positions.entries())
        values.set(input.positions[axis]!.subarray(from, from + count), sequence * rows + to);
    };
    take(texts[0]!.text, 0, 0, end);
    for (let row = 0; row < end; row++) allow(row, 0, row + 1);
    let at = end;
    const prompts: number[] = [];
    textRows.push(prompts);
    for (const { text, term } of texts) {
      const { length, targetIds } = text;
      const targetLength = targetIds.length;
      if (text.input.imageRows?.join() !== imageRows?.join())
        throw new EmendError('internal', 'Texts about one picture begin differently.');
      take(text, end, at, length);
      const lastPrompt = at + length - targetLength - 1;
      for (let row = at; row < lastPrompt; row++) prompts.push(row);
      for (let row = at; row < at + length; row++) {
        allow(row, 0, end);
        allow(row, at, row + 1);
      }
      if (term === 'reliability') {
        signalMask.fill(0, sequence * rows, sequence * rows + at + length);
        for (const [row, kind] of kindsOfRows(at + length, imageRows!, lastPrompt).entries())
          kinds[(sequence * rows + row) * rowKinds.length + kind] = 1;
        keyRows.push(sequence * rows + lastPrompt);
      }
      const labels = [...targetIds, ...(options.endToken && endId !== undefined ? [endId] : [])];
      if (targetLength === 0) labels.splice(1);
      if (isLocality(term)) {
        const count = Math.max(1, labels.length);
        for (let i = 0; i < count; i++) {
          keptRows.push(sequence * rows + lastPrompt + i);
          for (const [name, list] of Object.entries(keptWeights))
            list.push(name === term ? 1 / count / textsOf(term) : 0);
        }
      } else {
        labels.forEach((label, i) => {
          picked.push(sequence * rows + lastPrompt + i);
          next.push(label);
          for (const [name, list] of Object.entries(weights))
            list.push(name === term ? 1 / labels.length / edits : 0);
        });
      }
      at += length;
    }
    for (let row = at; row < rows; row++) allow(row, row, row + 1);
  });

  const imageRowsOf = sequences.map((texts) => texts[0]!.text.input.imageRows ?? []);
  const raised: number[] = [];
  const raisedToo: number[] = [];
  const lowered: number[] = [];
  for (let edit = 0; edit < (options.localityOnly ? 0 : edits); edit++) {
    // Pictures of the same number of rows have the same of them drawn.
    const drawn = new Map<number, number[]>();
    const rowsOf = (sequence: number) => {
      const visual = imageRowsOf[sequence]!;
      const tokens = drawn.get(visual.length) ?? draw(visual.length, options.sampled, options.random);
      drawn.set(visual.length, tokens);
      return tokens.map((token) => sequence * rows + visual[token]!);
    };
    const own = rowsOf(edit);
    const rephrased = rowsOf(edits + edit);
    raised.push(...(options.raised === 'one' && options.random() < 0.5 ? own : rephrased));
    if (options.raised === 'both') raisedToo.push(...own);
    lowered.push(...rowsOf(2 * edits + edit));
  }

  const list = (values: readonly number[]) => int64(values, [values.length]);
  /** The same number of entries for each sequence: those behind its own stand for none. */
  const padded = (lists: readonly (readonly number[])[], least: number) => {
    const most = Math.max(least, ...lists.map(({ length }) => length));
    const places: number[] = [];
    const used = new Float32Array(all * most);
    for (const [sequence, own] of lists.entries()) {
      used.fill(1, sequence * most, sequence * most + own.length);
      for (let at = 0; at < most; at++) places.push(sequence * rows + (own[at] ?? own[0] ?? 0));
    }
    return { places: list(places), used: float32(used, [all, most, 1]) };
  };
  const visual = padded(imageRowsOf, 1);
  const texts = padded(textRows, 1);
  const tables = decoder.tables(positions);
  const head = decoder.headDim;
  const share = (values: readonly number[]) => float32(Float32Array.from(values), [values.length]);
  return {
    sizes: {
      edits,
      rows,
      sampled: options.sampled,
      raisedPictures: options.raised === 'both' ? 2 : 1,
    },
    sequences: imageRowsOf.map((imageRows, sequence) => ({
      imageRows,
      positions: positions.map((axis) => axis.subarray(sequence * rows, (sequence + 1) * rows)),
    })),
    feeds: {
      embeddings: float32(embeddings, [all, rows, width]),
      ...Object.fromEntries(
        added.map((values, layer) => [addedName(layer), float32(values, [all, rows, width])]),
      ),
      ...(tables && {
        cosine: float32(tables.cosine, [all, 1, rows, head]),
        sine: float32(tables.sine, [all, 1, rows, head]),
      }),
      visual_rows: visual.places,
      visual_used: visual.used,
      text_rows: texts.places,
      text_used: texts.used,
      mask: float32(mask, [all, 1, rows, rows]),
      signal_mask: float32(signalMask, [edits, 1, 1, rows]),
      kinds: float32(kinds, [edits, rows, rowKinds.length]),
      key_rows: list(keyRows),
      picked: list(picked),
      next: list(next),
      'weight.reliability': share(weights.reliability),
      'weight.textGenerality': share(weights.textGenerality),
      'weight.imageGenerality': share(weights.imageGenerality),
      picked_locality: list(keptRows),
      'weight.imageLocality': share(keptWeights.imageLocality),
      'weight.textLocality': share(keptWeights.textLocality),
      raised: list([...raisedToo, ...raised]),
      lowered: list(lowered),
    },
  };
}

/** Rows up to the last picture's last, which all texts about it begin with; none without a picture. */
const sharedRows = ({ imageRows }: ModelInput): number => (imageRows?.at(-1) ?? -1) + 1;
