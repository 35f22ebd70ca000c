/**
 * @file The graph from tiles to visual embeddings of Idefics3 and SmolVLM: SigLIP with positions by fractional coordinates, blocks of
 * patches joined (pixel shuffle), one projection.
 */
import * as f from '../../../tensor/functions.ts';
import { float32, int64 } from '../../../tensor/session.ts';
import type { VisionTower } from '../../family.ts';
import {
  embedPatches,
  encoderLayer,
  encoderLayerTensors,
  normTensors,
  patchesOf,
} from '../../parts/visionLayers.ts';
import type { Pixels } from '../../picture.ts';
import { forbidden } from '../../positions.ts';
import type { Idefics3Config } from './config.ts';

const tower = 'vision_model';

export function idefics3Vision(config: Idefics3Config): VisionTower {
  const { vision, shuffle, text } = config;
  const { imageSize, patchSize, hidden } = vision;
  const across = Math.floor(imageSize / patchSize);
  const count = across * across;
  return {
    parts: {
      connector: ['connector.'],
      layers: vision.layers,
      layer: (layer) => `${tower}.encoder.layers.${layer}.`,
    },
    together: true,
    build(graph, weight) {
      const pixels = graph.input('pixels', 'float32', ['tiles', 3, imageSize, imageSize]);
      const places = graph.input('places', 'int64', ['tiles', count]);
      const mask = graph.input('patch_mask', 'float32', ['tiles', 1, 1, count]);
      const patches = patchesOf(pixels, imageSize, patchSize);
      const embedded = embedPatches(patches, `${tower}.embeddings.patch_embedding`, weight, true);
      let x = f.add(embedded, f.gather(weight(`${tower}.embeddings.position_embedding.weight`), places));
      for (let layer = 0; layer < vision.layers; layer++)
        x = encoderLayer(x, `${tower}.encoder.layers.${layer}`, vision, weight, mask);
      const norm = `${tower}.post_layernorm`;
      x = f.layerNorm(x, weight(`${norm}.weight`), weight(`${norm}.bias`), vision.layerNormEps);
      const cells = across / shuffle;
      const blocks = f.reshape(x, ['tiles', cells, shuffle, cells, shuffle, hidden]);
      const joined = f.reshape(f.transpose(blocks, [0, 1, 3, 2, 4, 5]), [
        'tiles',
        cells * cells,
        shuffle * shuffle * hidden,
      ]);
      const projected = weight.linear(joined, 'connector.modality_projection.proj');
      return { visual: f.reshape(projected, ['visual rows', text.hidden]), added: [] };
    },
    feeds(pictures) {
      const area = 3 * imageSize * imageSize;
      const tiles = pictures.reduce((sum, { values }) => sum + values.length / area, 0);
      const pixels = new Float32Array(tiles * area);
      const places = new BigInt64Array(tiles * count);
      const mask = new Float32Array(tiles * count);
      const full = placesOf(across, across, across);
      let tile = 0;
      for (const picture of pictures) {
        pixels.set(picture.values, tile * area);
        for (let of = 0; of < picture.values.length / area; of++, tile++) {
          const seen = picture.mask ? patchMask(picture, of, imageSize, patchSize) : null;
          places.set(seen ? placed(seen, across) : full, tile * count);
          if (seen)
            for (const [patch, there] of seen.entries()) if (!there) mask[tile * count + patch] = forbidden;
        }
      }
      return {
        pixels: float32(pixels, [tiles, 3, imageSize, imageSize]),
        places: int64(places, [tiles, count]),
        patch_mask: float32(mask, [tiles, 1, 1, count]),
      };
    },
  };
}

/** Which patches of a tile hold any of the picture [patches]. */
function patchMask({ mask }: Pixels, tile: number, side: number, patch: number): boolean[] {
  const across = Math.floor(side / patch);
  return Array.from({ length: across * across }, (_, index) => {
    const [top, left] = [Math.floor(index / across) * patch, (index % across) * patch];
    for (let y = top; y < top + patch; y++) {
      for (let x = left; x < left + patch; x++) if (mask![(tile * side + y) * side + x]) return true;
    }
    return false;
  });
}

/** Positions of a partly used tile: the used patches' by their share of what is used, 0 for the others. */
function placed(seen: readonly boolean[], across: number): BigInt64Array {
  const rows = Array.from({ length: across }, (_, row) => seen[row * across]).filter(Boolean).length;
  const columns = seen.slice(0, across).filter(Boolean).length;
  const given = placesOf(rows, columns, across);
  const places = new BigInt64Array(seen.length);
  let at = 0;
  for (const [patch, there] of seen.entries()) if (there) places[patch] = given[at++] ?? 0n;
  return places;
}

/**
 * Positions of rows × columns patches in a table of `across` × `across`: row and column by the bucket their fraction falls into,
 * [rows · columns]. Not always the identity: the fractions are compared as float32 numbers that PyTorch makes.
 */
function placesOf(rows: number, columns: number, across: number): BigInt64Array {
  const edges = arange(1 / across, 1, 1 / across);
  const buckets = (count: number) =>
    Array.from({ length: count }, (_, index) => {
      const fraction = Math.min(Math.fround(index * Math.fround(1 / count)), Math.fround(1 - 1e-6));
      return edges.filter((edge) => edge <= fraction).length;
    });
  const byColumn = buckets(columns);
  return BigInt64Array.from(
    buckets(rows).flatMap((row) => byColumn.map((column) => BigInt(row * across + column))),
  );
}

/** torch.arange of float32: in steps of eight from a rounded start, as its vectorised loop runs, sixteen at a time. */
function arange(start: number, end: number, step: number): number[] {
  const count = Math.ceil((end - start) / step);
  const vectorised = count - (count % 16);
  return Array.from({ length: count }, (_, index) => {
    if (index >= vectorised) return Math.fround(start + step * index);
    const lane = index % 8;
    return Math.fround(Math.fround(start + step * (index - lane)) + lane * step);
  });
}

/** Canonical names and shapes of tower and connector. */
export function idefics3VisionTensors({ vision, shuffle, text }: Idefics3Config): Array<[string, number[]]> {
  const { hidden, patchSize, imageSize } = vision;
  const across = Math.floor(imageSize / patchSize);
  const shapes: Array<[string, number[]]> = [
    [`${tower}.embeddings.patch_embedding.weight`, [hidden, 3, patchSize, patchSize]],
    [`${tower}.embeddings.patch_embedding.bias`, [hidden]],
    [`${tower}.embeddings.position_embedding.weight`, [across * across, hidden]],
  ];
  for (let layer = 0; layer < vision.layers; layer++)
    shapes.push(...encoderLayerTensors(`${tower}.encoder.layers.${layer}`, vision));
  shapes.push(...normTensors(`${tower}.post_layernorm`, hidden));
  shapes.push(['connector.modality_projection.proj.weight', [text.hidden, shuffle * shuffle * hidden]]);
  return shapes;
}
