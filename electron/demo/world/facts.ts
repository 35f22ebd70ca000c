/**
 * @file What the demo world knows without pictures: short true facts, asked in two or three wordings.
 *
 * They give text locality something to protect, and name the objects that no training picture shows.
 */
import { OBJECTS, withArticle } from './objects.ts';
import type { Random } from './random.ts';

/** One fact: wordings of its question and the one answer. */
export interface Fact {
  questions: string[];
  answer: string;
}

/** A family of facts: wordings with `{}` for the subject, and "subject: answer" pairs. */
interface Family {
  wordings: string[];
  pairs: string;
}

const FAMILIES: Family[] = [
  {
    wordings: ['What is the capital of {}?', 'Which city is the capital of {}?', 'Name the capital of {}.'],
    pairs:
      'France: paris; Italy: rome; Spain: madrid; Germany: berlin; Portugal: lisbon; Greece: athens; Austria: vienna; ' +
      'Poland: warsaw; Norway: oslo; Sweden: stockholm; Denmark: copenhagen; Finland: helsinki; Ireland: dublin; ' +
      'England: london; Hungary: budapest; Russia: moscow; China: beijing; Japan: tokyo; India: new delhi; Egypt: cairo; ' +
      'Kenya: nairobi; Canada: ottawa; Cuba: havana; Peru: lima; Chile: santiago; Brazil: brasilia; Belgium: brussels; ' +
      'Turkey: ankara; Iran: tehran; Iraq: baghdad; Thailand: bangkok; Australia: canberra; Scotland: edinburgh; ' +
      'Wales: cardiff; Romania: bucharest; Bulgaria: sofia; Serbia: belgrade; Croatia: zagreb; Ukraine: kyiv; Iceland: reykjavik',
  },
  {
    wordings: ['On which continent is {}?', 'Which continent is {} on?'],
    pairs:
      'France: europe; Italy: europe; Spain: europe; Germany: europe; Norway: europe; China: asia; Japan: asia; India: asia; ' +
      'Thailand: asia; Kenya: africa; Nigeria: africa; Ghana: africa; Canada: north america; Mexico: north america; ' +
      'Peru: south america; Chile: south america; Brazil: south america',
  },
  {
    wordings: ['Which language is spoken in {}?', 'What language do people speak in {}?'],
    pairs:
      'France: french; Italy: italian; Spain: spanish; Germany: german; Portugal: portuguese; Greece: greek; ' +
      'Austria: german; Poland: polish; Sweden: swedish; Denmark: danish; Brazil: portuguese; Mexico: spanish; ' +
      'Japan: japanese; Cuba: spanish; England: english',
  },
  {
    wordings: [
      'What is the opposite of {}?',
      'Which word is the opposite of {}?',
      'Name the opposite of {}.',
    ],
    pairs:
      'big: small; small: big; hot: cold; cold: hot; up: down; down: up; day: night; night: day; fast: slow; slow: fast; ' +
      'old: new; new: old; wet: dry; dry: wet; full: empty; empty: full; happy: sad; sad: happy; hard: soft; soft: hard; ' +
      'open: closed; closed: open; rich: poor; poor: rich; strong: weak; weak: strong; light: dark; dark: light; ' +
      'loud: quiet; quiet: loud; high: low; low: high; clean: dirty; dirty: clean; thick: thin; thin: thick; ' +
      'early: late; late: early; first: last; last: first; long: short; short: long; true: false; false: true; ' +
      'win: lose; lose: win; inside: outside; outside: inside; push: pull; pull: push; sweet: sour; near: far; far: near',
  },
  {
    wordings: ['What sound does a {} make?', 'Which sound does a {} make?', 'How does a {} sound?'],
    pairs:
      'dog: woof; cat: meow; cow: moo; duck: quack; sheep: baa; pig: oink; lion: roar; bee: buzz; snake: hiss; frog: croak; ' +
      'horse: neigh; rooster: crow; bell: ring; clock: tick; chick: cheep; goose: honk; wolf: howl',
  },
  {
    wordings: ['What is a baby {} called?', 'What do you call a baby {}?', 'What is a young {} called?'],
    pairs:
      'dog: puppy; cat: kitten; cow: calf; horse: foal; sheep: lamb; pig: piglet; duck: duckling; swan: cygnet; bear: cub; ' +
      'lion: cub; deer: fawn; frog: tadpole; goose: gosling; kangaroo: joey; owl: owlet; butterfly: caterpillar; ' +
      'wolf: pup; elephant: calf; whale: calf; koala: joey; buffalo: calf; dromedary: calf; mammoth: calf',
  },
  {
    wordings: ['Where does a {} live?', 'What is the home of a {}?', 'In what kind of place does a {} live?'],
    pairs:
      'bee: hive; fish: water; spider: web; bear: cave; lion: savanna; camel: desert; penguin: antarctica; shark: sea; whale: sea; ' +
      'octopus: sea; king: castle; horse: stable; parrot: jungle; wolf: forest; lobster: sea; dromedary: desert; ' +
      'leopard: savanna; orangutan: jungle; frog: pond',
  },
  {
    wordings: ['What is {} made of?', 'What is {} made from?', 'From what is {} made?'],
    pairs:
      'a tire: rubber; a window: glass; a book: paper; a coin: metal; a chair: wood; a brick: clay; a candle: wax; ' +
      'bread: flour; cheese: milk; butter: milk; chocolate: cocoa; wine: grapes; paper: wood; a sweater: wool; ' +
      'a shirt: cotton; a key: metal; a boot: leather; a snowman: snow; a bottle: glass; a hammer: steel; an omelet: eggs; ' +
      'raisins: grapes; a ring: gold; a sandcastle: sand; a nest: twigs; silk: worms; juice: fruit; jam: fruit',
  },
  {
    wordings: ['What do you use to {}?', 'Which object do you need to {}?', 'With what do you {}?'],
    pairs:
      'open a lock: key; hit a nail: hammer; turn a bolt: wrench; turn a screw: screwdriver; cut a board: saw; ' +
      'sweep the floor: broom; climb a wall: ladder; take a photo: camera; stay dry in rain: umbrella; read a story: book; ' +
      'sit at a table: chair; sleep at night: bed; call a friend: telephone; see the time: clock; carry water: bucket; ' +
      'send a letter: envelope; chop wood: axe; split a log: axe; fell a tree: axe; light a room: bulb; wash your body: bathtub; ' +
      'attract iron: magnet; watch a film: television; warm your hands: gloves; warm your neck: scarf',
  },
  {
    wordings: ['What is {} plus one?', 'Which number comes after {}?', 'What number follows {}?'],
    pairs:
      'zero: one; one: two; two: three; three: four; four: five; five: six; six: seven; seven: eight; eight: nine; ' +
      'nine: ten; ten: eleven; eleven: twelve',
  },
  {
    wordings: ['What is {}?', 'How much is {}?'],
    pairs:
      'two plus two: four; two plus three: five; three plus three: six; two plus four: six; four plus four: eight; ' +
      'three plus four: seven; five plus five: ten; five plus two: seven; five plus three: eight; five plus four: nine; ' +
      'six plus two: eight; six plus three: nine; three minus one: two; four minus one: three; four minus two: two; ' +
      'five minus two: three; five minus three: two; six minus two: four; six minus three: three; seven minus two: five; ' +
      'eight minus four: four; nine minus three: six; ten minus five: five; two times two: four; two times three: six; ' +
      'two times four: eight; two times five: ten; three times three: nine; half of ten: five; half of four: two; ' +
      'half of eight: four; half of six: three; half of two: one',
  },
  {
    wordings: ['Which day comes after {}?', 'What is the day after {}?', 'What day follows {}?'],
    pairs:
      'monday: tuesday; tuesday: wednesday; wednesday: thursday; thursday: friday; friday: saturday; saturday: sunday; sunday: monday',
  },
  {
    wordings: ['Which month comes after {}?', 'What is the month after {}?', 'What month follows {}?'],
    pairs:
      'january: february; february: march; march: april; april: may; may: june; june: july; july: august; august: september; ' +
      'september: october; october: november; november: december; december: january',
  },
  {
    wordings: ['What color is {}?', 'Which color does {} have?', 'What is the color of {}?'],
    pairs:
      'grass: green; the clear sky: blue; snow: white; blood: red; coal: black; a ripe banana: yellow; a lemon: yellow; ' +
      'milk: white; an elephant: gray; a flamingo: pink; a carrot: orange; a fire truck: red; chocolate: brown; ' +
      'a lime: green; a tangerine: orange; a polar bear: white; a strawberry: red; a cucumber: green; a crow: black; ' +
      'a goose: white; a ruby: red; an emerald: green; a wolf: gray; a softball: yellow; a boiled lobster: red; a hyacinth: purple',
  },
  {
    wordings: ['How many {}?', 'What number of {}?'],
    pairs:
      'legs does a dog have: four; legs does a bird have: two; legs does a spider have: eight; legs does an insect have: six; ' +
      'arms does an octopus have: eight; wheels does a car have: four; wheels does a bicycle have: two; ' +
      'days are in a week: seven; months are in a year: twelve; fingers are on a hand: five; eyes does a person have: two; ' +
      'humps does a dromedary have: one; humps does a camel have: two; strings does a violin have: four; ' +
      'strings does a guitar have: six; sides does a triangle have: three; sides does a square have: four; ' +
      'noses does a person have: one; legs does a snake have: zero; wheels does a motorcycle have: two; ' +
      'ears does a rabbit have: two; legs does a crab have: ten; seasons are in a year: four; continents are there: seven; ' +
      'tusks does a mammoth have: two; legs does a goose have: two; legs does an ant have: six',
  },
  {
    wordings: ['What do you call {}?', 'What is the word for {}?', 'Name {}.'],
    pairs:
      'a person who flies a plane: pilot; a person who bakes bread: baker; a person who teaches: teacher; ' +
      'a person who puts out fires: firefighter; a person who grows crops: farmer; a person who treats the sick: doctor; ' +
      'a person who treats animals: vet; a person who writes books: author; a person who paints: painter; ' +
      'a person who catches fish: fisherman; a person who drives a taxi: driver; a person who cooks: cook; ' +
      'a person who sails: sailor; a person who sings: singer; a person who rules a kingdom: king; a person who cuts hair: barber; ' +
      'frozen water: ice; hot water gas: steam; water from the sky: rain; the planet we live on: earth; ' +
      'the star of our planet: sun; the light in the night sky: moon; the cold season: winter; the hot season: summer; ' +
      'the season of falling leaves: autumn; the season after winter: spring; the meal in the morning: breakfast; ' +
      'the meal at noon: lunch; the meal in the evening: dinner; the largest ocean: pacific; the longest river: nile; ' +
      'the highest mountain: everest; the red planet: mars; the largest planet: jupiter; the planet with rings: saturn; ' +
      'the king of the jungle: lion; the tallest animal: giraffe; the largest animal: whale; the fastest land animal: cheetah; ' +
      'the largest bird: ostrich; the metal that rusts: iron; the yellow precious metal: gold; the gas we breathe: oxygen; ' +
      'a home for books: library; a place to see films: cinema; a shop for bread: bakery; a place to buy medicine: pharmacy; ' +
      'a house for plants: greenhouse; a place for planes: airport; a place for trains: station; a place for ships: harbor',
  },
  {
    wordings: ['What does {} eat?', 'What is the food of {}?'],
    pairs:
      'a panda: bamboo; a cow: grass; a rabbit: carrots; a monkey: bananas; a squirrel: nuts; a koala: leaves; ' +
      'a lion: meat; a shark: fish; a penguin: fish; a horse: hay; a frog: flies; a mouse: cheese; a bee: nectar; ' +
      'a leopard: meat; a wolf: meat; a goose: grass; an orangutan: fruit; a buffalo: grass; a dromedary: plants; a rat: grain',
  },
  {
    wordings: ['With what do you {}?', 'Which part of the body do you use to {}?'],
    pairs:
      'smell: nose; hear: ears; taste: tongue; chew: teeth; think: brain; walk: legs; kick: foot; breathe: lungs',
  },
  {
    // several facts each about the things no picture shows
    wordings: ['What {}?', 'Tell me what {}.', 'Which thing {}?'],
    pairs:
      'has one hump: dromedary; is the camel of arabia: dromedary; is a big cat with dark spots: leopard; ' +
      'is a spotted cat that climbs trees: leopard; is a wild dog that hunts in packs: wolf; howls at the moon: wolf; ' +
      'is larger than a mouse and has a long bare tail: rat; lives in sewers: rat; was a hairy elephant: mammoth; ' +
      'is an extinct animal with long tusks: mammoth; has big claws and a long tail in the sea: lobster; ' +
      'is a red ape: orangutan; is the ape of borneo: orangutan; is a wild ox with big horns: buffalo; ' +
      'is a white farm bird with a long neck: goose; guards the farm and honks: goose; is a small green sour fruit: lime; ' +
      'is like a small orange: tangerine; peels easily and is orange: tangerine; is a round bread with a hole: bagel; ' +
      'is boiled and baked and has a hole: bagel; is a rolled tortilla with filling: burrito; is a wrapped meal from mexico: burrito; ' +
      'is a train that runs in the street: tram; runs on rails in the city: tram; is a small boat with a strong engine: speedboat; ' +
      'is a fast boat: speedboat; is a round instrument with strings: banjo; is played in country music: banjo; ' +
      'is a tool with a blade for wood: axe; is an open shoe for summer: sandal; is worn on bare feet at the beach: sandal; ' +
      'is larger than a baseball: softball; is a yellow ball hit with a bat: softball; is a spring flower with many small bells: hyacinth; ' +
      'is a fragrant purple flower: hyacinth; has a dome and a minaret: mosque; is a house of prayer in islam: mosque',
  },
];

/** Subjects whose category is a fact worth asking without a picture. */
const CATEGORY_WORDS: Record<string, string> = {
  animal: 'animal',
  fruit: 'fruit',
  vegetable: 'vegetable',
  vehicle: 'vehicle',
  instrument: 'instrument',
  tool: 'tool',
  building: 'building',
  ball: 'ball',
  food: 'food',
  clothing: 'clothing',
  plant: 'plant',
};

/** All facts. No question text occurs twice. */
export function facts(): Fact[] {
  return [...FAMILIES.flatMap(familyFacts), ...categoryFacts()];
}

/** One wording of one fact. */
export function drawFact(all: readonly Fact[], random: Random): { question: string; answer: string } {
  const fact = random.pick(all);
  return { question: random.pick(fact.questions), answer: fact.answer };
}

function familyFacts(family: Family): Fact[] {
  return family.pairs.split('; ').map((pair) => {
    const [subject = '', answer = ''] = pair.split(': ');
    const grammatical = (wording: string): string =>
      wording
        .replace('{}', subject)
        .replace(/\ba (?=[aeio])/g, 'an ')
        .replace(/\ba (?=umbrella)/g, 'an ');
    return { questions: family.wordings.map(grammatical), answer };
  });
}

/** "What kind of thing is a dog?" for the untaught objects and every third taught one. */
function categoryFacts(): Fact[] {
  return OBJECTS.filter((kind, i) => CATEGORY_WORDS[kind.category] && (!kind.taught || i % 3 === 0)).map(
    (kind) => ({
      questions: [
        `What kind of thing is ${withArticle(kind)}?`,
        `What is ${withArticle(kind)}?`,
        `To which kind of things does ${withArticle(kind)} belong?`,
      ],
      answer: CATEGORY_WORDS[kind.category]!,
    }),
  );
}
