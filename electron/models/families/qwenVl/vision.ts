/**
 * @file The graph from patches to visual embeddings of Qwen2.5-VL (attention in windows, RMSNorm, gated MLP) and Qwen3-VL (learnt
 * positions, LayerNorm, features for the first decoder layers). Patches keep the processor's order, in which those that are merged
 * lie together.
 */
import { productOfDims } from '../../../tensor/dims.ts';
import * as f from '../../../tensor/functions.ts';
import type { Tensor } from '../../../tensor/graph.ts';
import { float32, int64 } from '../../../tensor/session.ts';
import type { VisionTower } from '../../family.ts';
import { activate } from '../../parts/activations.ts';
import { attendAll, rotate } from '../../parts/attention.ts';
import { embedPatches, linearTensors, normTensors } from '../../parts/visionLayers.ts';
import type { VisualGrid } from '../../picture.ts';
import { forbidden } from '../../positions.ts';
import type { QwenConfig, QwenVisionConfig } from './config.ts';
import { patchPlaces } from './pictures.ts';

const EPSILON = 1e-6;
const ROTATION = 10_000;

export function qwenVision(config: QwenConfig): VisionTower {
  const { vision } = config;
  const { hidden, heads, merge, patchSize, frames, windows } = vision;
  const headDim = hidden / heads;
  const features = 3 * frames * patchSize * patchSize;
  const windowPatches = windows ? (windows.cells * merge) ** 2 : 0;
  return {
    parts: {
      connector: ['visual.merger.', 'visual.deepstack_merger_list.'],
      layers: vision.layers,
      layer: (layer) => `visual.blocks.${layer}.`,
    },
    together: false,
    build(graph, weight) {
      const two = windows !== null;
      const dense = (x: Tensor, name: string) => weight.linear(x, name, weight(`${name}.bias`));
      const norm = (x: Tensor, name: string) =>
        two
          ? f.rmsNorm(x, weight(`${name}.weight`), EPSILON)
          : f.layerNorm(x, weight(`${name}.weight`), weight(`${name}.bias`), EPSILON);
      const patches = graph.input('patches', 'float32', ['patches', features]);
      const table = [1, 1, 'patches', headDim];
      const tables = {
        cosine: graph.input('cosine', 'float32', table),
        sine: graph.input('sine', 'float32', table),
      };
      const inWindows = two
        ? {
            patches: graph.input('window_patches', 'int64', [productOfDims(['windows', windowPatches])]),
            mask: graph.input('window_mask', 'float32', ['windows', 1, 1, windowPatches]),
            back: graph.input('window_back', 'int64', ['patches']),
          }
        : null;

      let x = embedPatches(patches, 'visual.patch_embed.proj', weight, !two);
      if (vision.positionSide !== null) {
        const corners = graph.input('position_corners', 'int64', [4, 'patches']);
        const shares = graph.input('position_shares', 'float32', [4, 'patches', 1]);
        const learnt = f.multiply(f.gather(weight('visual.pos_embed.weight'), corners), shares);
        x = f.add(x, f.sum(learnt, [0]));
      }
      const added: Tensor[] = [];
      for (let layer = 0; layer < vision.layers; layer++) {
        const at = `visual.blocks.${layer}`;
        const mixed = dense(norm(x, `${at}.norm1`), `${at}.attn.qkv`);
        const part = (index: number) =>
          f.reshape(f.slice(mixed, 1, index * hidden, (index + 1) * hidden), [1, 'patches', hidden]);
        const query = rotate(f.splitHeads(part(0), heads), tables);
        const key = rotate(f.splitHeads(part(1), heads), tables);
        const value = f.splitHeads(part(2), heads);
        let attended: Tensor;
        if (inWindows && !windows!.full.includes(layer)) {
          const gathered = (heads_: Tensor) => {
            const rows = f.reshape(f.mergeHeads(heads_), ['patches', hidden]);
            const cut = f.reshape(
              f.gather(rows, inWindows.patches),
              ['windows', windowPatches, hidden],
              inWindows.mask,
            );
            return f.splitHeads(cut, heads);
          };
          const inside = attendAll(gathered(query), gathered(key), gathered(value), inWindows.mask);
          const flat = f.reshape(
            inside,
            [productOfDims(['windows', windowPatches]), hidden],
            inWindows.patches,
          );
          attended = f.gather(flat, inWindows.back);
        } else {
          // A photograph has tens of thousands of patches: their scores would not fit in memory.
          const whole = f.fusedAttention(f.mergeHeads(query), f.mergeHeads(key), part(2), heads);
          attended = f.reshape(whole, ['patches', hidden]);
        }
        x = f.add(x, dense(attended, `${at}.attn.proj`));
        const normed = norm(x, `${at}.norm2`);
        const inner = two
          ? dense(
              f.multiply(
                activate(dense(normed, `${at}.mlp.gate_proj`), vision.activation),
                dense(normed, `${at}.mlp.up_proj`),
              ),
              `${at}.mlp.down_proj`,
            )
          : dense(activate(dense(normed, `${at}.mlp.linear_fc1`), vision.activation), `${at}.mlp.linear_fc2`);
        x = f.add(x, inner);
        const place = vision.deepstack.indexOf(layer);
        if (place >= 0) {
          const name = `visual.deepstack_merger_list.${place}`;
          const joined = norm(merged(x, vision), `${name}.norm`);
          added[place] = dense(f.gelu(dense(joined, `${name}.linear_fc1`)), `${name}.linear_fc2`);
        }
      }
      const [normName, first, second] = two
        ? ['ln_q', 'mlp.0', 'mlp.2']
        : ['norm', 'linear_fc1', 'linear_fc2'];
      const joined = merged(norm(x, `visual.merger.${normName}`), vision);
      const visual = dense(f.gelu(dense(joined, `visual.merger.${first}`)), `visual.merger.${second}`);
      return { visual, added };
    },
    feeds([picture]) {
      const cells = picture!.layout.grid!;
      const grid = { height: cells.height * merge, width: cells.width * merge };
      const count = grid.height * grid.width;
      const { cosine, sine } = rotation(grid, vision, headDim);
      return {
        patches: float32(picture!.values, [count, features]),
        cosine: float32(cosine, [1, 1, count, headDim]),
        sine: float32(sine, [1, 1, count, headDim]),
        ...(windows && windowFeeds(cells, windows.cells, merge * merge)),
        ...(vision.positionSide !== null && positionFeeds(grid, vision.positionSide, merge)),
      };
    },
  };
}

/** Patches that become one visual row, joined: [patches, hidden] → [visual rows, merge²·hidden]. */
function merged(x: Tensor, { merge, hidden }: QwenVisionConfig): Tensor {
  return f.reshape(x, ['visual rows', merge * merge * hidden]);
}

/** Rotary tables [patches, head size]: the first quarter of each head turns with the row, the second with the column, twice. */
function rotation(
  grid: VisualGrid,
  { merge }: QwenVisionConfig,
  headDim: number,
): { cosine: Float32Array; sine: Float32Array } {
  const quarter = headDim / 4;
  const { rows, columns } = patchPlaces(grid, merge);
  const cosine = new Float32Array(rows.length * headDim);
  const sine = new Float32Array(cosine.length);
  for (let patch = 0; patch < rows.length; patch++) {
    for (let i = 0; i < 2 * quarter; i++) {
      const frequency = Math.fround(ROTATION ** (-(i % quarter) / quarter));
      const angle = Math.fround((i < quarter ? rows[patch]! : columns[patch]!) * frequency);
      const at = patch * headDim + i;
      cosine[at] = cosine[at + 2 * quarter] = Math.cos(angle);
      sine[at] = sine[at + 2 * quarter] = Math.sin(angle);
    }
  }
  return { cosine, sine };
}

/**
 * Windows of `side` merged cells along a side, counted from the top left, smaller at the right and the bottom: the patches of each,
 * padded, and where each patch is found again. `each`: patches of a cell.
 */
function windowFeeds({ height, width }: VisualGrid, side: number, each: number) {
  const size = side * side * each;
  const count = Math.ceil(height / side) * Math.ceil(width / side);
  const patches = new BigInt64Array(count * size);
  const mask = new Float32Array(count * size).fill(forbidden);
  const back = new BigInt64Array(height * width * each);
  let window = 0;
  for (let top = 0; top < height; top += side) {
    for (let left = 0; left < width; left += side, window++) {
      let at = window * size;
      for (let row = top; row < Math.min(top + side, height); row++) {
        for (let column = left; column < Math.min(left + side, width); column++) {
          for (let i = 0; i < each; i++, at++) {
            const patch = (row * width + column) * each + i;
            patches[at] = BigInt(patch);
            mask[at] = 0;
            back[patch] = BigInt(at);
          }
        }
      }
    }
  }
  return {
    window_patches: int64(patches, [count * size]),
    window_mask: float32(mask, [count, 1, 1, size]),
    window_back: int64(back, [back.length]),
  };
}

/** The four learnt positions around each patch, and their shares: bilinear, corners on corners. */
function positionFeeds(grid: VisualGrid, side: number, merge: number) {
  const { rows, columns } = patchPlaces(grid, merge);
  const count = rows.length;
  const corners = new BigInt64Array(4 * count);
  const shares = new Float32Array(4 * count);
  const along = (place: number, length: number) => {
    const exact = length > 1 ? (place * (side - 1)) / (length - 1) : 0;
    const low = Math.min(Math.floor(exact), side - 1);
    return { low, high: Math.min(low + 1, side - 1), share: exact - low };
  };
  for (let patch = 0; patch < count; patch++) {
    const y = along(rows[patch]!, grid.height);
    const x = along(columns[patch]!, grid.width);
    const four = [
      [y.low, x.low, (1 - y.share) * (1 - x.share)],
      [y.low, x.high, (1 - y.share) * x.share],
      [y.high, x.low, y.share * (1 - x.share)],
      [y.high, x.high, y.share * x.share],
    ] as const;
    for (const [corner, [row, column, share]] of four.entries()) {
      corners[corner * count + patch] = BigInt(row * side + column);
      shares[corner * count + patch] = share;
    }
  }
  return {
    position_corners: int64(corners, [4, count]),
    position_shares: float32(shares, [4, count, 1]),
  };
}

/** Canonical names and shapes of the tower's weights. */
export function qwenVisionTensors({ vision, text }: QwenConfig): Array<[string, number[]]> {
  const { hidden, intermediate, patchSize, frames, merge, windows } = vision;
  const two = windows !== null;
  const norm = (name: string, width: number): Array<[string, number[]]> =>
    two ? [[`${name}.weight`, [width]]] : normTensors(name, width);
  const shapes: Array<[string, number[]]> = [
    ['visual.patch_embed.proj.weight', [hidden, 3, frames, patchSize, patchSize]],
  ];
  if (!two) shapes.push(['visual.patch_embed.proj.bias', [hidden]]);
  if (vision.positionSide !== null)
    shapes.push(['visual.pos_embed.weight', [vision.positionSide ** 2, hidden]]);
  for (let layer = 0; layer < vision.layers; layer++) {
    const at = `visual.blocks.${layer}`;
    shapes.push(...norm(`${at}.norm1`, hidden));
    shapes.push(...linearTensors(`${at}.attn.qkv`, 3 * hidden, hidden));
    shapes.push(...linearTensors(`${at}.attn.proj`, hidden, hidden));
    shapes.push(...norm(`${at}.norm2`, hidden));
    for (const [name, out, into] of two
      ? ([
          ['gate_proj', intermediate, hidden],
          ['up_proj', intermediate, hidden],
          ['down_proj', hidden, intermediate],
        ] as const)
      : ([
          ['linear_fc1', intermediate, hidden],
          ['linear_fc2', hidden, intermediate],
        ] as const))
      shapes.push(...linearTensors(`${at}.mlp.${name}`, out, into));
  }
  const joined = merge * merge * hidden;
  const merger = (name: string, normed: string, width: number, first: string, second: string) => {
    shapes.push(...norm(`${name}.${normed}`, width));
    shapes.push(...linearTensors(`${name}.${first}`, joined, joined));
    shapes.push(...linearTensors(`${name}.${second}`, text.hidden, joined));
  };
  if (two) merger('visual.merger', 'ln_q', hidden, 'mlp.0', 'mlp.2');
  else merger('visual.merger', 'norm', hidden, 'linear_fc1', 'linear_fc2');
  for (const place of vision.deepstack.keys())
    merger(`visual.deepstack_merger_list.${place}`, 'norm', joined, 'linear_fc1', 'linear_fc2');
  return shapes;
}
