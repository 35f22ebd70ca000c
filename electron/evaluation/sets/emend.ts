/**
 * @file Emend's own form, as its export writes it: the edit with its note, tags and probes. What an edit went through in the library it
 * comes from is not taken over: it is a draft here.
 */
import { z } from 'zod';
import { readJsonList } from '../../files/jsonRecords.ts';
import { answer, note, parsed, pictureName, prompt, tags } from './fields.ts';
import type { RecordContent, RecordProbe, SetFormat } from './record.ts';

/** Kinds whose probes are written without a picture where they are asked of the edit's own. */
const ofOwnPicture: ReadonlySet<string> = new Set(['text-generality', 'same-picture']);

const EmendRow = z.object({
  picture: pictureName,
  prompt,
  target: answer,
  before: z.string().max(10_000).nullish(),
  note,
  tags,
  probes: z
    .array(
      z.object({
        kind: z.enum([
          'text-generality',
          'image-generality',
          'text-locality',
          'image-locality',
          'same-picture',
          'same-question',
        ]),
        picture: pictureName.nullable(),
        prompt,
      }),
    )
    .max(1000)
    .default([]),
});

export const emend: SetFormat = {
  name: 'emend',
  title: 'Emend',
  read: readJsonList,
  recognises: (row) => 'prompt' in row && !('src' in row),
  record(row): RecordContent {
    const { before, probes, ...edit } = parsed(EmendRow, row);
    const asked = probes.map(
      ({ kind, picture, prompt: text }): RecordProbe => ({
        ...{ kind, prompt: text, answer: null },
        picture: picture ?? (ofOwnPicture.has(kind) ? edit.picture : null),
      }),
    );
    return { ...edit, before: before ?? undefined, probes: asked };
  },
};
