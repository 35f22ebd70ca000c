/**
 * @file An editor measured over an editing set, in an engine process or under the command line: the model is opened for it alone.
 */
import { setPriority } from 'node:os';
import type { EditorChoice } from '../editors/registry.ts';
import type { ScopeForm } from '../editors/scope/openScope.ts';
import type { Reach } from '../editors/scope/scope.ts';
import { type BenchmarkResult, benchmark } from '../evaluation/benchmark.ts';
import { type Draws, drawEdits, scoresOverDraws } from '../evaluation/draws.ts';
import { type EditingSet, readEditingSet } from '../evaluation/editingSet.ts';
import { ANSWERING, measureManyEdits, type SizeResult } from '../evaluation/manyEdits.ts';
import type { SetFormatName } from '../evaluation/sets/registry.ts';
import { replaceFile } from '../files/replaceFile.ts';
import type { PackedCache } from '../models/packed/cache.ts';
import type { WeightForm } from '../models/packed/form.ts';
import type { PromptForm } from '../models/prompt.ts';
import type { Provider } from '../tensor/session.ts';
import { OpenModel } from './openModel.ts';
import type { OperationContext, OperationTable } from './protocol.ts';

/** All that repeats a measurement. */
export interface MeasurementRequest {
  /** checkpoint folder */
  readonly model: string;
  /** adapter folder, or an editor that needs none */
  readonly adapter: string | null;
  readonly editor?: EditorChoice | undefined;
  readonly scope?: ScopeForm | undefined;
  readonly scopeFolder?: string | undefined;
  readonly weights: WeightForm;
  readonly mostPictureRows?: number | undefined;
  readonly providers: readonly Provider[];
  readonly template: PromptForm;
  readonly data: string;
  readonly format?: SetFormatName | undefined;
  readonly images?: string | undefined;
  /** edits taken, from the first; all when absent */
  readonly limit?: number | undefined;
  /** of edits alone: so many random draws of `limit` edits each, in place of the first */
  readonly seeds?: number | undefined;
  /** so many edits together, for each; null: each alone */
  readonly at: readonly number[] | null;
  /** of edits together: those whose probes are asked, and another set whose questions none is about */
  readonly limitProbes: number;
  readonly fresh?: string | undefined;
  /** of edits alone: whether the scope decides if an edit acts */
  readonly scoped: boolean;
  readonly reach: Reach;
  readonly suffix: string;
  readonly textSuffix: string;
  readonly maxNewTokens: number;
  readonly seed: number;
}

/** What was measured, and of what. */
export interface MeasuredActors {
  readonly emend: string;
  readonly model: { readonly name: string; readonly fingerprint: string };
  readonly adapter: { readonly name: string; readonly fingerprint: string; readonly weights: WeightForm };
  /** the most memory the process held meanwhile, bytes */
  readonly peakBytes: number;
}
export type SingleReport = BenchmarkResult &
  MeasuredActors & {
    /** where the scores are over draws of edits */
    readonly draws?: Draws;
  };
export type ManyReport = MeasuredActors & {
  readonly setting: {
    readonly edits: 'together';
    readonly editor: string;
    readonly scope: { readonly form: ScopeForm; readonly fingerprint: string; readonly reach: Reach };
    readonly probes: number;
    readonly promptTemplate: string;
    readonly suffix: string;
    readonly provider: string;
    readonly weights: WeightForm;
    readonly data: { readonly path: string; readonly sha256: string };
    readonly fresh: { readonly path: string; readonly sha256: string } | null;
  };
  readonly seconds: number;
  readonly sizes: readonly SizeResult[];
};

export interface MeasurementOptions {
  /** of this program */
  readonly emend: string;
  readonly packed: PackedCache;
  /** is told of the set before the model is opened */
  readonly onSet?: (set: EditingSet) => void;
}

/**
 * Measures what a request asks for.
 * @throws EmendError 'cancelled', or what is wrong with the set, the model or the editor, before anything long begins
 */
export async function measure(
  request: MeasurementRequest,
  { emend, packed, onSet }: MeasurementOptions,
  context: OperationContext,
): Promise<SingleReport | ManyReport> {
  const { signal } = context;
  const { data, format, images, limit, at, reach, suffix, textSuffix, maxNewTokens, seed } = request;
  const draws = at === null && request.seeds !== undefined && { seeds: request.seeds, edits: limit ?? 1 };
  const whole = await readEditingSet(data, { format, images, limit: draws ? undefined : limit });
  onSet?.(whole);
  const drawn = draws ? drawEdits(whole, draws) : null;
  const set = drawn?.set ?? whole;
  const { model: path, adapter, editor, scope, scopeFolder, weights, mostPictureRows, providers } = request;
  const model = await OpenModel.open(
    {
      ...{ path, adapter, editor, scope, scopeFolder, weights, mostPictureRows, providers, packed },
      template: request.template,
    },
    context,
  );
  let peak = 0;
  const progress = (stage: string, done: number, total: number, unit: string, share: number) => {
    peak = Math.max(peak, process.memoryUsage.rss());
    context.send({ kind: 'progress', stage, done, total, unit, share });
  };
  const { summary } = model;
  const actors = {
    emend,
    model: { name: summary.name, fingerprint: summary.fingerprint },
    adapter: {
      ...{ name: summary.adapter!.name, fingerprint: summary.adapter!.fingerprint },
      weights: summary.adapter!.weights,
    },
  };
  const common = { reach, suffix, textSuffix, maxNewTokens, seed, signal };
  try {
    if (at === null) {
      const result = await benchmark(model.edited, set, {
        ...{ ...common, scoped: request.scoped },
        onProgress: (done, total) => progress('Measuring edits', done, total, 'edits', done / total),
      });
      const scores = drawn && scoresOverDraws(result.records, drawn.draws, seed);
      return { ...actors, ...result, ...scores, ...(draws && { draws }), peakBytes: peak };
    }
    const started = performance.now();
    const fresh = request.fresh === undefined ? null : await readEditingSet(request.fresh, {});
    const sizes = await measureManyEdits(model.edited, set, {
      ...{ ...common, at, limitProbes: request.limitProbes },
      ...(fresh && { fresh }),
      // How long edits take to describe or make beside the answers differs from editor to editor: it is not guessed.
      onProgress: (stage, done, total) =>
        progress(stage, done, total, '', stage === ANSWERING ? done / total : 0),
    });
    const { edited } = model;
    const { form, fingerprint } = summary.adapter!.scope;
    return {
      ...actors,
      setting: {
        edits: 'together',
        editor: edited.editor!.name,
        scope: { form, fingerprint, reach },
        probes: request.limitProbes,
        promptTemplate: edited.model.prompts.form,
        suffix,
        provider: edited.model.provider,
        weights: edited.model.form,
        data: { path: set.path, sha256: set.sha256 },
        fresh: fresh && { path: fresh.path, sha256: fresh.sha256 },
      },
      seconds: (performance.now() - started) / 1000,
      sizes,
      peakBytes: peak,
    };
  } finally {
    await model.dispose();
  }
}

/** Nice value of a process that measures: anything a person waits for goes first. */
const BEHIND_OTHERS = 10;

export const benchmarkOperations: Pick<OperationTable, 'measure'> = {
  async measure({ request, emend, packed, out }, context) {
    setPriority(BEHIND_OTHERS);
    const report = await measure(request, { emend, packed }, context);
    await replaceFile(out, (handle) => handle.writeFile(`${JSON.stringify(report, null, 1)}\n`));
    return null;
  },
};
