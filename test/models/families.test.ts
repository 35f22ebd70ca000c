/**
 * @file Every backbone but LLaVA beside its reference tensors: tokens, pictures, positions, the forward pass, editing, attribution.
 */
import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { LayerInputs, rowsOf } from '../../electron/attribution/layerInputs.ts';
import { ModuleAttribution } from '../../electron/attribution/moduleContribution.ts';
import { VisualAttribution, windows } from '../../electron/attribution/visualContribution.ts';
import { shapeOfWeights, VisEdit } from '../../electron/editors/visedit/visEdit.ts';
import { openSafetensors, readTensor, type SafetensorsFile } from '../../electron/files/safetensors.ts';
import { generate } from '../../electron/models/generation.ts';
import type { Pixels, Visual } from '../../electron/models/picture.ts';
import { promptFromTensors, traceDecoder } from '../../electron/models/trace.ts';
import { type ModelInput, VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { floatsOf } from '../../electron/tensor/session.ts';
import { fixture, largestDifference } from '../support/fixtures.ts';

interface Sample {
  image?: string | null;
  vt_range?: [number, number];
  text_prompt: string;
  text_full: string;
  input_ids_prompt: number[];
  input_ids_full: number[];
  visual_rows?: number[];
  prompt_end: number;
  label_ids: number[];
  greedy_ids: number[];
  rope_delta?: number;
  image_grid_thw?: [number, number, number];
}

const PICTURE_TEXT: Record<string, string> = {
  smolvlm_tiny: '<image>',
  qwen2_5_vl_tiny: '<|vision_start|><|image_pad|><|vision_end|>',
  qwen3_vl_tiny: '<|vision_start|><|image_pad|><|vision_end|>',
  blip2_tiny: '',
  minigpt4_tiny: '<image>\n',
};
const EDIT_LAYER = 2;
/** tolerances of the fixtures' README: logits; hidden states; visual embeddings; deepstack; influence logits; map; E1; E2 */
const NEWER_NEAR = {
  logits: 1.5e-4,
  hidden: 3e-4,
  visual: 3e-5,
  deepstack: 1e-5,
  influenceLogits: 3e-5,
  map: 1e-5,
  e1: 1e-5,
  e2: 2e-6,
};
const OLDER_NEAR = {
  logits: 3e-4,
  hidden: 5e-4,
  visual: 5e-5,
  deepstack: 0,
  influenceLogits: 1e-5,
  map: 1e-5,
  e1: 1e-5,
  e2: 1e-5,
};

const FAMILIES = ['qwen2_5_vl_tiny', 'qwen3_vl_tiny', 'smolvlm_tiny', 'blip2_tiny', 'minigpt4_tiny'];
/** The Q-Former backbones' references are in an older form, and have no chat template. */
const OLDER = ['blip2_tiny', 'minigpt4_tiny'];

describe.each(FAMILIES)('%s', (name) => {
  const older = OLDER.includes(name);
  const NEAR = older ? OLDER_NEAR : NEWER_NEAR;
  let model: VisionLanguageModel;
  let cut: VisionLanguageModel;
  let chat: VisionLanguageModel | null;
  let samples: Record<string, Sample>;
  let file: SafetensorsFile;
  const visuals = new Map<string, Visual>();
  const json = async (part: string) => JSON.parse(await readFile(fixture(`${name}/${part}.json`), 'utf8'));
  const floats = async (from: SafetensorsFile, tensor: string) =>
    (await readTensor(from, tensor)).data as Float32Array;
  const visualOf = async (image: string): Promise<Visual> => {
    const known = visuals.get(image);
    if (known) return known;
    const made = await model.visualEmbeddings(
      await model.pixelsOf(await readFile(fixture(`images/${image}`))),
    );
    visuals.set(image, made);
    return made;
  };
  beforeAll(async () => {
    const folder = fixture(`checkpoints/${name}`);
    model = await VisionLanguageModel.open(folder, { providers: ['cpu'] });
    cut = await VisionLanguageModel.open(folder, { providers: ['cpu'], cuts: [EDIT_LAYER, 3] });
    chat = older ? null : await VisionLanguageModel.open(folder, { providers: ['cpu'], promptForm: 'chat' });
    samples = await json('forward');
    file = await openSafetensors(fixture(`${name}/forward.safetensors`));
  });
  afterAll(async () => {
    for (const each of [model, cut, chat]) await each?.dispose();
  });

  const writer = (sample: string) => (sample === 'chat' ? chat! : model).prompts;
  const questionOf = (
    { text_prompt, image }: Sample,
    sample: string,
  ): { prompt: string; image: boolean } => ({
    prompt:
      sample === 'chat'
        ? questionOf(samples['edit']!, 'edit').prompt
        : text_prompt.replace(PICTURE_TEXT[name]!, ''),
    image: image != null,
  });
  const targetOf = ({ text_prompt, text_full }: Sample) => text_full.slice(text_prompt.length + 1);
  const layPrompt = async (sample: string): Promise<ModelInput> => {
    const entry = samples[sample]!;
    const visual = entry.image ? await visualOf(entry.image) : null;
    return model.lay(writer(sample).encodePrompt(questionOf(entry, sample)), visual);
  };
  const layFull = async (sample: string): Promise<ModelInput> => {
    const entry = samples[sample]!;
    const visual = entry.image ? await visualOf(entry.image) : null;
    return model.lay(writer(sample).encodeTarget(questionOf(entry, sample), targetOf(entry)), visual);
  };

  // MiniGPT-4's fixture has LLaVA's tokenizer and BLIP-2's picture settings.
  test.skipIf(name === 'minigpt4_tiny')('tokens', async () => {
    const texts: Array<{ text: string; ids: number[]; ids_no_special: number[] }> = await json('tokenizer');
    for (const { text, ids, ids_no_special } of texts) {
      expect(model.tokenizer.encode(text, { bos: true })).toEqual(ids);
      expect(model.tokenizer.encode(text, { bos: false })).toEqual(ids_no_special);
    }
  });

  test('prompts laid out: ids, visual rows, positions, labels', async () => {
    for (const [sample, entry] of Object.entries(samples)) {
      const input = await layPrompt(sample);
      const encoded = writer(sample).encodePrompt(questionOf(entry, sample));
      const written = name === 'blip2_tiny' ? encoded.ids.slice(encoded.pictures.length) : encoded.ids;
      expect(older ? written : input.ids, sample).toEqual(entry.input_ids_prompt);
      const [start, end] = entry.vt_range ?? [0, 0];
      const rows = entry.visual_rows ?? Array.from({ length: end - start }, (_, row) => start + row);
      expect(input.imageRows ?? [], sample).toEqual(rows);
      expect(input.lastPromptRow, sample).toBe(entry.prompt_end ?? input.rows - 1);
      if (entry.rope_delta !== undefined) expect(input.nextPosition).toBe(input.rows + entry.rope_delta);
      if (file.tensors.has(`${sample}.position_ids`)) {
        const { data } = await readTensor(file, `${sample}.position_ids`);
        expect(input.positions.flatMap((axis) => [...axis])).toEqual(
          Array.from(data as BigInt64Array, Number),
        );
      }
      if (!entry.input_ids_full) continue;
      const full = await layFull(sample);
      if (!older) expect(full.ids, sample).toEqual(entry.input_ids_full);
      const labels = entry.label_ids.slice(0, -1);
      expect(full.ids.slice(-labels.length), sample).toEqual(labels);
      expect(full.lastPromptRow).toBe(entry.prompt_end);
    }
  });

  test('visual embeddings, from picture files', async () => {
    for (const [sample, entry] of Object.entries(samples)) {
      if (!file.tensors.has(`${sample}.visual_embeds`)) continue;
      const visual = await visualOf(entry.image!);
      expect(
        largestDifference(visual.rows, await floats(file, `${sample}.visual_embeds`)),
        sample,
      ).toBeLessThan(NEAR.visual);
      if (!file.tensors.has(`${sample}.deepstack_features`)) continue;
      const features = await floats(file, `${sample}.deepstack_features`);
      const size = visual.rows.length;
      expect(visual.added).toHaveLength(features.length / size);
      for (const [layer, added] of visual.added.entries())
        expect(largestDifference(added, features.subarray(layer * size, (layer + 1) * size))).toBeLessThan(
          NEAR.deepstack,
        );
    }
  });

  test('logits, with and without the target, and greedy tokens', async () => {
    for (const [sample, entry] of Object.entries(samples)) {
      const input = await layPrompt(sample);
      const prefill = await model.prefill(input);
      const last = await floatsOf((await model.finish(prefill, [input.rows - 1])).logits);
      const given = await floats(file, `${sample}.${older ? 'logits' : 'logits_last'}`);
      expect(largestDifference(last, given.subarray(-last.length)), sample).toBeLessThan(NEAR.logits);
      for (const one of [model, cut]) {
        const options = { maxNewTokens: entry.greedy_ids.length };
        const { tokens } = await generate(one, one === model ? prefill : await one.prefill(input), options);
        const ids = tokens.map(({ id }) => id);
        expect(ids, sample).toEqual(entry.greedy_ids.slice(0, ids.length));
        expect(ids.length === entry.greedy_ids.length || one.stopIds.has(ids.at(-1)!)).toBe(true);
      }
      const tailName = `${sample}.full.${older ? 'logits' : 'logits_tail'}`;
      if (!file.tensors.has(tailName)) continue;
      const full = await layFull(sample);
      const count = entry.label_ids.length;
      const asked = Array.from({ length: count }, (_, i) => full.rows - count + i);
      const tail = await floatsOf((await model.finish(await model.prefill(full, asked), asked)).logits);
      const wholeTail = await floats(file, tailName);
      expect(largestDifference(tail, wholeTail.subarray(-tail.length)), sample).toBeLessThan(NEAR.logits);
    }
  });

  test.each(['edit', 'text_loc'])('%s: every layer', async (sample) => {
    const input = await layPrompt(sample);
    const { layers, logits } = await traceDecoder(model, input);
    expect(largestDifference(logits, await floats(file, `${sample}.logits`))).toBeLessThan(NEAR.logits);
    const size = input.rows * model.hidden;
    const part = async (tensor: string, index: number) =>
      (await floats(file, `${sample}.${tensor}`)).subarray(index * size, (index + 1) * size);
    expect(largestDifference(await floatsOf(input.embeddings), await part('hidden_states', 0))).toBeLessThan(
      NEAR.visual,
    );
    for (const [index, layer] of layers.entries()) {
      expect(largestDifference(layer.hidden, await part('hidden_states', index + 1))).toBeLessThan(
        NEAR.hidden,
      );
      expect(largestDifference(layer.attention, await part('attn_out', index))).toBeLessThan(NEAR.hidden);
      expect(largestDifference(layer.mlp, await part('mlp_out', index))).toBeLessThan(NEAR.hidden);
    }
  });

  test.skipIf(older)('two pictures in one prompt, given as tensors', async () => {
    const two: { images: string[]; greedy_ids: number[]; visual_rows: number[] } = await json('two_pictures');
    const reference = await openSafetensors(fixture(`${name}/two_pictures.safetensors`));
    const pictures = await Promise.all(
      two.images.map(async (image) => model.pixelsOf(await readFile(fixture(`images/${image}`)))),
    );
    const { data } = await readTensor(reference, 'input_ids');
    const prompt = promptFromTensors(
      model,
      Array.from(data as BigInt64Array, Number),
      model.images.toTensors(pictures),
    );
    const seen = await model.visualEmbeddingsOf(prompt.pictures);
    const input = await prompt.lay(seen);
    expect(input.imageRows).toEqual(two.visual_rows);
    if (reference.tensors.has('position_ids')) {
      const positions = await readTensor(reference, 'position_ids');
      expect(input.positions.flatMap((axis) => [...axis])).toEqual(
        Array.from(positions.data as BigInt64Array, Number),
      );
    }
    const prefill = await model.prefill(input);
    const last = await floatsOf((await model.finish(prefill, [input.rows - 1])).logits);
    expect(largestDifference(last, await floats(reference, 'logits_last'))).toBeLessThan(NEAR.logits);
    const { tokens } = await generate(model, prefill, { maxNewTokens: two.greedy_ids.length });
    const ids = tokens.map(({ id }) => id);
    expect(ids).toEqual(two.greedy_ids.slice(0, ids.length));
  });

  test.skipIf(name === 'minigpt4_tiny')('pictures of every size: layout and pixels', async () => {
    const expected = await json('preprocess');
    const settings = JSON.parse(
      await readFile(fixture(`checkpoints/${name}/preprocessor_config.json`), 'utf8'),
    );
    const reference = await openSafetensors(fixture(`${name}/preprocess.safetensors`));
    for (const [image, entry] of Object.entries<Record<string, number> & { image_grid_thw?: number[] }>(
      expected,
    )) {
      if (!image.endsWith('.png')) continue;
      const pixels = await model.pixelsOf(await readFile(fixture(`images/${image}`)));
      const { layout } = pixels;
      if (entry.image_grid_thw) {
        const [, height, width] = entry.image_grid_thw;
        expect(layout.grid, image).toEqual({ height: height! / 2, width: width! / 2 });
      } else if (older) expect(layout).toMatchObject({ rows: 8, grid: null, map: null });
      else {
        expect(layout.tiles, image).toEqual(
          entry['n_tiles']! > 1 ? { height: entry['tile_rows'], width: entry['tile_cols'] } : undefined,
        );
      }
      expect(layout.windows).toHaveLength(layout.rows);
      const bytes = await readTensor(
        reference,
        `${image}.${reference.tensors.has(`${image}.tiles_u8`) ? 'tiles' : 'resized'}_u8`,
      );
      expect(bytesOf(pixels, settings), image).toEqual(bytes.data);
      if (!reference.tensors.has(`${image}.pixel_values`)) continue;
      expect(
        largestDifference(pixels.values, await floats(reference, `${image}.pixel_values`)),
        image,
      ).toBeLessThan(1e-6);
    }
  });

  test.skipIf(name !== 'smolvlm_tiny')('tiles that hold picture in part', async () => {
    const reference = await openSafetensors(fixture(`${name}/vision_partial.safetensors`));
    const given = async (tensor: string) => {
      const { shape, data } = await readTensor(reference, tensor);
      return { shape, data: data as Float32Array | BigInt64Array };
    };
    const tensors = new Map([
      ['pixel_values', await given('pixel_values')],
      ['pixel_attention_mask', await given('pixel_attention_mask')],
    ]);
    const [visual] = await model.visualEmbeddingsOf(model.images.fromTensors(tensors));
    expect(largestDifference(visual!.rows, await floats(reference, 'visual_embeds'))).toBeLessThan(
      NEAR.visual,
    );
  });

  describe('VisEdit', () => {
    test('signal, map, change, adapted rows, logits and greedy answers', async () => {
      const vead = await json('vead');
      const reference = await openSafetensors(fixture(`${name}/vead.safetensors`));
      for (const influenceMapper of [true, false]) {
        const weights = new Map<string, { shape: readonly number[]; data: Float32Array }>();
        for (const [key, { shape }] of reference.tensors) {
          if (key.startsWith('adaptor.') && (influenceMapper || !key.includes('influence_mapper')))
            weights.set(key.slice('adaptor.'.length), { shape, data: await floats(reference, key) });
        }
        const editor = await VisEdit.create(EDIT_LAYER, shapeOfWeights(weights, vead.n_heads, ''), weights, [
          'cpu',
        ]);
        const edit = samples['edit']!;
        const signal = await editor.make(cut, {
          visual: await visualOf(edit.image!),
          prompt: questionOf(edit, 'edit').prompt,
          target: targetOf(edit),
        });
        expect(signal.lastPromptRow).toBe(edit.prompt_end);
        expect(largestDifference(signal.hidden, await floats(reference, 'edit_signal'))).toBeLessThan(
          NEAR.hidden,
        );
        const prefix = influenceMapper ? '' : 'no_im.';
        const compare = async (tensor: string, ours: Float32Array | null, near: number) => {
          if (reference.tensors.has(tensor))
            expect(largestDifference(ours!, await floats(reference, tensor)), tensor).toBeLessThan(near);
        };
        for (const [sample, entry] of Object.entries(samples)) {
          const full = sample === 'chat' ? null : await layFull(sample);
          if (!full || !vead.cases[prefix + sample]) continue;
          const prefill = await cut.prefill(full);
          if (full.imageRows) {
            const rows = rowsOf(await floatsOf(prefill.hidden!), full.imageRows, cut.hidden);
            const applied = await editor.apply(rows, signal);
            await compare(`${prefix}${sample}.visual_before`, rows, NEAR.hidden);
            await compare(`${prefix}${sample}.cross_out`, applied.change, NEAR.hidden);
            await compare(
              `${prefix}${sample}.influence_logits`,
              applied.influenceLogits,
              NEAR.influenceLogits,
            );
            await compare(`${prefix}${sample}.influence_map`, applied.influence, NEAR.map);
            await compare(`${prefix}${sample}.adapted`, applied.adapted, NEAR.hidden);
          }
          const count = entry.label_ids.length;
          const asked = Array.from({ length: count }, (_, i) => full.rows - count + i);
          const { logits } = await cut.finish(prefill, asked, editor.adapt(signal));
          const post = await floatsOf(logits);
          await compare(`${prefix}${sample}.post_logits_tail`, post, NEAR.logits);
          const all = `${prefix}${sample}.post_logits`;
          if (older && reference.tensors.has(all)) {
            const rest = (await floats(reference, all)).subarray(-post.length);
            expect(largestDifference(post, rest), all).toBeLessThan(NEAR.logits);
          }
          const greedy: number[] | undefined = vead.cases[prefix + sample].post_greedy_ids;
          if (!greedy) continue;
          const prompt = await cut.prefill(await layPrompt(sample));
          const options = { maxNewTokens: greedy.length, adapt: editor.adapt(signal) };
          const ids = (await generate(cut, prompt, options)).tokens.map(({ id }) => id);
          expect(ids, sample).toEqual(greedy.slice(0, ids.length));
        }
        await editor.dispose();
      }
    });
  });

  test.each(['code', 'paper'] as const)('module contributions: %s', async (variant) => {
    const cases = await json('e1');
    const reference = await openSafetensors(fixture(`${name}/e1.safetensors`));
    const attribution = await ModuleAttribution.compile(model.decoder, variant);
    let compared = 0;
    for (const [sample, entry] of Object.entries<{ predicted_id: number; first_target_id: number }>(cases)) {
      if (typeof entry !== 'object') continue;
      for (const [key, token] of [
        ['predicted', entry.predicted_id],
        ['target', entry.first_target_id],
      ] as const) {
        const [result] = await attribution.run(await layPrompt(sample), [
          key === 'predicted' ? 'predicted' : token,
        ]);
        expect(result!.keyToken).toBe(token);
        const at = `${sample}.${key}.${variant === 'code' ? 'official' : 'paper'}`;
        for (const [kind, ours] of [
          ['att', result!.attention],
          ['mlp', result!.mlp],
        ] as const) {
          expect(
            largestDifference(ours.contribution, await floats(reference, `${at}.c_${kind}`)),
          ).toBeLessThan(NEAR.e1);
          expect(largestDifference(ours.logit, await floats(reference, `${at}.v_${kind}`))).toBeLessThan(
            older ? 3e-4 : 1e-4,
          );
          compared++;
        }
      }
    }
    expect(compared).toBeGreaterThan(5);
    await attribution.dispose();
  });

  test('visual contributions, draw by draw', async () => {
    const e2 = await json('e2');
    const reference = await openSafetensors(fixture(`${name}/e2.safetensors`));
    const input = await layPrompt('edit');
    const below = await LayerInputs.compile(model.decoder, e2.layers);
    const [hidden] = await below.run([{ ...input, hidden: await floatsOf(input.embeddings) }]);
    await below.dispose();
    const grid = input.grid ?? { height: 1, width: input.imageRows!.length };
    for (const [key, entry] of Object.entries<{ radius: number; test_n: number; attr_toks?: number[][] }>(
      e2.cases,
    )) {
      const variant = key === 'paper' ? 'paper' : 'code';
      const cells = windows(grid, entry.radius);
      if (entry.attr_toks) expect(cells).toEqual(entry.attr_toks);
      const draws = entry.test_n;
      const width = model.hidden;
      const most = Math.max(...cells.map((window) => window.length));
      let noise: Float32Array;
      if (variant === 'paper') noise = await floats(reference, 'paper.unit_noise');
      else if (older) noise = await floats(reference, `${key}.noise`);
      else {
        noise = new Float32Array(cells.length * draws * most * width);
        for (const [cell, window] of cells.entries()) {
          const given = await floats(reference, `${key}.noise_len${window.length}`);
          const size = window.length * width;
          for (let draw = 0; draw < draws; draw++)
            noise.set(given.subarray(draw * size, (draw + 1) * size), (cell * draws + draw) * most * width);
        }
      }
      const attribution = await VisualAttribution.compile(model.decoder, e2.layers, {
        variant,
        level: variant === 'paper' ? 3 : 1,
        draws,
        radius: entry.radius,
      });
      const results = await attribution.run(
        {
          hidden: hidden!,
          imageRows: input.imageRows!,
          lastPromptRow: input.lastPromptRow,
          positions: input.positions,
        },
        { kind: 'given', values: e2.layers.map(() => noise) },
        grid,
      );
      for (const { layer, mean, perDraw } of results) {
        expect(
          largestDifference(perDraw, await floats(reference, `${key}.layer${layer}.per_draw`)),
          key,
        ).toBeLessThan(NEAR.e2);
        expect(
          largestDifference(mean, await floats(reference, `${key}.layer${layer}.mean`)),
          key,
        ).toBeLessThan(NEAR.e2);
      }
      await attribution.dispose();
    }
  });
});

/** Pixel values back as the bytes they were made from: [tiles, side, side, 3], or [height, width, 3] of a picture in patches. */
function bytesOf(
  { values, shape, layout }: Pixels,
  { image_mean: mean, image_std: std }: { image_mean: number[]; image_std: number[] },
): Uint8Array {
  const byte = (value: number, channel: number) => Math.round((value * std[channel]! + mean[channel]!) * 255);
  const bytes = new Uint8Array(shape.length > 2 ? values.length : values.length / 2);
  if (shape.length > 2) {
    const plane = shape.at(-1)! * shape.at(-2)!;
    for (const [at, value] of values.entries()) {
      const [tile, channel, pixel] = [Math.floor(at / (3 * plane)), Math.floor(at / plane) % 3, at % plane];
      bytes[(tile * plane + pixel) * 3 + channel] = byte(value, channel);
    }
    return bytes;
  }
  // Patches in blocks of two by two, each [3, 2 frames, 6, 6].
  const [merge, side] = [2, 6];
  const width = layout.grid!.width * merge * side;
  for (const [at, value] of values.entries()) {
    const [patch, feature] = [Math.floor(at / shape[1]!), at % shape[1]!];
    const [channel, frame] = [
      Math.floor(feature / (2 * side * side)),
      Math.floor(feature / (side * side)) % 2,
    ];
    if (frame > 0) continue;
    const [block, inside] = [Math.floor(patch / (merge * merge)), patch % (merge * merge)];
    const row = Math.floor(block / layout.grid!.width) * merge + Math.floor(inside / merge);
    const column = (block % layout.grid!.width) * merge + (inside % merge);
    const y = row * side + (Math.floor(feature / side) % side);
    const x = column * side + (feature % side);
    bytes[(y * width + x) * 3 + channel] = byte(value, channel);
  }
  return bytes;
}
