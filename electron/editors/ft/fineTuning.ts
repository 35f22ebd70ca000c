/**
 * @file Fine-tuning on one edit: AdamW on the mean negative log likelihood of the target, weights kept near where they were.
 */
import { z } from 'zod';
import type { WeightChange, WeightChanges } from '../../models/weightChanges.ts';
import { float32, floatsOf, type Value } from '../../tensor/session.ts';
import { Adam, adamDefaults } from '../../training/optimizer.ts';
import { betweenSteps, type Work } from '../weightEditor.ts';

/** Settings with the published code's values. */
export const FineTuning = z.object({
  rate: z.number().positive().max(1).default(1e-3).describe('Learning rate of AdamW, without decay'),
  steps: z.int().min(1).max(10_000).default(25).describe('Most steps of an edit'),
  stopBelow: z.number().min(0).default(1e-2).describe('The edit is done when its loss is below this'),
  norm: z
    .number()
    .positive()
    .nullable()
    .default(null)
    .describe('Each weight stays within this distance of what it was; none where empty'),
});
export type FineTuning = z.infer<typeof FineTuning>;

export interface Tuned {
  readonly changes: WeightChanges;
  /** what is added to each tensor, by canonical name */
  readonly deltas: Deltas;
  /** the loss before each step, and the one at which it stopped */
  readonly losses: readonly number[];
  /** gradients of the first step */
  readonly firstGradients: Deltas;
}

/** What is added to each tensor, by canonical name. */
export type Deltas = ReadonlyMap<string, Float32Array>;

/** Feeds `delta.NAME` of graphs made with `deltaWeights`. */
export function deltaFeeds(
  deltas: Deltas,
  shapes: ReadonlyMap<string, readonly number[]>,
): Record<string, Value> {
  return Object.fromEntries(
    [...deltas].map(([name, data]) => [`delta.${name}`, float32(data, shapes.get(name)!)]),
  );
}

/** The outputs `gradient.NAME` of a run. */
export async function gradientsOf(
  out: Readonly<Record<string, Value>>,
  names: Iterable<string>,
): Promise<Map<string, Float32Array>> {
  const found = new Map<string, Float32Array>();
  for (const name of names) found.set(name, await floatsOf(out[`gradient.${name}`]!));
  return found;
}

/**
 * Steps down a loss of what is added to the tensors of `shapes`. `evaluate` gives the loss, and its gradients when asked for them.
 * No step is taken from a loss below `stopBelow`.
 */
export async function descend(
  evaluate: (deltas: Deltas) => Promise<{ readonly loss: number; gradients(): Promise<Deltas> }>,
  shapes: ReadonlyMap<string, readonly number[]>,
  { rate, steps, stopBelow, norm }: FineTuning,
  work: Work,
): Promise<Omit<Tuned, 'changes'>> {
  const parameters = new Map(
    [...shapes].map(([name, shape]) => {
      const size = shape.reduce((a, b) => a * b, 1);
      return [name, { shape, data: new Float32Array(size) }] as const;
    }),
  );
  const deltas = new Map([...parameters].map(([name, { data }]) => [name, data]));
  const adam = new Adam(parameters, adamDefaults(rate));
  const losses: number[] = [];
  let firstGradients: Deltas = new Map();
  for (let step = 0; step < steps; step++) {
    await betweenSteps(work, step, steps);
    const { loss, gradients: asked } = await evaluate(deltas);
    losses.push(loss);
    if (loss < stopBelow) break;
    const gradients = await asked();
    if (step === 0) firstGradients = gradients;
    adam.update(gradients);
    if (norm === null) continue;
    for (const { data } of parameters.values())
      for (let i = 0; i < data.length; i++) data[i] = Math.max(-norm, Math.min(norm, data[i]!));
  }
  return { deltas, losses, firstGradients };
}

/** What a model must have made changeable for tensors to be tuned, by `WeightChanges`' names. */
export function changeableOf(
  names: readonly string[],
  shapes: ReadonlyMap<string, readonly number[]>,
): string[] {
  return names.map((name) => (shapes.get(name)!.length === 2 ? name.replace(/\.weight$/, '') : name));
}

/** What is added to tensors, as changes: matrices of linear layers, and tensors of one axis. */
export function changesOf(deltas: Deltas, shapes: ReadonlyMap<string, readonly number[]>): WeightChanges {
  const changes = new Map<string, WeightChange>();
  for (const [name, delta] of deltas) {
    const [out, into] = shapes.get(name)!;
    if (into === undefined) changes.set(name, { added: delta });
    else changes.set(name.replace(/\.weight$/, ''), { out: out!, matrix: delta });
  }
  return changes;
}
