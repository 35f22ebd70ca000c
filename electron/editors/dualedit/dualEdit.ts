/**
 * @file DualEdit: a text adapter and a visual adapter, each at its own layer, in the form of the published weights (LayerNorms, heads,
 * residual, no influence map). Its gate is a scope like any other: the cosine of last prompt tokens.
 */
import { basename } from 'node:path';
import { z } from 'zod';
import { rowsOf } from '../../attribution/layerInputs.ts';
import { EmendError } from '../../errors.ts';
import { weightForms } from '../../models/packed/form.ts';
import type { Adapt, ModelInput, Prefill, VisionLanguageModel } from '../../models/visionLanguageModel.ts';
import { float32, floatsOf, type Provider } from '../../tensor/session.ts';
import { type AdapterWeights, readAdapterFiles } from '../adapterFiles.ts';
import type { EditMap, Editor, EditorKind, EditRequest, Effect, UnopenedEditor } from '../editor.ts';
import { decodeSignals, encodeSignals, type HiddenSignal, hiddenSignals } from '../hiddenSignal.ts';
import { mustFitLayers, PUBLISHED_THRESHOLD, type SavedAdapters } from '../visedit/publishedAdapter.ts';
import { mustFit, shapeOfWeights, VisEdit } from '../visedit/visEdit.ts';
import { dualEditTraining } from './trainDualEdit.ts';

const layer = z.number().int().min(0).max(10_000);
const Description = z.object({
  editor: z.literal('DualEdit'),
  name: z.string().max(200),
  /** decoder layers whose outputs are changed, from 0; the published ones are 16 and 19 */
  textLayer: layer,
  visualLayer: layer,
  heads: z.number().int().min(1).max(1024),
  model: z.string().max(200),
  /** whether the visual adapter has an influence mapper, which the paper's has not; published files hold one that is not used */
  influenceMapper: z.boolean().optional(),
  weights: z.enum(weightForms).optional(),
  router: z.object({ layer, threshold: z.number().min(-1).max(1) }),
  weightsSha256: z.string().length(64).optional(),
  training: z.record(z.string(), z.unknown()).optional(),
});

/** Signals of the edit at the text layer and at the visual layer. */
export interface DualSignal {
  readonly text: HiddenSignal;
  readonly visual: HiddenSignal;
}

/** Rows of an input that the text adapter changes: behind the picture, up to the last prompt token, exclusive (NOTES, DualEdit 3). */
export function textRows({
  imageRows,
  lastPromptRow,
}: Pick<ModelInput, 'imageRows' | 'lastPromptRow'>): number[] {
  const begin = imageRows ? imageRows.at(-1)! + 1 : 1;
  return Array.from({ length: Math.max(0, lastPromptRow - begin) }, (_, row) => begin + row);
}

/**
 * The two adapters of a published state dict, under the names that VEAD's parts have. `mapped`: with the visual adapter's influence
 * mapper.
 */
export function dualWeights(
  weights: AdapterWeights,
  mapped = false,
): { text: AdapterWeights; visual: AdapterWeights } {
  const part = (prefix: string, rename: (name: string) => string) =>
    new Map(
      [...weights]
        .filter(([name]) => name.startsWith(prefix) && (mapped || !name.includes('influence_mapper')))
        .map(([name, tensor]) => [rename(name.slice(prefix.length)), tensor]),
    );
  return {
    text: part('text_adaptor.', (name) => name.replace('ln_text_reps', 'ln_img_reps')),
    visual: part('visual_adaptor.', (name) => name),
  };
}

export class DualEdit implements Editor<DualSignal> {
  readonly name = 'DualEdit';
  readonly cuts: readonly number[];
  readonly #text: VisEdit;
  readonly #visual: VisEdit;

  private constructor(text: VisEdit, visual: VisEdit) {
    this.#text = text;
    this.#visual = visual;
    this.cuts = [...new Set([text.layer, visual.layer])].sort((a, b) => a - b);
  }

  static async create(
    layers: { readonly text: number; readonly visual: number },
    heads: number,
    weights: AdapterWeights,
    providers: readonly Provider[],
    where: string,
    mapped = false,
  ): Promise<DualEdit> {
    const { text, visual } = dualWeights(weights, mapped);
    const open = (at: number, part: AdapterWeights, name: string) =>
      VisEdit.create(at, shapeOfWeights(part, heads, `${where}, ${name} adapter`), part, providers);
    return new DualEdit(await open(layers.text, text, 'text'), await open(layers.visual, visual, 'visual'));
  }

  get hidden(): number {
    return this.#text.shape.hidden;
  }

  async make(model: VisionLanguageModel, request: EditRequest): Promise<DualSignal> {
    const [text, visual] = await hiddenSignals(model, request, [this.#text.layer, this.#visual.layer]);
    return { text: text!, visual: visual! };
  }

  encode({ text, visual }: DualSignal): Uint8Array {
    return encodeSignals([text, visual]);
  }

  decode(bytes: Uint8Array): DualSignal {
    const [text, visual] = decodeSignals(bytes, this.hidden, 2);
    return { text: text!, visual: visual! };
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

  #adapt({ text, visual }: DualSignal): Adapt {
    return async (hidden, input, cut) => {
      const wanted: Array<[VisEdit, HiddenSignal, readonly number[]]> = [];
      if (cut === this.#text.layer) wanted.push([this.#text, text, textRows(input)]);
      if (cut === this.#visual.layer && input.imageRows) wanted.push([this.#visual, visual, input.imageRows]);
      const acting = wanted.filter(([, , rows]) => rows.length > 0);
      if (acting.length === 0) return hidden;
      const all = (await floatsOf(hidden)).slice();
      const width = this.hidden;
      for (const [adapter, signal, rows] of acting) {
        const { adapted } = await adapter.apply(rowsOf(all, rows, width), signal);
        for (const [at, row] of rows.entries())
          all.set(adapted.subarray(at * width, (at + 1) * width), row * width);
      }
      return float32(all, hidden.dims);
    };
  }

  /** The visual adapter's influence map; none without an influence mapper. */
  async maps(
    model: VisionLanguageModel,
    prefill: Prefill,
    { visual }: DualSignal,
  ): Promise<readonly EditMap[]> {
    return this.#visual.maps(model, prefill, visual);
  }

  async dispose(): Promise<void> {
    await this.#text.dispose();
    await this.#visual.dispose();
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
    for (const [part, tensors] of Object.entries(dualWeights(weights, influenceMapper)))
      shapeOfWeights(tensors, heads, `${path}, ${part} adapter`);
    const layers = { text: textLayer, visual: visualLayer };
    return {
      ...{ name, model, fingerprint, router, weights: description.weights },
      ...openedDual(layers, heads, weights, path, influenceMapper),
    };
  },
};

/** What the registry hands on of a DualEdit adapter. */
function openedDual(
  layers: { readonly text: number; readonly visual: number },
  heads: number,
  weights: AdapterWeights,
  where: string,
  mapped = false,
): Pick<UnopenedEditor, 'editor' | 'folder' | 'cuts' | 'changeable' | 'scope' | 'settings' | 'open'> {
  return {
    ...{ editor: dualEdit, folder: true, changeable: [], scope: 'routed', settings: null },
    cuts: [...new Set([layers.text, layers.visual])].sort((a, b) => a - b),
    async open({ hidden, provider }) {
      const editor = await DualEdit.create(layers, heads, weights, [provider], where, mapped);
      mustFit(editor.hidden, hidden, where);
      return editor;
    },
  };
}

/**
 * DualEdit's two adapters that the published code saved, for a model; its text adapter is hooked under a name of its own.
 * @throws EmendError 'unsupported' unless there is one of each, 'invalid-input' for adapters of another model's size
 */
export function publishedDualEdit(
  { config, adapters, fingerprint }: SavedAdapters,
  path: string,
  model: { readonly fingerprint: string; readonly hidden: number; readonly layers: number },
): UnopenedEditor {
  const [text, visual] = (['text', 'visual'] as const).map((rows) =>
    adapters.filter((adapter) => adapter.rows === rows),
  );
  const [textAdapter, visualAdapter] = [text![0], visual![0]];
  if (!textAdapter || !visualAdapter || adapters.length > 2)
    throw new EmendError(
      'unsupported',
      `${path} has ${text!.length} adapters of text rows and ${visual!.length} of visual rows; DualEdit has one of each.`,
    );
  const weights = new Map(
    [textAdapter, visualAdapter].flatMap(({ rows, weights: saved }) =>
      [...saved].map(([name, tensor]) => [`${rows}_adaptor.${name}`, tensor] as const),
    ),
  );
  for (const [part, tensors] of Object.entries(dualWeights(weights))) {
    const { hidden } = shapeOfWeights(tensors, config.heads, `${path}, ${part} adapter`);
    mustFitLayers(hidden, part === 'text' ? textAdapter.layer : visualAdapter.layer, model, path);
  }
  const layers = { text: textAdapter.layer, visual: visualAdapter.layer };
  return {
    ...{ name: basename(path).slice(0, 200), model: model.fingerprint, fingerprint },
    router: { layer: layers.text, threshold: PUBLISHED_THRESHOLD },
    ...openedDual(layers, config.heads, weights, path),
  };
}
