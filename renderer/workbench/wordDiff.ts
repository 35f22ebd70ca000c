/**
 * @file What changed between two answers, word by word.
 */

/** A stretch of an answer; `changed` where the other answer does not have it. */
export interface DiffPart {
  readonly text: string;
  readonly changed: boolean;
}

/** Answers beyond this many words are compared as wholes: the table below grows with the product of both. */
const longest = 1000;

/**
 * Marks the words of each answer that the other does not share, by their longest common subsequence.
 * White space belongs to the word it follows, so the parts of a side joined together are that answer exactly.
 * Words are compared without regard to case.
 */
export function diffWords(before: string, after: string): { before: DiffPart[]; after: DiffPart[] } {
  const left = words(before);
  const right = words(after);
  if (left.length > longest || right.length > longest) {
    const changed = before !== after;
    return { before: [{ text: before, changed }], after: [{ text: after, changed }] };
  }
  const same = (i: number, j: number) => comparable(left[i]!) === comparable(right[j]!);

  // common[i][j]: length of the longest common subsequence of left[i..] and right[j..]
  const common = Array.from({ length: left.length + 1 }, () => new Uint16Array(right.length + 1));
  for (let i = left.length - 1; i >= 0; i--) {
    for (let j = right.length - 1; j >= 0; j--) {
      common[i]![j] = same(i, j)
        ? common[i + 1]![j + 1]! + 1
        : Math.max(common[i + 1]![j]!, common[i]![j + 1]!);
    }
  }

  const leftChanged: boolean[] = new Array(left.length).fill(true);
  const rightChanged: boolean[] = new Array(right.length).fill(true);
  for (let i = 0, j = 0; i < left.length && j < right.length; ) {
    if (same(i, j)) {
      leftChanged[i++] = false;
      rightChanged[j++] = false;
    } else if (common[i + 1]![j]! >= common[i]![j + 1]!) i++;
    else j++;
  }
  return { before: joined(left, leftChanged), after: joined(right, rightChanged) };
}

/** Whether two answers say the same: case, surrounding white space and a final full stop do not count. */
export function sameAnswer(one: string, other: string): boolean {
  const plain = (text: string) => text.trim().replace(/\.$/, '').replace(/\s+/g, ' ').toLowerCase();
  return plain(one) === plain(other);
}

/** An answer's words, each with the white space after it. */
export function words(text: string): string[] {
  return text.match(/^\s+|\S+\s*/g) ?? [];
}

/** A word as it is compared with others. */
export function comparable(word: string): string {
  return word.trim().toLowerCase();
}

function joined(pieces: string[], changed: boolean[]): DiffPart[] {
  const parts: Array<{ text: string; changed: boolean }> = [];
  pieces.forEach((text, i) => {
    const last = parts.at(-1);
    if (last && last.changed === changed[i]) last.text += text;
    else parts.push({ text, changed: changed[i]! });
  });
  return parts;
}
