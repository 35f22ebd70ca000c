/** @file Teacher-forced numbers against the reference, and what each metric counts. */
import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { EditedModel } from '../../electron/editors/editedModel.ts';
import type { HiddenSignal } from '../../electron/editors/hiddenSignal.ts';
import { cosineScope } from '../../electron/editors/scope/cosine.ts';
import { shapeOfWeights, VisEdit } from '../../electron/editors/visedit/visEdit.ts';
import {
  type EditCase,
  forceTarget,
  type Measurement,
  type Metric,
  measureEdit,
  readForced,
  unchangedShare,
} from '../../electron/evaluation/metrics.ts';
import { openSafetensors, readTensor } from '../../electron/files/safetensors.ts';
import { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { fixture } from '../support/fixtures.ts';
import { squarePicture } from '../support/pictures.ts';

interface ForwardCase {
  text_prompt: string;
  text_full: string;
  vt_range?: [number, number];
}
interface VeadCase {
  pre_teacher_forced_argmax: number[];
  pre_teacher_forced_acc: number;
  pre_target_nll: number;
  post_teacher_forced_argmax: number[];
  post_teacher_forced_acc: number;
  post_target_nll: number;
  locality_acc: number;
}
interface TrainedCase {
  teacher_forced_argmax: number[];
  teacher_forced_acc: number;
  target_nll: number;
  locality_acc: number;
}
interface Reference<C> {
  edit_layer: number;
  n_heads: number;
  cases: Record<string, C>;
}

const at = (name: string) => fixture(`llava_tiny/${name}`);
async function json<T>(name: string): Promise<T | null> {
  return JSON.parse(await readFile(at(name), 'utf8')) as T;
}
async function floats(file: string, name: string): Promise<Float32Array> {
  return (await readTensor(await openSafetensors(at(file)), name)).data as Float32Array;
}

async function adapterOf(file: string, layer: number, heads: number, influenceMapper = true) {
  const weights = new Map<string, { shape: readonly number[]; data: Float32Array }>();
  const { tensors } = await openSafetensors(at(file));
  for (const [name, { shape }] of tensors) {
    if (!name.startsWith('adaptor.') || (!influenceMapper && name.includes('influence_mapper'))) continue;
    weights.set(name.slice('adaptor.'.length), { shape, data: await floats(file, name) });
  }
  return VisEdit.create(layer, shapeOfWeights(weights, heads, file), weights, ['cpu']);
}

describe('metrics', async () => {
  const forward = (await json<Record<string, ForwardCase>>('forward.json')) ?? {};
  const vead = await json<Reference<VeadCase>>('vead.json');
  const trained = await json<Reference<TrainedCase>>('vead_trained.json');
  const accuracy = 1e-6;
  const nll = 5e-5;
  let model: VisionLanguageModel;
  let editors: { plain: VisEdit; noMap: VisEdit; trained: VisEdit };
  const signals = new Map<VisEdit, HiddenSignal>();

  beforeAll(async () => {
    model = await VisionLanguageModel.open(fixture('checkpoints/llava_tiny'), {
      providers: ['cpu'],
      cuts: [2],
    });
    editors = {
      plain: await adapterOf('vead.safetensors', vead!.edit_layer, vead!.n_heads),
      noMap: await adapterOf('vead.safetensors', vead!.edit_layer, vead!.n_heads, false),
      trained: await adapterOf('vead_trained.safetensors', trained!.edit_layer, trained!.n_heads),
    };
    const { visual, prompt, target } = await sample('edit');
    for (const editor of Object.values(editors)) {
      signals.set(editor, await editor.make(model, { visual: visual!, prompt, target }));
    }
  });
  afterAll(async () => {
    for (const editor of Object.values(editors)) await editor.dispose();
    await model.dispose();
  });

  const sample = async (name: string) => {
    const { text_prompt, text_full, vt_range } = forward[name]!;
    const pixels = vt_range && (await floats('forward.safetensors', `${name}.pixel_values`));
    return {
      visual: pixels ? await model.visualEmbeddings(squarePicture(model, pixels)) : null,
      prompt: text_prompt.replace('<image>\n', ''),
      target: text_full.slice(text_prompt.length).trimStart(),
    };
  };

  test.each(Object.keys(vead?.cases ?? {}))('%s: teacher forcing before and after', async (name) => {
    const expected = vead!.cases[name]!;
    const { visual, prompt, target } = await sample(name.replace('no_im.', ''));
    const editor = name.startsWith('no_im.') ? editors.noMap : editors.plain;
    const forced = await forceTarget(model, visual, prompt, target);
    const before = await readForced(model, forced);
    const after = await readForced(model, forced, editor.effect([signals.get(editor)!]));

    expect(before.argmax).toEqual(expected.pre_teacher_forced_argmax);
    expect(after.argmax).toEqual(expected.post_teacher_forced_argmax);
    expect(Math.abs(before.accuracy - expected.pre_teacher_forced_acc)).toBeLessThan(accuracy);
    expect(Math.abs(after.accuracy - expected.post_teacher_forced_acc)).toBeLessThan(accuracy);
    expect(Math.abs(before.nll - expected.pre_target_nll)).toBeLessThan(nll);
    expect(Math.abs(after.nll - expected.post_target_nll)).toBeLessThan(nll);
    expect(Math.abs(unchangedShare(before, after) - expected.locality_acc)).toBeLessThan(accuracy);
  });

  test.each(Object.keys(trained?.cases ?? {}))('%s: a trained adapter', async (name) => {
    const expected = trained!.cases[name]!;
    const { visual, prompt, target } = await sample(name);
    const forced = await forceTarget(model, visual, prompt, target);
    const before = await readForced(model, forced);
    const after = await readForced(model, forced, editors.trained.effect([signals.get(editors.trained)!]));
    expect(after.argmax).toEqual(expected.teacher_forced_argmax);
    expect(Math.abs(after.accuracy - expected.teacher_forced_acc)).toBeLessThan(accuracy);
    expect(Math.abs(after.nll - expected.target_nll)).toBeLessThan(nll);
    expect(Math.abs(unchangedShare(before, after) - expected.locality_acc)).toBeLessThan(accuracy);
  });

  const editCase = async (): Promise<EditCase> => {
    const [edit, text, image, imageLoc, textLoc] = await Promise.all(
      ['edit', 'text_rephrase', 'image_rephrase', 'image_loc', 'text_loc'].map(sample),
    );
    return {
      ...{ visual: edit!.visual!, prompt: edit!.prompt, target: edit!.target },
      probes: {
        textGenerality: [{ visual: edit!.visual, prompt: text!.prompt, answer: null }],
        imageGenerality: [{ visual: image!.visual!, prompt: edit!.prompt, answer: null }],
        textLocality: [{ ...textLoc!, answer: textLoc!.target }],
        imageLocality: [{ ...imageLoc!, answer: imageLoc!.target }],
        samePicture: [{ visual: edit!.visual, prompt: imageLoc!.prompt, answer: null }],
        sameQuestion: [{ visual: imageLoc!.visual, prompt: edit!.prompt, answer: null }],
        portability: [
          { visual: edit!.visual, prompt: text!.prompt, answer: 'a small cat' },
          { visual: edit!.visual, prompt: text!.prompt, answer: 'the train' },
        ],
      },
    };
  };
  /** The first input of each metric. */
  const measureFirst = async (...given: Parameters<typeof measureEdit>) => {
    const measured = await measureEdit(...given);
    return Object.fromEntries(
      Object.entries(measured).map(([metric, list]) => [metric, list[0] ?? null]),
    ) as Record<Metric, Measurement | null>;
  };

  test('a metric has as many inputs as its probes, each judged by the answer its probe gives', async () => {
    const measured = await measureEdit(new EditedModel(model, editors.trained, null), await editCase(), {
      ...{ scoped: false, reach: 'picture' as const, maxNewTokens: 3 },
    });
    expect(measured.portability.map(({ expected, exactMatch }) => [expected, exactMatch])).toEqual([
      ['a small cat', true],
      ['the train', false],
    ]);
    expect(measured.textReliability).toEqual([]);
  });

  test('one edit on all its probes: the trained adapter takes, stays local, and leaks where it must', async () => {
    const edited = new EditedModel(model, editors.trained, null);
    const measured = await measureFirst(edited, await editCase(), {
      scoped: false,
      reach: 'picture' as const,
      maxNewTokens: 3,
    });
    const { reliability, textGenerality, imageGenerality, textLocality, imageLocality, samePicture } =
      measured;
    for (const changed of [reliability, textGenerality, imageGenerality]) {
      expect(changed).toMatchObject({ after: 'a small cat', teacherForced: 1, exactMatch: true });
      expect(changed!.before).not.toBe('a small cat');
    }
    for (const kept of [textLocality, imageLocality]) {
      expect(kept).toMatchObject({ teacherForced: 1, exactMatch: true });
      expect(kept!.after).toBe(kept!.before);
    }
    // Forced by its own answer, the unedited model is right everywhere, so what is missing is the edit's doing.
    expect(samePicture!.expected).toBe(samePicture!.before);
    expect(samePicture!.exactMatch).toBe(samePicture!.after === samePicture!.before);
    expect(measured.sameQuestion!.teacherForced! < 1).toBe(!measured.sameQuestion!.exactMatch);
  });

  test('locality is the share of choices an edit left as they were, generality of those it made right', async () => {
    const edited = new EditedModel(model, editors.noMap, null);
    const measured = await measureFirst(edited, await editCase(), {
      scoped: false,
      reach: 'picture' as const,
      maxNewTokens: 3,
    });
    const expected = (name: string) => vead!.cases[`no_im.${name}`]!;
    // Two of three: a metric that always says all or nothing is told by this.
    expect(expected('image_loc').locality_acc).toBeCloseTo(2 / 3, 6);
    expect(measured.imageLocality!.teacherForced).toBeCloseTo(expected('image_loc').locality_acc, 6);
    expect(measured.textLocality!.teacherForced).toBeCloseTo(expected('text_loc').locality_acc, 6);
    expect(measured.reliability!.teacherForced).toBeCloseTo(expected('edit').post_teacher_forced_acc, 6);
    // Another question about the edit's picture, and its question elsewhere: the trained adapter changes what it must not.
    const trainedOne = await measureFirst(new EditedModel(model, editors.trained, null), await editCase(), {
      scoped: false,
      reach: 'picture' as const,
      maxNewTokens: 3,
    });
    expect(trainedOne.samePicture).toMatchObject({ acted: true, exactMatch: false });
    expect(trainedOne.samePicture!.teacherForced).toBeLessThan(1);
  });

  test('with a scope, an edit acts only where the input is close enough', async () => {
    const input = await editCase();
    const options = { scoped: true, reach: 'picture' as const, maxNewTokens: 3 };
    const strict = await measureFirst(
      new EditedModel(model, editors.trained, cosineScope({ layer: 2, threshold: 1 }, model.hidden)),
      input,
      options,
    );
    expect(strict.reliability).toMatchObject({ acted: true, exactMatch: true });
    expect(strict.reliability!.score).toBeGreaterThan(10);
    expect(strict.textGenerality).toMatchObject({ acted: false, exactMatch: false });
    expect(strict.textGenerality!.after).toBe(strict.textGenerality!.before);
    expect(strict.sameQuestion).toMatchObject({ acted: false, exactMatch: true, teacherForced: 1 });

    const open = await measureFirst(
      new EditedModel(model, editors.trained, cosineScope({ layer: 2, threshold: -1 }, model.hidden)),
      input,
      options,
    );
    expect(open.textGenerality).toMatchObject({ acted: true, exactMatch: true });
    expect(open.textLocality).toMatchObject({ acted: false, exactMatch: true });
  });

  test('stopping it, and measuring without an adapter', async () => {
    const edited = new EditedModel(model, editors.trained, null);
    const stopped = {
      scoped: false,
      reach: 'picture' as const,
      maxNewTokens: 3,
      signal: AbortSignal.abort(),
    };
    await expect(measureEdit(edited, await editCase(), stopped)).rejects.toMatchObject({ code: 'cancelled' });
    const bare = new EditedModel(model, null, null);
    const options = { scoped: false, reach: 'picture' as const, maxNewTokens: 3 };
    await expect(measureEdit(bare, await editCase(), options)).rejects.toMatchObject({ code: 'conflict' });
  });
});
