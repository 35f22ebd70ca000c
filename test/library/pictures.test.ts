/** @file Pictures are stored once, are what their bytes say, and are refused when they are none. */
import sharp from 'sharp';
import { expect, test } from 'vitest';
import { examinePicture, readPicture, storePicture } from '../../electron/library/pictures.ts';
import { addPicture, makeLibrary, png } from './support.ts';

test('the same bytes are stored once and come back', async () => {
  const library = makeLibrary();
  const id = await addPicture(library, 5);
  expect(await addPicture(library, 5)).toBe(id);
  expect(library.database.prepare('SELECT count(*) AS n FROM pictures').get()).toEqual({ n: 1 });
  const { picture, data } = readPicture(library, id);
  expect(picture).toMatchObject({ id, width: 8, height: 6, mime: 'image/png', bytes: data.length });
  expect(Buffer.compare(data, await png(5))).toBe(0);
});

test('width and height are those people see', async () => {
  const turned = await sharp(await png(5))
    .jpeg()
    .withMetadata({ orientation: 6 })
    .toBuffer();
  expect(await examinePicture(turned)).toMatchObject({ width: 6, height: 8, mime: 'image/jpeg' });
});

test.each<[string, () => Promise<Buffer>, string]>([
  ['text', async () => Buffer.from('not a picture at all'), 'damaged'],
  ['half a picture', async () => (await png(5)).subarray(0, 80), 'damaged'],
  [
    'a drawing',
    async () => Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'),
    'unsupported',
  ],
])('%s is refused', async (_name, bytes, code) => {
  await expect(examinePicture(await bytes())).rejects.toMatchObject({ code });
});

test('damage in the file is told, and healed by adding the picture again', async () => {
  const library = makeLibrary();
  const id = await addPicture(library, 5);
  library.database.prepare('UPDATE pictures SET data = zeroblob(bytes)').run();
  expect(() => readPicture(library, id)).toThrow(expect.objectContaining({ code: 'damaged' }));
  storePicture(library, await examinePicture(await png(5)));
  expect(readPicture(library, id).picture.id).toBe(id);
});
