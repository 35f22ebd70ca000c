/**
 * @file The one model an engine has open: its files, its adapter, and the committed edits that act on it.
 */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import type { ModelSummary, SettingValue } from '../api/contract.ts';
import { layersTold } from '../editors/adapterFiles.ts';
import { cutsFor, EditedModel, type Prepared } from '../editors/editedModel.ts';
import type { Editor, EditorScope, EditState, UnopenedEditor, Work } from '../editors/editor.ts';
import { chosenEditor, readAdapter } from '../editors/registry.ts';
import { actsEverywhere } from '../editors/scope/everywhere.ts';
import { readScope } from '../editors/scope/openScope.ts';
import type { Decision, Scope } from '../editors/scope/scope.ts';
import { EmendError } from '../errors.ts';
import type { PreparedConversation } from '../evaluation/conversation.ts';
import { readJson } from '../files/json.ts';
import { signalState } from '../library/freshness.ts';
import { type LibraryReader, openReader } from '../library/reader.ts';
import { editRow } from '../library/rows.ts';
import { signalOf } from '../library/signals.ts';
import { fingerprint } from '../models/checkpoint.ts';
import { nameOfModel } from '../models/hubCache.ts';
import { type Checkpoint, openCheckpoint } from '../models/open.ts';
import type { WeightForm } from '../models/packed/form.ts';
import type { Visual } from '../models/picture.ts';
import { loadChatTemplate } from '../models/prompt.ts';
import { VisionLanguageModel } from '../models/visionLanguageModel.ts';
import { CommittedBank } from './committedBank.ts';
import { CommittedInputs } from './comparing.ts';
import type { EngineEdit, EngineOperations, EngineTurn, OperationContext } from './protocol.ts';
import { SeenPictures } from './seenPictures.ts';

/** A library as the engine holds it. */
export interface HeldLibrary {
  readonly store: LibraryReader;
  readonly committed: CommittedBank;
  readonly inputs: CommittedInputs;
}

/**
 * The fingerprint of a model whose weights are held in a form. Rounded weights make another model: what is kept of one, answers,
 * signals, checks, is not kept of the other.
 */
function fingerprintIn(form: WeightForm, checkpoint: string, limit: number | undefined): string {
  // With fewer rows a picture is another input, too.
  const seen = limit === undefined ? '' : ` ${limit} rows`;
  if (form === 'dense' && seen === '') return checkpoint;
  return createHash('sha256').update(`${checkpoint} ${form}${seen}`).digest('hex');
}

/** The limit of a picture's rows that changes anything; undefined for none. Asked for, it may be refused later; wished for, it is kept as far as can be. */
async function pictureLimit(
  { backbone, folder }: Checkpoint,
  { pictureRows, mostPictureRows }: EngineOperations['open']['input'],
): Promise<number | undefined> {
  const { least, most } = (await backbone.openPictures(folder)).rows;
  const limit = pictureRows ?? (mostPictureRows && Math.max(least, mostPictureRows));
  return limit !== undefined && limit < most ? limit : undefined;
}

export async function summarise(
  path: string,
  checkpoint: Checkpoint,
  opened: OpenedEditor | null,
  ofCheckpoint?: string,
  form: WeightForm = 'dense',
  limit?: number,
): Promise<ModelSummary> {
  const { backbone, weights } = checkpoint;
  const { decoder } = backbone;
  const shapes = backbone.tensors();
  const dtypes = new Set([...shapes.keys()].map((name) => weights.find(name)?.dtype ?? '?'));
  const own = ofCheckpoint ?? (await fingerprint(checkpoint));
  const { rows } = await backbone.openPictures(checkpoint.folder, limit);
  return {
    path,
    name: nameOfModel(checkpoint.folder),
    fingerprint: fingerprintIn(form, own, limit),
    architecture: checkpoint.family,
    layers: decoder.layers,
    hidden: decoder.hidden,
    parameters: [...shapes.values()].reduce((sum, shape) => sum + shape.reduce((a, b) => a * b, 1), 0),
    visualTokens: rows.most,
    pictureRows: { ...rows, limit: limit ?? null },
    checkpoint: own,
    takes: {
      turns: (await loadChatTemplate(checkpoint.folder)) !== undefined,
      pictures: backbone.prompts.severalPictures ?? false,
    },
    dtype: [...dtypes].sort().join(' and '),
    weights: form,
    adapter: opened && summariseEditor(opened, form),
  };
}

interface OpenedEditor {
  readonly path: string | null;
  readonly where: string;
  readonly unopened: UnopenedEditor;
  readonly editor: Editor;
  readonly scope: Scope;
}

/** `weightsOfModel`: those of editors that were not trained on any. */
function summariseEditor(
  { path, where, unopened, editor, scope }: OpenedEditor,
  weightsOfModel: WeightForm,
): NonNullable<ModelSummary['adapter']> {
  const { name, fingerprint, editor: kind, weights, settings } = unopened;
  const { form, fingerprint: ofScope, curve } = scope;
  return {
    ...{ name, path, fingerprint, editor: kind.name, acts: kind.acts, where },
    weights: settings ? weightsOfModel : (weights ?? 'dense'),
    settings: settings && settingValues(settings),
    facts: [...(editor.facts ?? [])],
    map: editor.maps !== undefined,
    scope: { form, fingerprint: ofScope, curve: [...curve] },
  };
}

/**
 * The editor asked for, checked against the model; null for none. `own`: fingerprint of the model
 * @throws EmendError why it cannot act on it
 */
export async function unopenedEditor(
  { path, adapter, editor }: Pick<EngineOperations['open']['input'], 'path' | 'adapter' | 'editor'>,
  checkpoint: Checkpoint,
  own: string,
): Promise<UnopenedEditor | null> {
  if (editor) {
    if (adapter === null) return chosenEditor(editor, checkpoint, own);
    throw new EmendError(
      'invalid-input',
      `Give either an adapter (${adapter}) or an editor that needs none (${editor.editor}).`,
    );
  }
  if (adapter === null) return null;
  const unopened = await readAdapter(adapter, checkpoint, own);
  if (unopened.model === own) return unopened;
  throw new EmendError(
    'invalid-input',
    `The adapter ${adapter} was trained for another model than ${path}. Train one for this model, or open the model without it.`,
  );
}

/** The layers an editor acts at, as its file or settings name them. A file of the published code names none: there it is opened with them. */
async function whereItActs(
  { settings, folder, cuts }: UnopenedEditor,
  adapter: string | null,
): Promise<string> {
  if (settings) return layersTold(settings);
  if (!folder || adapter === null)
    return layersTold(cuts.length === 1 ? { layer: cuts[0] } : { layers: cuts });
  return layersTold(z.looseObject({}).parse(await readJson(join(adapter, 'adapter.json'))));
}

/** What decides where edits act, as editors are told. */
function decidedBy({ form }: Scope): EditorScope {
  return form === 'own' || form === 'everywhere' ? form : 'routed';
}

/** Settings as the contract tells them. */
function settingValues(settings: Readonly<Record<string, unknown>>): Record<string, SettingValue> {
  return Object.fromEntries(Object.entries(settings).map(([key, value]) => [key, value as SettingValue]));
}

/** How an edit that is being made is told of, and stopped. */
export function makingOf({ signal, send }: OperationContext): Work {
  const progress = (done: number, total: number) =>
    send({ kind: 'progress', stage: 'Making the edit', done, total, unit: 'steps' });
  return { signal, progress };
}

export class OpenModel {
  readonly summary: ModelSummary;
  readonly edited: EditedModel;
  /** the library whose committed edits act, once it was named */
  #held: HeldLibrary | null = null;
  #states: { readonly key: string; readonly states: readonly EditState[] } | null = null;
  readonly #pictures: SeenPictures;
  /** a conversation up to the first cut, for the next one who asks the same */
  #shared: { readonly turns: readonly EngineTurn[]; readonly prepared: PreparedConversation } | null = null;

  private constructor(summary: ModelSummary, edited: EditedModel) {
    this.summary = summary;
    this.edited = edited;
    const { model } = edited;
    this.#pictures = new SeenPictures(async (file) => model.visualEmbeddings(await model.pixelsOf(file)));
  }

  /** Opens a checkpoint, with an adapter that was trained for it. Throws what is wrong; nothing stays open then. */
  static async open(input: EngineOperations['open']['input'], context: OperationContext): Promise<OpenModel> {
    const stage = (name: string, done: number) => {
      if (context.signal.aborted) throw new EmendError('cancelled', 'Opening was stopped.');
      context.send({ kind: 'progress', stage: name, done, total: 3, unit: 'steps' });
    };
    stage('Reading the checkpoint', 0);
    const checkpoint = await openCheckpoint(input.path);
    const own = await fingerprint(checkpoint);
    const unopened = await unopenedEditor(input, checkpoint, own);
    const scopeKind =
      unopened &&
      (await readScope(
        [unopened.folder ? input.adapter : null, input.scopeFolder].filter(
          (folder) => typeof folder === 'string',
        ),
        { cosine: unopened.router, model: unopened.model },
        input.scope ?? (unopened.scope === 'routed' ? undefined : unopened.scope),
      ));
    const limit = await pictureLimit(checkpoint, input);
    stage('Loading the model', 1);
    const model = await VisionLanguageModel.open(input.path, {
      providers: input.providers,
      cuts: cutsFor(unopened, scopeKind),
      changeable: unopened?.changeable ?? [],
      promptForm: input.template,
      pictureRows: limit,
      weights: input.weights ?? 'dense',
      ...(input.packed && { packed: input.packed }),
      onPacking: (done, total) => {
        const megabytes = (bytes: number) => Math.round(bytes / 1e6);
        context.send({
          ...{ kind: 'progress', stage: 'Packing the weights, once', unit: 'MB' },
          ...{ done: megabytes(done), total: megabytes(total) },
        });
      },
      signal: context.signal,
    });
    try {
      stage('Loading the adapter', 2);
      const scope = scopeKind && (await scopeKind.open(model.hidden));
      const opened = unopened &&
        scope && {
          path: input.adapter,
          where: await whereItActs(unopened, input.adapter),
          editor: await unopened.open(model, decidedBy(scope)),
          ...{ unopened, scope },
        };
      const summary = await summarise(input.path, checkpoint, opened, own, input.weights, limit);
      return new OpenModel(summary, new EditedModel(model, opened?.editor ?? null, scope));
    } catch (error) {
      await model.dispose();
      throw error;
    }
  }

  /** The library in which committed edits act. @throws EmendError 'internal' before `activate` */
  get library(): HeldLibrary {
    if (!this.#held) throw new EmendError('internal', 'The engine was not told which library it works for.');
    return this.#held;
  }

  /** Which of the committed edits acts on an input. */
  decide(prepared: Prepared): Promise<Decision> {
    return this.edited.decide(prepared, this.library.committed);
  }

  /**
   * What edits act by, as the library holds it; those asked for last are held, for the same edits act on one input after the other.
   * @throws EmendError 'not-found', 'damaged'
   */
  statesOf(edits: readonly number[]): readonly EditState[] {
    if (edits.length === 0) return [];
    const { store } = this.library;
    const rows = edits.map((edit) => editRow(store, edit));
    const key = rows.map((row) => signalState(store, row)).join();
    if (this.#states?.key !== key) {
      const states = rows.map((row) => {
        const bytes = signalOf(store, row);
        if (!bytes) throw new EmendError('not-found', `The library holds no signal of edit ${row.id}.`);
        return this.edited.decode(new Uint8Array(bytes));
      });
      this.#states = { key, states };
    }
    return this.#states.states;
  }

  /** Which edits act on an input, and how that was decided: all committed ones where none is compared, else the best match. */
  async acting(prepared: Prepared): Promise<{ edits: readonly number[]; decision: Decision | null }> {
    const { committed } = this.library;
    if (actsEverywhere(this.scope)) return { edits: committed.ids, decision: null };
    const decision = await this.decide(prepared);
    return { edits: decision.acting ? [decision.acting.edit] : [], decision };
  }

  /** What an edit acts by: made unless it comes with it. `visual`: its picture's embeddings, where they are at hand. */
  async stateFor(edit: EngineEdit, work: Work, visual?: Visual): Promise<EditState> {
    if (edit.signal) return this.edited.decode(edit.signal);
    const seen = visual ?? (await this.see(edit.picture));
    const { prompt, target } = edit;
    const before = actsEverywhere(this.scope) && this.#held ? this.statesOf(this.#held.committed.ids) : [];
    return this.edited.make({ visual: seen, prompt, target, before }, work);
  }

  /** Takes up the committed edits of a library; returns those that lack something, and then nothing changed. */
  activate({ library, actors, template }: EngineOperations['activate']['input']): readonly number[] {
    const held = this.#held;
    const same =
      held?.store.file === library &&
      JSON.stringify([held.store.actors, held.store.template]) === JSON.stringify([actors, template]);
    if (!same) {
      held?.store.close();
      const store = openReader(library, { actors, template });
      const width = this.scope.keyWidth;
      this.#held = {
        store,
        committed: new CommittedBank(store, width, !actsEverywhere(this.scope)),
        inputs: new CommittedInputs(store, width),
      };
    }
    return this.library.committed.bringInStep();
  }

  /** The scope. @throws EmendError 'conflict' without an adapter */
  get scope(): Scope {
    const { scope } = this.edited;
    if (!scope) throw new EmendError('conflict', 'No editor is open, so no edit can act.');
    return scope;
  }

  /** What a picture file is to the decoder; those seen last are held. */
  see(file: Uint8Array): Promise<Visual> {
    return this.#pictures.see(file);
  }

  /** Holds a conversation for the next one who asks the same; it may be large, and goes with whatever is asked next. */
  share(turns: readonly EngineTurn[], prepared: PreparedConversation): void {
    this.#shared = { turns, prepared };
  }

  /** Lets go of what is held for the next one; gives it where these are the turns it is of. */
  takeShared(turns: readonly EngineTurn[] = []): PreparedConversation | null {
    const shared = this.#shared;
    this.#shared = null;
    return shared && isDeepStrictEqual(shared.turns, turns) ? shared.prepared : null;
  }

  async dispose(): Promise<void> {
    this.#held?.store.close();
    this.#held = null;
    await this.edited.dispose();
  }
}
