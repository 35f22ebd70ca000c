/**
 * @file A learned scope's two files beside an adapter: `scope.json` says what it is, `scope.safetensors` holds its weights.
 */
import { createHash } from 'node:crypto';
import { readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { EmendError } from '../../../errors.ts';
import { readJson } from '../../../files/json.ts';
import {
  openSafetensors,
  readTensor,
  type WritableTensor,
  writeSafetensors,
} from '../../../files/safetensors.ts';
import { brackets } from './calibrate.ts';
import { type InputName, PICTURE_INPUTS, type Projection, QUESTION_INPUTS } from './features.ts';
import { checkWeights, keyWeights, scoreWeights } from './network.ts';
import type { Weights } from './trainNetwork.ts';

const size = (most: number) => z.number().int().min(1).max(most);
const thresholds = z.array(z.number().min(-100).max(100)).length(brackets.length);
const Description = z.object({
  scope: z.literal('learned'),
  /** fingerprint of the checkpoint it was trained on */
  model: z.string().max(200),
  layers: z.object({ low: z.number().int().min(0).max(10_000), middle: z.number().int().min(0).max(10_000) }),
  components: size(512),
  shape: z.object({
    rows: size(144),
    pictureWidth: size(1024),
    questionWidth: size(1536),
    heads: size(16),
    keyHead: size(128),
    valueHead: size(128),
    hidden: size(2048),
    keyWidth: size(1024),
  }),
  /** from which logit an edit acts in libraries of up to these many edits */
  thresholds: z.object({
    sizes: z.tuple(brackets.map((edits) => z.literal(edits)) as never),
    picture: thresholds,
    thing: thresholds,
  }),
  curve: z
    .array(
      z.object({
        edits: z.number().int().min(0),
        reach: z.enum(['picture', 'thing']),
        threshold: z.number(),
        right: z.number().min(0).max(1),
        harm: z.number().min(0).max(1),
      }),
    )
    .max(100),
  /** how it was trained and what was measured; for people */
  training: z.record(z.string(), z.unknown()).optional(),
});
export type ScopeDescription = z.infer<typeof Description>;

export interface ScopeFiles {
  readonly description: ScopeDescription;
  readonly projections: Readonly<Record<InputName, Projection>>;
  readonly weights: Weights;
  /** sha256 of both files */
  readonly fingerprint: string;
}

const MAX_BYTES = 256 * 1024 * 1024;

/** Reads the scope of an adapter folder; null where there is none. Throws `damaged` for one that cannot be used. */
export async function readScopeFiles(folder: string): Promise<ScopeFiles | null> {
  const jsonPath = join(folder, 'scope.json');
  const there = await stat(jsonPath).catch(() => null);
  if (!there) return null;
  const parsed = Description.safeParse(await readJson(jsonPath));
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    throw new EmendError('damaged', `${jsonPath}: ${issue.path.join('.')}: ${issue.message}.`);
  }
  const description = parsed.data;
  const { shape, components } = description;
  const path = join(folder, 'scope.safetensors');
  if (
    shape.pictureWidth !== PICTURE_INPUTS.length * components ||
    shape.questionWidth !== QUESTION_INPUTS.length * components
  )
    throw new EmendError('damaged', `${jsonPath}: the widths do not follow from ${components} components.`);
  const known = await stat(path).catch((cause) => {
    throw new EmendError('not-found', `${path} is missing. Train the scope again.`, { cause });
  });
  if (known.size > MAX_BYTES) throw new EmendError('damaged', `${path} is larger than a scope can be.`);
  const file = await openSafetensors(path);
  const floats = async (name: string, dims: readonly number[]) => {
    const found = file.tensors.get(name);
    if (found?.shape.join() !== dims.join())
      throw new EmendError(
        'damaged',
        `${path}: ${name} is ${found ? `[${found.shape.join(', ')}]` : 'missing'} and should be [${dims.join(', ')}].`,
      );
    const { data } = await readTensor(file, name);
    if (!(data instanceof Float32Array) || !data.every(Number.isFinite))
      throw new EmendError('damaged', `${path}: ${name} holds values that are no numbers.`);
    return data;
  };
  const projections: Partial<Record<InputName, Projection>> = {};
  for (const name of [...PICTURE_INPUTS, ...QUESTION_INPUTS]) {
    const hidden = file.tensors.get(`projection.${name}.mean`)?.shape[0] ?? 0;
    projections[name] = {
      mean: await floats(`projection.${name}.mean`, [hidden]),
      directions: await floats(`projection.${name}.directions`, [hidden, components]),
    };
  }
  const weights: Weights = new Map();
  for (const [name, dims] of [...keyWeights(shape), ...scoreWeights(shape)])
    weights.set(name, { shape: dims, data: await floats(name, dims) });
  const hash = createHash('sha256');
  hash.update(await readFile(jsonPath));
  hash.update(await readFile(path));
  return {
    description,
    projections: projections as Record<InputName, Projection>,
    weights,
    fingerprint: hash.digest('hex'),
  };
}

/** Writes both files. Weights in F16 keep them small. */
export async function writeScopeFiles(
  folder: string,
  description: Omit<ScopeDescription, 'thresholds'> & {
    thresholds: { picture: readonly number[]; thing: readonly number[] };
  },
  projections: Readonly<Record<InputName, Projection>>,
  weights: Weights,
): Promise<void> {
  checkWeights(weights, description.shape, 'The scope');
  const tensors = new Map<string, WritableTensor>();
  for (const [name, { mean, directions }] of Object.entries(projections)) {
    const hidden = mean.length;
    tensors.set(`projection.${name}.mean`, { dtype: 'F16', shape: [hidden], data: mean });
    const shape = [hidden, directions.length / hidden];
    tensors.set(`projection.${name}.directions`, { dtype: 'F16', shape, data: directions });
  }
  for (const [name, { shape, data }] of weights) tensors.set(name, { dtype: 'F16', shape: [...shape], data });
  await writeSafetensors(join(folder, 'scope.safetensors'), tensors, { format: 'pt' });
  const { thresholds: limits, ...rest } = description;
  const told = { ...rest, thresholds: { sizes: [...brackets], ...limits } };
  await writeFile(join(folder, 'scope.json'), `${JSON.stringify(told, null, 1)}\n`);
}
