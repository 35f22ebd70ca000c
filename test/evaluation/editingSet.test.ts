/** @file Editing sets in E-VQA's form: what is read, and what is refused with record and field named. */
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readEditingSet } from '../../electron/evaluation/editingSet.ts';

let base: string;
beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), 'emend-set-'));
  await mkdir(join(base, 'set', 'images'), { recursive: true });
  for (const name of ['a', 'b', 'c']) await writeFile(join(base, 'set', 'images', `${name}.png`), name);
  await writeFile(join(base, 'secret.png'), 'not yours');
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
async function setOf(content: unknown): Promise<string> {
  const path = join(base, 'set', `set-${++written}.json`);
  await writeFile(path, typeof content === 'string' ? content : JSON.stringify(content));
  return path;
}

describe('an editing set', () => {
  it('is read in order, with fields it does not know, and a digest of its bytes', async () => {
    const path = await setOf([
      { ...record, port_new: [{ Q: 'x' }] },
      { ...record, loc_ans: ['first', 'second'], kind: 'count' },
    ]);
    const set = await readEditingSet(path);
    expect(set.total).toBe(2);
    expect(set.records[0]).toEqual({ ...record, port_new: [{ Q: 'x' }] });
    expect(set.records[1]).toMatchObject({ loc_ans: 'first', kind: 'count' });
    expect(set.sha256).toMatch(/^[0-9a-f]{64}$/);
    expect(await set.picturePath(0, 'm_loc')).toMatch(/images.c\.png$/);
  });

  it('takes the first records, and never looks at what is wrong with the others', async () => {
    const set = await readEditingSet(await setOf([record, { src: 1 }]), { limit: 1 });
    expect([set.records.length, set.total]).toEqual([1, 2]);
  });

  it('finds pictures in another folder when told to', async () => {
    const path = join(base, 'elsewhere.json');
    await writeFile(path, JSON.stringify([record]));
    await expect(readEditingSet(path)).rejects.toMatchObject({ code: 'not-found' });
    const set = await readEditingSet(path, { images: join(base, 'set') });
    expect(await set.picturePath(0, 'image')).toMatch(/set.images.a\.png$/);
  });
});

describe('refused', () => {
  it.each([
    ['a missing field', [record, { ...record, alt: undefined }], /record 2, field "alt"/],
    ['an empty target', [{ ...record, alt: '  ' }], /record 1, field "alt"/],
    ['a field of another type', [{ ...record, image: 3 }], /record 1, field "image"/],
    ['a text without end', [{ ...record, src: 'x'.repeat(5000) }], /record 1, field "src"/],
    ['a record that is none', [record, 7], /record 2: /],
    ['no list', { src: 'x' }, /no list of edits/],
    ['an empty list', [], /no list of edits/],
    ['what is not JSON', '[{', /is not JSON/],
    ['a missing picture', [{ ...record, m_loc: 'images/no.png' }], /record 1, field "m_loc".*no\.png/],
    ['a picture above the folder', [{ ...record, image: '../secret.png' }], /field "image".*outside/],
    ['the folder itself', [{ ...record, image: '.' }], /field "image".*outside/],
    ['the folder above', [{ ...record, image: '..' }], /field "image".*outside/],
    ['an absolute path', [{ ...record, image: '/etc/hostname' }], /field "image".*outside/],
  ])('%s', async (_, content, message) => {
    await expect(readEditingSet(await setOf(content))).rejects.toThrow(message);
  });

  it('a link that leads out of the folder', async () => {
    await symlink(join(base, 'secret.png'), join(base, 'set', 'images', 'link.png'));
    const path = await setOf([{ ...record, image: 'images/link.png' }]);
    await expect(readEditingSet(path)).rejects.toMatchObject({ code: 'invalid-input' });
  });

  it('a file that is not there, and a folder', async () => {
    await expect(readEditingSet(join(base, 'none.json'))).rejects.toMatchObject({ code: 'not-found' });
    await expect(readEditingSet(base)).rejects.toMatchObject({ code: 'invalid-input' });
  });
});
