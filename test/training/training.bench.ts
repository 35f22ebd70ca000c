/**
 * @file Steps of training an editor (loss, gradients, Adam) beside the same in PyTorch on the demo model, one thread each, in turns:
 * `npm run bench -- training [python, default python3]`. Needs PyTorch (Debian: apt-get install python3-torch).
 *
 * One for each way of training: VisEdit for what adapts rows, MEND for what changes weights by an edit, LTE for what tunes the whole decoder.
 * Both sides are fed the same; their first losses must agree. Told is the processor's time, which other work on the machine disturbs little.
 */
import { type ChildProcess, fork, spawn } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { updatedInformation } from '../../electron/editors/lte/lte.ts';
import { Mend, mendModules } from '../../electron/editors/mend/mend.ts';
import { networkName } from '../../electron/editors/mend/network.ts';
import { MendLosses } from '../../electron/editors/mend/trainMend.ts';
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
const steps = { VisEdit: visEditStep, MEND: mendStep, LTE: lteStep };
const [, python = 'python3', editor, fed] = process.argv.slice(2);
if (fed) await ours(editor as keyof typeof steps, fed);
else await compare();

async function compare(): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'emend-training-steps-'));
  try {
    for (const name of Object.keys(steps)) await inTurns(name, join(folder, name));
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
      `  ${name.padEnd(5)} ${(1000 * a).toFixed(0)} ms, PyTorch ${(1000 * b).toFixed(0)} ms: ${(b / a).toFixed(2)} times as fast`,
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
  const frozen = await FrozenInputs.compile(opened, mend.from, true);
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
  return stepOf(weights, () => training.evaluate(batch));
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
