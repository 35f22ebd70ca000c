/**
 * @file Fine-tuning on one edit: AdamW on the mean negative log likelihood of the target, weights kept near where they were.
 */
import { z } from 'zod';
import type { WeightChange, WeightChanges } from '../../models/weightChanges.ts';
import { float32, floatsOf, type Session, type Value } from '../../tensor/session.ts';
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
  readonly deltas: ReadonlyMap<string, Float32Array>;
  /** the loss before each step, and the one at which it stopped */
  readonly losses: readonly number[];
  /** gradients of the first step */
  readonly firstGradients: ReadonlyMap<string, Float32Array>;
}

/**
 * Steps down the loss of a graph whose inputs `delta.NAME` are what is added to the tensors of `shapes`, and whose outputs are `loss` and
 * `gradient.NAME`. No step is taken from a loss below `stopBelow`.
 */
export async function descend(
  session: Session,
  feeds: Readonly<Record<string, Value>>,
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
  const adam = new Adam(parameters, adamDefaults(rate));
  const losses: number[] = [];
  let firstGradients: ReadonlyMap<string, Float32Array> = new Map();
  for (let step = 0; step < steps; step++) {
    await betweenSteps(work, step, steps);
    const deltas = Object.fromEntries(
      [...parameters].map(([name, { shape, data }]) => [`delta.${name}`, float32(data, shape)]),
    );
    const out = await session.run({ ...feeds, ...deltas });
    const loss = (await floatsOf(out['loss']!))[0]!;
    losses.push(loss);
    if (loss < stopBelow) break;
    const gradients = new Map<string, Float32Array>();
    for (const name of shapes.keys()) gradients.set(name, await floatsOf(out[`gradient.${name}`]!));
    if (step === 0) firstGradients = gradients;
    adam.update(gradients);
    if (norm === null) continue;
    for (const { data } of parameters.values())
      for (let i = 0; i < data.length; i++) data[i] = Math.max(-norm, Math.min(norm, data[i]!));
  }
  const deltas = new Map([...parameters].map(([name, { data }]) => [name, data]));
  return { deltas, losses, firstGradients };
}

/** What is added to tensors, as changes: matrices of linear layers, and tensors of one axis. */
export function changesOf(
  deltas: ReadonlyMap<string, Float32Array>,
  shapes: ReadonlyMap<string, readonly number[]>,
): WeightChanges {
  const changes = new Map<string, WeightChange>();
  for (const [name, delta] of deltas) {
    const [out, into] = shapes.get(name)!;
    if (into === undefined) changes.set(name, { added: delta });
    else changes.set(name.replace(/\.weight$/, ''), { out: out!, matrix: delta });
  }
  return changes;
}
