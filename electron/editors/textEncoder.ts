/**
 * @file Texts as vectors, for editors that look for the text most like another.
 *
 * The published code takes a sentence encoder of its own (all-MiniLM). Nothing is downloaded here: a text is the mean of the open
 * model's own token embeddings. Cosines of it order texts by the words they share, and lie higher than an encoder's.
 */
import type { VisionLanguageModel } from '../models/visionLanguageModel.ts';
import { cosine } from './scope/cosine.ts';

/** A text as a vector; vectors of one encoder have one width. */
export type TextEncoder = (text: string) => Promise<Float32Array>;

/** Mean token embeddings [hidden] of the model, each text encoded once. */
export function tokenMeanEncoder(model: VisionLanguageModel): TextEncoder {
  const known = new Map<string, Float32Array>();
  return async (text) => {
    const found = known.get(text);
    if (found) return found;
    const { tokenizer, hidden } = model;
    const ids = tokenizer.encode(tokenizer.shield(text), { bos: false });
    const mean = new Float32Array(hidden);
    if (ids.length > 0) {
      const rows = await model.tokenEmbeddings(ids);
      for (const [at, value] of rows.entries()) mean[at % hidden]! += value / ids.length;
    }
    known.set(text, mean);
    return mean;
  };
}

/** Vectors of another encoder brought to length 1. */
export function unitEncoder(encode: TextEncoder): TextEncoder {
  return async (text) => {
    const vector = await encode(text);
    const length = Math.sqrt(vector.reduce((sum, value) => sum + value * value, 0));
    return length > 0 ? vector.map((value) => value / length) : vector;
  };
}

/** Places of texts and their cosines with a query, most similar first; of equals the first. */
export async function mostSimilar(
  encode: TextEncoder,
  query: string,
  texts: readonly string[],
): Promise<Array<{ readonly place: number; readonly similarity: number }>> {
  const asked = await encode(query);
  const found: Array<{ place: number; similarity: number }> = [];
  for (const [place, text] of texts.entries())
    found.push({ place, similarity: cosine(asked, await encode(text)) });
  return found.toSorted((a, b) => b.similarity - a.similarity || a.place - b.place);
}
