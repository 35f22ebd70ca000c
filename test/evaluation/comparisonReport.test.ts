import { expect, test } from 'vitest';
import {
  type ComparedEditor,
  type Comparison,
  comparisonCsv,
  comparisonHtml,
  comparisonText,
} from '../../electron/evaluation/comparisonReport.ts';
import { metricNames } from '../../electron/evaluation/metrics.ts';

const told = (share: number) => {
  const found = { mean: share, low: share - 0.01, high: share + 0.01, count: 50 };
  return { teacherForced: { ...found, mean: share / 2 }, exactMatch: found };
};
const measured = (edits: number, share: number): ComparedEditor['sizes'][number] => ({
  edits,
  metrics: Object.fromEntries(metricNames.map((metric) => [metric, told(share)])) as never,
  meanOfFive: told(share),
});
const editor = (name: string, changes: Partial<ComparedEditor>): ComparedEditor => ({
  ...{ editor: name, acts: 'rows', scope: 'no scope', settings: '', sizes: [], verdicts: null, cost: null },
  ...{ peak: null, failed: null, ...changes },
});
const comparison: Comparison = {
  emend: '1.2.3',
  model: { name: 'a <model>', fingerprint: 'f'.repeat(64) },
  data: { name: 'set.json', sha256: 'd'.repeat(64), single: 50, probes: 20 },
  sizes: [1, 1000],
  command: 'npx emend bench --editor all',
  editors: [
    editor('Weaker', { sizes: [measured(1, 0.5)], settings: 'rate=1, "steps"=2' }),
    editor('Stronger', {
      sizes: [measured(1, 0.9), measured(1000, 0.8)],
      verdicts: { holds: 40, 'under-generalises': 5, leaks: 3, fails: 2 },
      cost: { seconds: 0.012, bytes: 4096 },
      peak: 2e9,
    }),
    editor('Broken', { failed: 'It cannot act on <this> backbone.' }),
  ],
};

test('the table has a line for each editor, size and telling, and quotes what needs it', () => {
  const lines = comparisonCsv(comparison).trim().split('\n');
  expect(lines).toHaveLength(1 + 2 + 4);
  const heads = lines[0]!.split(',');
  expect(lines[1]).toContain('"rate=1, ""steps""=2"');
  const strong = lines[5]!.split(',');
  expect(Object.fromEntries(heads.map((head, place) => [head, strong[place]]))).toMatchObject({
    ...{ editor: 'Stronger', edits: '1000', telling: 'teacherForced', meanOfFive: '40.0' },
    ...{ editSeconds: '0.0120', editBytes: '4096', peakBytes: '2000000000' },
  });
});

test('the page puts the best first at each size, names what failed and why, and takes no text for markup', () => {
  const html = comparisonHtml(comparison);
  const [, alone, together] = html.split('<h2>');
  expect(alone).toContain('One edit at a time (50 edits)');
  expect(alone!.indexOf('Stronger')).toBeLessThan(alone!.indexOf('Weaker'));
  expect(together).toContain('1,000 edits at once (probes of 20 of them)');
  expect(together).not.toContain('Weaker');
  expect(html).toContain('It cannot act on &lt;this&gt; backbone.');
  expect(html).not.toContain('<model>');
  for (const text of ['12 ms', '4.1 KB', '2.0 GB']) expect(html).toContain(text);
  expect(html).toContain('96.1');
});

test('the page tells what edits do as a whole at each size where that was told, entangled ones too', () => {
  const verdicts = { holds: 14, 'under-generalises': 3, leaks: 0, entangled: 2, fails: 1 };
  const many = editor('Many', { sizes: [measured(1, 0.9), { ...measured(1000, 0.7), verdicts }] });
  const html = comparisonHtml({ ...comparison, editors: [...comparison.editors, many] });
  const [, alone, together] = html.split('<h2>');
  expect(together).toContain('<th>Edits</th>');
  expect(together).toContain('<b>14 of 20</b> hold<small>3 under-generalise, 2 entangled, 1 fail</small>');
  // Stronger's were not told
  expect(together!.match(/<td class="none">–<\/td><\/tr>/g)).toHaveLength(1);
  expect(alone).not.toContain('<th>Edits</th>');
  expect(comparisonHtml(comparison)).not.toContain('<th>Edits</th>');
});

test('a terminal is told what was measured of a row in part, and why not the rest', () => {
  const partly = editor('Partly', { sizes: [measured(1, 0.9)], failed: 'It ran out of memory.' });
  const lines = comparisonText({ ...comparison, editors: [...comparison.editors, partly] }).split('\n');
  expect(lines[1]).toMatch(/^ +each alone +1000 edits$/);
  expect(lines.slice(2)).toEqual([
    expect.stringMatching(/^Weaker, no scope +25\.0 \/ 50\.0 +–$/),
    expect.stringMatching(/^Stronger, no scope +45\.0 \/ 90\.0 +40\.0 \/ 80\.0$/),
    expect.stringMatching(/^Broken, no scope +It cannot act on <this> backbone\.$/),
    expect.stringMatching(/^Partly, no scope +45\.0 \/ 90\.0 +– {2}In part: It ran out of memory\.$/),
  ]);
});
