/**
 * @file What people do with a model, on a tiny checkpoint of every family: train an adapter on pictures of several sizes, open both,
 * edit, look at the map, trace, measure layers, benchmark.
 */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { freelyChange } from '../../electron/attribution/freeChange.ts';
import { EditedModel } from '../../electron/editors/editedModel.ts';
import { trainVisEdit } from '../../electron/editors/visedit/trainVisEdit.ts';
import { VisEdit, writeAdapter } from '../../electron/editors/visedit/visEdit.ts';
import { operations } from '../../electron/engine/operations.ts';
import { benchmark } from '../../electron/evaluation/benchmark.ts';
import { readEditingSet } from '../../electron/evaluation/editingSet.ts';
import { editSourceFromFile } from '../../electron/evaluation/editSource.ts';
import { promptToTrace, trace } from '../../electron/models/trace.ts';
import { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { fixture } from '../support/fixtures.ts';
import { tinyTraining } from '../support/tinyEdits.ts';

const families: ReadonlyArray<readonly [folder: string, family: string, map: object | null]> = [
  ['llava_tiny', 'LLaVA', { height: 4, width: 4 }],
  ['qwen2_5_vl_tiny', 'Qwen2.5-VL', { height: 5, width: 6 }],
  ['qwen3_vl_tiny', 'Qwen3-VL', { height: 5, width: 6 }],
  // two by two tiles of two by two cells
  ['smolvlm_tiny', 'Idefics3 / SmolVLM', { height: 4, width: 4 }],
  ['blip2_tiny', 'BLIP-2', null],
  ['minigpt4_tiny', 'MiniGPT-4', null],
];
const LAYER = 2;

let base: string;
let data: string;
beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), 'emend-families-'));
  data = join(base, 'edits.json');
  const record = {
    ...{ src: 'What is the animal?', rephrase: 'Which animal is it?', pred: '', alt: 'the cat' },
    ...{ image: 'a.png', image_rephrase: 'pan.png', loc: 'Is there a tree?', loc_ans: 'yes' },
    ...{ m_loc: 'b.png', m_loc_q: 'What is the fruit?', m_loc_a: 'an apple' },
  };
  await writeFile(data, JSON.stringify([record, { ...record, image: 'b.png', m_loc: 'c.png' }]));
});
afterAll(() => rm(base, { recursive: true, force: true }));

describe.each(families)('%s', (name, family, map) => {
  const path = fixture(`checkpoints/${name}`);
  const adapter = () => join(base, name);
  const images = () => join(fixture('images/a.png'), '..');
  const context = { signal: new AbortController().signal, send: () => {} };

  test('is inspected, trained on, edited, traced and benchmarked', async () => {
    const { summary } = await operations.inspect({ path }, context);
    expect(summary).toMatchObject({ architecture: family, hidden: 64, dtype: 'F32' });

    const model = await VisionLanguageModel.open(path, { providers: ['cpu'], cuts: [LAYER] });
    try {
      const source = await editSourceFromFile(data, model, {
        images: images(),
        seed: 1,
        extended: true,
        suffix: ' The answer is:',
      });
      const steps: number[] = [];
      const settings = { ...tinyTraining, layer: LAYER, rows: 320, steps: 2 };
      const { weights, shape, modelFingerprint } = await trainVisEdit(model, source, settings, {
        statePath: join(base, `${name}.state`),
        onStep: ({ loss, terms }) => {
          steps.push(loss);
          for (const [term, value] of Object.entries(terms))
            expect(value, term).toBeGreaterThanOrEqual(-1e-6);
        },
      });
      expect(steps).toHaveLength(2);
      expect(steps.every(Number.isFinite)).toBe(true);
      await writeAdapter(
        adapter(),
        {
          ...{ editor: 'VisEdit', name, layer: LAYER, heads: shape.heads, model: modelFingerprint },
          ...{ influenceMapper: true, attention: shape.attention, router: { layer: LAYER, threshold: 0.9 } },
        },
        weights,
        'F32',
      );

      const edited = new EditedModel(model, await VisEdit.create(LAYER, shape, weights, ['cpu']), null);
      const set = await readEditingSet(data, { images: images(), limit: 1 });
      const options = { suffix: '', textSuffix: '', maxNewTokens: 3, seed: 1, scoped: false } as const;
      const result = await benchmark(edited, set, { ...options, reach: 'picture' });
      expect(result.records[0]!.measurements.reliability[0]!.prompt).toBe('What is the animal?');

      const file = await readFile(fixture('images/a.png'));
      const pixels = await model.pixelsOf(file);
      const encoded = model.prompts.encodePrompt({ prompt: 'What is it?', image: true });
      const traced = await trace(model, promptToTrace(model, encoded, [pixels]), 2);
      expect(traced.get('visual_embeddings')!.shape).toEqual([1, pixels.layout.rows, 64]);
      expect(traced.has('deepstack_features')).toBe(name === 'qwen3_vl_tiny');
      expect(traced.has('position_ids')).toBe(name.startsWith('qwen'));

      // The picture that was edited, and one of another size, each with its own change.
      const cases = [];
      for (const image of ['a.png', 'pan.png']) {
        const seen = await model.visualEmbeddings(
          await model.pixelsOf(await readFile(fixture(`images/${image}`))),
        );
        const target = model.prompts.encodeTarget({ prompt: 'What is it?', image: true }, 'a cat');
        cases.push({ input: await model.lay(target, seen), labels: target.targetIds });
      }
      const changes = await freelyChange(model.decoder, [1, 3], cases, { steps: 6, rate: 0.1 });
      expect(changes).toHaveLength(4);
      for (const { before, after } of changes) expect(after).toBeLessThan(before);

      const seen = await model.visualEmbeddings(pixels);
      const signal = await edited.make({ visual: seen, prompt: 'What is it?', target: 'a cat' });
      expect(edited.decode(edited.encode(signal))).toEqual(signal);
      expect(pixels.layout.map?.grid ?? null).toEqual(map);
    } finally {
      await model.dispose();
    }
  });
});
