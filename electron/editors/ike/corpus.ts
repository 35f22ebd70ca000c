/**
 * @file IKE's corpus: three demonstrations of a known fact each, after which a new fact is taken up, carried over to other wordings,
 * and kept from what it is not about.
 */
import { z } from 'zod';
import { EmendError } from '../../errors.ts';
import { readJson } from '../../files/json.ts';

/** A fact whose demonstrations are shown: a question with its answer, another wording, and a question that it does not touch. */
export interface DemonstratedFact {
  readonly prompt: string;
  readonly target: string;
  readonly rephrase: string | null;
  readonly locality: { readonly prompt: string; readonly answer: string } | null;
}

const LARGEST = 256 * 1024 * 1024;
const text = z.string().max(4000).regex(/\S/u);
const answer = z.union([text, z.array(text).min(1)]).transform((given) => [given].flat()[0]!);
/** A record of an editing set in E-VQA's form. */
const Record = z.looseObject({
  src: text,
  alt: answer,
  rephrase: text.optional(),
  loc: text.optional(),
  loc_ans: answer.optional(),
});

/** The facts of an editing set in E-VQA's form. @throws EmendError 'not-found', 'damaged' that names the record */
export async function readFacts(file: string): Promise<DemonstratedFact[]> {
  const parsed = z
    .array(Record)
    .min(1)
    .safeParse(await readJson(file, LARGEST));
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    const [row, field] = issue.path;
    const where = typeof row === 'number' ? `record ${row + 1}, ${String(field ?? 'as a whole')}: ` : '';
    throw new EmendError(
      'damaged',
      `${file} is no editing set: ${where}${issue.message}. It is a JSON list of records with src, alt, rephrase, loc and loc_ans.`,
    );
  }
  return parsed.data.map(({ src, alt, rephrase = null, loc, loc_ans }) => ({
    ...{ prompt: src, target: alt, rephrase },
    locality: loc !== undefined && loc_ans !== undefined ? { prompt: loc, answer: loc_ans } : null,
  }));
}

/** One demonstration: a fact, and a question answered in the light of it. */
export function demonstration(fact: { prompt: string; target: string }, asked: string, answered: string) {
  return `New Fact: ${fact.prompt} ${fact.target}\nPrompt: ${asked} ${answered}\n\n`;
}

/** Demonstrations of facts, those of one fact together: itself, its other wording, its locality. */
export function demonstrationsOf(facts: readonly DemonstratedFact[]): string[] {
  return facts.flatMap((fact) => {
    const { prompt, target, rephrase, locality } = fact;
    return [
      demonstration(fact, prompt, target),
      ...(rephrase === null ? [] : [demonstration(fact, rephrase, target)]),
      ...(locality === null ? [] : [demonstration(fact, locality.prompt, locality.answer)]),
    ];
  });
}
