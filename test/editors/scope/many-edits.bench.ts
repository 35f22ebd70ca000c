/**
 * @file What a library of many edits costs: comparing keys, memory, and asking with 1,000 edits beside asking with one. Measured in
 * turns, because other work on the machine slows everything down.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { KeyBank, quantiseKey } from '../../../electron/editors/scope/keyBank.ts';
import { MemoryBank } from '../../../electron/editors/scope/memoryBank.ts';
import { OpenModel } from '../../../electron/engine/openModel.ts';
import { normalNumbers } from '../../support/checkpointFixtures.ts';

const normal = normalNumbers(1);
const randomKey = (width: number) => quantiseKey(Float32Array.from({ length: width }, () => normal()));
const median = (values: number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;
const least = (values: number[]) => Math.min(...values);

// Keys: one compared with 100,000, beside a plain loop over the same bytes.
const [count, width] = [100_000, 128];
const keys = new Int8Array(count * width).map(() => Math.round(40 * normal()));
const key = randomKey(width);
setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;
const memory = () => {
  collect();
  return process.memoryUsage.rss();
};
const before = memory();
const bank = new KeyBank(width);
for (let id = 0; id < count; id++) bank.add(id, keys.subarray(id * width, (id + 1) * width));
const bytes = (memory() - before) / count;
const [fast, plain]: [number[], number[]] = [[], []];
for (let round = 0; round < 30; round++) {
  let start = performance.now();
  bank.nearest(key, 8);
  fast.push(performance.now() - start);
  start = performance.now();
  let best = Number.NEGATIVE_INFINITY;
  for (let id = 0; id < count; id++) {
    let dot = 0;
    for (let i = 0; i < width; i++) dot += keys[id * width + i]! * key[i]!;
    best = Math.max(best, dot);
  }
  plain.push(performance.now() - start);
}
console.log(
  `  100,000 keys compared in ${least(fast).toFixed(2)} ms (median ${median(fast).toFixed(2)}), a plain loop in ${least(plain).toFixed(1)} ms: ${(least(plain) / least(fast)).toFixed(0)}×`,
);
console.log(`  resident memory of an edit: ${bytes.toFixed(0)} bytes`);

// Asking the demo model with banks of one edit and of 1,000.
const resources = fileURLToPath(new URL('../../../resources/', import.meta.url));
const model = await OpenModel.open(
  {
    path: join(resources, 'demo-model'),
    adapter: join(resources, 'demo-adapter'),
    providers: ['cpu'],
    template: 'plain',
  },
  { signal: new AbortController().signal, send: () => {} },
);
const { edited } = model;
const scope = edited.scope!;
const file = await readFile(join(resources, 'samples/scene-1.jpg'));
const visual = await edited.model.visualEmbeddings(await edited.model.pixelsOf(file));
const described = (await edited.describe(await edited.prepare(visual, 'What animal is this?')))!;
const bankOf = (size: number) => {
  const made = new MemoryBank(scope.keyWidth);
  for (let id = 0; id < size; id++) {
    const random = randomKey(scope.keyWidth);
    made.add(id, 'picture', { ...described, editKeys: { picture: random, thing: random } });
  }
  return made;
};
const start = performance.now();
const banks = { one: bankOf(1), thousand: bankOf(1000) };
const built = performance.now() - start;
const ask = async (of: MemoryBank) => {
  const from = performance.now();
  const prepared = await edited.prepare(visual, 'Where is the tree?');
  await edited.decide(prepared, of);
  await edited.answer(prepared, [], { maxNewTokens: 8 });
  return performance.now() - from;
};
const [one, thousand]: [number[], number[]] = [[], []];
for (let round = 0; round < 40; round++) {
  one.push(await ask(banks.one));
  thousand.push(await ask(banks.thousand));
}
console.log(
  `  asking with 1,000 edits takes ${(least(thousand) / least(one)).toFixed(3)}× asking with one (${least(thousand).toFixed(1)} and ${least(one).toFixed(1)} ms, ${scope.form} scope)`,
);
console.log(`  keys of 1,001 edits are ready in ${built.toFixed(0)} ms`);
await model.dispose();
