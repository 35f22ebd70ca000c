/** @file Attribution in an opened model, on a tiny checkpoint of every family, and with an edit acting. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { calls, type ModuleReport } from '../../electron/api/contract.ts';
import { paperPerturbation } from '../../electron/attribution/visualContribution.ts';
import { operations, release } from '../../electron/engine/operations.ts';
import type { EngineStream } from '../../electron/engine/protocol.ts';
import { fixture } from '../support/fixtures.ts';
import { MAPPED_LAYER, writeMappedAdapter } from '../support/mappedAdapter.ts';

const families: ReadonlyArray<readonly [folder: string, rows: number, columns: number, placed: boolean]> = [
  ['llava_tiny', 4, 4, true],
  ['qwen2_5_vl_tiny', 5, 6, true],
  ['qwen3_vl_tiny', 5, 6, true],
  ['smolvlm_tiny', 4, 4, true],
  ['blip2_tiny', 1, 8, false],
  ['minigpt4_tiny', 1, 8, false],
];
const context = { signal: new AbortController().signal, send: () => {} };
const prompt = 'What is the animal?';
let base: string;
let data: string;
let picture: Uint8Array;
beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), 'emend-attributing-'));
  data = join(base, 'edits.json');
  picture = new Uint8Array(await readFile(fixture('images/a.png')));
  const record = {
    ...{ src: prompt, rephrase: 'Which animal is it?', pred: '', alt: 'the cat' },
    ...{ image: 'a.png', image_rephrase: 'pan.png', loc: 'Is there a tree?', loc_ans: 'yes' },
    ...{ m_loc: 'b.png', m_loc_q: 'What is the fruit?', m_loc_a: 'an apple' },
  };
  await writeFile(data, JSON.stringify([record, { ...record, image: 'b.png', m_loc_a: 'two' }, record]));
});
afterEach(release);
afterAll(() => rm(base, { recursive: true, force: true }));

const opened = (path: string, adapter: string | null = null) =>
  operations.open({ path, adapter, providers: ['cpu'], template: 'plain' }, context);
const set = () => ({ file: data, images: join(fixture('images/a.png'), '..'), limit: 2, suffix: '' });
const one = () => ({ inputs: [{ picture, prompt }] });

describe.each(families)('%s', (name, rows, columns, placed) => {
  test('layers, picture, modalities and a proposal, as the contract has them', async () => {
    const { summary } = await opened(fixture(`checkpoints/${name}`));
    const told: EngineStream[] = [];
    const listening = { ...context, send: (message: EngineStream) => told.push(message) };
    const plain = { token: null, control: null, variant: 'code', edit: null } as const;
    const modules = await operations.attributeModules({ of: set(), ...plain }, listening);
    expect(calls['attribution.modules'].output.parse(modules)).toEqual(modules);
    expect(modules).toMatchObject({ count: 2, control: { count: expect.any(Number) }, edited: null });
    expect(modules.inputs.map(({ prompt }) => prompt)).toEqual([prompt, prompt]);
    expect(told.at(-1)).toMatchObject({ stage: 'Attributing', done: 2, total: 2, unit: 'inputs' });

    const perturbation = { ...paperPerturbation, draws: 2 };
    const visual = await operations.attributeVisual(
      { picture, prompt, layers: [1, 3], perturbation, seed: 1, edit: null },
      context,
    );
    expect(calls['attribution.visual'].output.parse(visual)).toEqual(visual);
    expect(visual).toMatchObject({ rows, ...(placed ? {} : { placed: false }), influence: null });
    expect(visual.columns).toBe(columns);
    expect(visual.layers.map(({ layer }) => layer)).toEqual([1, 3]);
    for (const { before } of visual.layers) {
      expect(before).toHaveLength(visual.rows * visual.columns);
      expect(Math.max(...before)).toBeGreaterThan(0);
      expect(Math.max(...before)).toBeLessThanOrEqual(1);
    }

    const noise = { level: 1, draws: 1, seed: 0 };
    const modality = await operations.attributeModality({ of: set(), noise }, context);
    expect(calls['attribution.modality'].output.parse(modality)).toEqual(modality);
    expect(modality.attention.text).toHaveLength(summary.layers);

    const proposal = await operations.proposeLayer({ of: set(), rows: 'visual', seed: 0 }, context);
    expect(calls['attribution.propose'].output.parse(proposal)).toEqual(proposal);
    expect(proposal.layer).toBeLessThan(summary.layers - 1);
    expect(proposal.why).toContain('Measured on 2 inputs');
  });
});

describe('module contribution over a set', () => {
  test('is the mean of its inputs, and its control that on the set’s unrelated answers', async () => {
    await opened(fixture('checkpoints/llava_tiny'));
    const more = { variant: 'paper', edit: null } as const;
    const over = await operations.attributeModules(
      { of: set(), token: null, control: null, ...more },
      context,
    );
    const alone: ModuleReport[] = [];
    for (const [image, wrong] of [
      ['a.png', 'an apple'],
      ['b.png', 'two'],
    ] as const) {
      const bytes = new Uint8Array(await readFile(fixture(`images/${image}`)));
      const of = { inputs: [{ picture: bytes, prompt }] };
      alone.push(await operations.attributeModules({ of, token: null, control: wrong, ...more }, context));
    }
    for (const layer of [0, 5]) {
      const mean = (value: (report: ModuleReport) => number) => (value(alone[0]!) + value(alone[1]!)) / 2;
      expect(over.contribution.mlp[layer]).toBeCloseTo(
        mean(({ contribution }) => contribution.mlp[layer]!),
        6,
      );
      expect(over.control!.attention[layer]).toBeCloseTo(
        mean(({ control }) => control!.attention[layer]!),
        6,
      );
    }
    // A key token that is typed takes the place of the model's own.
    const key = alone[1]!.inputs[0]!.wrong!;
    const typed = await operations.attributeModules(
      { of: one(), token: 'two', control: null, ...more },
      context,
    );
    expect(typed.inputs[0]).toMatchObject({ key, wrong: null });
    expect(typed.control).toBeNull();
    // Without answers to take, the control is what the model says to the input before; what is right is no control.
    const same = await operations.attributeModules(
      { of: { inputs: [...one().inputs, ...one().inputs] }, token: null, control: null, ...more },
      context,
    );
    expect(same.control).toBeNull();
  });

  test('stops between two inputs', async () => {
    await opened(fixture('checkpoints/llava_tiny'));
    const stop = new AbortController();
    let told = 0;
    const send = (): void => {
      if (++told === 2) stop.abort();
    };
    const running = operations.attributeModules(
      { of: { ...set(), limit: 3 }, token: null, control: null, variant: 'code', edit: null },
      { signal: stop.signal, send },
    );
    await expect(running).rejects.toMatchObject({ code: 'cancelled' });
    expect(told).toBe(2);
  });
});

test('with an edit acting, layers above it see another picture, and its influence comes along', async () => {
  const model = fixture('checkpoints/llava_tiny');
  const adapter = join(base, 'adapter');
  const layer = MAPPED_LAYER;
  await writeMappedAdapter(adapter, model);
  await opened(model, adapter);
  const edit = { id: 1, reach: 'picture', picture, prompt, target: 'the cat', signal: null } as const;
  const found = await operations.attributeVisual(
    { picture, prompt, layers: null, perturbation: { ...paperPerturbation, draws: 1 }, seed: 2, edit },
    context,
  );
  for (const { layer: at, before, after } of found.layers) {
    const apart = Math.max(...before.map((value, cell) => Math.abs(value - after![cell]!)));
    if (at <= layer) expect(apart).toBeLessThan(1e-6);
    else expect(apart).toBeGreaterThan(1e-9);
  }
  const { signals } = await operations.sign({ edits: [edit], influence: true }, context);
  expect(found.influence).toEqual(signals[0]!.influence);
  const modules = await operations.attributeModules(
    { of: one(), token: 'two', control: null, variant: 'code', edit },
    context,
  );
  expect(modules.edited!.mlp.slice(layer + 1)).not.toEqual(modules.contribution.mlp.slice(layer + 1));
  expect(modules.edited!.keys).toEqual([modules.inputs[0]!.key]);
});

test('an adapter says which form of the weights it was trained on, also where it meets another', async () => {
  const model = fixture('checkpoints/llava_tiny');
  const adapter = join(base, 'of-8-bits');
  await writeMappedAdapter(adapter, model, '8bit');
  const { summary } = await opened(model, adapter);
  expect(summary).toMatchObject({ weights: 'dense', adapter: { weights: '8bit' } });
});

test('an edit needs an adapter, and a mean needs inputs', async () => {
  await opened(fixture('checkpoints/llava_tiny'));
  const edit = { id: 1, reach: 'picture', picture, prompt, target: 'the cat', signal: null } as const;
  const more = { token: null, control: null, variant: 'code' } as const;
  await expect(operations.attributeModules({ of: one(), ...more, edit }, context)).rejects.toMatchObject({
    code: 'conflict',
  });
  const none = operations.attributeModules({ of: { inputs: [] }, ...more, edit: null }, context);
  await expect(none).rejects.toThrow(/nothing to attribute/);
});
