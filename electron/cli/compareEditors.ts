/** @file `emend bench --editor all`: editors measured in a process of their own each, and one report of them all. */
import { mkdir, readdir, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { z } from 'zod';
import { demandEditor, editorKinds } from '../editors/registry.ts';
import { hasScope } from '../editors/scope/openScope.ts';
import { EmendError } from '../errors.ts';
import type { ComparedEditor, Comparison } from '../evaluation/comparisonReport.ts';
import { readEditingSet } from '../evaluation/editingSet.ts';
import { readJson } from '../files/json.ts';
import { version } from '../frontends/places.ts';
import { tellProgress } from './options.ts';
import { type ManyReport, measured, type SingleReport, writeReports } from './ownProcess.ts';

/** One editor as it is measured: what the table calls it, and how `emend bench` is told to measure it. */
interface Contender {
  readonly editor: string;
  readonly acts: string;
  readonly scope: string;
  readonly settings: string;
  readonly args: readonly string[];
  /** whether its edits alone, and many of them, are measured like this */
  readonly measures: ReadonlyArray<'single' | 'many'>;
}

export interface ComparisonOptions {
  readonly data: string;
  readonly at: readonly number[];
  readonly limit: number;
  readonly limitProbes: number;
  readonly out: string;
  /** names of editors; all of them when absent */
  readonly editors?: readonly string[] | undefined;
  /** adapter folders of the model, or folders that hold such */
  readonly adapters: readonly string[];
  /** options of `emend bench` that are the same for all, as typed */
  readonly common: readonly string[];
  readonly command: string;
  readonly signal: AbortSignal;
}

const Written = z.object({
  editor: z.string().max(100),
  settings: z.record(z.string(), z.unknown()).optional(),
});

/** Adapter folders among `folders` and what lies directly in them. */
async function adapterFolders(
  folders: readonly string[],
): Promise<Array<{ folder: string; editor: string }>> {
  const found: Array<{ folder: string; editor: string }> = [];
  for (const folder of folders) {
    const entries = await readdir(folder, { withFileTypes: true }).catch((cause: NodeJS.ErrnoException) => {
      throw new EmendError('not-found', `The folder of adapters ${folder} cannot be read (${cause.code}).`, {
        cause,
      });
    });
    const inside = entries.filter((entry) => entry.isDirectory());
    for (const path of [folder, ...inside.map(({ name }) => join(folder, name)).sort()]) {
      if (!(await stat(join(path, 'adapter.json')).catch(() => null))) continue;
      const said = Written.safeParse(await readJson(join(path, 'adapter.json')));
      if (said.success) found.push({ folder: path, editor: said.data.editor });
    }
  }
  return found;
}

async function contenders({ adapters, editors }: ComparisonOptions): Promise<Contender[]> {
  const kinds = editors?.map(demandEditor) ?? editorKinds;
  const folders = await adapterFolders(adapters);
  const learned = await Promise.all(folders.map(({ folder }) => hasScope(folder)));
  const router = learned.some((there) => there) ? 'learned' : 'cosine';
  return kinds.flatMap((kind): Contender[] => {
    const { name: editor, acts } = kind;
    const opened = kind.untrained
      ? [{ args: ['--editor', editor], settings: '' }]
      : folders
          .filter((folder) => folder.editor === editor)
          .map(({ folder }) => ({ args: ['--adapter', folder], settings: `adapter ${basename(folder)}` }));
    // In its published form an editor without training has no scope, or one of its own, with many edits too.
    const published = kind.untrained && kind.untrained.scope !== 'routed' ? kind.untrained.scope : null;
    return opened.flatMap(({ args, settings }): Contender[] => [
      {
        ...{ editor, acts, settings, args },
        scope: published === 'own' ? 'its own scope' : 'no scope',
        measures: published ? ['single', 'many'] : ['single'],
      },
      {
        editor,
        acts,
        settings,
        args: [...args, '--scoped', ...(published ? ['--scope', router] : [])],
        scope: 'behind the router',
        measures: ['single', 'many'],
      },
    ]);
  });
}

/**
 * Measures every editor and writes report.html, report.csv and report.json. What was measured before with the same command,
 * program and files is taken from `out`; an editor that cannot be measured is told in the report.
 * @throws EmendError 'cancelled', with everything measured so far kept
 */
export async function compareEditors(options: ComparisonOptions): Promise<Comparison> {
  const { data, at, limit, limitProbes, out, common } = options;
  const set = await readEditingSet(data, {});
  const many = at.filter((size) => size > 1);
  const most = many.at(-1) ?? 1;
  if (most > set.records.length)
    throw new EmendError(
      'invalid-input',
      `${data} holds ${set.records.length} edits, and ${most} are to act together. Make a larger set, or ask for fewer.`,
    );
  await mkdir(join(out, 'runs'), { recursive: true });
  let model: Comparison['model'] | null = null;
  const editors: ComparedEditor[] = [];
  const wanted = await contenders(options);
  for (const [place, contender] of wanted.entries()) {
    const { editor, acts, scope, settings, measures } = contender;
    const run = <T>(kind: string, args: readonly string[]): Promise<T> =>
      measured<T>(
        ['bench', '--data', data, ...common, ...contender.args, ...args],
        join(out, 'runs', `${editor} ${settings} ${scope} ${kind}`.replaceAll(/[^\w]+/g, '-')),
        [set.sha256, version()],
        options.signal,
      );
    tellProgress(`${editor}, ${scope}:`, place, wanted.length);
    try {
      const single = measures.includes('single')
        ? await run<SingleReport>('single', ['--limit', String(limit)])
        : null;
      const together =
        many.length > 0 && measures.includes('many')
          ? await run<ManyReport>('many', ['--at', many.join(','), '--limit-probes', String(limitProbes)])
          : null;
      model ??= single?.model ?? null;
      editors.push({
        ...{ editor, acts, scope, settings },
        sizes: [
          ...(single && at.includes(1)
            ? [{ edits: 1, metrics: single.metrics, meanOfFive: single.meanOfFive }]
            : []),
          ...(together?.sizes ?? []),
        ],
        verdicts: single?.verdicts ?? null,
        cost: single?.cost ?? null,
        peak: Math.max(single?.peakBytes ?? 0, together?.peakBytes ?? 0) || null,
        failed: null,
      });
    } catch (error) {
      if (!(error instanceof EmendError) || error.code === 'cancelled') throw error;
      editors.push({
        ...{ editor, acts, scope, settings, sizes: [], verdicts: null, cost: null, peak: null },
        failed: error.message,
      });
    }
    const comparison: Comparison = {
      emend: version(),
      model: model ?? { name: 'no model', fingerprint: '' },
      data: {
        name: basename(data),
        sha256: set.sha256,
        single: Math.min(limit, set.records.length),
        probes: limitProbes,
      },
      sizes: at,
      command: options.command,
      editors,
    };
    await writeReports(out, comparison);
    if (place === wanted.length - 1) return comparison;
  }
  throw new EmendError(
    'not-found',
    'There is nothing to measure: no adapter of these editors was found. Name its folder with --adapters.',
  );
}

/** The comparison for a terminal: mean of the five at every size. */
export function comparisonText({ editors, sizes }: Comparison): string {
  const heads = sizes.map((size) => (size === 1 ? 'each alone' : `${size} edits`).padStart(15));
  const share = (found: { readonly mean: number } | null) => (found ? (100 * found.mean).toFixed(1) : '–');
  return [
    'mean of the five, teacher-forced / exact match, %',
    `${''.padEnd(34)}${heads.join('')}`,
    ...editors.map(({ editor, scope, sizes: found, failed }) => {
      const cells = sizes.map((edits) => {
        const mean = found.find((size) => size.edits === edits)?.meanOfFive;
        return (mean ? `${share(mean.teacherForced)} / ${share(mean.exactMatch)}` : '–').padStart(15);
      });
      return `${`${editor}, ${scope}`.padEnd(34)}${failed ? `  ${failed}` : cells.join('')}`;
    }),
  ].join('\n');
}
