/**
 * @file Places values on the axes of a chart.
 */

/** A logarithmic axis from `from` to `to` on 0..1; both above zero. Values beyond lie at its ends. */
export function logarithmic(from: number, to: number): (value: number) => number {
  const width = Math.log(to) - Math.log(from) || 1;
  return (value) => Math.min(1, Math.max(0, (Math.log(value) - Math.log(from)) / width));
}

/** A linear axis from `from` to `to` on 0..1. Values beyond lie at its ends. */
export function linear(from: number, to: number): (value: number) => number {
  const width = to - from || 1;
  return (value) => Math.min(1, Math.max(0, (value - from) / width));
}

/** Round values that span `low` to `high`, `most` of them at most: the ticks of a linear axis. */
export function ticks(low: number, high: number, most = 4): number[] {
  if (!(high > low)) return [low];
  const step = roundStep(low, high, most);
  return multiples(step, Math.ceil(low / step - 1e-9), Math.floor(high / step + 1e-9));
}

/** The same of an axis that is widened so that its ends are round too: nothing drawn on it touches an end by chance. */
export function roundTicks(low: number, high: number, most = 4): number[] {
  if (!(high > low)) return [low];
  const step = roundStep(low, high, most);
  return multiples(step, Math.floor(low / step + 1e-9), Math.ceil(high / step - 1e-9));
}

function roundStep(low: number, high: number, most: number): number {
  const rough = (high - low) / (most - 1);
  const magnitude = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 2.5, 5, 10].map((part) => part * magnitude).find((size) => size >= rough - 1e-12)!;
}

const multiples = (step: number, first: number, last: number): number[] =>
  Array.from({ length: last - first + 1 }, (_, at) => Number(((first + at) * step).toPrecision(12)));

/** Of ascending values those whose labels, `least` wide, have room beside the label behind them; the last has. */
export function apart(values: readonly number[], place: (value: number) => number, least: number): number[] {
  const kept: number[] = [];
  for (const value of values.toReversed())
    if (kept.length === 0 || place(kept[0]!) - place(value) >= least) kept.unshift(value);
  return kept;
}
