/**
 * @file What a gate's similarities are, for people and programs: a text table, data (JSON), a table (CSV), and a page with DualEdit's Fig. 4 (HTML, without
 * scripts).
 */
import { join } from 'node:path';
import { replaceFiles } from '../files/replaceFile.ts';
import { escaped, style } from './comparisonReport.ts';
import {
  type GateFinding,
  type GateKind,
  type GateRepresentation,
  type GateSeparation,
  gateKinds,
} from './gateSimilarity.ts';

/** Bars of a histogram. */
const BINS = 40;

const representationLabels: Readonly<Record<GateRepresentation, string>> = {
  visual: '(a) mean visual row',
  textual: '(b) mean textual row',
  lastPromptToken: '(c) last prompt token',
  lastToken: 'published: the target’s last token',
  lastTokenAsked: 'published, asked without the answer',
};
const kindHeads: Readonly<Record<GateKind, string>> = {
  'text-generality': 'T-Gen.',
  'image-generality': 'M-Gen.',
  'text-locality': 'T-Loc.',
  'image-locality': 'M-Loc.',
  'same-picture': 'Same picture',
  'same-question': 'Same question',
};
const allKinds = Object.values(gateKinds).flat();

/** One kind of input, at a layer and by a representation. */
interface GateDistribution {
  readonly count: number;
  readonly mean: number;
  /** 5, 25, 50, 75 and 95 % */
  readonly quantiles: readonly number[];
  /** share of inputs at or above the threshold, 0..1; null without one */
  readonly letThrough: number | null;
  /** inputs in each bar, from `histogram.from` to `histogram.to` */
  readonly histogram: readonly number[];
}

export interface GateReport {
  readonly emend: string;
  readonly model: { readonly name: string; readonly fingerprint: string };
  readonly data: { readonly name: string; readonly sha256: string; readonly edits: number };
  /** the command that makes it again */
  readonly command: string;
  readonly findings: ReadonlyArray<{
    readonly layer: number;
    readonly representation: GateRepresentation;
    readonly separation: GateSeparation | null;
    readonly histogram: { readonly from: number; readonly to: number };
    readonly kinds: Readonly<Partial<Record<GateKind, GateDistribution>>>;
  }>;
}

export function gateReport(findings: readonly GateFinding[], made: Omit<GateReport, 'findings'>): GateReport {
  return {
    ...made,
    findings: findings.map(({ layer, representation, similarities, separation }) => {
      const every = [...similarities.values()].flat();
      // Whole twentieths, so that figures of other layers have axes that are easy to compare.
      const from = Math.min(0.95, Math.floor(20 * Math.min(1, ...every)) / 20);
      const kinds = allKinds.flatMap((kind) => {
        const values = similarities.get(kind);
        return values ? [[kind, distribution(values, separation, from)] as const] : [];
      });
      return {
        ...{ layer, representation, separation: separation && roundedSeparation(separation) },
        histogram: { from, to: 1 },
        kinds: Object.fromEntries(kinds),
      };
    }),
  };
}

function roundedSeparation({
  threshold,
  acts,
  staysOut,
  balancedAccuracy,
  auc,
}: GateSeparation): GateSeparation {
  return {
    ...{ threshold: rounded(threshold), acts: rounded(acts), staysOut: rounded(staysOut) },
    ...{ balancedAccuracy: rounded(balancedAccuracy), auc: rounded(auc) },
  };
}

const rounded = (value: number) => Number(value.toFixed(5));

function distribution(
  values: readonly number[],
  separation: GateSeparation | null,
  from: number,
): GateDistribution {
  const sorted = values.toSorted((a, b) => a - b);
  const histogram = new Array<number>(BINS).fill(0);
  for (const value of values)
    histogram[Math.min(BINS - 1, Math.floor((BINS * (value - from)) / (1 - from)))]! += 1;
  return {
    count: values.length,
    mean: rounded(values.reduce((sum, value) => sum + value, 0) / values.length),
    quantiles: [0.05, 0.25, 0.5, 0.75, 0.95].map((share) =>
      rounded(sorted[Math.round(share * (sorted.length - 1))]!),
    ),
    letThrough:
      separation && rounded(values.filter((value) => value >= separation.threshold).length / values.length),
    histogram,
  };
}

const percent = (share: number | null | undefined) =>
  share === null || share === undefined ? '–' : (100 * share).toFixed(1);

/** A line for every layer and representation. */
export function gateText({ findings, data }: GateReport): string {
  const cell = (text: string, width = 9) => text.padStart(width);
  const heads = [
    'threshold',
    'balanced',
    'AUC',
    'text g.',
    'image g.',
    'text l.',
    'image l.',
    'same p.',
    'same q.',
  ];
  const layers = [...new Set(findings.map(({ layer }) => layer))];
  const widest = Math.max(...Object.values(representationLabels).map(({ length }) => length));
  return [
    ...layers.flatMap((layer) => [
      `${`layer ${layer}`.padEnd(widest)}${heads.map((head) => cell(head, 11)).join('')}`,
      ...findings
        .filter((found) => found.layer === layer)
        .map(({ representation, separation, kinds }) => {
          const cells = [
            separation ? separation.threshold.toFixed(4) : '–',
            percent(separation?.balancedAccuracy),
            separation ? separation.auc.toFixed(3) : '–',
            ...allKinds.map((kind) => percent(kinds[kind]?.letThrough)),
          ];
          return `${representationLabels[representation].padEnd(widest)}${cells.map((text) => cell(text, 11)).join('')}`;
        }),
      '',
    ]),
    `Cosines of ${data.edits} edits of ${data.name} with their probes. Threshold: the one that tells generality from locality best;`,
    'balanced: mean of the shares it lets through and keeps out, %. Behind it: what it lets through of each kind of input, %;',
    'an edit should act on the first two. Same picture with another question, same question about another picture: not in the paper.',
  ].join('\n');
}

/** A line for every layer, representation and kind of input. */
export function gateCsv({ findings }: GateReport): string {
  const head = [
    ...['layer', 'representation', 'threshold', 'balancedAccuracy', 'auc', 'kind', 'count', 'mean'],
    ...['q05', 'q25', 'median', 'q75', 'q95', 'letThrough'],
  ];
  const lines = findings.flatMap(({ layer, representation, separation, kinds }) =>
    Object.entries(kinds).map(([kind, { count, mean, quantiles, letThrough }]) => [
      ...[layer, representation, separation?.threshold ?? '', separation?.balancedAccuracy ?? ''],
      ...[separation?.auc ?? '', kind, count, mean, ...quantiles, letThrough ?? ''],
    ]),
  );
  return `${[head, ...lines].map((cells) => cells.join(',')).join('\n')}\n`;
}

/** Whole units a bar. */
const WIDTH = 320;
const HEIGHT = 150;
const FOOT = 18;

/** Generality and locality as two histograms, each of the same area, with the threshold between them. */
function figure({ representation, separation, histogram, kinds }: GateReport['findings'][number]): string {
  const { from, to } = histogram;
  const shares = (wanted: readonly GateKind[]) => {
    const parts = wanted.flatMap((kind) => kinds[kind] ?? []);
    const all = parts.reduce((sum, { count }) => sum + count, 0);
    return Array.from(
      { length: BINS },
      (_, bin) => parts.reduce((sum, part) => sum + part.histogram[bin]!, 0) / Math.max(1, all),
    );
  };
  const both = { generality: shares(gateKinds.generality), locality: shares(gateKinds.locality) };
  const highest = Math.max(...both.generality, ...both.locality) || 1;
  const x = (value: number) => ((WIDTH * (value - from)) / (to - from)).toFixed(1);
  const steps = (values: readonly number[]) => {
    const points = values.map(
      (share) => `V${Math.round((HEIGHT - 6) * (1 - share / highest)) + 6}h${WIDTH / BINS}`,
    );
    return `M0 ${HEIGHT}${points.join('')}V${HEIGHT}Z`;
  };
  const mark = separation
    ? `<line x1="${x(separation.threshold)}" x2="${x(separation.threshold)}" y1="0" y2="${HEIGHT}"/>`
    : '';
  const ticks = [from, (from + to) / 2, to].map(
    (value, place) =>
      `<text x="${x(value)}" y="${HEIGHT + FOOT - 4}" text-anchor="${['start', 'middle', 'end'][place]}">${Number(value.toFixed(3))}</text>`,
  );
  const told = separation
    ? `threshold ${separation.threshold.toFixed(3)}, balanced accuracy ${percent(separation.balancedAccuracy)} %, AUC ${separation.auc.toFixed(3)}`
    : 'nothing to tell apart';
  return `<figure><figcaption><b>${escaped(representationLabels[representation])}</b><small>${told}</small></figcaption><svg viewBox="0 0 ${WIDTH} ${HEIGHT + FOOT}" role="img" aria-label="${escaped(`${representationLabels[representation]}: ${told}`)}"><path class="loc" d="${steps(both.locality)}"/><path class="gen" d="${steps(both.generality)}"/>${mark}<path class="axis" d="M0 ${HEIGHT}H${WIDTH}"/>${ticks.join('')}</svg></figure>`;
}

const figureStyle = `:root{--gen:#2f6fde;--loc:#d9822b}@media (prefers-color-scheme:dark){:root{--gen:#7aa7ff;--loc:#f0a35a}}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(300px,1fr));gap:24px}figure{margin:0}figcaption{margin-bottom:6px}
svg{width:100%;display:block}table{margin-top:20px}tbody th{white-space:nowrap}svg text{font-size:11px;fill:var(--dim)}svg line{stroke:var(--text);stroke-dasharray:4 3}
path{fill-opacity:.3;stroke-width:1.5}path.gen{fill:var(--gen);stroke:var(--gen)}path.loc{fill:var(--loc);stroke:var(--loc)}path.axis{stroke:var(--line);fill:none}
.key{display:inline-block;width:10px;height:10px;border-radius:2px;margin:0 6px 0 12px}`;

export function gateHtml(report: GateReport): string {
  const { model, data, emend, command, findings } = report;
  const layers = [...new Set(findings.map(({ layer }) => layer))];
  const title = `What a gate compares, on ${model.name}`;
  const tables = layers.map((layer) => {
    const own = findings.filter((found) => found.layer === layer);
    const rows = own.map(({ representation, separation, kinds }) => {
      const cells = [
        separation?.threshold.toFixed(3) ?? '–',
        percent(separation?.balancedAccuracy),
        separation?.auc.toFixed(3) ?? '–',
        ...allKinds.map((kind) => percent(kinds[kind]?.letThrough)),
      ];
      return `<tr><th>${escaped(representationLabels[representation])}</th>${cells.map((text) => `<td>${text}</td>`).join('')}</tr>`;
    });
    const head = ['Compared', 'Threshold', 'Balanced, %', 'AUC', ...allKinds.map((kind) => kindHeads[kind])];
    return `<h2>Layer ${layer}</h2><div class="figures">${own.map(figure).join('')}</div><table><thead><tr>${head.map((text) => `<th>${escaped(text)}</th>`).join('')}</tr></thead><tbody>${rows.join('')}</tbody></table>`;
  });
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>${escaped(title)}</title><style>${style}
${figureStyle}</style></head>
<body><h1>${escaped(title)}</h1>
<p>Cosine similarities of ${data.edits} edits with inputs they should act on <span class="key" style="background:var(--gen)"></span>generality and with inputs they should not <span class="key" style="background:var(--loc)"></span>locality (DualEdit, Fig. 4), each as shares of its inputs. The dashed line is the threshold that tells both apart best; the table has what it lets through of every kind of input, per cent: the first two should pass. Text locality has no picture, and so no visual rows.</p>
${tables.join('\n')}
<h2>How it was made</h2><p>Emend ${escaped(emend)}, model ${escaped(model.name)} ${model.fingerprint.slice(0, 12)}, data ${escaped(data.name)} ${data.sha256.slice(0, 12)}. The unedited model’s hidden states are compared.</p><p><code>${escaped(command)}</code></p>
</body></html>
`;
}

/** Writes gate.json, gate.csv and gate.html into a folder that is there. */
export function writeGateReport(folder: string, report: GateReport): Promise<void> {
  const texts = { json: `${JSON.stringify(report)}\n`, csv: gateCsv(report), html: gateHtml(report) };
  return replaceFiles(
    Object.entries(texts).map(
      ([extension, text]) => [join(folder, `gate.${extension}`), (handle) => handle.writeFile(text)] as const,
    ),
  );
}
