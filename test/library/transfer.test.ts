/** @file Files of edits, read in and written out: hostile rows are told by number and harm no other, and what was written reads back. */
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { readEditingSet } from '../../electron/evaluation/editingSet.ts';
import { createEdit, findEdit, retireEdit, showEdit } from '../../electron/library/edits.ts';
import { exportEdits } from '../../electron/library/exportEdits.ts';
import { type ImportOptions, importEdits } from '../../electron/library/importEdits.ts';
import type { Library } from '../../electron/library/library.ts';
import { countEdits } from '../../electron/library/lists.ts';
import { undo, undoableOperation } from '../../electron/library/operations.ts';
import { setTags } from '../../electron/library/tags.ts';
import { addPicture, check, listEdits, makeLibrary, png, temporaryFolder } from './support.ts';

const never = new AbortController().signal;
const given = (library: Library, file: string, options: Partial<ImportOptions> = {}) =>
  importEdits(library, file, {
    ...{ tags: [], dryRun: false, signal: never, onProgress: () => {} },
    ...options,
  });

/** A folder with pictures a.png, b.png and sub/c.png. */
async function pictures(): Promise<string> {
  const folder = temporaryFolder();
  mkdirSync(join(folder, 'sub'));
  for (const [name, shade] of [
    ['a.png', 1],
    ['b.png', 2],
    ['sub/c.png', 3],
  ] as const) {
    writeFileSync(join(folder, name), await png(shade));
  }
  return folder;
}

function write(folder: string, name: string, content: unknown): string {
  const path = join(folder, name);
  writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content));
  return path;
}

const evqa = {
  src: 'what animal is it?',
  rephrase: 'which animal?',
  pred: 'dog',
  alt: 'fox',
  image: 'a.png',
  image_rephrase: 'b.png',
  loc: 'capital of France?',
  loc_ans: 'Paris',
  m_loc: 'sub/c.png',
  m_loc_q: 'how many?',
  m_loc_a: 'two',
};

describe('E-VQA', () => {
  test('becomes drafts with their probes', async () => {
    const library = makeLibrary();
    const folder = await pictures();
    const file = write(folder, 'set.json', [evqa, { ...evqa, src: 'what colour?', alt: ['red', 'crimson'] }]);
    const told: number[][] = [];
    const report = await given(library, file, {
      tags: ['spring'],
      onProgress: (done, total) => told.push([done, total]),
    });
    expect(report).toEqual({ rows: 2, added: 2, known: 0, wrong: 0, problems: [], stopped: false });
    expect([told[0], told.at(-1)]).toEqual([
      [0, 2],
      [2, 2],
    ]);
    const { edit, probes, history } = showEdit(library, 1);
    expect(edit).toMatchObject({
      prompt: evqa.src,
      target: 'fox',
      status: 'draft',
      tags: ['spring'],
      before: null,
    });
    expect(findEdit(library, 2).target).toBe('red');
    expect(probes.map(({ kind, prompt }) => [kind, prompt])).toEqual([
      ['reliability', evqa.src],
      ['text-generality', evqa.rephrase],
      ['image-generality', evqa.src],
      ['text-locality', evqa.loc],
      ['image-locality', evqa.m_loc_q],
    ]);
    expect(history.map(({ what }) => what)).toEqual(['created']);
    // again: nothing is doubled, unless it was retired
    retireEdit(library, 2);
    expect(await given(library, file)).toMatchObject({ added: 1, known: 1 });
  });

  test('rows that cannot be used are told by number, whatever is wrong with them, and the rest is kept', async () => {
    const library = makeLibrary();
    const folder = await pictures();
    write(folder, 'broken.png', (await png(4)).subarray(0, 60).toString('latin1'));
    write(folder, 'text.png', 'hello');
    symlinkSync('/etc/hostname', join(folder, 'link.png'));
    const rows: [unknown, RegExp | null][] = [
      [evqa, null],
      [7, /object/],
      [null, /object/],
      [[evqa], /object/],
      [{ ...evqa, src: ' ' }, /"src" is empty/],
      [{ ...evqa, src: undefined }, /"src" is missing/],
      [{ ...evqa, alt: [] }, /"alt"/],
      [{ ...evqa, alt: undefined }, /"alt" is missing/],
      [{ ...evqa, src: 'x'.repeat(4001) }, /4,000 characters/],
      [{ ...evqa, src: 5 }, /"src"/],
      [{ ...evqa, src: 'a\0b' }, /NUL/],
      [{ ...evqa, image: 'none.png' }, /"none\.png".*no picture/],
      [{ ...evqa, image: '../a.png' }, /outside/],
      [{ ...evqa, image: '/etc/hostname' }, /outside/],
      [{ ...evqa, image: 'link.png' }, /outside/],
      [{ ...evqa, image: 'sub' }, /sub/],
      [{ ...evqa, image: 'broken.png' }, /broken\.png/],
      [{ ...evqa, image_rephrase: 'text.png' }, /text\.png/],
      [{ ...evqa, src: 'same pictures?', image_rephrase: 'a.png' }, /other than the edit's/],
      [{ ...evqa, src: 'once?', rephrase: 'ONCE?' }, /already/],
      [{ ...evqa, m_loc_q: undefined }, /belong together/],
      [{ src: 'fewest fields?', alt: 'fox', image: 'a.png' }, null],
      [{ ...evqa, src: 'x'.repeat(1_100_000) }, /larger than 1 MB/],
      [{ ...evqa, src: 'the last?', note: 'n', tags: ['t'] }, null],
    ];
    // one more that is no JSON at all, within a list that goes on
    const texts = rows.map(([row]) => JSON.stringify(row));
    texts.splice(3, 0, '{"src": oops}');
    const report = await given(library, write(folder, 'set.json', `\ufeff[${texts.join(',')}]`));
    const wanted = rows.map(([, problem]) => problem);
    wanted.splice(3, 0, /not JSON/);
    expect(report).toMatchObject({ rows: 25, added: 3, known: 0, wrong: 22 });
    for (const [place, problem] of wanted.entries()) {
      const told = report.problems.find(({ row }) => row === place + 1)?.reason ?? null;
      if (problem === null) expect(told, texts[place]?.slice(0, 80)).toBeNull();
      else expect(told, texts[place]?.slice(0, 80)).toMatch(problem);
    }
    // what belongs to a wrong row is not there either
    expect(library.database.prepare('SELECT count(*) AS n FROM edits').get()).toEqual({ n: 3 });
    expect(library.database.prepare('SELECT count(*) AS n FROM pictures').get()).toEqual({ n: 3 });
    expect(showEdit(library, 3).edit).toMatchObject({ note: 'n', tags: ['t'] });
  });

  test('a file that is no list, or ends in it, is told', async () => {
    const library = makeLibrary();
    const folder = await pictures();
    for (const content of ['', '   ', '{}', 'null', '"[]"', 'hello', '[] []']) {
      await expect(given(library, write(folder, 'x.json', content)), content).rejects.toMatchObject({
        code: 'damaged',
      });
    }
    expect(await given(library, write(folder, 'x.json', '[]'))).toMatchObject({ rows: 0, wrong: 0 });
    const cut = `[${JSON.stringify(evqa)}, {"src": "wh`;
    expect(await given(library, write(folder, 'x.json', cut))).toMatchObject({
      added: 1,
      problems: [{ row: 2, reason: expect.stringContaining('ends') }],
    });
    await expect(given(library, join(folder, 'none.json'))).rejects.toMatchObject({ code: 'not-found' });
    await expect(given(library, 'set.json')).rejects.toMatchObject({ code: 'invalid-input' });
  });
});

test('a dry run tells what would come of it and keeps nothing', async () => {
  const library = makeLibrary();
  const folder = await pictures();
  const file = write(folder, 'set.json', [
    evqa,
    { ...evqa, src: '' },
    { ...evqa, src: 'x?', rephrase: 'x?' },
  ]);
  expect(await given(library, file, { dryRun: true })).toMatchObject({ rows: 3, added: 1, wrong: 2 });
  expect(listEdits(library, {})).toEqual([]);
  expect(library.database.prepare('SELECT count(*) AS n FROM pictures').get()).toEqual({ n: 0 });
  expect(undoableOperation(library)).toBeNull();
});

test('stopped, what was added stays; taken back, all of it is retired at once', async () => {
  const library = makeLibrary();
  const folder = await pictures();
  const rows = Array.from({ length: 400 }, (_, i) => ({ src: `what is ${i}?`, alt: 'fox', image: 'a.png' }));
  const file = write(folder, 'set.json', rows);
  const stopping = new AbortController();
  const report = await given(library, file, {
    signal: stopping.signal,
    onProgress: (done) => done >= 250 && stopping.abort(),
  });
  expect(report.stopped).toBe(true);
  expect(report.added).toBe(countEdits(library).draft);
  expect(report.added).toBeGreaterThan(200);
  expect(report.added).toBeLessThan(400);
  expect(undo(library)).toMatchObject({ label: `Imported ${report.added} edits`, edits: report.added });
  expect(countEdits(library)).toMatchObject({ draft: 0, retired: report.added });
});

describe('CSV', () => {
  test.each([[','], [';'], ['\t']])(
    'separated by %j, with names of either kind, quotes and line breaks',
    async (separator) => {
      const library = makeLibrary();
      const folder = await pictures();
      const lines = [
        ['Picture', 'prompt', 'target', 'note', 'tags', 'rephrase', 'unknown'],
        ['a.png', '"what ""animal""\nis it?"', 'fox', '"a, b; c"', '"x; y"', '', '1'],
        ['', 'no picture', 'fox', '', '', '', ''],
        ['a.png', 'too few', 'fox'],
        ['sub/c.png', 'how many?', 'two', '', '', 'count them', ''],
      ];
      const file = write(
        folder,
        'set.csv',
        `\ufeff${lines.map((line) => line.join(separator)).join('\r\n')}\r\n`,
      );
      const report = await given(library, file);
      expect(report).toMatchObject({ rows: 4, added: 2, wrong: 2 });
      expect(report.problems).toEqual([
        { row: 2, reason: '"image" is missing' },
        { row: 3, reason: expect.stringContaining('fewer fields') },
      ]);
      expect(findEdit(library, 1)).toMatchObject({
        prompt: 'what "animal"\nis it?',
        note: 'a, b; c',
        tags: ['x', 'y'],
      });
      expect(showEdit(library, 2).probes.map(({ kind }) => kind)).toEqual(['reliability', 'text-generality']);
    },
  );

  test('without the columns it needs, or a quotation mark without end, is told', async () => {
    const library = makeLibrary();
    const folder = await pictures();
    await expect(given(library, write(folder, 'x.csv', 'picture,prompt\na.png,x\n'))).rejects.toThrow(
      /"target"/,
    );
    await expect(given(library, write(folder, 'x.csv', 'image,picture,src,alt\n'))).rejects.toThrow(
      /two columns/,
    );
    const open = 'picture,prompt,target\na.png,first,fox\na.png,"open,fox\na.png,lost,fox\n';
    expect(await given(library, write(folder, 'x.csv', open))).toMatchObject({
      added: 1,
      problems: [{ row: 2, reason: expect.stringContaining('quotation mark') }],
    });
  });
});

describe('an export', () => {
  async function filled(): Promise<Library> {
    const library = makeLibrary();
    const [picture, other] = [await addPicture(library, 1), await addPicture(library, 2)];
    const { id } = createEdit(library, {
      picture,
      prompt: 'what "animal",\nis it?',
      target: 'fox',
      before: 'dog',
      note: 'seen; in spring',
      probes: [
        { kind: 'text-generality', picture: null, prompt: 'which?' },
        { kind: 'image-generality', picture: other, prompt: 'what animal is that?' },
        { kind: 'text-locality', picture: null, prompt: 'capital of France?' },
        { kind: 'image-locality', picture: other, prompt: 'how many?' },
      ],
    });
    library.write(() => setTags(library, id, ['a', 'b c']));
    check(library, id);
    createEdit(library, { picture, prompt: 'bare?', target: 'fox' });
    return library;
  }

  const out = () => join(temporaryFolder(), 'out');
  const exported = (library: Library, format: 'emend' | 'evqa' | 'csv', folder = out(), signal = never) =>
    exportEdits(library, [1, 2], { format, folder, signal, onProgress: () => {} });

  test.each(['emend', 'csv'] as const)('as %s reads back as the same edits', async (format) => {
    const library = await filled();
    const { file, ...told } = await exported(library, format);
    expect(told).toEqual({ edits: 2, pictures: 2, refused: [], refusals: 0 });
    const again = makeLibrary();
    expect(await given(again, file)).toMatchObject({ rows: 2, added: 2 });
    for (const id of [1, 2]) {
      const essence = ({ edit, probes }: ReturnType<typeof showEdit>) => {
        const { picture, prompt, target, note, tags } = edit;
        return {
          picture,
          prompt,
          target,
          note,
          tags,
          probes: probes.map(({ kind, picture: on }) => [kind, on]),
        };
      };
      expect(essence(showEdit(again, id))).toEqual(essence(showEdit(library, id)));
    }
  });

  test('as E-VQA is an editing set; edits that have not what it asks for are told', async () => {
    const { file, ...told } = await exported(await filled(), 'evqa');
    expect(told).toMatchObject({
      edits: 1,
      refusals: 1,
      refused: [{ edit: 2, reason: expect.stringContaining('text-generality') }],
    });
    const set = await readEditingSet(file);
    expect(set.records).toMatchObject([{ prompt: 'what "animal",\nis it?', target: 'fox' }]);
  });

  test('never writes over what is there, and leaves nothing behind when it is stopped or fails', async () => {
    const library = await filled();
    const folder = temporaryFolder();
    writeFileSync(join(folder, 'mine'), 'x');
    await expect(exported(library, 'emend', folder)).rejects.toMatchObject({ code: 'conflict' });
    expect(readFileSync(join(folder, 'mine'), 'utf8')).toBe('x');
    await expect(exported(library, 'emend', 'relative')).rejects.toMatchObject({ code: 'invalid-input' });
    await expect(exported(library, 'emend', join(folder, 'no', 'such'))).rejects.toMatchObject({
      code: 'not-found',
    });
    const stopped = AbortSignal.abort();
    await expect(exported(library, 'emend', join(folder, 'new'), stopped)).rejects.toMatchObject({
      code: 'cancelled',
    });
    expect(readdirSync(folder)).toEqual(['mine']);
    expect(existsSync(join(folder, 'new'))).toBe(false);
  });
});
