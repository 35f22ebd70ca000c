/**
 * @file An answer cut into what can be pointed at and what changed.
 */
import type { AnswerToken } from '../../electron/api/contract.ts';
import { tokenSpans } from './answerTokens.ts';
import type { DiffPart } from './wordDiff.ts';

export interface AnswerPiece {
  readonly text: string;
  /** index of the token that wrote it; null for white space between */
  readonly token: number | null;
  readonly changed: boolean;
  /** where it begins */
  readonly at: number;
}

/**
 * Tokens and changed parts cut across each other: pieces are what is left when both cuts are made. Joined together they are the text.
 * @param parts the same text in parts, with what changed; null where nothing is compared
 */
export function answerPieces(
  text: string,
  tokens: readonly AnswerToken[],
  parts: readonly DiffPart[] | null,
): AnswerPiece[] {
  const pieces: AnswerPiece[] = [];
  const marks = parts ?? [{ text, changed: false }];
  let at = 0;
  let mark = 0;
  let markEnd = marks[0]?.text.length ?? 0;
  for (const span of tokenSpans(text, tokens)) {
    const spanEnd = at + span.text.length;
    while (at < spanEnd) {
      while (at >= markEnd && mark + 1 < marks.length) markEnd += marks[++mark]!.text.length;
      const end = at < markEnd ? Math.min(spanEnd, markEnd) : spanEnd;
      const changed = marks[mark]?.changed ?? false;
      pieces.push({ text: text.slice(at, end), token: span.token, changed, at });
      at = end;
    }
  }
  return pieces;
}
