/**
 * @file Trains a VisEdit adapter on a frozen model.
 */
import { z } from 'zod';
import { InfluenceAttribution, influenceTarget, layersAfterEdit } from '../../attribution/influenceTarget.ts';
import { paperPerturbation } from '../../attribution/visualContribution.ts';
import { EmendError } from '../../errors.ts';
import type { VisionLanguageModel } from '../../models/visionLanguageModel.ts';
import { float32, floatsOf, type Value } from '../../tensor/session.ts';
import type { AdapterWeights } from '../adapterFiles.ts';
import type { BatchSizes, LaidBatch } from '../training/batch.ts';
import type {
  EditorInTraining,
  EditorTraining,
  TrainedWeights,
  TrainingOptions,
  TrainingRun,
  TrainingStart,
} from '../training/editorTraining.ts';
import type { EditSource } from '../training/edits.ts';
import { adaptersInTraining, type RowTraining } from '../training/rowAdapters.ts';
import { checkRowSettings, proposedForRows, rowFields, rowTraining } from '../training/rowSettings.ts';
import { trainEditor } from '../training/trainEditor.ts';
import type { AdapterShape } from './adapterGraph.ts';
import { type AdapterStart, initialAdapter } from './initialAdapter.ts';
import { LayerwiseLosses } from './layerwiseTraining.ts';
import { influenceLosses, type LossWeights, visEditLosses, withFixed } from './losses.ts';

export interface VisEditAdapter extends RowTraining {
  /** decoder layer whose output is changed, from 0 */
  readonly layer: number;
  readonly shape: Omit<AdapterShape, 'hidden'>;
  readonly start: AdapterStart;
  /**
   * Decoder layers above `layer` whose attention teaches the influence mapper where to look (L_h of eqs. 18–19), ascending, such as the
   * high-contribution layers that `emend attribute propose` names; all above it but the last when absent, as the published code.
   */
  readonly attributionLayers?: readonly number[] | undefined;
  /**
   * `mapper`: only the influence mapper is trained, by its own losses; `changes`: all but the mapper, by the answers. What is not trained
   * stays as it is in the adapter to start from. `all` when absent
   */
  readonly trains?: TrainedPart | undefined;
}

const trainedParts = ['all', 'mapper', 'changes'] as const;
type TrainedPart = (typeof trainedParts)[number];

/** What the weights of a mapper are called by. */
const MAPPER_PREFIX = 'influence_mapper.';
/** Terms that move nothing of what is trained. */
const silent: Readonly<Record<TrainedPart, Partial<LossWeights>>> = {
  all: {},
  mapper: { reliability: 0, textGenerality: 0, imageGenerality: 0, imageLocality: 0 },
  changes: { influenceUp: 0, influenceDown: 0, influenceAttribution: 0, influenceOverlap: 0 },
};

export interface VisEditTraining extends VisEditAdapter, TrainingOptions {}

/** Influence targets (eqs. 18–19) of a batch: contributions of the raised rows to the attention at the edit prompt's last token. */
async function attributionTargets(
  attribution: InfluenceAttribution,
  batch: LaidBatch,
  kept: Readonly<Record<string, Value>>,
  width: number,
  seed: number,
): Promise<Float32Array> {
  const { edits, rows, sampled, raisedPictures } = batch.sizes;
  const states = await Promise.all(attribution.layers.map((layer) => floatsOf(kept[`entering.${layer}`]!)));
  // With both pictures the rephrased one, the edit's neighbour, comes last.
  const raised = (batch.feeds['raised']!.data as BigInt64Array).subarray(
    (raisedPictures - 1) * edits * sampled,
  );
  const keys = batch.feeds['key_rows']!.data as BigInt64Array;
  const pairs = Array.from({ length: edits }, (_, edit) => {
    const flat = Array.from(raised.subarray(edit * sampled, (edit + 1) * sampled), Number);
    const neighbour = Math.floor(flat[0]! / rows);
    const part = (sequence: number, to: number) => {
      const { imageRows, positions } = batch.sequences[sequence]!;
      const first = sequence * rows * width;
      return {
        hidden: states.map((state) => state.subarray(first, first + to * width)),
        imageRows,
        positions,
      };
    };
    const lastPromptRow = Number(keys[edit]!) - edit * rows;
    const { imageRows } = batch.sequences[neighbour]!;
    return {
      edit: { ...part(edit, lastPromptRow + 1), lastPromptRow },
      neighbour: part(neighbour, imageRows.at(-1)! + 1),
      cells: flat.map((row) => imageRows.indexOf(row - neighbour * rows)),
      noise: { kind: 'seed' as const, seed: seed + edit },
    };
  });
  const found = await attribution.run(pairs);
  const targets = new Float32Array(edits * sampled);
  for (const [edit, { perLayer }] of found.entries()) {
    for (const contributions of perLayer) {
      for (const [cell, share] of influenceTarget(contributions).entries())
        targets[edit * sampled + cell]! += share / perLayer.length;
    }
  }
  return targets;
}

async function begin(
  { layer, shape: sizes, start: form, trains = 'all', ...options }: VisEditAdapter,
  start: TrainingStart,
): Promise<EditorInTraining> {
  const { model, seed, from } = start;
  const alone = trains === 'mapper';
  if (trains !== 'all' && !(from && sizes.influenceMapper))
    throw new EmendError(
      'invalid-input',
      'The influence mapper or the changes alone are trained on an adapter that has both: say from which with --from.',
    );
  const edits = start.first.length;
  const { decoder } = model;
  const shape: AdapterShape = { ...sizes, hidden: decoder.hidden };
  const whole = initialAdapter(shape, seed, form, 1 / (options.scale || 1));
  const isTrained = (name: string) => trains === 'all' || name.startsWith(MAPPER_PREFIX) === alone;
  const weights = new Map([...whole].filter(([name]) => isTrained(name)));
  const fixed: AdapterWeights = new Map([...(from?.weights ?? [])].filter(([name]) => !isTrained(name)));
  const lossWeights = { ...options.weights, ...silent[trains] };
  const sampled = Math.min(options.sampled, model.images.rows.most);
  const high = options.attributionLayers ?? layersAfterEdit(layer, decoder.layers);
  if (!(high[0]! > layer && high.at(-1)! < decoder.layers))
    throw new EmendError(
      'invalid-input',
      `Attribution is read at layers ${high.join(', ')}, which must lie above the adapter's layer ${layer} and below ${decoder.layers}.`,
    );
  const attribution =
    shape.influenceMapper && (lossWeights.influenceAttribution !== 0 || lossWeights.influenceOverlap !== 0)
      ? await InfluenceAttribution.compile(decoder, high, { ...paperPerturbation, draws: 1 })
      : null;
  const training = await adaptersInTraining(
    start,
    { ...options, weights: lossWeights },
    {
      adapters: [{ prefix: '', layer }],
      weights,
      settings: {
        ...{ editor: 'VisEdit', layer, shape, start: form, attributionLayers: options.attributionLayers },
        ...(trains !== 'all' && { trains }),
      },
      entering: attribution ? high : [],
      async feeds(batch, given, number) {
        const targets = attribution
          ? await attributionTargets(attribution, batch, given, decoder.hidden, seed + number)
          : new Float32Array(edits * sampled).fill(1 / sampled);
        return { attribution: float32(targets, [edits, sampled]) };
      },
      losses: (graph, sizes: BatchSizes, frozen, adapter, [scale]) =>
        alone
          ? influenceLosses(graph, sizes, shape, decoder.hidden, adapter)
          : visEditLosses(
              graph,
              sizes,
              shape,
              decoder,
              layer,
              frozen,
              withFixed(graph, adapter, fixed),
              scale,
            ),
      // The mapper alone needs no layer above it.
      ...(!alone && {
        layerwise: (sizes, [scale]) =>
          LayerwiseLosses.create(model, layer, sizes, shape, weights, fixed, lossWeights, scale!),
      }),
      dispose: async () => attribution?.dispose(),
    },
  );
  return { ...training, weights: () => new Map([...fixed, ...training.weights()]) };
}

/** Trains; see `trainEditor`. */
export async function trainVisEdit(
  model: VisionLanguageModel,
  source: EditSource,
  options: VisEditTraining,
  run: TrainingRun,
): Promise<TrainedWeights & { readonly shape: AdapterShape }> {
  const trained = await trainEditor(model, source, options, run, (start) => begin(options, start));
  return { ...trained, shape: { ...options.shape, hidden: model.decoder.hidden } };
}

const VisEditSettings = z.object({
  ...rowFields,
  trains: z.enum(trainedParts).default('all').meta({
    title: 'Trains',
    description:
      'Of the adapter it starts from. mapper: its influence mapper alone, by its own losses, several times faster; changes: all but the mapper, by the answers',
  }),
});

export const visEditTraining: EditorTraining<z.infer<typeof VisEditSettings>> = {
  settings: VisEditSettings,
  proposed: proposedForRows,
  layerwise: true,
  needs(settings, checkpoint) {
    checkRowSettings(settings, [['The layer', settings.layer]], checkpoint);
    return { cuts: [settings.layer], changeable: [] };
  },
  describe({ layer, heads, influenceMapper, attention }) {
    return { layer, heads, influenceMapper, attention };
  },
  begin: (settings, start) =>
    begin({ ...rowTraining(settings, start.model), trains: settings.trains }, start),
};
