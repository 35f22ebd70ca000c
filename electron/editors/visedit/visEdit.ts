/**
 * @file VisEdit: a trained adapter folder opened as an editor.
 */
import { createHash } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { rowsOf } from '../../attribution/layerInputs.ts';
import { EmendError } from '../../errors.ts';
import { readJson } from '../../files/json.ts';
import { readRegularFile } from '../../files/regularFile.ts';
import { replaceFiles } from '../../files/replaceFile.ts';
import {
  encodeSafetensors,
  openSafetensors,
  readTensor,
  type WritableTensor,
} from '../../files/safetensors.ts';
import type { Adapt, VisionLanguageModel } from '../../models/visionLanguageModel.ts';
import type { WeightOf } from '../../models/weights.ts';
import { Graph } from '../../tensor/graph.ts';
import { float32, floatsOf, type Provider, Session } from '../../tensor/session.ts';
import type { Editor, EditRequest, EditSignal } from '../editor.ts';
import { type AdapterShape, adapterWeights, adaptRows, rowKinds } from './adapterGraph.ts';

/** Bytes of an adapter's files. */
const LARGEST_DESCRIPTION = 16 * 1024 * 1024;
const LARGEST_WEIGHTS = 2 * 1024 * 1024 * 1024 - 1;

const Description = z.object({
  editor: z.literal('VisEdit'),
  name: z.string().max(200),
  /** decoder layer whose output is changed, from 0 */
  layer: z.number().int().min(0).max(10_000),
  heads: z.number().int().min(1).max(1024),
  influenceMapper: z.boolean(),
  attention: z.enum(['published', 'row-kinds']),
  /** of adapter.safetensors, which this file belongs to; older adapters do not say */
  weightsSha256: z.string().length(64).optional(),
  /** fingerprint of the checkpoint the adapter was trained on */
  model: z.string().max(200),
  /** where the router compares inputs with edits, and the cosine similarity from which an edit acts */
  router: z.object({ layer: z.number().int().min(0).max(10_000), threshold: z.number().min(-1).max(1) }),
  /** how it was trained and what was measured; for people */
  training: z.record(z.string(), z.unknown()).optional(),
});
export type AdapterDescription = z.infer<typeof Description>;

export type AdapterWeights = ReadonlyMap<
  string,
  { readonly shape: readonly number[]; readonly data: Float32Array }
>;

/** An adapter folder's contents, checked. */
export interface AdapterFiles {
  readonly description: AdapterDescription;
  readonly shape: AdapterShape;
  readonly weights: AdapterWeights;
  /** sha256 of both files */
  readonly fingerprint: string;
}

/** Sizes of an adapter from its weights. Throws `damaged` when they contradict one another. */
export function shapeOfWeights(weights: AdapterWeights, heads: number, where: string): AdapterShape {
  const dims = (name: string): readonly number[] => {
    const found = weights.get(name);
    if (!found) throw new EmendError('damaged', `${where} lacks the tensor ${name}.`);
    return found.shape;
  };
  const [middle, hidden] = dims('mlp_begin.weight');
  const influenceMapper = weights.has('influence_mapper.img_map.l_in.weight');
  const shape: AdapterShape = {
    hidden: hidden ?? 0,
    middle: middle ?? 0,
    influenceMiddle: influenceMapper ? dims('influence_mapper.img_map.l_in.weight')[0]! : 0,
    heads,
    influenceMapper,
    attention: weights.has('row_kind.bias') ? 'row-kinds' : 'published',
  };
  if (shape.middle % heads !== 0)
    throw new EmendError('damaged', `${where}: width ${shape.middle} does not split into ${heads} heads.`);
  for (const [name, expected] of adapterWeights(shape)) {
    const found = dims(name);
    if (found.join() !== expected.join()) {
      throw new EmendError(
        'damaged',
        `${where}: ${name} is [${found.join(', ')}] and should be [${expected.join(', ')}].`,
      );
    }
  }
  return shape;
}

/** Reads an adapter folder (adapter.json, adapter.safetensors). */
export async function readAdapter(folder: string): Promise<AdapterFiles> {
  const parsed = Description.safeParse(await readJson(join(folder, 'adapter.json')));
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    throw new EmendError(
      'damaged',
      `${join(folder, 'adapter.json')}: ${issue.path.join('.')}: ${issue.message}.`,
    );
  }
  const path = join(folder, 'adapter.safetensors');
  const file = await openSafetensors(path);
  const weights = new Map<string, { shape: readonly number[]; data: Float32Array }>();
  for (const name of file.tensors.keys()) {
    const tensor = await readTensor(file, name);
    if (!(tensor.data instanceof Float32Array))
      throw new EmendError('unsupported', `${path}: ${name} is ${tensor.dtype}; adapters are floats.`);
    weights.set(name, { shape: tensor.shape, data: tensor.data });
  }
  const shape = shapeOfWeights(weights, parsed.data.heads, path);
  const stored = await readRegularFile(path, LARGEST_WEIGHTS);
  const { weightsSha256 } = parsed.data;
  if (weightsSha256 !== undefined && weightsSha256 !== sha256(stored)) {
    throw new EmendError(
      'damaged',
      `${path} is not the file that adapter.json beside it was written with. Copy the whole folder again, or train the adapter again.`,
    );
  }
  const hash = createHash('sha256');
  hash.update(await readRegularFile(join(folder, 'adapter.json'), LARGEST_DESCRIPTION));
  hash.update(stored);
  return { description: parsed.data, shape, weights, fingerprint: hash.digest('hex') };
}

/** Writes an adapter folder, its files together: one that was written by halves is told when it is read. Weights in F16 keep it small; adapters are trained in F32. */
export async function writeAdapter(
  folder: string,
  description: AdapterDescription,
  weights: AdapterWeights,
  dtype: 'F32' | 'F16' = 'F16',
): Promise<void> {
  await mkdir(folder, { recursive: true });
  const tensors = new Map<string, WritableTensor>();
  for (const [name, { shape, data }] of weights) tensors.set(name, { dtype, shape: [...shape], data });
  const stored = encodeSafetensors(tensors, { format: 'pt' });
  const text = JSON.stringify({ ...description, weightsSha256: sha256(stored) }, null, 2);
  await replaceFiles([
    [join(folder, 'adapter.safetensors'), (handle) => handle.writeFile(stored)],
    [join(folder, 'adapter.json'), (handle) => handle.writeFile(`${text}\n`)],
  ]);
}

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** The kind of each row of a signal, an index of `rowKinds`: what stands before the picture, its rows, the prompt, the target. */
export function kindsOfRows(rows: number, imageRows: readonly number[], lastPromptRow: number): number[] {
  const visual = new Set(imageRows);
  return Array.from({ length: rows }, (_, row) => {
    if (visual.has(row)) return 1;
    if (row < imageRows[0]!) return 0;
    return row <= lastPromptRow ? 2 : 3;
  });
}

/** Feeds an adapter's session beside its weights; one edit signal of one input. */
function signalFeeds(signal: EditSignal, hidden: number) {
  const kinds = new Float32Array(signal.rows * rowKinds.length);
  for (const [row, kind] of kindsOfRows(signal.rows, signal.imageRows, signal.lastPromptRow).entries())
    kinds[row * rowKinds.length + kind] = 1;
  const key = signal.hidden.slice(signal.lastPromptRow * hidden, (signal.lastPromptRow + 1) * hidden);
  return {
    signal: float32(signal.hidden, [1, signal.rows, hidden]),
    key: float32(key, [1, hidden]),
    kinds: float32(kinds, [1, signal.rows, rowKinds.length]),
  };
}

export class VisEdit implements Editor {
  readonly name = 'VisEdit';
  readonly layer: number;
  readonly cuts: readonly number[];
  readonly shape: AdapterShape;
  readonly #session: Session;

  private constructor(layer: number, shape: AdapterShape, session: Session) {
    this.layer = layer;
    this.cuts = [layer];
    this.shape = shape;
    this.#session = session;
  }

  /** Compiles an adapter. It is small: its weights are held in the graph. */
  static async create(
    layer: number,
    shape: AdapterShape,
    weights: AdapterWeights,
    providers: readonly Provider[],
  ): Promise<VisEdit> {
    const graph = new Graph();
    const weight: WeightOf = (name) => {
      const found = weights.get(name);
      if (!found) throw new EmendError('damaged', `The adapter lacks ${name}.`);
      return graph.constant(found.data, found.shape);
    };
    const adapted = adaptRows(
      graph.input('rows', 'float32', [1, 'visual', shape.hidden]),
      {
        rows: graph.input('signal', 'float32', [1, 'signal rows', shape.hidden]),
        key: graph.input('key', 'float32', [1, shape.hidden]),
        kinds: graph.input('kinds', 'float32', [1, 'signal rows', rowKinds.length]),
      },
      shape,
      weight,
    );
    graph.output('adapted', adapted.rows);
    graph.output('change', adapted.change);
    if (adapted.logits && adapted.influence) {
      graph.output('influence_logits', adapted.logits);
      graph.output('influence', adapted.influence);
    }
    return new VisEdit(layer, shape, await Session.create(graph, { providers }));
  }

  async signal(model: VisionLanguageModel, edit: EditRequest): Promise<EditSignal> {
    const encoded = model.prompts.encodeTarget({ prompt: edit.prompt, image: true }, edit.target);
    const input = await model.lay(encoded, edit.visual);
    const hidden = await model.unedited(await model.prefill(input), this.layer);
    return {
      hidden: (await floatsOf(hidden)).slice(),
      rows: input.rows,
      imageRows: input.imageRows!,
      lastPromptRow: input.lastPromptRow,
    };
  }

  /** Everything the adapter computes for visual rows [visual tokens, hidden]. */
  async apply(rows: Float32Array, signal: EditSignal) {
    const { hidden } = this.shape;
    const out = await this.#session.run({
      rows: float32(rows, [1, rows.length / hidden, hidden]),
      ...signalFeeds(signal, hidden),
    });
    return {
      adapted: await floatsOf(out['adapted']!),
      change: await floatsOf(out['change']!),
      influence: out['influence'] ? await floatsOf(out['influence']) : null,
      influenceLogits: out['influence_logits'] ? await floatsOf(out['influence_logits']) : null,
    };
  }

  /** Inputs without a picture pass unchanged: VisEdit acts on visual rows only. */
  adapt(signal: EditSignal): Adapt {
    return async (hidden, input, cut) => {
      if (cut !== this.layer || !input.imageRows) return hidden;
      const all = (await floatsOf(hidden)).slice();
      const width = this.shape.hidden;
      const { adapted } = await this.apply(rowsOf(all, input.imageRows, width), signal);
      for (const [at, row] of input.imageRows.entries())
        all.set(adapted.subarray(at * width, (at + 1) * width), row * width);
      return float32(all, hidden.dims);
    };
  }

  async influence(
    hidden: Float32Array,
    imageRows: readonly number[],
    signal: EditSignal,
  ): Promise<Float32Array | null> {
    return (await this.apply(rowsOf(hidden, imageRows, this.shape.hidden), signal)).influence;
  }

  async dispose(): Promise<void> {
    await this.#session.dispose();
  }
}
