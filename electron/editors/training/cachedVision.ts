/**
 * @file What the frozen vision side makes of pictures, kept on disk where the same pictures come again: by the model, the form of its weights, where it
 * runs and the pixels, whatever editor is trained on it.
 */
import { createHash } from 'node:crypto';
import { FloatCache, type FloatCacheLimits } from '../../files/floatCache.ts';
import type { Pixels, Visual } from '../../models/picture.ts';
import type { VisionLanguageModel } from '../../models/visionLanguageModel.ts';
import type { EditSource } from './edits.ts';

/** The vision side of a model without any change of its weights, such as the model itself. */
export interface FrozenVision {
  visualEmbeddingsOf(pictures: readonly Pixels[]): Promise<Visual[]>;
}

/** Raised when what a family makes of the same pixels becomes another. */
const FORM = 1;

/** Pictures are seen one by one: what is made of one does not depend, to the last bit, on those beside it and on which of them are known. */
export class CachedVision implements FrozenVision {
  readonly #model: VisionLanguageModel;
  /** what entries depend on beside the picture */
  readonly #of: string;
  readonly #cache: FloatCache | null;

  private constructor(model: VisionLanguageModel, of: string, cache: FloatCache | null) {
    this.#model = model;
    this.#of = of;
    this.#cache = cache;
  }

  /** `limits` null: nothing is kept. */
  static async open(
    model: VisionLanguageModel,
    modelFingerprint: string,
    limits: FloatCacheLimits | null,
  ): Promise<CachedVision> {
    const { form, provider, images } = model;
    const of = JSON.stringify([FORM, modelFingerprint, form, provider, images.rows.most]);
    return new CachedVision(model, of, limits && (await FloatCache.open(limits)));
  }

  async visualEmbeddingsOf(pictures: readonly Pixels[]): Promise<Visual[]> {
    const cache = this.#cache;
    const names = cache ? pictures.map((pixels) => this.#nameOf(pixels)) : [];
    const found = await Promise.all(names.map((name, at) => this.#read(name, pictures[at]!)));
    const seen: Visual[] = [];
    const made: Array<readonly [name: string, Visual]> = [];
    for (const [at, pixels] of pictures.entries()) {
      const visual = found[at] ?? (await this.#model.visualEmbeddings(pixels));
      if (cache && !found[at]) made.push([names[at]!, visual]);
      seen.push(visual);
    }
    await Promise.all(made.map(([name, { rows, added }]) => cache!.keep(name, [rows, ...added])));
    return seen;
  }

  async #read(name: string, pixels: Pixels): Promise<Visual | null> {
    const { layout } = pixels;
    const { hidden, addedLayers } = this.#model.decoder;
    const part = layout.rows * hidden;
    const found = await this.#cache!.read(name, part * (1 + addedLayers));
    if (!found) return null;
    const [rows, ...added] = Array.from({ length: 1 + addedLayers }, (_, at) =>
      found.subarray(at * part, (at + 1) * part),
    );
    return { rows: rows!, layout, pixels, added };
  }

  #nameOf({ values, shape, layout: { rows, grid, tiles }, mask }: Pixels): string {
    const hash = createHash('sha256').update(`${this.#of} ${JSON.stringify([shape, rows, grid, tiles])}`);
    hash.update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    if (mask) hash.update(mask);
    return hash.digest('hex');
  }
}

/** What sees the pictures of a source: where they come again each once, as far as they can be kept; `limits` null: nothing is kept. */
export async function visionFor(
  { repeats = false }: EditSource,
  model: VisionLanguageModel,
  modelFingerprint: string,
  limits: FloatCacheLimits | null,
): Promise<FrozenVision> {
  return repeats ? CachedVision.open(model, modelFingerprint, limits) : model;
}
