/**
 * @file Long work on many edits, a part at a time: each part is a transaction, and whoever runs it may do other things in between, tell
 * how far it is, and stop it.
 */

/** How far it is. */
export interface Progress {
  readonly stage: string;
  readonly done: number;
  readonly total: number;
}

/** Yields after each part; is given whether to go on. */
export type Parts<T> = Generator<Progress, T, boolean>;

/** So long a part takes, in milliseconds: what waits meanwhile is not noticed. */
const PART = 40;
const MOST_IN_PART = 500;

/** Does all of it at once. */
export function wholly<T>(work: Parts<T>): T {
  for (let step = work.next(true); ; step = work.next(true)) if (step.done) return step.value;
}

/** Works on items from a place on until the time of a part is up; returns the place after the last. */
export function untilTimeIsUp<T>(items: readonly T[], from: number, work: (item: T) => void): number {
  const begun = performance.now();
  let at = from;
  do {
    work(items[at]!);
    at += 1;
  } while (at < items.length && at - from < MOST_IN_PART && performance.now() - begun < PART);
  return at;
}

/**
 * Items a few at a time: so many are done at the least before others have their turn, for what a part costs beside its work is not to
 * outweigh it where the machine is slow.
 */
export function inGroups<T>(items: readonly T[]): T[][] {
  return Array.from({ length: Math.ceil(items.length / GROUP) }, (_, at) =>
    items.slice(at * GROUP, (at + 1) * GROUP),
  );
}
export const GROUP = 20;
