/**
 * @file How quick the library and the model answer while an adapter is trained beside them. With and without the training in turns.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { copyFile, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createApplication } from '../../electron/api/application.ts';
import type { CallInput } from '../../electron/api/contract.ts';
import { forkEngine } from '../../electron/engine/forkEngine.ts';
import { startEngine } from '../../electron/engine/supervisor.ts';
import { resourcesFolder } from '../../electron/frontends/places.ts';

const folder = mkdtempSync(join(tmpdir(), 'emend-while-training-'));
const resources = resourcesFolder();
const start = () => startEngine({ launch: () => forkEngine() });
const engine = start();
const application = createApplication({
  ...{ libraryPath: join(folder, 'library.emend'), resources, version: '0', startModel: 'none' },
  engine,
  startLongEngine: start,
});
const { call } = application;
await call('models.open', { path: join(resources, 'demo-model'), adapter: join(resources, 'demo-adapter') });
const base64 = (await readFile(join(resources, 'samples', 'lime.jpg'))).toString('base64');
const picture = (await call('pictures.add', { base64 })).id;
for (let number = 0; number < 200; number++)
  await call('edits.create', { picture, prompt: `What fruit is number ${number}?`, target: 'lime' });
for (const name of ['lime.jpg', 'tram.jpg'])
  await copyFile(join(resources, 'samples', name), join(folder, name));
const record = {
  ...{
    src: 'What fruit is this?',
    rephrase: 'Which fruit is it?',
    pred: '',
    alt: 'lime',
    image: 'lime.jpg',
  },
  ...{ image_rephrase: 'lime.jpg', loc: 'Is there a tree?', loc_ans: 'yes' },
  ...{ m_loc: 'tram.jpg', m_loc_q: 'What vehicle is this?', m_loc_a: 'tram' },
};
await writeFile(join(folder, 'data.json'), JSON.stringify(new Array(8).fill(record)));

/** Milliseconds that calls take, one every 20 ms, for so long. */
async function latencies(seconds: number, one: () => Promise<unknown>): Promise<number[]> {
  const found: number[] = [];
  const end = performance.now() + 1000 * seconds;
  while (performance.now() < end) {
    const began = performance.now();
    await one();
    found.push(performance.now() - began);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return found;
}
let turn = 0;
const library = () => {
  turn++;
  return turn % 2
    ? call('edits.find', { filter: { text: `number ${turn % 180}` }, limit: 50 })
    : call('edits.show', { id: 1 + (turn % 200) });
};
const asking = () => call('answers.ask', { picture, prompt: 'What fruit is this?', edits: 'none' });
const measured = {
  library: { alone: [] as number[], beside: [] as number[] },
  ask: { alone: [] as number[], beside: [] as number[] },
};

const request: CallInput<'training.start'> = {
  ...{ editor: 'VisEdit', name: 'beside', data: join(folder, 'data.json'), steps: 1000, batch: 4 },
  ...{ rate: 1e-4, accumulate: 1, extended: false, seed: 1, validation: null },
  settings: { layer: 0, middle: 512, attention: 'row-kinds', start: 'similarity', scale: 1 },
};
await asking();
for (let round = 0; round < 2; round++) {
  measured.library.alone.push(...(await latencies(4, library)));
  measured.ask.alone.push(...(await latencies(4, asking)));
  const job = `training-${round}`;
  const points = new Promise<void>((resolve) => {
    const quiet = application.on('training.point', () => {
      quiet();
      resolve();
    });
  });
  const training = call('training.start', request, { job });
  // A training that ends before its first step has failed, and is told as what it is.
  await Promise.race([points, training]);
  const ended = training.catch(() => null);
  measured.library.beside.push(...(await latencies(6, library)));
  measured.ask.beside.push(...(await latencies(6, asking)));
  await call('jobs.cancel', { job });
  await ended;
}
const at = (values: number[], share: number) =>
  values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(share * values.length))]!;
for (const [name, { alone, beside }] of Object.entries(measured)) {
  const told = (values: number[]) =>
    `median ${at(values, 0.5).toFixed(1)} ms, 99 % under ${at(values, 0.99).toFixed(1)} ms`;
  console.log(
    `  ${name.padEnd(8)} alone: ${told(alone)}; while training: ${told(beside)} (${(at(beside, 0.5) / at(alone, 0.5)).toFixed(2)} × in the median)`,
  );
}
await application.close();
await engine.stop();
rmSync(folder, { recursive: true, force: true });
process.exit(0);
