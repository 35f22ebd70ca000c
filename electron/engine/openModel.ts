/**
 * @file The one model an engine has open: its files, its adapter, and the committed edits that act on it.
 */
import { basename } from 'node:path';
import type { ModelSummary, Routing } from '../api/contract.ts';
import type { Candidate, Route } from '../editors/router.ts';
import { decodeSignal, encodeSignal } from '../editors/signalFile.ts';
import { type AdapterFiles, cutsOf, readAdapter, VisEdit } from '../editors/visedit/visEdit.ts';
import { EmendError } from '../errors.ts';
import { EditedModel } from '../evaluation/editedModel.ts';
import { decodePicture } from '../files/picture.ts';
import { type Checkpoint, fingerprint, openCheckpoint, requiredTensors } from '../models/checkpoint.ts';
import { VisionLanguageModel } from '../models/visionLanguageModel.ts';
import type { EngineOperations, OperationContext, SignalledEdit } from './protocol.ts';

export async function summarise(
  path: string,
  checkpoint: Checkpoint,
  adapter: { path: string; files: AdapterFiles } | null,
): Promise<ModelSummary> {
  const { config, weights } = checkpoint;
  const shapes = requiredTensors(config);
  const dtypes = new Set([...shapes.keys()].map((name) => weights.find(name)?.dtype ?? '?'));
  const description = adapter?.files.description;
  return {
    path,
    name: basename(checkpoint.folder),
    fingerprint: await fingerprint(checkpoint),
    architecture: 'LLaVA',
    layers: config.text.layers,
    hidden: config.text.hidden,
    parameters: [...shapes.values()].reduce((sum, shape) => sum + shape.reduce((a, b) => a * b, 1), 0),
    visualTokens: config.imageTokenCount,
    dtype: [...dtypes].sort().join(' and '),
    adapter:
      adapter && description
        ? {
            name: description.name,
            path: adapter.path,
            fingerprint: adapter.files.fingerprint,
            editor: description.editor,
            layer: description.layer,
            routerThreshold: description.router.threshold,
          }
        : null,
  };
}

export class OpenModel {
  readonly summary: ModelSummary;
  readonly edited: EditedModel;
  readonly #active = new Map<number, Candidate>();
  /** those of the parts of the next set that have come so far */
  #next: Candidate[] = [];

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
    const summary = await summarise(input.path, checkpoint, files && { path: input.adapter!, files });
    if (files && files.description.model !== summary.fingerprint) {
      throw new EmendError(
        'invalid-input',
        `The adapter ${input.adapter} was trained for another model than ${input.path}. Train one for this model, or open the model without it.`,
      );
    }
    stage('Loading the model', 1);
    const model = await VisionLanguageModel.open(input.path, {
      providers: input.providers,
      cuts: files ? cutsOf(files.description.layer, files.description.router.layer) : [],
      promptForm: input.template,
      signal: context.signal,
    });
    try {
      stage('Loading the adapter', 2);
      const editor = files
        ? await VisEdit.create(
            files.description.layer,
            files.shape,
            files.weights,
            [model.provider],
            files.description.router.layer,
          )
        : null;
      return new OpenModel(summary, new EditedModel(model, editor, files?.description.router.threshold ?? 1));
    } catch (error) {
      await model.dispose();
      throw error;
    }
  }

  get active(): Iterable<Candidate> {
    return this.#active.values();
  }

  /** Visual embeddings of a picture file, and the part of the picture the model sees, in fractions of it. */
  async see(file: Uint8Array) {
    const picture = await decodePicture(file);
    const { model } = this.edited;
    const view = model.images.viewOf(picture);
    const visual = await model.visualEmbeddings(model.images.preprocess(picture));
    const window = {
      left: view.left / picture.width,
      top: view.top / picture.height,
      width: view.width / picture.width,
      height: view.height / picture.height,
    };
    return { visual, window };
  }

  /** An edit as a candidate of the router; its signal is computed unless the library holds it. */
  async candidate(
    { id, picture, prompt, target, signal }: SignalledEdit,
    visual?: Float32Array,
  ): Promise<Candidate> {
    if (signal) return { id, signal: decodeSignal(signal, this.edited.model.hidden) };
    const seen = visual ?? (picture && (await this.see(picture)).visual);
    if (!seen)
      throw new EmendError('internal', `Edit ${id} came without its signal and without its picture.`);
    return { id, signal: await this.edited.signal(seen, prompt, target) };
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
      const candidate = held ? this.#active.get(edit.id) : await this.candidate(edit);
      if (!candidate)
        throw new EmendError('internal', `Edit ${edit.id} does not act, so it cannot go on to.`);
      next.push(candidate);
      if (!held && !edit.signal) computed.push({ id: edit.id, signal: encodeSignal(candidate.signal) });
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
    return computed;
  }

  routing(found: Route): Routing {
    return {
      edit: found.chosen?.id ?? null,
      closest: found.closest?.id ?? null,
      similarity: found.similarity,
      threshold: this.edited.threshold,
    };
  }

  dispose(): Promise<void> {
    return this.edited.dispose();
  }
}
