/**
 * @file E-VQA: a flat JSON list, an edit a row. Only question, answer and picture are demanded; what is there of the rest becomes probes,
 * and further fields of the demo's sets, which E-VQA does not have, too.
 */
import { z } from 'zod';
import { readJsonList } from '../../files/jsonRecords.ts';
import { answer, filled, note, parsed, pictureName, prompt, tags, word } from './fields.ts';
import type { RecordContent, RecordProbe, RecordProbeKind, SetFormat } from './record.ts';

export const evqaFields = {
  /** the question, other wordings of it, and the target; what another model answered (`pred`) is not used */
  src: prompt,
  rephrase: z.union([prompt, z.array(prompt).max(100)]).optional(),
  alt: answer,
  image: pictureName,
  image_rephrase: pictureName.optional(),
  /** an unrelated question without a picture */
  loc: prompt.optional(),
  loc_ans: answer.optional(),
  /** an unrelated picture and question */
  m_loc: pictureName.optional(),
  m_loc_q: prompt.optional(),
  m_loc_a: answer.optional(),
  note,
  tags,
  // beyond E-VQA
  same_image_q: prompt.optional(),
  same_image_a: answer.optional(),
  kind: word.optional(),
  object: word.optional(),
  heldout: prompt.optional(),
  new_core: prompt.optional(),
  typed: z.array(prompt).max(100).optional(),
  image_swapped: pictureName.optional(),
  swapped_a: answer.optional(),
  image_elsewhere: pictureName.optional(),
  elsewhere_q: prompt.optional(),
};
const EvqaRow = z.object(evqaFields);

/** The edit of a row whose empty fields are left out, with the probes that E-VQA's fields tell. @throws Error as {@link parsed} */
export function evqaRecord(row: unknown): RecordContent {
  const read = parsed(EvqaRow, row);
  if ((read.m_loc === undefined) !== (read.m_loc_q === undefined))
    throw new Error('"m_loc" and "m_loc_q" belong together, and one of them is missing');
  const { src, alt, image } = read;
  const probes: RecordProbe[] = [];
  const add = (
    kind: RecordProbeKind,
    picture: string | null | undefined,
    asked: string | undefined,
    answered?: string,
  ) => {
    if (picture === undefined || asked === undefined) return;
    probes.push({ kind, picture, prompt: asked, answer: answered ?? null });
  };
  for (const wording of [read.rephrase ?? []].flat()) add('text-generality', image, wording);
  add('image-generality', read.image_rephrase, src);
  add('text-locality', null, read.loc, read.loc_ans);
  add('image-locality', read.m_loc, read.m_loc_q, read.m_loc_a);
  add('same-picture', image, read.same_image_q, read.same_image_a);
  for (const typed of read.typed ?? []) add('typed', image, typed);
  add('held-out', image, read.heldout);
  add('new-core', image, read.new_core);
  add('elsewhere', read.image_elsewhere, read.elsewhere_q);
  add('swapped', read.image_swapped, src, read.swapped_a);
  return {
    ...{ picture: image, prompt: src, target: alt, probes },
    ...{ kind: read.kind, object: read.object, note: read.note, tags: read.tags },
  };
}

export const evqa: SetFormat = {
  name: 'evqa',
  title: 'E-VQA',
  read: readJsonList,
  recognises: () => false,
  record: (row) => evqaRecord(filled(row)),
};
