/**
 * @file Edits written to a folder: one file of edits, and their pictures beside it, so that both can be read in again elsewhere.
 */
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { mkdir, mkdtemp, rename, rm, stat, writeFile } from 'node:fs/promises';
import { basename, dirname, isAbsolute, join } from 'node:path';
import { finished } from 'node:stream/promises';
import type { Probe, ProbeKind } from '../api/contract.ts';
import { EmendError } from '../errors.ts';
import { type Check, latestCheck } from './checks.ts';
import type { Store } from './database.ts';
import { asEdit } from './listedEdits.ts';
import { readPicture } from './pictures.ts';
import { editRow, ownProbes } from './rows.ts';

/** Formats that edits are written in; all can be read in again. */
export type ExportFormat = 'emend' | 'evqa' | 'csv';

export interface ExportOptions {
  readonly format: ExportFormat;
  /** absolute path of a folder that is not there yet */
  readonly folder: string;
  readonly signal: AbortSignal;
  readonly onProgress: (done: number, total: number) => void;
}

export interface ExportReport {
  readonly file: string;
  readonly edits: number;
  readonly pictures: number;
  readonly refused: Array<{ edit: number; reason: string }>;
  readonly refusals: number;
}

const MOST_REFUSED = 100;
/** After so many edits other work has its turn. */
const PAUSE_EVERY = 20;

/** An edit with what a format may want of it. */
interface Exported {
  readonly edit: ReturnType<typeof asEdit>;
  /** its probes but itself; pictures by their name in the export */
  readonly probes: readonly Probe[];
  readonly check: Check | null;
  readonly picture: string;
  readonly pictureOf: (probe: Probe) => string | null;
}

interface Format {
  readonly extension: string;
  readonly head: string;
  readonly between: string;
  readonly foot: string;
  /** @throws EmendError for an edit the format cannot tell */
  readonly line: (exported: Exported) => string;
}

const csvColumns = [
  ...['number', 'picture', 'prompt', 'target', 'before', 'after', 'status', 'note', 'tags'],
  ...['rephrase', 'image_rephrase', 'loc', 'm_loc', 'm_loc_q', 'same_image_q'],
];

const json = (line: Format['line']): Format => {
  return { extension: 'json', head: '[\n', between: ',\n', foot: '\n]\n', line };
};

const formats: Readonly<Record<ExportFormat, Format>> = {
  emend: json((exported) => JSON.stringify(emendRow(exported))),
  evqa: json((exported) => JSON.stringify(evqaRow(exported))),
  csv: {
    extension: 'csv',
    head: `${csvColumns.join(',')}\n`,
    between: '\n',
    foot: '\n',
    line: (exported) => csvRow(exported).map(csvField).join(','),
  },
};

/**
 * Writes edits and their pictures into a new folder. Stopped or failed, it leaves nothing behind.
 * @throws EmendError 'invalid-input' for a path that is not absolute, 'conflict' where it is there already, 'not-found' where it
 *   cannot be written, 'cancelled'
 */
export async function exportEdits(
  store: Store,
  ids: readonly number[],
  { format, folder, signal, onProgress }: ExportOptions,
): Promise<ExportReport> {
  if (!isAbsolute(folder)) {
    throw new EmendError('invalid-input', `${folder} is not a whole path. Give one that begins at the root.`);
  }
  if (await stat(folder).catch(() => null)) {
    throw new EmendError('conflict', `${folder} is there already. Choose a folder that is not.`);
  }
  const { extension, head, between, foot, line } = formats[format];
  const name = `edits.${extension}`;
  let unfinished: string | null = null;
  try {
    unfinished = await mkdtemp(join(dirname(folder), `.${basename(folder)}-`));
    await mkdir(join(unfinished, 'pictures'));
    const written = new Set<string>();
    const refused: ExportReport['refused'] = [];
    let [edits, refusals] = [0, 0];
    const file = createWriteStream(join(unfinished, name));
    const ended = finished(file);
    // Whoever waits for the next write hears of a disk that is full.
    ended.catch(() => undefined);
    const put = async (text: string): Promise<void> => {
      if (!file.write(text)) await Promise.race([once(file, 'drain'), ended]);
    };
    await put(head);
    onProgress(0, ids.length);
    for (const [place, id] of ids.entries()) {
      if (signal.aborted) throw new EmendError('cancelled', 'Stopped. Nothing was exported.');
      try {
        const exported = lookUp(store, id);
        const text = line(exported);
        await put(edits === 0 ? text : between + text);
        edits += 1;
        for (const picture of picturesOf(exported)) {
          if (written.has(picture)) continue;
          written.add(picture);
          const { data, picture: facts } = readPicture(store, picture);
          await writeFile(join(unfinished, pictureName(picture, facts.mime)), data);
        }
      } catch (error) {
        if (!(error instanceof EmendError)) throw error;
        refusals += 1;
        if (refused.length < MOST_REFUSED) refused.push({ edit: id, reason: error.message });
      }
      onProgress(place + 1, ids.length);
      if (place % PAUSE_EVERY === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    await put(foot);
    file.end();
    await ended;
    await rename(unfinished, folder);
    return { file: join(folder, name), edits, pictures: written.size, refused, refusals };
  } catch (error) {
    if (unfinished) await rm(unfinished, { recursive: true, force: true });
    if (error instanceof EmendError || !(error instanceof Error && 'code' in error)) throw error;
    throw new EmendError('not-found', `${folder} cannot be written (${error.code}).`, { cause: error });
  }
}

const extensions: Readonly<Record<string, string>> = {
  'image/jpeg': 'jpg',
  'image/png': 'png',
  'image/webp': 'webp',
  'image/gif': 'gif',
  'image/tiff': 'tiff',
  'image/avif': 'avif',
};

/** Name of a picture's file, relative to the folder. */
const pictureName = (id: string, mime: string): string => `pictures/${id}.${extensions[mime] ?? 'bin'}`;

function lookUp(store: Store, id: number): Exported {
  return store.read(() => {
    const row = editRow(store, id);
    const nameOf = (picture: string): string => {
      const mime = store.database
        .prepare<[string], string>('SELECT mime FROM pictures WHERE id = ?')
        .pluck()
        .get(picture);
      return pictureName(picture, mime ?? '');
    };
    return {
      edit: asEdit(store, row),
      probes: ownProbes(store, row).filter((probe) => probe.kind !== 'reliability'),
      check: latestCheck(store, row),
      picture: nameOf(row.picture),
      // Kinds that are asked of the edit's own picture are written without one, as they are typed.
      pictureOf: ({ picture }) => (picture === null || picture === row.picture ? null : nameOf(picture)),
    };
  });
}

const picturesOf = ({ edit, probes }: Exported): Set<string> =>
  new Set([edit.picture, ...probes.flatMap((probe) => probe.picture ?? [])]);

function emendRow({ edit, probes, check, picture, pictureOf }: Exported) {
  const { id, picture: _, ...told } = edit;
  return {
    number: id,
    picture,
    ...told,
    probes: probes.map((probe) => ({ kind: probe.kind, picture: pictureOf(probe), prompt: probe.prompt })),
    check: check && {
      finished: check.finished,
      verdict: check.verdict,
      staleBecause: check.staleBecause,
      groups: check.groups,
    },
  };
}

function evqaRow(exported: Exported) {
  const { edit, check, picture, pictureOf } = exported;
  const demand = (kind: ProbeKind): Probe => {
    const probe = firstOf(exported, kind);
    if (probe) return probe;
    throw new EmendError('conflict', `E-VQA asks for a probe of ${kind}, and edit ${edit.id} has none.`);
  };
  const answerTo = (probe: Probe): string => {
    const result = check?.results.find((other) => other.probe.id === probe.id);
    if (result) return result.before;
    throw new EmendError(
      'conflict',
      `E-VQA asks for what locality probes answer, and a probe of ${probe.kind} of edit ${edit.id} was never asked. Check the edit first.`,
    );
  };
  const [rephrase, rephraseImage] = [demand('text-generality'), demand('image-generality')];
  const [loc, imageLoc] = [demand('text-locality'), demand('image-locality')];
  const same = firstOf(exported, 'same-picture');
  return {
    src: edit.prompt,
    rephrase: rephrase.prompt,
    alt: edit.target,
    pred: edit.before ?? '',
    image: picture,
    image_rephrase: pictureOf(rephraseImage),
    loc: loc.prompt,
    loc_ans: answerTo(loc),
    m_loc: pictureOf(imageLoc),
    m_loc_q: imageLoc.prompt,
    m_loc_a: answerTo(imageLoc),
    ...(same && { same_image_q: same.prompt, same_image_a: answerTo(same) }),
    ...(edit.note && { note: edit.note }),
    ...(edit.tags.length > 0 && { tags: edit.tags }),
  };
}

/** The columns of CSV; of probes of one kind the first, as a row has room for one. */
function csvRow(exported: Exported): string[] {
  const { edit, picture, pictureOf } = exported;
  const textOf = (kind: ProbeKind) => firstOf(exported, kind)?.prompt ?? '';
  const pictureOfKind = (kind: ProbeKind) => {
    const probe = firstOf(exported, kind);
    return (probe && pictureOf(probe)) ?? '';
  };
  return [
    ...[String(edit.id), picture, edit.prompt, edit.target, edit.before ?? '', edit.after ?? ''],
    ...[edit.status, edit.note, edit.tags.join(';')],
    ...[textOf('text-generality'), pictureOfKind('image-generality'), textOf('text-locality')],
    ...[pictureOfKind('image-locality'), textOf('image-locality'), textOf('same-picture')],
  ];
}

const firstOf = ({ probes }: Exported, kind: ProbeKind): Probe | undefined =>
  probes.find((probe) => probe.kind === kind);

const csvField = (text: string): string => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
