/**
 * @file GRACE (Hartvigsen et al. 2023): a codebook beside one MLP; where a prompt's key lies in a radius, its value stands for what the
 * MLP gives at the last prompt token. Where it acts is its own.
 */
import { z } from 'zod';
import { EmendError } from '../../errors.ts';
import { decodeSafetensors, encodeSafetensors } from '../../files/safetensors.ts';
import { attentionFeeds, type Decoder } from '../../models/decoder.ts';
import { decoderFrom, feedsFrom, targetFeeds, targetLoss } from '../../models/decoderPass.ts';
import type { Checkpoint } from '../../models/open.ts';
import type { Adapt, ModelInput, VisionLanguageModel } from '../../models/visionLanguageModel.ts';
import { observedWeights } from '../../models/weights.ts';
import * as f from '../../tensor/functions.ts';
import { gradients } from '../../tensor/gradients.ts';
import { float32, floatsOf, int64, type Value } from '../../tensor/session.ts';
import { Adam, adamDefaults } from '../../training/optimizer.ts';
import type { Editor, EditorFact, EditorKind, EditorNeeds, EditRequest, Effect, Work } from '../editor.ts';
import { askQuestion, type QuestionPart } from '../question.ts';
import { parsedJson } from '../shownFact.ts';
import { layerOf, Sessions } from '../weightEditor.ts';
import { betweenSteps } from '../work.ts';
import { Codebook, type CodebookEdit } from './codebook.ts';

export const GraceSettings = z.object({
  layer: z.int().nullable().default(null).meta({
    title: 'Layer',
    description: 'Whose MLP has the codebook, from 0. Empty: as deep as layer 27 of 32.',
  }),
  radius: z
    .number()
    .positive()
    .max(1e6)
    .default(1)
    .meta({ title: 'Radius', description: 'Of a new key (ε).' }),
  steps: z.int().min(1).max(1000).default(100).meta({ title: 'Steps', description: 'Of Adam, for a value.' }),
  rate: z.number().positive().max(100).default(1).meta({ title: 'Learning rate', description: 'Of Adam.' }),
  seed: z
    .int()
    .min(0)
    .max(2 ** 31 - 1)
    .default(1)
    .meta({ title: 'Seed', description: 'Of the values that training starts from, uniform in 0..1.' }),
  labels: z.enum(['target ids', 'published mean']).default('target ids').meta({
    title: 'Same answer',
    description:
      'How two edits are found to want the same: by their target’s tokens, or as the published code does, by the mean of all labels.',
  }),
});
export type GraceSettings = z.infer<typeof GraceSettings>;

const layerUsed = ({ layer }: GraceSettings, { layers }: Pick<Decoder, 'layers'>) =>
  layer === null ? Math.min(layers - 2, Math.round((27 / 32) * layers)) : layerOf(layer, layers);

/** The cuts above and below the layer. @throws EmendError 'invalid-input' for the last layer, above which nothing is cut */
export function graceNeeds(settings: GraceSettings, { backbone }: Checkpoint): EditorNeeds {
  const { layers } = backbone.decoder;
  const layer = layerUsed(settings, backbone.decoder);
  if (layer > layers - 2)
    throw new EmendError(
      'invalid-input',
      `GRACE cannot act in the last layer here: take 0 to ${layers - 2}.`,
    );
  return { cuts: layer === 0 ? [0] : [layer - 1, layer], changeable: [] };
}

/** What the projection out of the MLP reads and gives at the last prompt row. */
interface MlpRow {
  readonly key: Float32Array;
  readonly out: Float32Array;
}

export class Grace implements Editor<CodebookEdit> {
  readonly name = 'GRACE';
  readonly cuts: readonly number[];
  readonly facts: readonly EditorFact[];
  readonly layer: number;
  readonly settings: GraceSettings;
  readonly #model: VisionLanguageModel;
  readonly #sessions: Sessions;
  /** false where something else decides whether an edit acts */
  readonly #decides: boolean;

  constructor(model: VisionLanguageModel, settings: GraceSettings, decides: boolean) {
    this.#model = model;
    this.settings = settings;
    this.layer = layerUsed(settings, model.decoder);
    this.cuts = graceNeeds(settings, model.checkpoint).cuts;
    this.#decides = decides;
    this.#sessions = new Sessions({ ...model.decoder.session, prepack: true });
    this.facts = [{ label: 'Codebook', value: `beside the MLP of layer ${this.layer}` }];
  }

  /** A value is trained from a cold start, or where the codebook of the edits that act expands, from the value that is there. */
  async make(_: VisionLanguageModel, request: EditRequest, work: Work = {}): Promise<CodebookEdit> {
    const before = this.codebook((request.before ?? []) as readonly CodebookEdit[]);
    return (await this.edit(request, before, this.#coldStart(request), work)).edit;
  }

  /** `cold`: what the value is trained from, unless that of an entry is trained on. */
  async edit(
    { prompt, target, visual }: QuestionPart & { readonly target: string },
    before: Codebook,
    cold: Float32Array,
    work: Work = {},
  ): Promise<{ edit: CodebookEdit; losses: number[] }> {
    const { prefill, targetIds } = await askQuestion(this.#model, { prompt, visual }, target);
    const { input } = prefill;
    const { key } = await this.#mlpRow(await feedsFrom(this.#model, input, this.layer), input);
    const asked = { key, label: targetIds, rows: input.rows };
    const { action, entry } = before.plan(asked);
    const start = action === 'expand' ? before.value(entry) : cold;
    const { value, losses } = await this.#train(input, targetIds, start, work);
    return { edit: { ...asked, value }, losses };
  }

  /** The codebook of edits, taken up in their order. */
  codebook(edits: readonly CodebookEdit[]): Codebook {
    const { radius, labels } = this.settings;
    const book = new Codebook(radius, labels);
    for (const edit of edits) book.take(edit);
    return book;
  }

  encode({ key, value, label, rows }: CodebookEdit): Uint8Array {
    return encodeSafetensors(
      new Map([
        ['key', { dtype: 'F32', shape: [key.length], data: key }],
        ['value', { dtype: 'F32', shape: [value.length], data: value }],
      ]),
      { label: JSON.stringify(label), rows: String(rows) },
    );
  }

  decode(bytes: Uint8Array): CodebookEdit {
    const { tensors, metadata } = decodeSafetensors(bytes, 'The stored edit');
    const { decoder } = this.#model;
    const floats = (name: string, length: number): Float32Array => {
      const data = tensors.get(name)?.data;
      if (data instanceof Float32Array && data.length === length) return data;
      throw unfit();
    };
    const { width } = decoder.mlp(this.layer);
    const label = z
      .array(z.int())
      .min(1)
      .safeParse(parsedJson(metadata.get('label')));
    const rows = z.coerce.number().int().min(1).safeParse(metadata.get('rows'));
    if (!label.success || !rows.success) throw unfit();
    return {
      key: floats('key', width),
      value: floats('value', decoder.hidden),
      label: label.data,
      rows: rows.data,
    };
  }

  effect(edits: readonly CodebookEdit[]): Effect {
    const book = this.codebook(edits);
    const rows = new WeakMap<ModelInput, MlpRow>();
    const below = this.layer - 1;
    const adapt: Adapt = async (hidden, input, cut) => {
      if (cut === below) rows.set(input, await this.mlpRowOf(input, hidden));
      if (cut !== this.layer) return hidden;
      const { key, out } = rows.get(input) ?? (await this.mlpRowOf(input, input.embeddings));
      const found = book.nearest(key);
      if (!found || (this.#decides && !found.replaced)) return hidden;
      const all = (await floatsOf(hidden)).slice();
      const value = book.value(found.entry);
      const from = input.lastPromptRow * this.#model.hidden;
      for (let i = 0; i < value.length; i++) all[from + i]! += value[i]! - out[i]!;
      return float32(all, hidden.dims);
    };
    return { rows: adapt };
  }

  /** `entering`: the output of the layer below, the embeddings below layer 0 [1, rows, hidden] */
  mlpRowOf(input: ModelInput, entering: Value): Promise<MlpRow> {
    const feeds = { ...attentionFeeds(this.#model.decoder, input.positions, 0, input.added), entering };
    return this.#mlpRow(feeds, input);
  }

  async #mlpRow(feeds: Record<string, Value>, { lastPromptRow }: ModelInput): Promise<MlpRow> {
    const { decoder } = this.#model;
    const { out, width } = decoder.mlp(this.layer);
    const session = await this.#sessions.get('key', (graph) => {
      const row = graph.input('row', 'int64', [1]);
      const weights = observedWeights(decoder.weightsOf(graph), (name, x, given) => {
        if (name === out) {
          graph.output('key', f.gather(f.reshape(x, ['rows', width]), row));
          graph.output('out', f.gather(f.reshape(given, ['rows', decoder.hidden]), row));
        }
        return given;
      });
      decoderFrom(graph, decoder, this.layer, weights, { last: this.layer });
    });
    const found = await session.run({ ...feeds, row: int64([lastPromptRow], [1]) });
    return { key: (await floatsOf(found['key']!)).slice(), out: await floatsOf(found['out']!) };
  }

  /** The value by Adam on the mean NLL of the target [hidden]; losses before each step. */
  async #train(
    input: ModelInput,
    targetIds: readonly number[],
    start: Float32Array,
    work: Work,
  ): Promise<{ value: Float32Array; losses: number[] }> {
    const { decoder } = this.#model;
    const { hidden } = decoder;
    const session = await this.#sessions.get('value', (graph) => {
      const value = graph.input('value', 'float32', [hidden]);
      const row = graph.input('row', 'int64', [1]);
      const { out } = decoder.mlp(this.layer);
      const weights = observedWeights(decoder.weightsOf(graph), (name, _, given) => {
        if (name !== out) return given;
        const flat = f.reshape(given, ['rows', hidden]);
        return f.reshape(f.scatterRows(flat, row, f.reshape(value, [1, hidden])), [1, 'rows', hidden]);
      });
      const top = decoderFrom(graph, decoder, this.layer, weights);
      const loss = targetLoss(graph, top, decoder, weights);
      graph.output('loss', loss);
      graph.output('gradient', gradients(loss, [value])[0]!);
    });
    const feeds = {
      ...(await feedsFrom(this.#model, input, this.layer)),
      ...targetFeeds(input, targetIds),
      row: int64([input.lastPromptRow], [1]),
    };
    const value = start.slice();
    const { rate, steps } = this.settings;
    const adam = new Adam(new Map([['value', { shape: [hidden], data: value }]]), adamDefaults(rate));
    const losses: number[] = [];
    for (let step = 0; step < steps; step++) {
      await betweenSteps(work, step, steps);
      const out = await session.run({ ...feeds, value: float32(value, [hidden]) });
      losses.push((await floatsOf(out['loss']!))[0]!);
      adam.update(new Map([['value', await floatsOf(out['gradient']!)]]));
    }
    return { value, losses };
  }

  /** Uniform in 0..1, the same for the same request (mulberry32). */
  #coldStart({ prompt, target }: Pick<EditRequest, 'prompt' | 'target'>): Float32Array {
    let state = this.settings.seed;
    for (const character of `${prompt} ${target}`)
      state = (Math.imul(state, 31) + character.codePointAt(0)!) | 0;
    return Float32Array.from({ length: this.#model.hidden }, () => {
      state = (state + 0x6d2b79f5) | 0;
      let t = Math.imul(state ^ (state >>> 15), state | 1);
      t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
      return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
    });
  }

  dispose(): Promise<void> {
    return this.#sessions.dispose();
  }
}

const unfit = () =>
  new EmendError('damaged', 'The stored edit does not belong to this model. Check the edit again.');

export const grace: EditorKind<GraceSettings> = {
  name: 'GRACE',
  acts: 'what one MLP gives at the last prompt token, where a codebook’s key is near',
  byConstruction: {},
  untrained: {
    settings: GraceSettings,
    scope: 'own',
    needs: graceNeeds,
    open: async (settings, model, scope) => new Grace(model, settings, scope === 'own'),
  },
};
