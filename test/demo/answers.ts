/**
 * @file Answers questions about scenes from their English text and the scene's geometry alone: an independent reading
 * against which the demo world's own answers are tested.
 */
import { OBJECTS } from '../../electron/demo/world/objects.ts';
import type { Scene, SceneObject } from '../../electron/demo/world/scene.ts';

const NUMBER_WORDS = ['zero', 'one', 'two', 'three', 'four'];
const HIGHER: Record<string, [axis: 'x' | 'y', sign: number]> = {
  left: ['x', -1],
  right: ['x', 1],
  above: ['y', -1],
  below: ['y', 1],
};
const FURTHER: Record<string, string> = {
  'further left': 'left',
  'further right': 'right',
  higher: 'above',
  lower: 'below',
};

/** All answers the text admits; a fair question has exactly one. Throws when the text is not understood. */
export function answersTo(question: string, scene: Scene): string[] {
  const text = question.toLowerCase();
  const words: readonly string[] = text.match(/[a-z]+/g) ?? [];
  const match = (pattern: RegExp): string[] | undefined => pattern.exec(text)?.slice(1);
  const named = (name: string): SceneObject[] => scene.objects.filter((object) => object.name === name);
  const unique = (names: string[]): string[] => [...new Set(names)];
  const mentioned = OBJECTS.filter(({ name }) => words.includes(name)).map(({ name }) => name);

  if (/colou?r/.test(text)) {
    return unique([scene.background.colour, scene.background.ground ?? scene.background.colour]);
  }

  const further = match(/\b(further left|further right|higher|lower)\b/)?.[0];
  if (further) {
    const [axis, sign] = HIGHER[FURTHER[further]!]!;
    const pair = match(/the (\w+) (?:or|and) the (\w+)/)!.flatMap(named);
    if (pair.length !== 2) return [];
    const [first, second] = pair.toSorted((p, q) => sign * (q[axis] - p[axis]));
    return Math.abs(first![axis] - second![axis]) < 10 ? [first!.name, second!.name] : [first!.name];
  }

  const relation = match(/(left of|right of|above|below) the (?!picture|image|photo)(\w+)/);
  if (relation) {
    const [axis, sign] = HIGHER[relation[0]!.replace(' of', '')]!;
    const anchors = named(relation[1]!);
    if (anchors.length !== 1) return [];
    return scene.objects
      .filter((object) => object !== anchors[0] && sign * (object[axis] - anchors[0]![axis]) > 5)
      .map((object) => object.name);
  }

  const counted = match(/(?:how many|number of|count the|count all) (\w+)/);
  if (counted) {
    const kind = OBJECTS.find(({ plural }) => plural === counted[0]);
    if (!kind) throw new Error(`not understood: ${question}`);
    return [NUMBER_WORDS[named(kind.name).length]!];
  }

  const [thing, ...others] = mentioned;
  if (thing && others.length === 0) {
    if (/\b(?:where|position|find|locate|part|place)\b/.test(text)) return named(thing).map(placeWords);
    if (/\b(?:is|do|does|can|if|whether)\b/.test(text)) return [named(thing).length > 0 ? 'yes' : 'no'];
  }

  const at = match(/(?:at the|on the|in the) ((?:top|bottom|left|right|middle)(?: left| right)?)\b/);
  if (at) return scene.objects.filter((object) => liesAt(object, at[0]!)).map(({ name }) => name);

  const noun = NOUNS.find((known) => text.includes(known));
  if (noun) return unique(scene.objects.map(({ name }) => name).filter((name) => isA(name, noun)));
  throw new Error(`not understood: ${question}`);
}

/** What a question may call a thing, the narrower before the wider. */
const NOUNS = [
  'bird',
  'piece of clothing',
  'piece of furniture',
  ...new Set(OBJECTS.map(({ category }) => category)),
  'object',
];

/** The third of the picture in which the object's centre lies; far enough from the borders to be beyond doubt. */
function placeWords(object: SceneObject): string {
  const column = thirds(object.x, ['left', '', 'right']);
  const row = thirds(object.y, ['top', '', 'bottom']);
  return `${row} ${column}`.trim() || 'middle';
}

function thirds(value: number, words: [string, string, string]): string {
  for (const border of [40, 80])
    if (Math.abs(value - border) < 4) throw new Error(`doubtful position ${value}`);
  return words[value < 40 ? 0 : value < 80 ? 1 : 2];
}

/** "On the left" takes in the corners of the left edge, as people may. */
function liesAt(object: SceneObject, place: string): boolean {
  const words = placeWords(object);
  return place.includes(' ') || place === 'middle' ? words === place : words.split(' ').includes(place);
}

function isA(name: string, noun: string): boolean {
  const kind = OBJECTS.find((object) => object.name === name)!;
  if (noun === 'object') return true;
  if (noun === 'bird') return kind.group === 'bird';
  const category = noun.replace('piece of ', '');
  if (category === 'food' || category === 'plant')
    return [category, 'fruit', 'vegetable'].includes(kind.category);
  return kind.category === category;
}
