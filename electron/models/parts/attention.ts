/** @file Attention as decoders and vision towers share it. */
import * as f from '../../tensor/functions.ts';
import type { Tensor } from '../../tensor/graph.ts';
import type { DecoderSizes, RotaryTables } from '../decoder.ts';

/** (−x₂, x₁) of x = (x₁, x₂) split in half along the last axis, as Hugging Face's Llama rotates. */
function rotateHalf(x: Tensor): Tensor {
  const size = x.shape[3] as number;
  return f.concat([f.negate(f.slice(x, 3, size / 2, size)), f.slice(x, 3, 0, size / 2)], 3);
}

/** Rotates x [batch, heads, rows, size] by tables of its rows; unchanged without tables. */
export function rotate(x: Tensor, { cosine, sine }: RotaryTables): Tensor {
  return cosine && sine ? f.add(f.multiply(x, cosine), f.multiply(rotateHalf(x), sine)) : x;
}

/** Attention of `query` [b, heads, rows, size] over `key`, `value` [b, key-value heads, total, size] → [b, rows, heads·size]. */
export function attend(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  mask: Tensor,
  { heads, keyValueHeads, headDim }: DecoderSizes,
): Tensor {
  const scaled = f.multiply(query, 1 / Math.sqrt(headDim));
  const scores = (q: Tensor, k: Tensor, v: Tensor, m: Tensor) =>
    f.matmul(f.softmax(f.add(f.matmul(q, k, { b: true }), m)), v);
  if (heads === keyValueHeads) return f.mergeHeads(scores(scaled, key, value, mask));
  // Grouped queries: the heads of a group share a key and a value head, so both are broadcast, not copied.
  const group = (x: Tensor, count: number) =>
    f.reshape(x, [x.shape[0]!, keyValueHeads, count, x.shape[2]!, headDim]);
  const wide = f.reshape(mask, [mask.shape[0]!, 1, 1, mask.shape[2]!, mask.shape[3]!]);
  const mixed = scores(group(scaled, heads / keyValueHeads), group(key, 1), group(value, 1), wide);
  return f.mergeHeads(f.reshape(mixed, [mixed.shape[0]!, heads, mixed.shape[3]!, headDim]));
}

/** Attention of every row over every row, heads apart. query, key, value [batch, heads, rows, size], mask broadcast over scores → [batch, rows, heads·size]. */
export function attendAll(query: Tensor, key: Tensor, value: Tensor, mask?: Tensor): Tensor {
  const size = query.shape[3] as number;
  const scores = f.matmul(f.multiply(query, 1 / Math.sqrt(size)), key, { b: true });
  return f.mergeHeads(f.matmul(f.softmax(mask ? f.add(scores, mask) : scores), value));
}
