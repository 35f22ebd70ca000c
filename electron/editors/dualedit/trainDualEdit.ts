/**
 * @file Trains DualEdit's two adapters on a frozen model, its gate off (appendix A; `papers/003*` gives three terms: reliability,
 * generality in text and picture, image locality).
 */
import { z } from 'zod';
import { attentionInputs, type Decoder, enter } from '../../models/decoder.ts';
import type { WeightOf, Weights } from '../../models/weights.ts';
import type { Graph } from '../../tensor/graph.ts';
import type { AdapterWeights } from '../adapterFiles.ts';
import { answerTerms } from '../training/answerTerms.ts';
import type { BatchSizes } from '../training/batch.ts';
import type { EditorInTraining, EditorTraining, TrainingStart } from '../training/editorTraining.ts';
import { adaptersInTraining, type RowTraining } from '../training/rowAdapters.ts';
import {
  checkRowSettings,
  proposedForRows,
  rowFields,
  rowLayer,
  rowTraining,
} from '../training/rowSettings.ts';
import type { AdapterShape } from '../visedit/adapterGraph.ts';
import { type AdapterStart, initialAdapter } from '../visedit/initialAdapter.ts';
import { adaptChosen, type LossTerms, signalsOf } from '../visedit/losses.ts';

/** What the names of each adapter's weights begin with, as published. */
export const dualPrefixes = { text: 'text_adaptor.', visual: 'visual_adaptor.' } as const;
type Part = keyof typeof dualPrefixes;
type OfBoth<T> = Readonly<Record<Part, T>>;

interface DualEditAdapters extends RowTraining {
  /** decoder layers whose outputs are changed, from 0 */
  readonly layers: OfBoth<number>;
  /** `influenceMapper`: of the visual adapter; the text adapter has none */
  readonly shape: Omit<AdapterShape, 'hidden'>;
  /** of the visual adapter; the text adapter starts as published */
  readonly start: AdapterStart;
}

/** The name of a part's weight in an adapter file. The text adapter's norm of its own rows has a name of its own, as published. */
export function dualName(part: Part, name: string): string {
  const own = part === 'text' && name.startsWith('ln_img_reps.') ? name.replace('img', 'text') : name;
  return dualPrefixes[part] + own;
}

/**
 * The losses as a graph. Its inputs are those of `visEditLosses` less the influence losses' own; beside them `hidden.l`, the unedited output
 * of the higher of both layers [3·edits, rows, hidden] where they differ, and `text_rows`, `text_used`, which name rows as `visual_rows` and
 * `visual_used` do.
 */
export function dualEditLosses(
  graph: Graph,
  sizes: BatchSizes,
  shapes: OfBoth<AdapterShape>,
  decoder: Decoder,
  layers: OfBoth<number>,
  frozen: Weights,
  adapter: WeightOf,
  scales: OfBoth<number> = { text: 1, visual: 1 },
): LossTerms {
  const all = 3 * sizes.edits;
  const attention = attentionInputs(graph, decoder, all, sizes.rows, sizes.rows);
  const signals = signalsOf(graph, sizes, decoder.hidden);
  const lowest = Math.min(layers.text, layers.visual);
  const highest = Math.max(layers.text, layers.visual);
  let x = graph.input('hidden', 'float32', [all, sizes.rows, decoder.hidden]);
  const unedited = new Map([[lowest, x]]);
  if (highest !== lowest)
    unedited.set(highest, graph.input(`hidden.${highest}`, 'float32', [all, sizes.rows, decoder.hidden]));
  for (let layer = lowest; layer < decoder.layers; layer++) {
    if (layer > lowest) x = decoder.layer(enter(x, layer, attention), layer, attention, frozen).hidden;
    for (const part of ['text', 'visual'] as const) {
      if (layers[part] !== layer) continue;
      const weight: WeightOf = (name) => adapter(dualName(part, name));
      const signal = signals(unedited.get(layer)!);
      x = adaptChosen(graph, x, part, signal, shapes[part], weight, scales[part]);
    }
  }
  return answerTerms(graph, enter(x, decoder.layers, attention), decoder, frozen);
}

/** Weights to start from: of the visual adapter as `start` says, of the text adapter as published. */
function initialWeights(
  shapes: OfBoth<AdapterShape>,
  { start, scale }: DualEditAdapters,
  seed: number,
): AdapterWeights {
  const text = initialAdapter(shapes.text, seed + 1);
  const visual = initialAdapter(shapes.visual, seed, start, 1 / (scale || 1));
  return new Map([
    ...[...text].map(([name, weight]) => [dualName('text', name), weight] as const),
    ...[...visual].map(([name, weight]) => [dualName('visual', name), weight] as const),
  ]);
}

/**
 * `from` as both adapters' weights. A single visual adapter (VisEdit's) becomes the visual one; the text adapter then starts with
 * a last projection of 0: it changes nothing before it has learnt to.
 */
function startFrom(from: AdapterWeights, initial: AdapterWeights): AdapterWeights {
  if (from.has(dualName('text', 'mlp_end.weight'))) return from;
  const weights = new Map([...from].map(([name, weight]) => [dualName('visual', name), weight] as const));
  for (const [name, { shape, data }] of initial) {
    if (!name.startsWith(dualPrefixes.text)) continue;
    const last = name.startsWith(`${dualPrefixes.text}mlp_end.`);
    weights.set(name, { shape, data: last ? new Float32Array(data.length) : data });
  }
  return weights;
}

function begin(
  { layers, shape, ...options }: DualEditAdapters,
  start: TrainingStart,
): Promise<EditorInTraining> {
  const { decoder } = start.model;
  const visual: AdapterShape = { ...shape, hidden: decoder.hidden };
  const shapes = { text: { ...visual, influenceMapper: false }, visual };
  const weights = initialWeights(shapes, { layers, shape, ...options }, start.seed);
  const from = start.from && { ...start.from, weights: startFrom(start.from.weights, weights) };
  return adaptersInTraining({ ...start, from }, options, {
    adapters: (['text', 'visual'] as const).map((part) => ({
      prefix: dualPrefixes[part],
      layer: layers[part],
    })),
    weights,
    settings: { editor: 'DualEdit', layers, shape, start: options.start },
    losses: (graph, sizes, frozen, adapter, [text, image]) =>
      dualEditLosses(graph, sizes, shapes, decoder, layers, frozen, adapter, {
        text: text!,
        visual: image!,
      }),
  });
}

const { layer: rowsOfPictures, ...others } = rowFields;
const Settings = z.object({
  layer: rowsOfPictures,
  textLayer: rowLayer.nullable().default(null).meta({
    title: 'Layer of text rows',
    description: 'Decoder layer whose text rows are changed; that of visual rows otherwise',
  }),
  ...others,
});

/** The influence losses count for nothing here: DualEdit has none. */
export const dualEditTraining: EditorTraining<z.infer<typeof Settings>> = {
  settings: Settings,
  proposed: { ...proposedForRows, settings: { ...proposedForRows.settings, influenceMapper: false } },
  needs(settings, checkpoint) {
    const { layer } = settings;
    const textLayer = settings.textLayer ?? layer;
    const layers = [
      ['The layer', layer],
      ['The layer of text rows', textLayer],
    ] as const;
    checkRowSettings(settings, layers, checkpoint);
    return { cuts: [...new Set([layer, textLayer])].sort((a, b) => a - b), changeable: [] };
  },
  describe({ layer, textLayer, heads, influenceMapper }) {
    return { textLayer: textLayer ?? layer, visualLayer: layer, heads, influenceMapper };
  },
  begin(settings, start) {
    const { layer, ...options } = rowTraining(settings, start.model);
    return begin({ ...options, layers: { text: settings.textLayer ?? layer, visual: layer } }, start);
  },
};
