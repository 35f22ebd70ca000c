/**
 * @file Training batches of the demo world. Several texts about one picture share its visual rows: they lie behind one
 * another in one sequence, see the picture and themselves, and not each other. Facts lie there too and see only themselves.
 */
import { forbidden } from '../models/positions.ts';
import type { PromptWriter } from '../models/prompt.ts';
import { demoPreprocessor, GRID, type Looking } from './recipe.ts';
import { drawFact, type Fact } from './world/facts.ts';
import { OBJECTS, objectNamed, TAUGHT_OBJECTS, UNTAUGHT_OBJECTS } from './world/objects.ts';
import {
  captionOf,
  drawQuestion,
  inWords,
  type Question,
  type QuestionKind,
  typedCasually,
} from './world/questions.ts';
import type { Random } from './world/random.ts';
import { patchOwners, renderScene } from './world/render.ts';
import {
  CANVAS,
  composeScene,
  PLACES,
  type Place,
  placeOf,
  type Scene,
  type SceneObject,
} from './world/scene.ts';

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
  /** how much each patch is the middle of the object it belongs to, as {@link Looking} says; 0 everywhere for `patches` [scenes·patches] */
  readonly middles: Float32Array;
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

/** Centre of a row or column of patches, in the scene's units. */
const patchCentre = (place: number) => ((place + 0.5) * CANVAS) / GRID;

/** The cell of the 3 × 3 raster that each patch lies in. */
const ownCells = Array.from({ length: GRID * GRID }, (_, patch) =>
  PLACES.indexOf(placeOf({ x: patchCentre(patch % GRID), y: patchCentre(Math.floor(patch / GRID)) })),
);

function denseLabels(
  scenes: readonly Scene[],
  owners: readonly Int16Array[],
  looking: Looking,
): Pick<DenseBatch, 'labels' | 'places' | 'middles'> {
  const labels = new BigInt64Array(scenes.length * GRID * GRID);
  const places = new BigInt64Array(labels.length);
  const middles = new Float32Array(labels.length);
  scenes.forEach((scene, index) => {
    scene.objects.forEach((_, object) => {
      if (looking === 'patches') return;
      for (const { at, share } of lookedAt(scene, object, owners[index]!, looking))
        middles[index * GRID * GRID + at] = share;
    });
    owners[index]!.forEach((owner, patch) => {
      const object = scene.objects[owner];
      const at = index * GRID * GRID + patch;
      const kind = object && objectNamed(object.name).index;
      labels[at] = BigInt((kind === undefined ? undefined : classOf.get(kind)) ?? TAUGHT_OBJECTS.length);
      places[at] = BigInt(object ? PLACES.indexOf(placeOf(object)) : ownCells[patch]!);
    });
  });
  return { labels, places, middles };
}

/** Of the patches an object covers, the one nearest to its centre; undefined for an object that covers none. */
function middleOf(scene: Scene, object: number, owners: Int16Array): number | undefined {
  const { x, y } = scene.objects[object]!;
  let middle: number | undefined;
  let nearest = Number.POSITIVE_INFINITY;
  owners.forEach((owner, patch) => {
    if (owner !== object) return;
    const distance = Math.hypot(patchCentre(patch % GRID) - x, patchCentre(Math.floor(patch / GRID)) - y);
    if (distance < nearest) [middle, nearest] = [patch, distance];
  });
  return middle;
}

const ownersOf = (scenes: readonly Scene[]) => scenes.map((scene) => patchOwners(scene, GRID));

export function denseBatch(random: Random, pictures: number, looking: Looking): DenseBatch {
  const scenes = Array.from({ length: pictures }, () => trainingScene(random));
  return { pixels: pixelValues(scenes), ...denseLabels(scenes, ownersOf(scenes), looking) };
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
  /** where such a word should look, in shares of 1 [mentions, prefix + rows] */
  readonly meant: Float32Array;
  /** the same for things in the left, the middle and the right column of PLACES alone, by the first row's own weight there [columns, mentions, prefix + rows] */
  readonly meantInColumns: Float32Array;
  /** 1 for each of PLACES at which lies what such a word means, else 0 [mentions, places] */
  readonly meantPlaces: Float32Array;
  /** rows (over all scenes) that tell the first token of an answer about things in the picture [tellers] */
  readonly tellers: BigInt64Array;
  /** where such a row should look [tellers, prefix + rows] */
  readonly told: Float32Array;
}

/** What texts go with a picture. */
export interface TextSize {
  /** texts a picture */
  readonly texts: number;
  /** how often kinds of question are asked, 1 where not said */
  readonly kinds: KindWeights;
  /** share of the texts without a picture that tell of one in words; the others are facts */
  readonly described: number;
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
  /** the things its answer is about; undefined where it is not about things in the picture */
  readonly tells: readonly number[] | undefined;
  /** in a text that tells of things instead of showing them, the token that names each */
  readonly things?: readonly number[];
}

/** A word of a question that points at things in the picture, by its index in the ids: which of `scene.objects`, and where they lie. */
interface Mention {
  readonly token: number;
  readonly objects: readonly number[];
  readonly places: readonly Place[];
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

const lastWord = (text: string) => text.slice(text.lastIndexOf(' ') + 1);

/** Columns of PLACES. */
export const COLUMNS = 3;
const columnOf = (place: Place) => PLACES.indexOf(place) % COLUMNS;

const indicesOf = (scene: Scene, wanted: (object: SceneObject) => boolean): number[] =>
  scene.objects.flatMap((object, index) => (wanted(object) ? [index] : []));

/** The things an answer is about, as places in `scene.objects`; undefined for the background. */
function toldOf({ topic, about }: Question, scene: Scene): number[] | undefined {
  if (topic.kind === 'background') return undefined;
  if (topic.kind === 'at') return indicesOf(scene, (object) => placeOf(object) === topic.place);
  return indicesOf(scene, (object) => object.name === about);
}

/** Words that point at things, and the things they mean: the names asked about, the noun or place that stands for the answer. */
function pointers({ topic, about }: Question, scene: Scene): { word: string; objects: number[] }[] {
  const named = (name: string) => indicesOf(scene, (object) => object.name === name);
  switch (topic.kind) {
    case 'what':
      return [{ word: lastWord(topic.noun), objects: named(about) }];
    case 'at':
      return [
        {
          word: lastWord(topic.place),
          objects: indicesOf(scene, (object) => placeOf(object) === topic.place),
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
  { texts: count, kinds, described }: TextSize,
): Text[] {
  const texts: Text[] = [];
  for (let index = 0; index < count; index++) {
    const seesPicture = index > 0;
    if (!seesPicture && described > 0 && random.chance(described)) {
      texts.push(describedText(random, source, kinds));
      continue;
    }
    const caption = index === 1;
    const question = index > 1 ? drawQuestion(scene, random, kinds) : undefined;
    const drawn = question ?? (caption ? captionOf(scene, random) : drawFact(source.facts, random));
    // Facts are not asked in capitals: their words are tokens as they are printed only.
    const text = seesPicture ? asTyped(drawn.question, random) : withCue(drawn.question, random);
    const encoded = encode(source, text, drawn.answer, seesPicture);
    const mentions = question ? mentionsOf(question, scene, encoded, source) : [];
    const tells = question && toldOf(question, scene);
    texts.push({ ...encoded, seesPicture, weight: caption ? captionTokenWeight : 1, mentions, tells });
  }
  return texts;
}

function asTyped(question: string, random: Random): string {
  return withCue(typedCasually(question, random), random);
}

function withCue(question: string, random: Random): string {
  return random.chance(0.25) ? `${question} The answer is:` : question;
}

/**
 * A question about a picture told in words instead of shown. Things no picture shows are told of too: they are what the model
 * can speak of and has never seen.
 */
function describedText(random: Random, source: TextSource, kinds: KindWeights): Text {
  const scene = random.chance(0.6)
    ? composeScene(random, { include: [random.pick(UNTAUGHT_OBJECTS)], count: random.pick([1, 2, 3]) })
    : trainingScene(random);
  const { text, order } = inWords(scene, random);
  const question = drawQuestion(scene, random, { ...kinds, background: 0 });
  const encoded = encode(source, `${text} ${asTyped(question.question, random)}`, question.answer, false);
  const things: number[] = [];
  let from = 0;
  for (const object of order) {
    const id = source.wordId(lastWord(scene.objects[object]!.name));
    from = id === undefined ? -1 : encoded.ids.indexOf(id, from) + 1;
    if (from <= 0) return { ...encoded, seesPicture: false, weight: 1, mentions: [], tells: undefined };
    things[object] = from - 1;
  }
  const mentions = mentionsOf(question, scene, encoded, source);
  return { ...encoded, seesPicture: false, weight: 1, mentions, tells: toldOf(question, scene), things };
}

function mentionsOf(
  question: Question,
  scene: Scene,
  { ids, answerFrom }: { readonly ids: readonly number[]; readonly answerFrom: number },
  source: TextSource,
): Mention[] {
  return pointers(question, scene).flatMap(({ word, objects }) => {
    // A question may be typed in capitals.
    const typed = [word, word.toUpperCase()].map((form) => source.wordId(form));
    const token = Math.max(
      ...typed.map((id) => (id === undefined ? -1 : ids.lastIndexOf(id, answerFrom - 1))),
    );
    const places = objects.map((object) => placeOf(scene.objects[object]!));
    return token < 0 ? [] : [{ token, objects, places }];
  });
}

/** One step's worth of pictures with `texts` texts each, laid into `rows` rows; texts that no longer fit are left out. */
export function languageBatch(
  random: Random,
  source: TextSource,
  size: { pictures: number; rows: number; looking: Looking; columns: number } & TextSize,
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
  const meantInColumns = Array.from({ length: COLUMNS }, (): Float32Array[] => []);
  const meantPlaces: Float32Array[] = [];
  const tellers: number[] = [];
  const told: Float32Array[] = [];
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
    for (const text of textsOf(scene, random, source, size)) {
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
      const rowsOf = (object: number): Part[] => {
        const named = text.things?.[object];
        if (named !== undefined) return [{ at: at + named, share: 1 }];
        const parts = lookedAt(scene, object, owners[index]!, size.looking);
        return parts.map((part) => ({ ...part, at: 1 + part.at }));
      };
      const sharesOf = (objects: readonly number[], none: number) =>
        attentionShares(objects.map(rowsOf), text.seesPicture ? 0 : at, total, none);
      const look = (token: number, objects: readonly number[], from: number[], to: Float32Array[]) => {
        if (objects.length > 0 && objects.every((object) => rowsOf(object).length === 0)) return false;
        from.push(index * total + at + token);
        to.push(sharesOf(objects, size.looking === 'patches' ? 0 : 1));
        return true;
      };
      for (const { token, objects, places } of text.mentions) {
        if (!look(token, objects, mentions, meant)) continue;
        meantInColumns.forEach((shares, column) => {
          const there = objects.filter((_, which) => columnOf(places[which]!) === column);
          shares.push(sharesOf(there, size.columns));
        });
        meantPlaces.push(Float32Array.from(PLACES, (place) => (places.includes(place) ? 1 : 0)));
      }
      if (text.tells) look(text.answerFrom - 1, text.tells, tellers, told);
      at += text.ids.length;
    }
    // Rows left over look at themselves, so that softmax has something to look at.
    for (let row = at; row < total; row++) allow(row, row, row + 1);
  });
  const sum = weights.reduce((a, b) => a + b, 0);
  return {
    pixels: pixelValues(scenes),
    ...denseLabels(scenes, owners, size.looking),
    ids,
    positions,
    mask,
    picked: BigInt64Array.from(picked, BigInt),
    next: BigInt64Array.from(next, BigInt),
    weights: Float32Array.from(weights, (weight) => weight / sum),
    mentions: BigInt64Array.from(mentions, BigInt),
    meant: concatenated(meant),
    meantInColumns: concatenated(meantInColumns.flat()),
    meantPlaces: concatenated(meantPlaces),
    tellers: BigInt64Array.from(tellers, BigInt),
    told: concatenated(told),
  };
}

/** A patch or row, and its share of 1. */
interface Part {
  readonly at: number;
  readonly share: number;
}

/** The patches at which one looks for an object; none for one that covers none. Their shares add up to 1. */
function lookedAt(scene: Scene, object: number, owners: Int16Array, looking: Looking): Part[] {
  if (looking === 'patches') {
    const own = [...owners.keys()].filter((patch) => owners[patch] === object);
    return own.map((at) => ({ at, share: 1 / own.length }));
  }
  const around = looking === 'centres' ? aroundCentre(scene.objects[object]!) : [];
  const own = around.filter(({ at }) => owners[at] === object);
  const sum = own.reduce((total, { share }) => total + share, 0);
  if (sum > 0) return own.map(({ at, share }) => ({ at, share: share / sum }));
  const middle = middleOf(scene, object, owners);
  return middle === undefined ? [] : [{ at: middle, share: 1 }];
}

/** The patches around a point, in the shares by which one interpolates between their centres. */
function aroundCentre({ x, y }: { readonly x: number; readonly y: number }): Part[] {
  const [u, v] = [x, y].map((along) => Math.min(GRID - 1, Math.max(0, (along * GRID) / CANVAS - 0.5)));
  const beside = (along: number): Part[] => {
    const low = Math.min(GRID - 2, Math.floor(along));
    return [
      { at: low, share: low + 1 - along },
      { at: low + 1, share: along - low },
    ];
  };
  return beside(v!).flatMap((row) =>
    beside(u!).map((column) => ({ at: row.at * GRID + column.at, share: row.share * column.share })),
  );
}

/**
 * Attention over all rows that meets each thing alike.
 * @param things the rows of each thing, with the shares in which they stand for it
 * @param first the row that stands for none of them
 * @param none what that row counts against a thing, where there are things
 */
function attentionShares(
  things: readonly (readonly Part[])[],
  first: number,
  total: number,
  none: number,
): Float32Array {
  const shares = new Float32Array(total);
  const seen = things.filter((rows) => rows.length > 0);
  const sum = seen.length + none;
  shares[first] = seen.length > 0 ? none / sum : 1;
  for (const rows of seen) {
    for (const { at, share } of rows) shares[at] = share / sum;
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
