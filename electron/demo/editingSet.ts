/**
 * @file Edits on pictures of the demo world, with the probes that judge them, in memory and as E-VQA files.
 *
 * Train and test share no picture and no (object, target) pair.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { drawFact, type Fact, facts } from './world/facts.ts';
import { OBJECTS, type ObjectKind, objectNamed, TAUGHT_OBJECTS, UNTAUGHT_OBJECTS } from './world/objects.ts';
import {
  drawQuestion,
  NUMBERS,
  type Question,
  questionsOf,
  rephrase,
  type Topic,
  wordings,
} from './world/questions.ts';
import { hashText, type Random, seededRandom } from './world/random.ts';
import { scenePng } from './world/render.ts';
import {
  COLOUR_NAMES,
  composeScene,
  disguised,
  kindsIn,
  PLACES,
  restyleScene,
  type Scene,
  swapped,
} from './world/scene.ts';
import { loadSprites } from './world/sprites.ts';
import { TYPING, typed } from './world/wordings.ts';

export type Split = 'train' | 'test';

/**
 * What an edit changes: the right name of a thing the model was never shown (`unknown`), a name for a thing drawn as nothing it was
 * shown (`disguised`: there are few things never shown), the name of a thing (`identity`, counterfactual), a number, a place, the
 * background's colour, or a neighbour's name.
 */
export type EditKind = 'unknown' | 'disguised' | 'identity' | 'count' | 'where' | 'background' | 'relation';

/** Share of each kind of edit; what is hard comes more often in training. */
const MIX: Readonly<Record<Split, readonly (readonly [EditKind, number])[]>> = {
  train: [
    ['unknown', 0.12],
    ['disguised', 0.15],
    ['identity', 0.4],
    ['count', 0.18],
    ['where', 0.07],
    ['background', 0.05],
    ['relation', 0.03],
  ],
  test: [
    ['unknown', 0.22],
    ['identity', 0.48],
    ['count', 0.12],
    ['where', 0.12],
    ['background', 0.03],
    ['relation', 0.03],
  ],
};

/** One edit with its probes; field names follow E-VQA, pictures are scenes. */
export interface EditingRecord {
  kind: EditKind;
  /** What the edit is about: an object's name, or a colour. With `alt` it makes the pair that splits are cut by. */
  object: string;
  /** Question and another wording of it. */
  src: string;
  rephrase: string;
  /** What the model is expected to say before the edit: what the picture shows, or the look-alike of an untaught thing. */
  pred: string;
  /** The target. */
  alt: string;
  image: Scene;
  /** The same objects in the other drawing style, light and background. */
  image_rephrase: Scene;
  /** Unrelated text question and answer. */
  loc: string;
  loc_ans: string;
  /** Unrelated picture, without any object of the edit, with question and answer. */
  m_loc: Scene;
  m_loc_q: string;
  m_loc_a: string;
  /** Another question about the edit's own picture, whose answer must not change. */
  same_image_q: string;
  same_image_a: string;
  /** What is asked, free of wording. */
  topic: Topic;
  /** The question in a wording that no training shows, and in one whose core none shows in any frame. */
  heldout: string;
  new_core: string;
  /** The question as people also type it: other letter case, final marks and spaces. */
  typed: string[];
  /** Edits of a thing's name: the edit's picture with a look-alike in its place, of which the question is answered as it is. */
  image_swapped?: Scene;
  swapped_a?: string;
  /** Edits of a thing's name: the same thing in quite another picture, and a question there that it answers. */
  image_elsewhere?: Scene;
  elsewhere_q?: string;
}

/** Share of things the model was never shown among those that edits of `identity` rename. */
const UNTAUGHT_SHARE: Readonly<Record<Split, number>> = { train: 0.3, test: 0.1 };

const FACTS: readonly Fact[] = facts();

/** Every third untaught thing is named right in test edits only, so that its right name is a new pair there. */
const UNKNOWN_TEST = new Set(UNTAUGHT_OBJECTS.filter((_, i) => i % 3 === 1).map((kind) => kind.name));
/** One pair in ten belongs to the test edits. */
const TEST_PAIRS = 10;

/** Which split the pair (object, target) belongs to. */
export function splitOf(object: string, target: string): Split {
  if (object === target) return UNKNOWN_TEST.has(object) ? 'test' : 'train';
  return hashText(`${object} > ${target}`) % TEST_PAIRS === 0 ? 'test' : 'train';
}

/** `count` edits of a split. `loadSprites()` must have been awaited; the same arguments give the same edits. */
export function editingRecords(split: Split, count: number, seed: number): EditingRecord[] {
  return Array.from({ length: count }, (_, index) => editingRecord(split, index, seed));
}

/** Edit number `index` of a split, for training that never repeats itself. `loadSprites()` must have been awaited. */
export function editingRecord(split: Split, index: number, seed: number): EditingRecord {
  const random = seededRandom(seed).split(`edits ${split}`).split(index);
  const kind = drawKind(split, random);
  for (;;) {
    const edit = drawEdit(kind, split, random);
    if (edit) return withProbes(kind, edit, random);
  }
}

interface Edit {
  scene: Scene;
  question: Question;
  object: string;
  pred: string;
  target: string;
}

function drawKind(split: Split, random: Random): EditKind {
  let left = random.next();
  for (const [kind, share] of MIX[split]) {
    left -= share;
    if (left < 0) return kind;
  }
  return 'identity';
}

/** Undefined when chance led to a scene without such a question, or to no target of this split: draw again. */
function drawEdit(kind: EditKind, split: Split, random: Random): Edit | undefined {
  switch (kind) {
    case 'unknown': {
      const shown = random.pick(UNTAUGHT_OBJECTS.filter(({ name }) => splitOf(name, name) === split));
      const scene = composeScene(random, { include: [shown] });
      const question = identifying(scene, shown, random);
      return (
        question && { scene, question, object: shown.name, pred: shown.looksLike ?? '', target: shown.name }
      );
    }
    case 'disguised': {
      const shown = random.pick(TAUGHT_OBJECTS);
      const scene = disguised(composeScene(random, { include: [shown] }), shown.name, random);
      const question = identifying(scene, shown, random);
      if (!question) return undefined;
      const targets = absentNames(scene, (other) => answersLike(shown, question, other));
      const target = drawTarget(shown.name, targets, split, random);
      return target ? { scene, question, object: shown.name, pred: '', target } : undefined;
    }
    case 'identity': {
      const shown = random.pick(random.chance(UNTAUGHT_SHARE[split]) ? UNTAUGHT_OBJECTS : TAUGHT_OBJECTS);
      const scene = composeScene(random, { include: [shown] });
      const question = identifying(scene, shown, random);
      if (!question) return undefined;
      // a question that names the category is answered within it
      const open =
        question.kind === 'at' || (question.topic.kind === 'what' && question.topic.noun === 'object');
      const anything = open && random.chance(0.4);
      const targets = absentNames(scene, (other) => anything || answersLike(shown, question, other));
      const target = drawTarget(shown.name, targets, split, random);
      if (!target) return undefined;
      return { scene, question, object: shown.name, pred: shown.looksLike ?? shown.name, target };
    }
    case 'count': {
      const shown = random.pick(TAUGHT_OBJECTS.filter((object) => !object.mass));
      const scene = composeScene(random, { repeat: shown, copies: 1 + random.int(4) });
      return counterfactual(scene, 'count', NUMBERS.slice(1), split, random, shown.name);
    }
    case 'where':
      return counterfactual(composeScene(random), 'where', PLACES, split, random);
    case 'background':
      return counterfactual(composeScene(random), 'background', COLOUR_NAMES, split, random);
    case 'relation': {
      const scene = composeScene(random, { count: 2 + random.int(2) });
      const absent = TAUGHT_OBJECTS.filter((object) => !kindsIn(scene).includes(object));
      return counterfactual(
        scene,
        'relation',
        absent.map(({ name }) => name),
        split,
        random,
      );
    }
  }
}

function absentNames(scene: Scene, wanted: (kind: ObjectKind) => boolean): string[] {
  return OBJECTS.filter((kind) => wanted(kind) && !kindsIn(scene).includes(kind)).map(({ name }) => name);
}

/** Whether `other` is the sort of thing a question about `shown` asks for. */
function answersLike(shown: ObjectKind, { topic }: Question, other: ObjectKind): boolean {
  return other.category === shown.category && (!asksForBird(topic) || other.group === 'bird');
}

/** An edit that makes one of the scene's questions of a kind answer wrongly. */
function counterfactual(
  scene: Scene,
  kind: Question['kind'],
  targets: readonly string[],
  split: Split,
  random: Random,
  about?: string,
): Edit | undefined {
  const questions = questionsOf(scene, random).filter(
    (question) =>
      question.kind === kind && question.answer !== 'zero' && (!about || question.about === about),
  );
  if (questions.length === 0) return undefined;
  const question = random.pick(questions);
  const wrong = targets.filter((target) => target !== question.answer);
  const target = drawTarget(question.about, wrong, split, random);
  return target ? { scene, question, object: question.about, pred: question.answer, target } : undefined;
}

function drawTarget(
  object: string,
  targets: readonly string[],
  split: Split,
  random: Random,
): string | undefined {
  const own = targets.filter((target) => target !== object && splitOf(object, target) === split);
  return own.length ? random.pick(own) : undefined;
}

/** A question whose answer is the shown object's name. */
function identifying(scene: Scene, shown: ObjectKind, random: Random): Question | undefined {
  const naming = questionsOf(scene, random).filter(
    ({ kind, about }) => about === shown.name && (kind === 'what' || kind === 'at'),
  );
  const byCategory = naming.filter(({ kind }) => kind === 'what');
  const pool = byCategory.length && random.chance(0.8) ? byCategory : naming;
  return pool.length ? random.pick(pool) : undefined;
}

function asksForBird(topic: Topic): boolean {
  return topic.kind === 'what' && topic.noun === 'bird';
}

function withProbes(kind: EditKind, edit: Edit, random: Random): EditingRecord {
  const { scene, question, object, pred, target } = edit;
  const fact = drawFactApart(target, random);
  const unrelated = drawUnrelated(edit, random);
  const same = sameImageQuestion(edit, random);
  const apart = random.split('scope');
  return {
    kind,
    object,
    src: question.question,
    rephrase: rephrase(question, random),
    pred,
    alt: target,
    image: scene,
    image_rephrase: restyleScene(scene, random, question.kind === 'background'),
    loc: fact.question,
    loc_ans: fact.answer,
    m_loc: unrelated.scene,
    m_loc_q: unrelated.question.question,
    m_loc_a: unrelated.question.answer,
    same_image_q: same.question,
    same_image_a: same.answer,
    topic: question.topic,
    heldout: apart.pick(wordings(question.topic, 'heldOut')),
    new_core: apart.pick(wordings(question.topic, 'newCore')),
    typed: TYPING.map((typing) => typed(question.question, typing)),
    ...lookAlike(kind, edit, apart),
    ...elsewhere(kind, edit, apart),
  };
}

const NAMING: readonly EditKind[] = ['unknown', 'disguised', 'identity'];

/** The thing that looks most like another: what an untaught one is taken for, else one of its category that the scene does not show. */
function lookAlike(
  kind: EditKind,
  { scene, question, object, target }: Edit,
  random: Random,
): Pick<EditingRecord, 'image_swapped' | 'swapped_a'> {
  if (!NAMING.includes(kind) || question.about !== object) return {};
  const thing = objectNamed(object);
  const shown = kindsIn(scene);
  const others = TAUGHT_OBJECTS.filter(
    (other) => other.name !== target && !shown.includes(other) && answersLike(thing, question, other),
  );
  const alike = others.filter(({ name }) => name === thing.looksLike);
  if (others.length === 0) return {};
  const other = random.pick(alike.length ? alike : others).name;
  return { image_swapped: swapped(scene, object, other), swapped_a: other };
}

/** The thing, disguised as in the edit, in a picture of its own with a question that it answers. */
function elsewhere(
  kind: EditKind,
  { scene, object, target }: Edit,
  random: Random,
): Pick<EditingRecord, 'image_elsewhere' | 'elsewhere_q'> {
  if (!NAMING.includes(kind)) return {};
  const thing = objectNamed(object);
  const disguise = scene.objects.find(({ name }) => name === object)?.disguise;
  for (;;) {
    const other = composeScene(random, { include: [thing], exclude: new Set([target]) });
    const question = identifying(other, thing, random);
    if (!question) continue;
    const objects = other.objects.map((shown) =>
      shown.name === object && disguise ? { ...shown, disguise } : shown,
    );
    return { image_elsewhere: { ...other, objects }, elsewhere_q: question.question };
  }
}

/** A fact that neither asks for nor answers the target. */
function drawFactApart(target: string, random: Random): { question: string; answer: string } {
  for (;;) {
    const fact = drawFact(FACTS, random);
    if (fact.answer !== target && !fact.question.includes(target)) return fact;
  }
}

/** A picture without any object of the edit; often with a question of the edit's own kind, or the very same question. */
function drawUnrelated(edit: Edit, random: Random): { scene: Scene; question: Question } {
  const exclude = new Set([...edit.scene.objects.map(({ name }) => name), edit.object, edit.target]);
  const own = edit.question;
  const alike = random.chance(0.5);
  const category = OBJECTS.find(({ name }) => name === edit.object)?.category;
  const relatives = TAUGHT_OBJECTS.filter(
    (object) =>
      object.category === category &&
      !exclude.has(object.name) &&
      (!asksForBird(own.topic) || object.group === 'bird'),
  );
  const include = alike && own.kind === 'what' && relatives.length ? [random.pick(relatives)] : [];
  const scene = composeScene(random, { include, exclude });
  const questions = questionsOf(scene, random).filter(({ kind }) => kind === own.kind);
  if (!alike || questions.length === 0) return { scene, question: drawQuestion(scene, random) };
  const question = random.pick(questions);
  const sameTopic = JSON.stringify(question.topic) === JSON.stringify(own.topic);
  return { scene, question: sameTopic ? { ...question, question: own.question } : question };
}

/** A question about the edit's picture that is not about the edited thing; about another thing shown, where there is one. */
function sameImageQuestion(edit: Edit, random: Random): Question {
  const untaught = new Set(UNTAUGHT_OBJECTS.map(({ name }) => name));
  const edited = [edit.object, edit.target];
  const apart = (question: Question): boolean =>
    [...Object.values(question.topic), question.about].every(
      (name) => !edited.includes(name) && !untaught.has(name),
    );
  for (;;) {
    const questions = questionsOf(edit.scene, random).filter(apart);
    const ofOthers = questions.filter(({ about }) => edit.scene.objects.some(({ name }) => name === about));
    const pool = ofOthers.length ? ofOthers : questions;
    if (pool.length) return random.pick(pool);
  }
}

/** An E-VQA record as it is written: pictures are paths relative to the JSON file. */
export type EvqaRecord = Omit<EditingRecord, PictureField> & { [field in PictureField]?: string } & {
  scenes: { [field in PictureField]?: Scene };
};

const PICTURE_FIELDS = ['image', 'image_rephrase', 'm_loc', 'image_swapped', 'image_elsewhere'] as const;
type PictureField = (typeof PICTURE_FIELDS)[number];

/**
 * Writes `<split>.json` and its pictures (PNG, 120 × 120, in `images/<split>/`) into a folder; records about the things in `first` come first.
 * @returns the number of records of each kind
 */
export async function writeEditingSet(
  folder: string,
  split: Split,
  count: number,
  seed: number,
  first: ReadonlySet<string> = new Set(),
): Promise<Partial<Record<EditKind, number>>> {
  await loadSprites();
  await mkdir(path.join(folder, 'images', split), { recursive: true });
  const written: EvqaRecord[] = [];
  const kinds: Partial<Record<EditKind, number>> = {};
  const records = [...editingRecords(split, count, seed)].sort(
    (a, b) => Number(first.has(b.object)) - Number(first.has(a.object)),
  );
  for (const [i, record] of records.entries()) {
    const { image, image_rephrase, m_loc, image_swapped, image_elsewhere, ...texts } = record;
    const scenes = { image, image_rephrase, m_loc, image_swapped, image_elsewhere };
    const files: { [field in PictureField]?: string } = {};
    for (const field of PICTURE_FIELDS) {
      const scene = scenes[field];
      if (!scene) continue;
      const file = `images/${split}/${String(i).padStart(5, '0')}${field.replace(/^image/, '').replace(/^m_loc/, '_m_loc')}.png`;
      await writeFile(path.join(folder, file), await scenePng(scene));
      files[field] = file;
    }
    written.push({ ...texts, ...files, scenes });
    kinds[record.kind] = (kinds[record.kind] ?? 0) + 1;
  }
  await writeFile(path.join(folder, `${split}.json`), `${JSON.stringify(written)}\n`);
  return kinds;
}
