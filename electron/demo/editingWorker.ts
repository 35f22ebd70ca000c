/**
 * @file A worker thread that composes and renders training edits of the demo world.
 */
import { parentPort } from 'node:worker_threads';
import type { TrainingEdit } from '../editors/training/edits.ts';
import { gridLayout, type Pixels } from '../models/picture.ts';
import { pixelValues } from './batches.ts';
import { editingRecord } from './editingSet.ts';
import { GRID } from './recipe.ts';
import { drawQuestion, typedCasually } from './world/questions.ts';
import { seededRandom } from './world/random.ts';
import { CANVAS, type Scene } from './world/scene.ts';
import { loadSprites } from './world/sprites.ts';

export interface EditingRequest {
  readonly step: number;
  readonly count: number;
  readonly seed: number;
  readonly extended: boolean;
}

await loadSprites();

const layout = gridLayout({ height: GRID, width: GRID });
const picture = (scene: Scene): Pixels => ({
  values: pixelValues([scene]),
  shape: [3, CANVAS, CANVAS],
  layout,
});

parentPort!.on('message', ({ step, count, seed, extended }: EditingRequest) => {
  const edits: TrainingEdit[] = [];
  for (let i = 0; i < count; i++) {
    const record = editingRecord('train', step * count + i, seed);
    const random = seededRandom(seed).split(`extra ${step}`).split(i);
    const elsewhere = drawQuestion(record.m_loc, random);
    edits.push({
      pixels: picture(record.image),
      prompt: record.src,
      target: record.alt,
      rephrase: typedCasually(record.rephrase, random),
      rephrasePixels: picture(record.image_rephrase),
      localityPixels: picture(record.m_loc),
      locality: { prompt: record.m_loc_q, answer: record.m_loc_a },
      textLocality: { prompt: record.loc, answer: record.loc_ans },
      ...(extended
        ? {
            extra: {
              own: { prompt: record.same_image_q, answer: record.same_image_a },
              // The edit's own question, asked of an unrelated picture, and another question about it.
              elsewhere: random.chance(0.5)
                ? { prompt: record.src, answer: null }
                : { prompt: elsewhere.question, answer: elsewhere.answer },
            },
          }
        : {}),
    });
  }
  const buffers = edits.flatMap((edit) =>
    [edit.pixels, edit.rephrasePixels, edit.localityPixels].map(({ values }) => values.buffer as ArrayBuffer),
  );
  parentPort!.postMessage({ step, edits }, buffers);
});
