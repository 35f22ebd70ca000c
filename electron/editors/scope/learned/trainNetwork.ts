/**
 * @file The loop that trains a network of a scope: Adam with a cosine schedule, on inputs disturbed by noise and masked rows.
 */
import { EmendError } from '../../../errors.ts';
import type { Graph, Tensor } from '../../../tensor/graph.ts';
import type { Value } from '../../../tensor/session.ts';
import { Trainer } from '../../../training/trainer.ts';
import type { Disturbance } from './feeding.ts';
import type { Draws } from './sampling.ts';

export type Weights = Map<string, { readonly shape: readonly number[]; readonly data: Float32Array }>;

export interface NetworkTraining {
  readonly steps: number;
  readonly rate: number;
  /** of the inputs, in standard deviations */
  readonly noise: number;
  /** share of visual rows left out, 0..1 */
  readonly masked: number;
  readonly dropout: number;
  readonly threads: number;
}

export interface TrainContext {
  readonly signal?: AbortSignal;
  readonly onStep?: (told: {
    step: number;
    steps: number;
    loss: number;
    terms: Readonly<Record<string, number>>;
  }) => void;
}

/** Trains `weights` in place on what `feeds` draws for each step. Throws `cancelled` when the signal is aborted. */
export async function trainNetwork(
  graph: Graph,
  network: {
    readonly loss: Tensor;
    readonly terms: Readonly<Record<string, Tensor>>;
    readonly weights: Weights;
  },
  settings: NetworkTraining,
  draws: Draws,
  context: TrainContext,
  feeds: (disturbance: Disturbance, step: number) => Promise<Record<string, Value>>,
): Promise<Weights> {
  const { steps, rate, noise, masked, threads } = settings;
  const { loss, terms, weights } = network;
  const trainer = await Trainer.create(
    graph,
    loss,
    terms,
    weights,
    {
      schedule: { peak: rate, warmUp: Math.min(100, steps / 10), decay: 'cosine', steps, floor: 0.03 },
      beta1: 0.9,
      beta2: 0.98,
      epsilon: 1e-8,
      weightDecay: 0.01,
      clipNorm: 1,
    },
    { providers: ['cpu'], threads },
  );
  const normals = Float32Array.from({ length: 1 << 21 }, draws.normal);
  const disturbance: Disturbance = { noise, masked, uniform: draws.uniform, normals };
  try {
    for (let step = 0; step < steps; step++) {
      if (context.signal?.aborted) throw new EmendError('cancelled', 'Training was stopped.');
      const told = await trainer.step(await feeds(disturbance, step));
      context.onStep?.({ ...told, step: step + 1, steps });
    }
  } finally {
    await trainer.dispose();
  }
  return weights;
}
