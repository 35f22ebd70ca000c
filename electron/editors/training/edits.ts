/**
 * @file What editors are trained on: edits with the inputs that must follow them and those that must stay, from whatever source.
 */
import type { Pixels } from '../../models/picture.ts';

/** A question whose answer must not change. Without an answer, the first token of it is compared. */
export interface LocalityText {
  readonly prompt: string;
  readonly answer: string | null;
}

/** What one edit is trained on. */
export interface TrainingEdit {
  readonly pixels: Pixels;
  readonly prompt: string;
  readonly target: string;
  readonly rephrase: string;
  readonly rephrasePixels: Pixels;
  readonly localityPixels: Pixels;
  readonly locality: LocalityText;
  /** a question without a picture, for editors that could change its answer */
  readonly textLocality?: LocalityText;
  /** other questions about the edit's own picture, the rephrased one, and the locality picture; the papers have none */
  readonly extra?: {
    readonly own?: LocalityText;
    readonly rephrased?: LocalityText;
    readonly elsewhere?: LocalityText;
  };
}

/** Where training edits come from. The same batch gives the same edits. */
export interface EditSource {
  /** what it is, for the record */
  readonly name: string;
  /** the same pictures come again: what the frozen model makes of them is worth keeping */
  readonly repeats?: boolean;
  batch(number: number, count: number): Promise<TrainingEdit[]>;
  close(): Promise<void>;
}
