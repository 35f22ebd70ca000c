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
  const text = question.replace(/[?.]$/, '');
  const match = (pattern: RegExp): string[] | undefined => pattern.exec(text)?.slice(1);
  const named = (name: string): SceneObject[] => scene.objects.filter((object) => object.name === name);
  const unique = (names: string[]): string[] => [...new Set(names)];

  if (/colou?r/.test(text)) {
    return unique([scene.background.colour, scene.background.ground ?? scene.background.colour]);
  }

  const which = match(
    /(?:^(?:Which|What)(?: one)? is|^Is the (.+) or the (.+)) (further left|further right|higher|lower)(?:[,:] the (.+) or the (.+))?$/,
  );
  if (which) {
    const [a1, b1, further = '', a2, b2] = which;
    const [axis, sign] = HIGHER[FURTHER[further] ?? '']!;
    const pair = [...named(a1 ?? a2 ?? ''), ...named(b1 ?? b2 ?? '')];
    if (pair.length !== 2) return [];
    const [first, second] = pair.toSorted((p, q) => sign * (q[axis] - p[axis]));
    return Math.abs(first![axis] - second![axis]) < 10 ? [first!.name, second!.name] : [first!.name];
  }

  const relation = match(/(left of|right of|above|below) the (?!picture)(.+)$/);
  if (relation && /^(What|Which|Name)/.test(text)) {
    const [axis, sign] = HIGHER[relation[0]!.replace(' of', '')]!;
    const anchors = named(relation[1]!);
    if (anchors.length !== 1) return [];
    return scene.objects
      .filter((object) => object !== anchors[0] && sign * (object[axis] - anchors[0]![axis]) > 5)
      .map((object) => object.name);
  }

  const counted =
    match(/^How many (\S+(?: \S+)??) (?:are|do)\b/) ?? match(/^(?:What is the number of|Count the) (.+)$/);
  if (counted) {
    const kind = OBJECTS.find(({ plural }) => plural === counted[0]);
    if (!kind) throw new Error(`not understood: ${question}`);
    return [NUMBER_WORDS[named(kind.name).length]!];
  }

  const present = match(
    /^(?:Is there|Do you see|Does the picture show|Can you see) (?:an? )?(.+?)(?: in the picture| in this image)?$/,
  );
  if (present) return [named(present[0]!).length > 0 ? 'yes' : 'no'];

  const sought = match(/(?:^Where|^In which|^What is the position).* the (\S+)$/);
  if (sought) return named(sought[0]!).map((object) => placeWords(object));

  const at = match(
    /(?:at the|on the|in the) ((?:top|bottom|left|right|middle)(?: left| right)?)(?: of the picture)?$/,
  );
  if (at) return scene.objects.filter((object) => liesAt(object, at[0]!)).map(({ name }) => name);

  const what =
    match(/^(?:What|Which) (.+?) (?:is in the picture|do you see|is this|is shown here)$/) ??
    match(/^What is the (.+) in this image$/) ??
    match(/^Name the (.+) in the picture$/);
  if (what) return unique(scene.objects.map(({ name }) => name).filter((name) => isA(name, what[0]!)));
  throw new Error(`not understood: ${question}`);
}

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
