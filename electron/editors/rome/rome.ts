/**
 * @file ROME: a rank-one change of the projection out of one MLP, such that the key of the subject gives a value that makes the model
 * say the target (Meng et al. 2022, eqs 2–4).
 */
import { z } from 'zod';
import type { Decoder } from '../../models/decoder.ts';
import { decoderFrom, feedsFrom } from '../../models/decoderPass.ts';
import type { ModelInput, VisionLanguageModel, WeightChanges } from '../../models/visionLanguageModel.ts';
import { observedWeights } from '../../models/weights.ts';
import * as f from '../../tensor/functions.ts';
import { floatsOf, int64 } from '../../tensor/session.ts';
import type { EditorKind, EditorNeeds, Work } from '../editor.ts';
import { type KeyMoments, keyMoments, TextMoments, textsSetting } from '../keyMoments.ts';
import {
  type FoundVector,
  findTargetVector,
  length,
  type Placed,
  TargetVectorSettings,
} from '../targetVector.ts';
import {
  cutBelow,
  layerOf,
  subjectRow,
  type TeacherForced,
  teacherForced,
  WeightEditor,
  type WeightRequest,
} from '../weightEditor.ts';

/** Settings with the published code's values for Llama. */
export const RomeSettings = TargetVectorSettings.extend({
  layer: z
    .int()
    .nullable()
    .default(null)
    .describe('Decoder layer whose MLP is changed, from 0; empty: as deep as layer 5 of 32'),
  rate: TargetVectorSettings.shape.rate.default(0.5),
  passes: TargetVectorSettings.shape.passes.default(25),
  decay: TargetVectorSettings.shape.decay.default(1e-3),
  klFactor: TargetVectorSettings.shape.klFactor.default(0.0625),
  clamp: TargetVectorSettings.shape.clamp.default(4),
  stopBelow: TargetVectorSettings.shape.stopBelow.default(5e-2),
  keyToken: z
    .enum(['subject', 'prompt'])
    .default('subject')
    .describe(
      'The token that stands for the fact: the subject’s last where a request names one, or always the prompt’s last',
    ),
  contexts: z
    .array(z.string().max(1000))
    .min(1)
    .max(100)
    .default([''])
    .describe('Texts put before the prompt; the key and the loss are means over them'),
  texts: textsSetting('none is used, as published for Llama'),
});
export type RomeSettings = z.infer<typeof RomeSettings>;

const layerChanged = ({ layer }: RomeSettings, { layers }: Decoder) =>
  layer === null ? Math.round((5 / 32) * layers) : layerOf(layer, layers);

export function romeNeeds(settings: RomeSettings, decoder: Decoder): EditorNeeds {
  const layer = layerChanged(settings, decoder);
  return { cuts: cutBelow(layer), changeable: [decoder.mlp(layer).out] };
}

/** A rank-one edit with all that led to it. */
export interface RomeEdit {
  readonly changes: WeightChanges;
  readonly vector: FoundVector;
  /** a key for each context [inner width] */
  readonly keys: readonly Float32Array[];
  /** C⁻¹·k, of length 1 [inner width] */
  readonly u: Float32Array;
  /** (v* − W·k) / (k·u) [hidden] */
  readonly right: Float32Array;
}

/** Where the token is that stands for a fact, and the text on which the model must not change. */
export interface KeyPlaces {
  readonly prompts: ReadonlyArray<Placed & TeacherForced>;
  readonly unchanged: Placed;
}

/**
 * A request's prompt behind each of `contexts`, with the row of the token that stands for the fact; and the text “{subject} is a”, or the
 * prompt itself where no subject is named, without the picture.
 */
export async function keyPlaces(
  model: VisionLanguageModel,
  request: WeightRequest,
  contexts: readonly string[],
  keyToken: 'subject' | 'prompt',
): Promise<KeyPlaces> {
  const { prompt, subject } = request;
  const atSubject = subject !== undefined && keyToken === 'subject' ? subject : undefined;
  const rowOf = (laid: Pick<TeacherForced, 'input' | 'encoded'>, text: string, before = '') =>
    atSubject === undefined ? laid.input.lastPromptRow : subjectRow(model, laid, text, atSubject, before);
  const prompts: Array<Placed & TeacherForced> = [];
  for (const context of contexts) {
    const laid = await teacherForced(model, request, context);
    prompts.push({ ...laid, row: rowOf(laid, prompt, context) });
  }
  const alone = subject === undefined ? prompt : `${subject} is a`;
  const encoded = model.prompts.encodePrompt({ prompt: alone, image: false });
  const input = await model.lay(encoded, null);
  return { prompts, unchanged: { input, row: rowOf({ input, encoded }, alone) } };
}

export class Rome extends WeightEditor {
  readonly name = 'ROME';
  readonly settings: RomeSettings;
  readonly layer: number;
  readonly #texts: TextMoments;

  constructor(model: VisionLanguageModel, settings: RomeSettings) {
    super(model, romeNeeds(settings, model.decoder));
    this.settings = settings;
    this.layer = layerChanged(settings, model.decoder);
    this.#texts = new TextMoments(settings.texts, model, (_, sequences) => this.momentsOver(sequences));
  }

  /** Covariance of keys over token sequences. */
  momentsOver(sequences: readonly (readonly number[])[]): Promise<KeyMoments> {
    return keyMoments(this.model, this.sessions, this.layer, this.layer, sequences);
  }

  async make(_: VisionLanguageModel, request: WeightRequest, work: Work = {}): Promise<WeightChanges> {
    return (await this.edit(request, await this.#texts.of(this.layer), work)).changes;
  }

  /** @param moments covariance of keys; null: the identity */
  async edit(request: WeightRequest, moments: KeyMoments | null, work: Work = {}): Promise<RomeEdit> {
    const { model, layer, settings, sessions } = this;
    const { prompts, unchanged } = await keyPlaces(model, request, settings.contexts, settings.keyToken);
    const vector = await findTargetVector(
      model,
      sessions,
      { layer, place: 'mlp' },
      prompts,
      unchanged,
      settings,
      work,
    );
    const keys: Float32Array[] = [];
    for (const { input, row } of prompts) keys.push((await this.#keyAt(input, row)).key);
    const mean = keys[0]!.map((_, i) => keys.reduce((sum, key) => sum + key[i]!, 0) / keys.length);
    const own = await keyPlaces(model, request, [''], settings.keyToken);
    const { key, value } = await this.#keyAt(own.prompts[0]!.input, own.prompts[0]!.row);

    const direction = moments ? moments.solve(mean) : Float64Array.from(mean);
    const size = length(direction);
    const u = Float32Array.from(direction, (x) => x / size);
    const along = key.reduce((sum, x, i) => sum + x * u[i]!, 0);
    const right = vector.target.map((x, i) => (x - value[i]!) / along);
    const changes = new Map([[model.decoder.mlp(layer).out, { rank: 1, right: u, left: right }]]);
    return { changes, vector, keys, u, right };
  }

  /** What the projection out of the MLP reads and gives at a row. */
  async #keyAt(input: ModelInput, row: number): Promise<{ key: Float32Array; value: Float32Array }> {
    const { model, layer } = this;
    const { decoder } = model;
    const { out, width } = decoder.mlp(layer);
    const session = await this.sessions.get('key', (graph) => {
      const at = graph.input('row', 'int64', [1]);
      const weights = observedWeights(decoder.weightsOf(graph), (name, x, given) => {
        if (name === out) {
          graph.output('key', f.gather(f.reshape(x, ['rows', width]), at));
          graph.output('value', f.gather(f.reshape(given, ['rows', decoder.hidden]), at));
        }
        return given;
      });
      decoderFrom(graph, decoder, layer, weights, { last: layer });
    });
    const found = await session.run({ ...(await feedsFrom(model, input, layer)), row: int64([row], [1]) });
    return { key: await floatsOf(found['key']!), value: await floatsOf(found['value']!) };
  }
}

export const rome: EditorKind<RomeSettings> = {
  name: 'ROME',
  acts: 'the projection out of one layer’s MLP, by rank one',
  byConstruction: {},
  untrained: {
    scope: 'everywhere',
    settings: RomeSettings,
    needs: (settings, { backbone }) => romeNeeds(settings, backbone.decoder),
    open: async (settings, model) => new Rome(model, settings),
  },
};
