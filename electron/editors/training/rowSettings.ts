/**
 * @file What may be set of a training of adapters of rows, and what follows from it for a model.
 */
import { z } from 'zod';
import { EmendError } from '../../errors.ts';
import type { Checkpoint } from '../../models/open.ts';
import type { VisionLanguageModel } from '../../models/visionLanguageModel.ts';
import { type AdapterShape, influenceKeys } from '../visedit/adapterGraph.ts';
import type { AdapterStart } from '../visedit/initialAdapter.ts';
import { publishedWeights } from '../visedit/losses.ts';
import type { RowTraining } from './rowAdapters.ts';

const lossWeight = z.number().min(0).max(100);
const weight = (otherwise: number) => lossWeight.default(otherwise);

/** A decoder layer whose output is changed. */
export const rowLayer = z.int().min(0).max(1000);

/** The fields that all editors of rows have. */
export const rowFields = {
  layer: rowLayer.meta({
    title: 'Layer',
    description:
      'Decoder layer whose output is changed, from 0; of visual rows where an editor also changes text rows',
  }),
  middle: z
    .int()
    .min(1)
    .max(16_384)
    .default(1024)
    .meta({ title: 'Width', description: 'Width of the cross-attention' }),
  heads: z.int().min(1).max(256).default(8).meta({ title: 'Attention heads', description: '' }),
  attention: z.enum(['published', 'row-kinds']).default('published').meta({
    title: 'Attention',
    description: 'published: by content alone; row-kinds: helped by what kind of row each is',
  }),
  start: z.enum(['published', 'similarity']).default('published').meta({
    title: 'Starts',
    description:
      'published: at random; similarity: as bringing the target where a part of the picture matches the edit’s (needs row-kinds)',
  }),
  scale: z.number().min(0).max(1000).default(0).meta({
    title: 'Scale of a change',
    description: 'In units of the rows’ norm at the layer; 0 as published: in none',
  }),
  influenceMapper: z.boolean().default(true).meta({
    title: 'Influence mapper',
    description: 'Without, visual rows are changed everywhere alike, and there is no influence map',
  }),
  influenceMiddle: z
    .int()
    .min(1)
    .max(16_384)
    .default(1024)
    .meta({ title: 'Width of the influence mapper', description: '' }),
  influenceKey: z.enum(influenceKeys).default('last-token').meta({
    title: 'Influence mapper reads',
    description:
      'last-token: the last token of the prompt, as published; prompt: also what that token gathers from the others, for low layers',
  }),
  influenceWeight: weight(publishedWeights.influenceUp).meta({
    title: 'Weight of influence',
    description: 'Of the influence losses up and down',
  }),
  influenceUpWeight: lossWeight.nullable().default(null).meta({
    title: 'Weight of influence up',
    description: 'Of the loss up alone; that of influence otherwise',
  }),
  influenceDownWeight: lossWeight.nullable().default(null).meta({
    title: 'Weight of influence down',
    description: 'Of the loss down alone; that of influence otherwise',
  }),
  attributionWeight: weight(publishedWeights.influenceAttribution).meta({
    title: 'Weight of attribution',
    description: 'Of the influence attribution loss',
  }),
  overlapWeight: weight(publishedWeights.influenceOverlap).meta({
    title: 'Weight of overlap',
    description:
      'Not in the paper: the map itself, not its shares, is drawn over what is attributed most, and to zero beside it',
  }),
  attributionLayers: z
    .string()
    .regex(/^(\d+(,\d+)*)?$/)
    .default('')
    .meta({
      title: 'Layers of attribution',
      description:
        'Whose attention teaches the influence mapper, ascending, as 3,4; all above the layer but the last otherwise, as the published code',
    }),
  imageGeneralityWeight: weight(publishedWeights.imageGenerality).meta({
    title: 'Weight of image generality',
    description: '',
  }),
  localityWeight: weight(publishedWeights.imageLocality).meta({
    title: 'Weight of image locality',
    description: '',
  }),
  influencePictures: z.enum(['both', 'one']).default('both').meta({
    title: 'Influence rises on',
    description:
      'both of an edit’s pictures, a term for each (VisEdit’s eq. 16), or one that each step draws',
  }),
  sampled: z
    .int()
    .min(1)
    .max(10_000)
    .default(24)
    .meta({ title: 'Visual tokens drawn', description: 'For the influence losses' }),
  rows: z.int().min(8).max(100_000).nullable().default(null).meta({
    title: 'Rows',
    description: 'Set aside for picture and texts; the largest picture’s and 128 otherwise',
  }),
  endToken: z.boolean().default(true).meta({
    title: 'End token',
    description: 'Targets end with the end token in the loss; published: without',
  }),
};

const RowSettings = z.object(rowFields);
export type RowSettings = z.infer<typeof RowSettings>;

/** Where the model is small and training short, what learns many times faster than the published form. */
export const proposedForRows: { readonly rate: number; readonly settings: Partial<RowSettings> } = {
  rate: 3e-4,
  settings: {
    ...{ middle: 512, influenceMiddle: 512, scale: 1, influencePictures: 'one' },
    attention: 'row-kinds',
    start: 'similarity',
  },
};

/** Rows beside a picture's, for the texts about it, where nothing is said. */
const TEXT_ROWS = 128;

/** Settings as the training itself takes them. */
export function rowTraining(
  settings: RowSettings,
  model: VisionLanguageModel,
): RowTraining & {
  readonly layer: number;
  readonly shape: Omit<AdapterShape, 'hidden'>;
  readonly start: AdapterStart;
  readonly attributionLayers?: readonly number[];
} {
  const { layer, middle, influenceMiddle, heads, influenceMapper, attention, start } = settings;
  const { influenceKey } = settings;
  const { rows, sampled, influencePictures, endToken, scale, attributionLayers } = settings;
  return {
    ...{ layer, start, sampled, endToken, scale },
    shape: {
      middle,
      influenceMiddle,
      heads,
      influenceMapper,
      attention,
      ...(influenceKey === 'prompt' && { influenceKey }),
    },
    rows: rows ?? model.images.rows.most + TEXT_ROWS,
    raised: influencePictures,
    ...(attributionLayers !== '' && { attributionLayers: attributionLayers.split(',').map(Number) }),
    weights: {
      ...publishedWeights,
      imageGenerality: settings.imageGeneralityWeight,
      imageLocality: settings.localityWeight,
      influenceUp: settings.influenceUpWeight ?? settings.influenceWeight,
      influenceDown: settings.influenceDownWeight ?? settings.influenceWeight,
      influenceAttribution: settings.attributionWeight,
      influenceOverlap: settings.overlapWeight,
    },
  };
}

/** @throws EmendError 'invalid-input' for settings that this model or the form of adapters does not have */
export function checkRowSettings(
  { middle, heads, start, attention, influenceKey }: RowSettings,
  layers: ReadonlyArray<readonly [words: string, layer: number]>,
  { backbone: { decoder } }: Checkpoint,
): void {
  for (const [words, layer] of layers)
    if (layer > decoder.layers - 2)
      throw new EmendError(
        'invalid-input',
        `${words} is ${layer}; this model has layers 0 to ${decoder.layers - 2} to edit after.`,
      );
  if (middle % heads !== 0)
    throw new EmendError('invalid-input', `A width of ${middle} does not split into ${heads} heads.`);
  if (influenceKey === 'prompt' && decoder.hidden % heads !== 0)
    throw new EmendError(
      'invalid-input',
      `A mapper that reads the prompt needs heads that this model's width of ${decoder.hidden} splits into; ${heads} do not.`,
    );
  if (start === 'similarity' && (attention !== 'row-kinds' || middle < 2 * decoder.hidden))
    throw new EmendError(
      'invalid-input',
      `To start from similarity attention must be row-kinds and the width must be ${2 * decoder.hidden} or more for this model. Change these, or take the published start.`,
    );
}
