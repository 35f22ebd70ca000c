/**
 * @file Comparisons on several models and data sets in one table: the mean of the papers' five at each size, for every editor.
 */
import type { ComparedEditor } from './comparisonReport.ts';

/** A row of a comparison, as far as the table tells of it. */
export type OverviewRow = Pick<ComparedEditor, 'editor' | 'scope' | 'settings' | 'failed'> & {
  readonly sizes: ReadonlyArray<Pick<ComparedEditor['sizes'][number], 'edits' | 'meanOfFive'>>;
};

/** A comparison of it: of a model, on a data set. */
export interface OverviewPart {
  readonly model: string;
  readonly data: string;
  readonly rows: readonly OverviewRow[];
}

const percent = (share: number | undefined) => (share === undefined ? '' : (100 * share).toFixed(1));
const quoted = (text: string) => (/[",\n]/u.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

/** One line for each model, data set, editor, size and telling, in per cent with the 95 % interval; for a row without any, why. */
export function overviewCsv(parts: readonly OverviewPart[]): string {
  const lines = [
    ['model', 'data', 'editor', 'scope', 'settings', 'edits', 'telling', 'meanOfFive', 'low', 'high', 'why'],
  ];
  for (const { model, data, rows } of parts)
    for (const { editor, scope, settings, sizes, failed } of rows) {
      const row = [model, data, editor, scope, settings];
      if (sizes.length === 0) lines.push([...row, '', '', '', '', '', failed ?? '']);
      for (const { edits, meanOfFive } of sizes)
        for (const telling of ['teacherForced', 'exactMatch'] as const) {
          const found = meanOfFive[telling] ?? undefined;
          const numbers = [found?.mean, found?.low, found?.high].map(percent);
          lines.push([...row, String(edits), telling, ...numbers, failed ?? '']);
        }
    }
  return `${lines.map((cells) => cells.map(quoted).join(',')).join('\n')}\n`;
}
