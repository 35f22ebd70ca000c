/**
 * @file An input as an edit leaves it: what an editor does to hidden states, told as something that is added after a layer, so
 * that attribution looks at the edited model with the same graphs as at the unedited one.
 */
import type { Adapt, ModelInput, Prefill, VisionLanguageModel } from '../models/visionLanguageModel.ts';
import { floatsOf } from '../tensor/session.ts';
import type { Decoder } from './layerInputs.ts';

/** The decoder with room for what is added after its first `layers` layers, beside what it adds itself. */
export function withAddedLayers(decoder: Decoder, layers: number): Decoder {
  return { ...decoder, addedLayers: Math.max(decoder.addedLayers, layers) };
}

/**
 * The input with what `adapt` changes at each cut added there: for decoders with `withAddedLayers` of at least the last cut
 * plus one. An editor that changes nothing on it gives the input as it is.
 */
export async function editedInput(
  model: VisionLanguageModel,
  prefill: Prefill,
  adapt: Adapt,
): Promise<ModelInput> {
  const { input } = prefill;
  const added = [...input.added];
  await model.finish(prefill, [input.lastPromptRow], async (hidden, rows, cut) => {
    const adapted = await adapt(hidden, rows, cut);
    if (adapted === hidden) return hidden;
    const [before, after] = [await floatsOf(hidden), await floatsOf(adapted)];
    while (added.length <= cut) added.push(new Float32Array(before.length));
    added[cut] = added[cut]!.map((value, at) => value + after[at]! - before[at]!);
    return adapted;
  });
  return { ...input, added };
}
