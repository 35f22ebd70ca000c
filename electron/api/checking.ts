/**
 * @file One check from plan to record: what is not known yet is described and asked, the rest is decided from what the library keeps.
 */
import type { EngineStream } from '../engine/protocol.ts';
import { EmendError } from '../errors.ts';
import { rememberAnswers } from '../library/answers.ts';
import { type Check, type CheckPlan, planCheck, recordCheck } from '../library/checks.ts';
import { editState, recordSignal } from '../library/edits.ts';
import { stateFingerprint } from '../library/freshness.ts';
import {
  type DecidedCheck,
  decideCheck,
  decideEverywhere,
  knownAnswer,
  resultOf,
  signalName,
  type WantedAnswer,
  wantedAnswers,
} from '../library/localCheck.ts';
import { editRow } from '../library/rows.ts';
import { findInput, keepInputs, unsettleWithout } from '../library/scopeInputs.ts';
import { allAct, commitChanges } from '../library/scopes.ts';
import type { Comparison } from '../library/watched.ts';
import type { ProbeResult } from './contract.ts';
import { unlessAborted } from './jobs.ts';
import { describedInputs } from './modelSession.ts';
import type { Parts } from './parts.ts';

/** Inputs described or asked in one call of the engine, and kept in one transaction. */
const AT_ONCE = 16;

export interface CheckListener {
  readonly signal: AbortSignal;
  /** inputs done, of those known to be needed */
  readonly progress: (done: number, total: number) => void;
  readonly result?: (result: ProbeResult) => void;
  /** steps done of making the edit, which may take minutes */
  readonly making?: (done: number, total: number) => void;
}

interface Input {
  readonly picture: string | null;
  readonly prompt: string;
}

/**
 * Checks a draft, as it would be in the place of `supersede` where that is given. Whatever was described and answered is kept as it is found, so that a check that is stopped, or whose engine ends,
 * goes on where it was.
 * @throws EmendError as `planCheck`, 'cancelled', 'engine'
 */
export async function runCheck(
  parts: Parts,
  id: number,
  listener: CheckListener,
  supersede: number | null = null,
): Promise<Check> {
  const { library, session } = parts;
  const started = performance.now();
  for (;;) {
    if (supersede !== null) library.keep(() => unsettleWithout(library, supersede));
    await unlessAborted(session.demandSettled(listener.signal), listener.signal);
    const adapter = await session.demandAdapter();
    const plan = planCheck(library, id, supersede);
    const everywhere = allAct(library);
    const decided = await decide(parts, plan, listener);
    if (!decided) continue;
    await ask(parts, wantedAnswers(library, decided.probes), plan.maxNewTokens, listener);
    listener.signal.throwIfAborted();
    // What changed meanwhile is looked at again; nothing that was asked is lost.
    if (!isCurrent(parts, plan)) continue;
    const results = decided.probes.map((probe) => resultOf(library, probe));
    for (const result of results) listener.result?.(result);
    const { unchanged, watched } = decided;
    const seconds = (performance.now() - started) / 1000;
    const { editor } = adapter;
    return recordCheck(library, plan, { results, unchanged, watched, everywhere, seconds, editor });
  }
}

/** Whether the library stands as it was planned on. */
export function isCurrent({ library }: Parts, { edit, fingerprint, commits }: CheckPlan): boolean {
  return (
    commitChanges(library) === commits && stateFingerprint(library, editRow(library, edit.id)) === fingerprint
  );
}

/** Which edits act on the inputs of a plan; null when the library changed meanwhile. */
export async function decide(
  parts: Parts,
  plan: CheckPlan,
  listener: CheckListener,
): Promise<DecidedCheck | null> {
  const { library } = parts;
  await signEdit(parts, plan.edit.id, listener);
  await lookAt(
    parts,
    plan.probes.map(({ probe }) => probe),
    plan.maxNewTokens,
    listener,
  );
  if (allAct(library)) {
    return isCurrent(parts, plan) ? library.read(() => decideEverywhere(library, plan)) : null;
  }
  const comparison = await compareWithProbes(parts, plan, listener.signal);
  if (comparison.commits !== plan.commits || !isCurrent(parts, plan)) return null;
  try {
    return library.read(() => decideCheck(library, plan, comparison));
  } catch (error) {
    // What was kept while it was being planned is looked at again.
    if (error instanceof EmendError && error.code === 'conflict' && !isCurrent(parts, plan)) return null;
    throw error;
  }
}

/** Compares a plan's edit with its inputs and with the probes of committed edits. */
function compareWithProbes(
  { engine, library }: Parts,
  plan: CheckPlan,
  signal: AbortSignal,
): Promise<Comparison> {
  const inputs = plan.probes.flatMap(({ probe: { picture, prompt } }) => {
    return (picture === null ? null : findInput(library, picture, prompt)?.id) ?? [];
  });
  return engine.call(
    'compare',
    { edits: [plan.edit.id], with: 'probes', inputs: [...new Set(inputs)] },
    { signal },
  );
}

/** Makes sure that an edit's signal and influence map are kept. */
export async function signEdit(
  { library, engine, session }: Parts,
  id: number,
  { signal, making }: Pick<CheckListener, 'signal' | 'making'>,
): Promise<void> {
  const state = editState(library, id);
  if (state.signal && state.influence !== undefined) return;
  const edit = session.engineEdit(state, session.pictureReader());
  const onStream = (message: EngineStream) => {
    if (message.kind === 'progress' && message.unit === 'steps') making?.(message.done, message.total ?? 0);
  };
  const { signals } = await engine.call('sign', { edits: [edit], influence: true }, { signal, onStream });
  recordSignal(library, state, signals[0]!.signal, signals[0]!.influence);
}

/** Describes inputs and asks the unedited model, where that is not kept yet. */
export async function lookAt(
  { library, engine, session }: Parts,
  inputs: readonly Input[],
  maxNewTokens: number,
  { signal, progress }: CheckListener,
): Promise<void> {
  const bytes = session.pictureReader();
  const unknown = byPicture(inputs).flatMap(({ picture, prompt }) => {
    const input = picture === null ? null : findInput(library, picture, prompt);
    const describe = picture !== null && input === null && !allAct(library);
    const answer = knownAnswer(library, { picture, prompt, edits: [] }) === null;
    return describe || answer ? [{ picture, prompt, describe, answer }] : [];
  });
  progress(0, unknown.length);
  for (let first = 0; first < unknown.length; first += AT_ONCE) {
    const part = unknown.slice(first, first + AT_ONCE);
    const { results, changes } = await engine.call(
      'describe',
      {
        inputs: part.map(({ picture, ...input }) => {
          return { ...input, picture: picture === null ? null : bytes(picture) };
        }),
        maxNewTokens,
      },
      {
        signal,
        onStream: (message) => {
          if (message.kind === 'progress') progress(first + message.done, unknown.length);
        },
      },
    );
    library.keep(() => {
      keepInputs(library, describedInputs(part, results), changes);
      const answers = part.flatMap(({ picture, prompt }, index) => {
        const text = results[index]!.unedited;
        return text === null ? [] : [{ picture: picture ?? '', prompt, signal: '', text }];
      });
      rememberAnswers(library, answers, maxNewTokens);
    });
  }
}

/** Asks inputs under edits, and keeps the answers. */
export async function ask(
  { library, engine, session }: Parts,
  wanted: readonly WantedAnswer[],
  maxNewTokens: number,
  { signal, progress }: CheckListener,
): Promise<void> {
  const bytes = session.pictureReader();
  const items = byPicture(wanted);
  for (let first = 0; first < items.length; first += AT_ONCE) {
    const part = items.slice(first, first + AT_ONCE);
    const names = part.map(({ edits }) => signalName(library, edits));
    const { texts } = await engine.call(
      'answer',
      {
        items: part.map(({ picture, ...item }) => {
          return { ...item, picture: picture === null ? null : bytes(picture) };
        }),
        maxNewTokens,
      },
      {
        signal,
        onStream: (message) => {
          if (message.kind === 'progress') progress(first + message.done, items.length);
        },
      },
    );
    library.keep(() => {
      const answers = part.map(({ picture, prompt }, index) => {
        return { picture: picture ?? '', prompt, signal: names[index]!, text: texts[index]! };
      });
      rememberAnswers(library, answers, maxNewTokens);
    });
  }
}

/** Inputs of the same picture follow one another: its embeddings are computed once. */
function byPicture<T extends Input>(inputs: readonly T[]): T[] {
  return inputs.toSorted((a, b) => (a.picture ?? '').localeCompare(b.picture ?? ''));
}
