/**
 * @file `npm run demo:resources`: the demo pictures of the tray and the standing probes of a new library.
 * Pictures are composed from a seed of their own; what the tray says of the model is asked of the model.
 */
import { existsSync } from 'node:fs';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import sharp from 'sharp';
import { OpenModel } from '../engine/openModel.ts';
import { sameAnswer } from '../evaluation/exactMatch.ts';
import { generate } from '../models/generation.ts';
import { facts } from './world/facts.ts';
import { TAUGHT_OBJECTS, UNTAUGHT_OBJECTS } from './world/objects.ts';
import { drawQuestion, questionsOf, rephrase } from './world/questions.ts';
import { seededRandom } from './world/random.ts';
import { renderScene } from './world/render.ts';
import { composeScene, type Scene } from './world/scene.ts';
import { loadSprites } from './world/sprites.ts';

const resources = 'resources';
/** pixels a side; the model sees half of it in each direction */
const side = 240;
const seed = 20;

async function writePicture(scene: Scene, file: string): Promise<Buffer> {
  const rgb = Buffer.from(renderScene(scene, side));
  const bytes = await sharp(rgb, { raw: { width: side, height: side, channels: 3 } })
    .jpeg({ quality: 90 })
    .toBuffer();
  await writeFile(join(resources, file), bytes);
  return bytes;
}

await loadSprites();
const adapter = join(resources, 'demo-adapter');
const opened = await OpenModel.open(
  {
    path: join(resources, 'demo-model'),
    adapter: existsSync(join(adapter, 'adapter.json')) ? adapter : null,
    providers: ['cpu'],
    template: 'plain',
  },
  { signal: new AbortController().signal, send: () => {} },
);
const { model } = opened.edited;

async function ask(picture: Buffer, prompt: string): Promise<string> {
  const visual = await model.visualEmbeddings(await model.pixelsOf(picture));
  const input = await model.lay(model.prompts.encodePrompt({ prompt, image: true }), visual);
  return (await generate(model, await model.prefill(input), { maxNewTokens: 24 })).text;
}

/** What the model says once the edit acts that teaches it `target`. */
async function askEdited(picture: Buffer, prompt: string, target: string): Promise<string> {
  const visual = await opened.see(picture);
  const signal = await opened.edited.make({ visual, prompt, target });
  return (
    await opened.edited.answer(await opened.edited.prepare(visual, prompt), [signal], { maxNewTokens: 24 })
  ).text;
}

for (const folder of ['samples', 'probes']) {
  await rm(join(resources, folder), { recursive: true, force: true });
  await mkdir(join(resources, folder), { recursive: true });
}

interface Sample {
  file: string;
  title: string;
  prompts: string[];
  correction: string | null;
}
let samples: Sample[] = [];
/** titles of those an edit corrects */
const corrected = new Set<string>();
const random = seededRandom(seed);

/** Pictures of things the model was never shown: what it says about them is wrong, and worth an edit. */
for (const [index, kind] of random.split('order').shuffle(UNTAUGHT_OBJECTS).entries()) {
  for (let attempt = 0; attempt < 20; attempt++) {
    const stream = random.split(`unknown ${index} ${attempt}`);
    const scene = composeScene(stream, { include: [kind], count: 1 + (index % 3) });
    const questions = questionsOf(scene, stream);
    const question = questions.find(({ kind: asked, answer }) => asked === 'what' && answer === kind.name);
    if (!question) continue;
    const file = `samples/${kind.name.replaceAll(' ', '-')}.jpg`;
    const picture = await writePicture(scene, file);
    if (sameAnswer(await ask(picture, question.question), kind.name)) break;
    if (opened.edited.editor && sameAnswer(await askEdited(picture, question.question, kind.name), kind.name))
      corrected.add(kind.name);
    const others = questions.filter(({ about }) => about !== kind.name).slice(0, 2);
    samples.push({
      file,
      title: kind.name,
      prompts: [question.question, rephrase(question, stream), ...others.map((other) => other.question)],
      correction: kind.name,
    });
    break;
  }
}

// Those an edit corrects come first; eight are enough.
samples = samples.toSorted((a, b) => Number(corrected.has(b.title)) - Number(corrected.has(a.title)));
for (const { file } of samples.splice(8)) await rm(join(resources, file));

/** Pictures of things it knows. */
for (let index = 0; samples.length < 14; index++) {
  const stream = random.split(`known ${index}`);
  const scene = composeScene(
    stream,
    index % 3 === 0 ? { repeat: stream.pick(TAUGHT_OBJECTS.filter((kind) => !kind.mass)) } : { count: 3 },
  );
  const file = `samples/scene-${samples.length - 7}.jpg`;
  const picture = await writePicture(scene, file);
  const known: string[] = [];
  for (const { question, answer } of stream.shuffle(questionsOf(scene, stream))) {
    if (known.length < 4 && sameAnswer(await ask(picture, question), answer)) known.push(question);
  }
  // A picture it knows too little about is written over by the next.
  if (known.length < 3) continue;
  const names = [...new Set(scene.objects.map(({ name }) => name))];
  samples.push({ file, title: names.join(', '), prompts: known, correction: null });
}

interface StandingProbe {
  kind: 'text-locality' | 'image-locality';
  picture: string | null;
  prompt: string;
}
const probes: StandingProbe[] = [];
for (let index = 0; index < 24; index++) {
  const stream = random.split(`probe ${index}`);
  const scene = composeScene(stream, { count: 1 + (index % 4) });
  const file = `probes/${String(index + 1).padStart(2, '0')}.jpg`;
  await writePicture(scene, file);
  probes.push({ kind: 'image-locality', picture: file, prompt: drawQuestion(scene, stream).question });
}
for (const fact of random.split('facts').shuffle(facts()).slice(0, 12)) {
  probes.push({ kind: 'text-locality', picture: null, prompt: fact.questions[0]! });
}
const samePicture = [
  'What color is the background?',
  'Describe the picture.',
  'What is in the middle of the picture?',
  'Is there a dog in the picture?',
];

const json = (name: string, value: unknown) =>
  writeFile(join(resources, name), `${JSON.stringify(value, null, 2)}\n`);
await json('samples.json', samples);
await json('standing-probes.json', { probes, samePicture });
await opened.dispose();
console.log(`${samples.length} demo pictures, ${probes.length} standing probes`);
for (const { title, prompts, correction } of samples)
  if (correction)
    console.log(`${title}: ${prompts[0]}${corrected.has(title) ? ' (an edit corrects it)' : ''}`);
