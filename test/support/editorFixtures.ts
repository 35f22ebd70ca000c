/**
 * @file What the reference fixtures of editors have in common: samples, and the answers of the edited model to them.
 */
import { readFile } from 'node:fs/promises';
import { expect } from 'vitest';
import type { TrainingEdit } from '../../electron/editors/training/edits.ts';
import { openSafetensors, readTensor, type SafetensorsFile } from '../../electron/files/safetensors.ts';
import { generate } from '../../electron/models/generation.ts';
import type { Visual } from '../../electron/models/picture.ts';
import type { VisionLanguageModel, WeightChanges } from '../../electron/models/visionLanguageModel.ts';
import { floatsOf } from '../../electron/tensor/session.ts';
import { fixture, largestDifference } from './fixtures.ts';

interface Sample {
  readonly text_prompt: string;
  readonly text_full: string;
  readonly image: string | null;
}

/** Answers of an edited model, by sample. */
export type Cases = Readonly<
  Record<
    string,
    { readonly teacher_forced_argmax: readonly number[]; readonly greedy_ids?: readonly number[] }
  >
>;

export interface ReferenceRequest {
  readonly visual: Visual;
  readonly prompt: string;
  readonly target: string;
}

/** The reference of one editor on llava_tiny. */
export class EditorReference<Json> {
  readonly json: Json;
  readonly #file: SafetensorsFile;
  readonly #samples: Readonly<Record<string, Sample>>;

  private constructor(json: Json, file: SafetensorsFile, samples: Readonly<Record<string, Sample>>) {
    this.json = json;
    this.#file = file;
    this.#samples = samples;
  }

  static async open<Json>(editor: string): Promise<EditorReference<Json>> {
    const at = (name: string) => fixture(`llava_tiny/${name}`);
    const json = async (name: string) => JSON.parse(await readFile(at(name), 'utf8'));
    return new EditorReference(
      await json(`${editor}.json`),
      await openSafetensors(at(`${editor}.safetensors`)),
      await json('forward.json'),
    );
  }

  get names(): string[] {
    return [...this.#file.tensors.keys()];
  }

  async floats(name: string): Promise<Float32Array> {
    return (await readTensor(this.#file, name)).data as Float32Array;
  }

  async integers(name: string): Promise<{ shape: readonly number[]; data: number[] }> {
    const { shape, data } = await readTensor(this.#file, name);
    return { shape, data: Array.from(data as BigInt64Array, Number) };
  }

  shape(name: string): readonly number[] {
    return this.#file.tensors.get(name)!.shape;
  }

  async visual(
    model: VisionLanguageModel,
    image: string | null,
    changes?: WeightChanges,
  ): Promise<Visual | null> {
    if (!image) return null;
    return model.visualEmbeddings(await model.pixelsOf(await readFile(fixture(`images/${image}`))), changes);
  }

  /** Picture, prompt and target of a sample. */
  async request(model: VisionLanguageModel, sample = 'edit'): Promise<ReferenceRequest> {
    const { text_prompt, text_full, image } = this.#samples[sample]!;
    const visual = (await this.visual(model, image ?? null)) as Visual;
    return {
      visual,
      prompt: text_prompt.replace('<image>\n', ''),
      target: text_full.slice(text_prompt.length + 1),
    };
  }

  /** The samples as an edit to train on. */
  async trainingEdit(model: VisionLanguageModel): Promise<TrainingEdit> {
    const pixels = async (sample: string) =>
      model.pixelsOf(await readFile(fixture(`images/${this.#samples[sample]!.image}`)));
    const text = async (sample: string) => {
      const { prompt, target } = await this.request(model, sample);
      return { prompt, answer: target };
    };
    const { prompt, target } = await this.request(model);
    return {
      ...{ prompt, target, rephrase: (await text('text_rephrase')).prompt },
      pixels: await pixels('edit'),
      rephrasePixels: await pixels('image_rephrase'),
      localityPixels: await pixels('image_loc'),
      locality: await text('image_loc'),
      textLocality: await text('text_loc'),
    };
  }

  /**
   * Expects the answers to every sample of the model with these changes: `PREFIX SAMPLE.post_logits_tail`, argmaxes, greedy ids.
   */
  async expectAnswers(
    model: VisionLanguageModel,
    changes: WeightChanges,
    prefix: string,
    cases: Cases,
    tolerance: number,
  ): Promise<void> {
    for (const [sample, { teacher_forced_argmax, greedy_ids }] of Object.entries(cases)) {
      const { visual, prompt, target } = await this.request(model, sample);
      const question = { prompt, image: visual !== null };
      const { targetIds, ...encoded } = model.prompts.encodeTarget(question, target);
      const prefill = await model.prefill(await model.lay(encoded, visual));
      const { rows } = prefill.input;
      const tail = targetIds.length + 1;
      const asked = Array.from({ length: tail }, (_, place) => rows - tail + place);
      const logits = await floatsOf((await model.finish(prefill, asked, undefined, changes)).logits);
      const wanted = await this.floats(`${prefix}${sample}.post_logits_tail`);
      expect(largestDifference(logits, wanted), `${prefix}${sample}`).toBeLessThan(tolerance);
      const width = logits.length / tail;
      const argmaxes = targetIds.map((_, place) => {
        const row = logits.subarray(place * width, (place + 1) * width);
        return row.indexOf(Math.max(...row));
      });
      expect(argmaxes, `${prefix}${sample}`).toEqual(teacher_forced_argmax);
      if (!greedy_ids) continue;
      const asking = await model.prefill(await model.lay(model.prompts.encodePrompt(question), visual));
      const { tokens } = await generate(model, asking, { maxNewTokens: greedy_ids.length, changes });
      expect(
        tokens.map(({ id }) => id),
        `${prefix}${sample}`,
      ).toEqual(greedy_ids.slice(0, tokens.length));
    }
  }
}
