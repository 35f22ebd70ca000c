/**
 * @file The graph of a Visual Edit Adapter (VEAD) with its Influence Mapper: VisEdit eqs. 9–11, in the form of the
 * published weights (LayerNorms, several heads, biases), so that published adapters load.
 */
import { EmendError } from '../../errors.ts';
import type { WeightOf } from '../../models/weights.ts';
import { type Dim, productOfDims } from '../../tensor/dims.ts';
import * as f from '../../tensor/functions.ts';
import type { Tensor } from '../../tensor/graph.ts';

/** Kinds of rows of an edit signal, in the order of the row-kind weights. */
export const rowKinds = ['beginning', 'visual', 'prompt', 'target'] as const;

/** The kind of each row of a signal, an index of `rowKinds`: what stands before the picture, its rows, the prompt, the target. */
export function kindsOfRows(rows: number, imageRows: readonly number[], lastPromptRow: number): number[] {
  const visual = new Set(imageRows);
  return Array.from({ length: rows }, (_, row) => {
    if (visual.has(row)) return 1;
    if (row < imageRows[0]!) return 0;
    return row <= lastPromptRow ? 2 : 3;
  });
}

export const influenceKeys = ['last-token', 'prompt'] as const;
export type InfluenceKey = (typeof influenceKeys)[number];

export interface AdapterShape {
  /** width of the decoder */
  readonly hidden: number;
  /** width of the cross-attention (d_a) */
  readonly middle: number;
  /** width inside the influence mapper's MLPs */
  readonly influenceMiddle: number;
  readonly heads: number;
  /** true: the influence mapper gates the change; false: it acts everywhere */
  readonly influenceMapper: boolean;
  /**
   * What the mapper compares visual rows with. `last-token`, as published and when absent: the last prompt token, which at a low layer
   * holds little of the words before it. `prompt`: that token and what it gathers from the prompt's rows by one more attention.
   */
  readonly influenceKey?: InfluenceKey | undefined;
  /**
   * `published`: attention finds its way among all rows of the signal by content alone.
   * `row-kinds`: each kind of row (beginning, visual, prompt, target) has a learnt embedding and a learnt bias per head.
   */
  readonly attention: 'published' | 'row-kinds';
}

const layerNormEpsilon = 1e-5;

/** Names and shapes of an adapter's weights, as in the published state dict. */
export function adapterWeights(shape: AdapterShape): Map<string, readonly number[]> {
  const { hidden, middle, influenceMiddle, heads } = shape;
  const weights = new Map<string, readonly number[]>();
  const dense = (name: string, out: number, into: number) => {
    weights.set(`${name}.weight`, [out, into]);
    weights.set(`${name}.bias`, [out]);
  };
  const norm = (name: string) => {
    weights.set(`${name}.weight`, [hidden]);
    weights.set(`${name}.bias`, [hidden]);
  };
  norm('ln_img_reps');
  norm('ln_edit_reps');
  dense('mlp_begin', middle, hidden);
  dense('cross_att_q_mlp', middle, middle);
  dense('cross_att_k_mlp', middle, hidden);
  dense('cross_att_v_mlp', middle, hidden);
  dense('mlp_end', hidden, middle);
  if (shape.attention === 'row-kinds') {
    weights.set('row_kind.embedding', [rowKinds.length, hidden]);
    weights.set('row_kind.bias', [heads, rowKinds.length]);
  }
  if (shape.influenceMapper) {
    norm('influence_mapper.ln_img_reps');
    norm('influence_mapper.ln_edit_reps');
    for (const side of ['img_map', 'prompt_token_map']) {
      dense(`influence_mapper.${side}.l_in`, influenceMiddle, hidden);
      dense(`influence_mapper.${side}.l_out`, hidden, influenceMiddle);
    }
    if (shape.influenceKey === 'prompt') {
      norm('influence_mapper.prompt_attention.ln_rows');
      for (const part of ['q', 'k', 'v', 'out'])
        dense(`influence_mapper.prompt_attention.${part}`, hidden, hidden);
    }
  }
  return weights;
}

/**
 * Edit signals as the adapter's graph takes them. The rows that are adapted to them may be several groups of as many sequences, one group behind
 * the other: each is adapted to the same signals.
 */
export interface SignalInputs {
  /** output of the edit layer on (image, prompt ⊕ target) [batch, signal rows, hidden] */
  readonly rows: Tensor;
  /** the row of the last prompt token [batch, hidden] */
  readonly key: Tensor;
  /** added to attention scores: 0 for rows of the signal, very negative for padding [batch, 1, 1, signal rows]; absent: no padding */
  readonly mask?: Tensor;
  /** one-hot kinds of the rows [batch, signal rows, 4]; needed by `row-kinds` attention */
  readonly kinds?: Tensor;
}

/** What the influence mapper takes for an edit's prompt [batch, hidden]; see `AdapterShape.influenceKey`. */
export function influenceKeyOf(signal: SignalInputs, shape: AdapterShape, weight: WeightOf): Tensor {
  if (shape.influenceKey !== 'prompt') return signal.key;
  if (!signal.kinds)
    throw new EmendError('internal', 'A mapper of all prompt tokens needs the kinds of the signal rows.');
  const { hidden, heads } = shape;
  const at = (name: string) => weight(`influence_mapper.prompt_attention.${name}`);
  const norm = (x: Tensor) => f.layerNorm(x, at('ln_rows.weight'), at('ln_rows.bias'), layerNormEpsilon);
  const dense = (x: Tensor, name: string) => f.linear(x, at(`${name}.weight`), at(`${name}.bias`));
  const [batch, rows] = signal.rows.shape;
  const source = norm(signal.rows);
  const last = f.reshape(norm(signal.key), [batch!, 1, hidden]);
  const query = f.splitHeads(dense(last, 'q'), heads);
  const key = f.splitHeads(dense(source, 'k'), heads);
  const value = f.splitHeads(dense(source, 'v'), heads);
  const isPrompt = f.slice(signal.kinds, 2, rowKinds.indexOf('prompt'), rowKinds.indexOf('prompt') + 1);
  const mask = f.multiply(f.subtract(f.reshape(isPrompt, [batch!, 1, 1, rows!]), 1), 1e9);
  const scores = f.add(f.divide(f.matmul(query, key, { b: true }), Math.sqrt(hidden / heads)), mask);
  const gathered = f.mergeHeads(f.matmul(f.softmax(scores), value));
  return f.add(signal.key, f.reshape(dense(gathered, 'out'), [batch!, hidden]));
}

/**
 * Logits of the influence map (VisEdit eq. 10 before σ). rows [groups·batch, n, hidden], key [batch, hidden] → [groups·batch, n].
 * The mean over heads of per-head dot products over √(hidden/heads) is one dot product over heads·√(hidden/heads).
 */
export function influenceLogits(rows: Tensor, key: Tensor, shape: AdapterShape, weight: WeightOf): Tensor {
  const at = (name: string) => weight(`influence_mapper.${name}`);
  const map = (x: Tensor, norm: string, mlp: string) => {
    const normed = f.layerNorm(x, at(`${norm}.weight`), at(`${norm}.bias`), layerNormEpsilon);
    const inner = f.relu(f.linear(normed, at(`${mlp}.l_in.weight`), at(`${mlp}.l_in.bias`)));
    return f.add(normed, f.linear(inner, at(`${mlp}.l_out.weight`), at(`${mlp}.l_out.bias`)));
  };
  const [batch, count] = rows.shape;
  const image = map(rows, 'ln_img_reps', 'img_map');
  const mapped = map(key, 'ln_edit_reps', 'prompt_token_map');
  const groups = (batch as number) / (key.shape[0] as number);
  const prompts = groups === 1 ? mapped : f.concat(new Array<Tensor>(groups).fill(mapped), 0);
  const prompt = f.reshape(prompts, [batch!, shape.hidden, 1]);
  const dots = f.reshape(f.matmul(image, prompt), [batch!, count!], rows);
  return f.divide(dots, shape.heads * Math.sqrt(shape.hidden / shape.heads));
}

/** What cross-attention would add to rows (VisEdit eq. 9). rows [groups·batch, n, hidden] → the same shape. */
export function crossAttention(
  rows: Tensor,
  signal: SignalInputs,
  shape: AdapterShape,
  weight: WeightOf,
): Tensor {
  const norm = (x: Tensor, name: string) =>
    f.layerNorm(x, weight(`${name}.weight`), weight(`${name}.bias`), layerNormEpsilon);
  const dense = (x: Tensor, name: string) => f.linear(x, weight(`${name}.weight`), weight(`${name}.bias`));
  let source = norm(signal.rows, 'ln_edit_reps');
  let kindBias: Tensor | undefined;
  if (shape.attention === 'row-kinds') {
    if (!signal.kinds)
      throw new EmendError('internal', 'Row-kind attention needs the kinds of the signal rows.');
    source = f.add(source, f.matmul(signal.kinds, weight('row_kind.embedding')));
    // [batch, rows, kinds]·[heads, kinds]ᵀ → [batch, heads, 1, rows]
    const perHead = f.transpose(f.matmul(signal.kinds, weight('row_kind.bias'), { b: true }), [0, 2, 1]);
    const [batch, heads, count] = perHead.shape;
    kindBias = f.reshape(perHead, [batch!, heads!, 1, count!]);
  }
  const normed = norm(rows, 'ln_img_reps');
  const together = groupsTogether(normed, signal.rows);
  const query = f.splitHeads(queries(together, together !== normed, shape, weight), shape.heads);
  const key = f.splitHeads(dense(source, 'cross_att_k_mlp'), shape.heads);
  const value = f.splitHeads(dense(source, 'cross_att_v_mlp'), shape.heads);
  let scores = f.divide(f.matmul(query, key, { b: true }), Math.sqrt(shape.middle / shape.heads));
  if (kindBias) scores = f.add(scores, kindBias);
  if (signal.mask) scores = f.add(scores, signal.mask);
  return groupsApart(dense(f.mergeHeads(f.matmul(f.softmax(scores), value)), 'mlp_end'), rows);
}

/**
 * Two linear layers with nothing between them. x [batch, n, hidden] → [batch, n, middle]. Where groups of a training are many rows of a narrow
 * decoder, their product is made first: it is smaller than what it is made of for so many rows.
 */
function queries(x: Tensor, ofGroups: boolean, { hidden, middle }: AdapterShape, weight: WeightOf): Tensor {
  const [into, out] = ['mlp_begin', 'cross_att_q_mlp'];
  if (!ofGroups || hidden >= middle)
    return f.linear(
      f.linear(x, weight(`${into}.weight`), weight(`${into}.bias`)),
      weight(`${out}.weight`),
      weight(`${out}.bias`),
    );
  const product = f.matmul(weight(`${out}.weight`), weight(`${into}.weight`));
  const between = f.reshape(weight(`${into}.bias`), [1, middle]);
  const bias = f.linear(between, weight(`${out}.weight`), weight(`${out}.bias`));
  return f.linear(x, product, f.reshape(bias, [middle]));
}

/** Rows of all groups that are adapted to a signal behind one another: x [groups·batch, n, width] → [batch, groups·n, width]. */
function groupsTogether(x: Tensor, signal: Tensor): Tensor {
  const [all, count, width] = x.shape as [number, Dim, number];
  const batch = signal.shape[0] as number;
  if (all === batch) return x;
  const groups = all / batch;
  if (!Number.isInteger(groups))
    throw new EmendError('internal', `${all} sequences are no groups of ${batch}.`);
  const apart = f.transpose(f.reshape(x, [groups, batch, count, width]), [1, 0, 2, 3]);
  return f.reshape(apart, [batch, productOfDims([groups, count]), width]);
}

/** The other way: x [batch, groups·n, width] → the shape of `rows` [groups·batch, n, width]. */
function groupsApart(x: Tensor, rows: Tensor): Tensor {
  const [batch, , width] = x.shape as [number, Dim, number];
  const [all, count] = rows.shape as [number, Dim];
  if (all === batch) return x;
  const groups = f.transpose(f.reshape(x, [batch, all / batch, count, width], rows), [1, 0, 2, 3]);
  return f.reshape(groups, [all, count, width], rows);
}

export interface Adapted {
  /** the change before the influence map [batch, n, hidden] */
  readonly change: Tensor;
  /** logits of the influence map [batch, n]; undefined without an influence mapper */
  readonly logits: Tensor | undefined;
  /** σ of the logits */
  readonly influence: Tensor | undefined;
  /** adapted visual rows [batch, n, hidden] (VisEdit eq. 11) */
  readonly rows: Tensor;
}

/** Adapts visual rows to an edit. `scale` multiplies the change (folded into `mlp_end` when an adapter is saved). */
export function adaptRows(
  rows: Tensor,
  signal: SignalInputs,
  shape: AdapterShape,
  weight: WeightOf,
  scale = 1,
): Adapted {
  const raw = crossAttention(rows, signal, shape, weight);
  const change = scale === 1 ? raw : f.multiply(raw, scale);
  if (!shape.influenceMapper)
    return { change, logits: undefined, influence: undefined, rows: f.add(rows, change) };
  const logits = influenceLogits(rows, influenceKeyOf(signal, shape, weight), shape, weight);
  const influence = f.sigmoid(logits);
  const gate = f.reshape(influence, [rows.shape[0]!, rows.shape[1]!, 1], rows);
  return { change, logits, influence, rows: f.add(rows, f.multiply(change, gate)) };
}
