/**
 * @file Editors that add neurons beside an MLP, T-Patcher and CaliNET, beside the reference.
 */
import { expect, test } from 'vitest';
import type { NeuronValues } from '../../electron/editors/addedNeurons.ts';
import { CaliNet, CaliNetSettings, caliNetNeeds } from '../../electron/editors/calinet/calinet.ts';
import { TPatcher, TPatcherSettings, tPatcherNeeds } from '../../electron/editors/tpatcher/tPatcher.ts';
import { openCheckpoint } from '../../electron/models/open.ts';
import { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { type Cases, EditorReference } from '../support/editorFixtures.ts';
import { fixture, largestDifference } from '../support/fixtures.ts';

interface TPatcherJson {
  readonly layer: number;
  readonly locality_texts: ReadonlyArray<{ readonly input_ids: readonly number[] }>;
  readonly variants: Readonly<
    Record<
      string,
      {
        readonly lr: number;
        readonly steps: number;
        readonly weights: Readonly<Record<string, number>>;
        readonly terms_before_steps: ReadonlyArray<Readonly<Record<string, number>>>;
        readonly cases: Cases;
      }
    >
  >;
  readonly paper: Readonly<Record<'beta' | 'gamma' | 'k_memory' | 'a' | 'm', number>>;
}

interface CaliNetJson {
  readonly layer: number;
  readonly slots: number;
  readonly lr: number;
  readonly steps: number;
  readonly terms_before_steps: ReadonlyArray<Readonly<Record<'total' | 'edit' | 'text_rephrase', number>>>;
  readonly init_cases: Cases;
  readonly cases: Cases;
}

const folder = fixture('checkpoints/llava_tiny');

async function openModel(needs: {
  readonly cuts: readonly number[];
  readonly changeable: readonly string[];
}) {
  return VisionLanguageModel.open(folder, { providers: ['cpu'], threads: 1, ...needs });
}

/** A matrix stored the other way round. */
function turned(matrix: Float32Array, rows: number): Float32Array {
  const columns = matrix.length / rows;
  return Float32Array.from(matrix, (_, i) => matrix[(i % rows) * columns + Math.floor(i / rows)]!);
}

const within = (reference: Float32Array) =>
  2e-6 + 1e-4 * reference.reduce((most, value) => Math.max(most, Math.abs(value)), 0);

test.each(['code_as_published', 'code_intended', 'paper'])('T-Patcher, %s', async (name) => {
  const reference = await EditorReference.open<TPatcherJson>('tpatcher');
  const { layer, locality_texts, variants, paper } = reference.json;
  const { lr, steps, weights, terms_before_steps, cases } = variants[name]!;
  const settings = TPatcherSettings.parse({
    method: name.replaceAll('_', ' '),
    ...{ layer, rate: lr, steps, activation: weights['l_a'], memory: weights['l_m'] ?? weights['l_m1'] },
    ...{ beta: paper.beta, gamma: paper.gamma, kept: paper.k_memory },
  });
  const { backbone } = await openCheckpoint(folder);
  const model = await openModel(tPatcherNeeds(settings, backbone.decoder));
  const editor = new TPatcher(model, settings);
  try {
    const request = await reference.request(model);
    const texts = locality_texts.map(({ input_ids }) => input_ids);
    // The reference has one column a neuron, this program one row.
    const sides = [
      ['key.0', 'kg'],
      ['bias.0', 'bg'],
      ['key.1', 'ku'],
      ['bias.1', 'bu'],
      ['values', 'v'],
    ] as const;
    const stored = async (when: string, part: string) => {
      const values = await reference.floats(`${name}.${when}.${part}`);
      return part.startsWith('k') ? turned(values, 64) : values;
    };
    const start = await editor.start(request);
    for (const [ours, theirs] of sides) {
      if (ours === 'values') start.get(ours)!.data.set(await stored('init', theirs));
      else
        expect(largestDifference(start.get(ours)!.data, await stored('init', theirs)), ours).toBeLessThan(
          1e-6,
        );
    }
    if (name === 'paper')
      expect(
        largestDifference(await editor.memoryOf(texts), await reference.floats('paper.memory')),
      ).toBeLessThan(5e-4);
    const { neurons, changes, terms, gradients } = await editor.patch(request, texts, start);
    expect(terms.length).toBe(terms_before_steps.length);
    for (const [step, wanted] of terms_before_steps.entries()) {
      const found = terms[step]!;
      const pairs: Array<[string, number]> = [
        ['l_e', found.edit],
        ['l_a', found.activation],
        [name === 'paper' ? 'l_m1' : 'l_m', found.memory[0]!],
        ...(name === 'paper' ? [['l_m2', found.memory[1]!] as [string, number]] : []),
      ];
      for (const [term, value] of pairs)
        expect(Math.abs(value - wanted[term]!), `${term} before step ${step}`).toBeLessThan(2e-4);
      expect(Math.abs(found.total - wanted['total']!) / wanted['total']!).toBeLessThan(1e-5);
    }
    for (const [step, own] of gradients.entries()) {
      for (const [ours, theirs] of sides) {
        if (!reference.names.includes(`${name}.grad${step}.${theirs}`)) continue;
        const wanted = await stored(`grad${step}`, theirs);
        expect(largestDifference(own.get(ours)!, wanted), `${ours} ${step}`).toBeLessThan(within(wanted));
      }
    }
    for (const [ours, theirs] of sides)
      expect(largestDifference(neurons.get(ours)!.data, await stored('final', theirs)), ours).toBeLessThan(
        2e-4,
      );
    await reference.expectAnswers(model, changes, `${name}.`, cases, 6e-4);
  } finally {
    await editor.dispose();
    await model.dispose();
  }
});

test('CaliNET: slots as they begin, their gradients, and six steps on two wordings', async () => {
  const reference = await EditorReference.open<CaliNetJson>('calinet');
  const { layer, slots, lr, steps, terms_before_steps, init_cases, cases } = reference.json;
  const settings = CaliNetSettings.parse({ layer, slots, rate: lr, steps });
  const { backbone } = await openCheckpoint(folder);
  const model = await openModel(caliNetNeeds(settings, backbone.decoder));
  const editor = new CaliNet(model, settings);
  try {
    const begin: NeuronValues = editor.start();
    const parts = [
      ['key.0', 'gate_ex'],
      ['key.1', 'up_ex'],
      ['values', 'down_ex'],
    ] as const;
    const stored = async (when: string, part: string) => {
      const values = await reference.floats(`${when}.${part}`);
      return part === 'down_ex' ? turned(values, 64) : values;
    };
    for (const [ours, theirs] of parts) begin.get(ours)!.data.set(await stored('init', theirs));
    await reference.expectAnswers(model, editor.changes(begin), 'init.', init_cases, 6e-4);
    const requests = [await reference.request(model), await reference.request(model, 'text_rephrase')];
    const { neurons, changes, losses, firstGradients } = await editor.tune(requests, begin);
    for (const [step, { total, edit, text_rephrase }] of terms_before_steps.entries()) {
      const { mean, each } = losses[step]!;
      expect(largestDifference([mean, ...each], [total, edit, text_rephrase]), `${step}`).toBeLessThan(2e-4);
    }
    expect(losses.length).toBe(terms_before_steps.length);
    for (const [ours, theirs] of parts) {
      const wanted = await stored('grad', theirs);
      expect(largestDifference(firstGradients.get(ours)!, wanted), ours).toBeLessThan(within(wanted));
      expect(largestDifference(neurons.get(ours)!.data, await stored('final', theirs)), ours).toBeLessThan(
        2e-4,
      );
    }
    await reference.expectAnswers(model, changes, '', cases, 6e-4);
  } finally {
    await editor.dispose();
    await model.dispose();
  }
});
