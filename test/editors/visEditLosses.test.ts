import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { layBatch } from '../../electron/editors/training/batch.ts';
import type { TrainingEdit } from '../../electron/editors/training/edits.ts';
import { FrozenModel } from '../../electron/editors/training/frozenModel.ts';
import { publishedWeights, totalLoss, visEditLosses } from '../../electron/editors/visedit/losses.ts';
import { shapeOfWeights } from '../../electron/editors/visedit/visEdit.ts';
import { openSafetensors, readTensor, type SafetensorsFile } from '../../electron/files/safetensors.ts';
import { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { weightsAsInputs } from '../../electron/models/weights.ts';
import { Graph } from '../../electron/tensor/graph.ts';
import { float32, int64 } from '../../electron/tensor/session.ts';
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
  influenceUp: 'im_up',
  influenceDown: 'im_down',
  influenceAttribution: 'im_attr',
} as const;

describe.each([
  ['llava_tiny', 'vead_losses'],
  ['llava_tiny', 'vead_losses_window1_n3'],
  ['blip2_tiny', 'vead_losses'],
  ['minigpt4_tiny', 'vead_losses'],
])('VisEdit losses equal the reference: %s, %s', async (checkpoint, name) => {
  const at = (part: string) => fixture(`${checkpoint}/${part}`);
  const expected = JSON.parse(await readFile(at(`${name}.json`), 'utf8'));
  const forward = JSON.parse(await readFile(at('forward.json'), 'utf8'));
  let model: VisionLanguageModel;
  let frozen: FrozenModel;
  let file: SafetensorsFile;
  beforeAll(async () => {
    model = await VisionLanguageModel.open(fixture(`checkpoints/${checkpoint}`), {
      providers: ['cpu'],
      cuts: [expected.edit_layer],
    });
    frozen = await FrozenModel.compile(model, [expected.edit_layer]);
    file = await openSafetensors(at(`${name}.safetensors`));
  });
  afterAll(async () => {
    await frozen.dispose();
    await model.dispose();
  });

  const setUp = async (
    target: 'official' | 'paper',
    only?: keyof typeof terms | 'influenceOverlap',
    raisedOn: readonly number[] = [1],
  ) => {
    const pictures = await openSafetensors(at('forward.safetensors'));
    const prompt = (sample: string): string => forward[sample].text_prompt.replace('<image>\n', '');
    const answer = (sample: string): string =>
      forward[sample].text_full.slice(forward[sample].text_prompt.length).trim();
    const picture = (values: Float32Array) => squarePicture(model, values);
    const edit: TrainingEdit = {
      pixels: picture(await floats(pictures, 'edit.pixel_values')),
      prompt: prompt('edit'),
      target: answer('edit'),
      rephrase: prompt('text_rephrase'),
      rephrasePixels: picture(await floats(pictures, 'image_rephrase.pixel_values')),
      localityPixels: picture(await floats(pictures, 'image_loc.pixel_values')),
      locality: { prompt: prompt('image_loc'), answer: answer('image_loc') },
    };
    const sampled: number[] = expected.sampled_tokens;
    const batch = await layBatch(model, [edit], {
      endToken: false,
      rows: null,
      sampled: sampled.length,
      raised: raisedOn.length === 2 ? 'both' : 'one',
      random: () => 0.5,
    });
    const { rows } = batch.sizes;
    const place = (...sequences: readonly number[]) =>
      int64(
        sequences.flatMap((sequence) =>
          sampled.map((token) => sequence * rows + batch.sequences[sequence]!.imageRows[token]!),
        ),
        [sequences.length * sampled.length],
      );
    const feeds = {
      ...batch.feeds,
      ...(await frozen.run(batch)),
      raised: place(...raisedOn),
      lowered: place(2),
      attribution: float32(await floats(file, `attr.${target}.target`), [1, sampled.length]),
    };
    const weights = new Map<string, { shape: readonly number[]; data: Float32Array }>();
    const source = file.tensors.has('adaptor.mlp_end.weight')
      ? file
      : await openSafetensors(at('vead.safetensors'));
    for (const [key, { shape }] of source.tensors) {
      if (key.startsWith('adaptor.'))
        weights.set(key.slice('adaptor.'.length), { shape, data: await floats(source, key) });
    }
    const shape = shapeOfWeights(weights, expected.n_heads, 'the fixture');
    const graph = new Graph();
    const losses = visEditLosses(
      graph,
      batch.sizes,
      shape,
      model.decoder,
      expected.edit_layer,
      model.decoder.weightsOf(graph),
      weightsAsInputs(graph, new Map([...weights].map(([key, value]) => [key, value.shape]))),
    );
    const loss = only ? losses[only]! : totalLoss(losses, publishedWeights);
    const reached = new Set(graph.inputs.map((input) => input.name));
    const isInfluence = only?.startsWith('influence') ?? false;
    const trained = new Map(
      [...weights].filter(
        ([key]) => reached.has(key) && (!isInfluence || key.startsWith('influence_mapper.')),
      ),
    );
    const trainer = await Trainer.create(graph, loss, losses, trained, adamDefaults(1e-3), {
      providers: ['cpu'],
      threads: 1,
    });
    const all = Object.fromEntries(
      [...weights].map(([key, value]) => [key, float32(value.data, value.shape)]),
    );
    return { trainer, feeds: { ...all, ...feeds } };
  };

  test('influence rises on both pictures by a term for each, and is attributed on the rephrased one', async () => {
    const termsOf = async (...pictures: number[]) => {
      const { trainer, feeds } = await setUp('paper', undefined, pictures);
      try {
        return (await trainer.evaluate(feeds)).terms;
      } finally {
        await trainer.dispose();
      }
    };
    const [own, rephrased, both] = [await termsOf(0), await termsOf(1), await termsOf(0, 1)];
    expect(both['influenceUp']).toBeCloseTo(own['influenceUp']! + rephrased['influenceUp']!, 4);
    expect(own['influenceUp']).not.toBeCloseTo(rephrased['influenceUp']!, 4);
    expect(both['influenceAttribution']).toBeCloseTo(rephrased['influenceAttribution']!, 4);
  });

  test('overlap: one minus the Tversky index of the map and what is attributed', async () => {
    const { trainer, feeds } = await setUp('paper', 'influenceOverlap');
    const sampled = expected.sampled_tokens.length as number;
    const raised = Array.from(feeds['raised']!.data as BigInt64Array, Number);
    const evaluate = (rows: readonly number[], attribution: readonly number[]) =>
      trainer.evaluate({
        ...feeds,
        lowered: int64([...rows], [sampled]),
        attribution: float32(Float32Array.from(attribution), [1, sampled]),
      });
    const even = new Array<number>(sampled).fill(1 / sampled);
    try {
      // Eq. 17 of one row alone, −log(1 − influence), says the influence of that row.
      const map: number[] = [];
      for (const row of raised) {
        const { terms } = await evaluate(new Array<number>(sampled).fill(row), even);
        map.push(1 - Math.exp(-terms['influenceDown']!));
      }
      const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
      const index = (attribution: readonly number[]) => {
        const covered = attribution.map((share) => {
          const fourth = ((share * sampled) / 2) ** 4;
          return fourth / (fourth + 1);
        });
        const common = sum(map.map((value, row) => value * covered[row]!));
        const beside = sum(map) - common;
        const missed = sum(covered) - common;
        return common / (common + 0.1 * beside + 0.9 * missed + 1e-3);
      };
      const one = even.map((_, row) => Number(row === 1));
      const two = even.map((_, row) => (row < 2 ? 0.5 : 0));
      for (const attribution of [even, one, two])
        expect(Math.abs((await evaluate(raised, attribution)).loss - (1 - index(attribution)))).toBeLessThan(
          1e-4,
        );
    } finally {
      await trainer.dispose();
    }
  });

  test('every term', async () => {
    const { trainer, feeds } = await setUp('official');
    const { loss, terms: found } = await trainer.evaluate(feeds);
    for (const [ours, theirs] of Object.entries(terms)) {
      expect(Math.abs(found[ours]! - expected.terms[theirs]), ours).toBeLessThan(5e-5);
    }
    expect(Math.abs(loss - expected.total_official)).toBeLessThan(2e-4);
    await trainer.dispose();
    const paper = await setUp('paper');
    const { terms: ofPaper } = await paper.trainer.evaluate(paper.feeds);
    expect(Math.abs(ofPaper['influenceAttribution']! - expected.terms.im_attr_paper)).toBeLessThan(5e-5);
    await paper.trainer.dispose();
  });

  test.each(Object.entries(terms))('gradient of %s', async (ours, theirs) => {
    const { trainer, feeds } = await setUp('official', ours as keyof typeof terms);
    const { gradients } = await trainer.evaluate(feeds);
    let compared = 0;
    for (const [key, gradient] of gradients) {
      if (!file.tensors.has(`grad.${theirs}.${key}`)) continue;
      const reference = await floats(file, `grad.${theirs}.${key}`);
      const size = reference.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      expect(largestDifference(gradient, reference), key).toBeLessThan(2e-5 + 1e-4 * size);
      compared++;
    }
    expect(compared).toBeGreaterThan(10);
    await trainer.dispose();
  });

  test('six steps of Adam', async () => {
    const { trainer, feeds } = await setUp('official');
    for (const step of expected.adam_lr_1e_3_trajectory ?? expected['adam_lr_1e-3_trajectory']) {
      const report = await trainer.step(feeds);
      expect(Math.abs(report.loss - step.total) / step.total).toBeLessThan(1e-3);
    }
    await trainer.dispose();
  });
});
