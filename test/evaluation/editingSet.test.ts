/** @file Editing sets: rows in order whatever the format, wrong ones told by number and the rest kept, nothing read outside the folder. */
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { leftOut, readEditingSet } from '../../electron/evaluation/editingSet.ts';

let base: string;
beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), 'emend-set-'));
  await mkdir(join(base, 'set', 'images'), { recursive: true });
  for (const name of ['a', 'b', 'c']) await writeFile(join(base, 'set', 'images', `${name}.png`), name);
  await writeFile(join(base, 'secret.png'), 'not yours');
  await symlink(join(base, 'secret.png'), join(base, 'set', 'images', 'link.png'));
});
afterAll(() => rm(base, { recursive: true, force: true }));

const record = {
  src: 'What animal is this?',
  rephrase: 'Which animal do you see?',
  pred: 'dog',
  alt: 'wolf',
  image: 'images/a.png',
  image_rephrase: 'images/b.png',
  loc: 'who sang it',
  loc_ans: 'nobody',
  m_loc: 'images/c.png',
  m_loc_q: 'What is it?',
  m_loc_a: 'a tree',
};

let written = 0;
async function setOf(content: unknown, extension = 'json'): Promise<string> {
  const path = join(base, 'set', `set-${++written}.${extension}`);
  await writeFile(path, typeof content === 'string' ? content : JSON.stringify(content));
  return path;
}

describe('an editing set', () => {
  it('is read in order, with a digest of its bytes', async () => {
    const path = await setOf([record, { ...record, loc_ans: ['first', 'second'], kind: 'count' }]);
    const set = await readEditingSet(path);
    expect(set).toMatchObject({ format: 'evqa', total: 2, wrong: { count: 0, problems: [] } });
    expect(set.records[0]).toEqual({
      ...{ row: 1, picture: 'images/a.png', prompt: 'What animal is this?', target: 'wolf' },
      ...{ kind: undefined, object: undefined, note: '', tags: [] },
      probes: [
        {
          ...{ kind: 'text-generality', picture: 'images/a.png' },
          ...{ prompt: 'Which animal do you see?', answer: null },
        },
        {
          ...{ kind: 'image-generality', picture: 'images/b.png' },
          ...{ prompt: 'What animal is this?', answer: null },
        },
        { kind: 'text-locality', picture: null, prompt: 'who sang it', answer: 'nobody' },
        { kind: 'image-locality', picture: 'images/c.png', prompt: 'What is it?', answer: 'a tree' },
      ],
    });
    expect(set.records[1]).toMatchObject({ row: 2, kind: 'count' });
    expect(set.records[1]!.probes).toContainEqual(
      expect.objectContaining({ kind: 'text-locality', answer: 'first' }),
    );
    expect(set.sha256).toMatch(/^[0-9a-f]{64}$/);
    expect(await set.picturePath(set.records[0]!, 'images/c.png')).toMatch(/images.c\.png$/);
  });

  it('takes the first records, and never looks at what is wrong with the others', async () => {
    const set = await readEditingSet(await setOf([record, { src: 1 }]), { limit: 1 });
    expect([set.records.length, set.total, set.wrong.count]).toEqual([1, 2, 0]);
  });

  it('finds pictures in another folder when told to', async () => {
    const path = join(base, 'elsewhere.json');
    await writeFile(path, JSON.stringify([record]));
    await expect(readEditingSet(path)).rejects.toThrow(/Row 1: .*no picture/);
    const set = await readEditingSet(path, { images: join(base, 'set') });
    expect(set.records).toHaveLength(1);
  });

  it('tells wrong rows by number and keeps the rest', async () => {
    const rows: Array<[unknown, RegExp | null]> = [
      [record, null],
      [{ ...record, alt: undefined }, /"alt" is missing/],
      [{ ...record, alt: '  ' }, /"alt"/],
      [{ ...record, image: 3 }, /"image"/],
      [{ ...record, src: 'x'.repeat(5000) }, /"src" is longer than 4,000/],
      [7, /object/],
      [{ ...record, m_loc: 'images/no.png' }, /"images\/no\.png": there is no picture/],
      [{ ...record, image: '../secret.png' }, /outside/],
      [{ ...record, image: '.' }, /outside/],
      [{ ...record, image: '..' }, /outside/],
      [{ ...record, image: '/etc/hostname' }, /outside/],
      [{ ...record, image: 'images/link.png' }, /outside/],
      [{ ...record, image: 'images' }, /is no file/],
      [{ ...record, src: 'The last?' }, null],
    ];
    const set = await readEditingSet(await setOf(rows.map(([row]) => row)));
    expect(set.records.map(({ row }) => row)).toEqual([1, rows.length]);
    expect(set.wrong.count).toBe(rows.length - 2);
    for (const [place, [, problem]] of rows.entries()) {
      const told = set.wrong.problems.find(({ row }) => row === place + 1)?.reason ?? null;
      if (problem === null) expect(told).toBeNull();
      else expect(told).toMatch(problem);
    }
    expect(leftOut(set, 2)).toMatch(/^12 of the 14 rows .*\n {2}row 2: .*\n {2}row 3: .*\n {2}and 10 more$/);
  });

  it('leaves out rows without the probes that are needed', async () => {
    const set = await readEditingSet(await setOf([{ ...record, rephrase: '' }, record]), {
      needs: ['text-generality'],
    });
    expect(set.records.map(({ row }) => row)).toEqual([2]);
    expect(set.wrong.problems).toEqual([{ row: 1, reason: 'it has no probe of text generality' }]);
  });
});

describe('refused', () => {
  it.each([
    [
      'a set without a row that can be used',
      [{ ...record, alt: '' }],
      /no row that can be used. Row 1: "alt"/,
    ],
    ['no list', { src: 'x' }, /not one flat JSON list/],
    ['an empty list', [], /holds none/],
    ['what is not JSON', 'hello', /not one flat JSON list/],
  ])('%s', async (_, content, message) => {
    await expect(readEditingSet(await setOf(content))).rejects.toThrow(message);
  });

  it('a file that is not there, a folder, and a format there is not', async () => {
    await expect(readEditingSet(join(base, 'none.json'))).rejects.toMatchObject({ code: 'not-found' });
    await expect(readEditingSet(base)).rejects.toMatchObject({ code: 'invalid-input' });
    const path = await setOf([record]);
    await expect(readEditingSet(path, { format: 'parquet' as never })).rejects.toThrow(/There are evqa, eic/);
  });
});

const probesOf = async (path: string, place = 0) =>
  (await readEditingSet(path)).records[place]!.probes.map(
    ({ kind, picture, prompt, answer }) => `${kind} | ${picture} | ${prompt} | ${answer}`,
  );

describe('formats', () => {
  it('VLKEB: portability over hops, told from rows that have it', async () => {
    const port = (hops: number, Question: string, Answer: string) => {
      return { port_type: `${hops}-hop`, 'Q&A': { Question, Answer } };
    };
    const path = await setOf([
      record,
      {
        ...record,
        port_new: [port(1, 'Where does it live?', 'in woods'), port(2, 'Who fears it?', 'sheep')],
      },
      { ...record, port_new: [{ 'Q&A': { Question: 'No answer?' } }] },
    ]);
    const set = await readEditingSet(path);
    expect(set.format).toBe('vlkeb');
    expect(await probesOf(path, 1)).toEqual(
      expect.arrayContaining([
        'portability | images/a.png | Where does it live? | in woods',
        'portability | images/a.png | Who fears it? | sheep',
      ]),
    );
    expect(set.wrong.problems).toEqual([
      { row: 3, reason: expect.stringContaining('port_new.0.Q&A.Answer') },
    ]);
  });

  it('MMKE-Bench: knowledge asked without a picture, of the edit’s, of another, and over a hop', async () => {
    const numbered = {
      ...{ ...record, knowledge_type: 'user_specific', one_hop_img: 'images/c.png' },
      ...{ rel_1: 'Who is it?', rel_ans_1: 'Max', rel_2: 'How old?', rel_2_ans: 'two' },
      ...{ m_rel_1: 'Whose dog?', m_rel_1_ans: 'mine' },
      port_new: [{ port_type: '1-hop', 'Q&A': { Question: 'Seen where?', Answer: 'home' } }],
    };
    const semantic = {
      ...{ ...record, knowledge_type: 'visual_knowledge', image_rephrase_question: 'And here?' },
      ...{ rel: 'What is meant?', rel_ans: 'stop', m_rel: 'What does it say?', m_rel_ans: 'halt' },
    };
    const path = await setOf([numbered, semantic, { ...numbered, rel_ans_1: '' }]);
    const set = await readEditingSet(path);
    expect(set.format).toBe('mmke');
    expect(set.records.map(({ kind }) => kind)).toEqual(['user_specific', 'visual_knowledge']);
    expect((await probesOf(path)).slice(4)).toEqual([
      'image-generality | images/b.png | Whose dog? | mine',
      'text-reliability | null | Who is it? | Max',
      'text-reliability | null | How old? | two',
      'image-reliability | images/a.png | Whose dog? | mine',
      'portability | images/c.png | Seen where? | home',
    ]);
    expect((await probesOf(path, 1)).slice(4)).toEqual([
      'image-generality | images/b.png | And here? | halt',
      'text-reliability | null | What is meant? | stop',
      'image-reliability | images/a.png | What does it say? | halt',
    ]);
    expect(set.wrong.problems).toEqual([{ row: 3, reason: '"rel_1" has no answer' }]);
  });

  it('E-IC when it is named: captions as targets', async () => {
    const path = await setOf([{ ...record, src: 'a photo of', alt: 'A wolf that stands in deep snow.' }]);
    expect(await readEditingSet(path, { format: 'eic' })).toMatchObject({
      format: 'eic',
      records: [{ prompt: 'a photo of', target: 'A wolf that stands in deep snow.' }],
    });
  });

  it('Emend’s own: probes of the edit’s picture are written without one', async () => {
    const path = await setOf([
      {
        ...{ picture: 'images/a.png', prompt: 'What?', target: 'wolf', number: 3, status: 'committed' },
        probes: [
          { kind: 'text-generality', picture: null, prompt: 'Which?' },
          { kind: 'text-locality', picture: null, prompt: 'who sang it' },
          { kind: 'same-question', picture: 'images/c.png', prompt: 'What?' },
        ],
      },
    ]);
    expect(await probesOf(path)).toEqual([
      'text-generality | images/a.png | Which? | null',
      'text-locality | null | who sang it | null',
      'same-question | images/c.png | What? | null',
    ]);
  });

  it('CSV with a folder, in either kind of names', async () => {
    const path = await setOf(
      'Picture;question;answer;rephrase;loc\nimages/a.png;What?;wolf;"Which; one?";\nimages/none.png;What?;wolf;;\n',
      'csv',
    );
    const set = await readEditingSet(path);
    expect(set).toMatchObject({ format: 'csv', total: 2, records: [{ row: 1, target: 'wolf' }] });
    expect(set.wrong.problems).toEqual([{ row: 2, reason: expect.stringContaining('none.png') }]);
    expect(await probesOf(path)).toEqual(['text-generality | images/a.png | Which; one? | null']);
  });
});

it('a hundred thousand records of large pictures take the memory of their texts', async () => {
  // A picture of 1 GB, as far as its size says: nothing of it is read.
  const large = join(base, 'set', 'images', 'large.png');
  const { open } = await import('node:fs/promises');
  const handle = await open(large, 'w');
  await handle.truncate(1024 ** 3);
  await handle.close();
  const row = JSON.stringify({ src: 'What is it?', alt: 'a wolf', image: 'images/large.png' });
  const path = await setOf(`[${new Array(100_000).fill(row).join(',')}]`);
  global.gc?.();
  const before = process.memoryUsage();
  const set = await readEditingSet(path);
  const after = process.memoryUsage();
  expect(set.records).toHaveLength(100_000);
  expect(after.external + after.arrayBuffers - before.external - before.arrayBuffers).toBeLessThan(
    64 * 2 ** 20,
  );
  expect(after.rss - before.rss).toBeLessThan(400 * 2 ** 20);
}, 30_000);
