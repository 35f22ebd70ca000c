/**
 * @file Trains a VisEdit adapter on a frozen model: batches of edits in, an adapter folder out.
 */
import { existsSync } from 'node:fs';
import { InfluenceAttribution, influenceTarget, layersAfterEdit } from '../../attribution/influenceTarget.ts';
import { paperPerturbation } from '../../attribution/visualContribution.ts';
import { EmendError } from '../../errors.ts';
import { fingerprint } from '../../models/checkpoint.ts';
import type { VisionLanguageModel } from '../../models/visionLanguageModel.ts';
import { weightsAsInputs } from '../../models/weights.ts';
import { Graph } from '../../tensor/graph.ts';
import { float32, floatsOf, type Value } from '../../tensor/session.ts';
import type { AdamOptions } from '../../training/optimizer.ts';
import { type StepReport, Trainer } from '../../training/trainer.ts';
import type { AdapterWeights } from '../adapterFiles.ts';
import { type AdapterShape, adapterWeights, rowKinds } from './adapterGraph.ts';
import { type LaidBatch, layBatch, type RaisedPictures, type TrainingEdit } from './batch.ts';
import { FrozenModel } from './frozen.ts';
import { LayerwiseFrozen, LayerwiseLosses } from './layerwiseTraining.ts';
import { type LossWeights, totalLoss, visEditLosses } from './losses.ts';

/** Where training edits come from. The same step gives the same edits. */
export interface EditSource {
  /** what it is, for the record */
  readonly name: string;
  batch(step: number, count: number): Promise<TrainingEdit[]>;
  close(): Promise<void>;
}

export interface VisEditTraining {
  /** decoder layer whose output is changed, from 0 */
  readonly layer: number;
  readonly shape: Omit<AdapterShape, 'hidden'>;
  /** edits a step */
  readonly edits: number;
  /** rows of a sequence; edits whose texts need more are refused, extra locality texts are left out */
  readonly rows: number;
  /** visual tokens drawn for the influence losses; all of them where there are no more */
  readonly sampled: number;
  readonly raised: RaisedPictures;
  readonly weights: LossWeights;
  /** targets end with the end token in the loss */
  readonly endToken: boolean;
  /** the change is multiplied by this many times the rows' root mean square at the edit layer; 0: by nothing, as published */
  readonly scale: number;
  readonly start: AdapterStart;
  readonly optimizer: AdamOptions;
  readonly steps: number;
  readonly seed: number;
}

/** How an adapter's weights start. See {@link initialAdapter}. */
export type AdapterStart = 'published' | 'similarity';

/**
 * Weights to start from. `published`: uniform within ±1/√inputs, PyTorch's default for linear layers; norms 1 and 0. With row
 * kinds, half of the heads then look at the few target rows, a quarter at the prompt's and a quarter anywhere.
 *
 * `similarity` (with row kinds) starts from what an edit is: half of the heads bring the target's rows; the others compare a
 * visual row with those of the edit's picture, and take away the row that matches, or the target where none does. The change is
 * then about `target − row` where the picture shows what the edit was made on, and about nothing elsewhere.
 * `share`: the part of the rows' norm that a change of unit norm stands for.
 */
export function initialAdapter(
  shape: AdapterShape,
  seed: number,
  start: AdapterStart = 'published',
  share = 1,
): AdapterWeights {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const shapes = adapterWeights(shape);
  const weights = new Map<string, { shape: readonly number[]; data: Float32Array }>();
  for (const [name, dims] of shapes) {
    const data = new Float32Array(dims.reduce((a, b) => a * b, 1));
    const module = name.slice(0, name.lastIndexOf('.'));
    if (/(^|\.)ln_/.test(name)) data.fill(name.endsWith('weight') ? 1 : 0);
    else if (name === 'row_kind.bias') {
      for (let head = 0; head < shape.heads; head++) {
        const kind = head < shape.heads / 2 ? 'target' : head < (shape.heads * 3) / 4 ? 'prompt' : null;
        if (kind) data[head * rowKinds.length + rowKinds.indexOf(kind)] = 5;
      }
    } else if (!name.startsWith('row_kind.')) {
      const bound = 1 / Math.sqrt(shapes.get(`${module}.weight`)![1]!);
      for (let i = 0; i < data.length; i++) data[i] = (uniform() * 2 - 1) * bound;
    }
    weights.set(name, { shape: dims, data });
  }
  if (start === 'similarity') startFromSimilarity(shape, weights, uniform, share);
  return weights;
}

/** Score of two equal rows in a comparing head, and what a target row scores there: between a match and none. */
const MATCH_SCORE = 12;
const TARGET_SCORE = 9;

function startFromSimilarity(
  shape: AdapterShape,
  weights: AdapterWeights,
  uniform: () => number,
  share: number,
): void {
  const { hidden, middle, heads } = shape;
  const size = middle / heads;
  const bringing = Math.floor(heads / 2);
  if (shape.attention !== 'row-kinds' || bringing === 0 || bringing * size < hidden)
    throw new EmendError(
      'invalid-input',
      `To start from similarity, attention must be row-kinds and half of the heads must hold the model's width: --middle ${2 * hidden} or more.`,
    );
  const at = (name: string) => weights.get(name)!.data;
  for (const name of ['mlp_begin', 'cross_att_q_mlp', 'cross_att_k_mlp', 'cross_att_v_mlp', 'mlp_end'])
    at(`${name}.bias`).fill(0);
  // Maps with orthonormal columns: into the middle width, and into each half of the heads.
  const into = orthonormalColumns(middle, hidden, uniform);
  const halves = [
    orthonormalColumns(bringing * size, hidden, uniform),
    orthonormalColumns(middle - bringing * size, hidden, uniform),
  ];
  at('mlp_begin.weight').set(into);
  const [query, key, value, end] = ['cross_att_q_mlp', 'cross_att_k_mlp', 'cross_att_v_mlp', 'mlp_end'].map(
    (name) => at(`${name}.weight`),
  ) as [Float32Array, Float32Array, Float32Array, Float32Array];
  // Rows come from a LayerNorm, with a norm of √hidden; a head sees size/(its half's width) of it.
  const sharp = Math.sqrt((MATCH_SCORE * (middle - bringing * size)) / (Math.sqrt(size) * hidden));
  for (let row = 0; row < middle; row++) {
    const compares = row >= bringing * size;
    const [map, from] = compares ? [halves[1]!, row - bringing * size] : [halves[0]!, row];
    for (let column = 0; column < hidden; column++) {
      const element = map[from * hidden + column]!;
      value[row * hidden + column] = element;
      end[column * middle + row] = (compares ? -share : share) * element;
      if (compares) key[row * hidden + column] = sharp * element;
    }
    if (!compares) continue;
    for (let column = 0; column < middle; column++) {
      let sum = 0;
      for (let i = 0; i < hidden; i++) sum += map[from * hidden + i]! * into[column * hidden + i]!;
      query[row * middle + column] = sharp * sum;
    }
  }
  const bias = at('row_kind.bias');
  for (let head = 0; head < heads; head++) {
    const scores = head < bringing ? [0, 0, 0, 5] : [-MATCH_SCORE, 0, -MATCH_SCORE, TARGET_SCORE];
    bias.set(scores, head * rowKinds.length);
  }
}

/** A random matrix [rows, columns], rows ≥ columns, whose columns are orthonormal (Gram and Schmidt). */
function orthonormalColumns(rows: number, columns: number, uniform: () => number): Float32Array {
  const matrix = Float32Array.from({ length: rows * columns }, () => uniform() + uniform() + uniform() - 1.5);
  const dot = (a: number, b: number) => {
    let sum = 0;
    for (let row = 0; row < rows; row++) sum += matrix[row * columns + a]! * matrix[row * columns + b]!;
    return sum;
  };
  for (let column = 0; column < columns; column++) {
    for (let other = 0; other < column; other++) {
      const shared = dot(column, other);
      for (let row = 0; row < rows; row++)
        matrix[row * columns + column]! -= shared * matrix[row * columns + other]!;
    }
    const norm = Math.sqrt(dot(column, column));
    for (let row = 0; row < rows; row++) matrix[row * columns + column]! /= norm;
  }
  return matrix;
}

function seededUniform(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

function rootMeanSquare(values: Float32Array): number {
  let sum = 0;
  for (const value of values) sum += value * value;
  return Math.sqrt(sum / values.length);
}

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

/** The last projection, which holds the scale of a saved adapter. */
const isLastProjection = (name: string) => name.startsWith('mlp_end.');

/** @throws EmendError 'invalid-input' unless both have the same weights in the same shapes */
function takeOver(weights: AdapterWeights, from: AdapterWeights, scale: number): void {
  for (const [name, { shape, data }] of weights) {
    const given = from.get(name);
    if (!given || given.shape.join() !== shape.join()) {
      throw new EmendError(
        'invalid-input',
        `The adapter to start from has ${name} as [${given?.shape ?? 'nothing'}], and this training as [${shape}]. Give the widths, heads and attention it was trained with.`,
      );
    }
    data.set(isLastProjection(name) ? given.data.map((value) => value / scale) : given.data);
  }
}

export interface TrainingProgress extends StepReport {
  readonly steps: number;
  readonly seconds: number;
}

/**
 * Trains, saving its state to `statePath` every 250 steps and at the end; an existing state is taken up.
 * Throws `cancelled` when the signal is aborted, with the state saved.
 */
export async function trainVisEdit(
  model: VisionLanguageModel,
  source: EditSource,
  options: VisEditTraining,
  run: {
    readonly statePath: string;
    /**
     * Runs the decoder one layer at a time, for backbones whose layers do not fit in memory together, and keeps what lies below the
     * adapter in this folder. Losses and gradients are the same; every layer above the adapter is run twice.
     */
    readonly keptBelow?: string;
    /** weights to start from instead of `options.start`, those of a trained adapter of the same shape */
    readonly from?: { readonly fingerprint: string; readonly weights: AdapterWeights };
    readonly signal?: AbortSignal;
    readonly onStep?: (progress: TrainingProgress) => void;
  },
): Promise<{ weights: AdapterWeights; shape: AdapterShape; modelFingerprint: string }> {
  const { decoder } = model;
  const { layer } = options;
  if (model.cuts[0] !== layer)
    throw new EmendError('internal', `The model must be opened with a cut after layer ${layer}.`);
  const shape: AdapterShape = { ...options.shape, hidden: decoder.hidden };
  const weights = initialAdapter(shape, options.seed, options.start, 1 / (options.scale || 1));
  const attributed = options.weights.influenceAttribution !== 0;
  const high = layersAfterEdit(layer, decoder.layers);
  const sampled = Math.min(options.sampled, model.images.rows.most);
  const modelFingerprint = await fingerprint(model.checkpoint);
  const frozen =
    run.keptBelow === undefined
      ? await FrozenModel.compile(model, layer, attributed ? high : [])
      : await LayerwiseFrozen.create(model, modelFingerprint, layer, attributed ? high : [], run.keptBelow);
  const attribution = attributed
    ? await InfluenceAttribution.compile(decoder, high, { ...paperPerturbation, draws: 1 })
    : null;
  const lay = async (step: number) => {
    const random = seededUniform(options.seed * 7919 + step);
    return layBatch(model, await source.batch(step, options.edits), {
      endToken: options.endToken,
      rows: options.rows,
      sampled,
      raised: options.raised,
      random,
    });
  };

  // Longer or shorter training of the same thing may go on; anything else is another training.
  const { steps: _steps, optimizer: _optimizer, ...lasting } = options;
  const settings = JSON.stringify({
    ...lasting,
    source: source.name,
    model: modelFingerprint,
    ...(run.from && { from: run.from.fingerprint }),
  });
  const first = await lay(0);
  const hidden = await floatsOf((await frozen.run(first))['hidden']!);
  const scale = options.scale > 0 ? options.scale * rootMeanSquare(hidden) : 1;
  if (run.from) takeOver(weights, run.from.weights, scale);
  const trainer =
    run.keptBelow === undefined
      ? await wholeTrainer()
      : new Trainer(
          await LayerwiseLosses.create(model, layer, first.sizes, shape, weights, options.weights, scale),
          weights,
          options.optimizer,
        );
  try {
    if (existsSync(run.statePath)) await trainer.load(run.statePath, settings);
    const started = performance.now();
    const begun = trainer.optimizer.step;
    for (let step = begun; step < options.steps; step++) {
      if (run.signal?.aborted) {
        await trainer.save(run.statePath, settings);
        throw new EmendError('cancelled', `Training was stopped after ${step} steps; it goes on from there.`);
      }
      const batch = await lay(step);
      const given = await frozen.run(batch);
      const targets = attribution
        ? await attributionTargets(attribution, batch, given, decoder.hidden, options.seed + step)
        : new Float32Array(options.edits * sampled).fill(1 / sampled);
      const report = await trainer.step({
        ...batch.feeds,
        ...given,
        attribution: float32(targets, [options.edits, sampled]),
      });
      run.onStep?.({ ...report, steps: options.steps, seconds: (performance.now() - started) / 1000 });
      if (report.step % 250 === 0 || report.step === options.steps)
        await trainer.save(run.statePath, settings);
      await new Promise((resolve) => setImmediate(resolve));
    }
  } finally {
    await trainer.dispose();
    await frozen.dispose();
    await attribution?.dispose();
  }
  // The scale becomes part of the last projection: a saved adapter needs no setting of its own.
  const folded = new Map(
    [...weights].map(([name, { shape: dims, data }]) => {
      return [
        name,
        { shape: dims, data: isLastProjection(name) ? data.map((value) => value * scale) : data },
      ] as const;
    }),
  );
  return { weights: folded, shape, modelFingerprint };

  /** The losses and the decoder above the edit layer in one graph. */
  function wholeTrainer(): Promise<Trainer> {
    const graph = new Graph();
    const shapes = new Map([...weights].map(([name, value]) => [name, value.shape]));
    const [frozenWeights, adapter] = [decoder.weightsOf(graph), weightsAsInputs(graph, shapes)];
    const terms = visEditLosses(graph, first.sizes, shape, decoder, layer, frozenWeights, adapter, scale);
    const loss = totalLoss(terms, options.weights);
    return Trainer.create(graph, loss, terms, weights, options.optimizer, { providers: [model.provider] });
  }
}
