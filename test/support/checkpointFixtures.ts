/**
 * @file A random but valid LLaVA checkpoint folder, small enough for a test, tokenizer and all.
 */

import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { elementCount, type WritableTensor, writeSafetensors } from '../../electron/files/safetensors.ts';
import { parseLlavaConfig } from '../../electron/models/families/llava/config.ts';
import { llavaBackbone } from '../../electron/models/families/llava/llava.ts';

export interface TinyCheckpointOptions {
  layers?: number;
  hidden?: number;
  heads?: number;
  keyValueHeads?: number;
  intermediate?: number;
  visionLayers?: number;
  visionHidden?: number;
  visionHeads?: number;
  imageSize?: number;
  patchSize?: number;
  featureLayer?: number | number[];
  featureSelect?: 'default' | 'full';
  /** Tied word embeddings: no lm_head in the files. */
  tied?: boolean;
  dtype?: 'F32' | 'F16' | 'BF16';
  /** More than one writes an index. */
  shards?: number;
  seed?: number;
  /** Tensor names as the first versions of transformers wrote them, or as newer ones do. */
  naming?: 'first' | 'newer';
  /** Laid over config.json's `text_config`. */
  textConfig?: Record<string, unknown>;
}

/** The chat template of LLaVA-1.5. */
export const LLAVA_CHAT_TEMPLATE =
  "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}" +
  "{# Render all images first #}{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}" +
  "{{ '<image>\n' }}{% endfor %}{# Render all text next #}{% if message['role'] != 'assistant' %}" +
  "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}{% endfor %}" +
  "{% else %}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}" +
  "{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}" +
  "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}";

/**
 * Writes config, generation config, tokenizer, preprocessor and random weights into `folder`.
 * The same options give the same bytes.
 * @returns the tensors written, by canonical name, before rounding to `dtype`
 */
export async function writeTinyCheckpoint(
  folder: string,
  options: TinyCheckpointOptions = {},
): Promise<{ tensors: Map<string, { shape: number[]; data: Float32Array }> }> {
  const { dtype = 'F32', shards = 1, seed = 1, naming = 'first' } = options;
  await mkdir(folder, { recursive: true });
  const tokenizer = tinyTokenizer();
  const config = tinyConfig(options, tokenizer);
  const json = (name: string, value: unknown) =>
    writeFile(join(folder, name), `${JSON.stringify(value, null, 2)}\n`);
  await json('config.json', config);
  await json('generation_config.json', { bos_token_id: 1, eos_token_id: 2, pad_token_id: tokenizer.padId });
  await json('tokenizer.json', tokenizer.json);
  await json('tokenizer_config.json', {
    add_bos_token: true,
    bos_token: '<s>',
    eos_token: '</s>',
    unk_token: '<unk>',
    pad_token: '<pad>',
    clean_up_tokenization_spaces: false,
    tokenizer_class: 'LlamaTokenizer',
    chat_template: LLAVA_CHAT_TEMPLATE,
  });
  const side = config.vision_config.image_size;
  await json('preprocessor_config.json', {
    image_processor_type: 'CLIPImageProcessor',
    size: { shortest_edge: side },
    crop_size: { height: side, width: side },
    resample: 3,
  });

  const tensors = randomTensors(config, seed);
  const stored = [...tensors].map(([name, { shape, data }]): [string, WritableTensor] => [
    naming === 'first' ? name : newerName(name),
    { dtype, shape, data },
  ]);
  if (shards === 1) {
    await writeSafetensors(join(folder, 'model.safetensors'), new Map(stored), { format: 'pt' });
    return { tensors };
  }
  const weightMap: Record<string, string> = {};
  const perShard = Math.ceil(stored.length / shards);
  for (let i = 0; i < shards; i++) {
    const part = stored.slice(i * perShard, (i + 1) * perShard);
    const number = (n: number) => String(n).padStart(5, '0');
    const file = `model-${number(i + 1)}-of-${number(shards)}.safetensors`;
    for (const [name] of part) weightMap[name] = file;
    await writeSafetensors(join(folder, file), new Map(part), { format: 'pt' });
  }
  await json('model.safetensors.index.json', { metadata: {}, weight_map: weightMap });
  return { tensors };
}

function tinyConfig(options: TinyCheckpointOptions, tokenizer: ReturnType<typeof tinyTokenizer>) {
  const hidden = options.hidden ?? 32;
  const heads = options.heads ?? 4;
  const visionHidden = options.visionHidden ?? 16;
  return {
    architectures: ['LlavaForConditionalGeneration'],
    model_type: 'llava',
    image_token_index: tokenizer.imageId,
    pad_token_id: tokenizer.padId,
    projector_hidden_act: 'gelu',
    tie_word_embeddings: options.tied ?? false,
    vision_feature_layer: options.featureLayer ?? -2,
    vision_feature_select_strategy: options.featureSelect ?? 'default',
    text_config: {
      model_type: 'llama',
      hidden_size: hidden,
      intermediate_size: options.intermediate ?? hidden * 2 + 4,
      num_hidden_layers: options.layers ?? 4,
      num_attention_heads: heads,
      num_key_value_heads: options.keyValueHeads ?? heads,
      max_position_embeddings: 512,
      rms_norm_eps: 1e-5,
      vocab_size: tokenizer.vocabSize,
      ...options.textConfig,
    },
    vision_config: {
      model_type: 'clip_vision_model',
      hidden_size: visionHidden,
      intermediate_size: visionHidden * 3,
      num_hidden_layers: options.visionLayers ?? 3,
      num_attention_heads: options.visionHeads ?? 2,
      image_size: options.imageSize ?? 28,
      patch_size: options.patchSize ?? 7,
    },
  };
}

/** Normally distributed weights of a scale that keeps activations near one; norms near one. */
function randomTensors(config: ReturnType<typeof tinyConfig>, seed: number) {
  // Feature layer -1 needs every layer of the tower: published files have them all.
  const complete = parseLlavaConfig({ ...config, vision_feature_layer: -1 }, 'config.json');
  const shapes = llavaBackbone(complete).tensors();
  shapes.set('multi_modal_projector.linear_1.weight', [
    complete.text.hidden,
    complete.vision.hidden * [config.vision_feature_layer].flat().length,
  ]);
  shapes.set('vision_tower.vision_model.post_layernorm.weight', [complete.vision.hidden]);
  shapes.set('vision_tower.vision_model.post_layernorm.bias', [complete.vision.hidden]);
  const normal = normalNumbers(seed);
  const tensors = new Map<string, { shape: number[]; data: Float32Array }>();
  for (const [name, shape] of shapes) {
    const isNorm = /norm|layrnorm/.test(name) && name.endsWith('.weight');
    const fanIn = elementCount(shape.slice(1));
    const scale = shape.length === 1 ? 0.1 : name.includes('embed') ? 0.5 : 1 / Math.sqrt(fanIn);
    const data = Float32Array.from(
      { length: elementCount(shape) },
      () => (isNorm ? 1 : 0) + scale * normal(),
    );
    tensors.set(name, { shape, data });
  }
  return tensors;
}

function newerName(name: string): string {
  if (name === 'language_model.lm_head.weight') return 'lm_head.weight';
  if (name.startsWith('language_model.model.')) {
    return name.replace('language_model.model.', 'model.language_model.');
  }
  return `model.${name}`;
}

/** Standard normal numbers (Box-Muller on mulberry32): the same seed gives the same sequence. */
export function normalNumbers(seed: number): () => number {
  let state = seed >>> 0;
  const uniform = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}

const CORPUS = [
  'What is the animal on the left?',
  'What is the fruit on the right of the cup?',
  'How many animals are there in the picture?',
  'Is there a cat in the picture? The answer is: yes',
  'The answer is: a small red apple',
  'Which vehicle is above the tree? The answer is: the train',
];

/** A Llama-style BPE tokenizer.json: bytes, printable ASCII, and 60 merges learnt from a few questions. */
function tinyTokenizer() {
  const vocab = new Map<string, number>();
  const add = (token: string) => vocab.has(token) || vocab.set(token, vocab.size);
  for (const token of ['<unk>', '<s>', '</s>']) add(token);
  for (let byte = 0; byte < 256; byte++) add(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`);
  add('▁');
  for (let code = 33; code < 127; code++) add(String.fromCharCode(code));

  const words = CORPUS.flatMap((line) => line.split(' ').map((word) => [...`▁${word}`]));
  const merges: string[] = [];
  while (merges.length < 60) {
    const counts = new Map<string, number>();
    for (const word of words) {
      for (let i = 0; i + 1 < word.length; i++) {
        const pair = `${word[i]} ${word[i + 1]}`;
        counts.set(pair, (counts.get(pair) ?? 0) + 1);
      }
    }
    const best = [...counts].toSorted(([a, x], [b, y]) => y - x || (a < b ? -1 : 1))[0]![0];
    const [left, right] = best.split(' ') as [string, string];
    merges.push(best);
    add(left + right);
    for (const word of words) {
      for (let i = 0; i + 1 < word.length; i++) {
        if (word[i] === left && word[i + 1] === right) word.splice(i, 2, left + right);
      }
    }
  }
  const imageId = vocab.size;
  const padId = imageId + 1;
  const special = (content: string, id: number) => ({
    id,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  });
  const bos = { SpecialToken: { id: '<s>', type_id: 0 } };
  return {
    imageId,
    padId,
    vocabSize: Math.ceil((padId + 1) / 8) * 8,
    json: {
      version: '1.0',
      truncation: null,
      padding: null,
      added_tokens: [
        special('<unk>', 0),
        special('<s>', 1),
        special('</s>', 2),
        special('<image>', imageId),
        special('<pad>', padId),
      ],
      normalizer: {
        type: 'Sequence',
        normalizers: [
          { type: 'Prepend', prepend: '▁' },
          { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
        ],
      },
      pre_tokenizer: null,
      post_processor: {
        type: 'TemplateProcessing',
        single: [bos, { Sequence: { id: 'A', type_id: 0 } }],
        pair: [bos, { Sequence: { id: 'A', type_id: 0 } }, { Sequence: { id: 'B', type_id: 1 } }],
        special_tokens: { '<s>': { id: '<s>', ids: [1], tokens: ['<s>'] } },
      },
      decoder: {
        type: 'Sequence',
        decoders: [
          { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
          { type: 'ByteFallback' },
          { type: 'Fuse' },
          { type: 'Strip', content: ' ', start: 1, stop: 0 },
        ],
      },
      model: {
        type: 'BPE',
        dropout: null,
        unk_token: '<unk>',
        continuing_subword_prefix: null,
        end_of_word_suffix: null,
        fuse_unk: true,
        byte_fallback: true,
        ignore_merges: false,
        vocab: Object.fromEntries(vocab),
        merges,
      },
    },
  };
}
