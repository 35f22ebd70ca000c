/**
 * @file Training batches of the demo world. Several texts about one picture share its visual rows: they lie behind one
 * another in one sequence, see the picture and themselves, and not each other. Facts lie there too and see only themselves.
 */
import { forbidden } from '../models/positions.ts';
import type { PromptWriter } from '../models/prompt.ts';
import { demoPreprocessor, GRID } from './recipe.ts';
import { drawFact, type Fact } from './world/facts.ts';
import { OBJECTS, objectNamed, TAUGHT_OBJECTS } from './world/objects.ts';
import {
  captionOf,
  drawQuestion,
  type Question,
  type QuestionKind,
  typedCasually,
} from './world/questions.ts';
import type { Random } from './world/random.ts';
import { patchOwners, renderScene } from './world/render.ts';
import { CANVAS, composeScene, PLACES, placeOf, type Scene } from './world/scene.ts';

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
  /** where the object that covers a patch lies (its centre), as a place in PLACES; its own cell for a background patch [scenes·patches] */
  readonly places: BigInt64Array;
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

/** The cell of the 3 × 3 raster that each patch lies in. */
const ownCells = Array.from({ length: GRID * GRID }, (_, patch) =>
  PLACES.indexOf(
    placeOf({
      x: (((patch % GRID) + 0.5) * CANVAS) / GRID,
      y: ((Math.floor(patch / GRID) + 0.5) * CANVAS) / GRID,
    }),
  ),
);

function denseLabels(
  scenes: readonly Scene[],
  owners: readonly Int16Array[],
): Pick<DenseBatch, 'labels' | 'places'> {
  const labels = new BigInt64Array(scenes.length * GRID * GRID);
  const places = new BigInt64Array(labels.length);
  scenes.forEach((scene, index) => {
    owners[index]!.forEach((owner, patch) => {
      const object = scene.objects[owner];
      const at = index * GRID * GRID + patch;
      const kind = object && objectNamed(object.name).index;
      labels[at] = BigInt((kind === undefined ? undefined : classOf.get(kind)) ?? TAUGHT_OBJECTS.length);
      places[at] = BigInt(object ? PLACES.indexOf(placeOf(object)) : ownCells[patch]!);
    });
  });
  return { labels, places };
}

const ownersOf = (scenes: readonly Scene[]) => scenes.map((scene) => patchOwners(scene, GRID));

export function denseBatch(random: Random, pictures: number): DenseBatch {
  const scenes = Array.from({ length: pictures }, () => trainingScene(random));
  return { pixels: pixelValues(scenes), ...denseLabels(scenes, ownersOf(scenes)) };
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
  /** rows (over all scenes) of the words by which a question points at things in its picture [mentions] */
  readonly mentions: BigInt64Array;
  /** where such a word should look: at each thing it means alike, at the first row where there is none [mentions, prefix + rows] */
  readonly meant: Float32Array;
}

type KindWeights = Readonly<Partial<Record<QuestionKind, number>>>;

const captionTokenWeight = 0.5;
/** the end of an answer is easily learnt */
const endTokenWeight = 0.3;

interface Text {
  readonly ids: readonly number[];
  /** index of the first token to be answered */
  readonly answerFrom: number;
  readonly seesPicture: boolean;
  readonly weight: number;
  readonly mentions: readonly Mention[];
}

/** A word of a question that points at things in the picture, by its index in the ids; places in `scene.objects`. */
interface Mention {
  readonly token: number;
  readonly objects: readonly number[];
}

export interface TextSource {
  readonly writer: PromptWriter;
  readonly facts: readonly Fact[];
  readonly endToken: number;
  /** id of a word that is one token */
  readonly wordId: (word: string) => number | undefined;
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

/** Words that point at things, and the things they mean: the names asked about, the noun or place that stands for the answer. */
function pointers({ topic, about }: Question, scene: Scene): { word: string; objects: number[] }[] {
  const named = (name: string) =>
    scene.objects.flatMap((object, index) => (object.name === name ? [index] : []));
  const lastWord = (text: string) => text.slice(text.lastIndexOf(' ') + 1);
  switch (topic.kind) {
    case 'what':
      return [{ word: lastWord(topic.noun), objects: named(about) }];
    case 'at':
      return [
        {
          word: lastWord(topic.place),
          objects: scene.objects.flatMap((object, index) => (placeOf(object) === topic.place ? [index] : [])),
        },
      ];
    case 'count':
      return [{ word: lastWord(objectNamed(topic.object).plural), objects: named(topic.object) }];
    case 'which':
      return [topic.first, topic.second].map((name) => ({ word: lastWord(name), objects: named(name) }));
    case 'background':
      return [];
    default:
      return [{ word: lastWord(topic.object), objects: named(topic.object) }];
  }
}

function textsOf(
  scene: Scene,
  random: Random,
  source: TextSource,
  count: number,
  kinds: KindWeights,
): Text[] {
  const texts: Text[] = [];
  for (let index = 0; index < count; index++) {
    const seesPicture = index > 0;
    const caption = index === 1;
    const question = index > 1 ? drawQuestion(scene, random, kinds) : undefined;
    const drawn = question ?? (caption ? captionOf(scene, random) : drawFact(source.facts, random));
    const casual = typedCasually(drawn.question, random);
    const prompt = random.chance(0.25) ? `${casual} The answer is:` : casual;
    const weight = caption ? captionTokenWeight : 1;
    const encoded = encode(source, prompt, drawn.answer, seesPicture);
    const mentions = question ? mentionsOf(question, scene, encoded, source) : [];
    texts.push({ ...encoded, seesPicture, weight, mentions });
  }
  return texts;
}

function mentionsOf(
  question: Question,
  scene: Scene,
  { ids, answerFrom }: { readonly ids: readonly number[]; readonly answerFrom: number },
  source: TextSource,
): Mention[] {
  return pointers(question, scene).flatMap(({ word, objects }) => {
    const id = source.wordId(word);
    const token = id === undefined ? -1 : ids.lastIndexOf(id, answerFrom - 1);
    return token < 0 ? [] : [{ token, objects }];
  });
}

/** One step's worth of pictures with `texts` texts each, laid into `rows` rows; texts that no longer fit are left out. */
export function languageBatch(
  random: Random,
  source: TextSource,
  size: { pictures: number; texts: number; rows: number; kinds: KindWeights },
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
  const mentions: number[] = [];
  const meant: Float32Array[] = [];
  const owners = ownersOf(scenes);

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
    for (const text of textsOf(scene, random, source, size.texts, size.kinds)) {
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
      for (const { token, objects } of text.mentions) {
        const shares = attentionShares(owners[index]!, objects, total);
        if (!shares) continue;
        mentions.push(index * total + at + token);
        meant.push(shares);
      }
      at += text.ids.length;
    }
    // Rows left over look at themselves, so that softmax has something to look at.
    for (let row = at; row < total; row++) allow(row, row, row + 1);
  });
  const sum = weights.reduce((a, b) => a + b, 0);
  return {
    pixels: pixelValues(scenes),
    ...denseLabels(scenes, owners),
    ids,
    positions,
    mask,
    picked: BigInt64Array.from(picked, BigInt),
    next: BigInt64Array.from(next, BigInt),
    weights: Float32Array.from(weights, (weight) => weight / sum),
    mentions: BigInt64Array.from(mentions, BigInt),
    meant: concatenated(meant),
  };
}

/** Attention over all rows that meets each of the objects alike; the first row (BOS) for none. Undefined where none of them covers a patch. */
function attentionShares(
  owners: Int16Array,
  objects: readonly number[],
  total: number,
): Float32Array | undefined {
  const shares = new Float32Array(total);
  if (objects.length === 0) {
    shares[0] = 1;
    return shares;
  }
  const patches = objects
    .map((object) => [...owners.keys()].filter((patch) => owners[patch] === object))
    .filter((own) => own.length > 0);
  if (patches.length === 0) return undefined;
  for (const own of patches) {
    for (const patch of own) shares[1 + patch] = 1 / (patches.length * own.length);
  }
  return shares;
}

function concatenated(parts: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
