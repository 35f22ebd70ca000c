/** @file Pictures as the model sees them: Pillow's resize to the bit. */

import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readJson } from '../../electron/files/json.ts';
import { decodePicture, type Picture } from '../../electron/files/picture.ts';
import { openSafetensors, readTensor } from '../../electron/files/safetensors.ts';
import { type LlavaConfig, parseLlavaConfig } from '../../electron/models/families/llava/config.ts';
import { type ResampleFilter, resizeWindow } from '../../electron/models/imageProcessor.ts';
import { loadSquareProcessor } from '../../electron/models/parts/squarePictures.ts';
import { fixture } from '../support/fixtures.ts';

/** A picture whose channels are gradients across, down, and a constant. */
function gradient(width: number, height: number): Picture {
  const rgb = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) rgb.set([x * 7, y * 5, 99], (y * width + x) * 3);
  }
  return { width, height, rgb };
}

describe('resizing', () => {
  const strip = (values: number[]): Picture => ({
    width: values.length,
    height: 1,
    rgb: Uint8Array.from(values.flatMap((value) => [value, 255 - value, 7])),
  });
  const resizeStrip = (values: number[], width: number, filter: ResampleFilter) => {
    const scaled = { width, height: 1 };
    const rgb = resizeWindow(strip(values), scaled, { left: 0, top: 0, ...scaled }, filter);
    return Array.from({ length: width }, (_, i) => rgb[3 * i]);
  };

  it('widens the filter when shrinking, and cuts it off at the edges', () => {
    // Weights of the first pixel 0.75, 0.75, 0.25: 125 / 1.75; of the second 0.25, 0.75, 0.75: 205 / 1.75.
    expect(resizeStrip([0, 100, 200, 40], 2, 'bilinear')).toEqual([71, 117]);
  });

  it.each<[ResampleFilter, number[], number[]]>([
    // from Pillow's formulas, computed apart
    ['hamming', [103, 117, 87], [0, 4, 132, 200, 146, 43, 40]],
    ['lanczos', [82, 128, 109], [0, 25, 126, 200, 150, 62, 8]],
    ['box', [100, 128, 70], [0, 0, 200, 200, 200, 40, 40]],
    ['nearest', [200, 90, 10], [0, 0, 200, 200, 200, 40, 40]],
  ])('knows the %s filter', (filter, shrunk, grown) => {
    expect(resizeStrip([0, 200, 40, 90, 255, 10, 130], 3, filter)).toEqual(shrunk);
    expect(resizeStrip([0, 200, 40], 7, filter)).toEqual(grown);
  });

  it('clamps the overshoot of the bicubic filter when growing', () => {
    // At quarter steps the filter with a = -0.5 weighs -0.0703, 0.8672, 0.2266, -0.0234.
    expect(resizeStrip([0, 0, 255, 255], 8, 'bicubic')).toEqual([0, 0, 0, 52, 203, 255, 255, 255]);
  });

  it('leaves a picture of the right size as it is', () => {
    const { width, height, rgb } = gradient(9, 5);
    const same = resizeWindow(
      { width, height, rgb },
      { width, height },
      { left: 0, top: 0, width, height },
      'bicubic',
    );
    expect(same).toEqual(rgb);
  });

  it('gives the same pixels through a window as for the whole', () => {
    const picture = gradient(31, 23);
    const scaled = { width: 20, height: 15 };
    const whole = resizeWindow(picture, scaled, { left: 0, top: 0, ...scaled }, 'bicubic');
    const part = resizeWindow(picture, scaled, { left: 3, top: -2, width: 22, height: 9 }, 'bicubic');
    for (let y = 0; y < 9; y++) {
      for (let x = 0; x < 22; x++) {
        const inside = y >= 2 && x + 3 < 20;
        const at = ((y - 2) * 20 + x + 3) * 3;
        const expected = inside ? [...whole.slice(at, at + 3)] : [0, 0, 0];
        expect([...part.slice((y * 22 + x) * 3, (y * 22 + x) * 3 + 3)]).toEqual(expected);
      }
    }
  });
});

describe('a processor', () => {
  let folder: string;
  let config: LlavaConfig;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'emend-picture-'));
    config = parseLlavaConfig({ model_type: 'llava', vision_config: { image_size: 8, patch_size: 4 } }, '');
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  const load = async (settings: object, file = 'preprocessor_config.json') => {
    const place = await mkdtemp(join(folder, 'p-'));
    await writeFile(join(place, file), JSON.stringify(settings));
    return loadSquareProcessor(place, config.vision.imageSize);
  };

  it("has CLIP's settings where nothing else is said", async () => {
    const place = await mkdtemp(join(folder, 'none-'));
    const processor = await loadSquareProcessor(place, config.vision.imageSize);
    const values = processor.preprocess(gradient(8, 8));
    expect(values.length).toBe(192);
    expect(values[1]).toBeCloseTo((7 / 255 - 0.48145466) / 0.26862954, 6);
    expect(values[64 + 8]).toBeCloseTo((5 / 255 - 0.4578275) / 0.26130258, 6);
    expect(values[128]).toBeCloseTo((99 / 255 - 0.40821073) / 0.27577711, 6);
  });

  it('takes sizes as numbers and as objects, in either file', async () => {
    const picture = gradient(13, 10);
    const expected = (
      await load({ size: { shortest_edge: 8 }, crop_size: { height: 8, width: 8 } })
    ).preprocess(picture);
    expect((await load({ size: 8, crop_size: 8 })).preprocess(picture)).toEqual(expected);
    const nested = await load({ image_processor: { size: 8, crop_size: 8 } }, 'processor_config.json');
    expect(nested.preprocess(picture)).toEqual(expected);
    const squashed = await load({ size: { height: 8, width: 8 }, do_center_crop: false });
    expect(squashed.viewOf(picture)).toEqual({ left: 0, top: 0, width: 13, height: 10 });
  });

  it('without a crop takes square pictures only', async () => {
    const processor = await load({ do_center_crop: false, size: 8 });
    expect(processor.preprocess(gradient(20, 20))).toEqual((await load({})).preprocess(gradient(20, 20)));
    expect(() => processor.preprocess(gradient(20, 15))).toThrow(/square pictures only.*20 x 15/);
  });

  it('follows the do_ flags', async () => {
    const flags = { do_resize: false, do_center_crop: true, do_rescale: false, do_normalize: false };
    const processor = await load(flags);
    const values = processor.preprocess(gradient(10, 6));
    // Two rows narrower than the square on each side are black, one column is cut off left and right.
    expect(processor.viewOf({ width: 10, height: 6 })).toEqual({ left: 1, top: -1, width: 8, height: 8 });
    expect([...values.slice(0, 8)]).toEqual([0, 0, 0, 0, 0, 0, 0, 0]);
    expect([...values.slice(8, 16)]).toEqual([7, 14, 21, 28, 35, 42, 49, 56]);
    expect([...values.slice(64 + 56, 64 + 64)]).toEqual([0, 0, 0, 0, 0, 0, 0, 0]);
  });

  it('sees the middle of a picture, whatever its shape, in little memory', async () => {
    const processor = await load({});
    expect(processor.viewOf({ width: 200, height: 100 })).toEqual({
      left: 50,
      top: 0,
      width: 100,
      height: 100,
    });
    const thread: Picture = { width: 1, height: 2_000_000, rgb: new Uint8Array(6_000_000).fill(9) };
    expect(processor.resize(thread).rgb.every((value) => value === 9)).toBe(true);
  });

  it.each<[string, object, string, RegExp]>([
    ['another processor', { image_processor_type: 'Idefics3ImageProcessor' }, 'unsupported', /Idefics3/],
    ['another filter', { resample: 6 }, 'unsupported', /resample 6/],
    ['padding', { do_pad: true }, 'unsupported', /do_pad/],
    ['another size than the tower', { crop_size: 224 }, 'damaged', /224 x 224.*8 x 8/],
    ['no fixed size', { do_center_crop: false, size: 9 }, 'damaged', /no fixed size/],
    ['a mean of two', { image_mean: [0, 1] }, 'damaged', /image_mean/],
    ['a deviation of zero', { image_std: [1, 0, 1] }, 'damaged', /image_std/],
  ])('refuses %s', async (_name, settings, code, message) => {
    await expect(load(settings)).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
  });
});

describe('beside the reference', () => {
  it.each(['a', 'a2', 'b', 'c', 'big', 'tiny'])('gives the same square of %s.png', async (name) => {
    const source = fixture('checkpoints/llava_tiny');
    const config = parseLlavaConfig(await readJson(join(source, 'config.json')), 'config.json');
    const processor = await loadSquareProcessor(source, config.vision.imageSize);
    const expected = await openSafetensors(fixture('llava_tiny/preprocess.safetensors'));
    const picture = await decodePicture(await readFile(fixture(`images/${name}.png`)));

    const { data: resized } = await readTensor(expected, `${name}.png.resized_u8`);
    expect(processor.resize(picture).rgb).toEqual(resized);
    const { data: pixels } = await readTensor(expected, `${name}.png.pixel_values`);
    const values = processor.preprocess(picture);
    expect(values.length).toBe(pixels.length);
    values.forEach((value, i) => {
      expect(Math.abs(value - Number(pixels[i]))).toBeLessThan(1e-6);
    });
  });
});
