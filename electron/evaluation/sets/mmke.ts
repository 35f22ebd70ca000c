/**
 * @file MMKE-Bench: E-VQA's fields for a piece of knowledge told in free text, and questions about it: without a picture (`rel`), of the
 * edit's picture (`m_rel`), of another one (image generality), and over a hop (`port_new`). Entity and user files number two of each and
 * name answers `rel_ans_1` or `rel_1_ans`; the semantic file has one, and a question of its own for the other picture.
 */
import { z } from 'zod';
import { evqa, evqaRecord } from './evqa.ts';
import { answer, filled, parsed, pictureName, prompt, word } from './fields.ts';
import type { RecordContent, RecordProbe, SetFormat } from './record.ts';
import { portabilityProbes } from './vlkeb.ts';

const asked = prompt.optional();
const told = answer.optional();
const Knowledge = z.object({
  knowledge_type: word,
  one_hop_img: pictureName.optional(),
  image_rephrase: pictureName.optional(),
  image_rephrase_question: asked,
  ...{ rel: asked, rel_ans: told, m_rel: asked, m_rel_ans: told },
  ...{ rel_1: asked, rel_ans_1: told, rel_1_ans: told, rel_2: asked, rel_ans_2: told, rel_2_ans: told },
  ...{ m_rel_1: asked, m_rel_ans_1: told, m_rel_1_ans: told },
  ...{ m_rel_2: asked, m_rel_ans_2: told, m_rel_2_ans: told },
});

/** Questions of a row with their answers: the single one, or those that are numbered. @throws Error for one without an answer */
function questionsOf(row: z.infer<typeof Knowledge>, name: 'rel' | 'm_rel') {
  const found = [
    { field: name, question: row[name], answer: row[`${name}_ans`] },
    { field: `${name}_1`, question: row[`${name}_1`], answer: row[`${name}_ans_1`] ?? row[`${name}_1_ans`] },
    { field: `${name}_2`, question: row[`${name}_2`], answer: row[`${name}_ans_2`] ?? row[`${name}_2_ans`] },
  ];
  return found.flatMap(({ field, question, answer: answered }) => {
    if (question === undefined) return [];
    if (answered === undefined) throw new Error(`"${field}" has no answer`);
    return [{ prompt: question, answer: answered }];
  });
}

export const mmke: SetFormat = {
  ...evqa,
  name: 'mmke',
  title: 'MMKE-Bench',
  recognises: (row) => 'knowledge_type' in row,
  record(given): RecordContent {
    const row = filled(given);
    const edit = evqaRecord(row);
    const read = parsed(Knowledge, row);
    const { picture } = edit;
    const ofPicture = questionsOf(read, 'm_rel');
    const { image_rephrase: other, image_rephrase_question: otherwise } = read;
    const probes: RecordProbe[] = [...edit.probes];
    for (const question of other === undefined ? [] : ofPicture)
      probes.push({
        ...{ kind: 'image-generality', picture: other!, answer: question.answer },
        prompt: otherwise ?? question.prompt,
      });
    for (const question of questionsOf(read, 'rel'))
      probes.push({ kind: 'text-reliability', picture: null, ...question });
    for (const question of ofPicture) probes.push({ kind: 'image-reliability', picture, ...question });
    probes.push(...portabilityProbes(row, read.one_hop_img ?? picture));
    return { ...edit, kind: read.knowledge_type, probes };
  },
};
