/**
 * @file A batch of edits laid out for VisEdit's losses. Texts about one picture share its visual rows: they lie behind one
 * another, see the picture and themselves, and not each other.
 */
import { EmendError } from '../../errors.ts';
import { forbidden, rotaryTables } from '../../models/positions.ts';
import type { VisionLanguageModel } from '../../models/visionLanguageModel.ts';
import { float32, int64, type Value } from '../../tensor/session.ts';
import { rowKinds } from './adapterGraph.ts';
import type { LossSizes } from './losses.ts';

/** A question about a picture whose answer must not change. Without an answer, the first token of it is compared. */
export interface LocalityText {
  readonly prompt: string;
  readonly answer: string | null;
}

/** What one edit is trained on. Pictures are pixel values [3, side, side]. */
export interface TrainingEdit {
  readonly pixels: Float32Array;
  readonly prompt: string;
  readonly target: string;
  readonly rephrase: string;
  readonly rephrasePixels: Float32Array;
  readonly localityPixels: Float32Array;
  readonly locality: LocalityText;
  /** other questions about the edit's own picture, the rephrased one, and the locality picture; the papers have none */
  readonly extra?: {
    readonly own?: LocalityText;
    readonly rephrased?: LocalityText;
    readonly elsewhere?: LocalityText;
  };
}

interface LaidText {
  readonly ids: readonly number[];
  readonly targetLength: number;
}

/**
 * On which pictures of an edit influence is to rise: on its own and on the rephrased one, each with a term of its own (eq. 16),
 * or on one of them that each step draws (the published code draws one of three).
 */
export type RaisedPictures = 'both' | 'one';

/** Everything a step needs, before the frozen part has run. */
export interface LaidBatch {
  readonly sizes: LossSizes;
  /** [3·edits, 3, side, side] */
  readonly pixels: Float32Array;
  /** ids before the picture and behind it [3·edits, …]; the picture's rows lie between */
  readonly before: BigInt64Array;
  readonly behind: BigInt64Array;
  /** feeds that do not depend on the frozen part */
  readonly feeds: Record<string, Value>;
}

/** Draws `count` of 0..total−1 without repetition. */
function draw(total: number, count: number, random: () => number): number[] {
  const order = Array.from({ length: total }, (_, i) => i);
  for (let i = 0; i < count; i++) {
    const j = i + Math.floor(random() * (total - i));
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  return order.slice(0, count);
}

/**
 * Lays a batch out. `endToken`: whether targets are followed by the end token in the loss (answers then also learn to end);
 * `rows`: rows of a sequence, or null for as many as the longest needs; `raised`: pictures whose influence is to rise. Throws `invalid-input` when an edit does not fit.
 */
export function layBatch(
  model: VisionLanguageModel,
  batch: readonly TrainingEdit[],
  options: {
    readonly endToken: boolean;
    readonly rows: number | null;
    readonly sampled: number;
    readonly raised: RaisedPictures;
    readonly random: () => number;
  },
): LaidBatch {
  const { config } = model.checkpoint;
  const visual = config.imageTokenCount;
  const endId = config.text.eosTokenIds[0];
  const encode = (prompt: string, target: string): { before: number[]; text: LaidText } => {
    const encoded = model.prompts.encodeTarget({ prompt, image: true }, target);
    const at = encoded.imageIndex!;
    const ids = encoded.ids.slice(at + 1);
    return { before: encoded.ids.slice(0, at), text: { ids, targetLength: encoded.targetIds.length } };
  };
  const bare = (prompt: string): LaidText => {
    const encoded = model.prompts.encodePrompt({ prompt, image: true });
    return { ids: encoded.ids.slice(encoded.imageIndex! + 1), targetLength: 0 };
  };
  const locality = ({ prompt, answer }: LocalityText): LaidText =>
    answer === null ? bare(prompt) : encode(prompt, answer).text;

  const sequences: Array<{ pixels: Float32Array; texts: Array<{ text: LaidText; term: string }> }> = [];
  const prefix = encode(batch[0]!.prompt, batch[0]!.target).before;
  for (const edit of batch) {
    const texts = [
      { text: encode(edit.prompt, edit.target).text, term: 'reliability' },
      { text: encode(edit.rephrase, edit.target).text, term: 'textGenerality' },
    ];
    if (edit.extra?.own) texts.push({ text: locality(edit.extra.own), term: 'imageLocality' });
    sequences.push({ pixels: edit.pixels, texts });
  }
  for (const edit of batch) {
    const texts = [{ text: encode(edit.prompt, edit.target).text, term: 'imageGenerality' }];
    if (edit.extra?.rephrased) texts.push({ text: locality(edit.extra.rephrased), term: 'imageLocality' });
    sequences.push({ pixels: edit.rephrasePixels, texts });
  }
  for (const edit of batch) {
    const texts = [{ text: locality(edit.locality), term: 'imageLocality' }];
    if (edit.extra?.elsewhere) texts.push({ text: locality(edit.extra.elsewhere), term: 'imageLocality' });
    sequences.push({ pixels: edit.localityPixels, texts });
  }

  const start = prefix.length;
  const end = start + visual;
  if (options.rows !== null) {
    // Extra texts, which are last, give way when the rows set aside do not hold them.
    for (const { texts } of sequences) {
      const used = () => texts.reduce((sum, { text }) => sum + text.ids.length, end);
      while (used() > options.rows && texts.length > 1 && texts[texts.length - 1]!.term === 'imageLocality')
        texts.pop();
    }
  }
  const needed =
    end +
    Math.max(...sequences.map(({ texts }) => texts.reduce((sum, { text }) => sum + text.ids.length, 0)));
  const rows = options.rows ?? needed;
  if (needed > rows)
    throw new EmendError(
      'invalid-input',
      `The texts of an edit take ${needed} rows; ${rows} are set aside. Raise the limit or shorten them.`,
    );
  const edits = batch.length;
  const all = sequences.length;
  const area = batch[0]!.pixels.length;
  const pixels = new Float32Array(all * area);
  const behind = new BigInt64Array(all * (rows - end));
  const before = BigInt64Array.from(
    sequences.flatMap(() => prefix),
    BigInt,
  );
  const positions = new Int32Array(all * rows);
  const mask = new Float32Array(all * rows * rows).fill(forbidden);
  const signalMask = new Float32Array(edits * rows).fill(forbidden);
  const kinds = new Float32Array(edits * rows * rowKinds.length);
  const keyRows: number[] = [];
  const picked: number[] = [];
  const next: number[] = [];
  const weights: Record<'reliability' | 'textGenerality' | 'imageGenerality', number[]> = {
    reliability: [],
    textGenerality: [],
    imageGenerality: [],
  };
  const kept: number[] = [];
  const keptWeights: number[] = [];
  const localityTexts = sequences
    .flatMap(({ texts }) => texts)
    .filter(({ term }) => term === 'imageLocality').length;

  sequences.forEach(({ pixels: picture, texts }, sequence) => {
    pixels.set(picture, sequence * area);
    const allow = (row: number, from: number, to: number) =>
      mask.fill(0, (sequence * rows + row) * rows + from, (sequence * rows + row) * rows + to);
    for (let row = 0; row < end; row++) {
      positions[sequence * rows + row] = row;
      allow(row, 0, row + 1);
    }
    if (sequence < edits) {
      for (let row = 0; row < end; row++) {
        signalMask[sequence * rows + row] = 0;
        kinds[(sequence * rows + row) * rowKinds.length + (row < start ? 0 : 1)] = 1;
      }
    }
    let at = end;
    for (const [index, { text, term }] of texts.entries()) {
      const { ids, targetLength } = text;
      const lastPrompt = at + ids.length - targetLength - 1;
      ids.forEach((id, offset) => {
        const row = at + offset;
        behind[sequence * (rows - end) + row - end] = BigInt(id);
        positions[sequence * rows + row] = end + offset;
        allow(row, 0, end);
        allow(row, at, row + 1);
        if (sequence < edits && index === 0) {
          signalMask[sequence * rows + row] = 0;
          kinds[(sequence * rows + row) * rowKinds.length + (row <= lastPrompt ? 2 : 3)] = 1;
        }
      });
      if (sequence < edits && index === 0) keyRows.push(sequence * rows + lastPrompt);
      const labels = [
        ...ids.slice(ids.length - targetLength),
        ...(options.endToken && endId !== undefined ? [endId] : []),
      ];
      if (targetLength === 0) labels.splice(1);
      if (term === 'imageLocality') {
        const count = Math.max(1, labels.length);
        for (let i = 0; i < count; i++) {
          kept.push(sequence * rows + lastPrompt + i);
          keptWeights.push(1 / count / localityTexts);
        }
      } else {
        labels.forEach((label, i) => {
          picked.push(sequence * rows + lastPrompt + i);
          next.push(label);
          for (const [name, list] of Object.entries(weights))
            list.push(name === term ? 1 / labels.length / edits : 0);
        });
      }
      at += ids.length;
    }
    for (let row = at; row < rows; row++) allow(row, row, row + 1);
  });

  const raised: number[] = [];
  const raisedToo: number[] = [];
  const lowered: number[] = [];
  for (let edit = 0; edit < edits; edit++) {
    const tokens = draw(visual, options.sampled, options.random);
    const own = options.raised === 'one' && options.random() < 0.5;
    raised.push(...tokens.map((token) => (own ? edit : edits + edit) * rows + start + token));
    if (options.raised === 'both') raisedToo.push(...tokens.map((token) => edit * rows + start + token));
    lowered.push(...tokens.map((token) => (2 * edits + edit) * rows + start + token));
  }

  const { cosine, sine } = rotaryTables(config.text, positions);
  const head = config.text.headDim;
  const list = (values: readonly number[]) => int64(values, [values.length]);
  const share = (values: readonly number[]) => float32(Float32Array.from(values), [values.length]);
  return {
    sizes: {
      edits,
      rows,
      imageRows: [start, end],
      sampled: options.sampled,
      raisedPictures: options.raised === 'both' ? 2 : 1,
    },
    pixels,
    before,
    behind,
    feeds: {
      cosine: float32(cosine, [all, 1, rows, head]),
      sine: float32(sine, [all, 1, rows, head]),
      mask: float32(mask, [all, 1, rows, rows]),
      signal_mask: float32(signalMask, [edits, 1, 1, rows]),
      kinds: float32(kinds, [edits, rows, rowKinds.length]),
      key_rows: list(keyRows),
      picked: list(picked),
      next: list(next),
      'weight.reliability': share(weights.reliability),
      'weight.textGenerality': share(weights.textGenerality),
      'weight.imageGenerality': share(weights.imageGenerality),
      picked_locality: list(kept),
      'weight.imageLocality': share(keptWeights),
      raised: list([...raisedToo, ...raised]),
      lowered: list(lowered),
    },
  };
}
