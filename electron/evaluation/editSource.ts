/**
 * @file Training edits read from an editing set in E-VQA's JSON form.
 */
import type { EditSource, TrainingEdit } from '../editors/training/edits.ts';
import { EmendError } from '../errors.ts';
import { readPictureFile } from '../files/picture.ts';
import type { VisionLanguageModel } from '../models/visionLanguageModel.ts';
import { readEditingSet } from './editingSet.ts';

/** Numbers 0..count−1 in an order that depends on the seed only (Fisher–Yates over a linear congruential generator). */
function shuffled(count: number, seed: number): Uint32Array {
  const order = Uint32Array.from({ length: count }, (_, i) => i);
  let state = seed >>> 0;
  for (let i = count - 1; i > 0; i--) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const j = Math.floor((state / 2 ** 32) * (i + 1));
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  return order;
}

/**
 * Edits of a set in a new order each time round. `extended` also trains other questions about the edit's own picture, where
 * records have them, and the edit's question on the unrelated picture, to stay what they are.
 */
export async function editSourceFromFile(
  path: string,
  model: VisionLanguageModel,
  options: {
    readonly images: string | undefined;
    readonly seed: number;
    readonly extended: boolean;
    readonly suffix: string;
    /** so many records, the first, are left out: they are validated on */
    readonly without?: number;
  },
): Promise<EditSource> {
  const set = await readEditingSet(path, options.images === undefined ? {} : { images: options.images });
  const { without = 0 } = options;
  const records = set.records.slice(without);
  if (records.length === 0)
    throw new EmendError(
      'invalid-input',
      without > 0
        ? `${path} holds ${set.records.length} edits, and ${without} are held out to validate on: none is left to train on.`
        : `${path} holds no edits.`,
    );
  const pixels = async (index: number, field: 'image' | 'image_rephrase' | 'm_loc') =>
    model.pixelsOf(await readPictureFile(await set.picturePath(index + without, field)));
  const trainingEdit = async (index: number): Promise<TrainingEdit> => {
    const record = records[index]!;
    const asked = (prompt: string) => prompt + options.suffix;
    const own = record.same_image_q !== undefined && record.same_image_a !== undefined;
    return {
      pixels: await pixels(index, 'image'),
      prompt: asked(record.src),
      target: record.alt,
      rephrase: asked(record.rephrase),
      rephrasePixels: await pixels(index, 'image_rephrase'),
      localityPixels: await pixels(index, 'm_loc'),
      locality: { prompt: asked(record.m_loc_q), answer: record.m_loc_a },
      textLocality: { prompt: record.loc, answer: record.loc_ans },
      ...(options.extended && {
        extra: {
          ...(own && { own: { prompt: asked(record.same_image_q!), answer: record.same_image_a! } }),
          elsewhere: { prompt: asked(record.src), answer: null },
        },
      }),
    };
  };
  return {
    name: `${path} (sha256 ${set.sha256}), seed ${options.seed}${options.extended ? ', extended locality' : ''}${without > 0 ? `, without the first ${without}` : ''}`,
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
