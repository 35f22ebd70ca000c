/**
 * @file Rows in E-VQA's form as edits to be written. For a draft only question, answer and picture are demanded; what is there of
 * the rest becomes probes.
 */
import { z } from 'zod';
import type { DraftProbe, DraftRecord } from './draft.ts';
import { answer, pictureName, prompt, say, tag } from './fields.ts';

/** E-VQA's names; an empty field counts as one that is not there. */
const EvqaRow = z.object({
  src: prompt,
  alt: answer,
  image: pictureName,
  rephrase: z.union([prompt, z.array(prompt).max(100)]).optional(),
  image_rephrase: pictureName.optional(),
  loc: prompt.optional(),
  m_loc: pictureName.optional(),
  m_loc_q: prompt.optional(),
  same_image_q: prompt.optional(),
  note: z.string().max(4000).default(''),
  tags: z.array(tag).max(20).default([]),
});

/** The edit of a row. @throws Error whose message says what is wrong with it */
export function evqaDraft(value: unknown): DraftRecord {
  const filled =
    typeof value === 'object' && value !== null && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).filter(([, field]) => field !== '' && field !== null))
      : value;
  const parsed = EvqaRow.safeParse(filled);
  if (!parsed.success) throw new Error(say(parsed.error));
  const row = parsed.data;
  if ((row.m_loc === undefined) !== (row.m_loc_q === undefined)) {
    throw new Error('"m_loc" and "m_loc_q" belong together, and one of them is missing');
  }
  const probes: DraftProbe[] = [
    ...[row.rephrase ?? []].flat().map((wording) => probe('text-generality', null, wording)),
    ...(row.image_rephrase === undefined ? [] : [probe('image-generality', row.image_rephrase, row.src)]),
    ...(row.loc === undefined ? [] : [probe('text-locality', null, row.loc)]),
    ...(row.m_loc === undefined ? [] : [probe('image-locality', row.m_loc, row.m_loc_q!)]),
    ...(row.same_image_q === undefined ? [] : [probe('same-picture', null, row.same_image_q)]),
  ];
  const { src, alt, image, note, tags } = row;
  return { picture: image, prompt: src, target: alt, note, tags, probes };
}

const probe = (kind: DraftProbe['kind'], picture: string | null, text: string): DraftProbe => {
  return { kind, picture, prompt: text };
};
