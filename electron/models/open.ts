/**
 * @file A checkpoint folder opened: the family its config names, the backbone that makes, and the weights it needs, checked.
 */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { EmendError } from '../errors.ts';
import { readJson } from '../files/json.ts';
import {
  type CheckpointFiles,
  checkTensors,
  type GenerationConfig,
  openCheckpointFiles,
  openGenerationConfig,
  realFolder,
  refuseOtherKinds,
} from './checkpoint.ts';
import { configErrors } from './config.ts';
import { families } from './families/registry.ts';
import { type Backbone, canonicalName, type Family, type ModelConfig } from './family.ts';
import { headName } from './parts/rotaryDecoder.ts';

export interface Checkpoint extends CheckpointFiles {
  /** The folder's real path. */
  readonly folder: string;
  /** the family's name, shown to people */
  readonly family: string;
  readonly config: ModelConfig;
  readonly backbone: Backbone;
  readonly generationConfig: GenerationConfig;
}

/** The family of a config, and the config. Throws `unsupported` for others, naming what is supported. */
export function readConfig(json: unknown, origin = 'config.json'): { family: Family; config: ModelConfig } {
  const { damaged, unsupported } = configErrors(origin);
  const header = z.looseObject({ model_type: z.string().optional() }).safeParse(json);
  if (!header.success) throw damaged('it does not hold a JSON object with a model_type');
  const type = header.data.model_type;
  const family = families.find(({ modelTypes }) => type !== undefined && modelTypes.includes(type));
  if (!family) {
    const known = families.map(({ name, modelTypes }) => `${name} (${modelTypes.join(', ')})`).join(', ');
    throw unsupported(
      type === undefined ? 'a model without model_type' : `model_type "${type}"`,
      `${known}; another family would need a folder of its own in electron/models/families`,
    );
  }
  if (header.data['quantization_config'])
    throw unsupported('quantization_config', 'F32, F16 and BF16 weights');
  return { family, config: family.parseConfig(json, origin) };
}

/** Archives of one folder that are looked into. */
const MOST_ARCHIVES = 16;

/** The config of a model whose parts lie as archives beside its language model, from that one's; any other as it is. */
function wholeConfig(json: unknown, archives: readonly string[]): unknown {
  const header = z.looseObject({ model_type: z.string() }).safeParse(json);
  if (archives.length === 0 || !header.success) return json;
  const type = header.data.model_type;
  return (
    families.find(({ inParts }) => inParts?.beside.includes(type))?.inParts?.wholeConfig(header.data) ?? json
  );
}

/** Refuses a folder in which a part of the model is missing, by what people call it. */
function demandParts(folder: string, { name, inParts }: Family, names: ReadonlySet<string>): void {
  const missing = inParts?.parts.filter(([tensor]) => !names.has(tensor)).map(([, part]) => part) ?? [];
  if (missing.length > 0)
    throw new EmendError(
      'not-found',
      `${folder} lacks parts of ${name}: ${missing.join('; ')}. Put them beside config.json.`,
    );
}

/**
 * Opens a folder with config.json and model.safetensors, or model.safetensors.index.json and its shards, and for families that are
 * published in parts with the archives of PyTorch beside them.
 * Reads headers only. Every tensor the config asks for is checked for presence, shape and dtype.
 * @throws EmendError 'not-found' for missing files, 'damaged' for files that contradict each other,
 *   'unsupported' for other architectures, formats and dtypes.
 */
export async function openCheckpoint(folder: string): Promise<Checkpoint> {
  const real = await realFolder(folder);
  await refuseOtherKinds(real);
  const configPath = join(real, 'config.json');
  const found = (await readdir(real)).filter((name) => name.endsWith('.pth')).toSorted();
  const json = wholeConfig(await readJson(configPath), found);
  const { family, config: parsed } = readConfig(json, configPath);
  const archives = family.inParts ? found.slice(0, MOST_ARCHIVES) : [];
  const generationConfig = await openGenerationConfig(real);
  const canonical = (name: string) => canonicalName(family.names, name);
  const { weights, files } = await openCheckpointFiles(real, canonical, archives);
  if (archives.length > 0) demandParts(real, family, new Set(weights.names()));
  const config = family.withHead(parsed, weights.names().includes(headName));
  const backbone = family.backbone(config);
  checkTensors(real, weights, backbone.tensors());
  return { folder: real, family: family.name, config, backbone, generationConfig, weights, files };
}

/** Tokens after which generation ends: the generation config's, and where it names none the model config's. */
export function stopTokenIds({ generationConfig, config }: Checkpoint): readonly number[] {
  const { eosTokenIds } = generationConfig;
  return eosTokenIds.length > 0 ? eosTokenIds : config.text.eosTokenIds;
}
