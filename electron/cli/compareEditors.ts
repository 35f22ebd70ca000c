/** @file `emend bench --editor all`: editors measured in a process of their own each, and one report of them all. */
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { demandEditor, editorKinds } from '../editors/registry.ts';
import { hasScope } from '../editors/scope/openScope.ts';
import { EmendError } from '../errors.ts';
import {
  type Contender,
  compareContenders,
  contendersOf,
  type MeasuredEdits,
} from '../evaluation/comparing.ts';
import type { Comparison } from '../evaluation/comparisonReport.ts';
import { readEditingSet } from '../evaluation/editingSet.ts';
import type { SetFormatName } from '../evaluation/sets/registry.ts';
import { readJson } from '../files/json.ts';
import { version } from '../frontends/places.ts';
import { tellProgress } from './options.ts';
import { runEmend } from './ownProcess.ts';

export interface ComparisonOptions {
  readonly data: string;
  readonly format?: SetFormatName | undefined;
  readonly images?: string | undefined;
  /** random draws that edits alone are measured over */
  readonly seeds?: number | undefined;
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
  const folders = await adapterFolders(adapters);
  const learned = await Promise.all(folders.map(({ folder }) => hasScope(folder)));
  const router = learned.some((there) => there) ? 'learned' : 'cosine';
  return contendersOf(editors?.map(demandEditor) ?? editorKinds, folders, router);
}

/**
 * Measures every editor and writes report.html, report.csv and report.json. What was measured before with the same command,
 * program and files is taken from `out`; an editor that cannot be measured is told in the report.
 * @throws EmendError 'cancelled', with everything measured so far kept
 */
export async function compareEditors(options: ComparisonOptions): Promise<Comparison> {
  const { data, format, images, seeds, at, limit, limitProbes, out, common, command, signal } = options;
  const set = await readEditingSet(data, { format, images });
  const together = at.filter((size) => size > 1).join(',');
  const argumentsOf = ({ adapter, editor, scoped, form }: Contender, edits: MeasuredEdits) => [
    ...['bench', '--data', data, ...common],
    ...(adapter === null ? ['--editor', editor] : ['--adapter', adapter]),
    ...(scoped ? ['--scoped'] : []),
    ...(form === null ? [] : ['--scope', form]),
    ...(edits === 'single'
      ? ['--limit', String(limit)]
      : ['--at', together, '--limit-probes', String(limitProbes)]),
  ];
  return compareContenders({
    ...{ contenders: await contenders(options), set, seeds, at, limit, limitProbes, folder: out },
    ...{ emend: version(), command, signal, identity: argumentsOf },
    measure: (contender, edits, path) => runEmend([...argumentsOf(contender, edits), '--json', path], signal),
    onProgress: (done, total, { editor, scope }) => tellProgress(`${editor}, ${scope}:`, done, total),
  });
}
