/**
 * @file MEND: networks turn the gradient of an edit into changes of the MLPs' weights (Mitchell et al. 2022).
 */
import { z } from 'zod';
import type { Decoder } from '../../models/decoder.ts';
import { decoderFrom, feedsFrom, targetFeeds, targetLoss } from '../../models/decoderPass.ts';
import { weightForms } from '../../models/packed/form.ts';
import type { VisionLanguageModel, WeightChanges } from '../../models/visionLanguageModel.ts';
import {
  changeableParts,
  decodeChanges,
  type LinearChange,
  sumOfChanges,
} from '../../models/weightChanges.ts';
import { observedWeights, type WeightOf, type Weights, weightsAsInputs } from '../../models/weights.ts';
import * as f from '../../tensor/functions.ts';
import { gradients } from '../../tensor/gradients.ts';
import type { Graph, Tensor } from '../../tensor/graph.ts';
import { float32, floatsOf, type Value } from '../../tensor/session.ts';
import type { AdapterWeights } from '../adapterFiles.ts';
import type { Effect, Work } from '../editor.ts';
import {
  cutBelow,
  mlpLinears,
  mlpParts,
  teacherForced,
  WeightEditor,
  type WeightRequest,
} from '../weightEditor.ts';
import { betweenSteps } from '../work.ts';
import { type EditedModule, editedModules, networkLayers, pseudoFactors } from './network.ts';

export const MendDescription = z.object({
  editor: z.literal('MEND'),
  name: z.string().max(200),
  /** decoder layers whose MLPs are changed, from 0, in the order of `edit_lrs`; published: the last three */
  layers: z.array(z.int().min(0).max(10_000)).min(1).max(100),
  /** their linear layers; decoders without a gate have none */
  parts: z.array(z.enum(mlpParts)).min(1).max(3),
  /** a change is the mean over rows (LiveEdit) or their sum (the original code) */
  rows: z.enum(['mean', 'sum']).default('mean'),
  model: z.string().max(200),
  /** the form of the weights it was trained on; older adapters do not say */
  weights: z.enum(weightForms).optional(),
  router: z.object({ layer: z.int().min(0).max(10_000), threshold: z.number().min(-1).max(1) }),
  weightsSha256: z.string().length(64).optional(),
  training: z.record(z.string(), z.unknown()).optional(),
});
export type MendDescription = z.infer<typeof MendDescription>;
type Which = Pick<MendDescription, 'layers' | 'parts' | 'rows'>;

/** The linear layers that are changed. @throws EmendError 'invalid-input' for those the decoder does not have */
export function mendModules({ layers, parts }: Which, decoder: Decoder): EditedModule[] {
  return editedModules(mlpLinears(layers, parts, decoder), decoder.tensors());
}

/** What a linear layer read and the gradient at its output, without rows in which either is nothing. */
export interface ModuleRows {
  readonly rows: readonly number[];
  /** [rows, in] */
  readonly u: Float32Array;
  /** [rows, out] */
  readonly delta: Float32Array;
}

/** What an edit is to the networks: rows for each of their layers, in order. */
export interface EditGradient {
  readonly loss: number;
  readonly modules: readonly ModuleRows[];
}

export class Mend extends WeightEditor {
  readonly name = 'MEND';
  readonly which: Which;
  readonly modules: readonly EditedModule[];
  /** the lowest layer that is changed */
  readonly from: number;
  readonly #depth: number;
  readonly #weights: AdapterWeights;

  /** @throws EmendError 'damaged' when the weights are none of these networks */
  constructor(model: VisionLanguageModel, which: Which, weights: AdapterWeights, where: string) {
    const modules = mendModules(which, model.decoder);
    const from = Math.min(...which.layers);
    super(model, { cuts: cutBelow(from), changeable: modules.map(({ name }) => name) });
    this.which = which;
    this.modules = modules;
    this.from = from;
    this.#depth = networkLayers(modules, weights, where);
    this.#weights = weights;
  }

  async make(_: VisionLanguageModel, request: WeightRequest, work: Work = {}): Promise<WeightChanges> {
    await betweenSteps(work, 0, 2);
    const gradient = await this.gradient(request);
    await betweenSteps(work, 1, 2);
    return this.changes(gradient);
  }

  /** The gradient of a request's loss, on the model with `acting` edits' changes. */
  async gradient(request: WeightRequest, acting: WeightChanges = new Map()): Promise<EditGradient> {
    const { model, modules } = this;
    const { decoder } = model;
    const session = await this.sessions.get('gradient', (graph) => {
      const reads: Tensor[] = [];
      const gives: Tensor[] = [];
      const weights = observedWeights(decoder.weightsOf(graph), (name, x, given) => {
        const at = modules.findIndex((module) => module.name === name);
        if (at >= 0) [reads[at], gives[at]] = [x, given];
        return given;
      });
      const loss = targetLoss(graph, decoderFrom(graph, decoder, this.from, weights), decoder, weights);
      graph.output('loss', loss);
      for (const [at, gradient] of gradients(loss, gives).entries()) {
        graph.output(`u.${at}`, reads[at]!);
        graph.output(`delta.${at}`, gradient);
      }
    });
    const { input, targetIds } = await teacherForced(model, request);
    const out = await session.run({
      ...(await feedsFrom(model, input, this.from, acting)),
      ...targetFeeds(input, targetIds),
    });
    const found: ModuleRows[] = [];
    for (const [at, module] of modules.entries())
      found.push(rowsThatCount(await floatsOf(out[`u.${at}`]!), await floatsOf(out[`delta.${at}`]!), module));
    return { loss: (await floatsOf(out['loss']!))[0]!, modules: found };
  }

  /** The change that the networks make of a gradient: of as many ranks as there are rows, not yet divided by them. */
  async changes(gradient: EditGradient): Promise<WeightChanges> {
    const out = await this.factors(gradient);
    const rates = this.#weights.get('edit_lrs')!.data;
    const changes = new Map<string, LinearChange>();
    for (const [at, { name, into }] of this.modules.entries()) {
      const { u, delta } = out[at]!;
      const rank = gradient.modules[at]!.rows.length;
      if (rank === 0) continue;
      const right = new Float32Array(into * rank);
      for (let row = 0; row < rank; row++)
        for (let i = 0; i < into; i++) right[i * rank + row] = rates[at]! * u[row * into + i]!;
      changes.set(name, { rank, right, left: delta });
    }
    return changes;
  }

  /** Pseudo inputs and pseudo gradients of rows. */
  async factors({ modules: given }: EditGradient): Promise<Array<{ u: Float32Array; delta: Float32Array }>> {
    const session = await this.sessions.get('networks', (graph) => {
      const weight = weightsAsInputs(graph, this.shapes());
      for (const [at, module] of this.modules.entries()) {
        const u = graph.input(`u.${at}`, 'float32', [`rows ${at}`, module.into]);
        const delta = graph.input(`delta.${at}`, 'float32', [`rows ${at}`, module.out]);
        const pseudo = pseudoFactors(u, delta, module, this.#depth, weight);
        graph.output(`pseudo u.${at}`, pseudo.u);
        graph.output(`pseudo delta.${at}`, pseudo.delta);
      }
    });
    const out = await session.run({ ...this.#parameterFeeds(), ...this.rowFeeds(given) });
    const found: Array<{ u: Float32Array; delta: Float32Array }> = [];
    for (const at of this.modules.keys())
      found.push({
        u: await floatsOf(out[`pseudo u.${at}`]!),
        delta: await floatsOf(out[`pseudo delta.${at}`]!),
      });
    return found;
  }

  override decode(bytes: Uint8Array): WeightChanges {
    const { backbone } = this.model.checkpoint;
    const { positionLimit } = backbone.decoder;
    return decodeChanges(
      bytes,
      this.changeable,
      changeableParts(backbone.tensors(), backbone.decoder),
      positionLimit,
    );
  }

  /** The published code's sequence: the mean (or sum) over the rows of all edits. */
  override effect(states: readonly WeightChanges[]): Effect {
    if (states.length === 0) return {};
    const rows = new Map<string, number>();
    for (const state of states)
      for (const [name, change] of state)
        rows.set(name, (rows.get(name) ?? 0) + (change as LinearChange).rank);
    const share = (name: string) => (this.which.rows === 'mean' ? 1 / rows.get(name)! : 1);
    const scaled = states.map(
      (state) =>
        new Map(
          [...state].map(([name, change]) => {
            const { left, ...rest } = change as LinearChange;
            return [name, { ...rest, left: left.map((value) => value * share(name)) }] as const;
          }),
        ),
    );
    return { weights: sumOfChanges(scaled) };
  }

  /**
   * `weights` of a graph as the networks change them by rows that are fed, by networks whose weights are fed: inputs of `rowFeeds` and of
   * `parameters`. `rate`: of a module, by its place.
   */
  changedWeights(graph: Graph, weights: Weights, network: WeightOf, rate: (at: number) => Tensor): Weights {
    const changes = this.modules.map((module, at) => {
      const u = graph.input(`u.${at}`, 'float32', [`rows ${at}`, module.into]);
      const delta = graph.input(`delta.${at}`, 'float32', [`rows ${at}`, module.out]);
      const pseudo = pseudoFactors(u, delta, module, this.#depth, network);
      return { ...pseudo, scale: f.multiply(rate(at), graph.input(`share.${at}`, 'float32', [1])) };
    });
    return observedWeights(weights, (name, x, given) => {
      const at = this.modules.findIndex((module) => module.name === name);
      if (at < 0) return given;
      const { u, delta, scale } = changes[at]!;
      return f.add(given, f.multiply(f.matmul(f.matmul(x, f.transpose(u, [1, 0])), delta), scale));
    });
  }

  /** Feeds of `changedWeights` for a gradient. */
  rowFeeds(given: readonly ModuleRows[]): Record<string, Value> {
    return Object.fromEntries(
      this.modules.flatMap(({ into, out }, at): Array<[string, Value]> => {
        const { rows, u, delta } = given[at]!;
        const share = this.which.rows === 'mean' ? 1 / Math.max(1, rows.length) : 1;
        return [
          [`u.${at}`, float32(u, [rows.length, into])],
          [`delta.${at}`, float32(delta, [rows.length, out])],
          [`share.${at}`, float32(Float32Array.of(share), [1])],
        ];
      }),
    );
  }

  /** Weights of the networks by name, as graphs have them as inputs. Counts and sums of the statistics belong to training alone. */
  shapes(): Map<string, readonly number[]> {
    return new Map(
      [...this.#weights]
        .filter(([name]) => !/\.(?:k|[uv]_s)$/.test(name))
        .map(([name, { shape }]) => [name, shape]),
    );
  }

  #parameterFeeds(): Record<string, Value> {
    return Object.fromEntries(
      [...this.shapes()].map(([name, shape]) => [name, float32(this.#weights.get(name)!.data, shape)]),
    );
  }
}

/** Rows in which neither what was read nor the gradient is all zero. */
function rowsThatCount(u: Float32Array, delta: Float32Array, { into, out }: EditedModule): ModuleRows {
  const some = (values: Float32Array, row: number, width: number) =>
    values.subarray(row * width, (row + 1) * width).some((value) => value !== 0);
  const rows = Array.from({ length: u.length / into }, (_, row) => row).filter(
    (row) => some(u, row, into) && some(delta, row, out),
  );
  const of = (values: Float32Array, width: number) => {
    const kept = new Float32Array(rows.length * width);
    for (const [at, row] of rows.entries())
      kept.set(values.subarray(row * width, (row + 1) * width), at * width);
    return kept;
  };
  return { rows, u: of(u, into), delta: of(delta, out) };
}
