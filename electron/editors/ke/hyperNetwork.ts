/**
 * @file KE's hyper-network: an LSTM reads the edit, and for each weight a mask, an offset and a scale come of what it read
 * (De Cao et al. 2021, eqs 4–6).
 */
import { EmendError } from '../../errors.ts';
import type { WeightOf } from '../../models/weights.ts';
import * as f from '../../tensor/functions.ts';
import type { Tensor } from '../../tensor/graph.ts';
import type { AdapterWeights } from '../adapterFiles.ts';

/** A weight that is edited: outputs and inputs of its linear layer. */
export interface EditedWeight {
  /** canonical name of the linear layer, without `.weight` */
  readonly name: string;
  readonly out: number;
  readonly into: number;
}

/** What is read of an edit: tanh of a linear layer of the LSTM's last states [1, 2·width] → [1, condition]. */
export function condition(read: Tensor, weight: WeightOf): Tensor {
  return f.tanh(f.linear(read, weight('hyper.linear.weight'), weight('hyper.linear.bias')));
}

/** x·Wᵀ + b with W = g·v/|v| by rows (weight normalisation), its outputs scaled in place of the rows. x [1, in] → [1, out]. */
function normedLinear(x: Tensor, name: string, weight: WeightOf): Tensor {
  const [v, g] = [weight(`${name}.weight_v`), weight(`${name}.weight_g`)];
  const scale = f.reshape(f.divide(g, f.sqrt(f.sumOfSquares(v, [1], true))), [1, g.shape[0]!]);
  return f.add(f.multiply(f.linear(x, v), scale), weight(`${name}.bias`));
}

/**
 * ΔW = maxScale·σ(η)·(gradient ∘ softmax(row a)·col aᵀ + softmax(row b)·col bᵀ) [out, in]. gradient [out, in] of the edit's loss;
 * conditioned [1, condition]; `at`: the weight's place among those edited.
 */
export function weightOffset(
  gradient: Tensor,
  conditioned: Tensor,
  { out, into }: EditedWeight,
  at: number,
  maxScale: number,
  weight: WeightOf,
): Tensor {
  const inner = f.tanh(normedLinear(conditioned, `hyper.cond.${at}.0`, weight));
  const all = normedLinear(inner, `hyper.cond.${at}.1`, weight);
  let begin = 0;
  const [colA, rowA, colB, rowB, eta] = [into, out, into, out, 1].map((size) => {
    begin += size;
    return f.slice(all, 1, begin - size, begin);
  }) as [Tensor, Tensor, Tensor, Tensor, Tensor];
  const outer = (row: Tensor, column: Tensor) => f.matmul(f.softmax(row), column, { a: true });
  const moved = f.add(f.multiply(gradient, outer(rowA, colA)), outer(rowB, colB));
  return f.multiply(moved, f.multiply(f.sigmoid(eta), maxScale));
}

/** @throws EmendError 'damaged' where weights are missing or not of their shapes */
export function checkHyperNetwork(
  edited: readonly EditedWeight[],
  hidden: number,
  weights: AdapterWeights,
  where: string,
): void {
  const expect = (name: string, ...shape: (number | null)[]): readonly number[] => {
    const found = weights.get(name)?.shape;
    if (found?.length !== shape.length || shape.some((size, axis) => size !== null && size !== found[axis]))
      throw new EmendError(
        'damaged',
        `${where} does not hold ${name} as KE's hyper-network for these weights has it.`,
      );
    return found;
  };
  let width = 0;
  for (const suffix of ['', '_reverse']) {
    width = expect(`hyper.lstm.weight_hh_l0${suffix}`, null, null)[1]!;
    expect(`hyper.lstm.weight_hh_l0${suffix}`, 4 * width, width);
    expect(`hyper.lstm.weight_ih_l0${suffix}`, 4 * width, hidden);
    for (const bias of ['ih', 'hh']) expect(`hyper.lstm.bias_${bias}_l0${suffix}`, 4 * width);
  }
  const size = expect('hyper.linear.weight', null, 2 * width)[0]!;
  expect('hyper.linear.bias', size);
  for (const [at, { out, into }] of edited.entries()) {
    const inner = expect(`hyper.cond.${at}.0.weight_v`, null, size)[0]!;
    expect(`hyper.cond.${at}.0.weight_g`, inner, 1);
    expect(`hyper.cond.${at}.0.bias`, inner);
    const all = 2 * (out + into) + 1;
    expect(`hyper.cond.${at}.1.weight_v`, all, inner);
    expect(`hyper.cond.${at}.1.weight_g`, all, 1);
    expect(`hyper.cond.${at}.1.bias`, all);
  }
}
