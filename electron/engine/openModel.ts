/**
 * @file The one model an engine has open: its files, its adapter, and the committed edits that act on it.
 */
import { basename } from 'node:path';
import type { ModelSummary, Routing } from '../api/contract.ts';
import { MemoryBank } from '../editors/scope/memoryBank.ts';
import { readScope } from '../editors/scope/openScope.ts';
import type { Decision, Scope } from '../editors/scope/scope.ts';
import { type AdapterFiles, readAdapter, VisEdit } from '../editors/visedit/visEdit.ts';
import { EmendError } from '../errors.ts';
import { cutsFor, EditedModel, type Prepared } from '../evaluation/editedModel.ts';
import { fingerprint } from '../models/checkpoint.ts';
import { type Checkpoint, openCheckpoint } from '../models/open.ts';
import type { PictureLayout, Visual } from '../models/picture.ts';
import { VisionLanguageModel } from '../models/visionLanguageModel.ts';
import { type ActingEdit, decodeActing, encodeActing } from './actingEdit.ts';
import type { EngineOperations, OperationContext, SignalledEdit } from './protocol.ts';

export async function summarise(
  path: string,
  checkpoint: Checkpoint,
  adapter: { path: string; files: AdapterFiles; scope: Scope } | null,
  ofCheckpoint?: string,
): Promise<ModelSummary> {
  const { backbone, weights } = checkpoint;
  const { decoder } = backbone;
  const shapes = backbone.tensors();
  const dtypes = new Set([...shapes.keys()].map((name) => weights.find(name)?.dtype ?? '?'));
  const description = adapter?.files.description;
  return {
    path,
    name: basename(checkpoint.folder),
    fingerprint: ofCheckpoint ?? (await fingerprint(checkpoint)),
    architecture: checkpoint.family,
    layers: decoder.layers,
    hidden: decoder.hidden,
    parameters: [...shapes.values()].reduce((sum, shape) => sum + shape.reduce((a, b) => a * b, 1), 0),
    visualTokens: (await backbone.openPictures(checkpoint.folder)).rows.most,
    dtype: [...dtypes].sort().join(' and '),
    adapter:
      adapter && description
        ? {
            name: description.name,
            path: adapter.path,
            fingerprint: adapter.files.fingerprint,
            editor: description.editor,
            layer: description.layer,
            scope: {
              form: adapter.scope.form,
              fingerprint: adapter.scope.fingerprint,
              curve: [...adapter.scope.curve],
            },
          }
        : null,
  };
}

export class OpenModel {
  readonly summary: ModelSummary;
  readonly edited: EditedModel;
  readonly #active = new Map<number, ActingEdit>();
  /** those of the parts of the next set that have come so far */
  #next: ActingEdit[] = [];
  /** the active edits as the scope needs them; null until one is asked for */
  #bank: MemoryBank | null = null;

  private constructor(summary: ModelSummary, edited: EditedModel) {
    this.summary = summary;
    this.edited = edited;
  }

  /** Opens a checkpoint, with an adapter that was trained for it. Throws what is wrong; nothing stays open then. */
  static async open(input: EngineOperations['open']['input'], context: OperationContext): Promise<OpenModel> {
    const stage = (name: string, done: number) => {
      if (context.signal.aborted) throw new EmendError('cancelled', 'Opening was stopped.');
      context.send({ kind: 'progress', stage: name, done, total: 3, unit: 'steps' });
    };
    stage('Reading the checkpoint', 0);
    const checkpoint = await openCheckpoint(input.path);
    const files = input.adapter === null ? null : await readAdapter(input.adapter);
    const own = await fingerprint(checkpoint);
    if (files && files.description.model !== own) {
      throw new EmendError(
        'invalid-input',
        `The adapter ${input.adapter} was trained for another model than ${input.path}. Train one for this model, or open the model without it.`,
      );
    }
    const scopeKind =
      files &&
      (await readScope(
        input.adapter!,
        { cosine: files.description.router, model: files.description.model },
        input.scope,
      ));
    stage('Loading the model', 1);
    const model = await VisionLanguageModel.open(input.path, {
      providers: input.providers,
      cuts: cutsFor(files && { cuts: [files.description.layer] }, scopeKind),
      promptForm: input.template,
      signal: context.signal,
    });
    try {
      stage('Loading the adapter', 2);
      const scope = scopeKind && (await scopeKind.open(model.hidden));
      const editor =
        files &&
        (await VisEdit.create(files.description.layer, files.shape, files.weights, [model.provider]));
      const adapter = files && scope && { path: input.adapter!, files, scope };
      const summary = await summarise(input.path, checkpoint, adapter, own);
      return new OpenModel(summary, new EditedModel(model, editor, scope));
    } catch (error) {
      await model.dispose();
      throw error;
    }
  }

  get active(): Iterable<ActingEdit> {
    return this.#active.values();
  }

  /** Which of the committed edits acts on an input. */
  async decide(prepared: Prepared): Promise<Decision> {
    this.#bank ??= this.bankOf(this.active);
    return this.edited.decide(prepared, this.#bank);
  }

  /** Edits as the scope needs them. */
  bankOf(edits: Iterable<ActingEdit>): MemoryBank {
    const bank = new MemoryBank(this.#scope.keyWidth);
    for (const { id, described } of edits) bank.add(id, 'picture', described);
    return bank;
  }

  /** The signal of one of these edits, or null for none. */
  signalOf(decision: Decision, extra?: ActingEdit) {
    const id = decision.acting?.edit;
    if (id === undefined) return null;
    return id === extra?.id ? extra.signal : this.#active.get(id)!.signal;
  }

  get #scope(): Scope {
    const { scope } = this.edited;
    if (!scope) throw new EmendError('conflict', 'No adapter is open, so no edit can act.');
    return scope;
  }

  /** What a picture file is to the decoder, and how it is laid out. */
  async see(file: Uint8Array): Promise<{ visual: Visual; layout: PictureLayout }> {
    const { model } = this.edited;
    const visual = await model.visualEmbeddings(await model.pixelsOf(file));
    return { visual, layout: visual.layout };
  }

  /** An edit as it acts; computed unless the library holds it. */
  async acting({ id, picture, prompt, target, signal }: SignalledEdit, visual?: Visual): Promise<ActingEdit> {
    const scope = this.#scope;
    if (signal) return decodeActing(id, signal, scope, this.edited.model.hidden);
    const seen = visual ?? (picture && (await this.see(picture)).visual);
    if (!seen)
      throw new EmendError('internal', `Edit ${id} came without its signal and without its picture.`);
    const described = await this.edited.describe(await this.edited.prepare(seen, prompt));
    if (!described) throw new EmendError('internal', `The scope has nothing to compare edit ${id} by.`);
    return { id, signal: await this.edited.signal(seen, prompt, target), described };
  }

  /** Replaces the committed edits, all or none, with the last part of them. Returns signals that had to be computed. */
  async activate(
    { edits, begin, end }: EngineOperations['activate']['input'],
    context: OperationContext,
  ): Promise<Array<{ id: number; signal: Uint8Array }>> {
    const next = begin ? [] : this.#next;
    this.#next = [];
    const computed: Array<{ id: number; signal: Uint8Array }> = [];
    for (const [done, edit] of edits.entries()) {
      if (context.signal.aborted)
        throw new EmendError('cancelled', 'Loading the committed edits was stopped.');
      const held = 'held' in edit;
      const candidate = held ? this.#active.get(edit.id) : await this.acting(edit);
      if (!candidate)
        throw new EmendError('internal', `Edit ${edit.id} does not act, so it cannot go on to.`);
      next.push(candidate);
      if (!held && !edit.signal) computed.push({ id: edit.id, signal: encodeActing(candidate) });
      if (done % 16 === 0)
        context.send({
          kind: 'progress',
          stage: 'Loading committed edits',
          done,
          total: edits.length,
          unit: 'edits',
        });
    }
    if (!end) {
      this.#next = next;
      return computed;
    }
    this.#active.clear();
    for (const candidate of next) this.#active.set(candidate.id, candidate);
    this.#bank = null;
    return computed;
  }

  /** A decision as the contract tells it, in a library of so many committed edits. */
  routing({ acting, matches }: Decision, committed: number): Routing {
    const told = matches.map((match) => {
      const threshold = this.#scope.threshold(committed, match.reach);
      return { ...match, threshold, margin: match.score - threshold };
    });
    const closest = told[0];
    return {
      edit: acting?.edit ?? null,
      closest: closest?.edit ?? null,
      score: closest?.score ?? null,
      threshold: closest?.threshold ?? null,
      margin: closest?.margin ?? null,
      matches: told,
    };
  }

  dispose(): Promise<void> {
    return this.edited.dispose();
  }
}
