/**
 * @file The open model and the committed edits that act in it, kept in step with the engine whatever happens to it.
 */
import { realpath, stat } from 'node:fs/promises';
import { hasScope } from '../editors/scope/openScope.ts';
import type { EngineEdit, EngineInputResult, EngineOperations } from '../engine/protocol.ts';
import { OUT_OF_MEMORY } from '../engine/supervisor.ts';
import { EmendError } from '../errors.ts';
import { actingKey, keepActing } from '../library/acting.ts';
import { type EditState, editState, recordSignal } from '../library/edits.ts';
import { unplacedActing } from '../library/freshness.ts';
import type { Library } from '../library/library.ts';
import { readPicture } from '../library/pictures.ts';
import { type Chosen, recentModels, rememberModel } from '../library/recentModels.ts';
import { type DescribedInput, isDescribed, keepInputs, unsettledInputs } from '../library/scopeInputs.ts';
import { allAct } from '../library/scopes.ts';
import { readSettings } from '../library/settings.ts';
import { type Comparison, placeEdit, settleInputs } from '../library/watched.ts';
import type { PackedCache } from '../models/packed/cache.ts';
import type { Provider } from '../tensor/session.ts';
import {
  type EditorChoice,
  type EngineState,
  type ModelSummary,
  type ScopeChoice,
  WeightForm,
} from './contract.ts';
import type { EngineCallOptions, EngineClient } from './engineClient.ts';
import { demoModel } from './resources.ts';

/** By what a model is edited: an adapter or an editor that needs none; neither, where it is only asked. */
interface Editing extends Chosen {
  readonly adapter: string | null;
}

interface OpenModel extends Readonly<EngineOperations['open']['output']> {
  readonly path: string;
  readonly editing: Editing;
}

interface Opening {
  /** a person waits for it; otherwise it is done in the background */
  readonly asked: boolean;
  readonly controller: AbortController;
  readonly done: Promise<ModelSummary>;
}

/** Edits made ready to act in one transaction. */
const PREPARED_AT_ONCE = 16;
/** Kept inputs whose matches are found anew in one transaction. */
const SETTLED_AT_ONCE = 64;

/** So many times the engine may end while it opens a model before that is left to the person. */
const DEATHS_IN_OPENING = 2;

/** A model to open; without adapter and editor, with what was last used with it. */
export interface Way {
  readonly path: string;
  /** null: none */
  readonly adapter?: string | null | undefined;
  /** one that needs no training, in place of an adapter */
  readonly editor?: EditorChoice | undefined;
  readonly scope?: ScopeChoice | undefined;
  /** without, the form last used with it */
  readonly weights?: WeightForm | undefined;
}

export interface ModelSessionParts {
  readonly engine: EngineClient;
  readonly library: Library;
  /** folder with the demo model */
  readonly resources: string;
  /** execution providers to try in place of those of the settings */
  readonly providers?: readonly Provider[];
  /** folder of packed weights where the settings name none */
  readonly packedFolder: string;
  /** called when what `model` or `engineState` say may have changed */
  readonly onChange: () => void;
}

export class ModelSession {
  readonly #engine: EngineClient;
  readonly #library: Library;
  readonly #resources: string;
  readonly #providers: readonly Provider[] | undefined;
  readonly #packedFolder: string;
  readonly #onChange: () => void;
  readonly #stopListening: Array<() => void>;
  #model: OpenModel | null = null;
  /** false from the moment the engine ended until it has opened the model again */
  #loaded = false;
  #opened = new Date();
  #opening: Opening | null = null;
  /** an opening nobody waits for, from before its path is looked at until the last way was tried */
  #background: Promise<void> | null = null;
  /** key of the edits that act in the engine; null when that is not known */
  #acting: string | null = null;
  #activating: Promise<void> | null = null;
  /** what was to be opened at the start */
  #atStart: readonly Way[] = [];
  /** how often in a row the engine ended while a model was opened: one too large would end it for ever */
  #deathsInOpening = 0;
  /** why the model could not be opened while nobody was waiting for it */
  #failure: EmendError | null = null;
  #closed = false;

  constructor({ engine, library, resources, providers, packedFolder, onChange }: ModelSessionParts) {
    this.#engine = engine;
    this.#library = library;
    this.#resources = resources;
    this.#providers = providers;
    this.#packedFolder = packedFolder;
    this.#onChange = onChange;
    this.#stopListening = [
      engine.onState(({ state }) => {
        if (state === 'restarting' || state === 'failed') this.#forgetEngine();
        onChange();
      }),
      engine.onRestart(() => {
        this.#forgetEngine();
        // What a person asked for meanwhile is opened instead.
        if (this.#deathsInOpening < DEATHS_IN_OPENING && !this.#opening?.asked) this.reopen();
      }),
    ];
  }

  /** The open model; null before there is one. */
  get model(): ModelSummary | null {
    return this.#model?.summary ?? null;
  }

  /** When the open model was opened. */
  get opened(): Date {
    return this.#opened;
  }

  /** The engine's state, with what is known of the provider and of failures in the background. */
  get engineState(): EngineState {
    const { state } = this.#engine;
    return {
      ...state,
      message: state.message || (this.#failure?.message ?? ''),
      provider: state.provider ?? this.#model?.provider ?? null,
      refusals: state.refusals.length > 0 ? state.refusals : [...(this.#model?.refusals ?? [])],
    };
  }

  /**
   * Opens a checkpoint folder, with the given adapter or editor, none for null, else what was last used with that folder. If that no
   * longer fits, because the model was trained on, the model is opened without and the engine's state says so.
   * An opening that is under way is given up for it.
   * @throws EmendError 'not-found', 'invalid-input', or what the engine says of the checkpoint
   */
  async open(way: Way, options: EngineCallOptions): Promise<ModelSummary> {
    this.#failure = null;
    try {
      return await this.#takeOver(way, true, options);
    } catch (error) {
      // The engine ended before and waited for this: it holds nothing yet.
      const waits = this.#engine.state.state === 'ready' && !this.#loaded && !this.#opening;
      if (waits && this.#model && !this.#closed) this.reopen();
      throw error;
    }
  }

  async #takeOver(way: Way, asked: boolean, options: EngineCallOptions): Promise<ModelSummary> {
    const folder = await demandFolder(way.path, 'model');
    const form = way.weights ?? this.usualForm(folder);
    const usual = way.adapter === undefined && way.editor === undefined;
    const editing = usual ? await this.#usualEditing(folder) : await givenEditing(way);
    if (!asked && this.#opening?.asked) throw new EmendError('cancelled', 'Another model is being opened.');
    this.#opening?.controller.abort();
    const controller = new AbortController();
    const signal = options.signal ? AbortSignal.any([options.signal, controller.signal]) : controller.signal;
    const opening: Opening = {
      asked,
      controller,
      done: this.#open(folder, editing, form, { ...options, signal }).catch((error: unknown) => {
        // An editor may name a file that has gone.
        const codes = editing.editor ? ['invalid-input', 'not-found'] : ['invalid-input'];
        const unfit = error instanceof EmendError && codes.includes(error.code);
        if (!usual || (editing.adapter ?? editing.editor ?? null) === null || !unfit) throw error;
        this.#failure = new EmendError(error.code, `${error.message} It was opened without.`);
        return this.#open(folder, { adapter: null }, form, { ...options, signal });
      }),
    };
    this.#opening = opening;
    try {
      return await opening.done;
    } finally {
      if (this.#opening === opening) this.#opening = null;
      this.#onChange();
    }
  }

  async #open(
    path: string,
    editing: Editing,
    weights: WeightForm,
    options: EngineCallOptions,
  ): Promise<ModelSummary> {
    const { adapter, ...chosen } = editing;
    const { editor, scope } = chosen;
    // An adapter without a scope of its own is decided for by the model's, as an editor without a folder is.
    const decides = editor !== undefined || adapter != null;
    const scopeFolder = decides ? (scope?.folder ?? (await this.#usualScope(path)) ?? undefined) : undefined;
    const providers = this.providers;
    const { promptTemplate: template, pictureRows } = readSettings(this.#library);
    const mostPictureRows = pictureRows ?? undefined;
    const opened = await this.#engine.call(
      'open',
      {
        ...{ path, adapter, providers, template, weights, mostPictureRows, packed: this.packedCache },
        ...{ editor, scope: scope?.form, scopeFolder },
      },
      options,
    );
    if (this.#closed) throw new EmendError('cancelled', 'The application is closing.');
    const { summary } = opened;
    const actors = { model: summary.fingerprint, adapter: summary.adapter?.fingerprint ?? '' };
    this.#model = { ...opened, path, editing };
    this.#loaded = true;
    this.#opened = new Date();
    this.#acting = null;
    this.#deathsInOpening = 0;
    keepActing(this.#library, actors, template, opened.scope);
    rememberModel(this.#library, {
      ...{ path, name: summary.name, weights, chosen, ...actors },
      adapterPath: editor ? await this.#usualAdapter(path) : adapter,
      ...(summary.adapter && { editorName: summary.adapter.name }),
    });
    return summary;
  }

  /** Where a learned scope of a model lies that decides for editors without one of their own; null for none. */
  async scopeFolderOf(path: string): Promise<string | null> {
    const chosen = this.#model?.path === path ? this.#model.editing.scope?.folder : undefined;
    return chosen ?? (await this.#usualScope(path));
  }

  /** Where packed weights are kept, by the settings. */
  get packedCache(): PackedCache {
    const { packedFolder, packedLimitGb } = readSettings(this.#library);
    return { folder: packedFolder || this.#packedFolder, limitBytes: packedLimitGb * 1e9 };
  }

  /** Execution providers to try, by the settings; none: the platform's own order. */
  get providers(): readonly Provider[] {
    return this.#providers ?? readSettings(this.#library).providers;
  }

  /** The form of the weights that the model was last opened with. */
  usualForm(path: string): WeightForm {
    const known = recentModels(this.#library).find((model) => model.path === path)?.weights;
    return WeightForm.catch('dense').parse(known);
  }

  /** What a model was last edited by, as far as it is still there. */
  async #usualEditing(path: string): Promise<Editing> {
    const chosen = recentModels(this.#library).find((model) => model.path === path)?.chosen ?? {};
    return { adapter: chosen.editor ? null : await this.#usualAdapter(path), ...chosen };
  }

  /** Where a scope of the model lies: beside the adapter last used with it, or the demo's. */
  async #usualScope(path: string): Promise<string | null> {
    const demo = demoModel(this.#resources);
    const known = recentModels(this.#library).find((model) => model.path === path)?.adapterPath;
    const ofDemo = demo && (await realpath(demo.path)) === path ? demo.adapter : null;
    for (const folder of [known ?? null, ofDemo])
      if (folder !== null && (await hasScope(folder))) return folder;
    return null;
  }

  async #usualAdapter(path: string): Promise<string | null> {
    const demo = demoModel(this.#resources);
    const known =
      recentModels(this.#library).find((model) => model.path === path)?.adapterPath ??
      (demo && (await realpath(demo.path)) === path ? demo.adapter : null);
    return known !== null && (await stat(known).catch(() => null)) ? known : null;
  }

  /** Opens, in the background, the model used last, else the demo model. */
  openLast(): void {
    const last = recentModels(this.#library)[0];
    const demo = demoModel(this.#resources);
    const ways: Way[] = [];
    if (last) ways.push({ path: last.path });
    if (demo && demo.path !== last?.path) ways.push({ path: demo.path });
    this.#atStart = ways;
    this.#inBackground(ways);
  }

  /**
   * Opens what should be open again, in the background: after a restart of the engine, or with new settings.
   * What a person is opening comes first.
   */
  reopen(): void {
    if (this.#closed) return;
    if (this.#opening?.asked) {
      this.#opening.done.catch(() => undefined).then(() => this.reopen());
      return;
    }
    if (!this.#model) {
      this.#inBackground(this.#atStart);
      return;
    }
    const { path, editing, summary } = this.#model;
    const { weights } = summary;
    const { adapter, editor, scope } = editing;
    this.#inBackground([editor ? { path, editor, scope, weights } : { path, adapter, scope, weights }]);
  }

  #inBackground(ways: readonly Way[]): void {
    const work = this.#openFirst(ways).finally(() => {
      if (this.#background !== work) return;
      this.#background = null;
      this.bringInStep();
    });
    this.#background = work;
  }

  /** Opens the first of `ways` that can be opened; what was wrong with those before it is told by the engine's state. */
  async #openFirst(ways: readonly Way[]): Promise<void> {
    this.#failure = null;
    for (const way of ways) {
      try {
        await this.#takeOver(way, false, {});
        return;
      } catch (error) {
        if (this.#closed || (error instanceof EmendError && error.code === 'cancelled')) return;
        const code = error instanceof EmendError ? error.code : 'internal';
        const said = error instanceof Error ? error.message : String(error);
        this.#failure = new EmendError(code, `${way.path} could not be opened: ${said}`, { cause: error });
        this.#onChange();
        if (code !== 'engine') continue;
        // The way may be good: it is tried again when there is an engine.
        // What did not fit once does not fit a moment later.
        this.#deathsInOpening += said.includes(OUT_OF_MEMORY) ? DEATHS_IN_OPENING : 1;
        return;
      }
    }
  }

  /**
   * Waits for openings that are under way.
   * @throws EmendError 'conflict' when no model is open, 'engine' while the engine is down, or why it could not be opened
   */
  async demandModel(): Promise<ModelSummary> {
    while (this.#background || this.#opening) {
      await (this.#background ?? this.#opening?.done.catch(() => undefined));
    }
    if (this.#closed) throw new EmendError('cancelled', 'The application is closing.');
    if (this.#model && this.#loaded) return this.#model.summary;
    const { state, message } = this.#engine.state;
    if (state === 'restarting' || state === 'failed') {
      throw new EmendError('engine', message || 'The engine is not running. Try again in a moment.');
    }
    if (this.#failure) throw this.#failure;
    throw new EmendError('conflict', 'No model is open. Open one first.');
  }

  /** How the open model is opened once more, without an editor. @throws EmendError as `demandModel` */
  async demandOpening(): Promise<EngineOperations['open']['input']> {
    const { path, weights, pictureRows } = await this.demandModel();
    const { promptTemplate: template } = readSettings(this.#library);
    return {
      ...{ path, adapter: null, providers: this.providers, template, weights },
      ...{ mostPictureRows: pictureRows.limit ?? undefined, packed: this.packedCache },
    };
  }

  /** As `demandModel`, for what needs an adapter. @throws EmendError 'conflict' without one */
  async demandAdapter(): Promise<NonNullable<ModelSummary['adapter']>> {
    const { adapter, name } = await this.demandModel();
    if (adapter) return adapter;
    throw new EmendError(
      'conflict',
      `${name} is open without an editor, so nothing can be edited. Open it with an adapter, or with an editor that needs no training.`,
    );
  }

  /** The key of the edits that act in the engine now. */
  get acting(): string | null {
    return this.#acting;
  }

  /** Waits until exactly the library's committed edits act in the engine. */
  async demandActing(): Promise<void> {
    await this.demandModel();
    while (actingKey(this.#library) !== this.#acting) {
      this.#activating ??= this.#activate().finally(() => {
        this.#activating = null;
      });
      await this.#activating;
      await this.demandModel();
    }
  }

  /** As `demandActing`, and every kept input has the matches of now. */
  async demandSettled(signal?: AbortSignal): Promise<void> {
    for (;;) {
      await this.demandActing();
      signal?.throwIfAborted();
      const inputs = unsettledInputs(this.#library, SETTLED_AT_ONCE);
      if (inputs.length === 0) return;
      const { matches, changes } = await this.#engine.call('settle', { inputs }, { signal });
      this.#library.keep(() => settleInputs(this.#library, inputs, matches, changes));
    }
  }

  /**
   * What comes of comparing edits that are to be committed, in this order, with everything that is kept; null where the model that is
   * open cannot tell, so that the library compares them by key alone.
   */
  async compareForCommit(edits: readonly number[], signal?: AbortSignal): Promise<Comparison | null> {
    try {
      if (!(await this.demandModel()).adapter || allAct(this.#library)) return null;
      await this.demandSettled(signal);
      const described = edits.filter((id) => isDescribed(this.#library, id));
      if (described.length === 0) return null;
      return await this.#engine.call('compare', { edits: described, with: 'all', inputs: [] }, { signal });
    } catch (error) {
      signal?.throwIfAborted();
      // A library is committed to without an engine too.
      if (error instanceof EmendError && error.code !== 'internal') return null;
      throw error;
    }
  }

  async #activate(): Promise<void> {
    const model = this.#model;
    const library = this.#library;
    const { actors, template } = library;
    // From here on it is not known what acts: what is asked meanwhile waits for the answer, also if the library is back by then.
    this.#acting = null;
    if (actors.adapter === '') {
      this.#acting = actingKey(library);
      return;
    }
    const isCurrent = () => this.#model === model && this.#loaded && !this.#closed;
    const { missing, changes } = await this.#engine.call('activate', {
      // the copy, where the library can only be read
      library: library.database.name,
      actors,
      template,
    });
    // Another model, or another engine, took its place meanwhile: what acts there is not known.
    if (!isCurrent()) return;
    if (missing.length > 0) {
      await this.prepareEdits(missing.slice(0, PREPARED_AT_ONCE));
      return;
    }
    const unplaced = (allAct(library) ? [] : unplacedActing(library))
      .slice(0, PREPARED_AT_ONCE)
      .map(({ edit }) => edit);
    if (unplaced.length > 0) {
      const found = await this.#engine.call('compare', { edits: unplaced, with: 'all', inputs: [] });
      if (!isCurrent()) return;
      library.keep(() => {
        for (const id of unplaced) placeEdit(library, id, found);
      });
      return;
    }
    this.#acting = JSON.stringify([actors, template, changes]);
  }

  /** Computes and keeps what edits need to act: signals and descriptions, in one transaction. Those that are kept are not made anew. */
  async prepareEdits(ids: readonly number[], signal?: AbortSignal): Promise<void> {
    const library = this.#library;
    const states = ids.map((id) => editState(library, id));
    const bytes = this.pictureReader();
    const unsigned = states.filter((state) => !state.signal);
    const undescribed = allAct(library) ? [] : states.filter(({ edit }) => !isDescribed(library, edit.id));
    const model = this.#model;
    const { signals } =
      unsigned.length === 0
        ? { signals: [] }
        : await this.#engine.call(
            'sign',
            { edits: unsigned.map((state) => this.engineEdit(state, bytes)), influence: false },
            { signal },
          );
    const inputs = undescribed.map(({ edit: { picture, prompt } }) => ({ picture, prompt }));
    const found =
      inputs.length === 0
        ? { results: [], changes: 0 }
        : await this.#engine.call(
            'describe',
            {
              inputs: inputs.map(({ picture, prompt }) => {
                return { picture: bytes(picture), prompt, describe: true, answer: false };
              }),
              maxNewTokens: 1,
            },
            { signal },
          );
    if (this.#model !== model || !this.#loaded || this.#closed) return;
    library.keep(() => {
      for (const [index, { signal: made }] of signals.entries())
        recordSignal(library, unsigned[index]!, made);
      keepInputs(library, describedInputs(inputs, found.results), found.changes);
    });
  }

  /** Brings the engine in step with the library, in the background; whoever asks next is told if it fails. */
  bringInStep(): void {
    if (this.#closed || !this.#model || !this.#loaded || this.#opening || this.#background) return;
    this.demandActing().catch(() => undefined);
  }

  /** Reads pictures' bytes, each once, so that one message to the engine holds each once. */
  pictureReader(): (id: string) => Uint8Array {
    const read = new Map<string, Uint8Array>();
    return (id) => {
      const known = read.get(id) ?? readPicture(this.#library, id).data;
      read.set(id, known);
      return known;
    };
  }

  /** An edit in the engine's form. */
  engineEdit({ edit, signal }: EditState, bytes: (id: string) => Uint8Array): EngineEdit {
    const { id, prompt, target, reach, picture } = edit;
    return { id, reach, picture: bytes(picture), prompt, target, signal };
  }

  close(): void {
    this.#closed = true;
    for (const stop of this.#stopListening) stop();
    this.#opening?.controller.abort();
  }

  #forgetEngine(): void {
    this.#loaded = false;
    this.#acting = null;
  }
}

/** What the engine described of inputs, with their pictures and prompts; without those no edit can act on. */
export function describedInputs(
  inputs: ReadonlyArray<{ picture: string | null; prompt: string }>,
  results: readonly EngineInputResult[],
): DescribedInput[] {
  return results.flatMap(({ described, matches }, index) => {
    const { picture, prompt } = inputs[index]!;
    return described && picture !== null ? [{ picture, prompt, described, matches }] : [];
  });
}

async function givenEditing({ adapter, editor, scope }: Way): Promise<Editing> {
  if (editor && adapter)
    throw new EmendError(
      'invalid-input',
      `Give either an adapter (${adapter}) or an editor that needs none (${editor.editor}).`,
    );
  const folder = scope?.folder === undefined ? undefined : await demandFolder(scope.folder, 'scope');
  return {
    adapter: adapter ? await demandPath(adapter, 'adapter') : null,
    ...(editor && { editor }),
    ...(scope && { scope: { ...scope, ...(folder !== undefined && { folder }) } }),
  };
}

/** The real path of a folder. @throws EmendError 'not-found', 'invalid-input' for a file */
export async function demandFolder(path: string, what: string): Promise<string> {
  const real = await demandPath(path, what);
  if ((await stat(real)).isDirectory()) return real;
  throw new EmendError('invalid-input', `${path} is a file. Give the folder of the ${what}.`);
}

async function demandPath(path: string, what: string): Promise<string> {
  try {
    return await realpath(path);
  } catch (cause) {
    throw new EmendError('not-found', `There is no ${what} at ${path}. Check the path.`, { cause });
  }
}
