/**
 * @file A Hugging Face checkpoint folder, opened in place: its config and where each weight lies.
 *
 * Weights are known by one canonical name each, that of the first LLaVA checkpoints
 * (`language_model.model.layers.0…`, `vision_tower.vision_model…`, `multi_modal_projector.linear_1…`),
 * whatever version of transformers wrote the files.
 */

import { createHash } from 'node:crypto';
import { open, realpath, stat } from 'node:fs/promises';
import { isAbsolute, join } from 'node:path';
import { z } from 'zod';
import { EmendError } from '../errors.ts';
import { readJson, readJsonIfThere } from '../files/json.ts';
import { readRegularFile } from '../files/regularFile.ts';
import { openSafetensors, readTensor, type SafetensorsFile } from '../files/safetensors.ts';
import { featureStates, parseConfig, type VisionLanguageConfig, visionLayersNeeded } from './config.ts';

export type WeightDtype = 'F32' | 'F16' | 'BF16';

/** Where a weight lies: `bytes` bytes from `offset` of the file at `path` (a real path, no link). */
export interface WeightLocation {
  readonly path: string;
  readonly offset: number;
  readonly bytes: number;
  readonly dtype: WeightDtype;
  readonly shape: readonly number[];
}

/** The weights of a checkpoint by canonical name. */
export interface WeightSource {
  /** Undefined for a name the checkpoint does not have, or whose dtype is no weight's (a stray index buffer). */
  find(name: string): WeightLocation | undefined;
  names(): string[];
  /** The values in F32. @throws EmendError 'not-found' for an unknown name. */
  read(name: string): Promise<Float32Array>;
}

/** What generation_config.json says; empty where it says nothing. */
export interface GenerationConfig {
  readonly eosTokenIds: readonly number[];
  readonly sample: boolean;
  readonly temperature: number;
  readonly topP: number;
  readonly topK: number;
  readonly maxNewTokens: number | undefined;
}

export interface Checkpoint {
  /** The folder's real path. */
  readonly folder: string;
  readonly config: VisionLanguageConfig;
  readonly generationConfig: GenerationConfig;
  readonly weights: WeightSource;
  /** The safetensors files, by name in the folder. */
  readonly files: ReadonlyMap<string, SafetensorsFile>;
}

/** Index files of the largest models stay far below this. */
const MAX_INDEX_BYTES = 100 * 1024 * 1024;
const MAX_SHARDS = 10_000;

const generationSchema = z.looseObject({
  eos_token_id: z.union([z.int().min(0), z.array(z.int().min(0))]).nullish(),
  do_sample: z.boolean().nullish(),
  temperature: z.number().min(0).nullish(),
  top_p: z.number().min(0).max(1).nullish(),
  top_k: z.int().min(0).nullish(),
  max_new_tokens: z.int().min(1).nullish(),
});

const indexSchema = z.looseObject({ weight_map: z.record(z.string(), z.string()) });

/**
 * Opens a folder with config.json and model.safetensors, or model.safetensors.index.json and its shards.
 * Reads headers only. Every tensor the config asks for is checked for presence, shape and dtype.
 * @throws EmendError 'not-found' for missing files, 'damaged' for files that contradict each other,
 *   'unsupported' for other architectures, formats and dtypes.
 */
export async function openCheckpoint(folder: string): Promise<Checkpoint> {
  const real = await realFolder(folder);
  const configPath = join(real, 'config.json');
  const json = await readJson(configPath);
  const parsed = parseConfig(json, configPath);
  const generationConfig = await openGenerationConfig(real);
  const { files, fileOf } = await openWeightFiles(real);
  // Where text_config denies what the whole config says, versions of transformers differ; a missing head settles it.
  const tied = !fileOf.has('language_model.lm_head.weight') && tiesAtTop(json);
  const config = tied ? { ...parsed, text: { ...parsed.text, tieWordEmbeddings: true } } : parsed;
  const weights = weightSource(fileOf);
  for (const [name, shape] of requiredTensors(config)) {
    const file = fileOf.get(name);
    const entry = file?.file.tensors.get(file.name);
    if (!file || !entry) {
      throw new EmendError(
        'damaged',
        `${real} has no tensor "${name}" of shape [${shape}], which its config.json asks for.`,
      );
    }
    if (entry.shape.length !== shape.length || entry.shape.some((size, axis) => size !== shape[axis])) {
      throw new EmendError(
        'damaged',
        `Tensor "${entry.name}" of ${file.file.path} has shape [${entry.shape}]; config.json asks for [${shape}].`,
      );
    }
    if (!isWeightDtype(entry.dtype)) {
      throw new EmendError(
        'unsupported',
        `Tensor "${entry.name}" of ${file.file.path} is stored as ${entry.dtype}. ` +
          'Emend runs weights in F32, F16 and BF16: save the model in one of these.',
      );
    }
  }
  return { folder: real, config, generationConfig, weights, files };
}

function tiesAtTop(json: unknown): boolean {
  return typeof json === 'object' && json !== null && Reflect.get(json, 'tie_word_embeddings') === true;
}

/**
 * The canonical name and shape of every weight the model's computation needs, in the order of computation.
 * Layers of the vision tower above the feature layer are not among them.
 */
export function requiredTensors(config: VisionLanguageConfig): Map<string, number[]> {
  const { text, vision } = config;
  const shapes = new Map<string, number[]>();
  const linear = (name: string, out: number, into: number, bias: boolean): void => {
    shapes.set(`${name}.weight`, [out, into]);
    if (bias) shapes.set(`${name}.bias`, [out]);
  };
  const layerNorm = (name: string): void => {
    shapes.set(`${name}.weight`, [vision.hidden]);
    shapes.set(`${name}.bias`, [vision.hidden]);
  };

  const tower = 'vision_tower.vision_model';
  const patch = vision.patchSize;
  shapes.set(`${tower}.embeddings.class_embedding`, [vision.hidden]);
  shapes.set(`${tower}.embeddings.patch_embedding.weight`, [vision.hidden, 3, patch, patch]);
  const positions = Math.floor(vision.imageSize / patch) ** 2 + 1;
  shapes.set(`${tower}.embeddings.position_embedding.weight`, [positions, vision.hidden]);
  layerNorm(`${tower}.pre_layrnorm`);
  for (let l = 0; l < visionLayersNeeded(config); l++) {
    const layer = `${tower}.encoder.layers.${l}`;
    layerNorm(`${layer}.layer_norm1`);
    for (const part of ['q_proj', 'k_proj', 'v_proj', 'out_proj']) {
      linear(`${layer}.self_attn.${part}`, vision.hidden, vision.hidden, true);
    }
    layerNorm(`${layer}.layer_norm2`);
    linear(`${layer}.mlp.fc1`, vision.intermediate, vision.hidden, true);
    linear(`${layer}.mlp.fc2`, vision.hidden, vision.intermediate, true);
  }

  const features = vision.hidden * featureStates(config).length;
  linear('multi_modal_projector.linear_1', text.hidden, features, config.projector.bias);
  linear('multi_modal_projector.linear_2', text.hidden, text.hidden, config.projector.bias);

  const decoder = 'language_model.model';
  shapes.set(`${decoder}.embed_tokens.weight`, [text.vocab, text.hidden]);
  for (let l = 0; l < text.layers; l++) {
    const layer = `${decoder}.layers.${l}`;
    const attention = text.heads * text.headDim;
    const keyValue = text.keyValueHeads * text.headDim;
    shapes.set(`${layer}.input_layernorm.weight`, [text.hidden]);
    linear(`${layer}.self_attn.q_proj`, attention, text.hidden, text.attentionBias);
    linear(`${layer}.self_attn.k_proj`, keyValue, text.hidden, text.attentionBias);
    linear(`${layer}.self_attn.v_proj`, keyValue, text.hidden, text.attentionBias);
    linear(`${layer}.self_attn.o_proj`, text.hidden, attention, text.attentionBias);
    shapes.set(`${layer}.post_attention_layernorm.weight`, [text.hidden]);
    linear(`${layer}.mlp.gate_proj`, text.intermediate, text.hidden, text.mlpBias);
    linear(`${layer}.mlp.up_proj`, text.intermediate, text.hidden, text.mlpBias);
    linear(`${layer}.mlp.down_proj`, text.hidden, text.intermediate, text.mlpBias);
  }
  shapes.set(`${decoder}.norm.weight`, [text.hidden]);
  if (!text.tieWordEmbeddings) linear('language_model.lm_head', text.vocab, text.hidden, false);
  return shapes;
}

/** The canonical name of a tensor as some version of transformers wrote it. */
export function canonicalName(name: string): string {
  if (name === 'lm_head.weight') return 'language_model.lm_head.weight';
  if (name.startsWith('model.language_model.')) {
    return name.replace('model.language_model.', 'language_model.model.');
  }
  const plain = /^model\.(vision_tower|multi_modal_projector)\./.test(name) ? name.slice(6) : name;
  return plain.replace(
    /^vision_tower\.(?=embeddings\.|pre_layrnorm\.|encoder\.|post_layernorm\.)/,
    'vision_tower.vision_model.',
  );
}

/** Tokens after which generation ends: the generation config's, and where it names none the model config's. */
export function stopTokenIds(checkpoint: Checkpoint): readonly number[] {
  const { eosTokenIds } = checkpoint.generationConfig;
  return eosTokenIds.length > 0 ? eosTokenIds : checkpoint.config.text.eosTokenIds;
}

const MOST_TOLD = 128 * 1024 * 1024;

/** How many places of each file {@link fingerprint} looks at, and how many bytes at each. */
const SAMPLES = 16;
const SAMPLE_BYTES = 64 * 1024;

/** Files beside config and weights that decide what a model answers: text to ids, pictures to pixels, prompts, where answers end. */
const TELLING_FILES = [
  'tokenizer.json',
  'tokenizer_config.json',
  'preprocessor_config.json',
  'processor_config.json',
  'generation_config.json',
  'chat_template.jinja',
  'chat_template.json',
];

/**
 * A SHA-256 (hex) that tells models apart without reading all of their weights: config, the small files beside it,
 * headers, sizes, and sixteen samples of 64 KB from each file. It does not depend on where the folder lies.
 */
export async function fingerprint(checkpoint: Checkpoint): Promise<string> {
  const hash = createHash('sha256');
  const add = (label: string, bytes: Uint8Array | string): void => {
    hash.update(`${label}\0${bytes.length}\0`).update(bytes);
  };
  add('config', JSON.stringify(checkpoint.config));
  for (const name of TELLING_FILES) {
    const path = join(checkpoint.folder, name);
    const size = (await stat(path).catch(() => undefined))?.size ?? 0;
    // Of a file too large to be used its size is told.
    add(name, size <= MOST_TOLD ? await readRegularFile(path, MOST_TOLD).catch(() => '') : `${size} bytes`);
  }
  for (const [name, file] of [...checkpoint.files].toSorted(([a], [b]) => (a < b ? -1 : 1))) {
    add('file', `${name} ${file.size}`);
    const handle = await open(file.path, 'r');
    try {
      const read = async (from: number, count: number): Promise<void> => {
        const bytes = new Uint8Array(count);
        const { bytesRead } = await handle.read(bytes, 0, count, from);
        add(`bytes ${from}`, bytes.subarray(0, bytesRead));
      };
      await read(0, file.dataOffset);
      const last = Math.max(file.dataOffset, file.size - SAMPLE_BYTES);
      for (let i = 0; i < SAMPLES; i++) {
        const from = file.dataOffset + Math.floor(((last - file.dataOffset) * i) / (SAMPLES - 1));
        await read(from, Math.min(SAMPLE_BYTES, file.size - from));
      }
    } finally {
      await handle.close();
    }
  }
  return hash.digest('hex');
}

// ---------------------------------------------------------------- files

interface NamedInFile {
  readonly file: SafetensorsFile;
  /** The name the file uses. */
  readonly name: string;
}

async function realFolder(folder: string): Promise<string> {
  try {
    const real = await realpath(folder);
    if ((await stat(real)).isDirectory()) return real;
  } catch (cause) {
    throw new EmendError('not-found', `There is no folder ${folder}.`, { cause });
  }
  throw new EmendError('not-found', `${folder} is a file. Choose the folder that holds config.json.`);
}

async function openGenerationConfig(folder: string): Promise<GenerationConfig> {
  const path = join(folder, 'generation_config.json');
  const parsed = generationSchema.safeParse((await readJsonIfThere(path)) ?? {});
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    throw new EmendError('damaged', `${path}: ${issue.path.join('.')}: ${issue.message}.`);
  }
  const { eos_token_id: eos, do_sample, temperature, top_p, top_k, max_new_tokens } = parsed.data;
  return {
    eosTokenIds: eos == null ? [] : [eos].flat(),
    sample: do_sample ?? false,
    // 0 is a way of writing "greedy", which `sample` says already.
    temperature: temperature || 1,
    topP: top_p || 1,
    topK: top_k ?? 50,
    maxNewTokens: max_new_tokens ?? undefined,
  };
}

async function openWeightFiles(
  folder: string,
): Promise<{ files: Map<string, SafetensorsFile>; fileOf: Map<string, NamedInFile> }> {
  const single = 'model.safetensors';
  const indexName = 'model.safetensors.index.json';
  const files = new Map<string, SafetensorsFile>();
  const fileOf = new Map<string, NamedInFile>();
  const add = (file: SafetensorsFile, name: string): void => {
    const canonical = canonicalName(name);
    const other = fileOf.get(canonical);
    if (other) {
      throw new EmendError(
        'damaged',
        `${folder} holds both "${other.name}" and "${name}", which are one tensor.`,
      );
    }
    fileOf.set(canonical, { file, name });
  };

  // As transformers does: a single file, where there is one, goes before an index.
  if (await isThere(join(folder, single))) {
    const file = await openSafetensors(join(folder, single));
    files.set(single, file);
    for (const name of file.tensors.keys()) add(file, name);
    return { files, fileOf };
  }
  const index = await readJsonIfThere(join(folder, indexName), MAX_INDEX_BYTES);
  if (index === undefined) throw await noWeights(folder, single, indexName);

  const parsed = indexSchema.safeParse(index);
  if (!parsed.success) {
    throw new EmendError(
      'damaged',
      `${join(folder, indexName)} has no weight_map from tensor names to files.`,
    );
  }
  const map = Object.entries(parsed.data.weight_map);
  const shards = [...new Set(map.map(([, shard]) => shard))].toSorted();
  if (shards.length > MAX_SHARDS) {
    throw new EmendError('damaged', `${join(folder, indexName)} names ${shards.length} files.`);
  }
  for (const shard of shards) {
    refuseOutside(shard, join(folder, indexName));
    if (!(await isThere(join(folder, shard)))) {
      throw new EmendError(
        'not-found',
        `${folder} lacks the shard ${shard}, which ${indexName} names. Download it into the folder.`,
      );
    }
    files.set(shard, await openSafetensors(join(folder, shard)));
  }
  for (const [name, shard] of map) {
    const file = files.get(shard)!;
    if (!file.tensors.has(name)) {
      throw new EmendError('damaged', `${indexName} says tensor "${name}" is in ${shard}, and it is not.`);
    }
    add(file, name);
  }
  return { files, fileOf };
}

/** Shard names may point to subfolders, never out of the folder. (A symbolic link there is the owner's wish.) */
function refuseOutside(shard: string, indexPath: string): void {
  const parts = shard.split(/[/\\]/);
  const bad = isAbsolute(shard) || /^[a-z]:/i.test(shard) || shard.includes('\\') || shard.includes('\0');
  if (bad || parts.some((part) => part === '' || part === '.' || part === '..')) {
    throw new EmendError(
      'damaged',
      `${indexPath} names the file "${shard}", which is not inside the folder.`,
    );
  }
}

async function noWeights(folder: string, single: string, indexName: string): Promise<EmendError> {
  for (const other of ['pytorch_model.bin', 'pytorch_model.bin.index.json']) {
    if (await isThere(join(folder, other))) {
      return new EmendError(
        'unsupported',
        `${folder} holds its weights as ${other}, a format that can run code. Save the model as safetensors.`,
      );
    }
  }
  return new EmendError('not-found', `${folder} holds neither ${single} nor ${indexName}.`);
}

async function isThere(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

function isWeightDtype(dtype: string): dtype is WeightDtype {
  return dtype === 'F32' || dtype === 'F16' || dtype === 'BF16';
}

function weightSource(fileOf: ReadonlyMap<string, NamedInFile>): WeightSource {
  return {
    find(name) {
      const found = fileOf.get(name);
      const entry = found?.file.tensors.get(found.name);
      if (!found || !entry || !isWeightDtype(entry.dtype)) return undefined;
      return {
        path: found.file.path,
        offset: entry.offset,
        bytes: entry.bytes,
        dtype: entry.dtype,
        shape: entry.shape,
      };
    },
    names: () => [...fileOf.keys()],
    async read(name) {
      const found = fileOf.get(name);
      const { data } = found ? await readTensor(found.file, found.name) : { data: undefined };
      if (data instanceof Float32Array) return data;
      throw new EmendError('not-found', `The checkpoint has no weight named "${name}".`);
    },
  };
}
