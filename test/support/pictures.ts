/** @file Pixel values of reference tensors and of noise, as models take them. */
import type { Pixels } from '../../electron/models/picture.ts';
import type { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';

/** Pixel values [3, side, side] or [1, 3, side, side] as a picture of the model. */
export function squarePicture(model: Pick<VisionLanguageModel, 'images'>, data: Float32Array): Pixels {
  const side = Math.sqrt(data.length / 3);
  return model.images.fromTensors(new Map([['pixel_values', { shape: [3, side, side], data }]]))[0]!;
}
