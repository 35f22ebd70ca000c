/** @file Idefics3 and SmolVLM: SigLIP over tiles, pixel shuffle, a decoder of the Llama kind. */
import { EmendError } from '../../../errors.ts';
import { type Backbone, type Family, plainPositions } from '../../family.ts';
import { rotaryDecoder } from '../../parts/rotaryDecoder.ts';
import type { PictureLayout } from '../../picture.ts';
import { type Idefics3Config, parseIdefics3Config } from './config.ts';
import { openIdefics3Pictures } from './pictures.ts';
import { idefics3Vision, idefics3VisionTensors } from './vision.ts';

export const idefics3: Family<Idefics3Config> = {
  name: 'Idefics3 / SmolVLM',
  modelTypes: ['idefics3', 'smolvlm'],
  names: [
    [/^(?:model\.)?lm_head\./, 'language_model.lm_head.'],
    [/^model\.text_model\./, 'language_model.model.'],
    [/^model\.(?=vision_model\.|connector\.)/, ''],
  ],
  parseConfig: parseIdefics3Config,
  withHead: (config, inFiles) => ({ ...config, text: { ...config.text, tieWordEmbeddings: !inFiles } }),
  backbone: idefics3Backbone,
};

const AROUND = '<fake_token_around_image>';

function idefics3Backbone(config: Idefics3Config): Backbone {
  const decoder = rotaryDecoder(config.text);
  const { vision, shuffle } = config;
  const rowsOfTile = (Math.floor(vision.imageSize / vision.patchSize) / shuffle) ** 2;
  const textOf = ({ rows, tiles, map }: PictureLayout, imageToken: string): string => {
    if (!map)
      throw new EmendError(
        'invalid-input',
        'How the tiles of this picture lie is not known: give input_ids with an image token for each visual row.',
      );
    const tile = imageToken.repeat(rowsOfTile);
    const last = `${AROUND}<global-img>${tile}${AROUND}`;
    if (!tiles) return last;
    if (rows !== (tiles.height * tiles.width + 1) * rowsOfTile)
      throw new EmendError(
        'internal',
        `${rows} rows are not those of ${tiles.height} x ${tiles.width} tiles.`,
      );
    let text = '';
    for (let row = 1; row <= tiles.height; row++) {
      for (let column = 1; column <= tiles.width; column++)
        text += `${AROUND}<row_${row}_col_${column}>${tile}`;
      text += '\n';
    }
    return `${text}\n${last}`;
  };
  return {
    decoder,
    vision: idefics3Vision(config),
    prompts: {
      plain: (text, pictures, imageToken) => `${imageToken.repeat(pictures)}${text}`,
      severalPictures: true,
    },
    idsExpanded: true,
    tensors: () => new Map([...idefics3VisionTensors(config), ...decoder.tensors()]),
    openPictures: (folder, mostRows) => openIdefics3Pictures(folder, config, mostRows),
    expand(layout, tokenizer) {
      const ids = tokenizer.encode(textOf(layout, tokenizer.imageToken ?? '<image>'), { bos: false });
      const visual = ids.flatMap((id, index) => (id === config.imageTokenId ? [index] : []));
      if (visual.length !== layout.rows) {
        throw new EmendError(
          'damaged',
          `The tokenizer makes ${visual.length} image tokens of a picture of ${layout.rows} rows. Take tokenizer and config from the same model.`,
        );
      }
      return { ids, visual };
    },
    positions: plainPositions,
  };
}
