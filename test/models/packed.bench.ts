/**
 * @file What packing costs in answers: the demo model with its trained adapter, as it is and in 8 and 4 bits with more and fewer of its
 * matrices held finer. `npm run bench -- packed [edits, default 150] [all: every division, not only the one that is used]`.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { writeEditingSet } from '../../electron/demo/editingSet.ts';
import { OpenModel } from '../../electron/engine/openModel.ts';
import { benchmark } from '../../electron/evaluation/benchmark.ts';
import { readEditingSet } from '../../electron/evaluation/editingSet.ts';
import { paperMetrics } from '../../electron/evaluation/metrics.ts';
import { type FinePart, finePart, type PackedForm } from '../../electron/models/packed/form.ts';

const [, edits = '150', extent] = process.argv.slice(2);
const resources = fileURLToPath(new URL('../../resources/', import.meta.url));
const folder = await mkdtemp(join(tmpdir(), 'emend-packed-bench-'));
const context = { signal: new AbortController().signal, send: () => {} };

interface Measured {
  readonly metrics: readonly number[];
  readonly answers: readonly string[];
}

async function measure(form: 'dense' | PackedForm): Promise<Measured> {
  const model = await OpenModel.open(
    {
      ...{ path: join(resources, 'demo-model'), adapter: join(resources, 'demo-adapter') },
      ...{ providers: ['cpu'], template: 'plain', weights: form },
      packed: { folder: join(folder, 'packed'), limitBytes: 1e10 },
    },
    context,
  );
  try {
    const set = await readEditingSet(join(folder, 'test.json'), { limit: Number(edits) });
    const options = { scoped: false, reach: 'picture' as const, suffix: '', textSuffix: '' };
    const result = await benchmark(model.edited, set, { ...options, maxNewTokens: 32, seed: 1 });
    const answers = result.records.flatMap(({ measurements }) =>
      Object.values(measurements).flatMap((measured) =>
        measured.flatMap(({ before, after }) => [before, after]),
      ),
    );
    return {
      metrics: paperMetrics.flatMap((metric) => {
        const { teacherForced, exactMatch } = result.metrics[metric];
        return [teacherForced?.mean ?? Number.NaN, exactMatch?.mean ?? Number.NaN];
      }),
      answers,
    };
  } finally {
    await model.dispose();
  }
}

const divisions: ReadonlyArray<readonly [string, FinePart]> = [
  ['all alike', { first: 0, last: 0, head: false }],
  ['head finer', { first: 0, last: 0, head: true }],
  ['head, first and last layer finer', { first: 1, last: 1, head: true }],
];

try {
  await writeEditingSet(folder, 'test', Number(edits), 5);
  const dense = await measure('dense');
  const told = (of: Measured) => of.metrics.map((value) => (100 * value).toFixed(1).padStart(7)).join('');
  console.log(`  ${''.padEnd(48)}  same answers   five metrics, teacher-forced and exact match each`);
  console.log(`  ${'as it is'.padEnd(48)}${'–'.padStart(14)}  ${told(dense)}`);
  for (const form of ['8bit', '4bit'] as const) {
    const used = finePart[form];
    for (const [name, division] of divisions) {
      const isUsed = JSON.stringify(division) === JSON.stringify(used);
      if (!isUsed && extent !== 'all') continue;
      (finePart as Record<PackedForm, FinePart>)[form] = division;
      const packed = await measure(form);
      const same = packed.answers.filter((answer, i) => answer === dense.answers[i]).length;
      const share = `${((100 * same) / dense.answers.length).toFixed(2)} %`;
      console.log(
        `  ${`${form}, ${name}${isUsed ? ' (used)' : ''}`.padEnd(48)}${share.padStart(14)}  ${told(packed)}`,
      );
    }
    (finePart as Record<PackedForm, FinePart>)[form] = used;
  }
  console.log(`  ${edits} edits, ${dense.answers.length} answers; seed 5 of the demo's editing sets.`);
} finally {
  await rm(folder, { recursive: true, force: true });
}
