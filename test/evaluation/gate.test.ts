/** @file What a gate compares: cosines against those of reference hidden states and of rows taken by hand, and how a threshold tells them apart. */
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type EditingSet, readEditingSet } from '../../electron/evaluation/editingSet.ts';
import { gateReport, writeGateReport } from '../../electron/evaluation/gateReport.ts';
import {
  type GateFinding,
  type GateKind,
  type GateRepresentation,
  gateSimilarities,
  separate,
} from '../../electron/evaluation/gateSimilarity.ts';
import { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { floatsOf } from '../../electron/tensor/session.ts';
import { fixture } from '../support/fixtures.ts';
import { referenceJson, referenceTensors } from '../support/referenceSamples.ts';

type Sample = Record<'text_prompt' | 'text_full' | 'image', string>;
interface Vector {
  readonly [place: number]: number;
  readonly length: number;
}
const WIDTH = 64;
const LAYERS = [1, 2, 3];
let base: string;
let model: VisionLanguageModel;
let set: EditingSet;
let found: GateFinding[];
let samples: Record<string, Sample>;

const promptOf = ({ text_prompt }: Sample) => text_prompt.replace('<image>\n', '');
const targetOf = ({ text_prompt, text_full }: Sample) => text_full.slice(text_prompt.length + 1);

beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), 'emend-gate-'));
  samples = await referenceJson('forward.json');
  const { edit, text_rephrase, image_rephrase, image_loc, text_loc } = samples as Record<string, Sample>;
  const record = {
    ...{ src: promptOf(edit!), rephrase: promptOf(text_rephrase!), pred: '', alt: targetOf(edit!) },
    ...{ image: edit!.image, image_rephrase: image_rephrase!.image },
    ...{ loc: promptOf(text_loc!), loc_ans: targetOf(text_loc!) },
    ...{ m_loc: image_loc!.image, m_loc_q: promptOf(image_loc!), m_loc_a: targetOf(image_loc!) },
  };
  await writeFile(join(base, 'edits.json'), JSON.stringify([record]));
  set = await readEditingSet(join(base, 'edits.json'), { images: fixture('images') });
  model = await VisionLanguageModel.open(fixture('checkpoints/llava_tiny'), {
    providers: ['cpu'],
    cuts: LAYERS,
  });
  found = await gateSimilarities(model, set, { suffix: '', textSuffix: '' });
});
afterAll(async () => {
  await model?.dispose();
  await rm(base, { recursive: true, force: true });
});

function of(layer: number, representation: GateRepresentation, kind: GateKind): number {
  const finding = found.find((one) => one.layer === layer && one.representation === representation)!;
  return finding.similarities.get(kind)![0]!;
}

/** Written out once more: numbers that are tested do not come of the code that makes them. */
function cosine(a: Vector, b: Vector): number {
  const sum = (x: Vector, y: Vector) => {
    let all = 0;
    for (let i = 0; i < x.length; i++) all += x[i]! * y[i]!;
    return all;
  };
  return sum(a, b) / Math.sqrt(sum(a, a)) / Math.sqrt(sum(b, b));
}
const meanRow = (states: Float32Array, from: number, to: number): Vector =>
  Array.from({ length: WIDTH }, (_, column) => {
    let sum = 0;
    for (let row = from; row < to; row++) sum += states[row * WIDTH + column]!;
    return sum / (to - from);
  });

test('cosines are those of the reference’s hidden states', async () => {
  const forward = await referenceTensors('forward.safetensors');
  const statesOf = async (sample: string, rows: number, layer: number) =>
    (await forward(`${sample}.hidden_states`)).subarray(
      (layer + 1) * rows * WIDTH,
      (layer + 2) * rows * WIDTH,
    );
  for (const layer of LAYERS) {
    // 16 visual rows behind the first token; the last prompt tokens are rows 29 and 16.
    const [edit, text] = [await statesOf('edit', 30, layer), await statesOf('text_loc', 17, layer)];
    expect(of(layer, 'textual', 'text-locality')).toBeCloseTo(
      cosine(meanRow(edit, 17, 29), meanRow(text, 1, 16)),
      4,
    );
    expect(of(layer, 'lastPromptToken', 'text-locality')).toBeCloseTo(
      cosine(meanRow(edit, 29, 30), meanRow(text, 16, 17)),
      4,
    );
  }
  // Signals of the edit with its target at DualEdit's layers, and the other inputs' visual rows at VisEdit's.
  const { text_layer } = await referenceJson<{ text_layer: number }>('dualedit.json');
  expect(text_layer).toBe(LAYERS[0]);
  const signal = await (await referenceTensors('dualedit.safetensors'))('edit_signal_text');
  const asked = await statesOf('text_loc', 17, text_layer);
  expect(of(text_layer, 'lastTokenAsked', 'text-locality')).toBeCloseTo(
    cosine(meanRow(signal, 32, 33), meanRow(asked, 16, 17)),
    4,
  );
  const vead = await referenceTensors('vead.safetensors');
  const { edit_layer: layer } = await referenceJson<{ edit_layer: number }>('vead.json');
  expect(LAYERS).toContain(layer);
  const seen = async (sample: string) => meanRow(await vead(`${sample}.visual_before`), 0, 16);
  for (const [kind, sample] of [
    ['image-generality', 'image_rephrase'],
    ['image-locality', 'image_loc'],
  ] as const)
    expect(of(layer, 'visual', kind)).toBeCloseTo(cosine(await seen('edit'), await seen(sample)), 4);
  // The same picture in front of other words, and no picture at all.
  expect(of(layer, 'visual', 'text-generality')).toBeCloseTo(1, 6);
  expect(found[0]!.similarities.has('text-locality')).toBe(false);
});

test('the published position is the target’s last token on both sides; the asked one is no target’s', async () => {
  const states = async (sample: Sample, target: string | null, layer: number) => {
    const visual = sample.image
      ? await model.visualEmbeddings(await model.pixelsOf(await readFile(fixture(`images/${sample.image}`))))
      : null;
    const question = { prompt: promptOf(sample), image: visual !== null };
    const encoded =
      target === null ? model.prompts.encodePrompt(question) : model.prompts.encodeTarget(question, target);
    const prefill = await model.prefill(await model.lay(encoded, visual));
    const hidden = await floatsOf(await model.unedited(prefill, layer));
    const last = prefill.input.rows;
    return meanRow(hidden, last - 1, last);
  };
  const edit = samples['edit']!;
  for (const layer of LAYERS) {
    const own = await states(edit, targetOf(edit), layer);
    const bare = await states(edit, null, layer);
    for (const [kind, name] of [
      ['text-generality', 'text_rephrase'],
      ['image-generality', 'image_rephrase'],
      ['text-locality', 'text_loc'],
      ['image-locality', 'image_loc'],
    ] as const) {
      const sample = samples[name]!;
      const prompt = await states(sample, null, layer);
      const full = await states(sample, targetOf(sample), layer);
      expect(of(layer, 'lastToken', kind), kind).toBeCloseTo(cosine(own, full), 4);
      expect(of(layer, 'lastTokenAsked', kind), kind).toBeCloseTo(cosine(own, prompt), 4);
      expect(of(layer, 'lastPromptToken', kind), kind).toBeCloseTo(cosine(bare, prompt), 4);
    }
  }
});

test('a threshold is told with its shares, balanced accuracy and area under the curve', () => {
  // Pairs in which the first is larger: 3 for 0.9, 2.5 for 0.5 (one is equal), 3 for 0.8; of 9.
  const told = separate([0.9, 0.5, 0.8], [0.5, 0.1, 0.4])!;
  expect(told.auc).toBeCloseTo(8.5 / 9, 12);
  expect(told.threshold).toBeGreaterThan(0.4);
  expect(told.threshold).toBeLessThan(0.8);
  expect(told.balancedAccuracy).toBeCloseTo(5 / 6, 12);
  expect(separate([0.3, 0.3], [0.3])!.auc).toBe(0.5);
  expect(separate([0.1], [0.9])!.auc).toBe(0);
  expect(separate([], [0.5])).toBeNull();
});

test('the report has every input in its histograms, and its page draws them without scripts', async () => {
  const values = new Map<GateKind, number[]>([
    ['text-generality', [0.99, 1, 0.7]],
    ['image-locality', [-0.2, 0.71]],
  ]);
  const separation = { threshold: 0.705, acts: 2 / 3, staysOut: 0.5, balancedAccuracy: 7 / 12, auc: 5 / 6 };
  const finding = { layer: 4, representation: 'visual', similarities: values, separation } as const;
  const report = gateReport([finding], {
    emend: '1',
    model: { name: '<m>', fingerprint: 'f'.repeat(64) },
    data: { name: 'd', sha256: 'a'.repeat(64), edits: 3 },
    command: 'emend attribute gate',
  });
  const [told] = report.findings;
  expect(told!.histogram.from).toBeCloseTo(-0.2, 9);
  expect(told!.kinds['text-generality']).toMatchObject({ count: 3, letThrough: 0.66667, mean: 0.89667 });
  const bars = told!.kinds['text-generality']!.histogram;
  expect(bars.reduce((a, b) => a + b)).toBe(3);
  // 40 bars of 0.03: 1 and 0.99 are in the last, 0.7 at the start of the thirtieth.
  expect(bars.at(-1)).toBe(2);
  expect(told!.kinds['image-locality']!.histogram[0]).toBe(1);
  await mkdir(join(base, 'report'));
  await writeGateReport(join(base, 'report'), report);
  const html = await readFile(join(base, 'report', 'gate.html'), 'utf8');
  expect(html).not.toMatch(/<script|<m>/);
  expect(html.match(/<svg /g)).toHaveLength(1);
  const csv = (await readFile(join(base, 'report', 'gate.csv'), 'utf8')).trim().split('\n');
  expect(csv).toHaveLength(3);
  expect(csv[1]).toMatch(/^4,visual,0\.705,0\.58333,0\.83333,text-generality,3,0\.89667,/);
  expect(JSON.parse(await readFile(join(base, 'report', 'gate.json'), 'utf8'))).toEqual(report);
});
