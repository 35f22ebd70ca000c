/**
 * @file Training edits read from an editing set of any format. Records without a rephrasing, another picture of the thing or an unrelated
 * picture are left out: every loss needs them.
 */
import type { EditSource, TrainingEdit } from '../editors/training/edits.ts';
import { EmendError } from '../errors.ts';
import { readPictureFile } from '../files/picture.ts';
import type { VisionLanguageModel } from '../models/visionLanguageModel.ts';
import { type EditingRecord, type EditingSet, readEditingSet } from './editingSet.ts';
import { probeOf, type RecordProbeKind } from './sets/record.ts';
import type { SetFormatName } from './sets/registry.ts';

/** Numbers 0..count−1 in an order that depends on the seed only (Fisher–Yates over a linear congruential generator). */
export function shuffled(count: number, seed: number): Uint32Array {
  const order = Uint32Array.from({ length: count }, (_, i) => i);
  let state = seed >>> 0;
  for (let i = count - 1; i > 0; i--) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const j = Math.floor((state / 2 ** 32) * (i + 1));
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  return order;
}

/** In this order: another wording, another picture of the thing, an unrelated picture. */
export const neededForTraining: readonly RecordProbeKind[] = [
  'text-generality',
  'image-generality',
  'image-locality',
];

/**
 * Edits of a set in a new order each time round. `extended` also trains other questions about the edit's own picture, where
 * records have them, and the edit's question on the unrelated picture, to stay what they are.
 */
export async function editSourceFromFile(
  path: string,
  model: VisionLanguageModel,
  options: {
    readonly format?: SetFormatName | undefined;
    readonly images: string | undefined;
    readonly seed: number;
    readonly extended: boolean;
    readonly suffix: string;
    /** so many records, the first, are left out: they are validated on */
    readonly without?: number;
    /** told of the set as soon as it is read */
    readonly onSet?: ((set: EditingSet) => void) | undefined;
  },
): Promise<EditSource> {
  const { format, images } = options;
  const set = await readEditingSet(path, { format, images, needs: neededForTraining });
  options.onSet?.(set);
  const { without = 0 } = options;
  const records = set.records.slice(without);
  if (records.length === 0)
    throw new EmendError(
      'invalid-input',
      without > 0
        ? `${path} holds ${set.records.length} edits, and ${without} are held out to validate on: none is left to train on.`
        : `${path} holds no edits.`,
    );
  const pixels = async (record: EditingRecord, name: string) =>
    model.pixelsOf(await readPictureFile(await set.picturePath(record, name)));
  const trainingEdit = async (index: number): Promise<TrainingEdit> => {
    const record = records[index]!;
    const asked = (prompt: string) => prompt + options.suffix;
    const [rephrase, other, unrelated] = neededForTraining.map((kind) => probeOf(record, kind)!);
    const own = probeOf(record, 'same-picture');
    const text = probeOf(record, 'text-locality');
    return {
      pixels: await pixels(record, record.picture),
      prompt: asked(record.prompt),
      target: record.target,
      rephrase: asked(rephrase!.prompt),
      rephrasePixels: await pixels(record, other!.picture!),
      localityPixels: await pixels(record, unrelated!.picture!),
      locality: { prompt: asked(unrelated!.prompt), answer: unrelated!.answer },
      ...(text && { textLocality: { prompt: text.prompt, answer: text.answer } }),
      ...(options.extended && {
        extra: {
          ...(own?.answer != null && { own: { prompt: asked(own.prompt), answer: own.answer } }),
          elsewhere: { prompt: asked(record.prompt), answer: null },
        },
      }),
    };
  };
  return {
    name: `${path} (sha256 ${set.sha256}), seed ${options.seed}${options.extended ? ', extended locality' : ''}${without > 0 ? `, without the first ${without}` : ''}`,
    repeats: true,
    batch(step, count) {
      const edits = Array.from({ length: count }, (_, i) => {
        const place = step * count + i;
        const round = Math.floor(place / records.length);
        return trainingEdit(shuffled(records.length, options.seed + round)[place % records.length]!);
      });
      return Promise.all(edits);
    },
    async close() {},
  };
}
