/**
 * @file The losses on a patch's activations a = x·k + b: to fire where it should, and to stay quiet elsewhere. They need no graph: what an
 * MLP reads does not depend on the neurons beside it.
 */

/** Neurons on one side of the MLP: the gate's, or the other projection's. */
export interface Side {
  /** [neurons, hidden] */
  readonly key: Float32Array;
  /** [neurons] */
  readonly bias: Float32Array;
  readonly hidden: number;
}

/** ∂loss/∂activation of neurons on rows: [rows, neurons] on each set of rows [rows, hidden]. */
type Pulls = ReadonlyArray<{ readonly rows: Float32Array; readonly by: Float64Array }>;

export interface ActivationTerms {
  readonly activation: number;
  readonly memory: readonly number[];
  readonly pulls: Pulls;
}

/** Activations of neurons on rows [rows, hidden] → [rows, neurons]. */
function activations({ key, bias, hidden }: Side, rows: Float32Array): Float64Array {
  const [count, neurons] = [rows.length / hidden, bias.length];
  const out = new Float64Array(count * neurons);
  for (let row = 0; row < count; row++) {
    for (let neuron = 0; neuron < neurons; neuron++) {
      let sum = bias[neuron]!;
      for (let i = 0; i < hidden; i++) sum += rows[row * hidden + i]! * key[neuron * hidden + i]!;
      out[row * neurons + neuron] = sum;
    }
  }
  return out;
}

/**
 * The paper's: mean exp(−own) (eq. 6); and over the `kept` largest activations elsewhere of each neuron mean exp(a − β) (eq. 7) and mean
 * exp(a − own − γ) (eq. 8). queries [neurons, hidden]: what is read where each neuron is to fire.
 */
export function paperTerms(
  side: Side,
  queries: Float32Array,
  memory: Float32Array,
  weights: {
    readonly activation: number;
    readonly memory: number;
    readonly beta: number;
    readonly gamma: number;
    readonly kept: number;
  },
): ActivationTerms {
  const neurons = side.bias.length;
  const onQueries = activations(side, queries);
  const elsewhere = activations(side, memory);
  const rows = elsewhere.length / neurons;
  const count = Math.min(rows, weights.kept);
  const [byOwn, byRow] = [new Float64Array(neurons * neurons), new Float64Array(rows * neurons)];
  let [activation, quiet, apart] = [0, 0, 0];
  for (let neuron = 0; neuron < neurons; neuron++) {
    const at = neuron * neurons + neuron;
    const own = onQueries[at]!;
    activation += Math.exp(-own) / neurons;
    byOwn[at]! -= (weights.activation * Math.exp(-own)) / neurons;
    const order = Array.from({ length: rows }, (_, row) => row);
    const of = (row: number) => elsewhere[row * neurons + neuron]!;
    if (count < rows) order.sort((a, b) => of(b) - of(a));
    for (const row of order.slice(0, count)) {
      const below = Math.exp(of(row) - weights.beta) / (count * neurons);
      const away = Math.exp(of(row) - own - weights.gamma) / (count * neurons);
      quiet += below;
      apart += away;
      byRow[row * neurons + neuron]! += weights.memory * (below + away);
      byOwn[at]! -= weights.memory * away;
    }
  }
  const pulls = [
    { rows: queries, by: byOwn },
    { rows: memory, by: byRow },
  ];
  return { activation, memory: [quiet, apart], pulls };
}

/** The published code's: mean exp(−a) over all rows of the edit, and mean exp(relu(a)) over those of a text. */
export function codeTerms(
  side: Side,
  edit: Float32Array,
  text: Float32Array,
  weights: { readonly activation: number; readonly memory: number },
): ActivationTerms {
  const fire = activations(side, edit).map((a) => Math.exp(-a));
  const own = activations(side, text);
  const stay = own.map((a) => Math.exp(Math.max(0, a)));
  const mean = (values: Float64Array) => values.reduce((sum, value) => sum + value, 0) / values.length;
  return {
    activation: mean(fire),
    memory: [mean(stay)],
    pulls: [
      { rows: edit, by: fire.map((value) => (-weights.activation * value) / fire.length) },
      // relu has no slope at 0, where every neuron of the code begins.
      { rows: text, by: stay.map((value, i) => (own[i]! > 0 ? (weights.memory * value) / own.length : 0)) },
    ],
  };
}

/** Gradients by keys [neurons, hidden] and biases [neurons] of what pulls at activations. */
export function gradientOf(
  { bias, hidden }: Side,
  pulls: Pulls,
): { readonly key: Float64Array; readonly bias: Float64Array } {
  const neurons = bias.length;
  const [toKey, toBias] = [new Float64Array(neurons * hidden), new Float64Array(neurons)];
  for (const { rows, by } of pulls) {
    for (let row = 0; row * neurons < by.length; row++) {
      for (let neuron = 0; neuron < neurons; neuron++) {
        const pull = by[row * neurons + neuron]!;
        if (pull === 0) continue;
        toBias[neuron]! += pull;
        for (let i = 0; i < hidden; i++) toKey[neuron * hidden + i]! += pull * rows[row * hidden + i]!;
      }
    }
  }
  return { key: toKey, bias: toBias };
}

/** Adds them to the gradients of side `at`, by name. */
export function addTo(
  gradients: Map<string, Float32Array>,
  { key, bias }: { readonly key: Float64Array; readonly bias: Float64Array },
  at: number,
): void {
  for (const [name, own] of [
    [`key.${at}`, key],
    [`bias.${at}`, bias],
  ] as const)
    gradients.set(
      name,
      gradients.get(name)!.map((value, i) => value + own[i]!),
    );
}
