/**
 * @file What can be measured on a model, from its files alone: which editors act on it, by which adapters, and why others cannot. Nothing
 * is opened for it.
 */
import { realpath } from 'node:fs/promises';
import { basename } from 'node:path';
import type { EditorKind } from '../editors/editor.ts';
import { chosenEditor, editorKinds, readAdapter } from '../editors/registry.ts';
import { EmendError } from '../errors.ts';
import { recentModels } from '../library/recentModels.ts';
import { readSettings } from '../library/settings.ts';
import { fingerprint } from '../models/checkpoint.ts';
import { findModels, hubCaches, nameOfModel } from '../models/hubCache.ts';
import { refuseWhatCannotFit } from '../models/memory.ts';
import { type Checkpoint, openCheckpoint } from '../models/open.ts';
import type { WeightForm } from '../models/packed/form.ts';
import { adaptersOf } from './adapters.ts';
import type { BenchmarkCandidate, BenchmarkModel } from './contract.ts';
import { demandFolder } from './modelSession.ts';
import type { Parts } from './parts.ts';
import { demoModel } from './resources.ts';

type Places = Pick<Parts, 'session' | 'library' | 'resources' | 'adaptersFolder'>;

/** A model as it is opened to be measured on. */
export interface MeasuredModel {
  readonly path: string;
  readonly name: string;
  readonly weights: WeightForm;
  readonly mostPictureRows?: number | undefined;
}

/** The open model first, the demo, those opened before, then those fetched. */
export async function measurableModels({ session, library, resources }: Places): Promise<BenchmarkModel[]> {
  const fetched = (await findModels(hubCaches())).models.filter(({ state }) => state === 'opens');
  const paths = [
    session.model?.path,
    demoModel(resources)?.path,
    ...recentModels(library).map(({ path }) => path),
    ...fetched.map(({ path }) => path),
  ];
  const real = await Promise.all(
    paths.map((path) => (path === undefined ? null : realpath(path).catch(() => null))),
  );
  const there = [...new Set(real.filter((path) => path !== null))];
  return there.map((path) => {
    const { name, weights } = modelAt(path, { session, library });
    return { path, name, weights, open: path === session.model?.path };
  });
}

/** A model's folder with how it is opened: as it is open, else as it was last. @throws EmendError 'not-found', 'invalid-input' */
export async function measuredModel(path: string, places: Places): Promise<MeasuredModel> {
  return modelAt(await demandFolder(path, 'model'), places);
}

function modelAt(path: string, { session, library }: Pick<Places, 'session' | 'library'>): MeasuredModel {
  const { model } = session;
  if (model?.path === path) {
    const { name, weights, pictureRows } = model;
    return { path, name, weights, mostPictureRows: pictureRows.limit ?? undefined };
  }
  return {
    ...{ path, name: nameOfModel(path), weights: session.usualForm(path) },
    mostPictureRows: readSettings(library).pictureRows ?? undefined,
  };
}

/** What can be measured on a model. */
export interface Measurable {
  readonly editors: BenchmarkCandidate[];
  /** of the editors those that can act on it, as they can: without training too or not */
  readonly kinds: readonly EditorKind[];
  /** those that fit it and can be opened */
  readonly adapters: ReadonlyArray<{ readonly folder: string; readonly editor: string }>;
  readonly warning: string | null;
}

/** @throws EmendError as `openCheckpoint`, for what is no model */
export async function measurableOn(model: MeasuredModel, places: Places): Promise<Measurable> {
  const { path, weights, mostPictureRows } = model;
  const checkpoint = await openCheckpoint(path);
  const own = await fingerprint(checkpoint);
  const layers = checkpoint.backbone.decoder.layers;
  const found = await adaptersOf({ path, checkpoint: own, layers }, places);
  const usable: Array<{ folder: string; editor: string }> = [];
  const editors: BenchmarkCandidate[] = [];
  const kinds: EditorKind[] = [];
  for (const kind of editorKinds) {
    const { name: editor, acts } = kind;
    const ofKind = found.filter((adapter) => adapter.editor === editor);
    const adapters: string[] = [];
    const unusable: string[] = [];
    for (const { path: folder, name } of ofKind.filter(({ fits }) => fits)) {
      const reason = await reasonAgainst(() => readAdapter(folder, checkpoint, own));
      if (reason === null) {
        usable.push({ folder, editor });
        adapters.push(basename(folder));
      } else unusable.push(`${name}: ${reason}`);
    }
    const against = await reasonAgainstEditor(kind, checkpoint, own);
    const refused = adapters.length > 0 ? null : against;
    const { untrained, ...trained } = kind;
    if (refused === null) kinds.push(against === null ? kind : trained);
    const others = ofKind.filter(({ fits }) => !fits).length;
    const elsewhere = others === 0 || refused === null ? '' : ` ${otherAdapters(others)}`;
    editors.push({
      ...{ editor, acts, trains: untrained === undefined, adapters, unusable },
      refused: refused && refused + elsewhere,
    });
  }
  const { rows } = await checkpoint.backbone.openPictures(checkpoint.folder);
  const most = Math.max(rows.least, Math.min(rows.most, mostPictureRows ?? rows.most));
  const warning = await reasonAgainst(() => refuseWhatCannotFit(checkpoint, weights, most));
  return { editors, kinds, adapters: usable, warning };
}

const otherAdapters = (count: number) =>
  count === 1
    ? 'The one on this machine is for another model.'
    : `The ${count} on this machine are for other models.`;

/** Why an editor without an adapter cannot act on a model, and what to do; null where it can. */
async function reasonAgainstEditor(
  { name: editor, untrained }: EditorKind,
  checkpoint: Checkpoint,
  own: string,
): Promise<string | null> {
  if (untrained) return reasonAgainst(() => chosenEditor({ editor, settings: {} }, checkpoint, own));
  return 'No adapter fits: train one first, on the Training page or with "emend train".';
}

/** What `work` is refused for; null where it is not. */
async function reasonAgainst(work: () => unknown): Promise<string | null> {
  try {
    await work();
    return null;
  } catch (error) {
    if (error instanceof EmendError) return error.message;
    throw error;
  }
}
