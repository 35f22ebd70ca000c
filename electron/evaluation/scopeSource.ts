/**
 * @file Examples for a scope from an editing set in E-VQA's JSON form: each record is a family of pictures.
 */
import type { ScopeAsk, ScopeFamily, ScopeSource } from '../editors/scope/learned/examples.ts';
import { EmendError } from '../errors.ts';
import { readPictureFile } from '../files/picture.ts';
import type { VisionLanguageModel } from '../models/visionLanguageModel.ts';
import { type EditingRecord, type PictureField, readEditingSet } from './editingSet.ts';

/** The scene that each of a record's pictures shows. */
const scenes = [
  ['image', 0],
  ['image_rephrase', 0],
  ['m_loc', 1],
  ['image_swapped', 2],
  ['image_elsewhere', 3],
] as const satisfies readonly (readonly [PictureField, number])[];

/** Records of a set as examples. `suffix` is appended to every prompt. */
export async function scopeSourceFromFile(
  path: string,
  model: VisionLanguageModel,
  options: { readonly images: string | undefined; readonly suffix: string },
): Promise<ScopeSource> {
  const set = await readEditingSet(path, options.images === undefined ? {} : { images: options.images });
  const { records } = set;
  if (records.length === 0) throw new EmendError('invalid-input', `${path} holds no edits.`);
  return {
    name: `${path} (sha256 ${set.sha256})${options.suffix && ` with "${options.suffix}"`}`,
    families: records.length,
    async family(index) {
      const record = records[index]!;
      const there = scenes.filter(([field]) => record[field] !== undefined);
      const pixels = await Promise.all(
        there.map(async ([field]) =>
          model.pixelsOf(await readPictureFile(await set.picturePath(index, field))),
        ),
      );
      return { family: familyOf(record, index, options.suffix), pixels };
    },
    async close() {},
  };
}

/** What is asked of each scene: the edit's own question of all but the last, and the set's other questions. */
export function familyOf(record: EditingRecord, index: number, suffix: string): ScopeFamily {
  const kind = record.kind ?? 'question';
  const thing = record.object ?? `record ${index}`;
  const asked = (question: string) => question + suffix;
  const own = {
    question: record.src,
    kind,
    names: true,
    doubtful: false,
    wordings: [record.src, record.rephrase].map(asked),
  };
  const other = (scene: number, question: string | undefined, about: string): ScopeAsk[] =>
    question === undefined
      ? []
      : [
          {
            scene,
            question,
            kind: 'other',
            about,
            names: false,
            doubtful: false,
            wordings: [asked(question)],
          },
        ];
  const shown = (field: PictureField) => record[field] !== undefined;
  return {
    answers: null,
    pictures: scenes.filter(([field]) => shown(field)).map(([, scene]) => scene),
    asks: [
      { ...own, scene: 0, about: thing },
      ...other(0, record.same_image_q, `beside ${thing} ${index}`),
      // Asked of another picture, it is not answered by the edit's thing.
      { ...own, scene: 1, about: null, names: false },
      ...other(1, record.m_loc_q, `apart from ${thing} ${index}`),
      ...(shown('image_swapped') ? [{ ...own, scene: 2, about: null, names: false }] : []),
      ...(shown('image_elsewhere') && record.elsewhere_q !== undefined
        ? [
            {
              ...own,
              scene: 3,
              about: thing,
              question: record.elsewhere_q,
              wordings: [asked(record.elsewhere_q)],
            },
          ]
        : []),
    ],
  };
}
