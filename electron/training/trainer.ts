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

/** A differentiated graph with its parameters and optimiser. */
export class Trainer {
  readonly optimizer: Adam;
  readonly #session: Session;
  readonly #parameters: Parameters;
  readonly #terms: readonly string[];

  private constructor(
    session: Session,
    parameters: Parameters,
    terms: readonly string[],
    options: AdamOptions,
  ) {
    this.#session = session;
    this.#parameters = parameters;
    this.#terms = terms;
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
    const inputs = new Map(graph.inputs.map((input) => [input.name, input]));
    const targets = [...parameters.keys()].map((name) => {
      const input = inputs.get(name);
      if (!input) throw new EmendError('internal', `The graph has no input for parameter ${name}.`);
      return input;
    });
    graph.output('loss', loss);
    for (const [name, term] of Object.entries(terms)) graph.output(`term.${name}`, term);
    gradients(loss, targets).forEach((gradient, index) => {
      graph.output(`gradient.${targets[index]!.name}`, gradient);
    });
    return new Trainer(await Session.create(graph, session), parameters, Object.keys(terms), options);
  }

  get provider(): string {
    return this.#session.provider;
  }

  /** Loss and gradients at the present parameters, without a step. */
  async evaluate(
    feeds: Readonly<Record<string, Value>>,
  ): Promise<{ loss: number; terms: Record<string, number>; gradients: Map<string, Float32Array> }> {
    const all: Record<string, Value> = { ...feeds };
    for (const [name, { shape, data }] of this.#parameters) all[name] = float32(data, shape);
    const out = await this.#session.run(all);
    const scalar = (name: string) => (out[name]!.data as Float32Array)[0]!;
    const found = new Map<string, Float32Array>();
    for (const name of this.#parameters.keys())
      found.set(name, out[`gradient.${name}`]!.data as Float32Array);
    return {
      loss: scalar('loss'),
      terms: Object.fromEntries(this.#terms.map((name) => [name, scalar(`term.${name}`)])),
      gradients: found,
    };
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
    await this.#session.dispose();
  }
}
