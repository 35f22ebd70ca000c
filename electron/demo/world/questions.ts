/**
 * @file Questions about scenes with their one right answer, and captions, in several wordings each.
 *
 * Answers follow from the scene's objects and background alone: lower case, short, without article.
 */
import { type Category, type ObjectKind, objectNamed, TAUGHT_OBJECTS, withArticle } from './objects.ts';
import type { Random } from './random.ts';
import { kindsIn, PLACES, type Place, placeOf, type Scene, type SceneObject } from './scene.ts';
import { fill, TYPING, templates, typed, usualTemplates, type WordingSet } from './wordings.ts';

export const QUESTION_KINDS = [
  'what',
  'where',
  'at',
  'count',
  'relation',
  'background',
  'presence',
  'which',
] as const;
export type QuestionKind = (typeof QUESTION_KINDS)[number];

/** One question with its answer. */
export interface Question {
  kind: QuestionKind;
  question: string;
  answer: string;
  /** What is asked; `wordings(topic)` are the ways to ask it. */
  topic: Topic;
  /** The object whose identity, place or number the answer tells; a colour name for the background. */
  about: string;
}

/** What is asked, free of wording. */
export type Topic =
  | { kind: 'what'; noun: string }
  | { kind: 'where'; object: string }
  | { kind: 'at'; place: Place }
  | { kind: 'count'; object: string }
  | { kind: 'relation'; relation: Relation; object: string }
  | { kind: 'background' }
  | { kind: 'presence'; object: string }
  | { kind: 'which'; relation: Relation; first: string; second: string };

export const RELATIONS = ['left', 'right', 'above', 'below'] as const;
export type Relation = (typeof RELATIONS)[number];

export const NUMBERS = ['zero', 'one', 'two', 'three', 'four'] as const;

/** Two objects count as left and right (above and below) of one another from this distance on. */
export const CLEAR_DISTANCE = 14;

const AT_PLACE: Record<Place, string> = {
  'top left': 'at the top left',
  top: 'at the top',
  'top right': 'at the top right',
  left: 'on the left',
  middle: 'in the middle',
  right: 'on the right',
  'bottom left': 'at the bottom left',
  bottom: 'at the bottom',
  'bottom right': 'at the bottom right',
};

const OF: Record<Relation, string> = { left: 'left of', right: 'right of', above: 'above', below: 'below' };
const OF_LONG: Record<Relation, string> = {
  left: 'to the left of',
  right: 'to the right of',
  above: 'above',
  below: 'below',
};
const FURTHER: Record<Relation, string> = {
  left: 'further left',
  right: 'further right',
  above: 'higher',
  below: 'lower',
};

/** How a category is asked for; `thing` has no word of its own. */
const NOUNS: Record<Exclude<Category, 'thing'>, string> = {
  animal: 'animal',
  fruit: 'fruit',
  vegetable: 'vegetable',
  food: 'food',
  vehicle: 'vehicle',
  instrument: 'instrument',
  tool: 'tool',
  clothing: 'piece of clothing',
  ball: 'ball',
  plant: 'plant',
  building: 'building',
  furniture: 'piece of furniture',
};
/** Categories in which people would also count the objects of these. */
const ALSO: Partial<Record<Category, readonly Category[]>> = {
  food: ['fruit', 'vegetable'],
  plant: ['fruit', 'vegetable'],
};

const CAPTION_WORDINGS = [
  'Describe the picture.',
  'Describe what you see.',
  'What does the picture show?',
  'Describe this image.',
];

/** What fills the slots of a topic's templates. */
function slotsOf(topic: Topic): Record<string, string> {
  switch (topic.kind) {
    case 'what':
      return { noun: topic.noun };
    case 'where':
      return { name: objectNamed(topic.object).name };
    case 'at':
      return { place: AT_PLACE[topic.place] };
    case 'count':
      return { plural: objectNamed(topic.object).plural };
    case 'relation':
      return { of: OF[topic.relation], long: OF_LONG[topic.relation], name: topic.object };
    case 'background':
      return {};
    case 'presence':
      return { one: withArticle(objectNamed(topic.object)) };
    case 'which':
      return { further: FURTHER[topic.relation], first: topic.first, second: topic.second };
  }
}

/** All wordings of a topic in one set; those most often asked come first among the taught. Every wording has the same answer. */
export function wordings(topic: Topic, set: WordingSet = 'taught'): string[] {
  const slots = slotsOf(topic);
  return templates(topic.kind, set).map((template) => fill(template, slots));
}

/** Share of questions asked in one of the usual wordings. */
const USUAL_SHARE = 0.45;

/** One taught wording; the usual ones come more often. */
export function drawWording(topic: Topic, random: Random): string {
  const pool = random.chance(USUAL_SHARE) ? usualTemplates(topic.kind) : templates(topic.kind, 'taught');
  return fill(random.pick(pool), slotsOf(topic));
}

/** Every noun a `what` topic can have. */
export function topicNouns(): string[] {
  return [...Object.values(NOUNS), 'bird', 'object'];
}

/** All requests that a caption answers. */
export function captionWordings(): readonly string[] {
  return CAPTION_WORDINGS;
}

/** Another wording of the same question. */
export function rephrase(question: Question, random: Random): string {
  for (;;) {
    const wording = drawWording(question.topic, random);
    if (wording !== question.question) return wording;
  }
}

/**
 * Every kind of question the scene answers: all that are about what is shown, one presence question with answer
 * yes and one with answer no, sometimes a count of nothing. Wordings by chance.
 */
export function questionsOf(scene: Scene, random: Random): Question[] {
  const ask = (topic: Topic, answer: string, about: string): Question => ({
    kind: topic.kind,
    question: drawWording(topic, random),
    answer,
    topic,
    about,
  });
  const kinds = kindsIn(scene);
  const single = scene.objects.filter((object) => numberOf(scene, object.name) === 1);
  const questions: Question[] = [];

  for (const { noun, kind } of identifications(kinds)) {
    questions.push(ask({ kind: 'what', noun }, kind.name, kind.name));
  }
  for (const object of single) {
    questions.push(ask({ kind: 'where', object: object.name }, placeOf(object), object.name));
  }
  for (const object of scene.objects.filter((candidate) => aloneAtItsPlace(scene, candidate))) {
    questions.push(ask({ kind: 'at', place: placeOf(object) }, object.name, object.name));
  }
  for (const kind of kinds) {
    if (kind.mass) continue;
    const count = NUMBERS[numberOf(scene, kind.name)];
    if (count) questions.push(ask({ kind: 'count', object: kind.name }, count, kind.name));
  }
  for (const object of single) {
    for (const relation of RELATIONS) {
      const answer = onlyNeighbour(scene, object, relation);
      if (answer) {
        questions.push(ask({ kind: 'relation', relation, object: object.name }, answer.name, answer.name));
      }
    }
  }
  if (!scene.background.ground) {
    const { colour } = scene.background;
    questions.push(ask({ kind: 'background' }, colour, colour));
  }
  const shown = random.pick(kinds).name;
  questions.push(ask({ kind: 'presence', object: shown }, 'yes', shown));
  const absent = absentKind(kinds, random);
  questions.push(ask({ kind: 'presence', object: absent.name }, 'no', absent.name));
  if (random.chance(0.25) && !absent.mass) {
    questions.push(ask({ kind: 'count', object: absent.name }, 'zero', absent.name));
  }
  const comparison = compare(single, random);
  if (comparison) questions.push(ask(comparison.topic, comparison.answer, comparison.answer));
  return questions;
}

/** Most scenes show one of each kind; counting is learnt from those that show several. */
const SEVERAL_WEIGHT = 2.5;
const ONE_WEIGHT = 0.3;

/**
 * One question, its kind drawn with the given weights (1 where none is given) among those the scene answers. Presence
 * questions are yes or no with equal chance; counts of several come more often than counts of one or none.
 */
export function drawQuestion(
  scene: Scene,
  random: Random,
  weights: Readonly<Partial<Record<QuestionKind, number>>> = {},
): Question {
  const questions = questionsOf(scene, random);
  const several = questions.some(
    ({ kind, answer }) => kind === 'count' && answer !== 'one' && answer !== 'zero',
  );
  const weightOf = (kind: QuestionKind): number =>
    (weights[kind] ?? 1) * (kind === 'count' ? (several ? SEVERAL_WEIGHT : ONE_WEIGHT) : 1);
  const kinds = QUESTION_KINDS.filter((kind) => questions.some((question) => question.kind === kind));
  let left = random.next() * kinds.reduce((sum, kind) => sum + weightOf(kind), 0);
  let drawn = kinds[0];
  for (const kind of kinds) {
    drawn = kind;
    left -= weightOf(kind);
    if (left < 0) break;
  }
  return random.pick(questions.filter((question) => question.kind === drawn));
}

/** A caption that names every object with its place, in reading order. */
export function captionOf(scene: Scene, random: Random): { question: string; answer: string } {
  const inOrder = scene.objects.toSorted((a, b) => PLACES.indexOf(placeOf(a)) - PLACES.indexOf(placeOf(b)));
  const parts = inOrder.map(
    (object) => `${withArticle(objectNamed(object.name))} ${AT_PLACE[placeOf(object)]}`,
  );
  return { question: random.pick(CAPTION_WORDINGS), answer: parts.join(', ') };
}

/** The scene in words, each thing's place before its name; `order` says which thing stands where, as places in `scene.objects`. */
export function inWords(scene: Scene, random: Random): { text: string; order: number[] } {
  const order = random.shuffle([...scene.objects.keys()]);
  const parts = order.map((index) => {
    const object = scene.objects[index]!;
    return `${AT_PLACE[placeOf(object)]} ${withArticle(objectNamed(object.name))}`;
  });
  return { text: `In the picture: ${parts.join(', ')}.`, order };
}

/** How people also type: one question in four is typed in another way than it is printed. */
export function typedCasually(question: string, random: Random): string {
  return random.chance(0.25) ? typed(question, random.pick(TYPING)) : question;
}

/** Which nouns single out exactly one kind of object in the picture. */
function identifications(kinds: readonly ObjectKind[]): { noun: string; kind: ObjectKind }[] {
  const found: { noun: string; kind: ObjectKind }[] = [];
  for (const kind of kinds) {
    if (kind.category === 'thing') continue;
    const family = [kind.category, ...(ALSO[kind.category] ?? [])];
    if (kinds.filter((other) => family.includes(other.category)).length === 1) {
      found.push({ noun: NOUNS[kind.category], kind });
    }
  }
  const birds = kinds.filter((kind) => kind.group === 'bird');
  if (birds.length === 1) found.push({ noun: 'bird', kind: birds[0]! });
  if (kinds.length === 1) found.push({ noun: 'object', kind: kinds[0]! });
  return found;
}

/** "On the left" could also mean the top left: middle cells of an edge are asked for when the edge holds one object. */
function aloneAtItsPlace(scene: Scene, object: SceneObject): boolean {
  const place = placeOf(object);
  if (place.includes(' ') || place === 'middle') return true;
  return scene.objects.every((other) => other === object || !placeOf(other).split(' ').includes(place));
}

/** How many of that name the scene shows. */
export function numberOf(scene: Scene, name: string): number {
  return scene.objects.filter((object) => object.name === name).length;
}

/** How far `other` lies from `object` in the direction of the relation (negative: on the other side). */
function distanceAlong(object: SceneObject, other: SceneObject, relation: Relation): number {
  if (relation === 'left') return object.x - other.x;
  if (relation === 'right') return other.x - object.x;
  if (relation === 'above') return object.y - other.y;
  return other.y - object.y;
}

/** The one object in that relation to `object`, if there is exactly one and no other comes near to it. */
function onlyNeighbour(scene: Scene, object: SceneObject, relation: Relation): SceneObject | undefined {
  let neighbour: SceneObject | undefined;
  for (const other of scene.objects) {
    if (other === object) continue;
    const along = distanceAlong(object, other, relation);
    if (along <= 2) continue;
    const across = Math.max(
      ...RELATIONS.filter((r) => r !== relation).map((r) => distanceAlong(object, other, r)),
    );
    // nearly level with it, or more beside it than in that direction: a doubtful case, not asked
    if (along < CLEAR_DISTANCE || along < across / 2) return undefined;
    if (neighbour) return undefined;
    neighbour = other;
  }
  return neighbour;
}

/** An absent taught kind; half of the time of a category that is shown, so that looking closely is needed. */
function absentKind(kinds: readonly ObjectKind[], random: Random): ObjectKind {
  const absent = TAUGHT_OBJECTS.filter((kind) => !kinds.includes(kind));
  const alike = absent.filter((kind) => kinds.some((shown) => shown.category === kind.category));
  return random.pick(alike.length && random.chance(0.5) ? alike : absent);
}

function compare(
  single: readonly SceneObject[],
  random: Random,
): { topic: Topic; answer: string } | undefined {
  const [a, b] = random.shuffle(single);
  if (!a || !b) return undefined;
  const relation = random.pick(RELATIONS);
  const along = distanceAlong(a, b, relation);
  if (Math.abs(along) < CLEAR_DISTANCE) return undefined;
  return {
    topic: { kind: 'which', relation, first: a.name, second: b.name },
    answer: along > 0 ? b.name : a.name,
  };
}
