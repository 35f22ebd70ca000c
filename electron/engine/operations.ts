/**
 * @file What the engine can do, one function per operation of the protocol.
 */
import { setPriority } from 'node:os';
import { basename } from 'node:path';
import type { Answer, InfluenceMap, Routing } from '../api/contract.ts';
import type { Prepared } from '../editors/editedModel.ts';
import type { EditState } from '../editors/editor.ts';
import { actsEverywhere } from '../editors/scope/everywhere.ts';
import { MemoryBank } from '../editors/scope/memoryBank.ts';
import { type Decision, decide, type Scope, type ScopeInput } from '../editors/scope/scope.ts';
import { EmendError } from '../errors.ts';
import {
  answerConversation,
  decideConversation,
  prepareConversation,
  type SeenTurn,
} from '../evaluation/conversation.ts';
import { routingOf } from '../library/localCheck.ts';
import { inputDescription } from '../library/reader.ts';
import { decisionOf, type KeptMatch } from '../library/scopeInputs.ts';
import { thresholdSteps } from '../library/scopes.ts';
import { fingerprint } from '../models/checkpoint.ts';
import { writeEditedCheckpoint, writeWeightDelta } from '../models/editedCheckpoint.ts';
import type { Generation, GenerationOptions } from '../models/generation.ts';
import { availableMemory, openingWays, refuseWhatCannotFit } from '../models/memory.ts';
import { openCheckpoint } from '../models/open.ts';
import { isPacked } from '../models/packed/cache.ts';
import type { PictureLayout, Visual } from '../models/picture.ts';
import { availableProviders } from '../tensor/session.ts';
import {
  attributeModality,
  attributeModules,
  attributeVisual,
  mapOf,
  proposeEditLayer,
} from './attributing.ts';
import { benchmarkOperations } from './benchmarking.ts';
import { compare } from './comparing.ts';
import { gateOperations } from './gating.ts';
import { makingOf, OpenModel, summarise } from './openModel.ts';
import type {
  EngineEdit,
  EngineInputResult,
  EngineOperations,
  OperationContext,
  OperationTable,
} from './protocol.ts';
import { trainingOperations } from './training.ts';

let opened: OpenModel | null = null;

/** Frees the open model: sessions must be gone before the process ends. */
export async function release(): Promise<void> {
  await opened?.dispose();
  opened = null;
}

/** Whether a model can be opened while the present one still is. What is wrong with it, opening says. */
async function fitsBeside({
  path,
  pictureRows,
  weights,
}: EngineOperations['open']['input']): Promise<boolean> {
  try {
    const checkpoint = await openCheckpoint(path);
    const { rows } = await checkpoint.backbone.openPictures(checkpoint.folder, pictureRows);
    refuseWhatCannotFit(checkpoint, weights ?? 'dense', rows.most);
    return true;
  } catch (error) {
    return !(error instanceof EmendError && error.code === 'conflict');
  }
}

function loaded(): OpenModel {
  if (!opened) throw new EmendError('conflict', 'No model is open. Open one first.');
  return opened;
}

/** The open model, for anything but a conversation: what it holds of one goes. */
function open(): OpenModel {
  loaded().takeShared();
  return loaded();
}

/** Nice value of a process that works on a model of its own: anything a person waits for goes first. */
const BEHIND_OTHERS = 10;

/** Works on the open model, or on one that is opened for this alone. */
async function onModel<T>(
  alone: EngineOperations['open']['input'] | undefined,
  context: OperationContext,
  work: (model: OpenModel) => Promise<T>,
): Promise<T> {
  if (!alone) return work(open());
  setPriority(BEHIND_OTHERS);
  const model = await OpenModel.open(alone, context);
  try {
    return await work(model);
  } finally {
    await model.dispose();
  }
}

function stopIfAsked(context: OperationContext): void {
  if (context.signal.aborted) throw new EmendError('cancelled', 'Stopped.');
}

/** Lets messages in between two blocking runs. */
const breathe = () => new Promise((resolve) => setImmediate(resolve));

class Stopwatch {
  readonly #start = performance.now();
  #last = this.#start;
  /** milliseconds since the last lap */
  lap(): number {
    const now = performance.now();
    const lap = now - this.#last;
    this.#last = now;
    return lap;
  }
  total(): number {
    return performance.now() - this.#start;
  }
}

function answerOf(
  model: OpenModel,
  generation: Generation,
  times: Answer['times'],
  routing: Routing | null,
): Answer {
  const plain = ({ id, text, probability }: { id: number; text: string; probability: number }) => ({
    id,
    text,
    probability,
  });
  return {
    text: generation.text,
    tokens: generation.tokens.map((token) => ({
      ...plain(token),
      alternatives: token.alternatives.map(plain),
    })),
    ended: generation.ended,
    provider: model.edited.model.provider,
    times,
    routing,
  };
}

async function influenceMap(
  model: OpenModel,
  prepared: Prepared,
  state: EditState,
  layout: PictureLayout,
): Promise<InfluenceMap | null> {
  const found = await model.edited.influence(prepared, state);
  if (!found) return null;
  const { cells, ...map } = mapOf(layout);
  return {
    ...map,
    values: cells.map((row) => found.values[row]!),
    layer: found.layer,
  };
}

/** An input as the scope describes it, with the committed edits most similar to it. */
async function describeInput(
  model: OpenModel,
  prepared: Prepared,
): Promise<Pick<EngineInputResult, 'described' | 'matches'>> {
  const described = model.edited.scope && (await model.edited.describe(prepared));
  if (!described) return { described: null, matches: [] };
  const { committed } = model.library;
  return { described, matches: await committed.matches(model.scope, described.key, described.detail) };
}

/** Streams an answer's tokens as they come. */
function tellTokens(
  context: OperationContext,
  side: 'before' | 'after' | 'answer',
): NonNullable<GenerationOptions['onToken']> {
  return (token, text) =>
    context.send({ kind: 'token', side, token: { ...token, alternatives: [...token.alternatives] }, text });
}

/** Whether an edit alone acts on an input. */
async function decideAlone(
  scope: Scope,
  { id, reach }: Pick<EngineEdit, 'id' | 'reach'>,
  described: ScopeInput,
): Promise<Decision> {
  const alone = new MemoryBank(scope.keyWidth);
  alone.add(id, reach, described);
  return decide(scope, described, alone);
}

export const operations: OperationTable = {
  ...trainingOperations,
  ...benchmarkOperations,
  ...gateOperations,

  async open(input, context) {
    // Where both do not fit, the model that is open goes first.
    if (opened && !(await fitsBeside(input))) await release();
    const next = await OpenModel.open(input, context);
    await opened?.dispose();
    opened = next;
    const { provider, refusals } = next.edited.model;
    const { scope } = next.edited;
    const facts = scope && {
      fingerprint: scope.fingerprint,
      candidates: scope.candidates,
      thresholds: thresholdSteps(scope),
    };
    return { summary: next.summary, scope: facts, provider, refusals };
  },

  async ways({ path, providers, packed }) {
    const checkpoint = await openCheckpoint(path);
    const source = await fingerprint(checkpoint);
    const { rows } = await checkpoint.backbone.openPictures(checkpoint.folder);
    // The model that is open gives its memory back.
    const available = availableMemory() + (opened ? process.memoryUsage.rss() : 0);
    const wanted = providers.length > 0 ? providers : availableProviders();
    const { ways, proposed } = openingWays(checkpoint, {
      ...{ pictureRows: rows.most, available },
      providers: wanted.includes('cpu') ? wanted : [...wanted, 'cpu'],
    });
    const made = new Map(
      await Promise.all(
        (['8bit', '4bit'] as const).map(
          async (form) => [form, await isPacked(source, form, packed)] as const,
        ),
      ),
    );
    return {
      ways: ways.map((way) => ({ ...way, made: way.form === 'dense' || made.get(way.form) === true })),
      proposed,
      available,
    };
  },

  async inspect({ path }) {
    const checkpoint = await openCheckpoint(path);
    const tensors = [...checkpoint.files].flatMap(([file, { tensors }]) =>
      [...tensors.values()].map(({ name, dtype, shape }) => ({ name, dtype, shape: [...shape], file })),
    );
    return { summary: await summarise(path, checkpoint, null), tensors };
  },

  async activate(input) {
    const model = open();
    const missing = model.activate(input);
    return { missing, changes: model.library.committed.changes };
  },

  async sign({ edits, influence }, context) {
    const model = open();
    const signals: Array<{ id: number; signal: Uint8Array; influence: InfluenceMap | null }> = [];
    for (const edit of edits) {
      stopIfAsked(context);
      const visual = await model.see(edit.picture);
      const state = await model.stateFor(edit, makingOf(context), visual);
      signals.push({
        id: edit.id,
        signal: model.edited.encode(state),
        influence: influence
          ? await influenceMap(model, await model.edited.prepare(visual, edit.prompt), state, visual.layout)
          : null,
      });
      context.send({
        kind: 'progress',
        stage: 'Preparing edits',
        done: signals.length,
        total: edits.length,
        unit: 'edits',
      });
      await breathe();
    }
    return { signals };
  },

  async describe({ inputs, maxNewTokens }, context) {
    const model = open();
    const results: EngineInputResult[] = [];
    for (const { picture, prompt, describe, answer } of inputs) {
      stopIfAsked(context);
      const prepared = await model.edited.prepare(picture && (await model.see(picture)), prompt);
      const { described, matches } = describe
        ? await describeInput(model, prepared)
        : { described: null, matches: [] };
      const options = { maxNewTokens, signal: context.signal };
      const unedited = answer ? (await model.edited.answer(prepared, [], options)).text : null;
      results.push({ described, matches, unedited });
      context.send({
        kind: 'progress',
        stage: 'Asking',
        done: results.length,
        total: inputs.length,
        unit: 'inputs',
      });
      await breathe();
    }
    return { results, changes: model.library.committed.changes };
  },

  async settle({ inputs }, context) {
    const model = open();
    const { store, committed } = model.library;
    const matches: KeptMatch[][] = [];
    for (const input of inputs) {
      stopIfAsked(context);
      const { key, detail } = inputDescription(store, input, model.scope.keyWidth);
      matches.push(await committed.matches(model.scope, key, detail));
      await breathe();
    }
    return { matches, changes: committed.changes };
  },

  async compare(request, context) {
    const model = open();
    const { store, inputs } = model.library;
    return compare(store, model.scope, inputs, request, async () => {
      stopIfAsked(context);
      await breathe();
    });
  },

  async answer({ items, maxNewTokens }, context) {
    const model = open();
    const texts: string[] = [];
    for (const { picture, prompt, edits } of items) {
      stopIfAsked(context);
      const prepared = await model.edited.prepare(picture && (await model.see(picture)), prompt);
      const options = { maxNewTokens, signal: context.signal };
      texts.push((await model.edited.answer(prepared, model.statesOf(edits), options)).text);
      context.send({
        kind: 'progress',
        stage: 'Asking',
        done: texts.length,
        total: items.length,
        unit: 'inputs',
      });
      await breathe();
    }
    return { texts };
  },

  attributeModules: (input, context) =>
    onModel(input.model, context, (model) => attributeModules(model, input, context)),
  attributeVisual: (input, context) => attributeVisual(open(), input, context),
  attributeModality: (input, context) =>
    onModel(input.model, context, (model) => attributeModality(model, input, context)),
  proposeLayer: (input, context) =>
    onModel(input.model, context, (model) => proposeEditLayer(model, input, context)),

  async ask({ picture, prompt, edits, maxNewTokens, sampling }, context) {
    const model = open();
    const watch = new Stopwatch();
    const seen = picture ? await model.see(picture) : null;
    const times = { picture: watch.lap(), prompt: 0, generation: 0, total: 0 };
    const prepared = await model.edited.prepare(seen, prompt);
    const found = edits === 'committed' && model.edited.editor ? await model.acting(prepared) : null;
    times.prompt = watch.lap();
    const states = found ? model.statesOf(found.edits) : [];
    const generation = await model.edited.answer(prepared, states, {
      maxNewTokens,
      sampling,
      signal: context.signal,
      onToken: tellTokens(context, 'answer'),
    });
    times.generation = watch.lap();
    times.total = watch.total();
    const decision = found?.decision;
    const routing = decision ? routingOf(model.scope, model.library.committed.size, decision) : null;
    const asked = await model.edited.askedAs(prepared, states);
    return {
      ...answerOf(model, generation, times, routing),
      ...(found && !decision && { together: states.length }),
      ...(asked !== undefined && { asked }),
    };
  },

  async exportWeights({ path, form }, { signal, send }) {
    const model = open();
    const { edited, library } = model;
    const { ids } = library.committed;
    if (ids.length === 0)
      throw new EmendError('conflict', 'No edit is committed, so there is no change to write.');
    const { weights, ...others } = edited.effect(model.statesOf(ids));
    if (!weights || Object.values(others).some((other) => other !== undefined))
      throw new EmendError(
        'unsupported',
        `Edits by ${edited.editor!.name} are no changes of weights, so no checkpoint can hold them. Serve the edited model, or export the edits.`,
      );
    const { checkpoint } = edited.model;
    if (form === 'delta') {
      const about = {
        model: await fingerprint(checkpoint),
        editor: edited.editor!.name,
        edits: ids.join(' '),
      };
      await writeWeightDelta(checkpoint, weights, path, about);
      return { edits: ids.length, written: [basename(path)], linked: [] };
    }
    const progress = (done: number, total: number) =>
      send({ kind: 'progress', stage: 'Writing the checkpoint', done, total, unit: 'files' });
    return {
      edits: ids.length,
      ...(await writeEditedCheckpoint(checkpoint, weights, path, { signal, progress })),
    };
  },

  async rows(size) {
    return { rows: open().edited.model.images.layout(size).rows };
  },

  async chat({ turns, edits, maxNewTokens, sampling, stop, alternatives, share }, context) {
    const model = loaded();
    const { edited } = model;
    const watch = new Stopwatch();
    const times = { picture: 0, prompt: 0, generation: 0, total: 0 };
    let prepared = model.takeShared(turns);
    if (!prepared) {
      const seen: SeenTurn[] = [];
      for (const { role, text, pictures: files } of turns) {
        const visuals: Visual[] = [];
        for (const file of files) {
          stopIfAsked(context);
          visuals.push(await model.see(file));
          await breathe();
        }
        seen.push({ role, text, visuals });
      }
      times.picture = watch.lap();
      prepared = await prepareConversation(edited, seen);
      if (share) model.share(turns, prepared);
    }
    stopIfAsked(context);
    const decides = edits === 'committed' && edited.editor && edited.scope;
    const everywhere = decides && actsEverywhere(model.scope);
    const found =
      decides && !everywhere
        ? await decideConversation(edited, model.scope, model.library.committed, prepared)
        : null;
    const acting = everywhere
      ? { states: model.statesOf(model.library.committed.ids), picture: null }
      : { states: model.statesOf(found?.acting ? [found.acting.edit] : []), picture: found?.picture ?? null };
    times.prompt = watch.lap();
    const generation = await answerConversation(edited, prepared, acting, {
      ...{ maxNewTokens, sampling, stop, alternatives },
      signal: context.signal,
      onToken: tellTokens(context, 'answer'),
    });
    times.generation = watch.lap();
    times.total = watch.total();
    const routing = found && routingOf(model.scope, model.library.committed.size, found);
    return {
      ...answerOf(model, generation, times, routing),
      ...(everywhere && { together: acting.states.length }),
      promptTokens: prepared.prefill.input.rows,
      picture: found?.picture ?? null,
    };
  },

  async preview({ edit, maxNewTokens }, context) {
    const model = open();
    const watch = new Stopwatch();
    const visual = await model.see(edit.picture);
    const picture = watch.lap();
    const state = await model.stateFor(edit, makingOf(context), visual);
    const prepared = await model.edited.prepare(visual, edit.prompt);
    const { described, matches } = await describeInput(model, prepared);
    const everywhere = actsEverywhere(model.scope);
    if (!described && !everywhere)
      throw new EmendError('internal', `The scope has nothing to compare edit ${edit.id} by.`);
    const prompt = watch.lap();
    const found = described && (await decideAlone(model.scope, edit, described));
    const others = matches.filter((match) => match.edit !== edit.id);
    const now = described && decisionOf(model.scope, model.library.committed.size, others);
    const side = async (name: 'before' | 'after', acting: readonly EditState[], routing: Routing | null) => {
      stopIfAsked(context);
      const generation = await model.edited.answer(prepared, acting, {
        maxNewTokens,
        signal: context.signal,
        onToken: tellTokens(context, name),
      });
      const lap = watch.lap();
      const asked = await model.edited.askedAs(prepared, acting);
      const took = { picture, prompt, generation: lap, total: picture + prompt + lap };
      return { ...answerOf(model, generation, took, routing), ...(asked !== undefined && { asked }) };
    };
    const before = await side('before', [], null);
    const after = await side(
      'after',
      everywhere || found?.acting ? [state] : [],
      found && routingOf(model.scope, 1, found),
    );
    const influence = await influenceMap(model, prepared, state, visual.layout);
    return {
      ...{ before, after, influence, signal: model.edited.encode(state) },
      input: { described, matches, unedited: null },
      changes: model.library.committed.changes,
      acting: now?.acting?.edit ?? null,
    };
  },
};
