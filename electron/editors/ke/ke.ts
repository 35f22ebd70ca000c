/**
 * @file KE: a hyper-network that reads the edit turns the gradient of its loss into changes of MLP weights (De Cao et al. 2021).
 */
import { z } from 'zod';
import type { Decoder } from '../../models/decoder.ts';
import { decoderFrom, feedsFrom, logitsAt, targetFeeds, targetLoss } from '../../models/decoderPass.ts';
import { generate } from '../../models/generation.ts';
import type { ModelInput, VisionLanguageModel, WeightChanges } from '../../models/visionLanguageModel.ts';
import type { MatrixChange } from '../../models/weightChanges.ts';
import { deltaWeights, observedWeights, weightsAsInputs } from '../../models/weights.ts';
import * as f from '../../tensor/functions.ts';
import { gradients } from '../../tensor/gradients.ts';
import type { Graph, Tensor } from '../../tensor/graph.ts';
import { float32, floatsOf, int64, type Value } from '../../tensor/session.ts';
import { type AdapterWeights, readAdapterFiles } from '../adapterFiles.ts';
import type { EditorKind, UnopenedEditor, Work } from '../editor.ts';
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

export const KeDescription = z.object({
  editor: z.literal('KE'),
  name: z.string().max(200),
  /** decoder layers whose MLPs are changed, from 0, in the order of the hyper-network's parts */
  layers: z.array(z.int().min(0).max(10_000)).min(1).max(100),
  parts: z.array(z.enum(mlpParts)).min(1).max(3),
  maxScale: z.number().positive().default(1),
  model: z.string().max(200),
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

/** Texts are padded to so many tokens: one graph serves all of a length. */
const TOKENS_TOGETHER = 32;

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
  readonly #from: number;
  readonly #weights: AdapterWeights;

  /** @throws EmendError 'damaged' when the weights are none of this hyper-network */
  constructor(model: VisionLanguageModel, which: Which, weights: AdapterWeights, where: string) {
    const edited = keWeights(which, model.decoder);
    const from = Math.min(...which.layers);
    super(model, { cuts: cutBelow(from), changeable: edited.map(({ name }) => name) });
    checkHyperNetwork(edited, model.hidden, weights, where);
    this.edited = edited;
    this.#maxScale = which.maxScale;
    this.#from = from;
    this.#weights = weights;
  }

  /** The old answer is the unedited model's own. */
  async make(_: VisionLanguageModel, request: WeightRequest, work: Work = {}): Promise<WeightChanges> {
    const { model } = this;
    await betweenSteps(work, 0, 2);
    const { targetIds } = await teacherForced(model, request);
    const image = (request.visual as object | null) !== null;
    const asked = await model.lay(
      model.prompts.encodePrompt({ prompt: request.prompt, image }),
      request.visual,
    );
    const { text } = await generate(model, await model.prefill(asked), {
      maxNewTokens: 2 * targetIds.length,
    });
    await betweenSteps(work, 1, 2);
    return this.changes(await this.read(request, text));
  }

  /** What an edit from an old answer is to the hyper-network. */
  async read(request: WeightRequest, old: string): Promise<KeEdit> {
    const { model } = this;
    const { decoder } = model;
    const shapes = new Map(this.edited.map(({ name, out, into }) => [`${name}.weight`, [out, into]]));
    const session = await this.sessions.get('gradient', (graph) => {
      const { weights, deltas } = deltaWeights(graph, decoder.weightsOf(graph), shapes);
      const loss = targetLoss(graph, decoderFrom(graph, decoder, this.#from, weights), decoder, weights);
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
      ...(await feedsFrom(model, input, this.#from)),
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
    const rows = paddedRows(edit.ids);
    const session = await this.sessions.get(`offsets of ${rows} tokens`, (graph) => {
      const { offsets, conditioned } = this.#build(graph, rows);
      graph.output('condition', conditioned);
      for (const [at, offset] of offsets.entries()) graph.output(`offset.${at}`, offset);
    });
    const out = await session.run(await this.#feeds(edit));
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
   * A part of the training loss after the edit and its gradients by the hyper-network's weights: `nll` times the mean negative log
   * likelihood of the target + `smoothing` times the mean of Σ −log p over the vocabulary + `kl` times the mean KL(before ‖ after) at the
   * rows that predict it.
   */
  async trainingTerm(
    edit: KeEdit,
    { input, targetIds }: { readonly input: ModelInput; readonly targetIds: readonly number[] },
    weights: { readonly nll: number; readonly smoothing: number; readonly kl: number },
  ): Promise<{ nll: number; smoothing: number; kl: number; gradients: Map<string, Float32Array> }> {
    const { model } = this;
    const { decoder } = model;
    const names = [...this.#weights.keys()];
    const rows = paddedRows(edit.ids);
    const terms = ['nll', 'smoothing', 'kl'] as const;
    const session = await this.sessions.get(`training on ${rows} tokens`, (graph) => {
      const { offsets, weight } = this.#build(graph, rows);
      const changed = observedWeights(decoder.weightsOf(graph), (name, x, given) => {
        const at = this.edited.findIndex((one) => one.name === name);
        return at < 0 ? given : f.add(given, f.linear(x, offsets[at]!));
      });
      const top = decoderFrom(graph, decoder, this.#from, changed);
      const logits = logitsAt(top, graph.input('predicting', 'int64', ['target']), decoder, changed);
      const before = graph.input('before', 'float32', ['target', decoder.vocab]);
      const values = {
        nll: f.mean(f.crossEntropy(logits, graph.input('labels', 'int64', ['target']))),
        smoothing: f.negate(f.mean(f.sum(f.logSoftmax(logits), [-1]))),
        kl: f.mean(f.klDivergence(before, logits)),
      };
      const parts = terms.map((term) => {
        graph.output(term, values[term]);
        return f.multiply(values[term], graph.input(`weight of ${term}`, 'float32', []));
      });
      const loss = parts.reduce((a, b) => f.add(a, b));
      for (const [at, gradient] of gradients(loss, names.map(weight)).entries())
        graph.output(`gradient.${names[at]}`, gradient);
    });
    const predicting = targetIds.map((_, place) => input.lastPromptRow + place);
    const out = await session.run({
      ...(await feedsFrom(model, input, this.#from)),
      ...(await this.#feeds(edit)),
      predicting: int64(predicting, [predicting.length]),
      labels: int64(targetIds, [targetIds.length]),
      before: (await model.finish(await model.prefill(input), predicting)).logits,
      ...Object.fromEntries(
        terms.map((term) => [`weight of ${term}`, float32(Float32Array.of(weights[term]), [])]),
      ),
    });
    const found = new Map<string, Float32Array>();
    for (const name of names) found.set(name, await floatsOf(out[`gradient.${name}`]!));
    const one = async (name: string) => (await floatsOf(out[name]!))[0]!;
    return {
      nll: await one('nll'),
      smoothing: await one('smoothing'),
      kl: await one('kl'),
      gradients: found,
    };
  }

  /** The hyper-network over texts of so many tokens, with the gradients as inputs. */
  #build(graph: Graph, rows: number) {
    const weight = weightsAsInputs(
      graph,
      new Map([...this.#weights].map(([name, { shape }]) => [name, shape])),
    );
    const read = graph.input('read', 'float32', [rows, this.model.hidden]);
    const conditioned = condition(read, graph.input('there', 'float32', [rows, 1]), weight);
    const offsets = this.edited.map((one, at): Tensor => {
      const gradient = graph.input(`edit gradient.${at}`, 'float32', [one.out, one.into]);
      return weightOffset(gradient, conditioned, one, at, this.#maxScale, weight);
    });
    return { weight, conditioned, offsets };
  }

  async #feeds({ ids, gradients: given }: KeEdit): Promise<Record<string, Value>> {
    const { hidden } = this.model;
    const rows = paddedRows(ids);
    const read = new Float32Array(rows * hidden);
    read.set(await this.model.tokenEmbeddings(ids));
    const feeds: Record<string, Value> = {
      read: float32(read, [rows, hidden]),
      there: float32(new Float32Array(rows).fill(1, 0, ids.length), [rows, 1]),
    };
    for (const [name, { shape, data }] of this.#weights) feeds[name] = float32(data, shape);
    for (const [at, { out, into }] of this.edited.entries())
      feeds[`edit gradient.${at}`] = float32(given[at]!, [out, into]);
    return feeds;
  }
}

const paddedRows = (ids: readonly number[]) => Math.ceil(ids.length / TOKENS_TOGETHER) * TOKENS_TOGETHER;

export const ke: EditorKind = {
  name: 'KE',
  acts: 'weights of MLPs, by what a hyper-network makes of the edit’s text and gradient',
  byConstruction: {},
  async read(folder, { backbone }): Promise<UnopenedEditor> {
    const { description, weights, fingerprint, path } = await readAdapterFiles(folder, KeDescription);
    const { name, model, router, layers } = description;
    return {
      ...{ editor: ke, folder: true, name, model, fingerprint, router, settings: null },
      scope: 'everywhere',
      cuts: cutBelow(Math.min(...layers)),
      changeable: keWeights(description, backbone.decoder).map((one) => one.name),
      open: async (opened) => new Ke(opened, description, weights, path),
    };
  },
};
