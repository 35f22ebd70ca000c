/**
 * @file How far the attention output at one row turns when noise is put on rows it reads (VisEdit eqs. 6–8), for all
 * perturbations of all inputs in one run.
 *
 * A perturbation changes the keys and values of a few rows and nothing else: the query is the key row's, which is not
 * perturbed. So the attention over the unchanged rows is worked out once for each perturbation, whatever the draw, as one
 * row of its own: its value is their weighted mean and its score the log of the sum of their exponentials. Each draw then
 * is an attention over that row and the changed ones. Adding up this way never subtracts what a row had contributed,
 * which would cancel in float32 where one row holds almost all the attention.
 */
import { EmendError } from '../errors.ts';
import type { RotaryTables } from '../models/decoder.ts';
import { forbidden, type Positions } from '../models/positions.ts';
import type { Weights } from '../models/weights.ts';
import { productOfDims } from '../tensor/dims.ts';
import * as f from '../tensor/functions.ts';
import { Graph, type Tensor } from '../tensor/graph.ts';
import { float32, floatsOf, int64, Session, type Value } from '../tensor/session.ts';
import { checkLayers, type Decoder, padRows, rotaryTablesOf } from './layerInputs.ts';

/**
 * Where noise is put: on the layer's input, before the norm (the paper), or on the normed input of attention (the code);
 * `given-normed`: as the code, on hidden states that are given normed already.
 */
export type NoisePlace = 'layer-input' | 'attention-input' | 'given-normed';

/** Whether each cell is one perturbed row, or a window of rows perturbed together. */
export type CellKind = 'row' | 'window';

/** One input and what is perturbed in it. Items of one run have the same number of perturbed rows, cells and draws. */
export interface PerturbedItem {
  /** hidden states entering each layer [rows, hidden]; the same number of rows at every layer */
  readonly hidden: readonly Float32Array[];
  /** positions of the rows; absent: 0, 1, 2, … */
  readonly positions?: Positions | undefined;
  /** row whose attention output is watched; it reads rows 0..keyRow */
  readonly keyRow: number;
  /** row that each of the perturbed vectors takes the place of; below keyRow [perturbed] */
  readonly rows: readonly number[];
  /** for each cell, which of the perturbed vectors act together (indices into `rows`, of distinct rows) [cells][…]; cells that are rows are the perturbed ones in order */
  readonly cells: ReadonlyArray<readonly number[]>;
  /** noise at each layer, before scaling [draws, perturbed, hidden]; one array may serve several layers */
  readonly noise: readonly Float32Array[];
  /** what the noise is multiplied by, at each layer */
  readonly scale: readonly number[];
}

/** ½‖â′ − â‖² = 1 − cos(a′, a) of one item, by layer: each [draws, cells]. */
export type Turns = readonly Float32Array[];

/** Numbers the largest intermediate result of a run should hold: 4 MB of them. Larger runs were slower on cpu, and need memory. */
const largestIntermediate = 2 ** 20;

export class PerturbedAttention {
  readonly layers: readonly number[];
  readonly cells: CellKind;
  readonly #decoder: Decoder;
  readonly #session: Session;

  private constructor(layers: readonly number[], cells: CellKind, decoder: Decoder, session: Session) {
    this.layers = layers;
    this.cells = cells;
    this.#decoder = decoder;
    this.#session = session;
  }

  /** Throws `invalid-input` for layers the decoder does not have. */
  static async compile(
    decoder: Decoder,
    layers: readonly number[],
    place: NoisePlace,
    cells: CellKind,
  ): Promise<PerturbedAttention> {
    checkLayers(layers, decoder);
    const perturbed = cells === 'row' ? 'cells' : 'perturbed';
    const vectors = productOfDims(['draws', perturbed]);
    const graph = new Graph();
    const weight = decoder.weightsOf(graph);
    const inputs: Inputs = {
      ...(decoder.rotates && {
        cosine: graph.input('cosine', 'float32', ['batch', 'rows', decoder.headDim]),
        sine: graph.input('sine', 'float32', ['batch', 'rows', decoder.headDim]),
      }),
      keyRowInBatch: graph.input('keyRowInBatch', 'int64', ['batch', 1]),
      rowsInBatch: graph.input('rowsInBatch', 'int64', ['batch', vectors]),
      visible: graph.input('visible', 'float32', ['batch', 1, 1, 'rows']),
      kept: graph.input('kept', 'float32', ['batch', 1, 1, 'cells', 'rows']),
      outside:
        cells === 'row' ? null : graph.input('outside', 'float32', ['batch', 1, 1, 1, 'cells', 'perturbed']),
    };
    for (const layer of layers) {
      const hidden = graph.input(`hidden.${layer}`, 'float32', ['batch', 'rows', decoder.hidden]);
      const noise = graph.input(`noise.${layer}`, 'float32', ['batch', 'draws', perturbed, decoder.hidden]);
      const scale = graph.input(`scale.${layer}`, 'float32', ['batch', 1, 1, 1]);
      graph.output(
        `turn.${layer}`,
        turnOfAttention(hidden, f.multiply(noise, scale), layer, place, inputs, decoder, weight),
      );
    }
    return new PerturbedAttention(layers, cells, decoder, await Session.create(graph, decoder.session));
  }

  /**
   * All items, cells and draws together; split over items and draws only where the largest intermediate result would pass
   * `most` numbers.
   * Throws `internal` when an item does not fit the others or points outside its rows.
   */
  async run(items: readonly PerturbedItem[], most = largestIntermediate): Promise<Turns[]> {
    const first = items[0];
    if (!first) return [];
    const { hidden, heads } = this.#decoder;
    const draws = (first.noise[0]?.length ?? 0) / (first.rows.length * hidden);
    for (const item of items) this.#check(item, first, draws);

    const perDraw =
      first.cells.length * Math.max(this.cells === 'row' ? 0 : heads * first.rows.length, hidden);
    const perRun = Math.max(1, Math.floor(most / perDraw));
    const drawsPerRun = Math.min(draws, perRun);
    const itemsPerRun = Math.max(1, Math.floor(perRun / drawsPerRun));
    const cells = first.cells.length;
    const results = items.map(() => this.layers.map(() => new Float32Array(draws * cells)));
    for (let item = 0; item < items.length; item += itemsPerRun) {
      const group = items.slice(item, item + itemsPerRun);
      for (let draw = 0; draw < draws; draw += drawsPerRun) {
        const count = Math.min(drawsPerRun, draws - draw);
        const out = await this.#session.run(this.#feeds(group, draw, count));
        for (const [index, layer] of this.layers.entries()) {
          const turns = await floatsOf(out[`turn.${layer}`]!);
          group.forEach((_, at) => {
            const part = turns.subarray(at * count * cells, (at + 1) * count * cells);
            results[item + at]![index]!.set(part, draw * cells);
          });
        }
      }
    }
    return results;
  }

  #check(item: PerturbedItem, first: PerturbedItem, draws: number): void {
    const { hidden } = this.#decoder;
    const rows = (item.hidden[0]?.length ?? 0) / hidden;
    const perturbed = item.rows.length;
    const fits =
      [item.hidden, item.noise, item.scale].every((list) => list.length === this.layers.length) &&
      item.hidden.every((states) => states.length === rows * hidden) &&
      item.noise.every((noise) => noise.length === draws * perturbed * hidden) &&
      Number.isInteger(draws) &&
      draws > 0 &&
      perturbed === first.rows.length &&
      item.cells.length === first.cells.length &&
      Number.isInteger(item.keyRow) &&
      item.keyRow < rows &&
      (this.cells === 'window' || item.cells.every((cell, at) => cell.length === 1 && cell[0] === at)) &&
      (this.cells === 'window' || item.cells.length === perturbed) &&
      item.rows.every((row) => Number.isInteger(row) && row >= 0 && row < item.keyRow) &&
      item.cells.every((cell) =>
        cell.every((index) => Number.isInteger(index) && index >= 0 && index < perturbed),
      );
    if (!fits) {
      throw new EmendError(
        'internal',
        `A perturbation does not fit an input of ${rows} rows and the others beside it.`,
      );
    }
  }

  /** Feeds for draws from..from + draws of the items. */
  #feeds(items: readonly PerturbedItem[], from: number, draws: number): Record<string, Value> {
    const { hidden, headDim } = this.#decoder;
    const batch = items.length;
    const perturbed = items[0]!.rows.length;
    const cells = items[0]!.cells.length;
    const longest = Math.max(...items.map((item) => item.hidden[0]!.length / hidden));
    const tables = this.#decoder.rotates ? rotaryTablesOf(this.#decoder, items, longest) : null;
    const visible = new Float32Array(batch * longest);
    const kept = new Float32Array(batch * cells * longest);
    const outside =
      this.cells === 'window' ? new Float32Array(batch * cells * perturbed).fill(forbidden) : null;
    const rowsInBatch = new BigInt64Array(batch * draws * perturbed);
    for (const [index, item] of items.entries()) {
      visible.fill(forbidden, index * longest + item.keyRow + 1, (index + 1) * longest);
      for (const [at, cell] of item.cells.entries()) {
        const start = (index * cells + at) * longest;
        kept.fill(forbidden, start + item.keyRow + 1, start + longest);
        for (const member of cell) {
          kept[start + item.rows[member]!] = forbidden;
          if (outside) outside[(index * cells + at) * perturbed + member] = 0;
        }
      }
      for (let draw = 0; draw < draws; draw++) {
        for (const [at, row] of item.rows.entries()) {
          rowsInBatch[(index * draws + draw) * perturbed + at] = BigInt(index * longest + row);
        }
      }
    }
    const feeds: Record<string, Value> = {
      ...(tables && {
        cosine: float32(tables.cosine, [batch, longest, headDim]),
        sine: float32(tables.sine, [batch, longest, headDim]),
      }),
      keyRowInBatch: int64(
        items.map((item, index) => index * longest + item.keyRow),
        [batch, 1],
      ),
      rowsInBatch: int64(rowsInBatch, [batch, draws * perturbed]),
      visible: float32(visible, [batch, 1, 1, longest]),
      kept: float32(kept, [batch, 1, 1, cells, longest]),
      ...(outside ? { outside: float32(outside, [batch, 1, 1, 1, cells, perturbed]) } : {}),
    };
    const size = perturbed * hidden;
    for (const [index, layer] of this.layers.entries()) {
      feeds[`hidden.${layer}`] = padRows(
        items.map((item) => item.hidden[index]!),
        hidden,
      ).value;
      feeds[`scale.${layer}`] = float32(
        Float32Array.from(items, (item) => item.scale[index]!),
        [batch, 1, 1, 1],
      );
      const below = this.layers[index - 1];
      const same = index > 0 && items.every((item) => item.noise[index] === item.noise[index - 1]);
      feeds[`noise.${layer}`] = same
        ? feeds[`noise.${below}`]!
        : padRows(
            items.map((item) => item.noise[index]!.subarray(from * size, (from + draws) * size)),
            size,
          ).value.reshape([batch, draws, perturbed, hidden]);
    }
    return feeds;
  }

  async dispose(): Promise<void> {
    await this.#session.dispose();
  }
}

/** What all layers of a graph share; shapes where they are declared above. */
interface Inputs {
  readonly cosine?: Tensor;
  readonly sine?: Tensor;
  readonly keyRowInBatch: Tensor;
  readonly rowsInBatch: Tensor;
  readonly visible: Tensor;
  readonly kept: Tensor;
  /** 0 for the vectors of a cell, very negative for others; null where cells are rows */
  readonly outside: Tensor | null;
}

/** ½‖â′ − â‖² of layer `layer`. hidden [batch, rows, hidden], noise [batch, draws, perturbed, hidden] → [batch, draws, cells]. */
function turnOfAttention(
  hidden: Tensor,
  noise: Tensor,
  layer: number,
  place: NoisePlace,
  inputs: Inputs,
  decoder: Decoder,
  weight: Weights,
): Tensor {
  const { heads, keyValueHeads, headDim, hidden: width } = decoder;
  const group = heads / keyValueHeads;
  const parts = decoder.attention(layer, weight);
  /** rotary tables of given rows: indices into batch·rows [batch, n] → [batch, 1, n, head size] */
  const tables = (rows: Tensor): RotaryTables => {
    const at = (table: Tensor) => {
      const flat = f.reshape(table, ['batch*rows', headDim]);
      return f.reshape(f.gather(flat, rows), [rows.shape[0]!, 1, rows.shape[1]!, headDim], rows);
    };
    const { cosine, sine } = inputs;
    return cosine && sine ? { cosine: at(cosine), sine: at(sine) } : {};
  };

  // The attention as it is.
  const normed = place === 'given-normed' ? hidden : parts.norm(hidden);
  const rowsOf = (x: Tensor, rows: Tensor) => f.gather(f.reshape(x, ['batch*rows', width]), rows);
  const rotated = parts.query(rowsOf(normed, inputs.keyRowInBatch), tables(inputs.keyRowInBatch));
  const query = f.multiply(
    f.reshape(rotated, ['batch', keyValueHeads, group, headDim]),
    1 / Math.sqrt(headDim),
  );
  const wide = (table: Tensor) => f.reshape(table, ['batch', 1, 'rows', headDim]);
  const everyRow =
    inputs.cosine && inputs.sine ? { cosine: wide(inputs.cosine), sine: wide(inputs.sine) } : {};
  const key = parts.key(normed, everyRow);
  const value = parts.value(normed);
  const scores = f.matmul(query, key, { b: true });
  const plain = f.matmul(f.softmax(f.add(scores, inputs.visible)), value);
  const attention = parts.output(f.reshape(plain, ['batch', heads * headDim]));

  // The rows a perturbation leaves alone, as one row of its own: [batch, key-value heads, group, cells, …].
  const keptScores = f.add(f.reshape(scores, ['batch', keyValueHeads, group, 1, 'rows']), inputs.kept);
  const highest = f.max(keptScores, [-1], true);
  const keptWeights = f.exp(f.subtract(keptScores, highest));
  const keptSum = f.sum(keptWeights, [-1], true);
  const eachHead = f.reshape(value, ['batch', keyValueHeads, 1, 'rows', headDim]);
  const keptValue = f.divide(f.matmul(keptWeights, eachHead), keptSum);
  const keptScore = f.add(highest, f.log(keptSum));

  // The changed rows: [batch, key-value heads, group, draws, cells, perturbed].
  const source = (x: Tensor) =>
    f.add(rowsOf(x, inputs.rowsInBatch), f.reshape(noise, ['batch', inputs.rowsInBatch.shape[1]!, width]));
  const moved = place === 'layer-input' ? parts.norm(source(hidden)) : source(normed);
  const movedKey = parts.key(moved, tables(inputs.rowsInBatch));
  const movedValue = parts.value(moved);
  const perDraw = (x: Tensor, lead: readonly (number | string)[], tail: readonly (number | string)[]) =>
    f.reshape(x, ['batch', keyValueHeads, ...lead, 'draws', ...tail], noise);
  const movedScores = f.matmul(query, movedKey, { b: true });
  const kept = {
    score: f.reshape(keptScore, ['batch', keyValueHeads, group, 1, 'cells', 1]),
    value: f.reshape(keptValue, ['batch', keyValueHeads, group, 1, 'cells', headDim]),
  };
  const mixed = inputs.outside
    ? mixWindows(
        kept,
        perDraw(movedScores, [group], [1, 'perturbed']),
        perDraw(movedValue, [1], ['perturbed', headDim]),
        inputs.outside,
      )
    : mixRows(
        kept,
        perDraw(movedScores, [group], ['cells', 1]),
        perDraw(movedValue, [1], ['cells', headDim]),
      );
  const merged = f.reshape(f.transpose(mixed, [0, 3, 4, 1, 2, 5]), [
    'batch',
    'draws',
    'cells',
    heads * headDim,
  ]);
  const perturbed = parts.output(merged);

  // The distance of the two directions is exact for small turns, where 1 − cos is rounded away.
  const apart = f.subtract(unit(perturbed), f.reshape(unit(attention), ['batch', 1, 1, width]));
  return f.multiply(f.sum(f.multiply(apart, apart), [-1]), 0.5);
}

/** The unchanged rows as one row: score […, 1, cells, 1], value […, 1, cells, head size], … = batch, key-value heads, group. */
interface KeptRow {
  readonly score: Tensor;
  readonly value: Tensor;
}

/** Attention over the kept row and the one changed row of each cell. score […, draws, cells, 1] → […, draws, cells, head size]. */
function mixRows(kept: KeptRow, score: Tensor, value: Tensor): Tensor {
  const weight = f.sigmoid(f.subtract(score, kept.score));
  return f.add(kept.value, f.multiply(weight, f.subtract(value, kept.value)));
}

/**
 * Attention over the kept row and a window of changed rows. scores […, draws, 1, perturbed], values […, draws, perturbed,
 * head size], outside […, 1, cells, perturbed] → […, draws, cells, head size].
 */
function mixWindows(kept: KeptRow, scores: Tensor, values: Tensor, outside: Tensor): Tensor {
  const relative = f.add(f.subtract(scores, kept.score), outside);
  const top = f.relu(f.max(relative, [-1], true));
  const weights = f.exp(f.subtract(relative, top));
  const keptWeight = f.exp(f.negate(top));
  const sum = f.add(keptWeight, f.sum(weights, [-1], true));
  return f.divide(f.add(f.multiply(keptWeight, kept.value), f.matmul(weights, values)), sum);
}

/** x / ‖x‖ over the last axis. */
function unit(x: Tensor): Tensor {
  return f.divide(x, f.sqrt(f.sum(f.multiply(x, x), [-1], true)));
}
