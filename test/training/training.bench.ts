/**
 * @file Steps of training an editor (loss, gradients, Adam) beside the same in PyTorch on the demo model, one thread each, in turns:
 * `npm run bench -- training [python, default python3] [editor, all when none is named]`. Needs PyTorch (Debian: apt-get install python3-torch).
 *
 * VisEdit and DualEdit adapt rows, MEND and KE change weights by an edit, SERAC and LTE tune the whole decoder.
 * Both sides are fed the same; their first losses must agree. Told is the processor's time, which other work on the machine disturbs little.
 */
import { type ChildProcess, fork, spawn } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import {
  cutsOf,
  dualEditLosses,
  dualName,
  dualParts,
} from '../../electron/editors/dualedit/trainDualEdit.ts';
import { Ke, keWeights } from '../../electron/editors/ke/ke.ts';
import { initialHyperNetwork, KeLosses } from '../../electron/editors/ke/trainKe.ts';
import { updatedInformation } from '../../electron/editors/lte/lte.ts';
import { Mend, mendModules } from '../../electron/editors/mend/mend.ts';
import { networkName } from '../../electron/editors/mend/network.ts';
import { MendLosses } from '../../electron/editors/mend/trainMend.ts';
import { ClassifierLoss, initialClassifier } from '../../electron/editors/serac/trainSerac.ts';
import { layBatch, seeEdits } from '../../electron/editors/training/batch.ts';
import { FrozenInputs, plainly } from '../../electron/editors/training/changedAnswers.ts';
import type { TrainingEdit } from '../../electron/editors/training/edits.ts';
import { FrozenModel } from '../../electron/editors/training/frozenModel.ts';
import { decoderLinears, initialLowRank } from '../../electron/editors/training/lowRank.ts';
import { ShownEdits } from '../../electron/editors/training/shownEdits.ts';
import { initialAdapter } from '../../electron/editors/visedit/initialAdapter.ts';
import { publishedWeights, totalLoss, visEditLosses } from '../../electron/editors/visedit/losses.ts';
import { cutBelow, mlpParts } from '../../electron/editors/weightEditor.ts';
import { type WritableTensor, writeSafetensors } from '../../electron/files/safetensors.ts';
import { resourcesFolder } from '../../electron/frontends/places.ts';
import { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { weightsAsInputs } from '../../electron/models/weights.ts';
import { Graph } from '../../electron/tensor/graph.ts';
import { float32, type Value } from '../../electron/tensor/session.ts';
import { Adam, adamDefaults } from '../../electron/training/optimizer.ts';
import { type Evaluation, graphEvaluator, parameterFeeds } from '../../electron/training/trainer.ts';

const ROUNDS = 5;
const opening = { providers: ['cpu'], threads: 1, decoderLater: true } as const;
const model = join(resourcesFolder(), 'demo-model');
const steps = {
  VisEdit: visEditStep,
  DualEdit: dualEditStep,
  MEND: mendStep,
  KE: keStep,
  SERAC: seracStep,
  LTE: lteStep,
};
const [, python = 'python3', editor, fed] = process.argv.slice(2);
if (fed) await ours(editor as keyof typeof steps, fed);
else await compare();

async function compare(): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'emend-training-steps-'));
  try {
    for (const name of editor === undefined ? Object.keys(steps) : [editor])
      await inTurns(name, join(folder, name));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function inTurns(name: string, file: string): Promise<void> {
  const env = { ...process.env, OMP_NUM_THREADS: '1', OPENBLAS_NUM_THREADS: '1' };
  const options = { execArgv: [], stdio: ['pipe', 'pipe', 'inherit', 'ipc'] as const };
  const own = timer(fork(process.argv[1]!, ['training', python, name, file], options as never));
  await own.ready;
  const script = join(import.meta.dirname, 'pytorchStep.py');
  const theirs = timer(
    spawn(python, [script, model, name, file], { env, stdio: ['pipe', 'pipe', 'inherit'] }),
  );
  try {
    await theirs.ready;
    const [first, other] = [await own.step(), await theirs.step()];
    if (!(Math.abs(first.loss - other.loss) <= 2e-4 * Math.abs(first.loss)))
      throw new Error(`${name}: the losses are ${first.loss} and ${other.loss}: not the same step.`);
    const times = { own: [] as number[], theirs: [] as number[] };
    for (let round = 0; round < ROUNDS; round++) {
      times.own.push((await own.step()).seconds);
      times.theirs.push((await theirs.step()).seconds);
    }
    const [a, b] = [Math.min(...times.own), Math.min(...times.theirs)];
    console.log(
      `  ${name.padEnd(8)} ${(1000 * a).toFixed(0)} ms, PyTorch ${(1000 * b).toFixed(0)} ms: ${(b / a).toFixed(2)} times as fast`,
    );
  } finally {
    own.end();
    theirs.end();
  }
}

/** A process that makes a step for each line, and says the processor's time for it and its loss. */
function timer(child: ChildProcess) {
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  const next = async (): Promise<string> => {
    const { value, done } = await lines.next();
    if (done) throw new Error('A process ended before it had answered. Is PyTorch there?');
    return value === 'ready' || /^[\d.e-]+ [\d.e-]+$/.test(value) ? value : next();
  };
  return {
    ready: next(),
    step: async () => {
      child.stdin!.write('step\n');
      const [seconds, loss] = (await next()).split(' ').map(Number) as [number, number];
      return { seconds, loss };
    },
    end: () => child.kill(),
  };
}

/** Two edits of sample pictures. */
async function edits(opened: VisionLanguageModel): Promise<TrainingEdit[]> {
  const pixels = async (name: string) =>
    opened.pixelsOf(await readFile(join(resourcesFolder(), 'samples', `${name}.jpg`)));
  const of = async (own: string, rephrased: string, target: string): Promise<TrainingEdit> => ({
    ...{ prompt: 'What is this?', rephrase: 'What does the picture show?', target },
    pixels: await pixels(own),
    rephrasePixels: await pixels(rephrased),
    localityPixels: await pixels('tram'),
    locality: { prompt: 'What vehicle is this?', answer: 'tram' },
    textLocality: { prompt: 'What colour is a lime?', answer: 'green' },
  });
  return [await of('lime', 'tangerine', 'pear'), await of('leopard', 'dromedary', 'cat')];
}

async function ours(name: keyof typeof steps, file: string): Promise<void> {
  const step = await steps[name](file);
  console.log('ready');
  for await (const _ of createInterface({ input: process.stdin })) {
    const begun = process.cpuUsage();
    const loss = await step();
    const { user, system } = process.cpuUsage(begun);
    console.log(`${(user + system) / 1e6} ${loss}`);
  }
}

/** Writes what a step is fed, `p:` before the names of parameters. */
async function write(
  file: string,
  feeds: Readonly<Record<string, Value>>,
  parameters: ReadonlyMap<string, { readonly shape: readonly number[]; readonly data: Float32Array }>,
  about: Record<string, string> = {},
): Promise<void> {
  const tensors = new Map<string, WritableTensor>();
  for (const [name, { data, dims }] of Object.entries(feeds)) {
    if (data instanceof BigInt64Array) tensors.set(name, { dtype: 'I64', shape: dims, data });
    else tensors.set(name, { dtype: 'F32', shape: dims, data: data as Float32Array });
  }
  for (const [name, { shape, data }] of parameters) tensors.set(`p:${name}`, { dtype: 'F32', shape, data });
  await writeSafetensors(file, tensors, about);
}

/** In the published form, after layer 0. */
async function visEditStep(file: string): Promise<() => Promise<number>> {
  const layer = 0;
  const opened = await VisionLanguageModel.open(model, { ...opening, cuts: [layer] });
  const { decoder } = opened;
  const shape = {
    ...{ hidden: decoder.hidden, middle: 1024, influenceMiddle: 1024, heads: 8, influenceMapper: true },
    attention: 'published' as const,
  };
  const weights = initialAdapter(shape, 1);
  let drawn = 1;
  const random = () => {
    drawn = (drawn * 16807) % 2147483647;
    return drawn / 2147483647;
  };
  const batch = await layBatch(opened, await edits(opened), {
    ...{ endToken: true, rows: null, sampled: 24, raised: 'both', random },
  });
  const frozen = await FrozenModel.compile(opened, [layer]);
  const below = await frozen.run(batch);
  await frozen.dispose();
  const { edits: count, sampled } = batch.sizes;
  const attribution = float32(new Float32Array(count * sampled).fill(1 / sampled), [count, sampled]);
  const feeds = { ...batch.feeds, ...below, attribution };
  await write(file, feeds, weights, { layer: String(layer), middle: '1024', heads: '8' });
  const graph = new Graph();
  const shapes = new Map([...weights].map(([name, value]) => [name, value.shape]));
  const fed = weightsAsInputs(graph, shapes);
  const terms = visEditLosses(graph, batch.sizes, shape, decoder, layer, decoder.weightsOf(graph), fed);
  const loss = totalLoss(terms, publishedWeights);
  const evaluator = await graphEvaluator(graph, loss, terms, [...weights.keys()], decoder.session);
  return stepOf(weights, () => evaluator.evaluate({ ...feeds, ...parameterFeeds(weights) }));
}

/** In the published form, text rows after layer 2 and visual rows after layer 0. */
async function dualEditStep(file: string): Promise<() => Promise<number>> {
  const layers = { text: 2, visual: 0 };
  const opened = await VisionLanguageModel.open(model, { ...opening, cuts: cutsOf(layers) });
  const { decoder } = opened;
  const shape = {
    ...{ hidden: decoder.hidden, middle: 1024, influenceMiddle: 1024, heads: 8, influenceMapper: false },
    attention: 'published' as const,
  };
  const weights = new Map(
    dualParts.flatMap((part, place) =>
      [...initialAdapter(shape, 1 + place)].map(([name, weight]) => [dualName(part, name), weight] as const),
    ),
  );
  const batch = await layBatch(opened, await edits(opened), { ...plainly, endToken: true });
  const frozen = await FrozenModel.compile(opened, cutsOf(layers));
  const feeds = { ...batch.feeds, ...(await frozen.run(batch)) };
  await frozen.dispose();
  await write(file, feeds, weights, { middle: '1024', heads: '8', text: '2', visual: '0' });
  const graph = new Graph();
  const fed = weightsAsInputs(graph, new Map([...weights].map(([name, value]) => [name, value.shape])));
  const shapes = { text: shape, visual: shape };
  const terms = dualEditLosses(graph, batch.sizes, shapes, decoder, layers, decoder.weightsOf(graph), fed);
  const loss = totalLoss(terms, publishedWeights);
  const evaluator = await graphEvaluator(graph, loss, terms, [...weights.keys()], decoder.session);
  return stepOf(weights, () => evaluator.evaluate({ ...feeds, ...parameterFeeds(weights) }));
}

async function mendStep(file: string): Promise<() => Promise<number>> {
  const which = { layers: [5, 6, 7], parts: [...mlpParts], rows: 'mean' as const };
  const plain = await VisionLanguageModel.open(model, opening);
  const modules = mendModules(which, plain.decoder);
  await plain.dispose();
  const changeable = modules.map((module) => module.name);
  const opened = await VisionLanguageModel.open(model, { ...opening, cuts: cutBelow(5), changeable });
  const weights = mendWeights(modules);
  const mend = new Mend(opened, which, weights, 'The measurement');
  const losses = new MendLosses(mend, weights, {
    editWeight: 0.1,
    generalityWeight: 0.1,
    localityWeight: 0.1,
  });
  const frozen = await FrozenInputs.compile({ model: opened, vision: opened }, mend.from, true);
  const [edit] = await edits(opened);
  const inputs = await frozen.of(edit!);
  const { prompt, target } = edit!;
  const gradient = await mend.gradient({ visual: inputs.visual, prompt, target });
  losses.observe(gradient);
  const statistics = [...weights].filter(([name]) => /_(?:mean|std)$/.test(name));
  const values = statistics.map(([name, { shape, data }]) => [
    name,
    { data, dims: shape } as unknown as Value,
  ]);
  await write(
    file,
    { ...inputs.feeds, ...mend.rowFeeds(gradient.modules), ...Object.fromEntries(values) },
    losses.parameters,
    {
      from: String(mend.from),
      networkLayers: '2',
      modules: JSON.stringify(
        modules.map((module, at) => [module.name, networkName(module), module.mode, at]),
      ),
    },
  );
  return stepOf(losses.parameters, () => losses.evaluate(gradient, inputs));
}

/** Networks of rank 128 with small numbers. */
function mendWeights(modules: ReturnType<typeof mendModules>) {
  const weights = new Map<string, { shape: number[]; data: Float32Array }>();
  const put = (name: string, shape: number[], value: (index: number) => number) => {
    const length = shape.reduce((a, b) => a * b, 1);
    weights.set(name, { shape, data: Float32Array.from({ length }, (_, index) => value(index)) });
  };
  for (const module of modules) {
    const { into, out } = module;
    const at = networkName(module);
    const [width, modes] = [into + out, modules.filter((other) => networkName(other) === at).length];
    for (let layer = 0; layer < 2; layer++) {
      const own = `${at}.mlp.layers.${layer}`;
      put(`${own}.u`, [width, 128], (index) => 1e-3 * Math.sin(index));
      put(`${own}.v`, [128, width], (index) => 1e-1 * Math.cos(3 * index));
      put(`${own}.bias`, [width], () => 0);
      put(`${own}.mode_scale.weight`, [modes, width], () => 1);
      put(`${own}.mode_shift.weight`, [modes, width], () => 0);
    }
    put(`${at}.k`, [1], () => 0);
    for (const [of, size] of [
      ['u', into],
      ['v', out],
    ] as const)
      for (const part of ['mean', 's', 'std']) put(`${at}.${of}_${part}`, [size], () => 0);
  }
  put('edit_lrs', [modules.length], () => -1e-3);
  return weights;
}

/** With the published widths; the multiplier is 1. */
async function keStep(file: string): Promise<() => Promise<number>> {
  const which = { layers: [7, 6], parts: ['down' as const], maxScale: 1 };
  const plain = await VisionLanguageModel.open(model, opening);
  const edited = keWeights(which, plain.decoder);
  await plain.dispose();
  const changeable = edited.map(({ name }) => name);
  const opened = await VisionLanguageModel.open(model, { ...opening, cuts: cutBelow(6), changeable });
  const weights = initialHyperNetwork(edited, opened.hidden, { lstmWidth: 128, conditionWidth: 1024 }, 1);
  const ke = new Ke(opened, which, weights, 'The measurement');
  const told = { smoothing: 0.1, margin: 1e-3, generalityWeight: 1 };
  const losses = new KeLosses(ke, [...weights.keys()], told);
  const frozen = await FrozenInputs.compile({ model: opened, vision: opened }, ke.from, true);
  const [edit] = await edits(opened);
  const inputs = await frozen.of(edit!);
  const { prompt, target } = edit!;
  const read = await ke.read({ visual: inputs.visual, prompt, target }, 'a lime');
  const gradients = read.gradients.map((data, at): [string, Value] => {
    const { out, into } = edited[at]!;
    return [`edit gradient.${at}`, float32(data, [out, into])];
  });
  const text = await opened.tokenEmbeddings(read.ids);
  const feeds = {
    ...inputs.feeds,
    ...Object.fromEntries(gradients),
    text: float32(text, [read.ids.length, opened.hidden]),
  };
  const about = {
    from: String(ke.from),
    names: JSON.stringify(changeable),
    smoothing: '0.1',
    margin: '1e-3',
  };
  await write(file, feeds, weights, about);
  return stepOf(weights, () => losses.evaluate(read, inputs, 1));
}

/** What lays the batch out is in its time and not in PyTorch's. */
async function seracStep(file: string): Promise<() => Promise<number>> {
  const opened = await VisionLanguageModel.open(model, opening);
  const linears = decoderLinears(opened.decoder);
  const change = initialLowRank(linears, 16, 1);
  const classifier = initialClassifier(opened.hidden, { width: 1024, threshold: 10 }, 2);
  const batch = await edits(opened);
  const seen = await seeEdits(opened, batch);
  const before: Parameters<typeof ShownEdits.create>[1]['before'] = ({ prompt, target }, visual) => [
    { prompt, visual, answer: target },
  ];
  const shown = await layBatch(opened, batch, { ...plainly, endToken: true, seen, before });
  const told = { editWeight: 1, generalityWeight: 1, localityWeight: 0 };
  const counterfactual = await ShownEdits.create(opened, {
    ...{ ...told, before, linears, weights: change, endToken: true },
  });
  const scope = new ClassifierLoss(opened, classifier, 10);
  const named = (kind: string, feeds: Readonly<Record<string, Value>>) =>
    Object.entries(feeds).map(([name, value]) => [`${kind}.${name}`, value]);
  const compared = await scope.feeds(batch, seen);
  const feeds = Object.fromEntries([...named('shown', shown.feeds), ...named('scope', compared)]);
  const weights = new Map([...change, ...classifier]);
  await write(file, feeds, weights, { threshold: '10' });
  return stepOf(weights, async () => {
    const said = await counterfactual.evaluate(batch, seen);
    const { loss, gradients } = await scope.evaluate(batch, seen);
    return {
      ...{ loss: said.loss + loss, terms: {} },
      gradients: new Map([...said.gradients, ...gradients]),
    };
  });
}

async function lteStep(file: string): Promise<() => Promise<number>> {
  const opened = await VisionLanguageModel.open(model, opening);
  const linears = decoderLinears(opened.decoder);
  const weights = initialLowRank(linears, 16, 1);
  const batch = await edits(opened);
  const before: Parameters<typeof ShownEdits.create>[1]['before'] = ({ prompt, target }, visual) => [
    updatedInformation({ prompt, target, visual }),
  ];
  const common = { ...plainly, endToken: true, seen: await seeEdits(opened, batch), textLocality: true };
  const frozen = await FrozenModel.compile(opened, []);
  const [shown, plain] = [
    await layBatch(opened, batch, { ...common, before }),
    await layBatch(opened, batch, { ...common, localityOnly: true }),
  ];
  const unedited = (await frozen.run(plain))['before']!;
  await frozen.dispose();
  const named = (kind: string, feeds: Readonly<Record<string, Value>>) =>
    Object.entries({ ...feeds, before: unedited }).map(([name, value]) => [`${kind}.${name}`, value]);
  const feeds = Object.fromEntries([...named('shown', shown.feeds), ...named('plain', plain.feeds)]);
  await write(file, feeds, weights);
  const one = { editWeight: 1, generalityWeight: 1, localityWeight: 1 };
  const training = await ShownEdits.create(opened, { ...one, before, linears, weights, endToken: true });
  return stepOf(weights, async () => training.evaluate(batch, await seeEdits(opened, batch)));
}

/** A step: loss and gradients, then Adam. What lays the batch out, and what the frozen model says of it, is in LTE's time and not in PyTorch's. */
function stepOf(
  parameters: ConstructorParameters<typeof Adam>[0],
  evaluate: () => Promise<Evaluation>,
): () => Promise<number> {
  const adam = new Adam(parameters, adamDefaults(1e-4));
  return async () => {
    const { loss, gradients } = await evaluate();
    adam.update(gradients);
    return loss;
  };
}
