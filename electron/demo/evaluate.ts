/**
 * @file `npm run demo:eval`: what the demo model answers on pictures it was never shown, by exact match of free generation,
 * and what it says of the things it was never taught. Writes evaluation.json beside the weights.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { EmendError } from '../errors.ts';
import { type Estimate, estimate } from '../evaluation/bootstrap.ts';
import { normaliseAnswer, sameAnswer } from '../evaluation/exactMatch.ts';
import { fingerprint } from '../models/checkpoint.ts';
import { generate } from '../models/generation.ts';
import type { Visual } from '../models/picture.ts';
import { VisionLanguageModel } from '../models/visionLanguageModel.ts';
import { facts } from './world/facts.ts';
import { UNTAUGHT_OBJECTS } from './world/objects.ts';
import {
  captionOf,
  QUESTION_KINDS,
  type Question,
  type QuestionKind,
  questionsOf,
  wordings,
} from './world/questions.ts';
import { seededRandom } from './world/random.ts';
import { scenePng } from './world/render.ts';
import { composeScene, type Scene, sceneNumber } from './world/scene.ts';
import { loadSprites } from './world/sprites.ts';
import { TYPING, typed } from './world/wordings.ts';

/** What the table tells, the kinds of question it joins, and the share it should reach. */
const rows = [
  { name: 'what, which', kinds: ['what', 'at'], target: 0.97 },
  { name: 'where', kinds: ['where'], target: 0.95 },
  { name: 'left, right, above, below', kinds: ['relation', 'which'], target: 0.95 },
  { name: 'how many', kinds: ['count'], target: 0.95 },
  { name: 'is there (yes, no)', kinds: ['presence'], target: 0.97 },
  { name: 'background', kinds: ['background'], target: null },
] as const satisfies ReadonlyArray<{ name: string; kinds: readonly QuestionKind[]; target: number | null }>;
const FACTS_TARGET = 0.99;

/** Answers of the demo world are short; captions name up to four objects with their places. */
const LONGEST = 64;

interface Mistake {
  readonly kind: string;
  readonly question: string;
  readonly answer: string;
  readonly expected: string;
}

/** A model that answers questions about scenes, each picture seen once and through a real picture file. */
class Answerer {
  readonly #model: VisionLanguageModel;
  #last: { scene: Scene; visual: Visual } | null = null;

  constructor(model: VisionLanguageModel) {
    this.#model = model;
  }

  async answer(scene: Scene | null, prompt: string): Promise<string> {
    const model = this.#model;
    const encoded = model.prompts.encodePrompt({ prompt, image: scene !== null });
    const input = await model.lay(encoded, scene && (await this.#see(scene)));
    const options = { maxNewTokens: LONGEST, alternatives: 1 };
    return (await generate(model, await model.prefill(input), options)).text;
  }

  async #see(scene: Scene): Promise<Visual> {
    if (this.#last?.scene !== scene) {
      const pixels = await this.#model.pixelsOf(await scenePng(scene));
      this.#last = { scene, visual: await this.#model.visualEmbeddings(pixels) };
    }
    return this.#last.visual;
  }
}

/** Tallies right and wrong by kind, and keeps the mistakes. */
class Tally {
  readonly scores = new Map<string, number[]>();
  readonly mistakes: Mistake[] = [];

  add(kind: string, question: string, expected: string, answer: string): void {
    const right = sameAnswer(answer, expected);
    this.scores.set(kind, [...(this.scores.get(kind) ?? []), Number(right)]);
    if (!right) this.mistakes.push({ kind, question, answer, expected });
  }

  of(kinds: readonly string[], seed: number): Estimate | null {
    return estimate(
      kinds.flatMap((kind) => this.scores.get(kind) ?? []),
      seed,
    );
  }
}

interface Sampled {
  readonly scene: Scene;
  readonly questions: readonly Question[];
}

/** Kinds whose answers come equally often, so that saying the most frequent one does not pay; and how many there are. */
const BALANCED: Partial<Record<QuestionKind, number>> = { count: 5, presence: 2 };

/** `each` questions of every kind on pictures of the series `test`, one of a kind for each picture. */
function sampleQuestions(seed: number, each: number): Sampled[] {
  const taken = new Map<string, number>();
  const room = (key: string, most: number) => (taken.get(key) ?? 0) < most;
  const sampled: Sampled[] = [];
  for (let index = 0; QUESTION_KINDS.some((kind) => room(kind, each)); index++) {
    if (index > 100 * each) throw new EmendError('internal', `There are no ${each} questions of every kind.`);
    const scene = sceneNumber('test', seed, index);
    const random = seededRandom(seed).split('questions').split(index);
    const questions: Question[] = [];
    for (const question of random.shuffle(questionsOf(scene, random))) {
      const { kind, answer } = question;
      const ofAnswer = `${kind}: ${answer}`;
      const most = Math.ceil(each / (BALANCED[kind] ?? 1));
      if (questions.some((other) => other.kind === kind)) continue;
      if (!room(kind, each) || (BALANCED[kind] && !room(ofAnswer, most))) continue;
      for (const key of [kind, ofAnswer]) taken.set(key, (taken.get(key) ?? 0) + 1);
      questions.push(question);
    }
    if (questions.length > 0) sampled.push({ scene, questions });
  }
  return sampled;
}

/** The same questions beside as they are, in wordings that no training asked, and typed as people do. */
const asked = ['taught', 'heldOut', 'newCore', 'typed'] as const;

async function askQuestions(answerer: Answerer, tally: Tally, seed: number, each: number): Promise<void> {
  for (const [index, { scene, questions }] of sampleQuestions(seed, each).entries()) {
    for (const { kind, question, answer, topic } of questions) {
      const random = seededRandom(seed).split(`wordings ${kind}`).split(index);
      for (const set of asked) {
        if (set !== 'taught' && (tally.scores.get(`${kind} ${set}`)?.length ?? 0) >= each / 2) continue;
        const text =
          set === 'taught'
            ? question
            : set === 'typed'
              ? typed(question, random.pick(TYPING))
              : random.pick(wordings(topic, set));
        const name = set === 'taught' ? kind : `${kind} ${set}`;
        tally.add(name, text, answer, await answerer.answer(scene, text));
      }
    }
  }
}

/** Share of a caption's words that stand where they should, beside whole captions in the tally. */
async function askCaptions(answerer: Answerer, tally: Tally, seed: number, count: number): Promise<number[]> {
  const shares: number[] = [];
  for (let index = 0; index < count; index++) {
    const scene = sceneNumber('test captions', seed, index);
    const { question, answer } = captionOf(scene, seededRandom(seed).split('captions').split(index));
    const said = await answerer.answer(scene, question);
    tally.add('caption', question, answer, said);
    const [words, right] = [said, answer].map((text) => normaliseAnswer(text).split(' '));
    const length = Math.max(words!.length, right!.length);
    shares.push(right!.filter((word, place) => words![place] === word).length / length);
  }
  return shares;
}

async function askFacts(answerer: Answerer, tally: Tally): Promise<void> {
  for (const { questions, answer } of facts()) {
    for (const question of questions)
      tally.add('fact', question, answer, await answerer.answer(null, question));
  }
}

interface UntaughtReport {
  readonly name: string;
  readonly looksLike: string | undefined;
  /** answers, most frequent first */
  readonly answers: ReadonlyArray<{ readonly answer: string; readonly count: number }>;
}

/** What the model calls each thing it was never shown, on pictures that show it alone. */
async function askUntaught(answerer: Answerer, seed: number, pictures: number): Promise<UntaughtReport[]> {
  const reports: UntaughtReport[] = [];
  for (const kind of UNTAUGHT_OBJECTS) {
    const counts = new Map<string, number>();
    for (let index = 0; index < pictures; index++) {
      const random = seededRandom(seed).split('untaught').split(kind.name).split(index);
      const scene = composeScene(random, { include: [kind], count: 1 });
      const question = questionsOf(scene, random).find((one) => one.kind === 'what' || one.kind === 'at');
      if (!question) continue;
      const answer = normaliseAnswer(await answerer.answer(scene, question.question));
      counts.set(answer, (counts.get(answer) ?? 0) + 1);
    }
    const answers = [...counts].map(([answer, count]) => ({ answer, count }));
    answers.sort((a, b) => b.count - a.count || (a.answer < b.answer ? -1 : 1));
    reports.push({ name: kind.name, looksLike: kind.looksLike, answers });
  }
  return reports;
}

interface TableRow extends Estimate {
  readonly name: string;
  /** share to reach */
  readonly target: number | null;
}

function printTable(table: readonly TableRow[]): void {
  console.log(`${''.padEnd(34)}${'right'.padStart(8)}   95 % interval    asked   to reach`);
  for (const { name, mean, low, high, count, target } of table) {
    const interval = `${percent(low)} – ${percent(high)}`;
    const goal = target === null ? '' : `${percent(target)}${mean < target ? '  missed' : ''}`;
    console.log(
      `${name.padEnd(34)}${percent(mean).padStart(8)}   ${interval.padEnd(17)}${String(count).padStart(5)}   ${goal}`,
    );
  }
}

function printMistakes(mistakes: readonly Mistake[], each: number): void {
  console.log('\nsome mistakes');
  const seen = new Map<string, number>();
  for (const { kind, question, answer, expected } of mistakes) {
    const count = (seen.get(kind) ?? 0) + 1;
    seen.set(kind, count);
    if (count <= each) console.log(`  ${question}  “${answer}”, right is “${expected}”`);
  }
}

const percent = (value: number) => `${(100 * value).toFixed(1)} %`;

/** Exact match of wordings that no training asked, by kind of question. */
function printWordings(tally: Tally, seed: number): void {
  console.log('\nby kind of question       taught   held out   new core   typed');
  for (const kind of QUESTION_KINDS) {
    const shares = asked.map(
      (set) => tally.of([set === 'taught' ? kind : `${kind} ${set}`], seed)?.mean ?? 0,
    );
    console.log(`  ${kind.padEnd(20)}${shares.map((share) => percent(share).padStart(10)).join('')}`);
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      model: { type: 'string', default: 'resources/demo-model' },
      out: { type: 'string' },
      seed: { type: 'string', default: '20260' },
      each: { type: 'string', default: '400' },
    },
  });
  const [seed, each] = [Number(values.seed), Number(values.each)];
  if (!Number.isSafeInteger(seed) || !Number.isSafeInteger(each) || each < 10 || each > 10_000) {
    throw new EmendError('invalid-input', '--seed takes a whole number, --each one from 10 to 10000.');
  }
  const started = performance.now();
  await loadSprites();
  const model = await VisionLanguageModel.open(values.model, { providers: ['cpu'] });
  try {
    const answerer = new Answerer(model);
    const tally = new Tally();
    await askQuestions(answerer, tally, seed, each);
    const captionWords = await askCaptions(answerer, tally, seed, Math.ceil(each / 2));
    await askFacts(answerer, tally);
    const untaught = await askUntaught(answerer, seed, 10);

    const table: TableRow[] = [
      ...rows.map(({ name, kinds, target }) => ({ name, target, ...tally.of(kinds, seed)! })),
      ...Object.entries({
        'wordings no training asked': 'heldOut',
        'the same, with new words': 'newCore',
        'typed otherwise': 'typed',
      }).map(([name, set]) => ({
        name,
        target: null,
        ...tally.of(
          QUESTION_KINDS.map((kind) => `${kind} ${set}`),
          seed,
        )!,
      })),
      { name: 'facts without a picture', target: FACTS_TARGET, ...tally.of(['fact'], seed)! },
      { name: 'captions, whole', target: null, ...tally.of(['caption'], seed)! },
      { name: 'captions, word by word', target: null, ...estimate(captionWords, seed)! },
    ];
    printTable(table);
    printMistakes(tally.mistakes, 3);
    printWordings(tally, seed);
    console.log('\nthings never taught, and what they are called');
    for (const { name, answers, looksLike } of untaught) {
      const said = answers.slice(0, 4).map(({ answer, count }) => `${answer} ×${count}`);
      console.log(`  ${name.padEnd(12)} (like a ${looksLike})`.padEnd(32), said.join(', '));
    }
    const seconds = (performance.now() - started) / 1000;
    console.log(`\n${seconds.toFixed(0)} s on ${model.provider}, seed ${seed}.`);

    const out = values.out ?? join(values.model, 'evaluation.json');
    const byKind = Object.fromEntries([...tally.scores.keys()].map((kind) => [kind, tally.of([kind], seed)]));
    const report = {
      ...{ metric: 'exact match of free generation', pictures: 'held out: series "test", never trained on' },
      ...{ model: await fingerprint(model.checkpoint), provider: model.provider, seed, each },
      ...{ table, byKind, untaught, mistakes: tally.mistakes },
    };
    await writeFile(out, `${JSON.stringify(report, null, 1)}\n`);
    console.log(`Written to ${out}.`);
  } finally {
    await model.dispose();
  }
}

try {
  await main();
} catch (error) {
  console.error(error instanceof EmendError ? error.message : error);
  process.exitCode = 1;
}
