/**
 * @file MEND's networks: what a linear layer read and the gradient at its output become a pseudo input and a pseudo gradient, whose
 * outer product is the change of its weight (Mitchell et al. 2022, eqs 3–5).
 */
import { EmendError } from '../../errors.ts';
import type { WeightOf } from '../../models/weights.ts';
import * as f from '../../tensor/functions.ts';
import type { Tensor } from '../../tensor/graph.ts';
import type { AdapterWeights } from '../adapterFiles.ts';

/** A linear layer that is edited. Layers of one shape share a network and have a mode of it each. */
export interface EditedModule {
  /** canonical name, without `.weight` */
  readonly name: string;
  readonly into: number;
  readonly out: number;
  readonly mode: number;
}

/** What the names of a shape's network begin with, as the published code saves them. */
export const networkName = ({ into, out }: Pick<EditedModule, 'into' | 'out'>) =>
  `aux_models.(${into}, ${out})`;

/** Linear layers by name and shape [out, in], with their modes: the index among those of one shape. */
export function editedModules(
  names: readonly string[],
  shapes: ReadonlyMap<string, readonly number[]>,
): EditedModule[] {
  const seen = new Map<string, number>();
  return names.map((name) => {
    const [out, into] = shapes.get(`${name}.weight`) as [number, number];
    const key = networkName({ into, out });
    const mode = seen.get(key) ?? 0;
    seen.set(key, mode + 1);
    return { name, into, out, mode };
  });
}

const EPSILON = 1e-7;

/**
 * Pseudo input and pseudo gradient of rows. u [rows, in] what the layer read, delta [rows, out] the gradient at its output. Both are
 * normalised by running statistics and joined; each of the network's layers adds relu((x·vᵀ·uᵀ + b)·scale + shift).
 */
export function pseudoFactors(
  u: Tensor,
  delta: Tensor,
  module: EditedModule,
  layers: number,
  weight: WeightOf,
): { readonly u: Tensor; readonly delta: Tensor } {
  const at = networkName(module);
  const normal = (x: Tensor, of: 'u' | 'v') =>
    f.divide(f.subtract(x, weight(`${at}.${of}_mean`)), f.add(weight(`${at}.${of}_std`), EPSILON));
  const width = module.into + module.out;
  const mode = (name: string) => f.slice(weight(name), 0, module.mode, module.mode + 1);
  let x = f.concat([normal(u, 'u'), normal(delta, 'v')], 1);
  for (let layer = 0; layer < layers; layer++) {
    const own = `${at}.mlp.layers.${layer}`;
    const low = f.matmul(x, weight(`${own}.v`), { b: true });
    const product = f.add(f.matmul(low, weight(`${own}.u`), { b: true }), weight(`${own}.bias`));
    const moved = f.add(
      f.multiply(product, mode(`${own}.mode_scale.weight`)),
      mode(`${own}.mode_shift.weight`),
    );
    x = f.add(x, f.relu(moved));
  }
  return { u: f.slice(x, 1, 0, module.into), delta: f.slice(x, 1, module.into, width) };
}

/** How many layers the networks have. @throws EmendError 'damaged' where weights are missing or not of their shapes */
export function networkLayers(
  modules: readonly EditedModule[],
  weights: AdapterWeights,
  where: string,
): number {
  const damaged = (name: string) =>
    new EmendError('damaged', `${where} does not hold ${name} as MEND's networks for these layers have it.`);
  const expect = (name: string, ...shape: (number | null)[]): readonly number[] => {
    const found = weights.get(name)?.shape;
    if (found?.length !== shape.length || shape.some((size, axis) => size !== null && size !== found[axis]))
      throw damaged(name);
    return found;
  };
  expect('edit_lrs', modules.length);
  let layers = 0;
  while (weights.has(`${networkName(modules[0]!)}.mlp.layers.${layers}.u`)) layers++;
  if (layers === 0) throw damaged(`${networkName(modules[0]!)}.mlp.layers.0.u`);
  for (const module of modules) {
    const at = networkName(module);
    const width = module.into + module.out;
    const modes = modules.filter(({ into, out }) => into === module.into && out === module.out).length;
    for (const [of, size] of [
      ['u', module.into],
      ['v', module.out],
    ] as const)
      for (const statistic of ['mean', 'std']) expect(`${at}.${of}_${statistic}`, size);
    for (let layer = 0; layer < layers; layer++) {
      const own = `${at}.mlp.layers.${layer}`;
      const rank = expect(`${own}.u`, width, null)[1]!;
      expect(`${own}.v`, rank, width);
      expect(`${own}.bias`, width);
      for (const part of ['scale', 'shift']) expect(`${own}.mode_${part}.weight`, modes, width);
    }
  }
  return layers;
}

/** Running mean and deviation of rows (Welford): the state before, and after more rows. */
export interface RowStatistics {
  readonly count: number;
  readonly mean: Float32Array;
  /** sum of squared deviations */
  readonly squares: Float32Array;
}

/** Takes up rows [rows, width]. */
export function withRows({ count, mean, squares }: RowStatistics, rows: Float32Array): RowStatistics {
  const width = mean.length;
  const [m, s] = [Float64Array.from(mean), Float64Array.from(squares)];
  let k = count;
  for (let at = 0; at < rows.length; at += width) {
    k++;
    for (let i = 0; i < width; i++) {
      const off = rows[at + i]! - m[i]!;
      m[i]! += off / k;
      s[i]! += off * (rows[at + i]! - m[i]!);
    }
  }
  return { count: k, mean: Float32Array.from(m), squares: Float32Array.from(s) };
}

/** √(squares / (count − 1)) */
export function deviation({ count, squares }: RowStatistics): Float32Array {
  return squares.map((value) => Math.sqrt(value / (count - 1)));
}
