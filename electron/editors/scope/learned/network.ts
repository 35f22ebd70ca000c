/**
 * @file The two networks of a learned scope, as graphs that serve training and use alike.
 *
 * Both pool the question by attention and let it look at the picture's rows. The key network makes one vector of what it sees; the
 * scorer sees an input and an edit: what each question finds in its own picture and in the other's.
 */
import { EmendError } from '../../../errors.ts';
import type { WeightOf } from '../../../models/weights.ts';
import * as f from '../../../tensor/functions.ts';
import type { Tensor } from '../../../tensor/graph.ts';

/** Sizes of a learned scope. */
export interface ScopeShape {
  /** rows of a picture, and width of each */
  readonly rows: number;
  readonly pictureWidth: number;
  /** width of a question row */
  readonly questionWidth: number;
  readonly heads: number;
  /** of a head: width of what is compared, and of what is taken */
  readonly keyHead: number;
  readonly valueHead: number;
  readonly hidden: number;
  /** of the key */
  readonly keyWidth: number;
}

export const usualSizes = { heads: 4, keyHead: 16, valueHead: 24, hidden: 256, keyWidth: 128 } as const;

/** Edits scored for an input, the best by key. */
export const CANDIDATES = 8;

/** How an ask is meant: as an input, or as an edit of either reach. */
export const roles = ['input', 'picture', 'thing'] as const;
export type Role = (typeof roles)[number];

const MEAN = 48;

function looking(prefix: string, shape: ScopeShape): Array<[string, number[]]> {
  const { rows, pictureWidth, questionWidth, heads, keyHead, valueHead } = shape;
  const [compared, taken] = [heads * keyHead, heads * valueHead];
  return [
    [`${prefix}.pool.score`, [heads, questionWidth]],
    [`${prefix}.pool.value`, [taken, questionWidth]],
    [`${prefix}.query`, [compared, taken]],
    [`${prefix}.key`, [compared, pictureWidth]],
    [`${prefix}.key.place`, [1, rows, compared]],
    [`${prefix}.value`, [taken, pictureWidth]],
    [`${prefix}.value.place`, [1, rows, taken]],
  ];
}

/** Names and sizes of the key network's weights. */
export function keyWeights(shape: ScopeShape): Map<string, readonly number[]> {
  const { hidden, keyWidth, heads, valueHead, pictureWidth } = shape;
  const taken = heads * valueHead;
  return new Map<string, readonly number[]>([
    ...looking('key', shape),
    ['key.mean', [MEAN, pictureWidth]],
    ['key.first', [hidden, 3 * taken + MEAN]],
    ['key.second', [hidden, hidden]],
    ['key.last', [keyWidth, hidden]],
    ...roles.flatMap(
      (role): Array<[string, number[]]> => [
        [`key.first.${role}`, [hidden]],
        [`key.second.${role}`, [hidden]],
      ],
    ),
  ]);
}

/** Names and sizes of the scorer's weights. */
export function scoreWeights(shape: ScopeShape): Map<string, readonly number[]> {
  const { hidden, heads, valueHead, pictureWidth } = shape;
  const taken = heads * valueHead;
  const width = 8 * taken + 2 * MEAN + heads + 2;
  return new Map<string, readonly number[]>([
    ...looking('score', shape),
    ['score.mean', [MEAN, pictureWidth]],
    ['score.norm.weight', [width]],
    ['score.norm.bias', [width]],
    ['score.first', [hidden, width]],
    ['score.first.bias', [hidden]],
    ['score.second', [hidden / 2, hidden]],
    ['score.second.bias', [hidden / 2]],
    ['score.last', [1, hidden / 2]],
    ['score.last.bias', [1]],
  ]);
}

/** Pictures and questions, and which of them each ask joins. */
export interface Asks {
  /** [pictures, rows, pictureWidth] */
  readonly pictures: Tensor;
  /** added to attention on picture rows: 0, or very negative where a row is not to be seen [pictures, 1, 1, rows] */
  readonly pictureMask: Tensor;
  /** [questions, question rows, questionWidth] */
  readonly questions: Tensor;
  /** [questions, 1, 1, question rows] */
  readonly questionMask: Tensor;
  /** int64 [asks] */
  readonly pictureOf: Tensor;
  readonly questionOf: Tensor;
}

/** What one set of weights makes of pictures and questions, before they meet. */
interface Seen {
  /** pooled questions [questions, heads·valueHead] */
  readonly pooled: Tensor;
  /** [questions, heads, 1, keyHead] */
  readonly queries: Tensor;
  /** [pictures, heads, keyHead, rows] */
  readonly keys: Tensor;
  /** [pictures, heads, rows, valueHead] */
  readonly values: Tensor;
  readonly mask: Tensor;
}

function see(prefix: string, asks: Asks, shape: ScopeShape, weight: WeightOf): Seen {
  const { heads, keyHead, valueHead } = shape;
  const at = (name: string) => weight(`${prefix}.${name}`);
  const [questions] = asks.questions.shape;
  // [questions, rows, heads] → [questions, heads, 1, rows]
  const scores = f.transpose(f.splitHeads(f.linear(asks.questions, at('pool.score')), heads), [0, 1, 3, 2]);
  const spread = f.softmax(f.add(scores, asks.questionMask));
  const found = f.matmul(spread, f.splitHeads(f.linear(asks.questions, at('pool.value')), heads));
  const pooled = f.reshape(found, [questions!, heads * valueHead]);
  const queries = f.reshape(f.linear(pooled, at('query')), [questions!, heads, 1, keyHead]);
  const rows = (name: string, head: number) =>
    f.reshape(f.add(f.linear(asks.pictures, at(name)), at(`${name}.place`)), [
      asks.pictures.shape[0]!,
      shape.rows,
      heads,
      head,
    ]);
  return {
    pooled,
    queries: f.multiply(queries, 1 / Math.sqrt(keyHead)),
    keys: f.transpose(rows('key', keyHead), [0, 2, 3, 1]),
    values: f.transpose(rows('value', valueHead), [0, 2, 1, 3]),
    mask: asks.pictureMask,
  };
}

/** Lets questions look at pictures: what they find [n, heads·valueHead], and where [n, heads, rows]. */
function look(seen: Seen, questionOf: Tensor, pictureOf: Tensor, shape: ScopeShape) {
  const [count] = questionOf.shape;
  const scores = f.matmul(f.gather(seen.queries, questionOf), f.gather(seen.keys, pictureOf));
  const where = f.softmax(f.add(scores, f.gather(seen.mask, pictureOf)));
  const found = f.matmul(where, f.gather(seen.values, pictureOf));
  return {
    found: f.reshape(found, [count!, shape.heads * shape.valueHead]),
    where: f.reshape(where, [count!, shape.heads, shape.rows]),
  };
}

/** Mean of a picture's rows, narrowed [pictures, 48]. */
const meanPicture = (prefix: string, { pictures }: Asks, weight: WeightOf) =>
  f.linear(f.mean(pictures, [1]), weight(`${prefix}.mean`));

/**
 * Unit keys of asks in each role [asks, keyWidth]. `kept`: dropout, by what hidden values are multiplied [asks, hidden]; none in use.
 */
export function keysOf(
  asks: Asks,
  shape: ScopeShape,
  weight: WeightOf,
  kept: Tensor | null,
): Record<Role, Tensor> {
  const seen = see('key', asks, shape, weight);
  const pooled = f.gather(seen.pooled, asks.questionOf);
  const { found } = look(seen, asks.questionOf, asks.pictureOf, shape);
  const mean = f.gather(meanPicture('key', asks, weight), asks.pictureOf);
  const all = f.concat([pooled, found, f.multiply(pooled, found), mean], 1);
  const first = f.linear(all, weight('key.first'));
  const keyAs = (role: Role) => {
    const one = f.gelu(f.add(first, weight(`key.first.${role}`)));
    const two = f.gelu(
      f.linear(kept ? f.multiply(one, kept) : one, weight('key.second'), weight(`key.second.${role}`)),
    );
    const key = f.linear(two, weight('key.last'));
    return f.divide(key, f.sqrt(f.add(f.sum(f.multiply(key, key), [1], true), 1e-8)));
  };
  return { input: keyAs('input'), picture: keyAs('picture'), thing: keyAs('thing') };
}

/** Pairs of an input and an edit. */
export interface Pairs {
  /** places among the asks, int64 [pairs] */
  readonly input: Tensor;
  readonly edit: Tensor;
  /** 1 for the edit's reach: picture, thing [pairs, 2] */
  readonly reach: Tensor;
}

/** Logits of edits acting on inputs [pairs]. `kept` as in {@link keysOf}. */
export function scoresOf(
  asks: Asks,
  pairs: Pairs,
  shape: ScopeShape,
  weight: WeightOf,
  kept: Tensor | null,
): Tensor {
  const seen = see('score', asks, shape, weight);
  const of = (side: 'input' | 'edit') => ({
    picture: f.gather(asks.pictureOf, pairs[side]),
    question: f.gather(asks.questionOf, pairs[side]),
  });
  const [input, edit] = [of('input'), of('edit')];
  const looks = look(seen, asks.questionOf, asks.pictureOf, shape);
  const own = {
    input: f.gather(looks.found, pairs.input),
    edit: f.gather(looks.found, pairs.edit),
    where: f.gather(looks.where, pairs.edit),
  };
  // the edit's question on the input's picture, and the reverse
  const editThere = look(seen, edit.question, input.picture, shape);
  const inputThere = look(seen, input.question, edit.picture, shape);
  const asked = [f.gather(seen.pooled, input.question), f.gather(seen.pooled, edit.question)] as const;
  const means = meanPicture('score', asks, weight);
  const squares = (a: Tensor, b: Tensor) => {
    const difference = f.subtract(a, b);
    return f.multiply(difference, difference);
  };
  const compared = (a: Tensor, b: Tensor) => [squares(a, b), f.multiply(a, b)];
  const all = f.concat(
    [
      ...compared(asked[0], asked[1]),
      ...compared(own.edit, editThere.found),
      ...compared(own.input, inputThere.found),
      ...compared(own.input, own.edit),
      ...compared(f.gather(means, input.picture), f.gather(means, edit.picture)),
      f.sum(f.multiply(own.where, editThere.where), [2]),
      pairs.reach,
    ],
    1,
  );
  const normal = f.layerNorm(all, weight('score.norm.weight'), weight('score.norm.bias'), 1e-5);
  const one = f.gelu(f.linear(normal, weight('score.first'), weight('score.first.bias')));
  const two = f.gelu(
    f.linear(kept ? f.multiply(one, kept) : one, weight('score.second'), weight('score.second.bias')),
  );
  const [count] = pairs.input.shape;
  return f.reshape(f.linear(two, weight('score.last'), weight('score.last.bias')), [count!]);
}

/** Weights to start from: normal with deviation 1/√inputs, places small, biases 0, norms 1. */
export function startWeights(
  wanted: ReadonlyMap<string, readonly number[]>,
  normal: () => number,
): Map<string, { shape: readonly number[]; data: Float32Array }> {
  return new Map(
    [...wanted].map(([name, shape]) => {
      const count = shape.reduce((a, b) => a * b, 1);
      const inputs = shape.length === 2 ? shape[1]! : 0;
      const scale = name.endsWith('.place') ? 0.02 : inputs > 0 ? 1 / Math.sqrt(inputs) : 0;
      const data = name.endsWith('norm.weight')
        ? new Float32Array(count).fill(1)
        : Float32Array.from({ length: count }, () => scale * normal());
      return [name, { shape, data }];
    }),
  );
}

/** Throws `damaged` unless the weights are those of these networks. */
export function checkWeights(
  weights: ReadonlyMap<string, { readonly shape: readonly number[] }>,
  shape: ScopeShape,
  where: string,
): void {
  for (const [name, expected] of [...keyWeights(shape), ...scoreWeights(shape)]) {
    const found = weights.get(name)?.shape;
    if (found?.join() !== expected.join())
      throw new EmendError(
        'damaged',
        `${where}: ${name} is ${found ? `[${found.join(', ')}]` : 'missing'} and should be [${expected.join(', ')}].`,
      );
  }
}
