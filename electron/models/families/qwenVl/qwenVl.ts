/** @file Qwen2.5-VL and Qwen3-VL: pictures of any size, positions of three axes. */
import { type Backbone, type Family, imageTokens, type NameTable, type PlacedPicture } from '../../family.ts';
import { rotaryDecoder } from '../../parts/rotaryDecoder.ts';
import type { Positions } from '../../positions.ts';
import { parseQwenConfig, type QwenConfig } from './config.ts';
import { openQwenPictures } from './pictures.ts';
import { qwenVision, qwenVisionTensors } from './vision.ts';

const names: NameTable = [
  [/^(?:model\.)?lm_head\./, 'language_model.lm_head.'],
  [/^model\.visual\./, 'visual.'],
  [/^model\.language_model\./, 'language_model.model.'],
  [/^model\./, 'language_model.model.'],
];

const withHead = (config: QwenConfig, inFiles: boolean): QwenConfig => ({
  ...config,
  text: { ...config.text, tieWordEmbeddings: !inFiles },
});

export const qwen2_5Vl: Family<QwenConfig> = {
  name: 'Qwen2.5-VL',
  modelTypes: ['qwen2_5_vl'],
  names,
  parseConfig: (json, origin) => parseQwenConfig(json, origin, 2),
  withHead,
  backbone: qwenBackbone,
};

export const qwen3Vl: Family<QwenConfig> = {
  name: 'Qwen3-VL',
  modelTypes: ['qwen3_vl'],
  names,
  parseConfig: (json, origin) => parseQwenConfig(json, origin, 3),
  withHead,
  backbone: qwenBackbone,
};

function qwenBackbone(config: QwenConfig): Backbone {
  const decoder = rotaryDecoder(config.text, config.vision.deepstack.length);
  return {
    decoder,
    vision: qwenVision(config),
    prompts: {
      plain: (text, pictures, imageToken) =>
        `${`<|vision_start|>${imageToken}<|vision_end|>`.repeat(pictures)}${text}`,
      severalPictures: true,
    },
    idsExpanded: true,
    tensors: () => new Map([...qwenVisionTensors(config), ...decoder.tensors()]),
    openPictures: (folder, mostRows) => openQwenPictures(folder, config.vision, mostRows),
    expand: (layout) => imageTokens(layout, config.imageTokenId),
    positions: mropePositions,
  };
}

/**
 * Text advances by 1 on all three axes. A picture that begins at s has (s, s + row, s + column) in merged cells, and what follows
 * goes on at s + max(rows, columns).
 */
export function mropePositions(
  rows: number,
  pictures: readonly PlacedPicture[],
): { positions: Positions; next: number } {
  const positions = [new Int32Array(rows), new Int32Array(rows), new Int32Array(rows)] as const;
  const pictureAt = new Map(pictures.map((picture) => [picture.rows[0]!, picture]));
  let next = 0;
  for (let row = 0; row < rows; ) {
    const picture = pictureAt.get(row);
    if (!picture) {
      for (const axis of positions) axis[row] = next;
      next++;
      row++;
      continue;
    }
    const { height, width } = picture.layout.grid!;
    for (const [cell, at] of picture.rows.entries()) {
      positions[0][at] = next;
      positions[1][at] = next + Math.floor(cell / width);
      positions[2][at] = next + (cell % width);
    }
    next += Math.max(height, width);
    row += picture.rows.length;
  }
  return { positions, next };
}
