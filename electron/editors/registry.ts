/**
 * @file The editors of the workbench, a line each.
 */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { EmendError } from '../errors.ts';
import { readJson } from '../files/json.ts';
import { dualEdit, publishedDualEdit } from './dualedit/dualEdit.ts';
import type { AdapterFolder, EditorKind } from './editor.ts';
import { publishedVisEdit, readSavedAdapters } from './visedit/publishedAdapter.ts';
import { opened, visEdit } from './visedit/visEdit.ts';

export const editorKinds: readonly EditorKind[] = [visEdit, dualEdit];

/** The editor of a name; undefined when there is none. */
export function editorNamed(name: string): EditorKind | undefined {
  return editorKinds.find((kind) => kind.name === name);
}

/**
 * Reads an adapter of any editor: a folder of ours, or a file that the published VisEdit or DualEdit code saved.
 * @param model fingerprint of the model it is for, and the width and number of its decoder's layers
 * @throws EmendError 'unsupported' for an editor this program does not have, 'damaged' when files are not what they say
 */
export async function readAdapterFolder(
  path: string,
  model: { readonly fingerprint: string; readonly hidden: number; readonly layers: number },
): Promise<AdapterFolder> {
  if ((await stat(path).catch(() => null))?.isFile())
    return { ...(await readPublished(path, model)), single: true };
  const described = join(path, 'adapter.json');
  const parsed = z.object({ editor: z.string().max(100) }).safeParse(await readJson(described));
  if (!parsed.success)
    throw new EmendError('damaged', `${described} does not say which editor it belongs to (“editor”).`);
  const kind = editorNamed(parsed.data.editor);
  if (!kind)
    throw new EmendError(
      'unsupported',
      `${described} belongs to the editor ${parsed.data.editor}. There are ${editorKinds.map(({ name }) => name).join(' and ')}.`,
    );
  return kind.read(path);
}

async function readPublished(
  path: string,
  model: { readonly fingerprint: string; readonly hidden: number; readonly layers: number },
): Promise<AdapterFolder> {
  const saved = await readSavedAdapters(path);
  return saved.adapters.some(({ rows }) => rows === 'text')
    ? publishedDualEdit(saved, path, model)
    : opened(publishedVisEdit(saved, path, model), path);
}
