/**
 * @file VLKEB: E-VQA's fields and, in its multi-hop file, `port_new`, a list of questions about the edit's picture that the edit and what
 * else is known of its thing answer together, over one to four hops.
 */
import { z } from 'zod';
import { evqa, evqaRecord } from './evqa.ts';
import { answer, filled, parsed, prompt } from './fields.ts';
import type { RecordContent, RecordProbe, SetFormat } from './record.ts';

const Portability = z.object({
  port_new: z
    .array(
      z.object({
        port_type: z.string().max(40).optional(),
        'Q&A': z.object({ Question: prompt, Answer: answer }),
      }),
    )
    .max(100)
    .default([]),
});

/** The portability questions of a row, asked of a picture. @throws Error as {@link parsed} */
export function portabilityProbes(row: unknown, picture: string): RecordProbe[] {
  return parsed(Portability, row).port_new.map(({ 'Q&A': { Question, Answer } }) => ({
    ...{ kind: 'portability' as const, picture, prompt: Question, answer: Answer },
  }));
}

export const vlkeb: SetFormat = {
  ...evqa,
  name: 'vlkeb',
  title: 'VLKEB',
  recognises: (row) => 'port_new' in row,
  record(given): RecordContent {
    const row = filled(given);
    const edit = evqaRecord(row);
    return { ...edit, probes: [...edit.probes, ...portabilityProbes(row, edit.picture)] };
  },
};
