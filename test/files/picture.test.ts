import { crc32 } from 'node:zlib';
import sharp from 'sharp';
import { describe, expect, it } from 'vitest';
import { decodePicture, type Picture } from '../../electron/files/picture.ts';

/** A picture whose channels are gradients across, down, and a constant. */
function gradient(width: number, height: number): Picture {
  const rgb = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) rgb.set([x * 7, y * 5, 99], (y * width + x) * 3);
  }
  return { width, height, rgb };
}

const raw = ({ width, height, rgb }: Picture) => sharp(rgb, { raw: { width, height, channels: 3 } });

describe('decoding', () => {
  const picture = gradient(6, 4);

  it.each(['png', 'webp', 'tiff'] as const)('gives the pixels of a lossless %s', async (format) => {
    const bytes = await raw(picture).toFormat(format, { lossless: true, compression: 'none' }).toBuffer();
    const decoded = await decodePicture(bytes);
    expect(decoded).toMatchObject({ width: 6, height: 4 });
    expect([...decoded.rgb]).toEqual([...picture.rgb]);
  });

  it.each(['jpeg', 'gif', 'avif'] as const)('takes %s', async (format) => {
    const flat = sharp({ create: { width: 16, height: 8, channels: 3, background: '#336699' } });
    const { width, height, rgb } = await decodePicture(await flat.toFormat(format).toBuffer());
    expect([width, height, rgb.length]).toEqual([16, 8, 384]);
    [0x33, 0x66, 0x99].forEach((value, channel) => {
      expect(Math.abs(rgb[channel]! - value)).toBeLessThan(6);
    });
  });

  it('drops transparency and keeps the colour below it', async () => {
    const rgba = Uint8Array.of(200, 100, 50, 0, 10, 20, 30, 128);
    const bytes = await sharp(rgba, { raw: { width: 2, height: 1, channels: 4 } })
      .png()
      .toBuffer();
    expect([...(await decodePicture(bytes)).rgb]).toEqual([200, 100, 50, 10, 20, 30]);
  });

  it('spreads grey over three channels, at 8 and at 16 bits', async () => {
    const grey = sharp(Uint8Array.of(0, 128, 255), { raw: { width: 3, height: 1, channels: 1 } });
    const expected = [0, 0, 0, 128, 128, 128, 255, 255, 255];
    const eight = await grey.clone().toColourspace('b-w').png().toBuffer();
    expect((await sharp(eight).metadata()).channels).toBe(1);
    expect([...(await decodePicture(eight)).rgb]).toEqual(expected);
    const sixteen = await grey.clone().toColourspace('grey16').png().toBuffer();
    expect((await sharp(sixteen).metadata()).depth).toBe('ushort');
    expect([...(await decodePicture(sixteen)).rgb]).toEqual(expected);
  });

  it('reads 16-bit colour and CMYK', async () => {
    const deep = await raw(picture).toColourspace('rgb16').png().toBuffer();
    expect([...(await decodePicture(deep)).rgb]).toEqual([...picture.rgb]);
    const red = sharp({ create: { width: 8, height: 8, channels: 3, background: '#ff0000' } });
    const { rgb } = await decodePicture(await red.toColourspace('cmyk').jpeg().toBuffer());
    expect(rgb.length).toBe(192);
    expect(rgb[0]).toBeGreaterThan(rgb[1]! + 100);
  });

  it('turns a picture upright as its EXIF orientation says', async () => {
    const bytes = await raw(picture).withMetadata({ orientation: 6 }).png().toBuffer();
    const { width, height, rgb } = await decodePicture(bytes);
    expect([width, height]).toEqual([4, 6]);
    // Turned clockwise: the upper left pixel was the lower left one.
    expect([...rgb.slice(0, 3)]).toEqual([0, 15, 99]);
  });

  it('takes the first frame of an animation', async () => {
    const frames = new Uint8Array(8 * 16 * 3).fill(250, 8 * 8 * 3);
    const bytes = await sharp(frames, { raw: { width: 8, height: 16, channels: 3, pageHeight: 8 } })
      .gif()
      .toBuffer();
    expect((await sharp(bytes, { animated: true }).metadata()).pages).toBe(2);
    const { width, height, rgb } = await decodePicture(bytes);
    expect([width, height, rgb[0]]).toEqual([8, 8, 0]);
  });
});

describe('refusing', () => {
  const noisy = () => {
    const { width, height, rgb } = gradient(64, 64);
    return raw({ width, height, rgb: rgb.map((value, i) => (value * 31 + i * i) & 255) });
  };

  it.each(['png', 'jpeg', 'webp'] as const)('a truncated %s', async (format) => {
    const bytes = await noisy().toFormat(format).toBuffer();
    await expect(decodePicture(bytes.subarray(0, bytes.length >> 1))).rejects.toMatchObject({
      code: 'damaged',
      message: expect.stringMatching(
        /^The picture cannot be (read|decoded): (it ends too early|its data are damaged)\. Choose another file\.$/,
      ),
    });
  });

  it('nothing, and what is no picture', async () => {
    await expect(decodePicture(new Uint8Array())).rejects.toMatchObject({ code: 'damaged' });
    await expect(decodePicture(Buffer.from('hello, this is text'))).rejects.toMatchObject({
      code: 'damaged',
    });
  });

  it('drawings in SVG, which may point elsewhere', async () => {
    const svg =
      '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>';
    await expect(decodePicture(Buffer.from(svg))).rejects.toMatchObject({
      code: 'unsupported',
      message: expect.stringContaining('svg'),
    });
  });

  it('more than 100 megapixels, a side over 32,768 or 64 MB, before decoding', async () => {
    const claiming = async (width: number, height: number) => {
      const png = await raw(gradient(4, 4)).png().toBuffer();
      png.writeUInt32BE(width, 16);
      png.writeUInt32BE(height, 20);
      png.writeUInt32BE(crc32(png.subarray(12, 29)), 29);
      return png;
    };
    await expect(decodePicture(await claiming(20_000, 6_000))).rejects.toMatchObject({
      code: 'invalid-input',
      message: expect.stringMatching(/20000 x 6000.*100 megapixels/),
    });
    for (const [width, height] of [
      [1, 99_999_999],
      [32_769, 1],
    ]) {
      await expect(decodePicture(await claiming(width!, height!))).rejects.toMatchObject({
        code: 'invalid-input',
        message: expect.stringMatching(/along a side/),
      });
    }
    await expect(decodePicture(new Uint8Array(65 * 1024 * 1024))).rejects.toMatchObject({
      code: 'invalid-input',
      message: expect.stringMatching(/65 MB/),
    });
  });
});
