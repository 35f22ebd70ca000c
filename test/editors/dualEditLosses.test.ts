import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { dualWeights } from '../../electron/editors/dualedit/dualEdit.ts';
import { dualEditLosses } from '../../electron/editors/dualedit/trainDualEdit.ts';
import { layBatch } from '../../electron/editors/training/batch.ts';
import { FrozenModel } from '../../electron/editors/training/frozenModel.ts';
import { publishedWeights, totalLoss } from '../../electron/editors/visedit/losses.ts';
import { shapeOfWeights } from '../../electron/editors/visedit/visEdit.ts';
import { openSafetensors, readTensor, type SafetensorsFile } from '../../electron/files/safetensors.ts';
import { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { weightsAsInputs } from '../../electron/models/weights.ts';
import { Graph } from '../../electron/tensor/graph.ts';
import { float32 } from '../../electron/tensor/session.ts';
import { adamDefaults } from '../../electron/training/optimizer.ts';
import { Trainer } from '../../electron/training/trainer.ts';
import { fixture, largestDifference } from '../support/fixtures.ts';
import { squarePicture } from '../support/pictures.ts';

const floats = async (file: SafetensorsFile, name: string) =>
  (await readTensor(file, name)).data as Float32Array;

/** our name of each term → the fixture's */
const terms = {
  reliability: 'rel',
  textGenerality: 'gen_text_rephrase',
  imageGenerality: 'gen_image_rephrase',
  imageLocality: 'loc_image_loc',
} as const;
const families = { llava_tiny: '<image>\n', blip2_tiny: '' };

describe.each(Object.entries(families))(
  'DualEdit losses equal the reference: %s',
  async (checkpoint, pictureText) => {
    const at = (part: string) => fixture(`${checkpoint}/${part}`);
    const json = async (part: string) => JSON.parse(await readFile(at(part), 'utf8'));
    const expected = await json('dualedit_losses.json');
    const forward = await json('forward.json');
    const layers = { text: expected.text_layer, visual: expected.visual_layer };
    let model: VisionLanguageModel;
    let frozen: FrozenModel;
    let file: SafetensorsFile;
    beforeAll(async () => {
      const cuts = [layers.text, layers.visual];
      model = await VisionLanguageModel.open(fixture(`checkpoints/${checkpoint}`), {
        providers: ['cpu'],
        cuts,
      });
      frozen = await FrozenModel.compile(model, cuts);
      file = await openSafetensors(at('dualedit_losses.safetensors'));
    });
    afterAll(async () => {
      await frozen?.dispose();
      await model?.dispose();
    });

    const setUp = async (only?: keyof typeof terms) => {
      const pictures = await openSafetensors(at('forward.safetensors'));
      const prompt = (sample: string): string => forward[sample].text_prompt.replace(pictureText, '');
      const answer = (sample: string): string =>
        forward[sample].text_full.slice(forward[sample].text_prompt.length).trim();
      const picture = async (sample: string) =>
        squarePicture(model, await floats(pictures, `${sample}.pixel_values`));
      const edit = {
        pixels: await picture('edit'),
        prompt: prompt('edit'),
        target: answer('edit'),
        rephrase: prompt('text_rephrase'),
        rephrasePixels: await picture('image_rephrase'),
        localityPixels: await picture('image_loc'),
        locality: { prompt: prompt('image_loc'), answer: answer('image_loc') },
      };
      const batch = await layBatch(model, [edit], {
        ...{ endToken: false, rows: null, sampled: 1, raised: 'one' },
        random: () => 0.5,
      });
      const weights = new Map<string, { shape: readonly number[]; data: Float32Array }>();
      const source = await openSafetensors(at('dualedit.safetensors'));
      for (const [key, { shape }] of source.tensors)
        if (/^(text|visual)_adaptor\./.test(key) && !key.includes('influence_mapper'))
          weights.set(key, { shape, data: await floats(source, key) });
      const { text, visual } = dualWeights(weights);
      const shapes = {
        text: shapeOfWeights(text!, expected.n_heads, 'the fixture'),
        visual: shapeOfWeights(visual!, expected.n_heads, 'the fixture'),
      };
      const graph = new Graph();
      const losses = dualEditLosses(
        graph,
        batch.sizes,
        shapes,
        model.decoder,
        layers,
        model.decoder.weightsOf(graph),
        weightsAsInputs(graph, new Map([...weights].map(([key, value]) => [key, value.shape]))),
      );
      const loss = only ? losses[only]! : totalLoss(losses, publishedWeights);
      const trainer = await Trainer.create(graph, loss, losses, weights, adamDefaults(1e-3), {
        providers: ['cpu'],
        threads: 1,
      });
      const all = Object.fromEntries(
        [...weights].map(([key, { data, shape }]) => [key, float32(data, shape)]),
      );
      return { trainer, feeds: { ...all, ...batch.feeds, ...(await frozen.run(batch)) } };
    };

    test('every term', async () => {
      const { trainer, feeds } = await setUp();
      const { loss, terms: found } = await trainer.evaluate(feeds);
      for (const [ours, theirs] of Object.entries(terms))
        expect(Math.abs(found[ours]! - expected.terms[theirs]), ours).toBeLessThan(5e-5);
      expect(Math.abs(loss - expected.total)).toBeLessThan(2e-4);
      await trainer.dispose();
    });

    test.each(Object.entries(terms))('gradient of %s', async (ours, theirs) => {
      const { trainer, feeds } = await setUp(ours as keyof typeof terms);
      const { gradients } = await trainer.evaluate(feeds);
      let compared = 0;
      for (const [key, gradient] of gradients) {
        if (!file.tensors.has(`grad.${theirs}.${key}`)) continue;
        const reference = await floats(file, `grad.${theirs}.${key}`);
        const size = reference.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
        expect(largestDifference(gradient, reference), key).toBeLessThan(2e-5 + 1e-4 * size);
        compared++;
      }
      expect(compared).toBeGreaterThan(20);
      await trainer.dispose();
    });
  },
);
