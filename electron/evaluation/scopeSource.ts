/**
 * @file Examples for a scope from an editing set: each record is a family of pictures.
 */
import type { ScopeAsk, ScopeFamily, ScopeSource } from '../editors/scope/learned/examples.ts';
import { EmendError } from '../errors.ts';
import { readPictureFile } from '../files/picture.ts';
import type { VisionLanguageModel } from '../models/visionLanguageModel.ts';
import { type EditingRecord, readEditingSet } from './editingSet.ts';
import { probeOf, type RecordProbeKind } from './sets/record.ts';

/** The scene that each of a record's pictures shows: the edit's own, and those of its probes. */
const scenes = [
  ['own', 0],
  ['image-generality', 0],
  ['image-locality', 1],
  ['swapped', 2],
  ['elsewhere', 3],
] as const satisfies ReadonlyArray<readonly ['own' | RecordProbeKind, number]>;

/** The record's picture of a scene; undefined where it has none. */
const pictureOf = (record: EditingRecord, of: (typeof scenes)[number][0]): string | undefined =>
  of === 'own' ? record.picture : (probeOf(record, of)?.picture ?? undefined);

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
      const there = scenes.flatMap(([of]) => pictureOf(record, of) ?? []);
      const pixels = await Promise.all(
        there.map(async (name) => model.pixelsOf(await readPictureFile(await set.picturePath(record, name)))),
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
  const [rephrase, same, unrelated, elsewhere] = (
    ['text-generality', 'same-picture', 'image-locality', 'elsewhere'] as const
  ).map((kind) => probeOf(record, kind));
  const own = {
    question: record.prompt,
    kind,
    names: true,
    doubtful: false,
    wordings: [record.prompt, ...(rephrase ? [rephrase.prompt] : [])].map(asked),
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
  const shown = (of: (typeof scenes)[number][0]) => pictureOf(record, of) !== undefined;
  return {
    answers: null,
    pictures: scenes.filter(([of]) => shown(of)).map(([, scene]) => scene),
    asks: [
      { ...own, scene: 0, about: thing },
      ...other(0, same?.prompt, `beside ${thing} ${index}`),
      // Asked of another picture, it is not answered by the edit's thing.
      ...(shown('image-locality') ? [{ ...own, scene: 1, about: null, names: false }] : []),
      ...other(1, unrelated?.prompt, `apart from ${thing} ${index}`),
      ...(shown('swapped') ? [{ ...own, scene: 2, about: null, names: false }] : []),
      ...(elsewhere
        ? [
            {
              ...own,
              scene: 3,
              about: thing,
              question: elsewhere.prompt,
              wordings: [asked(elsewhere.prompt)],
            },
          ]
        : []),
    ],
  };
}
