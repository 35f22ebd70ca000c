/**
 * @file Training batches of the demo world. Several texts about one picture share its visual rows: they lie behind one
 * another in one sequence, see the picture and themselves, and not each other. Facts lie there too and see only themselves.
 */
import { forbidden } from '../models/positions.ts';
import type { PromptWriter } from '../models/prompt.ts';
import { demoPreprocessor, GRID } from './recipe.ts';
import { drawFact, type Fact } from './world/facts.ts';
import { OBJECTS, TAUGHT_OBJECTS } from './world/objects.ts';
import { captionOf, drawQuestion, type QuestionKind, typedCasually } from './world/questions.ts';
import type { Random } from './world/random.ts';
import { patchLabels, renderScene } from './world/render.ts';
import { CANVAS, composeScene, type Scene } from './world/scene.ts';

/** pixels of the scenes, [scenes, 3, side, side], normalised as the demo preprocessor says */
export function pixelValues(scenes: readonly Scene[]): Float32Array {
  const area = CANVAS * CANVAS;
  const pixels = new Float32Array(scenes.length * 3 * area);
  scenes.forEach((scene, index) => {
    const rgb = renderScene(scene, CANVAS);
    for (let channel = 0; channel < 3; channel++) {
      const mean = demoPreprocessor.image_mean[channel]!;
      const deviation = demoPreprocessor.image_std[channel]!;
      const base = (index * 3 + channel) * area;
      for (let at = 0; at < area; at++) pixels[base + at] = (rgb[at * 3 + channel]! / 255 - mean) / deviation;
    }
  });
  return pixels;
}

export interface DenseBatch {
  readonly pixels: Float32Array;
  /** class of each patch: its place in TAUGHT_OBJECTS, or their number for the background [scenes·patches] */
  readonly labels: BigInt64Array;
}

/** A scene as training meets them: any number of objects, sometimes several of a kind. */
export function trainingScene(random: Random): Scene {
  if (random.chance(0.3)) {
    const countable = TAUGHT_OBJECTS.filter((kind) => !kind.mass);
    return composeScene(random, { repeat: random.pick(countable) });
  }
  return composeScene(random);
}

/** class of each object by its index; objects never taught have none */
const classOf = new Map(TAUGHT_OBJECTS.map((kind, place) => [OBJECTS.indexOf(kind), place]));

export function denseLabels(scenes: readonly Scene[]): BigInt64Array {
  const labels = new BigInt64Array(scenes.length * GRID * GRID);
  scenes.forEach((scene, index) => {
    patchLabels(scene, GRID).forEach((label, patch) => {
      labels[index * GRID * GRID + patch] = BigInt(classOf.get(label) ?? TAUGHT_OBJECTS.length);
    });
  });
  return labels;
}

export function denseBatch(random: Random, pictures: number): DenseBatch {
  const scenes = Array.from({ length: pictures }, () => trainingScene(random));
  return { pixels: pixelValues(scenes), labels: denseLabels(scenes) };
}

export interface LanguageBatch extends DenseBatch {
  /** token ids of the rows behind the picture [scenes, rows] */
  readonly ids: BigInt64Array;
  /** positions of all rows, picture included [scenes, prefix + rows] */
  readonly positions: Int32Array;
  /** [scenes, 1, prefix + rows, prefix + rows] */
  readonly mask: Float32Array;
  /** rows (over all scenes) whose next token is scored, the token, and its weight; weights add up to 1 */
  readonly picked: BigInt64Array;
  readonly next: BigInt64Array;
  readonly weights: Float32Array;
}

/** Presence was the last to be learnt and gets more than its share. */
const kindWeights: Partial<Record<QuestionKind, number>> = {
  presence: 2.2,
  count: 1.6,
  relation: 1.2,
  what: 1.3,
};
const captionTokenWeight = 0.5;
/** the end of an answer is easily learnt */
const endTokenWeight = 0.3;

interface Text {
  readonly ids: readonly number[];
  /** index of the first token to be answered */
  readonly answerFrom: number;
  readonly seesPicture: boolean;
  readonly weight: number;
}

export interface TextSource {
  readonly writer: PromptWriter;
  readonly facts: readonly Fact[];
  readonly endToken: number;
}

const cache = new Map<string, { ids: readonly number[]; answerFrom: number }>();

function encode(
  source: TextSource,
  prompt: string,
  answer: string,
  image: boolean,
): { ids: readonly number[]; answerFrom: number } {
  const key = `${image ? 1 : 0}${prompt}\n${answer}`;
  const known = cache.get(key);
  if (known) return known;
  const encoded = source.writer.encodeTarget({ prompt, image }, answer);
  // BOS and the picture are shared by all texts about it.
  const ids = [...encoded.ids.slice(image ? 2 : 0), source.endToken];
  const result = { ids, answerFrom: ids.length - encoded.targetIds.length - 1 };
  if (cache.size > 200_000) cache.clear();
  cache.set(key, result);
  return result;
}

function textsOf(scene: Scene, random: Random, source: TextSource, count: number): Text[] {
  const texts: Text[] = [];
  for (let index = 0; index < count; index++) {
    const kind = index === 0 ? 'fact' : index === 1 ? 'caption' : 'question';
    const { question, answer } =
      kind === 'fact'
        ? drawFact(source.facts, random)
        : kind === 'caption'
          ? captionOf(scene, random)
          : drawQuestion(scene, random, kindWeights);
    const casual = typedCasually(question, random);
    const prompt = random.chance(0.25) ? `${casual} The answer is:` : casual;
    const seesPicture = kind !== 'fact';
    const weight = kind === 'caption' ? captionTokenWeight : 1;
    texts.push({ ...encode(source, prompt, answer, seesPicture), seesPicture, weight });
  }
  return texts;
}

/** One step's worth of pictures with `texts` texts each, laid into `rows` rows; texts that no longer fit are left out. */
export function languageBatch(
  random: Random,
  source: TextSource,
  size: { pictures: number; texts: number; rows: number },
): LanguageBatch {
  const prefix = 1 + GRID * GRID;
  const total = prefix + size.rows;
  const scenes = Array.from({ length: size.pictures }, () => trainingScene(random));
  const ids = new BigInt64Array(size.pictures * size.rows);
  const positions = new Int32Array(size.pictures * total);
  const mask = new Float32Array(size.pictures * total * total).fill(forbidden);
  const picked: number[] = [];
  const next: number[] = [];
  const weights: number[] = [];

  scenes.forEach((scene, index) => {
    const allow = (row: number, from: number, to: number) => {
      const base = (index * total + row) * total;
      mask.fill(0, base + from, base + to);
    };
    for (let row = 0; row < prefix; row++) {
      positions[index * total + row] = row;
      allow(row, 0, row + 1);
    }
    let at = prefix;
    for (const text of textsOf(scene, random, source, size.texts)) {
      if (at + text.ids.length > total) break;
      text.ids.forEach((id, offset) => {
        const row = at + offset;
        ids[index * size.rows + row - prefix] = BigInt(id);
        positions[index * total + row] = (text.seesPicture ? prefix : 0) + offset;
        if (text.seesPicture) allow(row, 0, prefix);
        allow(row, at, row + 1);
        const following = text.ids[offset + 1];
        if (following === undefined || offset + 1 < text.answerFrom) return;
        picked.push(index * total + row);
        next.push(following);
        weights.push(text.weight * (offset + 2 === text.ids.length ? endTokenWeight : 1));
      });
      at += text.ids.length;
    }
    // Rows left over look at themselves, so that softmax has something to look at.
    for (let row = at; row < total; row++) allow(row, row, row + 1);
  });
  const sum = weights.reduce((a, b) => a + b, 0);
  return {
    pixels: pixelValues(scenes),
    labels: denseLabels(scenes),
    ids,
    positions,
    mask,
    picked: BigInt64Array.from(picked, BigInt),
    next: BigInt64Array.from(next, BigInt),
    weights: Float32Array.from(weights, (weight) => weight / sum),
  };
}
