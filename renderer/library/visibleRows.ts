/**
 * @file Which rows of a long table are in view, so that only those are drawn.
 */

/** Rows `first` up to, not including, `end`, and the empty space to leave for the others, in pixels. */
export interface VisibleRows {
  readonly first: number;
  readonly end: number;
  readonly above: number;
  readonly below: number;
}

/** The rows of equal height in view at a scroll position, and `spare` more each way. */
export function visibleRows(
  total: number,
  rowHeight: number,
  scrollTop: number,
  viewHeight: number,
  spare = 6,
): VisibleRows {
  const clamp = (row: number) => Math.min(total, Math.max(0, row));
  const first = clamp(Math.floor(scrollTop / rowHeight) - spare);
  const end = clamp(Math.ceil((scrollTop + viewHeight) / rowHeight) + spare);
  return { first, end, above: first * rowHeight, below: (total - end) * rowHeight };
}
