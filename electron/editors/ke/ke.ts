/**
 * @file KE: a hyper-network that reads the edit turns the gradient of its loss into changes of MLP weights (De Cao et al. 2021).
 */
import { z } from 'zod';
import type { Decoder } from '../../models/decoder.ts';
import { decoderFrom, feedsFrom, targetFeeds, targetLoss } from '../../models/decoderPass.ts';
import { generate } from '../../models/generation.ts';
import { weightForms } from '../../models/packed/form.ts';
import type { VisionLanguageModel, WeightChanges } from '../../models/visionLanguageModel.ts';
import type { MatrixChange } from '../../models/weightChanges.ts';
import {
  deltaWeights,
  observedWeights,
  type WeightOf,
  type Weights,
  weightsAsInputs,
} from '../../models/weights.ts';
import * as f from '../../tensor/functions.ts';
import { gradients } from '../../tensor/gradients.ts';
import type { Graph, Tensor } from '../../tensor/graph.ts';
import { float32, floatsOf, type Value } from '../../tensor/session.ts';
import type { AdapterWeights } from '../adapterFiles.ts';
import type { Work } from '../editor.ts';
import {
  cutBelow,
  mlpLinears,
  mlpParts,
  teacherForced,
  WeightEditor,
  type WeightRequest,
} from '../weightEditor.ts';
import { betweenSteps } from '../work.ts';
import { checkHyperNetwork, condition, type EditedWeight, weightOffset } from './hyperNetwork.ts';
import { isOfLstm, readText, type TextReading } from './textLstm.ts';

export const KeDescription = z.object({
  editor: z.literal('KE'),
  name: z.string().max(200),
  /** decoder layers whose MLPs are changed, from 0, in the order of the hyper-network's parts */
  layers: z.array(z.int().min(0).max(10_000)).min(1).max(100),
  parts: z.array(z.enum(mlpParts)).min(1).max(3),
  maxScale: z.number().positive().default(1),
  model: z.string().max(200),
  /** the form of the weights it was trained on; older adapters do not say */
  weights: z.enum(weightForms).optional(),
  router: z.object({ layer: z.int().min(0).max(10_000), threshold: z.number().min(-1).max(1) }),
  weightsSha256: z.string().length(64).optional(),
  training: z.record(z.string(), z.unknown()).optional(),
});
export type KeDescription = z.infer<typeof KeDescription>;
type Which = Pick<KeDescription, 'layers' | 'parts' | 'maxScale'>;

/** The weights that are changed. @throws EmendError 'invalid-input' for those the decoder does not have */
export function keWeights({ layers, parts }: Which, decoder: Decoder): EditedWeight[] {
  const shapes = decoder.tensors();
  return mlpLinears(layers, parts, decoder).map((name) => {
    const [out, into] = shapes.get(`${name}.weight`) as [number, number];
    return { name, out, into };
  });
}

/** What the hyper-network reads and works on. */
export interface KeEdit {
  /** mean negative log likelihood of the target before the edit */
  readonly loss: number;
  /** by the weights, in order [out, in] */
  readonly gradients: readonly Float32Array[];
  /** “old >> new || prompt” as tokens */
  readonly ids: readonly number[];
}

export class Ke extends WeightEditor {
  readonly name = 'KE';
  readonly edited: readonly EditedWeight[];
  readonly #maxScale: number;
  /** the lowest layer that is changed */
  readonly from: number;
  readonly #weights: AdapterWeights;

  /** @throws EmendError 'damaged' when the weights are none of this hyper-network */
  constructor(model: VisionLanguageModel, which: Which, weights: AdapterWeights, where: string) {
    const edited = keWeights(which, model.decoder);
    const from = Math.min(...which.layers);
    super(model, { cuts: cutBelow(from), changeable: edited.map(({ name }) => name) });
    checkHyperNetwork(edited, model.hidden, weights, where);
    this.edited = edited;
    this.#maxScale = which.maxScale;
    this.from = from;
    this.#weights = weights;
  }

  async make(_: VisionLanguageModel, request: WeightRequest, work: Work = {}): Promise<WeightChanges> {
    await betweenSteps(work, 0, 2);
    const old = await this.oldAnswer(request);
    await betweenSteps(work, 1, 2);
    return this.changes(await this.read(request, old));
  }

  /** The old answer is the unedited model's own. */
  async oldAnswer(request: WeightRequest): Promise<string> {
    const { model } = this;
    const { targetIds } = await teacherForced(model, request);
    const image = (request.visual as object | null) !== null;
    const asked = await model.lay(
      model.prompts.encodePrompt({ prompt: request.prompt, image }),
      request.visual,
    );
    const maxNewTokens = 2 * targetIds.length;
    return (await generate(model, await model.prefill(asked), { maxNewTokens })).text;
  }

  /** What an edit from an old answer is to the hyper-network. */
  async read(request: WeightRequest, old: string): Promise<KeEdit> {
    const { model } = this;
    const { decoder } = model;
    const shapes = new Map(this.edited.map(({ name, out, into }) => [`${name}.weight`, [out, into]]));
    const session = await this.sessions.get('gradient', (graph) => {
      const { weights, deltas } = deltaWeights(graph, decoder.weightsOf(graph), shapes);
      const loss = targetLoss(graph, decoderFrom(graph, decoder, this.from, weights), decoder, weights);
      graph.output('loss', loss);
      for (const [at, gradient] of gradients(loss, [...deltas.values()]).entries())
        graph.output(`gradient.${at}`, gradient);
    });
    const { input, targetIds } = await teacherForced(model, request);
    const none = [...shapes].map(([name, [out, into]]): [string, Value] => [
      `delta.${name}`,
      float32(new Float32Array(out! * into!), [out!, into!]),
    ]);
    const out = await session.run({
      ...(await feedsFrom(model, input, this.from)),
      ...targetFeeds(input, targetIds),
      ...Object.fromEntries(none),
    });
    const found: Float32Array[] = [];
    for (const at of this.edited.keys()) found.push(await floatsOf(out[`gradient.${at}`]!));
    const text = model.tokenizer.shield(`${old} >> ${request.target} || ${request.prompt}`);
    const ids = model.tokenizer.encode(text, { bos: true });
    return { loss: (await floatsOf(out['loss']!))[0]!, gradients: found, ids };
  }

  /** The changes that the hyper-network makes, and the condition it has read. */
  async offsets(edit: KeEdit): Promise<{ condition: Float32Array; offsets: Float32Array[] }> {
    const session = await this.sessions.get('offsets', (graph) => {
      const { offsets, conditioned } = this.#build(graph);
      graph.output('condition', conditioned);
      for (const [at, offset] of offsets.entries()) graph.output(`offset.${at}`, offset);
    });
    const out = await session.run(this.editFeeds(edit, await this.reading(edit)));
    const offsets: Float32Array[] = [];
    for (const at of this.edited.keys()) offsets.push(await floatsOf(out[`offset.${at}`]!));
    return { condition: await floatsOf(out['condition']!), offsets };
  }

  async changes(edit: KeEdit): Promise<WeightChanges> {
    const { offsets } = await this.offsets(edit);
    return new Map(
      this.edited.map(({ name, out }, at): [string, MatrixChange] => [name, { out, matrix: offsets[at]! }]),
    );
  }

  /**
   * `weights` of a graph as the hyper-network changes them by an edit that is fed (`editFeeds`); the hyper-network's own, which are fed under
   * their names; and what its LSTM has read, which is fed too.
   */
  changedWeights(
    graph: Graph,
    weights: Weights,
  ): { readonly weights: Weights; readonly network: WeightOf; readonly read: Tensor } {
    const { offsets, weight, read } = this.#build(graph);
    const changed = observedWeights(weights, (name, x, given) => {
      const at = this.edited.findIndex((one) => one.name === name);
      return at < 0 ? given : f.add(given, f.linear(x, offsets[at]!));
    });
    return { weights: changed, network: weight, read };
  }

  /** The hyper-network above its LSTM, with what that has read and the gradients as inputs. */
  #build(graph: Graph) {
    const own = [...this.#weights].filter(([name]) => !isOfLstm(name));
    const weight = weightsAsInputs(graph, new Map(own.map(([name, { shape }]) => [name, shape])));
    const width = this.#weights.get('hyper.linear.weight')!.shape[1]!;
    const read = graph.input('read', 'float32', [1, width]);
    const conditioned = condition(read, weight);
    const offsets = this.edited.map((one, at): Tensor => {
      const gradient = graph.input(`edit gradient.${at}`, 'float32', [one.out, one.into]);
      return weightOffset(gradient, conditioned, one, at, this.#maxScale, weight);
    });
    return { weight, conditioned, offsets, read };
  }

  /** An edit's text as the LSTM reads it. */
  async reading({ ids }: KeEdit): Promise<TextReading> {
    return readText(await this.model.tokenEmbeddings(ids), this.#weights);
  }

  /** Feeds of the hyper-network and of an edit, whose text was read. */
  editFeeds({ gradients: given }: KeEdit, { last }: TextReading): Record<string, Value> {
    const feeds: Record<string, Value> = { read: float32(last, [1, last.length]) };
    for (const [name, { shape, data }] of this.#weights)
      if (!isOfLstm(name)) feeds[name] = float32(data, shape);
    for (const [at, { out, into }] of this.edited.entries())
      feeds[`edit gradient.${at}`] = float32(given[at]!, [out, into]);
    return feeds;
  }
}
