/** @file Adapters on this machine: in and beside the open model's folder, and those opened before; and whether they fit the model. */
import { readdir, realpath, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { z } from 'zod';
import { layersTold } from '../editors/adapterFiles.ts';
import { EmendError } from '../errors.ts';
import { readJson } from '../files/json.ts';
import { recentModels } from '../library/recentModels.ts';
import type { FoundAdapter, ModelSummary } from './contract.ts';
import type { Parts } from './parts.ts';
import { demoModel } from './resources.ts';

/** What every editor's adapter.json says. */
const Description = z.looseObject({
  name: z.string().max(200).optional(),
  editor: z.string().max(100),
  /** of those that act at one layer */
  layer: z.number().int().nullish(),
  /** absent: an editor with settings, for any model */
  model: z.string().max(200).optional(),
  settings: z.record(z.string(), z.unknown()).optional(),
});

/** A model, as far as adapters are compared with it. */
export type AdaptedModel = Pick<ModelSummary, 'path' | 'checkpoint' | 'layers'>;

/** Adapters on this machine and whether they fit a model: those opened before, the demo's, and those trained here among them. */
export function adaptersOf(
  model: AdaptedModel,
  { library, resources, adaptersFolder }: Pick<Parts, 'library' | 'resources' | 'adaptersFolder'>,
): Promise<FoundAdapter[]> {
  const known = recentModels(library).flatMap(({ path, adapterPath }) =>
    adapterPath === null ? [] : [{ path: adapterPath, model: path }],
  );
  const demo = demoModel(resources);
  if (demo?.adapter) known.push({ path: demo.adapter, model: demo.path });
  return findAdapters(model, known, adaptersFolder);
}

/** Folders looked at in one place. */
const MOST_FOLDERS = 300;

/** An adapter opened before, with the folder of the model it was opened with. */
export interface KnownAdapter {
  readonly path: string;
  readonly model: string;
}

/** Those that fit first, then by name. */
export async function findAdapters(
  model: AdaptedModel,
  known: readonly KnownAdapter[],
  trainedHere: string,
): Promise<FoundAdapter[]> {
  const places = [model.path, dirname(model.path), trainedHere];
  const folders = (await Promise.all(places.map(foldersIn))).flat();
  const paths = new Set<string>();
  for (const path of [...known.map(({ path: opened }) => opened), ...folders]) {
    const real = await realpath(path).catch(() => null);
    if (real !== null) paths.add(real);
  }
  const found: FoundAdapter[] = [];
  for (const path of paths) {
    const adapter = await judge(path, model, known);
    if (adapter) found.push(adapter);
  }
  return found.toSorted(
    (one, other) => Number(other.fits) - Number(one.fits) || one.name.localeCompare(other.name),
  );
}

/** Null for what is no adapter. */
async function judge(
  path: string,
  model: AdaptedModel,
  known: readonly KnownAdapter[],
): Promise<FoundAdapter | null> {
  if ((await stat(path).catch(() => null))?.isFile()) {
    // A file of the published code does not say what it was trained on: where it was opened, it fits.
    const fits = known.some((opened) => opened.path === path && opened.model === model.path);
    const reason = fits ? '' : 'An archive of the published code that was opened with another model.';
    return { path, name: basename(path), editor: '', where: '', fits, reason };
  }
  if (!(await stat(join(path, 'adapter.json')).catch(() => null))) return null;
  const about = { path, name: basename(path), editor: '', where: '' };
  try {
    const parsed = Description.safeParse(await readJson(join(path, 'adapter.json')));
    if (!parsed.success) throw new EmendError('damaged', 'Its adapter.json does not describe an adapter.');
    const { name = basename(path), editor, layer = null, model: trainedOn, settings } = parsed.data;
    const fits = trainedOn === undefined || trainedOn === model.checkpoint;
    let reason = '';
    if (!fits) reason = `Trained for another model (${trainedOn?.slice(0, 12)}).`;
    if (!fits && layer !== null && layer > model.layers - 2)
      reason = `Trained for another model: it acts at layer ${layer}, and this one has ${model.layers}.`;
    return { path, name, editor, where: layersTold(settings ?? parsed.data), fits, reason };
  } catch (error) {
    const reason = error instanceof EmendError ? error.message : 'It cannot be read.';
    return { ...about, fits: false, reason };
  }
}

async function foldersIn(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  return entries
    .filter((entry) => entry.isDirectory())
    .slice(0, MOST_FOLDERS)
    .map((entry) => join(folder, entry.name));
}
