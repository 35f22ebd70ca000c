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

/** Parameters with their optimiser, kept in one file together with what else a training changes. */
export class TrainingState {
  readonly optimizer: Adam;
  readonly #kept: Parameters;

  /** `kept`: values that change in training and are no parameters of the optimiser, such as running statistics. */
  constructor(parameters: Parameters, options: AdamOptions, kept: Parameters = new Map()) {
    this.optimizer = new Adam(parameters, options);
    this.#kept = kept;
  }

  /** One step of the optimiser. */
  apply({ loss, terms, gradients: found }: Evaluation): StepReport {
    const gradientNorm = this.optimizer.update(found);
    return { step: this.optimizer.step, loss, terms, gradientNorm };
  }

  /** Writes everything to one file, whole or not at all. `settings`: what is trained, and how, as text. */
  async save(path: string, settings: string): Promise<void> {
    const { tensors, step } = this.optimizer.save();
    for (const [name, value] of this.#kept) tensors.set(keptName(name), value);
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
    const kept = [...this.#kept].map(([name, { shape, data }]) => {
      const found = tensors.get(keptName(name));
      if (!(found?.data instanceof Float32Array) || found.shape.join() !== shape.join())
        throw new EmendError('damaged', `The saved training state has no fitting ${name}.`);
      return [data, found.data] as const;
    });
    this.optimizer.load({ tensors, step });
    for (const [into, from] of kept) into.set(from);
  }
}

const keptName = (name: string) => `kept.${name}`;

/** A loss with its parameters and optimiser. */
export class Trainer {
  readonly #state: TrainingState;
  readonly #evaluator: Evaluator;
  readonly #parameters: Parameters;

  constructor(evaluator: Evaluator, parameters: Parameters, options: AdamOptions) {
    this.#evaluator = evaluator;
    this.#parameters = parameters;
    this.#state = new TrainingState(parameters, options);
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

  get optimizer(): Adam {
    return this.#state.optimizer;
  }

  /** Loss and gradients at the present parameters, without a step. */
  async evaluate(feeds: Readonly<Record<string, Value>>): Promise<Evaluation> {
    return this.#evaluator.evaluate({ ...feeds, ...parameterFeeds(this.#parameters) });
  }

  /** One step of the optimiser on these inputs. */
  async step(feeds: Readonly<Record<string, Value>>): Promise<StepReport> {
    return this.#state.apply(await this.evaluate(feeds));
  }

  /** As `TrainingState.save`. */
  save(path: string, settings: string): Promise<void> {
    return this.#state.save(path, settings);
  }

  /** As `TrainingState.load`. */
  load(path: string, settings: string): Promise<void> {
    return this.#state.load(path, settings);
  }

  async dispose(): Promise<void> {
    await this.#evaluator.dispose();
  }
}

/** Parameters as feeds of a graph that has them as inputs under their names. */
export function parameterFeeds(parameters: Parameters): Record<string, Value> {
  return Object.fromEntries([...parameters].map(([name, { shape, data }]) => [name, float32(data, shape)]));
}

/** The mean of several batches' losses, terms and gradients: one step made of them. */
export function meanEvaluation(parts: readonly Evaluation[]): Evaluation {
  const [first, ...others] = parts;
  if (!first) throw new EmendError('internal', 'A step needs a batch at least.');
  if (others.length === 0) return first;
  const share = 1 / parts.length;
  const gradients = new Map<string, Float32Array>();
  for (const [name, gradient] of first.gradients) {
    const mean = gradient.map((value) => value * share);
    for (const other of others) {
      const more = other.gradients.get(name)!;
      for (let i = 0; i < mean.length; i++) mean[i]! += share * more[i]!;
    }
    gradients.set(name, mean);
  }
  const mean = (of: (part: Evaluation) => number) => parts.reduce((sum, part) => sum + share * of(part), 0);
  return {
    loss: mean(({ loss }) => loss),
    terms: Object.fromEntries(
      Object.keys(first.terms).map((name) => [name, mean(({ terms }) => terms[name]!)]),
    ),
    gradients,
  };
}

/** One graph, differentiated. Throws where it has no input for a parameter. */
export async function graphEvaluator(
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
    evaluate: async (feeds) => evaluationOf(await session.run(feeds), parameters),
    dispose: () => session.dispose(),
  };
}

/** What a run gave as `loss`, `term.<name>` and `gradient.<parameter>`. */
export function evaluationOf(out: Readonly<Record<string, Value>>, parameters: Iterable<string>): Evaluation {
  const names = Object.keys(out).filter((name) => name.startsWith('term.'));
  return {
    loss: scalarOf(out, 'loss'),
    terms: Object.fromEntries(names.map((name) => [name.slice('term.'.length), scalarOf(out, name)])),
    gradients: gradientsIn(out, parameters),
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
