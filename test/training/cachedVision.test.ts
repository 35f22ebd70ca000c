/** @file What a frozen model makes of pictures: computed once each, found again by what it depends on, and the same to the bit. */
import { mkdtempSync, rmSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, expect, test, vi } from 'vitest';
import { CachedVision } from '../../electron/editors/training/cachedVision.ts';
import type { Visual } from '../../electron/models/picture.ts';
import { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { fixture } from '../support/fixtures.ts';

const folder = mkdtempSync(join(tmpdir(), 'emend-cached-vision-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const picture = (width: number, height: number, red: number) =>
  sharp({ create: { width, height, channels: 3, background: { r: red, g: 90, b: 30 } } })
    .png()
    .toBuffer();

// One whose pictures run together, one with rows that are added after further layers and pictures of any size, one with tiles.
test.each(['llava_tiny', 'qwen3_vl_tiny', 'smolvlm_tiny'])('%s', async (family) => {
  const model = await VisionLanguageModel.open(fixture(`checkpoints/${family}`), {
    providers: ['cpu'],
    decoderLater: true,
  });
  try {
    const files = await Promise.all([picture(64, 64, 10), picture(64, 64, 200), picture(150, 64, 100)]);
    const [a, b, c] = await Promise.all(files.map((file) => model.pixelsOf(file)));
    const runs = vi.spyOn(model, 'visualEmbeddingsOf');
    const seenBy = async (
      fingerprint: string,
      ...pictures: Parameters<CachedVision['visualEmbeddingsOf']>
    ) => {
      const vision = await CachedVision.open(model, fingerprint, {
        folder: join(folder, family),
        limitBytes: 1e9,
      });
      runs.mockClear();
      const seen = await vision.visualEmbeddingsOf(...pictures);
      return { seen, runs: runs.mock.calls.length };
    };
    const first = await seenBy('one model', [a!, b!]);
    expect(first.runs).toBe(2);
    const again = await seenBy('one model', [b!, c!, a!]);
    expect(again.runs).toBe(1);
    expect((await seenBy('one model', [a!, b!, c!])).runs).toBe(0);
    expect((await seenBy('another model', [a!])).runs).toBe(1);
    const plain = await CachedVision.open(model, 'one model', null);
    const asItIs = await plain.visualEmbeddingsOf([b!, c!, a!]);
    const bytes = ({ rows, added, layout }: Visual) => ({
      ...{ layout, rows: Buffer.from(rows.slice().buffer) },
      added: added.map((each) => Buffer.from(each.slice().buffer)),
    });
    expect(again.seen.map(bytes)).toEqual(asItIs.map(bytes));
    expect(first.seen.map(bytes)).toEqual([asItIs[2]!, asItIs[0]!].map(bytes));
    expect(again.seen[0]!.added.length).toBe(model.decoder.addedLayers);
    const parts = await readdir(join(folder, family), { recursive: true });
    expect(parts.filter((name) => name.length > 60)).toHaveLength(4);
  } finally {
    await model.dispose();
  }
});
