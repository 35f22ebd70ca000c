/**
 * @file `npm run demo:train`: trains the demo model from nothing and writes it as a Hugging Face folder; with `--from FOLDER --stage N`
 * it goes on from a model with the stages from N on.
 * Seeded and resumable: state is saved as it goes, and a second start goes on where the first stopped.
 */
import { existsSync } from 'node:fs';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Worker } from 'node:worker_threads';
import { type WritableTensor, writeSafetensors } from '../files/safetensors.ts';
import type { AttentionInputs } from '../models/decoder.ts';
import type { LlavaConfig } from '../models/families/llava/config.ts';
import { llavaBackbone } from '../models/families/llava/llava.ts';
import { visualEmbeddings } from '../models/families/llava/vision.ts';
import { openCheckpoint } from '../models/open.ts';
import { embeddingName } from '../models/parts/rotaryDecoder.ts';
import { rotaryTables } from '../models/positions.ts';
import { type Weights as GraphWeights, weightsAsInputs } from '../models/weights.ts';
import * as f from '../tensor/functions.ts';
import { Graph, type Tensor } from '../tensor/graph.ts';
import { float32, int64, type Value } from '../tensor/session.ts';
import type { AdamOptions } from '../training/optimizer.ts';
import { Trainer } from '../training/trainer.ts';
import { COLUMNS, type DenseBatch, type LanguageBatch } from './batches.ts';
import type { BatchRequest, WorkerTask } from './batchWorker.ts';
import {
  BACKGROUND_WEIGHT,
  CENTRE_SURENESS,
  demoConfig,
  demoPreprocessor,
  GRID,
  type Looking,
  parsedDemoConfig,
  type Stage,
  sizes,
  stages,
} from './recipe.ts';
import { type TokenizerFiles, trainTokenizer, vocabularySize, writeTokenizer } from './tokenizer.ts';
import { TAUGHT_OBJECTS } from './world/objects.ts';
import { seededRandom } from './world/random.ts';
import { CANVAS, PLACES } from './world/scene.ts';

/**
 * The layer whose first head learns to look where a question's words point, and its others to look there in one column each:
 * that few of a kind lie in one column leaves little to tell apart. The layer before leaves room to read names of two words.
 */
const POINTING_LAYER = 1;
/** The layer whose first head learns to look, for the row that answers, at what it tells; those between bring there what the words found. */
const TELLING_LAYER = 4;
/** The layer whose input holds, in the row of a word that points at things, where all of them lie; the answer's row reads it there. */
const PLACING_LAYER = 3;

type Weights = Map<string, { shape: readonly number[]; data: Float32Array }>;

/** Values to start from: normal, scaled by the width they read from; norms 1, biases 0. */
function initialWeights(config: LlavaConfig, seed: number): Weights {
  const weights: Weights = new Map();
  for (const [name, shape] of llavaBackbone(config).tensors()) {
    const random = seededRandom(seed).split(name);
    const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
    const isNorm = /norm/.test(name);
    if (isNorm && name.endsWith('weight')) data.fill(1);
    else if (name.endsWith('position_embedding.weight')) placeWaves(data, shape[1]!);
    else if (!name.endsWith('bias')) {
      const into = shape.slice(1).reduce((a, b) => a * b, 1);
      // Layers that write to the residual stream start small, so that depth does not inflate it.
      const residual = /o_proj|out_proj|down_proj|fc2/.test(name) ? 0.4 : 1;
      const deviation =
        /embed|embedding/.test(name) && !name.includes('patch') ? 0.08 : (0.8 * residual) / Math.sqrt(into);
      for (let i = 0; i < data.length; i++) data[i] = random.gaussian() * deviation;
    }
    weights.set(name, { shape, data });
  }
  return weights;
}

/** Word embeddings of a training that goes on: rows of tokens that were there before, by token id. */
type KnownRows = ReadonlySet<number>;

/**
 * Takes the weights of a checkpoint, the word embeddings by what their tokens say, so that the tokenizer may have grown. Tokens it
 * does not have begin as their word in another case, where that has one, else as they are.
 * @returns the rows that came from the checkpoint
 */
async function takeOver(
  folder: string,
  weights: Weights,
  vocab: Readonly<Record<string, number>>,
): Promise<KnownRows> {
  const { weights: source } = await openCheckpoint(folder);
  const known = new Set<number>();
  for (const [name, { shape, data }] of weights) {
    const stored = await source.read(name);
    if (name !== embeddingName) {
      data.set(stored);
      continue;
    }
    const width = shape[1]!;
    const text = await readFile(join(folder, 'tokenizer.json'), 'utf8');
    const { model, added_tokens } = JSON.parse(text) as TokenizerFiles['tokenizer'];
    const before = new Map(Object.entries(model.vocab));
    for (const { id, content } of added_tokens) before.set(content, id);
    const row = (id: number) => stored.subarray(id * width, (id + 1) * width);
    const plain = (token: string) => token.replace('▁', '').toLowerCase();
    const alike = new Map([...before].map(([token, id]) => [plain(token), id]));
    for (const [token, id] of before) if (token === `▁${plain(token)}`) alike.set(plain(token), id);
    for (const [token, id] of Object.entries(vocab)) {
      const same = before.get(token);
      if (same !== undefined) known.add(id);
      const taken = same ?? alike.get(plain(token));
      if (taken !== undefined) data.set(row(taken), id * width);
    }
  }
  return known;
}

/** Waves over the grid, as ViTs without learnt positions have: where a patch lies is plain from the start. data [1 + patches, width] */
function placeWaves(data: Float32Array, width: number): void {
  const quarter = width / 4;
  for (let patch = 0; patch < GRID * GRID; patch++) {
    const along = [Math.floor(patch / GRID), patch % GRID];
    for (let i = 0; i < width; i++) {
      const angle = along[i < width / 2 ? 0 : 1]! * (Math.PI / GRID) * 2 ** ((3 * (i % quarter)) / quarter);
      data[(patch + 1) * width + i] =
        0.4 * (Math.floor(i / quarter) % 2 === 0 ? Math.sin(angle) : Math.cos(angle));
    }
  }
}

/** For each object (and the background) the mean of its name's token embeddings, as a matrix [objects + 1, vocabulary]. */
function nameMatrix(nameIds: readonly (readonly number[])[], vocabulary: number): Float32Array {
  const matrix = new Float32Array(nameIds.length * vocabulary);
  nameIds.forEach((ids, row) => {
    for (const id of ids) matrix[row * vocabulary + id]! += 1 / ids.length;
  });
  return matrix;
}

/** Shares of the patches in the naming loss; they add up to 1. [patches] */
function patchShares(labels: BigInt64Array): Float32Array {
  const shares = Float32Array.from(labels, (label) =>
    Number(label) === TAUGHT_OBJECTS.length ? BACKGROUND_WEIGHT : 1,
  );
  const sum = shares.reduce((a, b) => a + b, 0);
  return shares.map((share) => share / sum);
}

/** What a patch says of the middles of objects in it: none, or one. */
const MIDDLE_WORDS = ['zero', 'one'] as const;

/** What each patch should say, in MIDDLE_WORDS' shares. [patches, words] */
function middleShares(middles: Float32Array, looking: Looking): Float32Array {
  const sureness = looking === 'centres' ? CENTRE_SURENESS : 1;
  return Float32Array.from({ length: 2 * middles.length }, (_, at) => {
    const one = sureness * middles[at >> 1]!;
    return at % 2 === 0 ? 1 - one : one;
  });
}

interface DenseInputs {
  readonly labels: Tensor;
  readonly shares: Tensor;
  readonly names: Tensor;
  readonly places: Tensor;
  readonly placeNames: Tensor;
  readonly middles: Tensor;
  readonly middleNames: Tensor;
}

function denseInputs(graph: Graph, config: LlavaConfig): DenseInputs {
  return {
    labels: graph.input('labels', 'int64', ['patches']),
    shares: graph.input('shares', 'float32', ['patches']),
    names: graph.input('names', 'float32', [TAUGHT_OBJECTS.length + 1, config.text.vocab]),
    places: graph.input('places', 'int64', ['patches']),
    placeNames: graph.input('place_names', 'float32', [PLACES.length, config.text.vocab]),
    middles: graph.input('middles', 'float32', ['patches', MIDDLE_WORDS.length]),
    middleNames: graph.input('middle_names', 'float32', [MIDDLE_WORDS.length, config.text.vocab]),
  };
}

/**
 * Each patch names the object that covers it, that object's place and, where looking is at middles, whether it is its middle, in the
 * words of the decoder's own embeddings: visual rows and the words for what they show come to lie in one space.
 * rows [batch, patches, hidden] → scalar loss.
 */
function denseLoss(
  rows: Tensor,
  inputs: DenseInputs,
  weight: GraphWeights,
  hidden: number,
  looking: Looking,
): Tensor {
  const graph = rows.graph;
  const flat = f.reshape(rows, ['patches', hidden]);
  const directions = f.rmsNorm(flat, graph.constant(new Float32Array(hidden).fill(1)), 1e-5);
  const scores = (names: Tensor) => f.matmul(directions, f.matmul(names, weight(embeddingName)), { b: true });
  const naming = (names: Tensor, labels: Tensor) => f.crossEntropy(scores(names), labels);
  const shared = (losses: Tensor) => f.sum(f.multiply(losses, inputs.shares));
  const objects = shared(naming(inputs.names, inputs.labels));
  const placed = f.add(objects, f.multiply(shared(naming(inputs.placeNames, inputs.places)), 0.3));
  if (looking === 'patches') return placed;
  const said = f.sum(f.multiply(f.logSoftmax(scores(inputs.middleNames)), inputs.middles), [-1]);
  return f.add(placed, f.multiply(shared(f.negate(said)), looking === 'centres' ? 2 : 0.5));
}

const weightDecay = 0.02;
const optimizer = (stage: Stage): AdamOptions => ({
  schedule: { peak: stage.peak, warmUp: stage.warmUp, decay: 'cosine', steps: stage.decaySteps, floor: 0.02 },
  beta1: 0.9,
  beta2: 0.99,
  epsilon: 1e-8,
  weightDecay,
  clipNorm: 1,
});

/** What a stage trains, of the weights its graph uses. */
function trainedIn(stage: Stage, graph: Graph, weights: Weights): Weights {
  const used = new Set(graph.inputs.map(({ name }) => name));
  const stays = (name: string) => {
    const layer = /^language_model\..*layers\.(\d+)\./.exec(name)?.[1];
    return (
      (name === embeddingName && stage.embeddings === 'none') ||
      (layer !== undefined && Number(layer) < stage.decoderFrom) ||
      (/^(vision_tower|multi_modal_projector)\./.test(name) && !stage.tower)
    );
  };
  return new Map([...weights].filter(([name]) => used.has(name) && !stays(name)));
}

async function denseTrainer(stage: Stage, config: LlavaConfig, weights: Weights): Promise<Trainer> {
  const graph = new Graph();
  const shapes = new Map([...weights].map(([name, { shape }]) => [name, shape]));
  const weight = weightsAsInputs(graph, shapes);
  const pixels = graph.input('pixels', 'float32', [sizes.dense.pictures, 3, CANVAS, CANVAS]);
  const inputs = denseInputs(graph, config);
  const rows = visualEmbeddings(pixels, config, weight);
  const loss = denseLoss(rows, inputs, weight, config.text.hidden, stage.looking);
  const trained = trainedIn(stage, graph, weights);
  return Trainer.create(graph, loss, {}, trained, optimizer(stage), { providers: ['cpu'] });
}

/** Scores of one of a layer's heads before softmax. x [batch, rows, hidden] → [batch, 1, rows, rows]. */
function headScores(
  x: Tensor,
  layer: number,
  head: number,
  inputs: AttentionInputs,
  config: LlavaConfig,
  weight: GraphWeights,
): Tensor {
  const attention = llavaBackbone(config).decoder.attention(layer, weight);
  const normed = attention.norm(x);
  const [query, key] = [attention.query(normed, inputs), attention.key(normed, inputs)];
  const [q, k] = [f.slice(query, 1, head, head + 1), f.slice(key, 1, head, head + 1)];
  const scaled = f.multiply(q, 1 / Math.sqrt(config.text.headDim));
  return f.add(f.matmul(scaled, k, { b: true }), inputs.mask);
}

/**
 * Rows hold, along one fixed direction for each of PLACES, whether something lies there: the directions are drawn at random, so that
 * all nine can be held at once. rows [mentions, hidden] → scalar loss: binary cross-entropy with `meant_places`, summed over the places.
 */
function placingLoss(rows: Tensor, seed: number): Tensor {
  const { graph } = rows;
  const hidden = rows.shape[1] as number;
  const random = seededRandom(seed).split('places');
  const directions = Float32Array.from(
    { length: PLACES.length * hidden },
    () => random.gaussian() / Math.sqrt(hidden),
  );
  const normed = f.rmsNorm(rows, graph.constant(new Float32Array(hidden).fill(1)), 1e-5);
  const logits = f.matmul(normed, graph.constant(directions, [PLACES.length, hidden]), { b: true });
  const there = f.sigmoid(logits);
  const meant = graph.input('meant_places', 'float32', [rows.shape[0]!, PLACES.length]);
  const log = (x: Tensor) => f.log(f.add(x, 1e-6));
  const agrees = f.add(
    f.multiply(meant, log(there)),
    f.multiply(f.subtract(1, meant), log(f.subtract(1, there))),
  );
  return f.negate(f.mean(f.sum(agrees, [-1])));
}

async function languageTrainer(
  stage: Stage,
  config: LlavaConfig,
  weights: Weights,
  seed: number,
): Promise<Trainer> {
  const graph = new Graph();
  const { pictures, rows } = sizes.language;
  const prefix = 1 + GRID * GRID;
  const total = prefix + rows;
  const { decoder } = llavaBackbone(config);
  const { hidden, headDim, layers } = decoder;
  const shapes = new Map([...weights].map(([name, { shape }]) => [name, shape]));
  const weight = weightsAsInputs(graph, shapes);
  const pixels = graph.input('pixels', 'float32', [pictures, 3, CANVAS, CANVAS]);
  const named = denseInputs(graph, config);
  const bos = graph.input('bos', 'int64', [pictures, 1]);
  const ids = graph.input('ids', 'int64', [pictures, rows]);
  const shared = {
    cosine: graph.input('cosine', 'float32', [pictures, 1, total, headDim]),
    sine: graph.input('sine', 'float32', [pictures, 1, total, headDim]),
    mask: graph.input('mask', 'float32', [pictures, 1, total, total]),
  };
  const picked = graph.input('picked', 'int64', ['picked']);
  const next = graph.input('next', 'int64', ['picked']);
  const weights_ = graph.input('weights', 'float32', ['picked']);

  const visual = visualEmbeddings(pixels, config, weight);
  let x = f.concat([decoder.embed(bos, weight), visual, decoder.embed(ids, weight)], 1);
  const mentions = graph.input('mentions', 'int64', ['mentions']);
  const look = (layer: number, head: number, rows: Tensor, shares: Tensor) => {
    const scores = f.reshape(headScores(x, layer, head, shared, config, weight), [pictures * total, total]);
    const looks = f.logSoftmax(f.gather(scores, rows));
    return f.negate(f.mean(f.sum(f.multiply(looks, shares), [-1])));
  };
  const looks = new Map<string, Tensor>();
  let placing: Tensor | undefined;
  for (let layer = 0; layer < layers; layer++) {
    if (layer === PLACING_LAYER && stage.placing > 0) {
      const flat = f.reshape(x, [pictures * total, hidden]);
      placing = placingLoss(f.gather(flat, mentions), seed);
    }
    if (layer === POINTING_LAYER) {
      const meant = graph.input('meant', 'float32', ['mentions', total]);
      looks.set('pointing', look(layer, 0, mentions, meant));
    }
    if (layer === POINTING_LAYER && stage.columns !== null) {
      const meant = graph.input('meant_in_columns', 'float32', [COLUMNS, 'mentions', total]);
      const losses = Array.from({ length: COLUMNS }, (_, column) => {
        const shares = f.reshape(f.slice(meant, 0, column, column + 1), ['mentions', total]);
        return look(layer, 1 + column, mentions, shares);
      });
      looks.set('columns', losses.reduce(f.add));
    }
    if (layer === TELLING_LAYER && stage.looking !== 'patches') {
      const tellers = graph.input('tellers', 'int64', ['tellers']);
      looks.set('telling', look(layer, 0, tellers, graph.input('told', 'float32', ['tellers', total])));
    }
    x = decoder.layer(x, layer, shared, weight).hidden;
  }
  const scored = f.gather(f.reshape(x, [pictures * total, hidden]), picked);
  const logits = decoder.head(decoder.finalNorm(scored, weight), weight);
  const answers = f.sum(f.multiply(f.crossEntropy(logits, next), weights_));
  const dense = denseLoss(visual, named, weight, hidden, stage.looking);
  const looked = f.multiply([...looks.values()].reduce(f.add), stage.pointingWeight);
  const known = f.add(f.add(answers, dense), looked);
  const loss = placing ? f.add(known, f.multiply(placing, stage.placing)) : known;
  return Trainer.create(
    graph,
    loss,
    { answers, dense, ...Object.fromEntries(looks), ...(placing ? { placing } : {}) },
    trainedIn(stage, graph, weights),
    optimizer(stage),
    {
      providers: ['cpu'],
    },
  );
}

/** Batches, composed two ahead in a worker. */
class Batches {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, (batch: DenseBatch | LanguageBatch) => void>();
  constructor(task: WorkerTask) {
    this.#worker = new Worker(new URL('./batchWorker.ts', import.meta.url), { workerData: task });
    this.#worker.on('message', ({ step, batch }: { step: number; batch: LanguageBatch }) => {
      this.#waiting.get(step)?.(batch);
      this.#waiting.delete(step);
    });
    this.#worker.on('error', (error) => {
      throw error;
    });
  }
  request(request: BatchRequest): Promise<DenseBatch | LanguageBatch> {
    const promise = new Promise<DenseBatch | LanguageBatch>((resolve) =>
      this.#waiting.set(request.step, resolve),
    );
    this.#worker.postMessage(request);
    return promise;
  }
  async close(): Promise<void> {
    await this.#worker.terminate();
  }
}

async function runStage(
  name: string,
  stage: Stage,
  trainer: Trainer,
  batches: Batches,
  feedsOf: (batch: DenseBatch | LanguageBatch) => Record<string, Value>,
  statePath: string,
  settings: string,
  weights: Weights,
  known: KnownRows,
): Promise<void> {
  const { kinds, looking, columns, described } = stage;
  const request = (step: number): BatchRequest =>
    stage.kind === 'dense'
      ? { stage: stage.kind, series: name, step, ...sizes.dense, looking }
      : {
          stage: stage.kind,
          series: name,
          step,
          ...sizes.language,
          kinds,
          looking,
          columns: columns ?? 1,
          described,
        };
  if (existsSync(statePath)) await trainer.load(statePath, settings);
  const { shape: embeddingShape, data: embeddings } = weights.get(embeddingName)!;
  const width = embeddingShape[1]!;
  const before = embeddings.slice();
  const first = trainer.optimizer.step;
  if (first >= stage.steps) return;
  const ahead: Promise<DenseBatch | LanguageBatch>[] = [];
  for (let step = first; step < Math.min(first + 2, stage.steps); step++)
    ahead.push(batches.request(request(step)));
  const started = performance.now();
  const recent = new Map<string, number>();
  for (let step = first; step < stage.steps; step++) {
    const batch = await ahead.shift()!;
    if (step + 2 < stage.steps) ahead.push(batches.request(request(step + 2)));
    // What a stage does not train is fed as it is.
    const still: Record<string, Value> = {};
    for (const [weightName, { shape, data }] of weights) still[weightName] = float32(data, shape);
    const report = await trainer.step({ ...still, ...feedsOf(batch) });
    if (stage.embeddings === 'new') {
      for (const id of known) embeddings.set(before.subarray(id * width, (id + 1) * width), id * width);
    }
    for (const [name, value] of Object.entries({ loss: report.loss, ...report.terms })) {
      recent.set(name, (recent.get(name) ?? value) * 0.95 + value * 0.05);
    }
    if ((step + 1) % 25 === 0 || step + 1 === stage.steps) {
      const each = (performance.now() - started) / (step + 1 - first);
      const left = ((stage.steps - step - 1) * each) / 60000;
      const values = [...recent].map(([name, value]) => `${name} ${value.toFixed(3)}`).join('  ');
      console.log(
        `${name} ${step + 1}/${stage.steps}  ${values}  ${each.toFixed(0)} ms a step, ${left.toFixed(1)} min left`,
      );
    }
    if ((step + 1) % 200 === 0 || step + 1 === stage.steps) await trainer.save(statePath, settings);
  }
}

async function writeModel(folder: string, weights: Weights, config: Record<string, unknown>): Promise<void> {
  const tensors = new Map<string, WritableTensor>();
  for (const [name, { shape, data }] of weights) tensors.set(name, { dtype: 'F16', shape: [...shape], data });
  await writeSafetensors(join(folder, 'model.safetensors'), tensors, { format: 'pt' });
  const json = (name: string, value: unknown) =>
    writeFile(join(folder, name), `${JSON.stringify(value, null, 2)}\n`);
  await json('config.json', config);
  await json('preprocessor_config.json', demoPreprocessor);
  await json('generation_config.json', { bos_token_id: 1, eos_token_id: 2, max_new_tokens: 48 });
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      out: { type: 'string', default: 'resources/demo-model' },
      work: { type: 'string', default: '.cache/demo-training' },
      seed: { type: 'string', default: '1' },
      fresh: { type: 'boolean', default: false },
      from: { type: 'string' },
      stage: { type: 'string', default: '1' },
    },
  });
  const seed = Number(values.seed);
  const firstStage = Number(values.stage);
  if (!stages[firstStage - 1] || (firstStage > 1 && values.from === undefined)) {
    throw new Error(
      `--stage ${values.stage}: give a stage from 1 to ${stages.length}; one after the first goes on from a model, --from FOLDER.`,
    );
  }
  if (values.fresh) await rm(values.work, { recursive: true, force: true });
  await mkdir(values.work, { recursive: true });
  await mkdir(values.out, { recursive: true });

  const files = trainTokenizer();
  await writeTokenizer(values.work, files);
  const vocabulary = vocabularySize(files);
  const added = files.tokenizer as unknown as {
    added_tokens: Array<{ id: number; content: string }>;
    model: { vocab: Record<string, number> };
  };
  const idOf = (content: string) => added.added_tokens.find((token) => token.content === content)!.id;
  const [imageTokenId, padTokenId] = [idOf('<image>'), idOf('<pad>')];
  const config = parsedDemoConfig(vocabulary, imageTokenId, padTokenId);
  const vocab = added.model.vocab;
  const wordId = (word: string) => {
    const id = vocab[`▁${word}`];
    if (id === undefined) throw new Error(`The tokenizer has no single token for "${word}".`);
    return id;
  };
  const nameIds = [
    ...TAUGHT_OBJECTS.map((object) => object.name.split(' ').map(wordId)),
    [wordId('background')],
  ];
  const names = float32(nameMatrix(nameIds, vocabulary), [nameIds.length, vocabulary]);
  const placeIds = PLACES.map((place) => place.split(' ').map(wordId));
  const placeNames = float32(nameMatrix(placeIds, vocabulary), [placeIds.length, vocabulary]);
  const middleIds = MIDDLE_WORDS.map((word) => [wordId(word)]);
  const middleNames = float32(nameMatrix(middleIds, vocabulary), [middleIds.length, vocabulary]);

  const weights = initialWeights(config, seed);
  const ids = { ...vocab, '<image>': imageTokenId, '<pad>': padTokenId };
  const known = values.from === undefined ? new Set<number>() : await takeOver(values.from, weights, ids);
  const count = [...weights.values()].reduce((sum, { data }) => sum + data.length, 0);
  console.log(
    `${(count / 1e6).toFixed(2)} M parameters, ${vocabulary} tokens, ${TAUGHT_OBJECTS.length} objects taught`,
  );
  const batches = new Batches({ folder: values.work, vocabulary, imageTokenId, padTokenId, seed });
  const pixelsOf = (batch: DenseBatch, looking: Looking) => {
    const pictures = batch.pixels.length / (3 * CANVAS * CANVAS);
    return {
      pixels: float32(batch.pixels, [pictures, 3, CANVAS, CANVAS]),
      labels: int64(batch.labels, [batch.labels.length]),
      shares: float32(patchShares(batch.labels), [batch.labels.length]),
      names,
      places: int64(batch.places, [batch.places.length]),
      place_names: placeNames,
      middles: float32(middleShares(batch.middles, looking), [batch.middles.length, MIDDLE_WORDS.length]),
      middle_names: middleNames,
    };
  };
  const textsOf = (batch: LanguageBatch) => {
    const { pictures, rows } = sizes.language;
    const total = 1 + GRID * GRID + rows;
    const { cosine, sine } = rotaryTables(config.text, [batch.positions]);
    const table = [pictures, 1, total, config.text.headDim];
    return {
      bos: int64(new Array(pictures).fill(config.text.bosTokenId), [pictures, 1]),
      ids: int64(batch.ids, [pictures, rows]),
      cosine: float32(cosine, table),
      sine: float32(sine, table),
      mask: float32(batch.mask, [pictures, 1, total, total]),
      picked: int64(batch.picked, [batch.picked.length]),
      next: int64(batch.next, [batch.next.length]),
      weights: float32(batch.weights, [batch.weights.length]),
      mentions: int64(batch.mentions, [batch.mentions.length]),
      meant: float32(batch.meant, [batch.mentions.length, total]),
      meant_in_columns: float32(batch.meantInColumns, [COLUMNS, batch.mentions.length, total]),
      meant_places: float32(batch.meantPlaces, [batch.mentions.length, PLACES.length]),
      tellers: int64(batch.tellers, [batch.tellers.length]),
      told: float32(batch.told, [batch.tellers.length, total]),
    };
  };
  for (const [index, stage] of stages.entries()) {
    if (index + 1 < firstStage) continue;
    const earlier = stages.slice(0, index).filter(({ kind }) => kind === stage.kind).length;
    const name = earlier === 0 ? stage.kind : `${stage.kind} ${earlier + 1}`;
    const statePath = join(values.work, `stage-${index + 1}.safetensors`);
    const trainer =
      stage.kind === 'dense'
        ? await denseTrainer(stage, config, weights)
        : await languageTrainer(stage, config, weights, seed);
    await runStage(
      name,
      stage,
      trainer,
      batches,
      (batch) => ({ ...pixelsOf(batch, stage.looking), ...('ids' in batch ? textsOf(batch) : {}) }),
      statePath,
      // A stage goes on from those before it: theirs are its settings too.
      JSON.stringify({ seed, sizes, stages: stages.slice(0, index + 1) }),
      weights,
      known,
    );
    await trainer.dispose();
  }
  await batches.close();
  await writeModel(values.out, weights, demoConfig(vocabulary, imageTokenId, padTokenId));
  await writeTokenizer(values.out, files);
  console.log(`Written to ${values.out}. Measure it with: npm run demo:eval`);
}

await main();
