/**
 * @file Edit signals that are hidden states: the output of decoder layers on (image, prompt ⊕ target), which VisEdit and DualEdit act by.
 */
import { EmendError } from '../errors.ts';
import { decodeSafetensors, encodeSafetensors, type WritableTensor } from '../files/safetensors.ts';
import type { VisionLanguageModel } from '../models/visionLanguageModel.ts';
import { floatsOf } from '../tensor/session.ts';
import type { EditRequest } from './editor.ts';

/** Output of one layer on (image, prompt ⊕ target). */
export interface HiddenSignal {
  /** [rows, hidden] */
  readonly hidden: Float32Array;
  readonly rows: number;
  /** rows of the picture, in the order of its visual embeddings */
  readonly imageRows: readonly number[];
  /** row of the last prompt token */
  readonly lastPromptRow: number;
}

/** Signals of a request at layers after which the model is cut, of the unedited model. */
export async function hiddenSignals(
  model: VisionLanguageModel,
  { visual, prompt, target }: EditRequest,
  layers: readonly number[],
): Promise<HiddenSignal[]> {
  const input = await model.lay(model.prompts.encodeTarget({ prompt, image: true }, target), visual);
  const prefill = await model.prefill(input);
  const signals: HiddenSignal[] = [];
  for (const layer of layers) {
    const hidden = (await floatsOf(await model.unedited(prefill, layer))).slice();
    const { rows, lastPromptRow } = input;
    signals.push({ hidden, rows, imageRows: input.imageRows!, lastPromptRow });
  }
  return signals;
}

const nameOf = (place: number) => (place === 0 ? 'hidden' : `hidden.${place}`);

/** Signals of one request as bytes, lowest layer first. */
export function encodeSignals(signals: readonly HiddenSignal[]): Uint8Array {
  const { rows, imageRows, lastPromptRow } = signals[0]!;
  const tensors = new Map<string, WritableTensor>([
    ['visual_rows', { dtype: 'I32', shape: [imageRows.length], data: Int32Array.from(imageRows) }],
    ['last_prompt_row', { dtype: 'I32', shape: [1], data: Int32Array.of(lastPromptRow) }],
  ]);
  for (const [place, { hidden }] of signals.entries())
    tensors.set(nameOf(place), { dtype: 'F32', shape: [rows, hidden.length / rows], data: hidden });
  return encodeSafetensors(tensors);
}

/** Throws `damaged` when the bytes are no signals of so many layers of a decoder of this width. */
export function decodeSignals(bytes: Uint8Array, width: number, layers: number): HiddenSignal[] {
  const { tensors } = decodeSafetensors(bytes);
  const integers = (name: string) => {
    const data = tensors.get(name)?.data;
    return data instanceof Int32Array ? data : undefined;
  };
  // The first form: where the picture begins and ends, and the last prompt token.
  const first = integers('rows');
  const imageRows = first
    ? Array.from({ length: Math.max(0, first[1]! - first[0]!) }, (_, row) => first[0]! + row)
    : [...(integers('visual_rows') ?? [])];
  const lastPromptRow = first ? first[2] : integers('last_prompt_row')?.[0];
  return Array.from({ length: layers }, (_, place): HiddenSignal => {
    const hidden = tensors.get(nameOf(place));
    const rows = hidden?.shape[0] ?? 0;
    const fits =
      hidden?.data instanceof Float32Array &&
      hidden.shape.length === 2 &&
      hidden.shape[1] === width &&
      imageRows.length > 0 &&
      lastPromptRow !== undefined &&
      imageRows.every((row) => row >= 0 && row < lastPromptRow) &&
      lastPromptRow < rows;
    if (!fits)
      throw new EmendError(
        'damaged',
        'The stored edit signal does not belong to this model. Check the edit again.',
      );
    return { hidden: hidden.data as Float32Array, rows, imageRows, lastPromptRow };
  });
}
