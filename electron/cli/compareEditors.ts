/**
 * @file `emend bench --editor all`: editors measured in a process of their own each, and one report of them all for every model and data
 * set.
 */
import { readdir, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { z } from 'zod';
import { demandEditor, editorKinds } from '../editors/registry.ts';
import { hasScope } from '../editors/scope/openScope.ts';
import { unopenedEditor } from '../engine/openModel.ts';
import { EmendError } from '../errors.ts';
import {
  type ComparisonPlan,
  type Contender,
  compareEach,
  contendersOf,
  type MeasuredEdits,
  partFolder,
} from '../evaluation/comparing.ts';
import type { Comparison } from '../evaluation/comparisonReport.ts';
import { readEditingSet } from '../evaluation/editingSet.ts';
import type { SetFormatName } from '../evaluation/sets/registry.ts';
import { readJson } from '../files/json.ts';
import { version } from '../frontends/places.ts';
import { fingerprint } from '../models/checkpoint.ts';
import { nameOfModel } from '../models/hubCache.ts';
import { type Checkpoint, openCheckpoint } from '../models/open.ts';
import { tellProgress } from './options.ts';
import { runEmend } from './ownProcess.ts';

export interface ComparisonOptions {
  /** checkpoint folders */
  readonly models: readonly string[];
  readonly data: readonly string[];
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
  /** where the scope of a model lies, of editors that have none of their own; null: there is none */
  readonly scopeFolderOf: (model: string) => string | null;
  /** adapter folders, or folders that hold such; of several models each takes those trained for it */
  readonly adapters: readonly string[];
  /** options of `emend bench` that are the same for all, as typed; of several models without `--model` */
  readonly common: readonly string[];
  readonly command: string;
  readonly signal: AbortSignal;
  /** An editor or adapter cannot act on a model, and why: told before anything is measured; its row in the report says so too. */
  readonly onRefused: (model: string, reason: string) => void;
}

const Written = z.object({
  editor: z.string().max(100),
  model: z.string().max(200).optional(),
  settings: z.record(z.string(), z.unknown()).optional(),
});
interface WrittenAdapter {
  readonly folder: string;
  readonly editor: string;
  /** fingerprint of the model it is for; absent: any */
  readonly model?: string | undefined;
}

/** Adapter folders among `folders` and what lies directly in them. */
async function adapterFolders(folders: readonly string[]): Promise<WrittenAdapter[]> {
  const found: WrittenAdapter[] = [];
  for (const folder of folders) {
    const entries = await readdir(folder, { withFileTypes: true }).catch((cause: NodeJS.ErrnoException) => {
      throw new EmendError('not-found', `The folder of adapters ${folder} cannot be read (${cause.code}).`, {
        cause,
      });
    });
    const inside = entries.filter((entry) => entry.isDirectory() || entry.isSymbolicLink());
    for (const path of [folder, ...inside.map(({ name }) => join(folder, name)).sort()]) {
      if (!(await stat(join(path, 'adapter.json')).catch(() => null))) continue;
      const said = Written.safeParse(await readJson(join(path, 'adapter.json')));
      if (said.success) found.push({ folder: path, editor: said.data.editor, model: said.data.model });
    }
  }
  return found;
}

async function contendersFor(
  folders: readonly WrittenAdapter[],
  editors: readonly string[] | undefined,
): Promise<Contender[]> {
  const learned = await Promise.all(folders.map(({ folder }) => hasScope(folder)));
  const router = learned.some((there) => there) ? 'learned' : 'cosine';
  return contendersOf(editors?.map(demandEditor) ?? editorKinds, folders, router);
}

/**
 * Measures every editor on every model and data set, models first, and writes report.html, report.csv and report.json: into `out`, or where
 * there are several into a folder of it each, beside overview.csv. What was measured before with the same command, program and files is
 * taken from there; an editor that cannot be measured is told in the report.
 * @throws EmendError 'cancelled', with everything measured so far kept
 */
export async function compareEditors(
  options: ComparisonOptions,
): Promise<Array<{ folder: string; comparison: Comparison }>> {
  const { models, data, format, images, adapters, editors, out } = options;
  const found = await adapterFolders(adapters);
  const sets = await Promise.all(data.map((path) => readEditingSet(path, { format, images })));
  const plans: ComparisonPlan[] = [];
  const alone = models.length * sets.length === 1;
  for (const model of models) {
    const checkpoint = await openCheckpoint(model);
    const own = await fingerprint(checkpoint);
    // With one model, an adapter of another stays in the report, which says so.
    const fitting = found.filter((adapter) => models.length === 1 || (adapter.model ?? own) === own);
    const contenders = await contendersFor(fitting, editors);
    const name = nameOfModel(model);
    for (const refused of await refusals(contenders, model, checkpoint, own))
      options.onRefused(name, refused);
    for (const [place, set] of sets.entries()) {
      const common = models.length === 1 ? options.common : ['--model', model, ...options.common];
      const folder = alone ? out : join(out, partFolder(plans.length, name, set.path));
      plans.push(
        planOf(
          { ...options, common },
          {
            ...{ model: name, fingerprint: own, data: data[place]!, set, contenders, folder },
            scopeFolder: options.scopeFolderOf(model),
          },
        ),
      );
    }
  }
  const comparisons = await compareEach(plans, out, ({ plan, contender, place, of }) => {
    const on = alone ? '' : ` on ${plan.model}, ${basename(plan.set.path)}`;
    tellProgress(`${contender.editor}, ${contender.scope}${on}:`, place, of);
  });
  return comparisons.map((comparison, place) => ({ folder: plans[place]!.folder, comparison }));
}

/** Why some of the contenders cannot act on a model, each adapter or editor once. `own`: fingerprint of the model */
async function refusals(
  contenders: readonly Contender[],
  model: string,
  checkpoint: Checkpoint,
  own: string,
): Promise<string[]> {
  const told = new Set<string>();
  for (const { editor, adapter, settings } of contenders) {
    try {
      const asked = adapter === null ? { editor: { editor, settings: {} } } : {};
      await unopenedEditor({ path: model, adapter, ...asked }, checkpoint, own);
    } catch (error) {
      if (!(error instanceof EmendError)) throw error;
      told.add(`${[editor, settings].filter(Boolean).join(', ')}: ${error.message}`);
    }
  }
  return [...told];
}

function planOf(
  { at, limit, limitProbes, seeds, common, command, signal }: ComparisonOptions,
  {
    data,
    fingerprint: own,
    ...of
  }: Pick<ComparisonPlan, 'model' | 'set' | 'contenders' | 'folder' | 'scopeFolder'> & {
    readonly data: string;
    readonly fingerprint: string;
  },
): ComparisonPlan {
  const together = at.filter((size) => size > 1).join(',');
  const argumentsOf = ({ adapter, editor, scoped, form }: Contender, edits: MeasuredEdits) => [
    ...['bench', '--data', data, ...common],
    ...(adapter === null ? ['--editor', editor] : ['--adapter', adapter]),
    ...(scoped ? ['--scoped'] : []),
    ...(form === null ? [] : ['--scope', form]),
    ...(edits === 'single'
      ? ['--limit', String(limit), ...(seeds === undefined ? [] : ['--seeds', String(seeds)])]
      : ['--at', together, '--limit-probes', String(limitProbes)]),
  ];
  return {
    ...{ ...of, seeds, at, limit, limitProbes, emend: version(), command, signal },
    identity: (contender, edits) => [own, argumentsOf(contender, edits)],
    measure: (contender, edits, path) => runEmend([...argumentsOf(contender, edits), '--json', path], signal),
  };
}
