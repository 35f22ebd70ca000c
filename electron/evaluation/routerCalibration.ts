/**
 * @file Where the router looks and from which similarity an edit acts, calibrated on data and kept with the adapter.
 */

import { cosine, lastPromptToken } from '../editors/scope/cosine.ts';
import { seeEdits } from '../editors/training/batch.ts';
import type { FrozenVision } from '../editors/training/cachedVision.ts';
import type { TrainingEdit } from '../editors/training/edits.ts';
import { EmendError } from '../errors.ts';
import type { Visual } from '../models/picture.ts';
import type { VisionLanguageModel } from '../models/visionLanguageModel.ts';

export interface RouterCalibration {
  /** decoder layer whose output is compared, from 0 */
  readonly layer: number;
  readonly threshold: number;
  /** share of rephrased wordings and pictures that reach the threshold */
  readonly acts: number;
  /** share of other questions and other pictures that stay below it */
  readonly staysOut: number;
  readonly edits: number;
}

/** The threshold with the best mean of both shares; between equally good ones, in the middle. */
export function bestThreshold(
  wanted: readonly number[],
  unwanted: readonly number[],
): { threshold: number; acts: number; staysOut: number } {
  if (wanted.length === 0 || unwanted.length === 0)
    throw new EmendError('invalid-input', 'The router needs both kinds of examples.');
  const values = [...new Set([...wanted, ...unwanted])].sort((a, b) => a - b);
  const share = (list: readonly number[], passes: (value: number) => boolean) =>
    list.filter(passes).length / list.length;
  let best = { threshold: 1, acts: 0, staysOut: 1, score: 0 };
  for (let i = 0; i <= values.length; i++) {
    const threshold =
      i === 0 ? values[0]! - 1e-3 : i === values.length ? 1 : (values[i - 1]! + values[i]!) / 2;
    const acts = share(wanted, (value) => value >= threshold);
    const staysOut = share(unwanted, (value) => value < threshold);
    if (acts + staysOut > best.score) best = { threshold, acts, staysOut, score: acts + staysOut };
  }
  const { threshold, acts, staysOut } = best;
  return { threshold: Math.min(1, Math.max(-1, threshold)), acts, staysOut };
}

/**
 * Compares edits with their rephrased wordings and pictures (which an edit should act on) and with other questions about the
 * same picture and other pictures (which it should not), at every cut of the model, and keeps the layer that tells them apart best.
 */
export async function calibrateRouter(
  model: VisionLanguageModel,
  vision: FrozenVision,
  edits: readonly TrainingEdit[],
): Promise<RouterCalibration> {
  const wanted = new Map<number, number[]>(model.cuts.map((layer) => [layer, []]));
  const unwanted = new Map<number, number[]>(model.cuts.map((layer) => [layer, []]));
  for (const edit of edits) {
    const [own, rephrased, other] = await seeEdits(vision, [edit]);
    const at = async (visual: Visual, prompt: string) => {
      const encoded = model.prompts.encodePrompt({ prompt, image: true });
      const prefill = await model.prefill(await model.lay(encoded, visual));
      return Promise.all(model.cuts.map((layer) => lastPromptToken(model, prefill, layer)));
    };
    const key = await at(own!, edit.prompt);
    const compare = async (into: Map<number, number[]>, visual: Visual, prompt: string) => {
      const found = await at(visual, prompt);
      for (const [index, layer] of model.cuts.entries())
        into.get(layer)!.push(cosine(key[index]!, found[index]!));
    };
    await compare(wanted, own!, edit.rephrase);
    await compare(wanted, rephrased!, edit.prompt);
    await compare(unwanted, other!, edit.locality.prompt);
    await compare(unwanted, other!, edit.prompt);
    if (edit.extra?.own) await compare(unwanted, own!, edit.extra.own.prompt);
  }
  const found = model.cuts.map((layer) => ({
    layer,
    edits: edits.length,
    ...bestThreshold(wanted.get(layer)!, unwanted.get(layer)!),
  }));
  return found.reduce((a, b) => (b.acts + b.staysOut > a.acts + a.staysOut ? b : a));
}
