/** @file A handful of edits for the tiny checkpoint, and settings that train an adapter on them in a moment. */
import type { EditSource, TrainingEdit } from '../../electron/editors/training/edits.ts';
import { publishedWeights } from '../../electron/editors/visedit/losses.ts';
import type { VisEditTraining } from '../../electron/editors/visedit/trainVisEdit.ts';
import type { Pixels } from '../../electron/models/picture.ts';
import type { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { adamDefaults } from '../../electron/training/optimizer.ts';
import { normalNumbers } from './checkpointFixtures.ts';
import { squarePicture } from './pictures.ts';

/** The layer the settings below train for: a model of at least four layers is opened with a cut after it. */
export const EDIT_LAYER = 1;

/** Normal noise as a picture of a model of square ones, the same for the same seed. */
export function noisePicture(model: Pick<VisionLanguageModel, 'images'>, side: number, seed: number): Pixels {
  const normal = normalNumbers(seed);
  return squarePicture(
    model,
    Float32Array.from({ length: 3 * side * side }, () => normal()),
  );
}

const QUESTIONS = [
  'What is the animal on the left?',
  'What is the fruit?',
  'Which vehicle is above the tree?',
];
const TARGETS = ['a small cat', 'apple', 'the train'];

/** Edits by step and place in the batch; every loss term has something to act on. */
export function tinyEdits(model: VisionLanguageModel): EditSource {
  const { shape } = model.images.toTensors([]).get('pixel_values')!;
  const side = shape[shape.length - 1]!;
  return {
    name: 'tiny edits',
    batch: async (step, count) =>
      Array.from({ length: count }, (_, place): TrainingEdit => {
        const number = step * count + place;
        const picture = (which: number) => noisePicture(model, side, 1 + 3 * number + which);
        return {
          pixels: picture(0),
          prompt: QUESTIONS[number % 3]!,
          target: TARGETS[number % 3]!,
          rephrase: `Tell me: ${QUESTIONS[number % 3]}`,
          rephrasePixels: picture(1),
          localityPixels: picture(2),
          locality: { prompt: QUESTIONS[(number + 1) % 3]!, answer: TARGETS[(number + 1) % 3]! },
          textLocality: { prompt: 'Is it day?', answer: 'yes' },
          extra: { own: { prompt: 'How many animals are there?', answer: null } },
        };
      }),
    close: async () => {},
  };
}

/** Both kinds of attention and all losses of the method, at the smallest useful size. */
export const tinyTraining: VisEditTraining = {
  layer: EDIT_LAYER,
  shape: { middle: 16, influenceMiddle: 24, heads: 2, influenceMapper: true, attention: 'row-kinds' },
  edits: 2,
  rows: 200,
  sampled: 5,
  raised: 'both',
  weights: publishedWeights,
  endToken: true,
  start: 'published',
  scale: 1,
  optimizer: adamDefaults(1e-3),
  steps: 6,
  seed: 7,
};

/** The same as settings of a recorded training have it. */
export const tinySettings = {
  ...{ layer: EDIT_LAYER, middle: 16, influenceMiddle: 24, heads: 2, attention: 'row-kinds' },
  ...{ rows: 200, sampled: 5, influencePictures: 'both', scale: 1 },
} as const;
