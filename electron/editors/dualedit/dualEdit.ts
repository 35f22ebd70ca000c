/**
 * @file DualEdit: a text adapter and a visual adapter, each at its own layer, or one of them alone (Table 1), in the form of the published
 * weights (LayerNorms, heads, residual, no influence map). Its gate is a scope like any other: the cosine of last prompt tokens.
 */
import { basename } from 'node:path';
import { z } from 'zod';
import { rowsOf, textRows } from '../../attribution/layerInputs.ts';
import { EmendError } from '../../errors.ts';
import { weightForms } from '../../models/packed/form.ts';
import type { Adapt, Prefill, VisionLanguageModel } from '../../models/visionLanguageModel.ts';
import { float32, floatsOf, type Provider } from '../../tensor/session.ts';
import { type AdapterWeights, readAdapterFiles } from '../adapterFiles.ts';
import type { EditMap, Editor, EditorKind, EditRequest, Effect, UnopenedEditor } from '../editor.ts';
import { decodeSignals, encodeSignals, type HiddenSignal, hiddenSignals } from '../hiddenSignal.ts';
import type { AdapterShape } from '../visedit/adapterGraph.ts';
import { mustFitLayers, PUBLISHED_THRESHOLD, type SavedAdapters } from '../visedit/publishedAdapter.ts';
import { mustFit, shapeOfWeights, VisEdit } from '../visedit/visEdit.ts';
import {
  cutsOf,
  type DualPart,
  dualEditTraining,
  dualParts,
  dualPrefixes,
  type OfParts,
} from './trainDualEdit.ts';

const layer = z.number().int().min(0).max(10_000);
const Description = z.object({
  editor: z.literal('DualEdit'),
  name: z.string().max(200),
  /** decoder layers whose outputs are changed, from 0; the published ones are 16 and 19. Absent: there is no such adapter */
  textLayer: layer.optional(),
  visualLayer: layer.optional(),
  heads: z.number().int().min(1).max(1024),
  model: z.string().max(200),
  /** whether the visual adapter has an influence mapper, which the paper's has not; published files hold one that is not used */
  influenceMapper: z.boolean().optional(),
  weights: z.enum(weightForms).optional(),
  router: z.object({ layer, threshold: z.number().min(-1).max(1) }),
  weightsSha256: z.string().length(64).optional(),
  training: z.record(z.string(), z.unknown()).optional(),
});

/** Signals of the edit at each adapter's layer. */
export type DualSignal = OfParts<HiddenSignal>;

/**
 * The adapters of a published state dict, under the names that VEAD's parts have. `mapped`: with the visual adapter's influence mapper.
 */
export function dualWeights(weights: AdapterWeights, mapped = false): OfParts<AdapterWeights> {
  const parts = dualParts.map((part) => {
    const prefix = dualPrefixes[part];
    const own = [...weights]
      .filter(([name]) => name.startsWith(prefix) && (mapped || !name.includes('influence_mapper')))
      .map(([name, tensor]) => [name.slice(prefix.length), tensor] as const);
    // Its norm of the text's rows has a name of its own.
    return [
      part,
      new Map(own.map(([name, tensor]) => [name.replace('text_reps', 'img_reps'), tensor])),
    ] as const;
  });
  return Object.fromEntries(parts.filter(([, own]) => own.size > 0));
}

/** An adapter with its layer, shape and weights. */
interface DualAdapter {
  readonly layer: number;
  readonly shape: AdapterShape;
  readonly weights: AdapterWeights;
}

/**
 * The adapters that there are layers for.
 * @throws EmendError 'damaged' where there are no weights for a layer, no layer for weights, or none of both
 */
function adaptersAt(
  layers: OfParts<number>,
  heads: number,
  weights: AdapterWeights,
  where: string,
  mapped: boolean,
): OfParts<DualAdapter> {
  const found = dualWeights(weights, mapped);
  const adapters = dualParts.flatMap((part) => {
    const [layer, own] = [layers[part], found[part]];
    if (layer === undefined && own === undefined) return [];
    if (layer === undefined)
      throw new EmendError('damaged', `${where} has a ${part} adapter, and adapter.json no layer for it.`);
    const shape = shapeOfWeights(own ?? new Map(), heads, `${where}, ${part} adapter`);
    return [[part, { layer, shape, weights: own! }] as const];
  });
  if (adapters.length === 0) throw new EmendError('damaged', `${where} has no adapter of DualEdit.`);
  return Object.fromEntries(adapters);
}

export class DualEdit implements Editor<DualSignal> {
  readonly name = 'DualEdit';
  readonly cuts: readonly number[];
  readonly hidden: number;
  readonly #adapters: OfParts<VisEdit>;
  /** of the adapters there are */
  readonly #parts: readonly DualPart[];

  private constructor(adapters: OfParts<VisEdit>) {
    this.#adapters = adapters;
    this.#parts = dualParts.filter((part) => adapters[part]);
    this.hidden = adapters[this.#parts[0]!]!.shape.hidden;
    this.cuts = cutsOf(Object.fromEntries(this.#parts.map((part) => [part, adapters[part]!.layer])));
  }

  static async create(
    layers: OfParts<number>,
    heads: number,
    weights: AdapterWeights,
    providers: readonly Provider[],
    where: string,
    mapped = false,
  ): Promise<DualEdit> {
    const opened: Array<[DualPart, VisEdit]> = [];
    for (const [part, { layer, shape, weights: own }] of Object.entries(
      adaptersAt(layers, heads, weights, where, mapped),
    ))
      opened.push([part as DualPart, await VisEdit.create(layer, shape, own, providers)]);
    return new DualEdit(Object.fromEntries(opened));
  }

  async make(model: VisionLanguageModel, request: EditRequest): Promise<DualSignal> {
    const layers = this.#parts.map((part) => this.#adapters[part]!.layer);
    return this.#signal(await hiddenSignals(model, request, layers));
  }

  encode(signal: DualSignal): Uint8Array {
    return encodeSignals(this.#parts.map((part) => signal[part]!));
  }

  decode(bytes: Uint8Array): DualSignal {
    return this.#signal(decodeSignals(bytes, this.hidden, this.#parts.length));
  }

  #signal(signals: readonly HiddenSignal[]): DualSignal {
    return Object.fromEntries(this.#parts.map((part, place) => [part, signals[place]!]));
  }

  /** Each edit adapts what the one before it left. */
  effect(signals: readonly DualSignal[]): Effect {
    return {
      rows: async (hidden, input, cut) => {
        let adapted = hidden;
        for (const signal of signals) adapted = await this.#adapt(signal)(adapted, input, cut);
        return adapted;
      },
    };
  }

  #adapt(signal: DualSignal): Adapt {
    return async (hidden, input, cut) => {
      const rowsOfPart = { text: textRows(input), visual: input.imageRows ?? [] };
      const acting = this.#parts.filter(
        (part) => this.#adapters[part]!.layer === cut && rowsOfPart[part].length > 0,
      );
      if (acting.length === 0) return hidden;
      const all = (await floatsOf(hidden)).slice();
      const width = this.hidden;
      for (const part of acting) {
        const rows = rowsOfPart[part];
        const { adapted } = await this.#adapters[part]!.apply(rowsOf(all, rows, width), signal[part]!);
        for (const [at, row] of rows.entries())
          all.set(adapted.subarray(at * width, (at + 1) * width), row * width);
      }
      return float32(all, hidden.dims);
    };
  }

  /** The visual adapter's influence map; none without an influence mapper, and none without a visual adapter. */
  async maps(
    model: VisionLanguageModel,
    prefill: Prefill,
    { visual }: DualSignal,
  ): Promise<readonly EditMap[]> {
    return visual ? this.#adapters.visual!.maps(model, prefill, visual) : [];
  }

  async dispose(): Promise<void> {
    for (const part of this.#parts) await this.#adapters[part]!.dispose();
  }
}

export const dualEdit: EditorKind = {
  name: 'DualEdit',
  acts: 'text rows after one layer and visual rows after another',
  byConstruction: {},
  training: dualEditTraining,
  async read(folder): Promise<UnopenedEditor> {
    const { description, weights, fingerprint, path } = await readAdapterFiles(folder, Description);
    const { name, textLayer, visualLayer, heads, influenceMapper, model, router } = description;
    const layers = {
      ...(textLayer !== undefined && { text: textLayer }),
      ...(visualLayer !== undefined && { visual: visualLayer }),
    };
    return {
      ...{ name, model, fingerprint, router, weights: description.weights },
      ...openedDual(layers, heads, weights, path, influenceMapper),
    };
  },
};

/** What the registry hands on of a DualEdit adapter. @throws EmendError 'damaged' as `adaptersAt` */
function openedDual(
  layers: OfParts<number>,
  heads: number,
  weights: AdapterWeights,
  where: string,
  mapped = false,
): Pick<UnopenedEditor, 'editor' | 'folder' | 'cuts' | 'changeable' | 'scope' | 'settings' | 'open'> {
  adaptersAt(layers, heads, weights, where, mapped);
  return {
    ...{ editor: dualEdit, folder: true, changeable: [], scope: 'routed', settings: null },
    cuts: cutsOf(layers),
    async open({ hidden, provider }) {
      const editor = await DualEdit.create(layers, heads, weights, [provider], where, mapped);
      mustFit(editor.hidden, hidden, where);
      return editor;
    },
  };
}

/**
 * DualEdit's adapters that the published code saved, for a model; its text adapter is hooked under a name of its own, and may be alone.
 * @throws EmendError 'unsupported' for several of one kind, 'invalid-input' for adapters of another model's size
 */
export function publishedDualEdit(
  { config, adapters, fingerprint }: SavedAdapters,
  path: string,
  model: { readonly fingerprint: string; readonly hidden: number; readonly layers: number },
): UnopenedEditor {
  const [text = [], visual = []] = dualParts.map((part) => adapters.filter(({ rows }) => rows === part));
  if (text.length > 1 || visual.length > 1)
    throw new EmendError(
      'unsupported',
      `${path} has ${text.length} adapters of text rows and ${visual.length} of visual rows; DualEdit has one of each at most.`,
    );
  const weights = new Map(
    adapters.flatMap(({ rows, weights: saved }) =>
      [...saved].map(([name, tensor]) => [`${dualPrefixes[rows]}${name}`, tensor] as const),
    ),
  );
  const layers: OfParts<number> = Object.fromEntries(adapters.map(({ rows, layer }) => [rows, layer]));
  for (const { layer, shape } of Object.values(adaptersAt(layers, config.heads, weights, path, false)))
    mustFitLayers(shape.hidden, layer, model, path);
  return {
    ...{ name: basename(path).slice(0, 200), model: model.fingerprint, fingerprint },
    router: { layer: (text[0] ?? visual[0])!.layer, threshold: PUBLISHED_THRESHOLD },
    ...openedDual(layers, config.heads, weights, path),
  };
}
