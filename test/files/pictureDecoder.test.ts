import sharp from 'sharp';
import { afterEach, expect, test } from 'vitest';
import {
  forkPictureProcess,
  PictureDecoder,
  type PictureProcess,
  type PictureReply,
  type PictureRequest,
} from '../../electron/files/pictureDecoder.ts';

const picture = (width: number, height = 40) =>
  sharp({ create: { width, height, channels: 3, background: '#336699' } })
    .png()
    .toBuffer();

/** Real processes, watched. */
const launched: PictureProcess[] = [];
let running = 0;
let most = 0;
function watched(): PictureProcess {
  const child = forkPictureProcess();
  launched.push(child);
  child.onMessage((reply: PictureReply) => {
    if (reply.kind !== 'ready') running--;
  });
  return {
    ...child,
    send(request: PictureRequest) {
      most = Math.max(most, ++running);
      child.send(request);
    },
  };
}
afterEach(() => {
  for (const child of launched.splice(0)) child.kill();
  running = most = 0;
});

test('pictures are decoded in another process, one at a time, each answer to its picture', async () => {
  const decoder = new PictureDecoder(watched);
  const pictures = await Promise.all([10, 20, 30].map((width) => picture(width)));
  const examined = await Promise.all(pictures.map((bytes) => decoder.examine(bytes, 20)));
  expect(examined.map(({ facts }) => facts.width)).toEqual([10, 20, 30]);
  expect(examined[0]!.facts).toEqual({ width: 10, height: 40, mime: 'image/png' });
  expect(launched.length).toBe(1);
  expect(most).toBe(1);
  const { mime, data } = examined[2]!.thumbnail;
  expect(mime).toBe('image/jpeg');
  expect(await sharp(data).metadata()).toMatchObject({ format: 'jpeg', width: 15, height: 20 });
  expect(await sharp(await decoder.png(pictures[0]!)).metadata()).toMatchObject({ format: 'png', width: 10 });
});

test('a small picture is upright, of the same colours, as clear as the large one, and never larger', async () => {
  const decoder = new PictureDecoder(watched);
  const clear = await sharp({ create: { width: 40, height: 10, channels: 4, background: '#33669980' } })
    .png()
    .withMetadata({ orientation: 6 })
    .toBuffer();
  const { facts, thumbnail } = await decoder.examine(clear, 20);
  expect(facts).toMatchObject({ width: 10, height: 40 });
  expect(thumbnail.mime).toBe('image/webp');
  const { data, info } = await sharp(thumbnail.data).raw().toBuffer({ resolveWithObject: true });
  expect(info).toMatchObject({ width: 5, height: 20, channels: 4 });
  for (const [at, value] of [0x33, 0x66, 0x99, 0x80].entries())
    expect(Math.abs(data[at]! - value)).toBeLessThan(8);
  const small = await decoder.examine(await picture(8, 4), 20);
  expect(await sharp(small.thumbnail.data).metadata()).toMatchObject({ width: 8, height: 4 });
});

test('what is refused is refused in the same words, and the next picture is decoded', async () => {
  const decoder = new PictureDecoder(watched);
  await expect(decoder.examine(Buffer.from('hello'), 20)).rejects.toMatchObject({
    code: 'damaged',
    message: 'The picture cannot be read: it is no picture that Emend knows. Choose another file.',
  });
  expect((await decoder.examine(await picture(10), 20)).facts.width).toBe(10);
  expect(launched.length).toBe(1);
});

test('a picture that takes too long is given up, its process ended, and the next one has a new process', async () => {
  const decoder = new PictureDecoder(watched, { decode: 1 });
  const large = await picture(9000, 9000);
  await expect(decoder.examine(large, 20)).rejects.toMatchObject({
    code: 'invalid-input',
    message: expect.stringMatching(/given up/),
  });
  const patient = new PictureDecoder(watched);
  const gone = patient.examine(large, 20);
  await expect.poll(() => most, { timeout: 30_000 }).toBe(2);
  launched.at(-1)!.kill();
  await expect(gone).rejects.toMatchObject({
    code: 'damaged',
    message: expect.stringMatching(/decoder fail/),
  });
  expect((await patient.examine(await picture(10), 20)).facts.width).toBe(10);
  expect(launched.length).toBe(3);
});
