/**
 * @file The editors of the workbench, a line each.
 */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { EmendError } from '../errors.ts';
import { readJson } from '../files/json.ts';
import type { Checkpoint } from '../models/open.ts';
import { caliNet } from './calinet/calinet.ts';
import { dualEdit, publishedDualEdit } from './dualedit/dualEdit.ts';
import type { EditorKind, UnopenedEditor } from './editor.ts';
import { ftLanguage } from './ft/ftLanguage.ts';
import { ftVision } from './ft/ftVision.ts';
import { grace } from './grace/grace.ts';
import { ike } from './ike/ike.ts';
import { ke } from './ke/kind.ts';
import { kn } from './kn/kn.ts';
import { lte } from './lte/kind.ts';
import { memit } from './memit/memit.ts';
import { mend } from './mend/kind.ts';
import { rome } from './rome/rome.ts';
import { serac } from './serac/kind.ts';
import { parseSettings, settingsFingerprint } from './settings.ts';
import { tPatcher } from './tpatcher/tPatcher.ts';
import { PUBLISHED_THRESHOLD, publishedVisEdit, readSavedAdapters } from './visedit/publishedAdapter.ts';
import { opened, visEdit } from './visedit/visEdit.ts';

export const editorKinds: readonly EditorKind[] = [
  visEdit,
  dualEdit,
  ike,
  grace,
  lte,
  serac,
  ftLanguage,
  ftVision,
  rome,
  memit,
  kn,
  ke,
  mend,
  tPatcher,
  caliNet,
];

/** The editor of a name; undefined when there is none. */
export function editorNamed(name: string): EditorKind | undefined {
  return editorKinds.find((kind) => kind.name === name);
}

/** The editor of a name. @throws EmendError 'not-found' that lists those there are */
export function demandEditor(name: string): EditorKind {
  const kind = editorNamed(name);
  if (kind) return kind;
  const names = editorKinds.map((one) => one.name).join(', ');
  throw new EmendError('not-found', `There is no editor ${name}. There are ${names}.`);
}

/** An editor chosen by name with settings, for those that need no training. */
export interface EditorChoice {
  readonly editor: string;
  readonly settings: Readonly<Record<string, unknown>>;
}

/**
 * An editor that needs no training, with its settings checked for a model.
 * @param fingerprint of the model
 * @throws EmendError 'not-found' for no editor of this program, 'invalid-input' for one that must be trained first and for settings it
 *   does not have
 */
export async function chosenEditor(
  choice: EditorChoice,
  checkpoint: Checkpoint,
  fingerprint: string,
): Promise<UnopenedEditor> {
  const editor = demandEditor(choice.editor);
  const { name, untrained } = editor;
  if (!untrained)
    throw new EmendError(
      'invalid-input',
      `${name} must be trained on a model before it can edit it. Give the folder of its adapter.`,
    );
  const settings = parseSettings(name, untrained.settings, choice.settings);
  const { cuts, changeable } = untrained.needs(settings, checkpoint);
  return {
    ...{ editor, folder: false, name, model: fingerprint, cuts, changeable },
    fingerprint: await settingsFingerprint(name, untrained.settings, { ...settings }, fingerprint),
    // No threshold was calibrated: DualEdit's published one, at the middle of the decoder as in its LLaVA.
    router: {
      layer: Math.max(0, Math.ceil(checkpoint.backbone.decoder.layers / 2) - 1),
      threshold: PUBLISHED_THRESHOLD,
    },
    scope: untrained.scope,
    settings: { ...settings },
    open: (model, scope) => untrained.open(settings, model, scope),
  };
}

const Described = z.object({
  editor: z.string().max(100),
  /** with an editor that needs no training: all there is beside its name */
  settings: z.record(z.string(), z.unknown()).optional(),
  /** of weights that lie beside it */
  weightsSha256: z.string().optional(),
});

/**
 * Reads an adapter of any editor: a folder of ours, or a file that the published VisEdit or DualEdit code saved.
 * @param fingerprint of the model it is for
 * @throws EmendError 'unsupported' for an editor this program does not have, 'damaged' when files are not what they say
 */
export async function readAdapter(
  path: string,
  checkpoint: Checkpoint,
  fingerprint: string,
): Promise<UnopenedEditor> {
  const { hidden, layers } = checkpoint.backbone.decoder;
  if ((await stat(path).catch(() => null))?.isFile())
    return { ...(await readPublished(path, { fingerprint, hidden, layers })), folder: false };
  const described = join(path, 'adapter.json');
  const parsed = Described.safeParse(await readJson(described));
  if (!parsed.success)
    throw new EmendError('damaged', `${described} does not say which editor it belongs to (“editor”).`);
  const { editor: name, settings = {}, weightsSha256 } = parsed.data;
  const kind = editorNamed(name);
  if (!kind)
    throw new EmendError(
      'unsupported',
      `${described} belongs to the editor ${name}. There are ${editorKinds.map((one) => one.name).join(', ')}.`,
    );
  // Some can be trained and need not be: without weights it is one of these.
  if (kind.read && (weightsSha256 !== undefined || !kind.untrained)) return kind.read(path, checkpoint);
  return chosenEditor({ editor: name, settings }, checkpoint, fingerprint);
}

async function readPublished(
  path: string,
  model: { readonly fingerprint: string; readonly hidden: number; readonly layers: number },
): Promise<UnopenedEditor> {
  const saved = await readSavedAdapters(path);
  return saved.adapters.some(({ rows }) => rows === 'text')
    ? publishedDualEdit(saved, path, model)
    : opened(publishedVisEdit(saved, path, model), path);
}
