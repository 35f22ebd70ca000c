/** @file LLaVA: a CLIP or SigLIP tower, a two-layer projector, a decoder of the Llama kind. */
import { type Backbone, type Family, imageTokens, plainPositions } from '../../family.ts';
import { rotaryDecoder } from '../../parts/rotaryDecoder.ts';
import { openSquarePictures } from '../../parts/squarePictures.ts';
import { type LlavaConfig, parseLlavaConfig } from './config.ts';
import { llavaVision, llavaVisionTensors } from './vision.ts';

export const llava: Family<LlavaConfig> = {
  name: 'LLaVA',
  modelTypes: ['llava'],
  names: [
    [/^lm_head\.weight$/, 'language_model.lm_head.weight'],
    [/^model\.language_model\./, 'language_model.model.'],
    [
      /^(?:model\.)?vision_tower\.(?=embeddings\.|pre_layrnorm\.|encoder\.|post_layernorm\.)/,
      'vision_tower.vision_model.',
    ],
    [/^model\.(?=vision_tower\.|multi_modal_projector\.)/, ''],
  ],
  parseConfig: parseLlavaConfig,
  withHead: (config, inFiles) =>
    inFiles || config.text.tieWordEmbeddings
      ? config
      : { ...config, text: { ...config.text, tieWordEmbeddings: true } },
  backbone: llavaBackbone,
};

export function llavaBackbone(config: LlavaConfig): Backbone {
  const decoder = rotaryDecoder(config.text);
  const { vision } = config;
  const across = Math.floor(vision.imageSize / vision.patchSize);
  const grid = { height: across, width: across };
  return {
    decoder,
    vision: llavaVision(config),
    prompts: {
      plain: (text, pictures, imageToken) => `${`${imageToken}\n`.repeat(pictures)}${text}`,
    },
    idsExpanded: false,
    tensors: () => new Map([...llavaVisionTensors(config), ...decoder.tensors()]),
    openPictures: (folder, mostRows) =>
      openSquarePictures(
        folder,
        vision.imageSize,
        { grid, rows: config.imageTokenCount, covered: vision.patchSize * across },
        vision.kind === 'siglip' ? 'SiglipImageProcessor' : 'CLIPImageProcessor',
        mostRows,
      ),
    expand: (layout) => imageTokens(layout, config.imageTokenId),
    positions: plainPositions,
  };
}
