/** @file Lists answer what a plain filter over all edits would, and counts what a recount would, whatever was done before. */
import { describe, expect, test } from 'vitest';
import type { EditFilter, EditSort } from '../../electron/api/contract.ts';
import { restoreMany, retireMany, tagMany } from '../../electron/library/bulk.ts';
import {
  commitEdit,
  createEdit,
  editState,
  findEdit,
  noteEdit,
  restoreEdit,
  retireEdit,
  showEdit,
  updateEdit,
  writeDraft,
} from '../../electron/library/edits.ts';
import { type Progress, wholly } from '../../electron/library/inParts.ts';
import type { Library } from '../../electron/library/library.ts';
import {
  countEdits,
  editNumbers,
  findEdits,
  listActors,
  listRows,
  neighbours,
  selectedEdits,
} from '../../electron/library/lists.ts';
import {
  redo,
  redoableOperation,
  undo,
  undoableOperation,
  undoing,
} from '../../electron/library/operations.ts';
import { rememberModel } from '../../electron/library/recentModels.ts';
import { keepSignal } from '../../electron/library/signals.ts';
import { listTags } from '../../electron/library/tags.ts';
import { storedThumbnails } from '../../electron/library/thumbnails.ts';
import { listViews, removeView, saveView } from '../../electron/library/views.ts';
import { addEdit, addPicture, check, influence, listEdits, makeLibrary } from './support.ts';

/** Numbers below `below` in an order that depends on the seed only. */
function random(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

const words = [
  'fox',
  'Fuchs',
  'fôret',
  'it’s',
  'apple-pie',
  '42',
  'Lime',
  '梨',
  '"quoted"',
  'AND',
  'a*b',
  'x_y',
];
const short = ['reliability', 'text-generality', 'same-picture'] as const;
const tags = ['night', 'to do', 'Ä'];

/** A library of random edits, with every status, over two models. */
async function randomLibrary(seed: number, count: number): Promise<Library> {
  const library = makeLibrary();
  const picture = await addPicture(library, 1);
  // Straight to the file: whether checks are fresh is random here, and a `write` would see to it.
  library.database.transaction(() => fill(library, picture, seed, count))();
  return library;
}

function fill(library: Library, picture: string, seed: number, count: number): void {
  const draw = random(seed);
  const some = (most: number) =>
    Array.from({ length: 1 + draw(most) }, () => words[draw(words.length)]).join(' ');
  for (let i = 0; i < count; i += 1) {
    if (i === count / 2) library.actors = { model: 'm2', adapter: 'b' };
    const prompt = `${some(4)} ${draw(30) === 0 ? 'same' : i}`;
    const note = draw(3) ? '' : some(3);
    const reach = draw(3) ? 'picture' : 'thing';
    const probes = (['text-generality', 'same-picture'] as const).map((kind) => {
      return { kind, picture: null, prompt: `${kind} of ${i}` };
    });
    const { id } = createEdit(library, { picture, prompt, target: some(2), note, reach, probes });
    if (draw(2)) check(library, id, draw(3) ? [] : [short[draw(short.length)]!]);
    if (draw(5) === 0) updateEdit(library, { id, target: 'changed since' });
    if (draw(4) === 0) commitEdit(library, id, { reason: 'because' });
    if (draw(5) === 0) retireEdit(library, id);
    const chosen = tags.filter(() => draw(3) === 0);
    if (chosen.length > 0) wholly(tagMany(library, { edits: [id] }, chosen, []));
    const day = (): string => new Date(Date.UTC(2026, 0, 1 + draw(40))).toISOString();
    const date = library.database.prepare(
      'UPDATE edits SET created = ?, updated = ?, committed = iif(committed IS NULL, NULL, ?) WHERE id = ?',
    );
    date.run(day(), day(), day(), id);
  }
  const stale = library.database.prepare('UPDATE checks SET stale_because = ? WHERE id % 3 = ?');
  stale.run('["edit"]', 0);
  for (const rest of [1, 2]) stale.run('[]', rest);
  // Of the commits nothing was compared with, only the first: checks planned before it are stale, those after are not.
  library.database.exec(
    "DELETE FROM unplaced WHERE commits > (SELECT min(commits) FROM unplaced JOIN edits ON edits.id = edit WHERE model = 'm2')",
  );
}

const folded = (text: string): string[] =>
  text
    .normalize('NFD')
    .replace(/\p{M}/gu, '')
    .toLowerCase()
    .split(/[^\p{L}\p{N}]+/u)
    .filter((token) => token !== '');

/** Whether each word of a search begins a run of words in one of the texts. */
function mentions(texts: ReadonlyArray<string | null>, search: string): boolean {
  return search
    .replaceAll('\0', ' ')
    .split(/\s+/u)
    .map(folded)
    .filter((phrase) => phrase.length > 0)
    .every((phrase) =>
      texts.some((text) => {
        const tokens = folded(text ?? '');
        return tokens.some((_, at) =>
          phrase.every((token, i) =>
            i === phrase.length - 1 ? tokens[at + i]?.startsWith(token) : tokens[at + i] === token,
          ),
        );
      }),
    );
}

type Row = ReturnType<typeof listEdits>[number];

function passes(edit: Row, filter: EditFilter): boolean {
  const within = (at: string | null, period: EditFilter['updated']) =>
    !period || (at !== null && (!period.from || at >= period.from) && (!period.to || at < period.to));
  const { text } = filter;
  const number = /^#?\d+$/.test(text ?? '') && edit.id === Number(text?.replace('#', ''));
  return (
    (!filter.status || filter.status.includes(edit.status)) &&
    (!filter.verdict || filter.verdict.includes(edit.verdict)) &&
    (!filter.finding || (edit.finding !== null && filter.finding.includes(edit.finding.kind))) &&
    (!filter.reach || edit.reach === filter.reach) &&
    (!filter.model || edit.model.startsWith(filter.model)) &&
    (!filter.adapter || edit.adapter.startsWith(filter.adapter)) &&
    (filter.tags ?? []).every((tag) => edit.tags.includes(tag)) &&
    (!text ||
      number ||
      (!/^#\d/.test(text) &&
        mentions([edit.prompt, edit.target, edit.before, edit.after, edit.note], text))) &&
    within(edit.created, filter.created) &&
    within(edit.updated, filter.updated) &&
    within(edit.committed, filter.committed)
  );
}

/** Text as SQLite's NOCASE has it: ASCII letters alike, then by bytes. */
const asciiLower = (text: string): Buffer =>
  Buffer.from(text.replace(/[A-Z]/g, (letter) => letter.toLowerCase()));

function ordered(edits: readonly Row[], { by, descending }: EditSort): number[] {
  const compare = (one: Row, other: Row): number => {
    const [a, b] = [one[by], other[by]];
    if (a === b) return one.id - other.id;
    if (a === null) return -1;
    if (b === null) return 1;
    if (typeof a === 'number') return a - (b as number);
    const order =
      by === 'prompt' || by === 'target'
        ? Buffer.compare(asciiLower(a), asciiLower(b as string))
        : a < (b as string)
          ? -1
          : 1;
    return order || one.id - other.id;
  };
  const sorted = edits.toSorted(compare).map((edit) => edit.id);
  return descending ? sorted.reverse() : sorted;
}

const sorts = (['id', 'updated', 'created', 'committed', 'prompt', 'target', 'status'] as const).flatMap(
  (by) => [
    { by, descending: true },
    { by, descending: false },
  ],
);

const filters: EditFilter[] = [
  {},
  { status: ['checked', 'failed'] },
  { status: ['stale'] },
  { status: [] },
  { verdict: ['none'] },
  { verdict: ['passes'], status: ['committed', 'retired'] },
  { finding: ['holds'] },
  { finding: ['leaks', 'under-generalises'], status: ['failed', 'stale'] },
  { finding: [] },
  { reach: 'thing' },
  { reach: 'picture', finding: ['holds', 'fails'], verdict: ['fails'] },
  { model: 'm' },
  { model: 'mm' },
  { model: 'm2', adapter: 'b' },
  { adapter: 'zz' },
  { tags: ['night'] },
  { tags: ['night', 'to do'] },
  { tags: ['nobody has this'] },
  { updated: { from: '2026-01-10', to: '2026-01-20' } },
  { created: { to: '2026-01-05' }, committed: { from: '2026-01-03' } },
  ...['f', 'FO', 'foret', 'fox lime', '梨', 'it’s', '42', '#42', '7', 'apple-p', '?', ' ', '#'].map(
    (text) => ({ text }),
  ),
  ...['"', '"quoted', 'AND', 'a*b', 'NEAR(fox', 'prompt:fox', 'x_', '-fox', '^fox', 'fox\0lime'].map(
    (text) => ({ text }),
  ),
  { text: 'f', status: ['draft', 'stale'], tags: ['Ä'], model: 'm', updated: { from: '2026-01-05' } },
];

describe('a list is what a plain filter and sort over all edits give', () => {
  test.each([1, 2])('in random library %i', async (seed) => {
    const library = await randomLibrary(seed, 80);
    const all = listEdits(library, {});
    expect(new Set(all.map((edit) => edit.status)).size).toBe(6);
    expect(new Set(all.map((edit) => edit.finding?.kind))).toEqual(
      new Set([undefined, 'holds', 'fails', 'leaks', 'under-generalises']),
    );
    for (const { id, status } of all) {
      const { check: latest, edit } = showEdit(library, id);
      if (edit.status !== 'committed' && edit.status !== 'retired' && latest)
        expect(status === 'stale', `edit ${id}`).toBe(!latest.fresh);
    }
    for (const filter of filters) {
      const matching = all.filter((edit) => passes(edit, filter));
      for (const sort of sorts) {
        const wanted = ordered(matching, sort);
        const told = JSON.stringify({ filter, sort });
        expect(editNumbers(library, { filter, sort, offset: 0, limit: 1000 }), told).toEqual(wanted);
        const page = findEdits(library, { filter, sort, offset: 7, limit: 20 }, { influence: true });
        expect(page.total, told).toBe(wanted.length);
        expect(
          page.rows.map((row) => row.id),
          told,
        ).toEqual(wanted.slice(7, 27));
      }
      const selected = wanted(matching);
      expect(selectedEdits(library, { filter })).toEqual(selected);
      expect(selectedEdits(library, { filter, except: selected.slice(0, 2) })).toEqual(selected.slice(2));
    }
  });

  const wanted = (edits: readonly Row[]) => edits.map((edit) => edit.id).sort((one, other) => one - other);

  test('and so are an edit’s neighbours in it', async () => {
    const library = await randomLibrary(3, 30);
    const all = listEdits(library, {});
    for (const filter of [{}, { status: ['committed', 'draft'] }, { text: 'f' }] satisfies EditFilter[]) {
      for (const sort of sorts) {
        const list = ordered(
          all.filter((edit) => passes(edit, filter)),
          sort,
        );
        const whole = ordered(all, sort);
        for (const { id } of all) {
          const before = whole.slice(0, whole.indexOf(id)).filter((other) => list.includes(other));
          const after = whole.slice(whole.indexOf(id) + 1).filter((other) => list.includes(other));
          expect(neighbours(library, { id, filter, sort }), JSON.stringify({ filter, sort, id })).toEqual({
            previous: before.at(-1) ?? null,
            next: after[0] ?? null,
            place: before.length,
            total: list.length,
          });
        }
      }
    }
  });
});

test('the models and adapters that edits were made for are told with names and numbers', async () => {
  const library = makeLibrary();
  const picture = await addPicture(library, 1);
  const add = (prompt: string) => createEdit(library, { picture, prompt, target: 'fox' });
  add('one');
  add('two');
  rememberModel(library, {
    path: '/models/small',
    name: 'small',
    adapterPath: '/adapters/eight',
    model: 'm',
    adapter: 'a',
  });
  library.actors = { model: 'm', adapter: '' };
  add('three');
  library.actors = { model: 'n', adapter: 'b' };
  expect(listActors(library)).toEqual([
    { model: 'm', modelName: 'small', adapter: 'a', adapterName: 'eight', edits: 2 },
    { model: 'm', modelName: 'small', adapter: '', adapterName: null, edits: 1 },
  ]);
});

test('rows bring tags, verdict, thumbnail and, when asked for, the map', async () => {
  const library = makeLibrary();
  const picture = await addPicture(library, 1);
  const { id } = createEdit(library, { picture, prompt: 'what animal is it?', target: 'fox' });
  check(library, id);
  wholly(tagMany(library, { edits: [id] }, ['b', 'a'], []));
  const state = editState(library, id).signalState;
  library.write(() => keepSignal(library, id, state, new Uint8Array([1]), influence));
  const [row] = listRows(library, [id, 99], { influence: true });
  expect(row).toMatchObject({ id, tags: ['a', 'b'], verdict: 'passes', influence: { rows: 1 } });
  expect(listRows(library, [id], { influence: false })[0]!.influence).toBeNull();
  const [thumbnail] = storedThumbnails(library, [picture]);
  expect(Buffer.from(thumbnail!.base64, 'base64').subarray(0, 3).toString('hex')).toBe('ffd8ff');
});

/** Everything that is kept by triggers, counted again. */
function recounted(library: Library) {
  const status: Record<string, number> = {};
  for (const edit of listEdits(library, {})) status[edit.status] = (status[edit.status] ?? 0) + 1;
  const tagged: Record<string, number> = {};
  for (const edit of listEdits(library, {})) {
    for (const tag of edit.tags) tagged[tag] = (tagged[tag] ?? 0) + 1;
  }
  return { status, tagged };
}

/** Edits, their tags and their probes, without the moments of change and the history. */
function contents(library: Library) {
  const { database } = library;
  const edits = database
    .prepare<[], Record<string, unknown>>('SELECT * FROM edits ORDER BY id')
    .all()
    .map(({ updated, ...edit }) => edit);
  const tagged = listEdits(library, {}).map(({ id, tags }) => [id, tags]);
  return { edits, tagged, probes: database.prepare('SELECT * FROM probes ORDER BY id').all() };
}

test('counts are those of a recount, search finds what is there, and undo restores exactly, after random changes', async () => {
  const library = makeLibrary();
  const draw = random(11);
  const picture = await addPicture(library, 1);
  const states: ReturnType<typeof contents>[] = [];
  const create = (i: number) => {
    createEdit(library, { picture, prompt: `what is ${i}?`, target: `t${draw(9)}` });
  };
  for (let i = 0; i < 8; i += 1) create(i);
  const ids = () => listEdits(library, {}).map((edit) => edit.id);
  const start = undoableOperation(library)!.id;
  for (let i = 0; i < 50; i += 1) {
    const before = contents(library);
    const last = undoableOperation(library)?.id;
    const id = ids()[draw(ids().length)]!;
    const several = ids().filter(() => draw(2) === 0);
    const changes = [
      () => void updateEdit(library, { id, target: `u${draw(99)}` }),
      () => void noteEdit(library, id, `note ${draw(99)}`),
      () => void commitEdit(library, id, { reason: 'because' }),
      () => void retireEdit(library, id),
      () => void restoreEdit(library, id),
      () => void wholly(retireMany(library, { edits: several }, 'too many')),
      () => void wholly(restoreMany(library, { filter: { status: ['retired'] } })),
      () => void wholly(tagMany(library, { edits: several }, ['x'], ['y'])),
      () => void wholly(tagMany(library, { filter: {} }, ['y'], ['x'])),
      () => void check(library, id),
    ];
    try {
      changes[draw(changes.length)]!();
    } catch (error) {
      expect(error).toMatchObject({ code: 'conflict' });
    }
    const now = undoableOperation(library)?.id;
    if (now !== last) states.push(before);
    const { status, tagged } = recounted(library);
    expect(countEdits(library)).toMatchObject(status);
    expect(Object.values(countEdits(library)).reduce((sum, count) => sum + count)).toBe(ids().length);
    expect(Object.fromEntries(listTags(library).map(({ name, edits }) => [name, edits]))).toEqual(tagged);
    const { target } = findEdit(library, id);
    expect(listEdits(library, { search: target }).map((edit) => edit.id)).toContain(id);
    library.database.exec(`INSERT INTO edit_words (edit_words) VALUES ('integrity-check')`);
  }
  expect(states.length).toBeGreaterThan(20);
  const historyLength = () =>
    library.database.prepare('SELECT count(*) FROM history').pluck().get() as number;
  for (const before of states.reverse()) {
    const entries = historyLength();
    undo(library, undoableOperation(library)!.id);
    // Checks that were run in between are not taken back, and the status follows them.
    const withoutChecks = ({ edits, ...rest }: typeof before) => ({
      ...rest,
      edits: edits.map(
        ({ last_check, check_state, check_commits, verdict, finding, status, after, ...edit }) => edit,
      ),
    });
    expect(withoutChecks(contents(library))).toEqual(withoutChecks(before));
    expect(historyLength()).toBeGreaterThan(entries);
  }
  expect(undoableOperation(library)!.id).toBe(start);
});

describe('undo', () => {
  test('of a retired edit lets it act again, as it was committed', async () => {
    const library = makeLibrary();
    const picture = await addPicture(library, 1);
    const { id } = createEdit(library, { picture, prompt: 'what animal is it?', target: 'fox' });
    check(library, id);
    commitEdit(library, id);
    const committed = contents(library);
    wholly(retireMany(library, { edits: [id] }));
    expect(findEdit(library, id).status).toBe('retired');
    expect(undo(library).label).toBe('Retired 1 edit');
    expect(contents(library)).toEqual(committed);
    // and the commit itself
    expect(undo(library).label).toBe(`Committed edit ${id}`);
    expect(findEdit(library, id)).toMatchObject({ status: 'checked', committed: null, overrideReason: null });
    // writing the edit: it is retired, never removed
    undo(library);
    expect(findEdit(library, id).status).toBe('retired');
    expect(() => undo(library)).toThrow(/no change left/);
  });

  test('is refused where the library changed since, and where an edit could not act again', async () => {
    const library = makeLibrary();
    const picture = await addPicture(library, 1);
    const make = () => createEdit(library, { picture, prompt: 'what animal is it?', target: 'fox' }).id;
    const [one, two] = [make(), make()];
    commitEdit(library, one, { reason: 'because' });
    retireEdit(library, one);
    const { id } = undoableOperation(library)!;
    commitEdit(library, two, { reason: 'because' });
    expect(() => undo(library, id)).toThrow(expect.objectContaining({ code: 'conflict' }));
    // behind its back, as another program would
    library.database.prepare('DELETE FROM operations WHERE id > ?').run(id + 100);
    library.database.prepare('DELETE FROM operation_edits WHERE operation > ?').run(id);
    const before = contents(library);
    expect(() => undo(library, id)).toThrow(new RegExp(`Retire edit ${two} first`));
    expect(contents(library)).toEqual(before);
    library.database.prepare(`UPDATE edits SET stage = 'draft', committed = NULL WHERE id = ?`).run(one);
    expect(() => undo(library, id)).toThrow(/was changed since/);
  });
});

test('what cannot be done to some edits is told, and done to the others', async () => {
  const library = makeLibrary();
  const picture = await addPicture(library, 1);
  const ids = [1, 2, 3].map(
    (i) => createEdit(library, { picture, prompt: `what is ${i}?`, target: 'fox' }).id,
  );
  retireEdit(library, ids[1]!);
  expect(wholly(retireMany(library, { filter: {} }, 'all of them'))).toEqual({
    stopped: false,
    changed: 2,
    refused: [{ edit: ids[1], reason: `Edit ${ids[1]} is retired already.` }],
    refusals: 1,
  });
  expect(undo(library)).toMatchObject({ label: 'Retired 2 edits', edits: 2 });
  expect(countEdits(library)).toMatchObject({ draft: 2, retired: 1 });
});

test('changes of many edits, and of their status alone, are told', async () => {
  const library = makeLibrary();
  const picture = await addPicture(library, 1);
  const ids = [1, 2, 3].map(
    (i) => createEdit(library, { picture, prompt: `what is ${i}?`, target: 'fox' }).id,
  );
  check(library, ids[0]!);
  const told: Array<number[] | null> = [];
  library.onChange((edits) => told.push(edits));
  library.write(() => undefined);
  library.database.prepare(`UPDATE checks SET stale_because = '["model"]'`).run();
  library.write(() => undefined);
  expect(told.at(-1)).toEqual([ids[0]]);
  library.write(() => {
    for (let i = 0; i < 600; i += 1) createEdit(library, { picture, prompt: `q ${i}`, target: 'fox' });
  });
  expect(told.at(-1)).toBeNull();
});

test('what is done to many edits is done part by part, told, stopped, taken back as one, and gone on with', async () => {
  const library = makeLibrary();
  const picture = await addPicture(library, 1);
  library.write(() => {
    for (let i = 0; i < 700; i++) writeDraft(library, { picture, prompt: `what is ${i}?`, target: 'fox' });
  });
  const retired = () => countEdits(library).retired;
  const all = { filter: {} };

  const work = retireMany(library, all, 'not these');
  const first = work.next(true).value as Progress;
  expect(first).toMatchObject({ stage: 'Retiring', total: 700 });
  expect(first.done).toBeLessThan(700);
  expect(retired()).toBe(first.done);
  const second = work.next(true).value as Progress;
  expect(second.done).toBeGreaterThan(first.done);
  expect(work.next(false)).toMatchObject({ done: true, value: { changed: second.done, stopped: true } });
  expect(retired()).toBe(second.done);
  expect(undoableOperation(library)).toMatchObject({
    edits: second.done,
    label: `Retired ${second.done} edits`,
  });
  expect(undo(library).edits).toBe(second.done);
  expect(retired()).toBe(0);

  expect(wholly(retireMany(library, all))).toMatchObject({ changed: 700, stopped: false });
  // Taking back is stopped in the middle, and gone on with.
  const back = undoing(library);
  while ((back.next(true).value as Progress).stage !== 'Taking back');
  expect(back.next(false)).toMatchObject({ value: { stopped: true, operation: { edits: 700 } } });
  expect(retired()).toBeGreaterThan(0);
  expect(retired()).toBeLessThan(700);
  expect(undo(library).edits).toBe(700);
  expect(retired()).toBe(0);

  // Where one edit cannot be taken back, none is.
  wholly(retireMany(library, all));
  restoreEdit(library, 650);
  commitEdit(library, 650, { reason: 'after all' });
  const last = 'SELECT id FROM operations ORDER BY id DESC LIMIT 2';
  library.database.prepare(`DELETE FROM operation_edits WHERE operation IN (${last})`).run();
  expect(() => undo(library)).toThrow(/edit 650 was changed since/);
  expect(retired()).toBe(699);

  // What is taken back while it goes on is over: the rest is a change of its own.
  wholly(restoreMany(library, all));
  const going = retireMany(library, all);
  going.next(true);
  expect(undo(library).label).toMatch(/^Retired/);
  wholly(going);
  expect(undoableOperation(library)!.edits).toBe(retired());
}, 60_000);

describe('what was taken back is done again', () => {
  test('change by change, until something else is changed', async () => {
    const library = makeLibrary();
    const { id } = await addEdit(library);
    noteEdit(library, id, 'one');
    wholly(tagMany(library, { edits: [id] }, ['night'], []));
    const whole = () => JSON.stringify({ ...findEdit(library, id), updated: '' });
    const after = whole();
    expect(redoableOperation(library)).toBeNull();
    undo(library);
    undo(library);
    undo(library);
    expect(findEdit(library, id)).toMatchObject({ status: 'retired', note: '', tags: [] });
    expect(redo(library).label).toBe(`Wrote edit ${id}`);
    expect(redo(library).label).toMatch(/note/);
    expect(redo(library).label).toBe('Tagged 1 edit');
    expect(whole()).toBe(after);
    expect(() => redo(library)).toThrow(/no change left/);
    expect(undo(library).label).toBe('Tagged 1 edit');
    expect(redo(library).label).toBe('Tagged 1 edit');
    undo(library);
    noteEdit(library, id, 'two');
    expect(redoableOperation(library)).toBeNull();
    expect(undo(library).label).toMatch(/note/);
    expect(undo(library).label).toMatch(/note/);
  });

  test('a commit only with a check that still holds', async () => {
    const library = makeLibrary();
    const { id } = await addEdit(library);
    check(library, id);
    commitEdit(library, id);
    undo(library);
    expect(redo(library).label).toBe(`Committed edit ${id}`);
    expect(findEdit(library, id).status).toBe('committed');
    undo(library);
    library.actors = { model: 'another', adapter: 'a' };
    expect(() => redo(library)).toThrow(/no fresh passing check/);
    expect(findEdit(library, id).status).toBe('stale');
  });
});

test('views are kept by name', () => {
  const library = makeLibrary();
  const sort = { by: 'updated', descending: true } as const;
  saveView(library, { name: 'mine', filter: { status: ['draft'] }, sort });
  saveView(library, { name: 'a', filter: {}, sort });
  saveView(library, { name: 'mine', filter: { tags: ['night'] }, sort });
  expect(listViews(library)).toEqual([
    { name: 'a', filter: {}, sort },
    { name: 'mine', filter: { tags: ['night'] }, sort },
  ]);
  library.database.exec(`UPDATE views SET filter = '{"status":7}' WHERE name = 'a'`);
  expect(removeView(library, 'nobody').map(({ name }) => name)).toEqual(['mine']);
});
