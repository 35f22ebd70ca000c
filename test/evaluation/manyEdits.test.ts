/** @file Edits that act everywhere, measured together: one is as it is alone, several act at once, and nothing is said of which acted. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { EditedModel } from '../../electron/editors/editedModel.ts';
import { everywhereScope } from '../../electron/editors/scope/everywhere.ts';
import { VisEdit } from '../../electron/editors/visedit/visEdit.ts';
import { benchmark } from '../../electron/evaluation/benchmark.ts';
import { readEditingSet } from '../../electron/evaluation/editingSet.ts';
import { measureManyEdits } from '../../electron/evaluation/manyEdits.ts';
import { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { writeTinyCheckpoint } from '../support/checkpointFixtures.ts';
import { LAYER, randomWeights, shape } from './tinyAdapter.ts';

let base: string;
let edited: EditedModel;
let data: string;
/** how many edits were asked to act at once */
const together: number[] = [];

beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), 'emend-many-'));
  await writeTinyCheckpoint(join(base, 'model'));
  const model = await VisionLanguageModel.open(join(base, 'model'), { providers: ['cpu'], cuts: [LAYER] });
  const editor = await VisEdit.create(LAYER, shape, randomWeights(), ['cpu']);
  const { effect } = editor;
  editor.effect = (states) => {
    together.push(states.length);
    return effect.call(editor, states);
  };
  edited = new EditedModel(model, editor, everywhereScope('everywhere'));
  for (const [name, r] of Object.entries({ a: 40, b: 120, c: 220 }))
    await sharp({ create: { width: 28, height: 28, channels: 3, background: { r, g: 90, b: 255 - r } } })
      .png()
      .toFile(join(base, `${name}.png`));
  const record = {
    ...{ src: 'What is the animal?', rephrase: 'Which animal?', pred: '', alt: 'the cat' },
    ...{ image: 'a.png', image_rephrase: 'b.png', loc: 'Is there a tree?', loc_ans: 'yes' },
    ...{ m_loc: 'c.png', m_loc_q: 'What is the fruit?', m_loc_a: 'a small apple' },
  };
  data = join(base, 'data.json');
  await writeFile(
    data,
    JSON.stringify([record, { ...record, alt: 'a red apple', image: 'c.png', m_loc: 'a.png' }]),
  );
});
afterAll(async () => {
  await edited.dispose();
  await rm(base, { recursive: true, force: true });
});

test('one edit everywhere is that edit alone, and two act together', async () => {
  const set = await readEditingSet(data);
  const common = { reach: 'picture' as const, suffix: '', textSuffix: '', maxNewTokens: 4, seed: 1 };
  const [one, both] = await measureManyEdits(edited, set, { ...common, at: [1, 2], limitProbes: 1 });
  const alone = await benchmark(edited, await readEditingSet(data, { limit: 1 }), {
    ...common,
    scoped: false,
  });
  for (const metric of ['reliability', 'imageGenerality', 'imageLocality', 'sameQuestion'] as const) {
    expect(one!.metrics[metric].teacherForced, metric).toEqual(alone.metrics[metric].teacherForced);
    expect(one!.metrics[metric].exactMatch, metric).toEqual(alone.metrics[metric].exactMatch);
  }
  expect(one!.outcomes).toEqual({});
  expect(one!.answered.edit).toBeDefined();
  // Every input is recorded, as it was alone; all acted, so that no edit is named.
  const reliability = alone.records[0]!.measurements.reliability[0]!;
  expect(one!.samples.map(({ kind }) => kind)).toEqual([
    ...[
      'reliability',
      'text-generality',
      'image-generality',
      'text-locality',
      'image-locality',
      'same-question',
    ],
  ]);
  expect(one!.samples[0]).toEqual({
    ...{ row: 1, kind: 'reliability', picture: 'a.png', prompt: 'What is the animal?', stays: false },
    ...{ expected: 'the cat', before: reliability.before, after: reliability.after, acting: 'all' },
    ...{ passes: reliability.exactMatch, teacherForced: reliability.teacherForced, verdict: 'fails' },
  });
  expect(one!.verdicts.fails).toBe(1);
  expect(both!.edits).toBe(2);
  expect(together).toContain(2);
});
