/** @file A library with an edit and the outcome of a check, as the tests of this folder need them. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterEach } from 'vitest';
import type {
  Answer,
  Edit,
  EditStatus,
  InfluenceMap,
  PreviewAnswers,
  ProbeKind,
} from '../../electron/api/contract.ts';
import { type CheckOutcome, type CheckPlan, planCheck, recordCheck } from '../../electron/library/checks.ts';
import { createEdit } from '../../electron/library/edits.ts';
import { type Library, openLibrary } from '../../electron/library/library.ts';
import { findEdits } from '../../electron/library/lists.ts';
import { examinePicture, storePicture } from '../../electron/library/pictures.ts';

export const influence: InfluenceMap = {
  rows: 1,
  columns: 2,
  values: [0.1, 0.9],
  layer: 2,
  window: { left: 0, top: 0, width: 1, height: 1 },
};

const answer = (text: string): Answer => ({
  text,
  tokens: [{ id: 1, text, probability: 0.75, alternatives: [{ id: 1, text, probability: 0.75 }] }],
  ended: 'stop-token',
  provider: 'cpu',
  times: { picture: 1, prompt: 2, generation: 3, total: 6 },
  routing: null,
});

/** The answers of a preview, as the engine gives them. */
export const answers = (before: string, after: string): PreviewAnswers => ({
  before: answer(before),
  after: answer(after),
});

const open: Library[] = [];
const folders: string[] = [];

afterEach(() => {
  for (const library of open.splice(0)) library.close();
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

/** A folder that is gone after the test. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'emend-library-'));
  folders.push(folder);
  return folder;
}

/** A library in which model `m` with adapter `a` acts; closed after the test. */
export function makeLibrary(path: string = join(temporaryFolder(), 'test.emend')): Library {
  const library = openLibrary(path);
  open.push(library);
  library.actors = { model: 'm', adapter: 'a' };
  return library;
}

/** Bytes of a small PNG, another for each shade. */
export const png = (shade: number): Promise<Buffer> =>
  sharp({ create: { width: 8, height: 6, channels: 3, background: { r: shade, g: 20, b: 30 } } })
    .png()
    .toBuffer();

export async function addPicture(library: Library, shade: number): Promise<string> {
  return storePicture(library, await examinePicture(await png(shade))).id;
}

export async function addEdit(
  library: Library,
  { prompt = 'what animal is it?', target = 'fox', shade = 1 } = {},
) {
  return createEdit(library, { picture: await addPicture(library, shade), prompt, target, before: 'dog' });
}

/** An outcome in which every probe passes but those of the kinds given. */
export function outcomeOf(plan: CheckPlan, failing: readonly ProbeKind[] = []): CheckOutcome {
  const results = plan.probes.map((planned) => {
    const { kind, expected } = planned.probe;
    const passes = !failing.includes(kind);
    const after = passes ? (expected ?? 'unchanged') : 'something else';
    const acting = { before: null, after: null };
    return {
      ...planned,
      ...{ unedited: 'unchanged', before: 'unchanged', after, acting, drift: null, passes, routing: null },
    };
  });
  return { results, unchanged: 0, watched: [], everywhere: false, seconds: 1.5, editor: 'VisEdit' };
}

/** Records a check of the edit as it stands. */
export function check(library: Library, id: number, failing: readonly ProbeKind[] = []) {
  const plan = planCheck(library, id);
  return recordCheck(library, plan, outcomeOf(plan, failing));
}

/** Every edit of the given statuses with words that begin as those of `search`, newest first. */
export function listEdits(
  library: Library,
  { status, search }: { status?: EditStatus[]; search?: string },
): Edit[] {
  const filter = { ...(status && { status }), ...(search !== undefined && { text: search }) };
  const page = { filter, sort: { by: 'id', descending: true }, offset: 0, limit: 1_000_000 } as const;
  return findEdits(library, page, { influence: false }).rows.map(({ influence: _, ...edit }) => edit);
}
