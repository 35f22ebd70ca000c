/**
 * @file What was found, as files: tables, the numbers as they are, drawings and maps.
 */

import type { GateReport } from '../../electron/api/contract.ts';

const gateHeads = [
  ...['layer', 'representation', 'threshold', 'balancedAccuracy', 'auc', 'kind', 'count', 'mean'],
  ...['q05', 'q25', 'median', 'q75', 'q95', 'letThrough'],
];

/** Columns of a table, each with a value a line. */
export type Columns = ReadonlyArray<readonly [name: string, values: ReadonlyArray<number | string>]>;

/** What a gate compares: a line for each layer, representation and kind of input, as `emend attribute gate` writes it. */
export function gateColumns({ findings }: GateReport): Columns {
  const lines = findings.flatMap(({ layer, representation, separation, kinds }) =>
    Object.entries(kinds).map(([kind, { count, mean, quantiles, letThrough }]) => [
      ...[layer, representation, separation?.threshold ?? '', separation?.balancedAccuracy ?? ''],
      ...[separation?.auc ?? '', kind, count, mean, ...quantiles, letThrough ?? ''],
    ]),
  );
  return gateHeads.map((name, at) => [name, lines.map((cells) => cells[at]!)] as const);
}

/** A table as CSV: a line of names, then a line for each value. */
export function asCsv(columns: Columns): string {
  const field = (value: number | string) => {
    const text = String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const lines = Array.from({ length: columns[0]?.[1].length ?? 0 }, (_, at) =>
    columns.map(([, values]) => field(values[at] ?? '')).join(','),
  );
  return `${[columns.map(([name]) => field(name)).join(','), ...lines].join('\n')}\n`;
}

/** Hands a file to the browser to save. */
export function save(name: string, content: Blob): void {
  const url = URL.createObjectURL(content);
  const link = document.createElement('a');
  link.href = url;
  link.download = name;
  link.click();
  // not at once: the browser has yet to read it
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** What of its look a drawing needs where the page's style does not reach. */
const looks = [
  'fill',
  'stroke',
  'stroke-width',
  'stroke-dasharray',
  'font-size',
  'font-family',
  'text-anchor',
] as const;

/** Drawings under one another as a PNG, at twice their size, as they look now. */
export async function drawingsAsPng(drawings: readonly SVGSVGElement[]): Promise<Blob> {
  const gap = 16;
  const width = Math.max(...drawings.map((drawing) => drawing.clientWidth));
  const heights = drawings.map((drawing) => drawing.clientHeight);
  const canvas = new OffscreenCanvas(2 * width, 2 * heights.reduce((sum, height) => sum + height + gap, gap));
  const context = canvas.getContext('2d')!;
  context.fillStyle = getComputedStyle(document.body).backgroundColor;
  context.fillRect(0, 0, canvas.width, canvas.height);
  let top = gap;
  for (const [at, drawing] of drawings.entries()) {
    const copy = drawing.cloneNode(true) as SVGSVGElement;
    copy.setAttribute('xmlns', 'http://www.w3.org/2000/svg');
    const copies = [...copy.querySelectorAll<SVGElement>('*')];
    for (const [index, element] of [...drawing.querySelectorAll<SVGElement>('*')].entries()) {
      const style = getComputedStyle(element);
      for (const look of looks) copies[index]!.style.setProperty(look, style.getPropertyValue(look));
    }
    const url = URL.createObjectURL(
      new Blob([new XMLSerializer().serializeToString(copy)], { type: 'image/svg+xml' }),
    );
    try {
      const image = new Image();
      image.src = url;
      await image.decode();
      context.drawImage(image, 0, 2 * top, 2 * drawing.clientWidth, 2 * heights[at]!);
    } finally {
      URL.revokeObjectURL(url);
    }
    top += heights[at]! + gap;
  }
  return canvas.convertToBlob({ type: 'image/png' });
}
