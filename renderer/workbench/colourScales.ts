/**
 * @file Colour scales for values from 0 to 1.
 */

export type ColourScale = 'turbo' | 'viridis';

/** Red, green and blue, 0..255. */
export type Colour = readonly [number, number, number];

/** Stops of Viridis (Smith & van der Walt, matplotlib, CC0), evenly spaced. */
const viridis: readonly Colour[] = [
  [68, 1, 84],
  [72, 40, 120],
  [62, 74, 137],
  [49, 104, 142],
  [38, 130, 142],
  [31, 158, 137],
  [53, 183, 121],
  [109, 205, 89],
  [180, 222, 44],
  [253, 231, 37],
];

/** The colour of a value on a scale; values outside 0..1 take the nearest end. */
export function colourAt(scale: ColourScale, value: number): Colour {
  const x = Math.min(1, Math.max(0, Number.isFinite(value) ? value : 0));
  return scale === 'turbo' ? turbo(x) : between(viridis, x);
}

/** The scale as a CSS gradient from left to right; `alpha` says how opaque each value is painted. */
export function gradient(scale: ColourScale, alpha: (value: number) => number): string {
  const stops = Array.from({ length: 17 }, (_, i) => {
    const [red, green, blue] = colourAt(scale, i / 16);
    return `rgb(${red} ${green} ${blue} / ${alpha(i / 16).toFixed(3)}) ${((i / 16) * 100).toFixed(1)}%`;
  });
  return `linear-gradient(to right, ${stops.join(', ')})`;
}

/** Turbo by its published polynomial (Mikhailov 2019). */
function turbo(x: number): Colour {
  const polynomial = (...coefficients: number[]) =>
    Math.round(Math.min(255, Math.max(0, 255 * coefficients.reduceRight((sum, c) => sum * x + c, 0))));
  return [
    polynomial(0.13572138, 4.6153926, -42.66032258, 132.13108234, -152.94239396, 59.28637943),
    polynomial(0.09140261, 2.19418839, 4.84296658, -14.18503333, 4.27729857, 2.82956604),
    polynomial(0.1066733, 12.64194608, -60.58204836, 110.36276771, -89.90310912, 27.34824973),
  ];
}

function between(stops: readonly Colour[], x: number): Colour {
  const position = x * (stops.length - 1);
  const index = Math.min(stops.length - 2, Math.floor(position));
  const part = position - index;
  const from = stops[index]!;
  const to = stops[index + 1]!;
  const mix = (channel: 0 | 1 | 2) => Math.round(from[channel] * (1 - part) + to[channel] * part);
  return [mix(0), mix(1), mix(2)];
}
