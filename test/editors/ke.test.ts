import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type AdapterWeights, writeAdapterFiles } from '../../electron/editors/adapterFiles.ts';
import { Ke, type KeEdit, keWeights } from '../../electron/editors/ke/ke.ts';
import { ke } from '../../electron/editors/ke/kind.ts';
import { KeLosses } from '../../electron/editors/ke/trainKe.ts';
import { FrozenInputs } from '../../electron/editors/training/changedAnswers.ts';
import { openCheckpoint } from '../../electron/models/open.ts';
import { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { type Cases, EditorReference } from '../support/editorFixtures.ts';
import { fixture, largestDifference } from '../support/fixtures.ts';

interface KeJson {
  readonly parameters: readonly string[];
  readonly condition_text: string;
  readonly condition_ids: readonly number[];
  readonly edit_nll: number;
  readonly max_scale: number;
  readonly label_smoothing: number;
  readonly alpha_kl: number;
  readonly margin_kl: number;
  readonly kl_tokens: Readonly<Record<string, number>>;
  readonly terms: Readonly<Record<string, number>>;
  readonly cases: Cases;
}

const folder = fixture('checkpoints/llava_tiny');
let reference: EditorReference<KeJson>;
let model: VisionLanguageModel;
let weights: AdapterWeights;
let editor: Ke;
let edit: KeEdit;
const which = { layers: [5, 4], parts: ['down' as const], maxScale: 1 };
beforeAll(async () => {
  reference = await EditorReference.open('ke');
  const { backbone } = await openCheckpoint(folder);
  model = await VisionLanguageModel.open(folder, {
    providers: ['cpu'],
    threads: 1,
    cuts: [3],
    changeable: keWeights(which, backbone.decoder).map(({ name }) => name),
  });
  const read = new Map<string, { shape: readonly number[]; data: Float32Array }>();
  for (const name of reference.names)
    if (name.startsWith('hyper.'))
      read.set(name, { shape: reference.shape(name), data: await reference.floats(name) });
  weights = read;
  editor = new Ke(model, { ...which, maxScale: reference.json.max_scale }, weights, 'the fixture');
  const old = reference.json.condition_text.split(' >> ')[0]!;
  edit = await editor.read(await reference.request(model), old);
});
afterAll(async () => {
  await editor?.dispose();
  await model?.dispose();
});

const small = (reference: Float32Array) =>
  2e-6 + 1e-4 * reference.reduce((most, value) => Math.max(most, Math.abs(value)), 0);

test('what is read, the changes and the answers equal the reference', async () => {
  const { parameters, condition_ids, edit_nll, cases } = reference.json;
  expect(edit.ids).toEqual(condition_ids);
  expect(Math.abs(edit.loss - edit_nll)).toBeLessThan(2e-4);
  const { condition, offsets } = await editor.offsets(edit);
  expect(largestDifference(condition, await reference.floats('condition'))).toBeLessThan(1e-5);
  expect(editor.edited.map(({ name }) => `${name}.weight`)).toEqual(parameters);
  for (const [at, name] of parameters.entries()) {
    const gradient = await reference.floats(`grad_in.${name}`);
    expect(largestDifference(edit.gradients[at]!, gradient), name).toBeLessThan(small(gradient));
    expect(largestDifference(offsets[at]!, await reference.floats(`delta_w.${name}`)), name).toBeLessThan(
      1e-5,
    );
  }
  const changes = await editor.changes(edit);
  await reference.expectAnswers(model, changes, '', cases, 6e-4);
  expect(editor.decode(editor.encode(changes))).toEqual(changes);
});

test('training: terms and every gradient equal the reference', async () => {
  const { label_smoothing: smoothing, alpha_kl, margin_kl: margin, kl_tokens, terms } = reference.json;
  const losses = new KeLosses(editor, [...weights.keys()], { smoothing, margin, generalityWeight: 0 });
  const frozen = await FrozenInputs.compile({ model, vision: model }, editor.from, false);
  try {
    const inputs = await frozen.of(await reference.trainingEdit(model));
    const found = await losses.evaluate(edit, inputs, alpha_kl);
    const tokens = Object.values(kl_tokens).reduce((a, b) => a + b);
    const kl = Object.entries(kl_tokens).reduce(
      (sum, [sample, count]) => sum + (terms[`kl_${sample}`]! * count) / tokens,
      0,
    );
    expect(Math.abs(found.terms['locality']! - kl)).toBeLessThan(2e-4);
    expect(Math.abs(found.terms['reliability']! - terms['cr']!)).toBeLessThan(2e-4);
    expect(Math.abs(found.loss - terms['total']!)).toBeLessThan(2e-4);
    const stored = reference.names.filter((name) => name.startsWith('grad.total.'));
    expect([...found.gradients.keys()].sort()).toEqual(
      stored.map((name) => name.replace('grad.total.', '')).sort(),
    );
    for (const name of stored) {
      const wanted = await reference.floats(name);
      expect(
        largestDifference(found.gradients.get(name.replace('grad.total.', ''))!, wanted),
        name,
      ).toBeLessThan(small(wanted));
    }
  } finally {
    await frozen.dispose();
    await losses.dispose();
  }
});

test('an adapter folder opens and edits from the model’s own answer; one without its network is damaged', async () => {
  const base = await mkdtemp(join(tmpdir(), 'emend-ke-'));
  try {
    const description = {
      ...{ editor: 'KE', name: 'tiny', model: 'm', router: { layer: 2, threshold: 0.8 } },
      ...which,
    };
    const checkpoint = await openCheckpoint(folder);
    await writeAdapterFiles(join(base, 'whole'), description, weights, 'F32');
    const read = await ke.read!(join(base, 'whole'), checkpoint);
    expect(read).toMatchObject({ cuts: [3], changeable: editor.changeable, name: 'tiny' });
    const opened = (await read.open(model, 'everywhere')) as Ke;
    const state = await opened.make(model, await reference.request(model));
    expect([...state.keys()]).toEqual([...editor.changeable]);
    await opened.dispose();
    const lacking = new Map([...weights].filter(([name]) => !name.endsWith('cond.1.1.bias')));
    await writeAdapterFiles(join(base, 'lacking'), description, lacking, 'F32');
    const half = await ke.read!(join(base, 'lacking'), checkpoint);
    await expect(half.open(model, 'everywhere')).rejects.toThrow(
      expect.objectContaining({ code: 'damaged' }),
    );
  } finally {
    await rm(base, { recursive: true, force: true });
  }
});
