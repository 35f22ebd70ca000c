/**
 * @file The LSTM that reads an edit's text in both directions, and its gradients (Hochreiter and Schmidhuber 1997; gates in PyTorch's order: in,
 * forget, cell, out). In plain numbers: unrolled over tokens in a graph it takes seconds to compile, for every length anew.
 */
import type { AdapterWeights } from '../adapterFiles.ts';

const prefix = 'hyper.lstm.';
const directions = ['', '_reverse'] as const;

/** Whether a weight of the hyper-network is the LSTM's. */
export const isOfLstm = (name: string): boolean => name.startsWith(prefix);

/** What one direction reads with: weight_ih [4·width, in], weight_hh [4·width, width], biases [4·width]. */
interface Direction {
  readonly ih: Float32Array;
  readonly hh: Float32Array;
  readonly biases: readonly [Float32Array, Float32Array];
  readonly suffix: string;
}

/** What was read at each step, from the first that a direction takes; kept for the gradients. */
interface Steps {
  readonly direction: Direction;
  /** after their functions [steps, 4·width] */
  readonly gates: Float64Array;
  /** before the first step and after each [steps + 1, width] */
  readonly cells: Float64Array;
  readonly states: Float64Array;
}

/** A text as it was read. */
export interface TextReading {
  /** last states of both directions [2·width] */
  readonly last: Float32Array;
  /** [tokens, in] */
  readonly embeddings: Float32Array;
  readonly width: number;
  readonly steps: readonly Steps[];
}

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));

/** Reads embeddings [tokens, in], forth and back. */
export function readText(embeddings: Float32Array, weights: AdapterWeights): TextReading {
  const of = (part: string, suffix: string) => weights.get(`${prefix}${part}_l0${suffix}`)!;
  const width = of('weight_hh', '').shape[1]!;
  const steps = directions.map((suffix) =>
    readAlong(embeddings, width, {
      suffix,
      ih: of('weight_ih', suffix).data,
      hh: of('weight_hh', suffix).data,
      biases: [of('bias_ih', suffix).data, of('bias_hh', suffix).data],
    }),
  );
  const last = Float32Array.from(steps.flatMap(({ states }) => [...states.subarray(-width)]));
  return { last, embeddings, width, steps };
}

/** The token that a direction takes at a step. */
const tokenAt = (step: number, tokens: number, { suffix }: Direction) =>
  suffix === '' ? step : tokens - 1 - step;

/** Product of `count` numbers of both, from these places on. Four sums at a time: one alone waits for itself. */
function dot(
  a: Float32Array,
  fromA: number,
  b: Float32Array | Float64Array,
  fromB: number,
  count: number,
): number {
  let [one, two, three, four] = [0, 0, 0, 0];
  let i = 0;
  for (; i + 3 < count; i += 4) {
    one += a[fromA + i]! * b[fromB + i]!;
    two += a[fromA + i + 1]! * b[fromB + i + 1]!;
    three += a[fromA + i + 2]! * b[fromB + i + 2]!;
    four += a[fromA + i + 3]! * b[fromB + i + 3]!;
  }
  for (; i < count; i++) one += a[fromA + i]! * b[fromB + i]!;
  return one + two + three + four;
}

function readAlong(embeddings: Float32Array, width: number, direction: Direction): Steps {
  const { ih, hh, biases } = direction;
  const into = ih.length / (4 * width);
  const tokens = embeddings.length / into;
  const gates = new Float64Array(tokens * 4 * width);
  const cells = new Float64Array((tokens + 1) * width);
  const states = new Float64Array((tokens + 1) * width);
  for (let step = 0; step < tokens; step++) {
    const token = tokenAt(step, tokens, direction) * into;
    for (let gate = 0; gate < 4 * width; gate++) {
      const [inRow, stateRow, state] = [gate * into, gate * width, step * width];
      const sum =
        biases[0][gate]! +
        biases[1][gate]! +
        dot(ih, inRow, embeddings, token, into) +
        dot(hh, stateRow, states, state, width);
      const isCell = gate >= 2 * width && gate < 3 * width;
      gates[step * 4 * width + gate] = isCell ? Math.tanh(sum) : sigmoid(sum);
    }
    for (let i = 0; i < width; i++) {
      const at = step * 4 * width + i;
      const [entering, kept, fresh, shown] = [0, 1, 2, 3].map((gate) => gates[at + gate * width]!);
      const cell = kept! * cells[step * width + i]! + entering! * fresh!;
      cells[(step + 1) * width + i] = cell;
      states[(step + 1) * width + i] = shown! * Math.tanh(cell);
    }
  }
  return { direction, gates, cells, states };
}

/** Gradients of the LSTM's weights by name, from that of the last states [2·width]. */
export function gradientsOfReading(
  { embeddings, width, steps }: TextReading,
  gradient: Float32Array,
): Map<string, Float32Array> {
  const found = new Map<string, Float32Array>();
  for (const [place, read] of steps.entries()) {
    const { ih, hh, bias } = gradientsAlong(embeddings, width, read, gradient.subarray(place * width));
    const { suffix } = read.direction;
    found.set(`${prefix}weight_ih_l0${suffix}`, ih);
    found.set(`${prefix}weight_hh_l0${suffix}`, hh);
    // Both biases are added alike.
    for (const part of ['ih', 'hh']) found.set(`${prefix}bias_${part}_l0${suffix}`, new Float32Array(bias));
  }
  return found;
}

/** Backpropagation through time; `last`: the gradient of the last state [width]. */
function gradientsAlong(
  embeddings: Float32Array,
  width: number,
  { direction, gates, cells, states }: Steps,
  last: Float32Array,
) {
  const into = direction.ih.length / (4 * width);
  const tokens = embeddings.length / into;
  const ih = new Float32Array(direction.ih.length);
  const hh = new Float32Array(direction.hh.length);
  const bias = new Float64Array(4 * width);
  let toState = Float64Array.from(last.subarray(0, width));
  const toCell = new Float64Array(width);
  /** gradient before the gates' functions */
  const toGates = new Float64Array(4 * width);
  for (let step = tokens - 1; step >= 0; step--) {
    for (let i = 0; i < width; i++) {
      const at = step * 4 * width + i;
      const [entering, kept, fresh, shown] = [0, 1, 2, 3].map((gate) => gates[at + gate * width]!) as [
        number,
        number,
        number,
        number,
      ];
      const curved = Math.tanh(cells[(step + 1) * width + i]!);
      const arriving = toCell[i]! + toState[i]! * shown * (1 - curved * curved);
      toGates[i] = arriving * fresh * entering * (1 - entering);
      toGates[width + i] = arriving * cells[step * width + i]! * kept * (1 - kept);
      toGates[2 * width + i] = arriving * entering * (1 - fresh * fresh);
      toGates[3 * width + i] = toState[i]! * curved * shown * (1 - shown);
      toCell[i] = arriving * kept;
    }
    const token = tokenAt(step, tokens, direction) * into;
    const before = new Float64Array(width);
    for (let gate = 0; gate < 4 * width; gate++) {
      const [inRow, stateRow, state] = [gate * into, gate * width, step * width];
      const arriving = toGates[gate]!;
      bias[gate]! += arriving;
      for (let i = 0; i < into; i++) ih[inRow + i]! += arriving * embeddings[token + i]!;
      for (let i = 0; i < width; i++) {
        hh[stateRow + i]! += arriving * states[state + i]!;
        before[i]! += arriving * direction.hh[stateRow + i]!;
      }
    }
    toState = before;
  }
  return { ih, hh, bias };
}
