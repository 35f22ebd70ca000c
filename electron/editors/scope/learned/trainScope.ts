/**
 * @file Trains a scope for a model: features, key, scorer on edits the key knows and on edits it never saw, thresholds on edits
 * neither saw.
 */
import { join } from 'node:path';
import { EmendError } from '../../../errors.ts';
import { floatToHalf, halfToFloat } from '../../../files/safetensors.ts';
import type { VisionLanguageModel } from '../../../models/visionLanguageModel.ts';
import type { CurvePoint, Reach } from '../scope.ts';
import { brackets, calibrate, type HarmRates } from './calibrate.ts';
import { encodeSource, fitProjections, type Projections } from './dataset.ts';
import type { ScopeSource } from './examples.ts';
import { COMPONENTS, type ScopeLayers, usualLayers } from './features.ts';
import { keyWeights, type ScopeShape, scoreWeights, usualSizes } from './network.ts';
import { Draws, Sampler } from './sampling.ts';
import { readScopeFiles, writeScopeFiles } from './scopeFile.ts';
import { type KeyTraining, trainKey } from './trainKey.ts';
import type { Weights } from './trainNetwork.ts';
import { type ScorerTraining, trainScorer } from './trainScorer.ts';

export interface ScopeTraining {
  readonly key: KeyTraining;
  readonly scorer: ScorerTraining;
  readonly rates: Readonly<Record<Reach, HarmRates>>;
  /** edits whose inputs the thresholds are fitted to */
  readonly probes: number;
  /** sizes of a library that thresholds are fitted at; those of larger brackets are that of the largest */
  readonly sizes: readonly number[];
  readonly seed: number;
}

const shared = { noise: 0.35, masked: 0.15, dropout: 0.2, threads: 1 } as const;

/** What the demo's scope was trained with. */
export const usualTraining: ScopeTraining = {
  key: { ...shared, steps: 4000, edits: 24, rate: 2e-3, elsewhere: 1, sharpness: 16 },
  scorer: { ...shared, steps: 2600, edits: 4, rate: 1.5e-3, library: 1500, libraries: 24 },
  rates: {
    picture: { unrelated: 0.02, near: 0.02, swapped: 0.04, elsewhere: 0.04 },
    thing: { unrelated: 0.05, near: 0.03, swapped: 0.1, elsewhere: 1 },
  },
  probes: 800,
  sizes: brackets,
  seed: 1,
};

/** Shares of the families that the key sees, and that the scorer sees beside them; the thresholds are fitted to the rest. */
const SHARES = [0.7, 0.2] as const;

/** Trains a scope and writes it into an adapter folder; returns its curve. The model is cut after `scopeCuts`. */
export async function trainScope(
  model: VisionLanguageModel,
  modelFingerprint: string,
  source: ScopeSource,
  settings: ScopeTraining,
  options: {
    readonly out: string;
    /** where what the model holds of the examples is kept */
    readonly work: string;
    /** adapter folder whose scope, of the same model, is trained on: its components and weights are begun with, at half the rates */
    readonly from?: string | undefined;
    readonly signal?: AbortSignal;
    readonly progress?: (stage: string, done: number, total: number, told?: string) => void;
  },
): Promise<readonly CurvePoint[]> {
  const layers: ScopeLayers = usualLayers(model.decoder.layers);
  const { signal, progress } = options;
  const context = { ...(signal && { signal }), ...(progress && { progress }) };
  const before = options.from === undefined ? null : await scopeToGoOnFrom(options.from, modelFingerprint);
  progress?.('Principal components', 0, 1);
  const projections =
    before?.projections ??
    rounded(await fitProjections(model, source, layers, { components: COMPONENTS, families: 60 }));
  const dataset = await encodeSource(model, modelFingerprint, source, layers, projections, {
    folder: options.work,
    ...context,
  });
  const { rows, width } = dataset.pictures;
  const shape: ScopeShape = {
    ...usualSizes,
    rows,
    pictureWidth: width,
    questionWidth: dataset.questionWidth,
  };
  if (
    before &&
    Object.entries(shape).some(([name, value]) => before.shape[name as keyof ScopeShape] !== value)
  )
    throw new EmendError(
      'invalid-input',
      `The scope of ${options.from} has another shape than is trained now. Train one from nothing.`,
    );
  const rated = <T extends { readonly rate: number }>(own: T): T =>
    before ? { ...own, rate: own.rate / 2 } : own;

  const draws = new Draws(settings.seed);
  const [first, second] = [SHARES[0], SHARES[0] + SHARES[1]].map((share) =>
    Math.floor(share * dataset.families.length),
  ) as [number, number];
  const part = (from: number, to?: number) => new Sampler(dataset, dataset.families.slice(from, to), draws);
  if (first < 2 || dataset.families.length - second < 2)
    throw new EmendError(
      'invalid-input',
      'There are too few examples to train a scope on. Give at least twenty.',
    );

  const smooth = new Map<string, number>();
  const onStep =
    (stage: string) =>
    ({
      step,
      steps,
      loss,
      terms,
    }: {
      step: number;
      steps: number;
      loss: number;
      terms: Readonly<Record<string, number>>;
    }) => {
      for (const [name, value] of Object.entries({ loss, ...terms }))
        smooth.set(name, (smooth.get(name) ?? value) * 0.97 + value * 0.03);
      const told = [...smooth].map(([name, value]) => `${name} ${value.toFixed(3)}`).join('  ');
      if (step === steps) smooth.clear();
      progress?.(stage, step, steps, told);
    };
  const run = signal ? { signal } : {};
  const key = await trainKey(
    dataset,
    part(0, first),
    shape,
    rated(settings.key),
    draws,
    { ...run, onStep: onStep('Key') },
    before?.weights('key'),
  );
  const scorer = await trainScorer(
    dataset,
    part(0, second),
    shape,
    key,
    rated(settings.scorer),
    draws,
    { ...run, onStep: onStep('Scorer') },
    before?.weights('scorer'),
  );
  const weights = roundedWeights(new Map([...key, ...scorer]));
  const { thresholds, curve } = await calibrate(dataset, part(second), shape, weights, {
    ...{ rates: settings.rates, probes: settings.probes, sizes: settings.sizes },
    ...{ draws: new Draws(settings.seed + 1), threads: settings.scorer.threads },
    ...(progress && { progress }),
  });
  const last = (list: readonly number[]) => brackets.map((_, at) => list[at] ?? list.at(-1)!);
  await writeScopeFiles(
    options.out,
    {
      scope: 'learned',
      model: modelFingerprint,
      layers,
      components: projections.components,
      shape,
      thresholds: { picture: last(thresholds.picture), thing: last(thresholds.thing) },
      curve,
      training: {
        settings,
        source: source.name,
        ...(before && { from: before.fingerprint }),
        families: dataset.families.length,
        variance: projections.kept,
      },
    },
    projections.projections,
    weights,
  );
  return curve;
}

/** A trained scope as a training begins with it. @throws EmendError 'invalid-input' unless the folder holds one of this model */
async function scopeToGoOnFrom(folder: string, model: string) {
  const found = await readScopeFiles(folder);
  if (found?.description.model !== model)
    throw new EmendError(
      'invalid-input',
      `${folder} holds no scope of this model to go on from. Give an adapter folder with scope.json, or train one from nothing.`,
    );
  const { description, projections, weights, fingerprint } = found;
  const kept = description.training?.['variance'] as Projections['kept'];
  const { components, shape } = description;
  const parts = { key: keyWeights(shape), scorer: scoreWeights(shape) };
  return {
    fingerprint,
    shape,
    projections: { components, kept, projections },
    weights: (part: keyof typeof parts): Weights =>
      new Map(
        [...parts[part].keys()].map((name) => [
          name,
          { ...weights.get(name)!, data: weights.get(name)!.data.slice() },
        ]),
      ),
  };
}

/** Layers after which a model is cut to train a scope for it. */
export function scopeCuts(layers: number): number[] {
  const { low, middle } = usualLayers(layers);
  return [low, middle];
}

const half = (values: Float32Array) => halfToFloat(floatToHalf(values));

/** As they will be read back. */
function rounded(projections: Projections): Projections {
  const entries = Object.entries(projections.projections).map(([name, { mean, directions }]) => [
    name,
    { mean: half(mean), directions: half(directions) },
  ]);
  return { ...projections, projections: Object.fromEntries(entries) };
}

function roundedWeights(weights: Weights): Weights {
  return new Map([...weights].map(([name, { shape, data }]) => [name, { shape, data: half(data) }]));
}

/** Where training keeps its work. */
export const workFolder = (adapter: string): string => join(adapter, 'training');
