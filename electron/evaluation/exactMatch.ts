/**
 * @file Exact match of free generation: when two answers count as the same, for people as for checks.
 */

/** The form in which answers are compared: trimmed, spaces collapsed, lower case, no full stop at the end. */
export function normaliseAnswer(answer: string): string {
  return answer
    .replace(/\s+/gu, ' ')
    .trim()
    .toLowerCase()
    .replace(/\s*\.$/u, '');
}

/** Whether two answers say the same, by exact match after {@link normaliseAnswer}. */
export function sameAnswer(one: string, other: string): boolean {
  return normaliseAnswer(one) === normaliseAnswer(other);
}

/**
 * Whether a probe passes: with an expected answer, when the edited model gives it; without one (locality), when the
 * answer is what it was.
 */
export function probePasses(expected: string | null, before: string, after: string): boolean {
  return sameAnswer(after, expected ?? before);
}
