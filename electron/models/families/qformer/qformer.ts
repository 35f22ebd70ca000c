/** @file BLIP-2 with an OPT decoder, and MiniGPT-4: what they see comes through a Q-Former, so rows have no place in the picture. */
import type { Decoder } from '../../decoder.ts';
import { type Backbone, type Family, imageTokens, type PromptStyle, plainPositions } from '../../family.ts';
import { rotaryDecoder } from '../../parts/rotaryDecoder.ts';
import { openSquarePictures } from '../../parts/squarePictures.ts';
import { type Blip2Config, type MiniGpt4Config, parseBlip2Config, parseMiniGpt4Config } from './config.ts';
import { optDecoder } from './optDecoder.ts';
import { qformerTensors, qformerVision } from './vision.ts';

export const blip2: Family<Blip2Config> = {
  name: 'BLIP-2',
  modelTypes: ['blip-2'],
  names: [
    [/^model\.language_model\.(?!model\.|lm_head\.)/, 'language_model.model.'],
    [/^lm_head\./, 'language_model.lm_head.'],
    [/^model\./, ''],
  ],
  parseConfig: parseBlip2Config,
  withHead: (config, inFiles) => ({ ...config, text: { ...config.text, tieWordEmbeddings: !inFiles } }),
  backbone: (config) =>
    backbone(config, optDecoder(config.text), { plain: (text) => text, picturesFirst: true }),
};

export const miniGpt4: Family<MiniGpt4Config> = {
  name: 'MiniGPT-4',
  modelTypes: ['minigpt4'],
  names: [
    [/^llama_model\./, 'language_model.'],
    // as the language model's own files, the ViT's and BLIP-2's have them
    [/^(model|lm_head)\./, 'language_model.$1.'],
    [/^cls_token$/, 'vision_model.embeddings.class_embedding'],
    [/^pos_embed$/, 'vision_model.embeddings.position_embedding'],
    [/^patch_embed\.proj\./, 'vision_model.embeddings.patch_embedding.'],
    [/^llama_proj\./, 'language_projection.'],
    [/^ln_vision\./, 'vision_model.post_layernorm.'],
    [/^visual_encoder\.cls_token$/, 'vision_model.embeddings.class_embedding'],
    [/^visual_encoder\.pos_embed$/, 'vision_model.embeddings.position_embedding'],
    [/^visual_encoder\.patch_embed\.proj\./, 'vision_model.embeddings.patch_embedding.'],
    [
      /^(?:visual_encoder\.)?blocks\.(\d+)\.attn\.proj\./,
      'vision_model.encoder.layers.$1.self_attn.projection.',
    ],
    [/^(?:visual_encoder\.)?blocks\.(\d+)\.attn\./, 'vision_model.encoder.layers.$1.self_attn.'],
    [/^(?:visual_encoder\.)?blocks\.(\d+)\.norm(\d)\./, 'vision_model.encoder.layers.$1.layer_norm$2.'],
    [/^(?:visual_encoder\.)?blocks\./, 'vision_model.encoder.layers.'],
    [/^Qformer\.bert\.embeddings\.LayerNorm\./, 'qformer.layernorm.'],
    [
      /^Qformer\.bert\.encoder\.layer\.(\d+)\.(attention|crossattention)\.self\./,
      'qformer.encoder.layer.$1.$2.attention.',
    ],
    [/^Qformer\.bert\./, 'qformer.'],
  ],
  // Published as Vicuna, which has a folder of its own, and three files of PyTorch: the ViT and the Q-Former of BLIP-2, and the projection.
  inParts: {
    beside: ['llama'],
    // The ViT and the Q-Former are as configs have them that say nothing.
    wholeConfig: (text_config) => ({ model_type: 'minigpt4', text_config }),
    parts: [
      ['vision_model.embeddings.class_embedding', 'the ViT (eva_vit_g.pth)'],
      ['query_tokens', 'the Q-Former (blip2_pretrained_flant5xxl.pth)'],
      ['language_projection.weight', 'the projection (prerained_minigpt4_7b.pth)'],
    ],
  },
  parseConfig: parseMiniGpt4Config,
  withHead: (config, inFiles) => ({ ...config, text: { ...config.text, tieWordEmbeddings: !inFiles } }),
  backbone: (config) =>
    backbone(config, rotaryDecoder(config.text), {
      plain: (text, pictures, imageToken) => `${`${imageToken}\n`.repeat(pictures)}${text}`,
    }),
};

function backbone(config: Blip2Config | MiniGpt4Config, decoder: Decoder, prompts: PromptStyle): Backbone {
  const seeing = { ...config, hidden: decoder.hidden };
  const { imageSize } = config.vision;
  return {
    decoder,
    vision: qformerVision(seeing),
    prompts,
    idsExpanded: false,
    tensors: () => new Map([...qformerTensors(seeing), ...decoder.tensors()]),
    openPictures: (folder, mostRows) =>
      openSquarePictures(
        folder,
        imageSize,
        { grid: null, rows: config.qformer.queries, covered: imageSize },
        'BlipImageProcessor',
        mostRows,
      ),
    expand: (layout) => imageTokens(layout, config.imageTokenId),
    positions: plainPositions,
  };
}
