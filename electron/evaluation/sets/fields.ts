/**
 * @file Fields that rows of several formats share, and how their errors are told.
 */
import { z } from 'zod';

const text = (most: number) =>
  z
    .string()
    .regex(/\S/u, 'is empty')
    .max(most, `is longer than ${most.toLocaleString('en')} characters`)
    .refine((value) => !value.includes('\0'), 'holds a NUL character');

export const prompt = text(4000);
/** Some sets give several right answers; the first is the one an edit is for. */
export const answer = z
  .union([text(4000), z.array(text(4000)).min(1).max(100)])
  .transform((given) => [given].flat()[0]!);
export const pictureName = text(1000);
export const tag = text(60);
export const note = z.string().max(4000).default('');
export const tags = z.array(tag).max(20).default([]);
/** A short word of the set's own. */
export const word = text(400);

/** A row without its empty fields, which count as fields that are not there. */
export function filled(row: unknown): unknown {
  if (typeof row !== 'object' || row === null || Array.isArray(row)) return row;
  return Object.fromEntries(Object.entries(row).filter(([, field]) => field !== '' && field !== null));
}

/** A row read by a schema. @throws Error whose message says what is wrong with it */
export function parsed<T>(schema: z.ZodType<T>, row: unknown): T {
  const read = schema.safeParse(row);
  if (read.success) return read.data;
  throw new Error(say(read.error));
}

/** The first thing that is wrong, with the name of its field. */
function say(error: z.ZodError): string {
  const { path, code, message } = error.issues[0]!;
  const field = path.length > 0 ? `"${path.join('.')}" ` : 'it ';
  if (code === 'invalid_type') {
    const missing = message.endsWith('received undefined');
    if (missing) return `${field}is missing`;
    return `${field}is not ${path.length > 0 ? 'a text' : 'an object with named fields'}`;
  }
  if (code === 'invalid_union') {
    const missing = /undefined/.test(JSON.stringify(error.issues[0]));
    return `${field}${missing ? 'is missing' : 'is empty, too long or no text'}`;
  }
  return `${field}${message}`;
}
