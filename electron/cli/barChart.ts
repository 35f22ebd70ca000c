/** @file Bars by layer as a PNG: the charts of attribution outside a page. */
import sharp from 'sharp';
import { escaped } from '../evaluation/comparisonReport.ts';

/** One chart: for every layer a bar of each series. */
export interface BarChart {
  readonly title: string;
  /** of the values' axis */
  readonly axis: string;
  readonly series: ReadonlyArray<{ readonly name: string; readonly values: readonly number[] }>;
}

const WIDTH = 840;
const HEIGHT = 340;
const margin = { left: 76, right: 20, top: 66, bottom: 46 };
/** told apart on white, also by those who see no red or green */
const colours = ['#3b6fd4', '#e08a1e', '#2a9d72'] as const;

/** Charts under one another, on white, at twice their size: 1680 pixels wide and 680 a chart. */
export function barChartsPng(charts: readonly BarChart[]): Promise<Buffer> {
  // Twice the usual density: sharp as drawn, not enlarged.
  return sharp(Buffer.from(barChartsSvg(charts)), { density: 2 * 72 })
    .resize(2 * WIDTH, 2 * HEIGHT * charts.length)
    .flatten({ background: '#fff' })
    .png()
    .toBuffer();
}

/** The same as SVG: a title, a key, both axes with their names. */
export function barChartsSvg(charts: readonly BarChart[]): string {
  const height = HEIGHT * charts.length;
  const drawn = charts.map((chart, at) => `<g transform="translate(0 ${at * HEIGHT})">${drawing(chart)}</g>`);
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" font-family="Helvetica, Arial, DejaVu Sans, sans-serif" font-size="12" fill="#565c69"><rect width="100%" height="100%" fill="#fff"/>${drawn.join('')}</svg>`;
}

function drawing({ title, axis, series }: BarChart): string {
  const all = series.flatMap(({ values }) => values).filter(Number.isFinite);
  const [low, high] = [Math.min(0, ...all), Math.max(0, ...all) || 1];
  const count = Math.max(1, ...series.map(({ values }) => values.length));
  const [inner, depth] = [WIDTH - margin.left - margin.right, HEIGHT - margin.top - margin.bottom];
  const y = (value: number) => margin.top + (1 - (value - low) / (high - low)) * depth;
  const slot = inner / count;
  const bar = Math.min(26, (slot * 0.78) / series.length);
  const middle = (layer: number) => margin.left + slot * (layer + 0.5);
  const grid = ticks(low, high).map(
    (mark) =>
      `<path d="M${margin.left} ${y(mark)}H${WIDTH - margin.right}" stroke="${mark === 0 ? '#8b91a0' : '#e3e5ea'}"/><text x="${margin.left - 8}" y="${y(mark) + 4}" text-anchor="end">${Number(mark.toPrecision(6))}</text>`,
  );
  const bars = series.flatMap(({ values }, at) =>
    values.map((value, layer) => {
      const [top, foot] = value < 0 ? [y(0), y(value)] : [y(value), y(0)];
      const left = middle(layer) + bar * (at - series.length / 2);
      return `<rect x="${left}" y="${top}" width="${Math.max(1, bar - 1)}" height="${foot - top}" fill="${colours[at % colours.length]}"/>`;
    }),
  );
  /** every so many layers has its number below it */
  const step = Math.ceil(24 / slot);
  const numbers = Array.from({ length: Math.ceil(count / step) }, (_, at) => at * step).map(
    (layer) =>
      `<text x="${middle(layer)}" y="${HEIGHT - margin.bottom + 17}" text-anchor="middle">${layer}</text>`,
  );
  const keys = series.map(({ name }, at) => {
    const left = margin.left + at * 170;
    return `<rect x="${left}" y="39" width="10" height="10" rx="2" fill="${colours[at % colours.length]}"/><text x="${left + 16}" y="48">${escaped(name)}</text>`;
  });
  const centre = margin.top + depth / 2;
  return [
    `<text x="${margin.left}" y="26" font-size="15" font-weight="600" fill="#1b1d22">${escaped(title)}</text>`,
    ...keys,
    ...grid,
    ...bars,
    ...numbers,
    `<text x="${margin.left + inner / 2}" y="${HEIGHT - 8}" text-anchor="middle">layer</text>`,
    `<text x="18" y="${centre}" text-anchor="middle" transform="rotate(-90 18 ${centre})">${escaped(axis)}</text>`,
  ].join('');
}

/** Round values between `low` and `high`, seven at most or so. */
function ticks(low: number, high: number): number[] {
  const rough = (high - low) / 6;
  const magnitude = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((part) => part * magnitude).find((size) => size >= rough - 1e-12)!;
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, at) => (first + at) * step);
}
