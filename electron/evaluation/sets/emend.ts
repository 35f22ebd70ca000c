/**
 * @file Rows in Emend's own form, as its export writes them: the edit with its note, tags and probes. What an edit went through in
 * the library it comes from is not taken over: it is a draft here.
 */
import { z } from 'zod';
import type { DraftRecord } from './draft.ts';
import { answer, pictureName, prompt, say, tag } from './fields.ts';

const EmendRow = z.object({
  picture: pictureName,
  prompt,
  target: answer,
  before: z.string().max(10_000).nullish(),
  note: z.string().max(4000).default(''),
  tags: z.array(tag).max(20).default([]),
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

/** The edit of a row. @throws Error whose message says what is wrong with it */
export function emendDraft(value: unknown): DraftRecord {
  const parsed = EmendRow.safeParse(value);
  if (!parsed.success) throw new Error(say(parsed.error));
  const { before, ...draft } = parsed.data;
  return { ...draft, ...(typeof before === 'string' && { before }) };
}
