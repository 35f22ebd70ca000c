/**
 * @file One training step: a graph with a loss, its gradients, and the optimiser that follows them.
 */
import { EmendError } from '../errors.ts';
import {
  openSafetensors,
  readTensor,
  type StoredTensor,
  type WritableTensor,
  writeSafetensors,
} from '../files/safetensors.ts';
import { gradients } from '../tensor/gradients.ts';
import type { Graph, Tensor } from '../tensor/graph.ts';
import { float32, Session, type SessionOptions, type Value } from '../tensor/session.ts';
import { Adam, type AdamOptions, type Parameters } from './optimizer.ts';

export interface StepReport {
  readonly step: number;
  readonly loss: number;
  /** named parts of the loss, unweighted */
  readonly terms: Readonly<Record<string, number>>;
  readonly gradientNorm: number;
}

/** Loss, its named parts, and its gradients by parameter. */
export interface Evaluation {
  readonly loss: number;
  readonly terms: Record<string, number>;
  readonly gradients: Map<string, Float32Array>;
}

/** What computes a step's loss and gradients: one graph, or a chain of them. */
export interface Evaluator {
  readonly provider: string;
  /** `feeds` hold the parameters too, under their names. */
  evaluate(feeds: Readonly<Record<string, Value>>): Promise<Evaluation>;
  dispose(): Promise<void>;
}

/** A loss with its parameters and optimiser. */
export class Trainer {
  readonly optimizer: Adam;
  readonly #evaluator: Evaluator;
  readonly #parameters: Parameters;

  constructor(evaluator: Evaluator, parameters: Parameters, options: AdamOptions) {
    this.#evaluator = evaluator;
    this.#parameters = parameters;
    this.optimizer = new Adam(parameters, options);
  }

  /**
   * Differentiates `loss` by every parameter and compiles the step.
   * `graph` has one input for each parameter, under its name; terms are scalars to report.
   */
  static async create(
    graph: Graph,
    loss: Tensor,
    terms: Readonly<Record<string, Tensor>>,
    parameters: Parameters,
    options: AdamOptions,
    session: SessionOptions,
  ): Promise<Trainer> {
    const evaluator = await graphEvaluator(graph, loss, terms, [...parameters.keys()], session);
    return new Trainer(evaluator, parameters, options);
  }

  get provider(): string {
    return this.#evaluator.provider;
  }

  /** Loss and gradients at the present parameters, without a step. */
  async evaluate(feeds: Readonly<Record<string, Value>>): Promise<Evaluation> {
    const all: Record<string, Value> = { ...feeds };
    for (const [name, { shape, data }] of this.#parameters) all[name] = float32(data, shape);
    return this.#evaluator.evaluate(all);
  }

  /** One step of the optimiser on these inputs. */
  async step(feeds: Readonly<Record<string, Value>>): Promise<StepReport> {
    const { loss, terms, gradients: found } = await this.evaluate(feeds);
    const gradientNorm = this.optimizer.update(found);
    return { step: this.optimizer.step, loss, terms, gradientNorm };
  }

  /** Writes parameters and optimiser state to one file, whole or not at all. `settings`: what is trained, and how, as text. */
  async save(path: string, settings: string): Promise<void> {
    const { tensors, step } = this.optimizer.save();
    const writable = new Map<string, WritableTensor>();
    for (const [name, { shape, data }] of tensors)
      writable.set(name, { dtype: 'F32', shape: [...shape], data });
    await writeSafetensors(path, writable, { settings, step: String(step) });
  }

  /**
   * Takes up what `save` wrote. Throws, with nothing changed, `conflict` when that was a training with other settings, and
   * `damaged` when the file does not hold this training's state.
   */
  async load(path: string, settings: string): Promise<void> {
    const file = await openSafetensors(path);
    if (file.metadata.get('settings') !== settings) {
      throw new EmendError(
        'conflict',
        `${path} was saved by a training with other settings or of another model. Go on with those, or start in another folder.`,
      );
    }
    const tensors = new Map<string, StoredTensor>();
    for (const name of file.tensors.keys()) tensors.set(name, await readTensor(file, name));
    const said = file.metadata.get('step') ?? '';
    const step = /^\d+$/.test(said) ? Number(said) : Number.NaN;
    if (!Number.isSafeInteger(step))
      throw new EmendError('damaged', `${path} does not say at which step it was saved.`);
    this.optimizer.load({ tensors, step });
  }

  async dispose(): Promise<void> {
    await this.#evaluator.dispose();
  }
}

/** One graph, differentiated. Throws where it has no input for a parameter. */
async function graphEvaluator(
  graph: Graph,
  loss: Tensor,
  terms: Readonly<Record<string, Tensor>>,
  parameters: readonly string[],
  options: SessionOptions,
): Promise<Evaluator> {
  const inputs = new Map(graph.inputs.map((input) => [input.name, input]));
  const targets = parameters.map((name) => {
    const input = inputs.get(name);
    if (!input) throw new EmendError('internal', `The graph has no input for parameter ${name}.`);
    return input;
  });
  graph.output('loss', loss);
  for (const [name, term] of Object.entries(terms)) graph.output(`term.${name}`, term);
  outputGradients(graph, loss, targets);
  const session = await Session.create(graph, { prepack: true, ...options });
  return {
    provider: session.provider,
    async evaluate(feeds) {
      const out = await session.run(feeds);
      return {
        loss: scalarOf(out, 'loss'),
        terms: Object.fromEntries(Object.keys(terms).map((name) => [name, scalarOf(out, `term.${name}`)])),
        gradients: gradientsIn(out, parameters),
      };
    },
    dispose: () => session.dispose(),
  };
}

/** Names d loss / d target for each target as an output of the graph, `gradient.<name>`. */
export function outputGradients(graph: Graph, loss: Tensor, targets: readonly Tensor[]): void {
  for (const [index, gradient] of gradients(loss, targets).entries())
    graph.output(`gradient.${targets[index]!.name}`, gradient);
}

/** Gradients that a run gave, by parameter. */
export function gradientsIn(
  out: Readonly<Record<string, Value>>,
  parameters: Iterable<string>,
): Map<string, Float32Array> {
  const found = new Map<string, Float32Array>();
  for (const name of parameters) found.set(name, out[`gradient.${name}`]!.data as Float32Array);
  return found;
}

/** A scalar that a run gave. */
export const scalarOf = (out: Readonly<Record<string, Value>>, name: string): number =>
  (out[name]!.data as Float32Array)[0]!;
