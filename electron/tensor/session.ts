/**
 * @file Runs graphs: ONNX Runtime sessions, the execution providers they run on, and the values that go in and out.
 */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import ort from 'onnxruntime-node';
import { EmendError } from '../errors.ts';
import type { Graph, Tensor } from './graph.ts';
import { writeOnnx } from './onnxFile.ts';

/** A value on the host or the device, as ONNX Runtime holds it. */
export type Value = ort.Tensor;

/** Execution providers Emend asks for, by ONNX Runtime's names. */
export const providerNames = ['cuda', 'dml', 'coreml', 'webgpu', 'cpu'] as const;
export type Provider = (typeof providerNames)[number];

/** Providers this platform's onnxruntime-node can load, best first. `cuda` is listed only where its libraries were fetched. */
export function availableProviders(): Provider[] {
  const supported = new Map(ort.listSupportedBackends().map((backend) => [backend.name, backend.bundled]));
  return providerNames.filter(
    (name) => name === 'cpu' || supported.get(name) || (name === 'cuda' && cudaFetched()),
  );
}

function cudaFetched(): boolean {
  const runtime = dirname(createRequire(import.meta.url).resolve('onnxruntime-node/package.json'));
  const folder = join(runtime, 'bin', 'napi-v6', process.platform, process.arch);
  return ['libonnxruntime_providers_cuda.so', 'onnxruntime_providers_cuda.dll'].some((file) =>
    existsSync(join(folder, file)),
  );
}

export interface SessionOptions {
  /** providers to try, in order */
  readonly providers: readonly Provider[];
  /** threads of one operator on cpu; 0 or absent lets the runtime choose */
  readonly threads?: number;
  /**
   * Lays matrices out anew as the session is made. Without, weights in files stay mapped where F32, and single rows run faster;
   * training is faster with. Packed matrices are always laid out anew.
   */
  readonly prepack?: boolean;
}

export const float32 = (data: Float32Array, dims: readonly number[]): Value =>
  new ort.Tensor('float32', data, dims);
export const int64 = (data: readonly number[] | BigInt64Array, dims: readonly number[]): Value =>
  new ort.Tensor(
    'int64',
    data instanceof BigInt64Array ? data : BigInt64Array.from(data as number[], (value) => BigInt(value)),
    dims,
  );

/** Gives a value's memory back at once; the collector may take a while to see how much hangs on it. */
export function release(value: Value): void {
  if (value.location === 'cpu' && typeof value.data === 'object' && 'buffer' in value.data) {
    const { buffer } = value.data;
    if (buffer instanceof ArrayBuffer && !buffer.detached) buffer.transfer(0);
  }
  value.dispose();
}

export const uint8 = (data: Uint8Array, dims: readonly number[]): Value =>
  new ort.Tensor('uint8', data, dims);

/** Host copy of a float32 value. */
export async function floatsOf(value: Value): Promise<Float32Array> {
  const data =
    value.location === 'cpu' || value.location === 'cpu-pinned' ? value.data : await value.getData();
  if (!(data instanceof Float32Array))
    throw new EmendError('internal', `Expected float32 values, got ${value.type}.`);
  return data;
}

/** What a provider says of itself, without the place in its sources and the condition that ONNX Runtime puts before it. */
function ownWords(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  return message.replace(/^[\s\S]*\.(?:cc|cpp|h):\d+ [\s\S]* was false\. /, '').trim();
}

/** A graph ready to run on one provider. Dispose it before the process ends. */
export class Session {
  readonly provider: Provider;
  /** why better-liked providers were passed over */
  readonly refusals: ReadonlyArray<{ provider: Provider; reason: string }>;
  readonly inputNames: ReadonlySet<string>;
  readonly #session: ort.InferenceSession;
  /** what inputs are that are not given, where they may be left out */
  readonly #empty: ReadonlyMap<string, Value>;

  private constructor(
    session: ort.InferenceSession,
    provider: Provider,
    refusals: ReadonlyArray<{ provider: Provider; reason: string }>,
    inputs: readonly Tensor[],
  ) {
    this.#session = session;
    this.#empty = new Map(
      inputs
        .filter(({ origin }) => origin.kind === 'input' && origin.optional)
        .map(({ name, shape }) => {
          const dims = shape.map((dim) => (typeof dim === 'number' ? dim : 0));
          return [name, float32(new Float32Array(dims.reduce((a, b) => a * b, 1)), dims)];
        }),
    );
    this.provider = provider;
    this.refusals = refusals;
    this.inputNames = new Set(inputs.map(({ name }) => name));
  }

  /**
   * Compiles a graph on the first provider that takes it.
   * Throws `unsupported` when none does, with each provider's own words.
   */
  static async create(graph: Graph, options: SessionOptions): Promise<Session> {
    const refusals: Array<{ provider: Provider; reason: string }> = [];
    const prepack = options.prepack || graph.nodes.some(({ operator }) => operator === 'MatMulNBits');
    for (const provider of options.providers) {
      // Measured: with webgpu's fused attention Qwen's vision towers come out up to 8 % off (test/models/webgpu.test.ts).
      const model = writeOnnx(graph, { fusesAttention: provider !== 'webgpu' });
      try {
        const session = await ort.InferenceSession.create(model.bytes, {
          executionProviders: [provider],
          graphOptimizationLevel: 'all',
          // Errors come back as exceptions; what the runtime prints beside them would only alarm.
          logSeverityLevel: 4,
          ...(options.threads ? { intraOpNumThreads: options.threads } : {}),
          extra: {
            session: {
              ...(prepack ? {} : { disable_prepacking: '1' }),
              // A folder for external data lets the model itself stay in memory: nothing is written beside the weights.
              ...(model.folder ? { model_external_initializers_file_folder_path: model.folder } : {}),
            },
          },
        });
        return new Session(session, provider, refusals, model.inputs);
      } catch (error) {
        refusals.push({ provider, reason: ownWords(error) });
      }
    }
    const said = refusals.map(({ provider, reason }) => `${provider}: ${reason}`).join('; ');
    throw new EmendError('unsupported', `No execution provider could load this model. ${said}`);
  }

  /** Runs the graph. Feeds the graph does not use are left out; optional inputs that are not fed are empty. */
  async run(feeds: Readonly<Record<string, Value>>): Promise<Record<string, Value>> {
    const used: Record<string, Value> = {};
    for (const name of this.inputNames) {
      const value = feeds[name] ?? this.#empty.get(name);
      if (!value) throw new EmendError('internal', `The graph needs a value for ${name}.`);
      used[name] = value;
    }
    return (await this.#session.run(used)) as Record<string, Value>;
  }

  async dispose(): Promise<void> {
    await this.#session.release();
  }
}
