/**
 * @file The things of the demo world: names, categories and which icon draws them in each style.
 */

/** Drawing styles: Noto Emoji (Apache-2.0) and Fluent Emoji flat (MIT), from the @iconify-json packages. */
export const STYLES = ['noto', 'fluent-emoji-flat'] as const;
export type Style = (typeof STYLES)[number];

export type Category =
  | 'animal'
  | 'fruit'
  | 'vegetable'
  | 'food'
  | 'vehicle'
  | 'instrument'
  | 'tool'
  | 'clothing'
  | 'ball'
  | 'plant'
  | 'building'
  | 'furniture'
  | 'thing';

/** One kind of object. */
export interface ObjectKind {
  /** Position in `OBJECTS`: the label of patches it covers. Taught kinds come first. */
  readonly index: number;
  readonly name: string;
  readonly plural: string;
  readonly category: Category;
  /** A narrower family with a question of its own. */
  readonly group?: 'bird';
  /** Icon id in both icon sets. */
  readonly icon: string;
  /** A mass noun: no article, not counted (`broccoli`). */
  readonly mass: boolean;
  /** Shown in training pictures. Untaught kinds are named in text facts only. */
  readonly taught: boolean;
  /** For untaught kinds: the taught kind it most resembles, so the natural wrong answer. */
  readonly looksLike?: string;
}

// name, name=icon, name/plural=icon; a trailing ~ marks a mass noun
const TAUGHT: Record<Category | 'bird', string> = {
  animal:
    'dog cat lion tiger horse cow pig sheep/sheep=ewe camel=two-hump-camel giraffe elephant rhino=rhinoceros ' +
    'mouse/mice rabbit squirrel=chipmunk hedgehog bear panda koala kangaroo monkey gorilla fox deer/deer zebra bat ' +
    'frog turtle snake crocodile whale=spouting-whale shark octopus crab fish/fish butterfly bee=honeybee ant ' +
    'ladybug=lady-beetle spider snail caterpillar=bug',
  bird: 'rooster duck swan owl parrot penguin flamingo peacock chick=baby-chick turkey',
  fruit:
    'apple=red-apple pear banana lemon watermelon strawberry pineapple peach kiwi=kiwi-fruit coconut ' +
    'cherry=cherries avocado',
  vegetable:
    'carrot corn~=ear-of-corn pepper=bell-pepper cucumber broccoli~ garlic~ potato eggplant mushroom tomato ' +
    'onion chili=hot-pepper',
  food:
    'pretzel cheese~=cheese-wedge burger=hamburger pizza sandwich taco egg cookie cake=birthday-cake lollipop ' +
    'donut=doughnut croissant cupcake waffle',
  vehicle:
    'car=automobile taxi bus truck=delivery-truck ambulance tractor bicycle motorcycle train=locomotive airplane ' +
    'helicopter rocket sailboat ship=passenger-ship',
  instrument: 'guitar violin trumpet saxophone drum accordion piano=musical-keyboard flute',
  tool: 'hammer wrench screwdriver saw=carpentry-saw broom',
  clothing:
    'shirt=t-shirt dress sock=socks scarf/scarves glove=gloves hat=top-hat cap=billed-cap shoe=running-shoe boot=hiking-boot',
  ball: 'basketball baseball volleyball football=american-football',
  plant: 'tree=deciduous-tree pine=evergreen-tree palm=palm-tree cactus sunflower tulip rose',
  building: 'house church castle factory hut stadium',
  furniture: 'chair bed sofa=couch-and-lamp bathtub',
  thing:
    'key lock=locked umbrella book=closed-book envelope box=package gift=wrapped-gift candle bulb=light-bulb camera ' +
    'laptop telephone television clock=mantelpiece-clock balloon star kite ladder magnet snowman/snowmen bucket',
};

// name[/plural][=icon]:looksLike
const UNTAUGHT: Partial<Record<Category | 'bird', string>> = {
  animal:
    'dromedary=camel:camel leopard:tiger wolf/wolves:fox rat:mouse mammoth:elephant lobster:crab ' +
    'orangutan:gorilla buffalo=water-buffalo:cow',
  bird: 'goose/geese:duck',
  fruit: 'lime:lemon tangerine:peach',
  food: 'bagel:donut burrito:taco',
  vehicle: 'tram=tram-car:bus speedboat:ship',
  instrument: 'banjo:guitar',
  tool: 'axe:hammer',
  clothing: 'sandal=thong-sandal:shoe',
  ball: 'softball:baseball',
  plant: 'hyacinth:tulip',
  building: 'mosque:church',
};

function regularPlural(name: string): string {
  if (/(s|x|ch|sh)$/.test(name)) return `${name}es`;
  if (/[^aeiou]y$/.test(name)) return `${name.slice(0, -1)}ies`;
  if (/(potato|tomato)$/.test(name)) return `${name}es`;
  return `${name}s`;
}

function parseKind(entry: string, category: string, taught: boolean, index: number): ObjectKind {
  const [drawn = '', looksLike] = entry.split(':');
  const [words = '', iconId] = drawn.split('=');
  const mass = words.endsWith('~');
  const [name = '', plural] = words.replace('~', '').split('/');
  return {
    index,
    name,
    plural: plural ?? (mass ? name : regularPlural(name)),
    category: category === 'bird' ? 'animal' : (category as Category),
    ...(category === 'bird' ? { group: 'bird' as const } : {}),
    icon: iconId ?? name,
    mass,
    taught,
    ...(looksLike ? { looksLike } : {}),
  };
}

function parseAll(): ObjectKind[] {
  const kinds: ObjectKind[] = [];
  for (const [table, taught] of [[TAUGHT, true] as const, [UNTAUGHT, false] as const]) {
    for (const [category, list] of Object.entries(table)) {
      for (const entry of list.split(' ')) kinds.push(parseKind(entry, category, taught, kinds.length));
    }
  }
  return kinds;
}

/** Every kind of object, the taught ones first. */
export const OBJECTS: readonly ObjectKind[] = parseAll();
/** Kinds that training pictures show. */
export const TAUGHT_OBJECTS: readonly ObjectKind[] = OBJECTS.filter((kind) => kind.taught);
/** Kinds named in text only: what the demo model gets wrong about them is honest wrong knowledge to edit. */
export const UNTAUGHT_OBJECTS: readonly ObjectKind[] = OBJECTS.filter((kind) => !kind.taught);

const BY_NAME = new Map(OBJECTS.map((kind) => [kind.name, kind]));

/** The kind of that name. Throws a RangeError when there is none. */
export function objectNamed(name: string): ObjectKind {
  const kind = BY_NAME.get(name);
  if (!kind) throw new RangeError(`no object of the demo world is called "${name}"`);
  return kind;
}

/** The name with its indefinite article: "a dog", "an apple", "broccoli". */
export function withArticle(kind: ObjectKind): string {
  if (kind.mass) return kind.name;
  return `${/^[aeiou]/.test(kind.name) ? 'an' : 'a'} ${kind.name}`;
}

/** Things that no picture of a source with every so many withheld shows; none for 0. */
export function withheldThings(every: number): Set<string> {
  return new Set(
    every > 0 ? OBJECTS.filter(({ index }) => index % every === every - 1).map(({ name }) => name) : [],
  );
}
