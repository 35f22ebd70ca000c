/**
 * @file Trains DualEdit's two adapters on a frozen model, its gate off (appendix A; `papers/003*` gives three terms: reliability,
 * generality in text and picture, image locality).
 */
import { attentionInputs, type Decoder, enter } from '../../models/decoder.ts';
import type { VisionLanguageModel } from '../../models/visionLanguageModel.ts';
import type { WeightOf, Weights } from '../../models/weights.ts';
import type { Graph } from '../../tensor/graph.ts';
import type { AdapterWeights } from '../adapterFiles.ts';
import {
  type AdapterTraining,
  type EditorTraining,
  type TrainedWeights,
  type TrainingRun,
  trainAdapters,
} from '../trainAdapters.ts';
import type { AdapterShape } from '../visedit/adapterGraph.ts';
import type { EditSource } from '../visedit/batch.ts';
import { type AdapterStart, initialAdapter } from '../visedit/initialAdapter.ts';
import { adaptChosen, answerTerms, type LossSizes, type LossTerms, signalsOf } from '../visedit/losses.ts';

/** What the names of each adapter's weights begin with, as published. */
export const dualPrefixes = { text: 'text_adaptor.', visual: 'visual_adaptor.' } as const;
type Part = keyof typeof dualPrefixes;
type OfBoth<T> = Readonly<Record<Part, T>>;

export interface DualEditTraining extends AdapterTraining {
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
  sizes: LossSizes,
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
  return answerTerms(graph, enter(x, decoder.layers, attention), sizes, decoder, frozen);
}

/** Weights to start from: of the visual adapter as `start` says, of the text adapter as published. */
function initialWeights(
  shapes: OfBoth<AdapterShape>,
  { seed, start, scale }: DualEditTraining,
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

/** Trains; see `trainAdapters`. The influence losses must weigh 0: DualEdit has none. */
export function trainDualEdit(
  model: VisionLanguageModel,
  source: EditSource,
  options: DualEditTraining,
  run: TrainingRun,
): Promise<TrainedWeights> {
  const { decoder } = model;
  const { layers } = options;
  const visual: AdapterShape = { ...options.shape, hidden: decoder.hidden };
  const shapes = { text: { ...visual, influenceMapper: false }, visual };
  const weights = initialWeights(shapes, options);
  const from = run.from && { ...run.from, weights: startFrom(run.from.weights, weights) };
  return trainAdapters(
    model,
    source,
    options,
    { ...run, ...(from && { from }) },
    {
      adapters: (['text', 'visual'] as const).map((part) => ({
        prefix: dualPrefixes[part],
        layer: layers[part],
      })),
      weights,
      settings: { editor: 'DualEdit' },
      losses: (graph, sizes, frozen, adapter, [text, image]) =>
        dualEditLosses(graph, sizes, shapes, decoder, layers, frozen, adapter, {
          text: text!,
          visual: image!,
        }),
    },
  );
}

export const dualEditTraining: EditorTraining = {
  textRows: true,
  cuts: ({ layer, textLayer = layer }) => [...new Set([layer, textLayer])].sort((a, b) => a - b),
  describe({ layer, textLayer = layer, shape: { heads, influenceMapper } }) {
    return { textLayer, visualLayer: layer, heads, influenceMapper };
  },
  train: (model, source, { layer, textLayer = layer, ...options }, run) =>
    trainDualEdit(model, source, { ...options, layers: { text: textLayer, visual: layer } }, run),
};
