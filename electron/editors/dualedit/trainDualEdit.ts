/**
 * @file Trains DualEdit's two adapters on a frozen model, its gate off (appendix A; `papers/003*` gives three terms: reliability,
 * generality in text and picture, image locality).
 */
import { z } from 'zod';
import { EmendError } from '../../errors.ts';
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
export type DualPart = keyof typeof dualPrefixes;
export const dualParts = ['text', 'visual'] as const satisfies readonly DualPart[];
/** Of each adapter there is: both, or one alone (DualEdit Table 1). */
export type OfParts<T> = Readonly<Partial<Record<DualPart, T>>>;

/** Decoder layers after which adapters act, ascending. */
export function cutsOf(layers: OfParts<number>): number[] {
  const acting = dualParts.flatMap((part) => layers[part] ?? []);
  return [...new Set(acting)].sort((a, b) => a - b);
}

interface DualEditAdapters extends RowTraining {
  /** decoder layers whose outputs are changed, from 0 */
  readonly layers: OfParts<number>;
  /** `influenceMapper`: of the visual adapter; the text adapter has none */
  readonly shape: Omit<AdapterShape, 'hidden'>;
  /** of the visual adapter; the text adapter starts as published */
  readonly start: AdapterStart;
}

/** The name of a part's weight in an adapter file. The text adapter's norm of its own rows has a name of its own, as published. */
export function dualName(part: DualPart, name: string): string {
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
  shapes: OfParts<AdapterShape>,
  decoder: Decoder,
  layers: OfParts<number>,
  frozen: Weights,
  adapter: WeightOf,
  scales: OfParts<number> = {},
): LossTerms {
  const all = 3 * sizes.edits;
  const attention = attentionInputs(graph, decoder, all, sizes.rows, sizes.rows);
  const signals = signalsOf(graph, sizes, decoder.hidden);
  const lowest = Math.min(...Object.values(layers));
  const highest = Math.max(...Object.values(layers));
  let x = graph.input('hidden', 'float32', [all, sizes.rows, decoder.hidden]);
  const unedited = new Map([[lowest, x]]);
  if (highest !== lowest)
    unedited.set(highest, graph.input(`hidden.${highest}`, 'float32', [all, sizes.rows, decoder.hidden]));
  for (let layer = lowest; layer < decoder.layers; layer++) {
    if (layer > lowest) x = decoder.layer(enter(x, layer, attention), layer, attention, frozen).hidden;
    for (const part of dualParts) {
      if (layers[part] !== layer) continue;
      const weight: WeightOf = (name) => adapter(dualName(part, name));
      const signal = signals(unedited.get(layer)!);
      x = adaptChosen(graph, x, part, signal, shapes[part]!, weight, scales[part] ?? 1);
    }
  }
  return answerTerms(graph, enter(x, decoder.layers, attention), decoder, frozen);
}

/** Weights to start from: of the visual adapter as `start` says, of the text adapter as published. */
function initialWeights(
  shapes: OfParts<AdapterShape>,
  { start, scale }: DualEditAdapters,
  seed: number,
): AdapterWeights {
  const initial: OfParts<AdapterWeights> = {
    ...(shapes.text && { text: initialAdapter(shapes.text, seed + 1) }),
    ...(shapes.visual && { visual: initialAdapter(shapes.visual, seed, start, 1 / (scale || 1)) }),
  };
  return new Map(
    dualParts.flatMap((part) =>
      [...(initial[part] ?? [])].map(([name, weight]) => [dualName(part, name), weight] as const),
    ),
  );
}

/**
 * `from` as weights of the adapters that are trained. A single visual adapter (VisEdit's) becomes the visual one; the text adapter then
 * starts with a last projection of 0: it changes nothing before it has learnt to.
 * @throws EmendError 'invalid-input' for a single visual adapter where none is trained
 */
function startFrom(from: AdapterWeights, initial: AdapterWeights): AdapterWeights {
  if (dualParts.some((part) => from.has(dualName(part, 'mlp_end.weight')))) return from;
  if (!initial.has(dualName('visual', 'mlp_end.weight')))
    throw new EmendError(
      'invalid-input',
      'The adapter to start from changes visual rows, and the text adapter alone is trained. Start from a DualEdit adapter, or train both.',
    );
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
  const parts = dualParts.filter((part) => layers[part] !== undefined);
  const shapes = ofParts(
    parts,
    (part): AdapterShape => ({
      ...shape,
      hidden: decoder.hidden,
      influenceMapper: part === 'visual' && shape.influenceMapper,
    }),
  );
  const weights = initialWeights(shapes, { layers, shape, ...options }, start.seed);
  const from = start.from && { ...start.from, weights: startFrom(start.from.weights, weights) };
  return adaptersInTraining({ ...start, from }, options, {
    adapters: parts.map((part) => ({ prefix: dualPrefixes[part], layer: layers[part]! })),
    weights,
    settings: { editor: 'DualEdit', layers, shape, start: options.start },
    losses: (graph, sizes, frozen, adapter, scales) =>
      dualEditLosses(
        ...([graph, sizes, shapes, decoder, layers, frozen, adapter] as const),
        ofParts(parts, (part) => scales[parts.indexOf(part)]!),
      ),
  });
}

function ofParts<T>(parts: readonly DualPart[], value: (part: DualPart) => T): OfParts<T> {
  return Object.fromEntries(parts.map((part) => [part, value(part)]));
}

const { layer: rowsOfPictures, ...others } = rowFields;
const Settings = z.object({
  layer: rowsOfPictures,
  textLayer: rowLayer.nullable().default(null).meta({
    title: 'Layer of text rows',
    description: 'Decoder layer whose text rows are changed; that of visual rows otherwise',
  }),
  adapters: z
    .enum(['both', ...dualParts])
    .default('both')
    .meta({
      title: 'Adapters',
      description: 'both, as the method has them, or that of text rows or of visual rows alone (Table 1)',
    }),
  ...others,
});

/** The layers of the adapters that are trained. */
function layersOf({
  layer,
  textLayer,
  adapters,
}: Pick<z.infer<typeof Settings>, 'layer' | 'textLayer' | 'adapters'>): OfParts<number> {
  return {
    ...(adapters !== 'visual' && { text: textLayer ?? layer }),
    ...(adapters !== 'text' && { visual: layer }),
  };
}

/** The influence losses count for nothing here: DualEdit has none. */
export const dualEditTraining: EditorTraining<z.infer<typeof Settings>> = {
  settings: Settings,
  proposed: { ...proposedForRows, settings: { ...proposedForRows.settings, influenceMapper: false } },
  needs(settings, checkpoint) {
    const layers = layersOf(settings);
    const words = { text: 'The layer of text rows', visual: 'The layer' };
    const named = dualParts.filter((part) => layers[part] !== undefined);
    checkRowSettings(
      settings,
      named.map((part) => [words[part], layers[part]!] as const),
      checkpoint,
    );
    return { cuts: cutsOf(layers), changeable: [] };
  },
  describe(settings) {
    const { text, visual } = layersOf(settings);
    return {
      ...(text !== undefined && { textLayer: text }),
      ...(visual !== undefined && { visualLayer: visual }),
      heads: settings.heads,
      influenceMapper: settings.influenceMapper && visual !== undefined,
    };
  },
  begin(settings, start) {
    const { layer: _, ...options } = rowTraining(settings, start.model);
    return begin({ ...options, layers: layersOf(settings) }, start);
  },
};
