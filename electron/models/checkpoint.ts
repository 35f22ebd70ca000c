/**
 * @file The files of a Hugging Face checkpoint folder, opened in place: where each weight lies. Knows no model: what the weights
 * are for, and their canonical names, families say.
 */

import { createHash } from 'node:crypto';
import { open, readdir, realpath, stat } from 'node:fs/promises';
import { isAbsolute, join } from 'node:path';
import { z } from 'zod';
import { EmendError } from '../errors.ts';
import { readJsonIfThere } from '../files/json.ts';
import { readRegularFile } from '../files/regularFile.ts';
import { openSafetensors, readTensor, type SafetensorsFile } from '../files/safetensors.ts';
import { openTorchWeights } from '../files/torchWeights.ts';

export type WeightDtype = 'F32' | 'F16' | 'BF16';

/** Where a weight lies: `bytes` bytes from `offset` of the file at `path` (a real path, no link). */
export interface WeightLocation {
  readonly path: string;
  readonly offset: number;
  readonly bytes: number;
  readonly dtype: WeightDtype;
  readonly shape: readonly number[];
}

/** Where a part of a packed matrix lies. */
export type PackedPart = Omit<WeightLocation, 'dtype'>;

/** Where a matrix in blocks lies; see `PackedMatrix` in tensor/functions.ts. */
export interface PackedLocation {
  readonly bits: 4 | 8;
  readonly blocks: PackedPart;
  readonly scales: PackedPart;
  readonly zeroPoints: PackedPart;
}

/** The weights of a checkpoint by canonical name. */
export interface WeightSource {
  /** What a file says of a tensor, whatever its dtype; `name` is the file's own. */
  entry(name: string): { path: string; name: string; dtype: string; shape: readonly number[] } | undefined;
  /** Undefined for a name the checkpoint does not have, or whose dtype is no weight's (a stray index buffer). */
  find(name: string): WeightLocation | undefined;
  /** Where a table lies whose rows are looked up, when that is another place than `find` gives. */
  table?(name: string): WeightLocation | undefined;
  /** The matrix of this name in blocks, where it is packed. */
  packed?(name: string): PackedLocation | undefined;
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

/** The weight files of a folder. */
export interface CheckpointFiles {
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
 * Opens model.safetensors, or model.safetensors.index.json and its shards. Reads headers only.
 * @param folder a real path
 * @param canonical gives each tensor the name the model knows it by
 * @param archives names of archives of PyTorch in the folder that hold further parts
 * @throws EmendError 'not-found' for missing files, 'damaged' for files that contradict each other, 'unsupported' for other formats
 */
export async function openCheckpointFiles(
  folder: string,
  canonical: (name: string) => string,
  archives: readonly string[] = [],
): Promise<CheckpointFiles> {
  const { files, fileOf } = await openWeightFiles(folder, canonical, archives);
  return { files, weights: weightSource(fileOf) };
}

/**
 * Checks that every tensor the model's computation needs is there, in its shape, in a dtype that is run.
 * @throws EmendError 'damaged' or 'unsupported', naming tensor and file
 */
export function checkTensors(
  folder: string,
  weights: WeightSource,
  needed: ReadonlyMap<string, readonly number[]>,
): void {
  for (const [name, shape] of needed) {
    const entry = weights.entry(name);
    if (!entry) {
      throw new EmendError(
        'damaged',
        `${folder} has no tensor "${name}" of shape [${shape}], which its config.json asks for. Take config and weights from the same model.`,
      );
    }
    if (entry.shape.length !== shape.length || entry.shape.some((size, axis) => size !== shape[axis])) {
      throw new EmendError(
        'damaged',
        `Tensor "${entry.name}" of ${entry.path} has shape [${entry.shape}]; config.json asks for [${shape}].`,
      );
    }
    if (!isWeightDtype(entry.dtype)) {
      throw new EmendError(
        'unsupported',
        `Tensor "${entry.name}" of ${entry.path} is stored as ${entry.dtype}. ` +
          'Emend runs weights in F32, F16 and BF16: save the model in one of these.',
      );
    }
  }
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
export async function fingerprint(checkpoint: {
  readonly folder: string;
  readonly config: object;
  readonly files: ReadonlyMap<string, SafetensorsFile>;
}): Promise<string> {
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

export async function realFolder(folder: string): Promise<string> {
  try {
    const real = await realpath(folder);
    if ((await stat(real)).isDirectory()) return real;
  } catch (cause) {
    throw new EmendError('not-found', `There is no folder ${folder}.`, { cause });
  }
  refuseGguf(folder, [folder]);
  throw new EmendError('not-found', `${folder} is a file. Choose the folder that holds config.json.`);
}

/** Throws `unsupported` for a folder of another kind of model than safetensors with a config.json. */
export async function refuseOtherKinds(folder: string): Promise<void> {
  const names = await readdir(folder);
  if (!names.includes('config.json')) refuseGguf(folder, names);
}

function refuseGguf(where: string, names: readonly string[]): void {
  if (!names.some((name) => name.toLowerCase().endsWith('.gguf'))) return;
  throw new EmendError(
    'unsupported',
    `${where} is in GGUF form, which llama.cpp runs and nothing can edit in place. Take the same model as safetensors.`,
  );
}

export async function openGenerationConfig(folder: string): Promise<GenerationConfig> {
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
  canonicalOf: (name: string) => string,
  archives: readonly string[],
): Promise<{ files: Map<string, SafetensorsFile>; fileOf: Map<string, NamedInFile> }> {
  const single = 'model.safetensors';
  const indexName = 'model.safetensors.index.json';
  const files = new Map<string, SafetensorsFile>();
  const fileOf = new Map<string, NamedInFile>();
  const add = (file: SafetensorsFile, name: string): void => {
    const canonical = canonicalOf(name);
    const other = fileOf.get(canonical);
    if (other) {
      throw new EmendError(
        'damaged',
        `${folder} holds both "${other.name}" and "${name}", which are one tensor.`,
      );
    }
    fileOf.set(canonical, { file, name });
  };

  for (const name of archives) {
    const file = await openTorchWeights(join(folder, name));
    files.set(name, file);
    for (const tensor of file.tensors.keys()) add(file, tensor);
  }
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
    entry(name) {
      const found = fileOf.get(name);
      const entry = found?.file.tensors.get(found.name);
      return (
        found && entry && { path: found.file.path, name: entry.name, dtype: entry.dtype, shape: entry.shape }
      );
    },
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
