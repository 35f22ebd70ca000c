/**
 * @file What holds for every editor that acts by weights: it makes the target likelier on backbones of other families, its edits come
 * back from bytes, act together and retire in any order.
 */
import { readFile } from 'node:fs/promises';
import { expect, test, vi } from 'vitest';
import { CaliNet, CaliNetSettings, caliNetNeeds } from '../../electron/editors/calinet/calinet.ts';
import { FtLanguage, FtLanguageSettings, ftLanguageNeeds } from '../../electron/editors/ft/ftLanguage.ts';
import { FtVision, FtVisionSettings, ftVisionNeeds } from '../../electron/editors/ft/ftVision.ts';
import { Ke, keWeights } from '../../electron/editors/ke/ke.ts';
import { Kn, KnSettings, knNeeds } from '../../electron/editors/kn/kn.ts';
import { Memit, MemitSettings, memitNeeds } from '../../electron/editors/memit/memit.ts';
import { Mend, mendModules } from '../../electron/editors/mend/mend.ts';
import { networkName } from '../../electron/editors/mend/network.ts';
import { Rome, RomeSettings, romeNeeds } from '../../electron/editors/rome/rome.ts';
import { TPatcher, TPatcherSettings, tPatcherNeeds } from '../../electron/editors/tpatcher/tPatcher.ts';
import {
  type mlpParts,
  Sessions,
  teacherForced,
  type WeightEditor,
  type WeightEditorNeeds,
} from '../../electron/editors/weightEditor.ts';
import type { Backbone } from '../../electron/models/family.ts';
import { openCheckpoint } from '../../electron/models/open.ts';
import { VisionLanguageModel, type WeightChanges } from '../../electron/models/visionLanguageModel.ts';
import {
  decodeChanges,
  encodeChanges,
  type LinearChange,
  matrixOf,
} from '../../electron/models/weightChanges.ts';
import * as f from '../../electron/tensor/functions.ts';
import type { Graph } from '../../electron/tensor/graph.ts';
import { floatsOf } from '../../electron/tensor/session.ts';
import { fixture, largestDifference } from '../support/fixtures.ts';

interface Kind {
  /** checkpoints whose decoder or tower is of its own kind for this editor */
  readonly backbones: readonly string[];
  /** what it writes is meant for models whose embedding and head agree: it need not help in random ones */
  readonly meantForTrained?: true;
  needs(backbone: Backbone): WeightEditorNeeds;
  open(model: VisionLanguageModel): WeightEditor;
}

const kinds: Readonly<Record<string, Kind>> = {
  'FT-L': ft(['blip2_tiny', 'qwen2_5_vl_tiny'], {}),
  'FT-L, whole layer': ft(['blip2_tiny', 'qwen3_vl_tiny'], { weights: 'whole layer', norm: 0.01 }),
  'FT-V': ftVision(['blip2_tiny', 'qwen3_vl_tiny', 'smolvlm_tiny'], {}),
  'FT-V, vision layer': ftVision(['minigpt4_tiny', 'qwen2_5_vl_tiny'], { part: 'vision layer' }),
  ROME: {
    backbones: ['blip2_tiny', 'qwen2_5_vl_tiny'],
    needs: ({ decoder }) => romeNeeds(RomeSettings.parse({}), decoder),
    open: (model) => new Rome(model, RomeSettings.parse({ passes: 10 })),
  },
  KN: {
    backbones: ['blip2_tiny', 'qwen3_vl_tiny'],
    meantForTrained: true,
    needs: ({ decoder }) => knNeeds(KnSettings.parse({}), decoder),
    open: (model) => new Kn(model, KnSettings.parse({})),
  },
  // Rows of a random model are so alike that neurons cannot be quiet on some and fire on others: that weighs little here.
  'T-Patcher': {
    backbones: ['blip2_tiny', 'qwen3_vl_tiny'],
    needs: ({ decoder }) => tPatcherNeeds(TPatcherSettings.parse({}), decoder),
    open: (model) => new TPatcher(model, TPatcherSettings.parse({ steps: 60, memory: 0.1 })),
  },
  CaliNET: {
    backbones: ['blip2_tiny', 'qwen2_5_vl_tiny'],
    needs: ({ decoder }) => caliNetNeeds(CaliNetSettings.parse({}), decoder),
    open: (model) => new CaliNet(model, CaliNetSettings.parse({ steps: 10 })),
  },
  MEND: untrainedMend(['qwen3_vl_tiny'], ['gate', 'up', 'down']),
  'MEND, without a gate': untrainedMend(['blip2_tiny'], ['up', 'down']),
  KE: untrainedKe(['blip2_tiny', 'qwen2_5_vl_tiny']),
  MEMIT: {
    backbones: ['blip2_tiny', 'qwen3_vl_tiny'],
    needs: ({ decoder }) => memitNeeds(MemitSettings.parse({}), decoder),
    open: (model) => new Memit(model, MemitSettings.parse({ passes: 10, lambda: 20 })),
  },
};

function ft(backbones: readonly string[], given: Partial<FtLanguageSettings>): Kind {
  const settings = FtLanguageSettings.parse(given);
  return {
    backbones,
    needs: ({ decoder }) => ftLanguageNeeds(settings, decoder),
    open: (model) => new FtLanguage(model, settings),
  };
}

function ftVision(backbones: readonly string[], given: Partial<FtVisionSettings>): Kind {
  const settings = FtVisionSettings.parse({ ...given, steps: 5 });
  return {
    backbones,
    needs: (backbone) => ftVisionNeeds(settings, backbone),
    open: (model) => new FtVision(model, settings),
  };
}

/** MEND's networks before they have learnt anything: the change is a step down the gradient. */
function untrainedMend(backbones: readonly string[], parts: ReadonlyArray<(typeof mlpParts)[number]>): Kind {
  const which = { layers: [3, 4], parts: [...parts], rows: 'mean' as const };
  const filled = (shape: number[], value = 0) => ({
    shape,
    data: new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(value),
  });
  return {
    backbones,
    needs: ({ decoder }) => ({ cuts: [2], changeable: mendModules(which, decoder).map(({ name }) => name) }),
    open(model) {
      const modules = mendModules(which, model.decoder);
      const weights = new Map([['edit_lrs', filled([modules.length], -0.5)]]);
      for (const module of modules) {
        const { into, out } = module;
        const at = networkName(module);
        const modes = modules.filter((each) => networkName(each) === at).length;
        for (const [of, size] of [
          ['u', into],
          ['v', out],
        ] as const) {
          weights.set(`${at}.${of}_mean`, filled([size]));
          weights.set(`${at}.${of}_std`, filled([size], 1));
        }
        const own = `${at}.mlp.layers.0`;
        weights.set(`${own}.u`, filled([into + out, 4]));
        weights.set(`${own}.v`, filled([4, into + out]));
        weights.set(`${own}.bias`, filled([into + out]));
        weights.set(`${own}.mode_scale.weight`, filled([modes, into + out], 1));
        weights.set(`${own}.mode_shift.weight`, filled([modes, into + out]));
      }
      return new Mend(model, which, weights, 'the test');
    },
  };
}

/** KE's hyper-network that gives the same mask everywhere: the change is a step down the gradient. */
function untrainedKe(backbones: readonly string[]): Kind {
  const which = { layers: [4, 3], parts: ['up' as const, 'down' as const], maxScale: 1 };
  return {
    backbones,
    needs: ({ decoder }) => ({ cuts: [2], changeable: keWeights(which, decoder).map(({ name }) => name) }),
    open(model) {
      const { hidden } = model;
      const weights = new Map<string, { shape: number[]; data: Float32Array }>();
      const put = (name: string, ...shape: number[]) =>
        weights.set(`hyper.${name}`, {
          shape,
          data: new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(name.endsWith('_g') ? 0 : 0.1),
        });
      for (const way of ['', '_reverse']) {
        put(`lstm.weight_ih_l0${way}`, 16, hidden);
        put(`lstm.weight_hh_l0${way}`, 16, 4);
        put(`lstm.bias_ih_l0${way}`, 16);
        put(`lstm.bias_hh_l0${way}`, 16);
      }
      put('linear.weight', 6, 8);
      put('linear.bias', 6);
      for (const [at, { out, into }] of keWeights(which, model.decoder).entries()) {
        const all = 2 * (out + into) + 1;
        put(`cond.${at}.0.weight_v`, 5, 6);
        put(`cond.${at}.0.weight_g`, 5, 1);
        put(`cond.${at}.0.bias`, 5);
        put(`cond.${at}.1.weight_v`, all, 5);
        put(`cond.${at}.1.weight_g`, all, 1);
        put(`cond.${at}.1.bias`, all);
        weights
          .get(`hyper.cond.${at}.1.bias`)!
          .data.fill(0)
          .fill(-0.2 * out, 0, into);
      }
      return new Ke(model, which, weights, 'the test');
    },
  };
}

async function withEditor(
  folder: string,
  kind: Kind,
  use: (model: VisionLanguageModel, editor: WeightEditor) => Promise<void>,
) {
  const { backbone } = await openCheckpoint(fixture(`checkpoints/${folder}`));
  const model = await VisionLanguageModel.open(fixture(`checkpoints/${folder}`), {
    providers: ['cpu'],
    threads: 1,
    ...kind.needs(backbone),
  });
  const editor = kind.open(model);
  try {
    await use(model, editor);
  } finally {
    await editor.dispose();
    await model.dispose();
  }
}

async function requestOn(model: VisionLanguageModel, image: string, prompt: string, target: string) {
  const file = await readFile(fixture(`images/${image}.png`));
  return { visual: await model.visualEmbeddings(await model.pixelsOf(file)), prompt, target };
}

type Request = Awaited<ReturnType<typeof requestOn>>;

/** Logits of the rows that predict a request's target, and its mean negative log likelihood. */
async function answer(model: VisionLanguageModel, request: Request, changes?: WeightChanges) {
  const { input, targetIds } = await teacherForced(model, request);
  const rows = targetIds.map((_, place) => input.lastPromptRow + place);
  const prefill = await model.prefill(input);
  const logits = (await floatsOf((await model.finish(prefill, rows, undefined, changes)).logits)).slice();
  const width = logits.length / rows.length;
  const nll = targetIds.map((id, place) => {
    const row = logits.subarray(place * width, (place + 1) * width);
    return Math.log(row.reduce((sum, value) => sum + Math.exp(value), 0)) - row[id]!;
  });
  return { logits, nll: nll.reduce((a, b) => a + b) / nll.length };
}

const cases = Object.entries(kinds).flatMap(([kind, { backbones }]) =>
  backbones.map((folder) => [kind, folder] as const),
);

test.each(cases)(
  '%s on %s: the target’s likelihood moves as it is meant to, and the edit comes back from bytes',
  async (kind, folder) => {
    await withEditor(folder, kinds[kind]!, async (model, editor) => {
      const request = await requestOn(model, 'a', 'What is the animal on the left?', 'a small cat');
      const before = await answer(model, request);
      const state = await editor.make(model, request);
      const { weights } = editor.effect([state]);
      const after = await answer(model, request, weights);
      if (kinds[kind]!.meantForTrained) expect(Math.abs(after.nll - before.nll)).toBeGreaterThan(0.05);
      else expect(after.nll).toBeLessThan(before.nll - 0.05);
      const bytes = editor.encode(state);
      expect(editor.decode(bytes)).toEqual(state);
      const again = await answer(model, request, editor.effect([editor.decode(bytes)]).weights);
      expect(largestDifference(again.logits, after.logits)).toBe(0);
      expect(largestDifference((await answer(model, request)).logits, before.logits)).toBe(0);
    });
  },
);

test.each(Object.keys(kinds))('%s: edits act together, and retire in any order', async (kind) => {
  await withEditor('llava_tiny', kinds[kind]!, async (model, editor) => {
    const one = await requestOn(model, 'a', 'What is the animal on the left?', 'a small cat');
    const other = await requestOn(model, 'b', 'What color are the flowers?', 'pink');
    const [first, second] = [await editor.make(model, one), await editor.make(model, other)];
    const under = async (...states: WeightChanges[]) =>
      (await answer(model, one, editor.effect(states).weights)).logits;
    const [neither, both] = [await under(), await under(first, second)];
    const [onlyFirst, onlySecond] = [await under(first), await under(second)];
    expect(largestDifference(both, onlyFirst)).toBeGreaterThan(1e-3);
    expect(largestDifference(both, onlySecond)).toBeGreaterThan(1e-3);
    expect(largestDifference(await under(second, first), both)).toBeLessThan(1e-4);
    // Each is gone as if it had never been, whichever goes first.
    expect(largestDifference(await under(second), onlySecond)).toBe(0);
    expect(largestDifference(await under(), neither)).toBe(0);
    expect(largestDifference(await under(first), onlyFirst)).toBe(0);
    expect(largestDifference((await answer(model, one)).logits, neither)).toBe(0);
  });
});

test('changes add up: ranks stand beside one another as long as they are fewer than the whole matrix', async () => {
  await withEditor('llava_tiny', kinds['ROME']!, async (model, editor) => {
    const name = editor.changeable[0]!;
    const [out, into] = model.decoder.tensors().get(`${name}.weight`) as [number, number];
    const random = (size: number, seed: number) =>
      Float32Array.from({ length: size }, (_, i) => Math.sin(seed + i * 12.9898));
    const rankOne = (seed: number): LinearChange => ({
      rank: 1,
      right: random(into, seed),
      left: random(out, seed + 5),
    });
    const sum = (count: number) => {
      const states = Array.from({ length: count }, (_, seed) => new Map([[name, rankOne(seed)]]));
      return editor.effect(states).weights!.get(name)!;
    };
    expect(sum(3)).toMatchObject({ rank: 3 });
    const wanted = [0, 1, 2].map((seed) => matrixOf(rankOne(seed)).matrix);
    const matrix = matrixOf(sum(3) as LinearChange).matrix;
    expect(
      largestDifference(
        matrix,
        wanted[0]!.map((x, i) => x + wanted[1]![i]! + wanted[2]![i]!),
      ),
    ).toBeLessThan(1e-5);
    expect(sum(out + 1)).toMatchObject({ out });
  });
});

test('what is no edit of this model is damaged', async () => {
  await withEditor('llava_tiny', kinds['FT-L, whole layer']!, async (model, editor) => {
    const name = editor.changeable.find((each) => each.endsWith('.out') || each.endsWith('o_proj'))!;
    const [out, into] = model.decoder.tensors().get(`${name}.weight`) as [number, number];
    const refused = (changes: WeightChanges) =>
      expect(() => editor.decode(encodeChanges(changes))).toThrow(
        expect.objectContaining({ code: 'damaged' }),
      );
    const matrix = (rows: number, columns: number) => ({
      out: rows,
      matrix: new Float32Array(rows * columns),
    });
    expect(editor.decode(encodeChanges(new Map([[name, matrix(out, into)]])))).toEqual(
      new Map([[name, matrix(out, into)]]),
    );
    refused(new Map([[name, matrix(out, into + 1)]]));
    refused(new Map([[name, { out, matrix: new Float32Array(out * into).fill(Number.NaN) }]]));
    const rank = Math.min(out, into) + 1;
    refused(
      new Map([[name, { rank, right: new Float32Array(into * rank), left: new Float32Array(out * rank) }]]),
    );
    const elsewhere = model.decoder.mlp(0).out;
    const [wide, narrow] = model.decoder.tensors().get(`${elsewhere}.weight`) as [number, number];
    refused(new Map([[elsewhere, matrix(wide, narrow)]]));
    refused(new Map());
    const mlp = model.decoder.mlp(5);
    const neurons = (count: number) => ({
      count,
      keys: mlp.into.map(() => ({ weight: new Float32Array(count * 64), bias: new Float32Array(count) })),
      values: new Float32Array(count * 64),
    });
    refused(new Map([[mlp.name, neurons(1)]]));
    const parts = { shapes: model.decoder.tensors(), mlps: new Map([[mlp.name, mlp]]), hidden: 64 };
    const two = new Map([[mlp.name, neurons(2)]]);
    expect(decodeChanges(encodeChanges(two), [mlp.name], parts)).toEqual(two);
    expect(() =>
      decodeChanges(encodeChanges(new Map([[mlp.name, neurons(5000)]])), [mlp.name], parts),
    ).toThrow(/5000 neurons/);
    expect(() => editor.decode(new Uint8Array(3))).toThrow(expect.objectContaining({ code: 'damaged' }));
  });
});

test('what is held a second time to make an edit is refused where it does not fit, before it is loaded', async () => {
  const graphOf = (dtype: 'float16' | 'float32') => (graph: Graph) => {
    const bytes = 64 * 64 * (dtype === 'float16' ? 2 : 4);
    const weight = graph.weight('w', dtype, [64, 64], { path: '/nowhere', offset: 0, bytes });
    graph.output('y', f.matmul(graph.input('x', 'float32', [1, 64]), f.toFloat32(weight)));
  };
  const free = vi.spyOn(process, 'availableMemory').mockReturnValue(64 * 64 * 4 - 1);
  try {
    const sessions = new Sessions({ providers: ['cpu'] });
    expect(() => sessions.get('halves', graphOf('float16'))).toThrow(
      expect.objectContaining({ code: 'conflict', message: expect.stringMatching(/held a second time/) }),
    );
    // in F32 the file itself is used
    await expect(sessions.get('mapped', graphOf('float32'))).rejects.toThrow(/provider/);
    free.mockReturnValue(64 * 64 * 4);
    await expect(sessions.get('halves', graphOf('float16'))).rejects.toThrow(/provider/);
  } finally {
    free.mockRestore();
  }
});
