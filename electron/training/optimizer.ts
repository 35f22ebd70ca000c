/**
 * @file Adam and AdamW with warm-up, decay and clipping, on the host. The state can be saved and resumed bit for bit.
 */
import { EmendError } from '../errors.ts';

/** Trained values by name; updated in place. */
export type Parameters = ReadonlyMap<
  string,
  { readonly shape: readonly number[]; readonly data: Float32Array }
>;

export interface Schedule {
  readonly peak: number;
  /** steps over which the rate rises linearly from 0 */
  readonly warmUp: number;
  readonly decay: 'none' | 'linear' | 'cosine';
  /** the step at which decay has brought the rate to `floor`·peak */
  readonly steps: number;
  /** 0..1 */
  readonly floor: number;
}

/** Learning rate of step `step`, counted from 0. */
export function learningRate(schedule: Schedule, step: number): number {
  const { peak, warmUp, decay, steps, floor } = schedule;
  if (step < warmUp) return (peak * (step + 1)) / warmUp;
  if (decay === 'none') return peak;
  const share = Math.min(1, (step - warmUp) / Math.max(1, steps - warmUp));
  const left = decay === 'linear' ? 1 - share : (1 + Math.cos(Math.PI * share)) / 2;
  return peak * (floor + (1 - floor) * left);
}

export interface AdamOptions {
  readonly schedule: Schedule;
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  /** decoupled (AdamW); applied to matrices only, not to norms and biases */
  readonly weightDecay: number;
  /** the gradients' joint norm is brought down to this; 0 leaves them */
  readonly clipNorm: number;
}

/** PyTorch's defaults for everything but the rate. */
export function adamDefaults(peak: number): AdamOptions {
  return {
    schedule: { peak, warmUp: 0, decay: 'none', steps: 1, floor: 1 },
    beta1: 0.9,
    beta2: 0.999,
    epsilon: 1e-8,
    weightDecay: 0,
    clipNorm: 0,
  };
}

/** Adam (Kingma & Ba, alg. 1) with decoupled weight decay (Loshchilov & Hutter, alg. 2). */
export class Adam {
  readonly parameters: Parameters;
  readonly options: AdamOptions;
  readonly #first = new Map<string, Float32Array>();
  readonly #second = new Map<string, Float32Array>();
  #step = 0;

  constructor(parameters: Parameters, options: AdamOptions) {
    this.parameters = parameters;
    this.options = options;
    for (const [name, { data }] of parameters) {
      this.#first.set(name, new Float32Array(data.length));
      this.#second.set(name, new Float32Array(data.length));
    }
  }

  /** steps taken */
  get step(): number {
    return this.#step;
  }

  /**
   * Takes one step down the gradients, given by the parameters' names and in their sizes.
   * Returns the gradients' norm before clipping. Throws when a gradient is missing or not finite; nothing is changed then.
   */
  update(gradients: ReadonlyMap<string, Float32Array>): number {
    let square = 0;
    for (const [name, { data }] of this.parameters) {
      const gradient = gradients.get(name);
      if (gradient?.length !== data.length)
        throw new EmendError('internal', `No fitting gradient for ${name}.`);
      for (let i = 0; i < gradient.length; i++) square += gradient[i]! * gradient[i]!;
    }
    const norm = Math.sqrt(square);
    if (!Number.isFinite(norm)) {
      throw new EmendError(
        'internal',
        `Training diverged at step ${this.#step}: the gradients are not finite. Lower the learning rate.`,
      );
    }
    const { beta1, beta2, epsilon, weightDecay, clipNorm, schedule } = this.options;
    const scale = clipNorm > 0 && norm > clipNorm ? clipNorm / norm : 1;
    const rate = learningRate(schedule, this.#step);
    this.#step++;
    const correction1 = 1 - beta1 ** this.#step;
    const correction2 = Math.sqrt(1 - beta2 ** this.#step);
    // rate·(m/c₁) / (√v/c₂ + ε), with one division.
    const move = (rate * correction2) / correction1;
    const least = epsilon * correction2;
    for (const [name, { data, shape }] of this.parameters) {
      const gradient = gradients.get(name)!;
      const m = this.#first.get(name)!;
      const v = this.#second.get(name)!;
      const shrink = weightDecay > 0 && shape.length >= 2 ? 1 - rate * weightDecay : 1;
      for (let i = 0; i < data.length; i++) {
        const g = gradient[i]! * scale;
        const mi = beta1 * m[i]! + (1 - beta1) * g;
        const vi = beta2 * v[i]! + (1 - beta2) * g * g;
        m[i] = mi;
        v[i] = vi;
        data[i] = data[i]! * shrink - (move * mi) / (Math.sqrt(vi) + least);
      }
    }
    return norm;
  }

  /** The whole state: parameters, moments and the step, as named float32 arrays and numbers. */
  save(): { tensors: Map<string, { shape: readonly number[]; data: Float32Array }>; step: number } {
    const tensors = new Map<string, { shape: readonly number[]; data: Float32Array }>();
    for (const [name, { shape, data }] of this.parameters) {
      tensors.set(`parameter.${name}`, { shape, data });
      tensors.set(`first.${name}`, { shape, data: this.#first.get(name)! });
      tensors.set(`second.${name}`, { shape, data: this.#second.get(name)! });
    }
    return { tensors, step: this.#step };
  }

  /** Takes up a saved state. Throws `damaged`, with nothing changed, when it does not belong to these parameters. */
  load(state: {
    tensors: ReadonlyMap<string, { shape: readonly number[]; data: ArrayLike<unknown> }>;
    step: number;
  }): void {
    const into = (key: string, shape: readonly number[], target: Float32Array) => {
      const found = state.tensors.get(key);
      const data = found?.data;
      if (!(data instanceof Float32Array) || found?.shape.join() !== shape.join())
        throw new EmendError('damaged', `The saved training state has no fitting ${key}.`);
      if (!data.every(Number.isFinite))
        throw new EmendError(
          'damaged',
          `The saved training state holds values of ${key} that are no numbers.`,
        );
      return () => target.set(data);
    };
    const writes = [...this.parameters].flatMap(([name, { shape, data }]) => [
      into(`parameter.${name}`, shape, data),
      into(`first.${name}`, shape, this.#first.get(name)!),
      into(`second.${name}`, shape, this.#second.get(name)!),
    ]);
    for (const write of writes) write();
    this.#step = state.step;
  }
}
