/**
 * @file VisEdit: a trained adapter folder opened as an editor.
 */
import { z } from 'zod';
import { rowsOf } from '../../attribution/layerInputs.ts';
import { EmendError } from '../../errors.ts';
import { weightForms } from '../../models/packed/form.ts';
import type { Adapt, Prefill, VisionLanguageModel } from '../../models/visionLanguageModel.ts';
import type { WeightOf } from '../../models/weights.ts';
import { Graph } from '../../tensor/graph.ts';
import { float32, floatsOf, type Provider, Session } from '../../tensor/session.ts';
import { type AdapterWeights, readAdapterFiles, writeAdapterFiles } from '../adapterFiles.ts';
import type { EditMap, Editor, EditorKind, EditRequest, Effect, UnopenedEditor } from '../editor.ts';
import { decodeSignals, encodeSignals, type HiddenSignal, hiddenSignals } from '../hiddenSignal.ts';
import { type AdapterShape, adapterWeights, adaptRows, kindsOfRows, rowKinds } from './adapterGraph.ts';
import { visEditTraining } from './trainVisEdit.ts';

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
  /** the form of the weights it was trained on; adapters before there were others do not say */
  weights: z.enum(weightForms).optional(),
  /** where the router compares inputs with edits, and the cosine similarity from which an edit acts */
  router: z.object({ layer: z.number().int().min(0).max(10_000), threshold: z.number().min(-1).max(1) }),
  /** how it was trained and what was measured; for people */
  training: z.record(z.string(), z.unknown()).optional(),
});
export type AdapterDescription = z.infer<typeof Description>;

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
    ...(weights.has('influence_mapper.prompt_attention.q.weight') && { influenceKey: 'prompt' }),
  };
  if (shape.middle % heads !== 0)
    throw new EmendError('damaged', `${where}: width ${shape.middle} does not split into ${heads} heads.`);
  if (shape.influenceKey === 'prompt' && shape.hidden % heads !== 0)
    throw new EmendError('damaged', `${where}: width ${shape.hidden} does not split into ${heads} heads.`);
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
  const { description, weights, fingerprint, path } = await readAdapterFiles(folder, Description);
  return { description, shape: shapeOfWeights(weights, description.heads, path), weights, fingerprint };
}

/** Writes an adapter folder; see `writeAdapterFiles`. */
export function writeAdapter(
  folder: string,
  description: AdapterDescription,
  weights: AdapterWeights,
  dtype: 'F32' | 'F16' = 'F16',
): Promise<void> {
  return writeAdapterFiles(folder, description, weights, dtype);
}

/** Feeds an adapter's session beside its weights; one edit signal of one input. */
function signalFeeds(signal: HiddenSignal, hidden: number) {
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

export class VisEdit implements Editor<HiddenSignal> {
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

  async make(model: VisionLanguageModel, request: EditRequest): Promise<HiddenSignal> {
    return (await hiddenSignals(model, request, this.cuts))[0]!;
  }

  encode(signal: HiddenSignal): Uint8Array {
    return encodeSignals([signal]);
  }

  decode(bytes: Uint8Array): HiddenSignal {
    return decodeSignals(bytes, this.shape.hidden, 1)[0]!;
  }

  /** Everything the adapter computes for visual rows [visual tokens, hidden]. */
  async apply(rows: Float32Array, signal: HiddenSignal) {
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

  /** Each edit adapts what the one before it left. */
  effect(signals: readonly HiddenSignal[]): Effect {
    return {
      rows: async (hidden, input, cut) => {
        let adapted = hidden;
        for (const signal of signals) adapted = await this.adapt(signal)(adapted, input, cut);
        return adapted;
      },
    };
  }

  /** Inputs without a picture pass unchanged: VisEdit acts on visual rows only. */
  adapt(signal: HiddenSignal): Adapt {
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

  /** The influence map (VisEdit eq. 10); none without an influence mapper. */
  async maps(
    model: VisionLanguageModel,
    prefill: Prefill,
    signal: HiddenSignal,
  ): Promise<readonly EditMap[]> {
    const { imageRows } = prefill.input;
    if (!imageRows || !this.shape.influenceMapper) return [];
    const hidden = await floatsOf(await model.unedited(prefill, this.layer));
    const { influence } = await this.apply(rowsOf(hidden, imageRows, this.shape.hidden), signal);
    return influence ? [{ name: 'influence', layer: this.layer, values: influence }] : [];
  }

  async dispose(): Promise<void> {
    await this.#session.dispose();
  }
}

export const visEdit: EditorKind = {
  name: 'VisEdit',
  acts: 'visual rows after one layer',
  byConstruction: {
    textLocality: 'VisEdit changes visual rows only, and a question without a picture has none.',
  },
  training: visEditTraining,
  read: async (folder) => opened(await readAdapter(folder), folder),
};

/** A VisEdit adapter as the registry hands it on. */
export function opened(
  { description, shape, weights, fingerprint }: AdapterFiles,
  where: string,
): UnopenedEditor {
  const { name, layer, model, router } = description;
  return {
    ...{ editor: visEdit, folder: true, name, cuts: [layer], changeable: [], model, fingerprint, router },
    ...{ weights: description.weights, scope: 'routed', settings: null },
    open: ({ hidden, provider }) => {
      mustFit(shape.hidden, hidden, where);
      return VisEdit.create(layer, shape, weights, [provider]);
    },
  };
}

/** @throws EmendError 'invalid-input' when an adapter is for another width of decoder */
export function mustFit(adapter: number, decoder: number, folder: string): void {
  if (adapter === decoder) return;
  throw new EmendError(
    'invalid-input',
    `The adapter ${folder} is for a decoder ${adapter} wide; this model’s is ${decoder} wide.`,
  );
}
