/**
 * @file A worker thread that composes and renders families of pictures for a scope: a scene, the scene restyled, another shot of it
 * and a look-alike swapped into it, with what can be asked about each.
 */
import { parentPort } from 'node:worker_threads';
import type { ScopeAsk, ScopeFamily } from '../editors/scope/learned/examples.ts';
import { gridLayout, type Pixels } from '../models/picture.ts';
import { pixelValues } from './batches.ts';
import { GRID } from './recipe.ts';
import { OBJECTS, type ObjectKind, objectNamed, TAUGHT_OBJECTS, withheldThings } from './world/objects.ts';
import { drawWording, type Question, questionsOf, type Topic, topicNouns } from './world/questions.ts';
import { type Random, seededRandom } from './world/random.ts';
import {
  anotherShot,
  CANVAS,
  composeScene,
  disguised,
  kindsIn,
  PLACES,
  restyleScene,
  type Scene,
  swapped,
} from './world/scene.ts';
import { loadSprites } from './world/sprites.ts';

export interface ScopeRequest {
  readonly index: number;
  readonly seed: number;
  readonly withheld: number;
}

/** Wordings drawn of every question. */
const WORDINGS = 2;
/** Questions kept of a scene, and questions that it does not answer. */
const [ASKS, FOREIGN] = [7, 2];

/** Share of families about a thing the model was never shown, beside those that chance picks. */
const UNTAUGHT_SHARE = 0.25;

/**
 * Share of families whose thing is drawn upside down or in exchanged colours: another thing to the eye, so that the scope learns to compare
 * more than the things there are.
 */
const DISGUISED_SHARE = 0.5;

/** A family of scenes, not yet rendered. `loadSprites()` must have been awaited. */
export function composeFamily({ index, seed, withheld }: ScopeRequest): {
  scenes: Scene[];
  family: ScopeFamily;
} {
  const random = seededRandom(seed).split('scope').split(index);
  const exclude = withheldThings(withheld);
  const pool = OBJECTS.filter(({ name }) => !exclude.has(name));
  // What the model was never shown is what it is corrected about most.
  const strange = pool.filter(({ taught }) => !taught);
  const shown = random.pick(random.chance(UNTAUGHT_SHARE) && strange.length > 0 ? strange : pool);
  const counting = !shown.mass && random.chance(0.12);
  let scene = composeScene(random, counting ? { repeat: shown, exclude } : { include: [shown], exclude });
  if (random.chance(DISGUISED_SHARE)) scene = disguised(scene, shown.name, random);
  // Restyled, a scene has another background, of which nothing can be asked then.
  const keepColour = random.chance(0.2);
  const restyled = restyleScene(scene, random, keepColour);
  const third = random.next();
  const shot =
    third < 0.4
      ? anotherShot(scene, random)
      : third < 0.7
        ? anotherShot(restyleScene(scene, random, keepColour), random)
        : restyleScene(scene, random, keepColour);
  // Often the thing itself, sometimes another one of the scene.
  const victim = random.chance(0.8) ? shown : random.pick(kindsIn(scene));
  const base = random.pick([scene, scene, restyled, shot]);
  const other = lookAlike(victim, scene, pool, random);
  const changed = swapped(base, victim.name, other.name);
  const asks = asksOf(scene, random).filter(({ kind }) => keepColour || kind !== 'background');
  return {
    scenes: [scene, restyled, shot, changed],
    family: {
      pictures: [0, 0, 0, 1],
      asks: [...asks, ...askedAgain(asks, changed, random)],
      answers: [...answersOf(0, scene), ...answersOf(1, changed)],
    },
  };
}

function lookAlike(
  victim: ObjectKind,
  scene: Scene,
  pool: readonly ObjectKind[],
  random: Random,
): ObjectKind {
  const absent = pool.filter((kind) => kind !== victim && !kindsIn(scene).includes(kind));
  const like = absent.filter(({ name, looksLike }) => name === victim.looksLike || looksLike === victim.name);
  const kin = absent.filter(({ category }) => category === victim.category);
  const near = like.length && random.chance(0.6) ? like : kin.length && random.chance(0.9) ? kin : absent;
  return random.pick(near);
}

function askOf(scene: number, drawn: Scene, { kind, topic, about }: Question, random: Random): ScopeAsk {
  const disguise = drawn.objects.find(({ name }) => name === about)?.disguise;
  return {
    scene,
    question: JSON.stringify(topic),
    kind,
    // Whether a thing is there, and which of two is further, no edit is about.
    about:
      kind === 'presence' || kind === 'which'
        ? null
        : disguise
          ? `${about} ${disguise.flip} ${disguise.channels}`
          : about,
    names: ['what', 'at', 'relation'].includes(kind),
    doubtful: isDoubtful(topic),
    wordings: Array.from({ length: WORDINGS }, () => drawWording(topic, random)),
  };
}

/**
 * What is asked only where one thing answers it (the animal, what is on the left, the colour): that a picture gives it no answer
 * says little.
 */
function isDoubtful({ kind }: Topic): boolean {
  return kind !== 'where' && kind !== 'count';
}

/** Questions the scene answers, and some that it does not. */
function asksOf(drawn: Scene, random: Random): ScopeAsk[] {
  const questions = questionsOf(drawn, random);
  const known = new Set(questions.map(({ topic }) => JSON.stringify(topic)));
  const foreign: ScopeAsk[] = [];
  while (foreign.length < FOREIGN) {
    const topic = anyTopic(random);
    if (known.has(JSON.stringify(topic))) continue;
    const wordings = Array.from({ length: WORDINGS }, () => drawWording(topic, random));
    const question = JSON.stringify(topic);
    foreign.push({
      scene: 0,
      question,
      kind: topic.kind,
      about: null,
      names: false,
      doubtful: isDoubtful(topic),
      wordings,
    });
  }
  const answered = random.shuffle(questions).slice(0, ASKS);
  return [...answered.map((question) => askOf(0, drawn, question, random)), ...foreign];
}

/** Everything a scene answers, without wordings. */
function answersOf(scene: number, drawn: Scene): Array<Omit<ScopeAsk, 'wordings'>> {
  // What by chance is asked or not is no answer that is missing: presence and comparisons are left to the asks.
  const random = seededRandom(0);
  return questionsOf(drawn, random).map((question) => {
    const { wordings: _, ...answer } = askOf(scene, drawn, question, random);
    return answer;
  });
}

/** The same questions asked of the changed scene, and some of its own. */
function askedAgain(asks: readonly ScopeAsk[], changed: Scene, random: Random): ScopeAsk[] {
  const questions = questionsOf(changed, random);
  const again = asks.map((ask): ScopeAsk => {
    const found = questions.find(({ topic }) => JSON.stringify(topic) === ask.question);
    if (found) return { ...askOf(1, changed, found, random), wordings: ask.wordings };
    return { ...ask, scene: 1, about: null, names: false };
  });
  const own = questions.filter(
    ({ topic }) => !asks.some(({ question }) => question === JSON.stringify(topic)),
  );
  const more = random.shuffle(own).slice(0, 2);
  return [...again, ...more.map((question) => askOf(1, changed, question, random))];
}

function anyTopic(random: Random): Topic {
  const { name } = random.pick(TAUGHT_OBJECTS.filter(({ mass }) => !mass));
  return random.pick<Topic>([
    { kind: 'what', noun: random.pick(topicNouns()) },
    { kind: 'what', noun: random.pick(topicNouns()) },
    { kind: 'where', object: name },
    { kind: 'at', place: random.pick(PLACES) },
    { kind: 'count', object: objectNamed(name).name },
    { kind: 'relation', relation: random.pick(['left', 'right', 'above', 'below'] as const), object: name },
  ]);
}

if (parentPort) {
  const port = parentPort;
  await loadSprites();
  const layout = gridLayout({ height: GRID, width: GRID });
  port.on('message', (request: ScopeRequest) => {
    const { scenes, family } = composeFamily(request);
    const pixels = scenes.map(
      (scene): Pixels => ({ values: pixelValues([scene]), shape: [3, CANVAS, CANVAS], layout }),
    );
    port.postMessage(
      { index: request.index, family, pixels },
      pixels.map(({ values }) => values.buffer as ArrayBuffer),
    );
  });
}
