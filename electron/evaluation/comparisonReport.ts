/**
 * @file Editors compared on the same model, data and metrics, as a page (HTML, without scripts), a table (CSV) and data (JSON).
 */
import { type EditVerdict, editVerdicts, type Told } from './benchmark.ts';
import type { Estimate } from './bootstrap.ts';
import { knowledgeMetrics, leakMetrics, type Metric, metricNames, paperMetrics } from './metrics.ts';
import { publishedAtThousand, publishedResults } from './published.ts';

/** What was measured of an editor with so many edits at once. */
export interface ComparedSize {
  /** edits that act together; 1: each edit of the set alone */
  readonly edits: number;
  /** by metric; reports of earlier versions lack some */
  readonly metrics: Readonly<Partial<Record<Metric, Told>>>;
  readonly meanOfFive: Told;
  /** of edits together, as far as they were told */
  readonly verdicts?: Readonly<Partial<Record<EditVerdict, number>>>;
}

/** A row of the comparison: an editor, and what decides where its edits act. */
export interface ComparedEditor {
  readonly editor: string;
  /** in a few words: what of the model it changes */
  readonly acts: string;
  /** what decides where its edits act, in words */
  readonly scope: string;
  /** the settings it was measured with, as name=value; empty where its adapter holds them */
  readonly settings: string;
  readonly sizes: readonly ComparedSize[];
  /** of edits measured alone; null where none were */
  readonly verdicts: Readonly<Partial<Record<EditVerdict, number>>> | null;
  /** what one edit takes: seconds in the median, bytes in a library */
  readonly cost: { readonly seconds: number; readonly bytes: number } | null;
  /** the most memory the process held while it measured, bytes */
  readonly peak: number | null;
  /** why it could not be measured; null when it was */
  readonly failed: string | null;
  /** names of the files in `runs` that hold what was measured of it, edit by edit; reports of earlier versions have none */
  readonly runs?: { readonly single: string | null; readonly many: string | null };
}

export interface Comparison {
  readonly emend: string;
  /** of other rows than the papers' editors; they keep their order then, and what papers report is left out */
  readonly title?: string;
  readonly model: { readonly name: string; readonly fingerprint: string };
  readonly data: {
    readonly name: string;
    readonly sha256: string;
    readonly single: number;
    readonly probes: number;
    /** random draws of so many edits, where several were measured */
    readonly seeds?: number;
    /** folder of its pictures, from the report's */
    readonly images?: string;
  };
  readonly sizes: readonly number[];
  /** the command that measures it again */
  readonly command: string;
  readonly editors: readonly ComparedEditor[];
}

const heads: Readonly<Record<Metric, string>> = {
  reliability: 'Rel.',
  textGenerality: 'T-Gen.',
  imageGenerality: 'M-Gen.',
  textLocality: 'T-Loc.',
  imageLocality: 'M-Loc.',
  samePicture: 'Same picture',
  sameQuestion: 'Same question',
  textReliability: 'T-Rel.',
  imageReliability: 'I-Rel.',
  portability: 'Port.',
};
const columns: readonly Metric[] = metricNames;
const perCent = (found: Estimate | null) => (found ? (100 * found.mean).toFixed(1) : '');

/** One line for each editor, size and telling. */
export function comparisonCsv({ editors }: Comparison): string {
  const quote = (text: string) => (/[",\n]/u.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const lines = [
    [
      'editor',
      'scope',
      'settings',
      'edits',
      'telling',
      ...columns,
      'meanOfFive',
      'editSeconds',
      'editBytes',
      'peakBytes',
    ],
  ];
  for (const { editor, scope, settings, sizes, cost, peak } of editors)
    for (const size of sizes)
      for (const telling of ['teacherForced', 'exactMatch'] as const)
        lines.push([
          ...[editor, scope, settings, String(size.edits), telling],
          ...columns.map((metric) => perCent(size.metrics[metric]?.[telling] ?? null)),
          perCent(size.meanOfFive[telling]),
          ...[
            cost?.seconds.toFixed(4) ?? '',
            cost ? String(Math.round(cost.bytes)) : '',
            peak === null ? '' : String(peak),
          ],
        ]);
  return `${lines.map((cells) => cells.map(quote).join(',')).join('\n')}\n`;
}

/** For a terminal: mean of the five at every size; a row that was measured in part says why, beside what was measured. */
export function comparisonText({ editors, sizes }: Comparison): string {
  const heads = sizes.map((size) => (size === 1 ? 'each alone' : `${size} edits`).padStart(15));
  const share = (found: Estimate | null) => perCent(found) || '–';
  return [
    'mean of the five, teacher-forced / exact match, %',
    `${''.padEnd(34)}${heads.join('')}`,
    ...editors.map(({ editor, scope, sizes: found, failed }) => {
      const cells = sizes.map((edits) => {
        const mean = found.find((size) => size.edits === edits)?.meanOfFive;
        return (mean ? `${share(mean.teacherForced)} / ${share(mean.exactMatch)}` : '–').padStart(15);
      });
      const partly = found.length > 0;
      const why = failed === null ? '' : `  ${partly ? 'In part: ' : ''}${failed}`;
      return `${`${editor}, ${scope}`.padEnd(34)}${failed === null || partly ? cells.join('') : ''}${why}`;
    }),
  ].join('\n');
}

/** A deviation over draws, where there is one. */
const over = (found: Estimate | null) =>
  found?.deviation === undefined ? '' : `<i> ± ${(100 * found.deviation).toFixed(1)}</i>`;

export const escaped = (text: string) =>
  text.replace(/[&<>"]/gu, (sign) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[sign]!);

const bytesText = (bytes: number) =>
  bytes >= 1e9
    ? `${(bytes / 1e9).toFixed(1)} GB`
    : bytes >= 1e6
      ? `${(bytes / 1e6).toFixed(1)} MB`
      : `${(bytes / 1e3).toFixed(1)} KB`;

/** A cell with a bar as long as its share of 100. */
function scoreCell(told: Told | undefined, strong = false): string {
  const { exactMatch, teacherForced } = told ?? { exactMatch: null, teacherForced: null };
  if (!exactMatch && !teacherForced) return '<td class="none">–</td>';
  const share = exactMatch?.mean ?? teacherForced!.mean;
  const range = exactMatch
    ? ` title="95 %: ${(100 * exactMatch.low).toFixed(1)}–${(100 * exactMatch.high).toFixed(1)}, ${exactMatch.count} probes"`
    : '';
  return `<td${strong ? ' class="mean"' : ''} style="--share:${(100 * share).toFixed(1)}%"${range}><b>${perCent(exactMatch) || '–'}</b>${over(exactMatch)} <span>${perCent(teacherForced) || '–'}${over(teacherForced)}</span></td>`;
}

/** Edits by what they do as a whole, best first; the ones that hold in bold. */
function verdictCell(verdicts: ComparedSize['verdicts']): string {
  const counts = editVerdicts.toReversed().map((kind) => ({ kind, count: verdicts?.[kind] ?? 0 }));
  const all = counts.reduce((sum, { count }) => sum + count, 0);
  if (all === 0) return '<td class="none">–</td>';
  const rest = counts.filter(({ kind, count }) => kind !== 'holds' && count > 0);
  const told = rest.map(({ kind, count }) => `${count} ${verdictWords[kind]}`).join(', ');
  return `<td class="verdicts"><b>${verdicts?.holds ?? 0} of ${all}</b> hold<small>${told}</small></td>`;
}
const verdictWords: Readonly<Record<EditVerdict, string>> = {
  holds: 'hold',
  'under-generalises': 'under-generalise',
  leaks: 'leak',
  entangled: 'entangled',
  fails: 'fail',
};

function sizeTable(comparison: Comparison, edits: number): string {
  const found = comparison.editors.flatMap((row) => {
    const size = row.sizes.find((one) => one.edits === edits);
    return size ? [{ row, size }] : [];
  });
  if (found.length === 0) return '';
  const mean = (row: (typeof found)[number]) => row.size.meanOfFive.exactMatch?.mean ?? 0;
  const sorted = comparison.title ? found : found.toSorted((a, b) => mean(b) - mean(a));
  const title =
    edits === 1
      ? `One edit at a time (${comparison.data.seeds ? `mean ± standard deviation of ${comparison.data.seeds} draws of ${comparison.data.single} edits` : `${comparison.data.single} edits`})`
      : `${edits.toLocaleString('en')} edits at once (probes of ${Math.min(edits, comparison.data.probes)} of them)`;
  const beyond = [...leakMetrics, ...knowledgeMetrics].filter((metric) =>
    found.some(({ size }) => size.metrics[metric]?.exactMatch),
  );
  // Of edits alone they stand beside what an edit costs.
  const judged = edits > 1 && found.some(({ size }) => size.verdicts);
  const body = sorted.map(
    ({ row, size }) =>
      `<tr><th>${escaped(row.editor)}<small>${escaped(row.scope)}</small></th>${paperMetrics.map((metric) => scoreCell(size.metrics[metric])).join('')}${scoreCell(size.meanOfFive, true)}${beyond.map((metric) => scoreCell(size.metrics[metric])).join('')}${judged ? verdictCell(size.verdicts) : ''}</tr>`,
  );
  const head = [
    ...paperMetrics.map((metric) => heads[metric]),
    'Mean of five',
    ...beyond.map((metric) => heads[metric]),
    ...(judged ? ['Edits'] : []),
  ];
  return `<h2>${title}</h2><table><thead><tr><th>Editor</th>${head.map((text) => `<th>${text}</th>`).join('')}</tr></thead><tbody>${body.join('')}</tbody></table>`;
}

function costTable({ editors }: Comparison): string {
  const rows = editors.map(({ editor, scope, acts, settings, verdicts, cost, peak, failed }) => {
    const cells = [
      verdicts ? `${verdicts.holds}` : '–',
      verdicts ? `${verdicts['under-generalises']}` : '–',
      verdicts ? `${verdicts.leaks}` : '–',
      verdicts ? `${verdicts.fails}` : '–',
      cost
        ? cost.seconds < 0.1
          ? `${(1000 * cost.seconds).toFixed(0)} ms`
          : `${cost.seconds.toFixed(1)} s`
        : '–',
      cost ? bytesText(cost.bytes) : '–',
      peak === null ? '–' : bytesText(peak),
    ];
    const told = [acts, settings].filter((text) => text !== '').join('; ');
    return `<tr><th>${escaped(editor)}<small>${escaped(scope)}</small></th>${cells.map((text) => `<td>${text}</td>`).join('')}<td class="text">${escaped(failed ?? told)}</td></tr>`;
  });
  const head = [
    'Editor',
    'Hold',
    'Under-generalise',
    'Leak',
    'Fail',
    'Making one',
    'In a library',
    'Memory at most',
    'What it changes, with which settings',
  ];
  return `<h2>Each edit, and what it costs</h2><table><thead><tr>${head.map((text, place) => `<th${place === head.length - 1 ? ' class="text"' : ''}>${text}</th>`).join('')}</tr></thead><tbody>${rows.join('')}</tbody></table>`;
}

function publishedTables(): string {
  const tables = Object.entries(publishedResults).map(([backbone, results]) => {
    const rows = results.map(
      ({ editor, scores }) =>
        `<tr><th>${escaped(editor)}</th>${scores.map((score) => `<td>${score.toFixed(1)}</td>`).join('')}</tr>`,
    );
    const head = ['Editor', ...paperMetrics.map((metric) => heads[metric]), 'Mean of five'];
    return `<h3>${backbone}</h3><table class="plain"><thead><tr>${head.map((text) => `<th>${text}</th>`).join('')}</tr></thead><tbody>${rows.join('')}</tbody></table>`;
  });
  const many = Object.entries(publishedAtThousand).map(
    ([editor, mean]) => `${escaped(editor)} ${mean.toFixed(1)}`,
  );
  return `<h2>What the papers report</h2><p>E-VQA, one edit at a time, teacher-forced, per cent: VisEdit’s Table 1, DualEdit’s row from its own Table 2. Other models, other data: the order of editors may be compared, the numbers may not.</p>${tables.join('')}<p>With 1,000 edits at once (LLaVA-V1.5, LiveEdit’s Table 1, mean of five): ${many.join(', ')}.</p>`;
}

export const style = `:root{color-scheme:light dark;--text:#1b1d22;--dim:#6a7080;--line:#e3e5ea;--back:#fff;--bar:#e4ecfb}
@media (prefers-color-scheme:dark){:root{--text:#e6e8ee;--dim:#9aa1b2;--line:#2b2f38;--back:#15171c;--bar:#23304b}}
body{font:14px/1.5 system-ui,sans-serif;color:var(--text);background:var(--back);max-width:1180px;margin:40px auto;padding:0 24px}
h1{font-size:24px;margin:0 0 4px}h2{font-size:17px;margin:40px 0 8px}h3{font-size:14px;margin:20px 0 4px}p,small{color:var(--dim)}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}th,td{padding:6px 10px;border-bottom:1px solid var(--line);text-align:right;vertical-align:baseline}
th:first-child,td.text,th.text{text-align:left}thead th{color:var(--dim);font-weight:500;white-space:nowrap}tbody th{font-weight:600}small{display:block;font-weight:400}
td[style]{background:linear-gradient(to right,var(--bar) var(--share),transparent 0) no-repeat 10px 100%/calc(100% - 20px) 3px}td span{color:var(--dim);font-size:12px}td i{color:var(--dim);font-size:11px;font-style:normal}td b{font-weight:500}td.mean b{font-weight:700}td.verdicts{white-space:nowrap}td.verdicts small{white-space:normal}td.none{color:var(--dim)}table.plain{max-width:720px}code{font-size:12px;overflow-wrap:anywhere}`;

export function comparisonHtml(comparison: Comparison): string {
  const { model, data, emend, command, sizes, title = 'Editors compared' } = comparison;
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>${escaped(title)} on ${escaped(model.name)}</title><style>${style}</style></head>
<body><h1>${escaped(title)} on ${escaped(model.name)}</h1>
<p>Exact match of free generation in bold, teacher-forced token accuracy beside it, per cent; the bar is the bold number. Under the pointer: the 95 % interval. Locality is against the unedited model.</p>
${sizes.map((size) => sizeTable(comparison, size)).join('\n')}
${costTable(comparison)}
${comparison.title ? '' : publishedTables()}
<h2>How it was made</h2><p>Emend ${escaped(emend)}, model ${escaped(model.name)} ${model.fingerprint.slice(0, 12)}, data ${escaped(data.name)} ${data.sha256.slice(0, 12)}.</p><p><code>${escaped(command)}</code></p>
</body></html>
`;
}
