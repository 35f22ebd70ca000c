/**
 * @file The samples of the reference numbers: pictures, prompts and targets of a tiny checkpoint, and teacher-forced logits of them.
 */
import { readFile } from 'node:fs/promises';
import type { Effect } from '../../electron/editors/editor.ts';
import { askQuestion, type Question } from '../../electron/editors/question.ts';
import { openSafetensors, readTensor, type SafetensorsFile } from '../../electron/files/safetensors.ts';
import type { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { floatsOf } from '../../electron/tensor/session.ts';
import { fixture } from './fixtures.ts';
import { squarePicture } from './pictures.ts';

export interface ReferenceSample extends Question {
  readonly target: string;
}

export const sampleNames = [
  'edit',
  'text_rephrase',
  'image_rephrase',
  'image_loc',
  'text_loc',
  'unrelated_image',
] as const;
export type SampleName = (typeof sampleNames)[number];

/** JSON of a reference file of the tiny LLaVA. */
export async function referenceJson<T>(name: string): Promise<T> {
  return JSON.parse(await readFile(fixture(`llava_tiny/${name}`), 'utf8')) as T;
}

/** Float tensors of a reference file of the tiny LLaVA, by name. */
export async function referenceTensors(name: string): Promise<(tensor: string) => Promise<Float32Array>> {
  const file: SafetensorsFile = await openSafetensors(fixture(`llava_tiny/${name}`));
  return async (tensor) => (await readTensor(file, tensor)).data as Float32Array;
}

/** A sample as it is asked, with the embeddings of its picture. */
export async function referenceSample(
  model: VisionLanguageModel,
  name: SampleName,
): Promise<ReferenceSample> {
  const forward =
    await referenceJson<Record<string, { text_prompt: string; text_full: string; vt_range?: unknown }>>(
      'forward.json',
    );
  const { text_prompt, text_full, vt_range } = forward[name]!;
  const pixels = !vt_range
    ? null
    : await (await referenceTensors('forward.safetensors'))(`${name}.pixel_values`);
  return {
    visual: pixels && (await model.visualEmbeddings(squarePicture(model, pixels))),
    prompt: text_prompt.replace('<image>\n', ''),
    target: text_full.slice(text_prompt.length).trimStart(),
  };
}

/** Logits of the rows that predict the target and what follows it, under an effect [target tokens + 1, vocabulary]. */
export async function logitsTail(
  model: VisionLanguageModel,
  { target, ...question }: ReferenceSample,
  effect: Effect = {},
): Promise<Float32Array> {
  const changed = effect.question ? await effect.question(question) : question;
  const { prefill, targetIds } = await askQuestion(model, changed, target);
  const { input } = prefill;
  const rows = [...targetIds, 0].map((_, place) => input.lastPromptRow + place);
  const run = await model.prefill(input, rows, effect.weights);
  return floatsOf((await model.finish(run, rows, effect.rows, effect.weights)).logits);
}
