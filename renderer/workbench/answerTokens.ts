/**
 * @file Finds an answer's tokens in its text, so that each can be pointed at.
 */
import type { AnswerToken } from '../../electron/api/contract.ts';
import { comparable, words } from './wordDiff.ts';

/** A stretch of the answer's text; `token` is the index of the token that wrote it, null for white space between. */
export interface TokenSpan {
  readonly text: string;
  readonly token: number | null;
}

/**
 * Splits an answer's text along its tokens. Tokens that left no trace in the text (stop tokens, bare spaces, halves of
 * a character) get no span. The spans joined together are the text exactly.
 */
export function tokenSpans(text: string, tokens: readonly Pick<AnswerToken, 'text'>[]): TokenSpan[] {
  const spans: TokenSpan[] = [];
  let at = 0;
  let untraced = 0; // tokens since the last one found; each may have written one character of its own
  tokens.forEach((token, index) => {
    const written = token.text.trim();
    const start = written ? text.indexOf(written, at) : -1;
    const between = start < 0 ? '' : text.slice(at, start);
    // anything further on than the untraced tokens can have written is a chance match
    if (start < 0 || between.replace(/\s/g, '').length > untraced) {
      untraced++;
      return;
    }
    if (between) spans.push({ text: between, token: null });
    spans.push({ text: written, token: index });
    at = start + written.length;
    untraced = 0;
  });
  if (at < text.length) spans.push({ text: text.slice(at), token: null });
  return spans;
}

/**
 * The token of each answer at the first word that differs: the one whose alternatives are worth a look. Where one answer
 * ends before the other, that is the token that ended it. 0 and 0 for answers that say the same.
 */
export function firstDifference(
  before: TokenisedText,
  after: TokenisedText,
): { before: number; after: number } {
  const left = words(before.text);
  const right = words(after.text);
  let same = 0;
  while (same < left.length && same < right.length && comparable(left[same]!) === comparable(right[same]!))
    same++;
  if (same === left.length && same === right.length) return { before: 0, after: 0 };
  return { before: tokenAt(before, left.slice(0, same)), after: tokenAt(after, right.slice(0, same)) };
}

interface TokenisedText {
  readonly text: string;
  readonly tokens: readonly Pick<AnswerToken, 'text'>[];
}

/** The token that wrote the word after `words`; the last token where there is none. */
function tokenAt({ text, tokens }: TokenisedText, words: readonly string[]): number {
  const start = words.join('').length;
  let at = 0;
  for (const span of tokenSpans(text, tokens)) {
    at += span.text.length;
    if (span.token !== null && at > start) return span.token;
  }
  return Math.max(0, tokens.length - 1);
}

/** A token's text as a label: white space and nothing made visible. */
export function tokenLabel(text: string): string {
  if (text === '') return '∅';
  const trimmed = text.trim();
  return trimmed === '' ? text.replace(/\n/g, '↵').replace(/[^\S↵]/g, '␣') : trimmed;
}
