/**
 * @file Scenes of the demo world: plain JSON that says exactly what is in a picture, composed by chance.
 *
 * All lengths are in units of a 120 × 120 canvas, origin at the top left.
 */
import { OBJECTS, type ObjectKind, objectNamed, STYLES, type Style, TAUGHT_OBJECTS } from './objects.ts';
import { type Random, seededRandom } from './random.ts';
import { spriteOf } from './sprites.ts';

/** Side of the canvas that scene lengths refer to. */
export const CANVAS = 120;
/** Side of one of the 3 × 3 cells that position words name. */
export const CELL = CANVAS / 3;
/** An object's centre keeps at least this distance from cell borders, so position words are never doubtful. */
export const CELL_MARGIN = 5;

/** Position words, in reading order of the 3 × 3 cells. */
export const PLACES = [
  'top left',
  'top',
  'top right',
  'left',
  'middle',
  'right',
  'bottom left',
  'bottom',
  'bottom right',
] as const;
export type Place = (typeof PLACES)[number];

/** Background colours, as hue (degrees), saturation and the lightness range in which the name is honest. */
export const COLOURS = {
  white: { hue: 40, saturation: 0.1, light: [0.95, 0.99] },
  gray: { hue: 210, saturation: 0.02, light: [0.46, 0.6] },
  blue: { hue: 212, saturation: 0.72, light: [0.56, 0.74] },
  green: { hue: 125, saturation: 0.48, light: [0.5, 0.7] },
  yellow: { hue: 52, saturation: 0.9, light: [0.62, 0.76] },
  orange: { hue: 27, saturation: 0.9, light: [0.58, 0.68] },
  pink: { hue: 335, saturation: 0.78, light: [0.74, 0.84] },
  purple: { hue: 272, saturation: 0.55, light: [0.52, 0.68] },
} as const;
export type Colour = keyof typeof COLOURS;
export const COLOUR_NAMES = Object.keys(COLOURS) as Colour[];

/** One object in a picture. */
export interface SceneObject {
  /** Name of its kind. */
  name: string;
  /** Centre. */
  x: number;
  y: number;
  /** Longest side of its drawing. */
  size: number;
  mirror: boolean;
  style: Style;
  /** Drawn as no such thing looks. */
  disguise?: Disguise;
}

/** Upside down or not, and which channel of the drawing each of red, green and blue is taken from. */
export interface Disguise {
  flip: boolean;
  channels: readonly [number, number, number];
}

const STRANGE_CHANNELS = [
  [0, 2, 1],
  [1, 0, 2],
  [1, 2, 0],
  [2, 0, 1],
  [2, 1, 0],
] as const;

/** How the background is painted. With `ground` it has two colours and no single name. */
export interface Background {
  pattern: 'plain' | 'two-tone' | 'gradient' | 'texture';
  colour: Colour;
  /** Colour of the lower part, when it differs from `colour`. */
  ground?: Colour;
  /** Position inside the colour's lightness range, 0 to 1, and of its second shade. */
  shade: number;
  secondShade: number;
  /** Height of the border between the two parts of a two-tone background, 0 to 1. */
  horizon: number;
  seed: number;
}

/** A faint shape that is no object. */
export interface Clutter {
  shape: 'disc' | 'bar' | 'ring';
  x: number;
  y: number;
  size: number;
  /** Bars only: direction in radians. */
  angle: number;
  /** Change of lightness, about −0.1 to 0.1. */
  lightness: number;
}

/** A whole picture. */
export interface Scene {
  objects: SceneObject[];
  background: Background;
  clutter: Clutter[];
  light: { brightness: number; contrast: number; tint: [number, number, number] };
  noise: { strength: number; seed: number };
}

export interface SceneOptions {
  /** Kinds that must be shown, once each. */
  include?: readonly ObjectKind[];
  /** Names that must not be shown. */
  exclude?: ReadonlySet<string>;
  /** Total number of objects, 1 to 4. By chance otherwise. */
  count?: number;
  /** Show this kind several times (2 to 4, or as `copies` says). */
  repeat?: ObjectKind;
  copies?: number;
  /** Background colour; implies a background of one colour. */
  colour?: Colour;
}

/** The cell of a point as its position word. */
export function placeOf(object: { x: number; y: number }): Place {
  const column = Math.min(2, Math.max(0, Math.floor(object.x / CELL)));
  const row = Math.min(2, Math.max(0, Math.floor(object.y / CELL)));
  return PLACES[row * 3 + column]!;
}

/** Width and height of an object as drawn. `loadSprites()` must have been awaited. */
export function extentOf(object: SceneObject): { width: number; height: number } {
  const sprite = spriteOf(objectNamed(object.name).index, object.style);
  const scale = object.size / Math.max(sprite.width, sprite.height);
  return { width: sprite.width * scale, height: sprite.height * scale };
}

/**
 * Composes a scene of taught objects (and of whatever `include` and `repeat` name).
 * The same random stream gives the same scene.
 */
export function composeScene(random: Random, options: SceneOptions = {}): Scene {
  const kinds = chooseKinds(random, options);
  const oneStyle = random.chance(0.6) ? random.pick(STYLES) : undefined;
  const objects = placeObjects(kinds, oneStyle, random);
  return { objects, ...composeSurroundings(random, options.colour) };
}

/**
 * The same objects at the same places in the other drawing style, with other light, noise, clutter and background.
 * @param keepColour keep the background's colour name (for questions about it)
 */
export function restyleScene(scene: Scene, random: Random, keepColour: boolean): Scene {
  const objects = scene.objects.map((object) => ({
    ...object,
    style: STYLES[(STYLES.indexOf(object.style) + 1) % STYLES.length]!,
  }));
  return { objects, ...composeSurroundings(random, keepColour ? scene.background.colour : undefined) };
}

/** The scene with all things of one name made into something never seen, the same in every drawing style. */
export function disguised(scene: Scene, name: string, random: Random): Scene {
  const disguise: Disguise = { flip: random.chance(0.5), channels: random.pick(STRANGE_CHANNELS) };
  const objects = scene.objects.map((object) => (object.name === name ? { ...object, disguise } : object));
  return { ...scene, objects };
}

/** The scene with all things of one name in the place of another: drawn as the other, at the same places and sizes. */
export function swapped(scene: Scene, name: string, other: string): Scene {
  const objects = scene.objects.map((object) => {
    if (object.name !== name) return object;
    const { disguise: _, ...plain } = object;
    return { ...plain, name: other };
  });
  return { ...scene, objects };
}

/**
 * Another shot of the scene: the same things in the same cells, a little moved and resized, in other light and noise, before the
 * same background or one of another shade.
 */
export function anotherShot(scene: Scene, random: Random): Scene {
  const objects = scene.objects.map((object) => {
    const size = round(Math.max(28, object.size * random.between(0.88, 1.12)));
    const moved = (along: number): number =>
      centreNear(along, along + random.between(-4, 4), Math.floor(Math.min(CANVAS - 1, along) / CELL));
    return { ...object, size, x: moved(object.x), y: moved(object.y) };
  });
  const { light, noise, clutter } = composeSurroundings(random, scene.background.colour);
  const background = { ...scene.background, shade: round(random.next()), secondShade: round(random.next()) };
  return { objects, background, clutter: random.chance(0.5) ? clutter : scene.clutter, light, noise };
}

/** `wanted`, kept inside the cell's margins where `along` was. */
function centreNear(along: number, wanted: number, cell: number): number {
  const low = Math.min(along, cell * CELL + CELL_MARGIN);
  const high = Math.max(along, (cell + 1) * CELL - CELL_MARGIN);
  return round(Math.min(high, Math.max(low, wanted)));
}

function chooseKinds(random: Random, options: SceneOptions): ObjectKind[] {
  const kinds: ObjectKind[] = [...(options.include ?? [])];
  const unused = (): ObjectKind => {
    for (;;) {
      const kind = random.pick(TAUGHT_OBJECTS);
      if (!options.exclude?.has(kind.name) && !kinds.includes(kind)) return kind;
    }
  };
  const wanted =
    options.count ?? kinds.length + random.pick(kinds.length ? [0, 0, 1, 1, 2] : [1, 1, 2, 2, 2, 3, 3, 4]);
  const counting =
    options.repeat !== undefined || (options.count === undefined && kinds.length === 0 && random.chance(0.3));
  if (counting) {
    let kind = options.repeat ?? unused();
    while (kind.mass) kind = unused();
    const copies = options.copies ?? random.pick([2, 2, 3, 3, 4, 4]);
    for (let i = 0; i < copies; i++) kinds.push(kind);
    // room for another kind beside the counted one, so that counting everything is not enough
    if (kinds.length < 4 && random.chance(0.5)) kinds.push(unused());
    return random.shuffle(kinds);
  }
  while (kinds.length < Math.min(wanted, 4)) kinds.push(unused());
  return random.shuffle(kinds);
}

/** Every object gets a cell of its own and little overlap; a crowd that does not fit is drawn smaller. */
function placeObjects(
  kinds: readonly ObjectKind[],
  oneStyle: Style | undefined,
  random: Random,
): SceneObject[] {
  const largest = [0, 72, 62, 54, 48][kinds.length] ?? 48;
  for (let attempt = 0; ; attempt++) {
    const shrink = Math.max(0.55, 1 - attempt * 0.02);
    const cells = random.shuffle(PLACES.map((_, cell) => cell));
    const placed: SceneObject[] = [];
    for (const [i, kind] of kinds.entries()) {
      const size = Math.max(28, random.between(32, largest) * shrink);
      const object: SceneObject = {
        name: kind.name,
        x: centreIn(cells[i]! % 3, size, random),
        y: centreIn(Math.floor(cells[i]! / 3), size, random),
        size: round(size),
        mirror: random.chance(0.5),
        style: oneStyle ?? random.pick(STYLES),
      };
      if (placed.every((other) => overlap(object, other) < 0.06)) placed.push(object);
    }
    if (placed.length === kinds.length) return placed;
  }
}

/** A coordinate inside cell 0, 1 or 2, away from its borders, such that an object of that size stays in the picture. */
function centreIn(cell: number, size: number, random: Random): number {
  const low = Math.max(cell * CELL + CELL_MARGIN, Math.min(size / 2, (cell + 1) * CELL - CELL_MARGIN));
  const high = Math.min(
    (cell + 1) * CELL - CELL_MARGIN,
    Math.max(CANVAS - size / 2, cell * CELL + CELL_MARGIN),
  );
  return round(random.between(low, high));
}

/** Shared area of two objects' boxes over the smaller box. */
function overlap(a: SceneObject, b: SceneObject): number {
  const ea = extentOf(a);
  const eb = extentOf(b);
  const dx =
    Math.min(a.x + ea.width / 2, b.x + eb.width / 2) - Math.max(a.x - ea.width / 2, b.x - eb.width / 2);
  const dy =
    Math.min(a.y + ea.height / 2, b.y + eb.height / 2) - Math.max(a.y - ea.height / 2, b.y - eb.height / 2);
  if (dx <= 0 || dy <= 0) return 0;
  return (dx * dy) / Math.min(ea.width * ea.height, eb.width * eb.height);
}

function composeSurroundings(random: Random, colour: Colour | undefined): Omit<Scene, 'objects'> {
  const background: Background = {
    pattern: random.pick(['plain', 'two-tone', 'gradient', 'texture'] as const),
    colour: colour ?? random.pick(COLOUR_NAMES),
    shade: round(random.next()),
    secondShade: round(random.next()),
    horizon: round(random.between(0.45, 0.8)),
    seed: random.int(2 ** 31),
  };
  if (background.pattern === 'two-tone' && !colour && random.chance(0.5)) {
    background.ground = random.pick(COLOUR_NAMES.filter((name) => name !== background.colour));
  }
  const clutter: Clutter[] = [];
  for (let i = random.pick([0, 0, 1, 2, 3, 4]); i > 0; i--) {
    clutter.push({
      shape: random.pick(['disc', 'bar', 'ring'] as const),
      x: round(random.between(0, CANVAS)),
      y: round(random.between(0, CANVAS)),
      size: round(random.between(5, 18)),
      angle: round(random.between(0, Math.PI)),
      lightness: round(random.between(0.03, 0.07) * (random.chance(0.5) ? 1 : -1)),
    });
  }
  const tint = (): number => round(random.between(0.96, 1.04));
  return {
    background,
    clutter,
    light: {
      brightness: round(random.between(0.87, 1.06)),
      contrast: round(random.between(0.85, 1.08)),
      tint: [tint(), tint(), tint()],
    },
    noise: { strength: round(random.between(0, 5)), seed: random.int(2 ** 31) },
  };
}

/** Scenes are stored as text: two decimals are enough for a picture. */
function round(value: number): number {
  return Math.round(value * 100) / 100;
}

/** The scene number `index` of a numbered, endless and reproducible series. */
export function sceneNumber(series: string, seed: number, index: number): Scene {
  return composeScene(seededRandom(seed).split(series).split(index));
}

/** Kinds shown in a scene, each once, in the order of `OBJECTS`. */
export function kindsIn(scene: Scene): ObjectKind[] {
  const names = new Set(scene.objects.map((object) => object.name));
  return OBJECTS.filter((kind) => names.has(kind.name));
}
