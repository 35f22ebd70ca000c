/**
 * @file Weights that a Visual Edit Adapter's training starts from.
 */
import { EmendError } from '../../errors.ts';
import type { AdapterWeights } from '../adapterFiles.ts';
import { uniformNumbers } from '../training/startingWeights.ts';
import { type AdapterShape, adapterWeights, rowKinds } from './adapterGraph.ts';

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
  const uniform = uniformNumbers(seed);
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
    // What the mapper gathers begins as nothing: it starts as the published one.
    if (name.startsWith('influence_mapper.prompt_attention.out.')) data.fill(0);
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
