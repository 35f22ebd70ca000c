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
  const facts = await Promise.all(pictures.map((bytes) => decoder.facts(bytes)));
  expect(facts.map(({ width }) => width)).toEqual([10, 20, 30]);
  expect(facts[0]).toEqual({ width: 10, height: 40, mime: 'image/png' });
  expect(launched.length).toBe(1);
  expect(most).toBe(1);
  const small = await sharp(await decoder.thumbnail(pictures[2]!, 20)).metadata();
  expect(small).toMatchObject({ format: 'webp', width: 15, height: 20 });
  expect(await sharp(await decoder.png(pictures[0]!)).metadata()).toMatchObject({ format: 'png', width: 10 });
});

test('what is refused is refused in the same words, and the next picture is decoded', async () => {
  const decoder = new PictureDecoder(watched);
  await expect(decoder.facts(Buffer.from('hello'))).rejects.toMatchObject({
    code: 'damaged',
    message: 'The picture cannot be read: it is no picture that Emend knows. Choose another file.',
  });
  expect(await decoder.facts(await picture(10))).toMatchObject({ width: 10 });
  expect(launched.length).toBe(1);
});

test('a picture that takes too long is given up, its process ended, and the next one has a new process', async () => {
  const decoder = new PictureDecoder(watched, { decode: 1 });
  const large = await picture(9000, 9000);
  await expect(decoder.facts(large)).rejects.toMatchObject({
    code: 'invalid-input',
    message: expect.stringMatching(/given up/),
  });
  const patient = new PictureDecoder(watched);
  const gone = patient.facts(large);
  await expect.poll(() => most, { timeout: 30_000 }).toBe(2);
  launched.at(-1)!.kill();
  await expect(gone).rejects.toMatchObject({
    code: 'damaged',
    message: expect.stringMatching(/decoder fail/),
  });
  expect(await patient.facts(await picture(10))).toMatchObject({ width: 10 });
  expect(launched.length).toBe(3);
});
